"""Datasets that are ready to be scored, and stand-in servers that answer by the size of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo.standins.openai_standin import StandIn, run_server

KEY = "sk-test-0123456789abcdef"
FIRST_WIDTH = 100


def judge_by_width(image: Image.Image) -> dict[str, Any]:
    """Return scores that tell which of the pictures of `ready` was seen."""
    number = image.width - FIRST_WIDTH
    return {"relevance": 90, "aesthetic": 50 + number % 50, "artifact": "none"}


@pytest.fixture
def ready(dataset: Any) -> Callable[[int], list[str]]:
    """Fill the dataset with so many images that wait for a score, and return their ids."""

    def fill(count: int) -> list[str]:
        ids = [f"{number:032x}" for number in range(count)]
        rows = []
        for number, image_id in enumerate(ids):
            path = Path("data_stage/resized/001-150/0001_umbreon") / f"{image_id}.png"
            (dataset.root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (FIRST_WIDTH + number, 80), "teal").save(dataset.root / path)
            rows.append({"image_id": image_id, "is_nsfw": False, "has_ocr": False, "path_resized": path})
        dataset.write_images(rows)
        return ids

    return fill


@pytest.fixture
def stand_in() -> Iterator[Callable[..., StandIn]]:
    """Start a stand-in with options of its own: `stand_in(failures=["refusal"])`; it keeps the requests."""
    with ExitStack() as stack:

        def start(**options: Any) -> StandIn:
            options = {"judge": judge_by_width, "keep": True, "retry_after": "0.01"} | options
            return stack.enter_context(run_server(StandIn(**options)))

        yield start


@pytest.fixture
def environment() -> Callable[[StandIn], dict[str, str]]:
    """Return the environment variables that lead to a stand-in."""
    return lambda server: {"OPENAI_BASE_URL": server.address, "OPENAI_API_KEY": KEY}
