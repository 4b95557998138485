"""A real Chromium, and review pages made by metadata/review.py for it to open."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

# Names another browser of the family, by its path.
VARIABLE = "POKEFA_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = f"no Chromium here: apt-get install chromium, or name one in {VARIABLE}"

SPECIES = ("Gengar", "Eevee", "Mr. Mime", "Pikachu")


def find_chromium() -> str | None:
    """Return the path of the browser, or None where there is none.

    Raises:
        FileNotFoundError: the variable names a file that is not there.
    """
    named = os.environ.get(VARIABLE)
    if named and not Path(named).is_file():
        raise FileNotFoundError(f"{VARIABLE} names {named}, which is no file")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    path = find_chromium()
    if path is None:
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    # Chromium's sandbox does not start for root; the pages that it opens here are the project's own.
    root = os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@pytest.fixture
def window(chromium: Any) -> Iterator[Any]:
    """A browser window without a network, whose clipboard can be read; a test with an error in its page fails."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True, offline=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(100_000)
    errors: list[str] = []
    asked: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("console", lambda message: errors.append(message.text) if is_error(message) else None)
    context.on("request", lambda request: asked.append(request.url))
    yield context
    context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def is_error(message: Any) -> bool:
    """Tell whether a page has complained; of a file that is not there only some tests know whether it should be."""
    return message.type == "error" and "ERR_FILE_NOT_FOUND" not in message.text


@pytest.fixture
def open_page(window: Any) -> Callable[..., Any]:
    """Open the page of a stage in the window, and wait until its images are there."""

    def open_(root: Path, stage: str) -> Any:
        page = window.new_page()
        page.goto((root / f"metadata/review-{stage}.html").as_uri())
        page.wait_for_selector("[role=gridcell]")
        return page

    return open_


def draw(path: Path, number: int, size: tuple[int, int] = (120, 90)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, 120))
    ImageDraw.Draw(image).text((8, 8), str(number), fill=(255, 255, 255))
    image.save(path)


def image_id(number: int) -> str:
    return hashlib.md5(f"picture {number}".encode()).hexdigest()


def write_flagged(dataset: Any, count: int, files: int | None = None) -> list[str]:
    """Write a ledger of images flagged as NSFW, and their pictures; return the ids in the order of the page.

    Args:
        files: how many different pictures there are; as many as images by default.
    """
    rows = []
    for number in range(count):
        picture = f"data_raw/{number % (files or count):05d}.png"
        if not (dataset.root / picture).exists():
            draw(dataset.root / picture, number)
        score = round(0.5 + 0.4 * number / count, 5)
        tag = ("rating:explicit", "rating:questionable")[number % 2]
        rows.append(
            {
                "image_id": image_id(number),
                "species": SPECIES[number % len(SPECIES)],
                "title": f"picture {number}",
                "path_raw": picture,
                "is_nsfw": "True",
                "nsfw_score": score,
                "nsfw_tags": json.dumps({tag: score}),
                "nsfw_threshold": json.dumps({tag: 0.5}),
            }
        )
    dataset.write_images(rows)
    return [str(row["image_id"]) for row in rows]


@pytest.fixture
def flagged(dataset: Any) -> list[str]:
    """Forty flagged images and their page."""
    ids = write_flagged(dataset, 40)
    finished = dataset.run("metadata/review.py", "--stage", "nsfw")
    assert finished.code == 0, finished.stderr
    return ids
