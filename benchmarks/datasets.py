"""Datasets for the benchmarks, and the bound that most of them share: decoding only."""

from __future__ import annotations

import csv
import multiprocessing
import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

FORMATS = ("JPEG",) * 7 + ("PNG",) * 2 + ("WEBP",)
SIZES = ((1024, 1024), (1024, 1536), (1600, 1200))  # as resize.py leaves them
DIFFERENT = 30  # images drawn; the others are copies under other names
# The decisions of the earlier stages, in the ledgers made here.
DECIDED = {"is_nsfw": "False", "nsfw_override": "", "has_ocr": "False", "ocr_override": "", "ocr_inpainted_path": ""}


def make_images(folder: Path, count: int) -> None:
    """Write `count` image files of 1 to 2 megapixels: of every ten seven JPEGs, two PNGs and one WebP."""
    chance = random.Random(4)
    folder.mkdir(parents=True)
    for number in range(count):
        form = FORMATS[number % len(FORMATS)]
        path = folder / f"{number:05}.{form.lower()}"
        if number >= DIFFERENT:
            shutil.copyfile(folder / f"{number % DIFFERENT:05}.{form.lower()}", path)
            continue
        image = Image.new("RGB", SIZES[number % len(SIZES)], "white")
        draw = ImageDraw.Draw(image)
        for _ in range(200):
            x, y, r = chance.randrange(image.width), chance.randrange(image.height), chance.randrange(10, 150)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(chance.randrange(256) for _ in "rgb"))
        grain = Image.effect_noise(image.size, 20).convert("RGB")
        Image.blend(image.filter(ImageFilter.GaussianBlur(2)), grain, 0.15).save(path, form, quality=92)


def write_ledger(root: Path, images: Path, column: str) -> None:
    """Write a ledger in which every file of a folder is pending for the stage that reads `column`."""
    paths = sorted(images.iterdir())
    rows = [{"image_id": f"{number:032x}", column: path.relative_to(root)} for number, path in enumerate(paths)]
    write_csv(root / "metadata/images.csv", (row | DECIDED for row in rows), ["image_id", column, *DECIDED])


def write_csv(path: Path, rows: Iterable[Mapping[str, object]], columns: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def on_all_cores(work: Callable[[Path], object], folder: Path) -> None:
    """Call `work` with each file of a folder, in one process per core."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        for _ in pool.imap_unordered(work, sorted(folder.iterdir()), chunksize=8):
            pass


def decode_file(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
