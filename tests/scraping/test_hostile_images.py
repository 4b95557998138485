"""Hostile images among good ones: each ends with a status of its own, and the good ones are saved as ever."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from pokefa.images.formats import SUFFIXES
from tests.attack import images
from tests.conftest import CHECKOUT, Dataset, run_command
from tests.scraping.conftest import Site, picture

SCRIPT = "scraping/scrape.py"


@pytest.fixture
def dataset(dataset: Dataset) -> Dataset:
    (dataset.root / "quotas").mkdir()
    (dataset.root / "quotas/quotas.csv").write_text("rank,name,band,weight,quota\n1,Umbreon,001-150,1,9\n")
    return dataset


def arguments(dataset: Dataset, site: Site, paths: Iterable[str]) -> list[str]:
    """Return the command that gets these paths of the site."""
    listed = dataset.root / "list.csv"
    with listed.open("w", newline="") as stream:
        csv.writer(stream).writerows([["source_url", "species"], *([site.url(path), "Umbreon"] for path in paths)])
    return [SCRIPT, "--root", str(dataset.root), "--from-urls", str(listed), "--allow-private", "--per-host", "64"]


def statuses(dataset: Dataset) -> dict[str, str]:
    lines = (dataset.root / "data_raw/001-150/0001_umbreon/urls.jsonl").read_text().splitlines()
    return {json.loads(line)["url"].rpartition("/")[2]: json.loads(line)["status"] for line in lines}


def test_hostile_images_cost_themselves_alone(dataset: Dataset, site: Site) -> None:
    slow = images.bmp_run_length(9_900)
    hostile = {
        "slow-1.bmp": (slow, "decode_timeout"),
        "slow-2.bmp": (slow + b"\0", "decode_timeout"),
        "scans.jpg": (images.jpeg_with_scans(500, 1000), "too_many_scans"),
        "comments.jpg": (images.jpeg_with(images.jpeg_segment(0xFE) * 100_000), "too_many_segments"),
        "texts.png": (images.png_with(images.png_chunk(b"tEXt", b"a\0b") * 200_000), "too_many_chunks"),
        "bomb.webp": (images.webp_of_one_colour(12_000), "too_many_pixels"),
        "photo.heic": (images.NOT_READ["HEIC"], "unsupported_format"),
    }
    good = {f"{number}.png": picture(number) for number in range(10)}
    good |= {f"picture.{SUFFIXES[form]}": picture(99, form=form) for form in SUFFIXES}
    for name, content in {**{name: content for name, (content, _) in hostile.items()}, **good}.items():
        site.add(f"/{name}", content)
    command = arguments(dataset, site, [*(f"/{name}" for name in hostile), *(f"/{name}" for name in good)])
    done = run_command([*command, "--deadline", "10", "--decode-seconds", "0.5"])
    assert done.code == 0, done.stderr
    assert statuses(dataset) == {name: slug for name, (_, slug) in hostile.items()} | dict.fromkeys(good, "saved")
    rows = dataset.images().values()
    for form, suffix in SUFFIXES.items():
        (row,) = [row for row in rows if row["source_url"].endswith(f"picture.{suffix}")]
        assert (row["fmt"], Path(row["path_raw"]).suffix) == (form, f".{suffix}")
        assert (dataset.root / row["path_raw"]).read_bytes() == good[f"picture.{suffix}"], "byte for byte"


def test_caps_follow_the_flags(dataset: Dataset, site: Site) -> None:
    site.add("/scans.jpg", images.jpeg_with_scans(200, 300))
    command = arguments(dataset, site, ["/scans.jpg"])
    assert run_command(command).summary["counts"] == {"too_many_scans": 1}
    again = run_command([*command, "--retry-errors", "--max-scans", "200"])
    assert again.summary["counts"] == {"saved": 1}


def test_a_stop_does_not_wait_for_a_decode(dataset: Dataset, site: Site) -> None:
    """The image would take minutes; it is not settled, and the next run tries it again."""
    site.add("/good.png", picture(1))
    site.add("/slow.jpg", images.jpeg_with_scans(3_000, 6_000))
    command = arguments(dataset, site, ["/good.png", "/slow.jpg"])
    run = subprocess.Popen(
        [sys.executable, *command, "--decode-seconds", "3000", "--max-scans", "5000", "--max-segments", "9999"],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = dataset.root / "data_raw/001-150/0001_umbreon/urls.jsonl"
    while not (log.exists() and "saved" in log.read_text()) or len(site.requests) < 2:
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    stdout, stderr = run.communicate()
    assert run.returncode == 130, stderr
    assert json.loads(stdout.splitlines()[-1])["counts"] == {"saved": 1}
    assert statuses(dataset) == {"good.png": "saved"}
