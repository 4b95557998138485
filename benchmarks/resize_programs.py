"""The images that benchmarks/resize.py resizes, and the programs that it compares resize.py with."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

# Of every ten files six are JPEGs, three PNGs and one WebP; of every ten sizes three are too small, four are kept and
# three too large.
FORMATS = ("JPEG", "PNG", "JPEG", "JPEG", "WEBP", "JPEG", "PNG", "JPEG", "PNG", "JPEG")
SMALL = ((600, 800), (1000, 720), (850, 1200))
KEPT = ((1200, 1200), (1448, 1024), (1240, 1754), (1920, 1080))
LARGE = ((2480, 3508), (3000, 2400), (5000, 4200))
SIZES = (*SMALL, *KEPT, *LARGE)
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
SOURCE_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 90}, "PNG": {}, "WEBP": {"quality": 85}}

MIN_SIDE, MAX_SHORT, MAX_LONG = 1024, 2048, 4096
LOOPED = 20  # files for the simple loops: every size twice, every format
BARED = 100  # files for the minimal program: it takes three times as long as libvips

STRONGEST: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4", "optimize": True},
    "PNG": {"compress_level": 9},
    "WEBP": {"quality": 95, "method": 6},
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "PNG": {},
    "WEBP": {"quality": 95},
}


def make_pictures(folder: Path, different: int, count: int) -> None:
    """Draw `different` files of the demo's art, half of them with paper grain, and copy them up to `count`."""
    folder.mkdir(parents=True)
    with multiprocessing.get_context("spawn").Pool() as pool:
        drawn = pool.map(partial(make_picture, folder), range(min(different, count)), chunksize=1)
    for number in range(different, count):
        first = drawn[number % different]
        shutil.copyfile(first, folder / f"{number:05}{first.suffix}")


def make_picture(folder: Path, number: int) -> Path:
    from demo.art.creatures import SPECIES
    from demo.art.draw import Plan, compose
    from demo.art.scenes import SCENES

    form = FORMATS[number % len(FORMATS)]
    size = SIZES[(number // len(FORMATS) + 3 * number) % len(SIZES)]
    species = SPECIES[number % len(SPECIES)]
    drawn = size if max(size) < 2000 else (size[0] // 2, size[1] // 2)
    plan = Plan(species, number, "plain", "", form, drawn, scene=list(SCENES)[number % len(SCENES)])
    image = compose(plan, 5, scale=1).resize(size, Image.Resampling.BICUBIC)
    if number // 2 % 2:
        image = Image.blend(image, Image.effect_noise(size, 40).convert("RGB"), 0.06)
    path = folder / f"{number:05}.{SUFFIXES[form]}"
    image.save(path, form, **SOURCE_OPTIONS[form])
    return path


def target_size(width: int, height: int) -> tuple[int, int]:
    short, long = sorted((width, height))
    factor = min(max(1, MIN_SIDE / short), MAX_SHORT / short, MAX_LONG / long)
    return max(1, round(width * factor)), max(1, round(height * factor))


def plain_loop(options: dict[str, dict[str, Any]], source: Path, out: Path) -> int:
    """Open, resize and save the first LOOPED files, one after the other."""
    files = sorted(source.iterdir())[:LOOPED]
    for path in files:
        image: Image.Image = Image.open(path)
        form = str(image.format)
        size = target_size(*image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        image.save(out / path.name, form, **options[form])
    return len(files)


def on_all_cores(resize_file: Callable[[Path, Path], object], source: Path, out: Path, most: int | None = None) -> int:
    """Call `resize_file` with each of up to `most` files and the output folder, in one process per core."""
    os.environ["VIPS_CONCURRENCY"] = "1"
    files = sorted(source.iterdir())[:most]
    with multiprocessing.get_context("spawn").Pool() as pool:
        for _ in pool.imap_unordered(partial(resize_file, out), files, chunksize=1):
            pass
    return len(files)


def bare(out: Path, path: Path) -> None:
    """Decode, resample and encode with Pillow what needs it; kept files are decoded and linked."""
    image = Image.open(path)
    form = str(image.format)
    size = target_size(*image.size)
    if size == image.size:
        image.draft(image.mode, (1, 1))
        image.load()
        os.link(path, out / path.name)
        return
    kernel = Image.Resampling.BOX if 2 * size[0] < image.width else Image.Resampling.BICUBIC
    image.resize(size, kernel).save(out / path.name, form, **DEFAULTS[form])


def vips(out: Path, path: Path, *, check: bool, png: dict[str, Any]) -> None:
    """Do the same with libvips: shrink on load, cubic kernel up, the same encoders; `check` decodes kept files."""
    import pyvips

    image = pyvips.Image.new_from_file(str(path), access="sequential")
    size = target_size(image.width, image.height)
    if size == (image.width, image.height):
        if check:
            image.avg()
        os.link(path, out / path.name)
        return
    if size < (image.width, image.height):
        made = pyvips.Image.thumbnail(str(path), size[0], height=size[1], size="force")
    else:
        made = image.resize(size[0] / image.width, vscale=size[1] / image.height, kernel="cubic")
    options = {
        ".jpg": {"Q": 95, "subsample_mode": "off"},
        ".png": png,
        ".webp": {"Q": 95, "effort": 4},
    }
    made.write_to_file(str(out / path.name), keep="none", **options[path.suffix])


VIPS_PNG = {"compression": 6}  # libvips' default, about the size of resize.py's output
VIPS_PNG_TUNED = {"compression": 3, "filter": "avg"}  # the same size, in half the time for images with grain

PROGRAMS: dict[str, Callable[[Path, Path], int]] = {
    "plain-strongest": partial(plain_loop, STRONGEST),
    "plain-defaults": partial(plain_loop, DEFAULTS),
    "bare": partial(on_all_cores, bare, most=BARED),
    "vips": partial(on_all_cores, partial(vips, check=True, png=VIPS_PNG)),
    "vips-tuned": partial(on_all_cores, partial(vips, check=True, png=VIPS_PNG_TUNED)),
    "vips-copying": partial(on_all_cores, partial(vips, check=False, png=VIPS_PNG)),
}


# Each encoding: format, and the arguments of Pillow's `save`; None is resize.py's own PNG writer.
ENCODINGS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "JPEG 95, 4:4:4": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    "JPEG 95, 4:2:0": ("JPEG", {"quality": 95, "subsampling": "4:2:0"}),
    "JPEG 95, 4:4:4, optimize": ("JPEG", {"quality": 95, "subsampling": "4:4:4", "optimize": True}),
    "PNG, zlib-ng, level 3": ("PNG", None),
    "PNG, Pillow, level 3": ("PNG", {"compress_level": 3}),
    "PNG, Pillow, level 6": ("PNG", {"compress_level": 6}),
    "PNG, Pillow, level 9": ("PNG", {"compress_level": 9}),
    "WebP 95, method 4": ("WEBP", {"quality": 95, "method": 4}),
    "WebP 95, method 0": ("WEBP", {"quality": 95, "method": 0}),
    "WebP 95, method 6": ("WEBP", {"quality": 95, "method": 6}),
}


def try_encodings(source: Path, most: int) -> dict[str, tuple[float, int, int]]:
    """Encode up to `most` images of each format in every way; return processor seconds, bytes and pixels."""
    from preprocess.resize.convert import PNG_LEVEL
    from preprocess.resize.png import encode_png

    encode_png(Image.new("RGB", (8, 8)), PNG_LEVEL)  # loads its libraries, which is not measured
    results: dict[str, tuple[float, int, int]] = {}
    for form in SUFFIXES:
        paths = [path for path in sorted(source.iterdir()) if path.suffix == f".{SUFFIXES[form]}"][:most]
        images = [Image.open(path).resize((1024, 1280), Image.Resampling.BICUBIC) for path in paths]
        for name, (other, options) in ENCODINGS.items():
            if other != form:
                continue
            size, began = 0, time.process_time()
            for image in images:
                if options is None:
                    size += len(encode_png(image, PNG_LEVEL))
                else:
                    stream = io.BytesIO()
                    image.save(stream, form, **options)
                    size += len(stream.getvalue())
            pixels = sum(image.width * image.height for image in images)
            results[name] = (time.process_time() - began, size, pixels)
    return results


def run(program: str, source: str, out: str) -> dict[str, float]:
    """Run one of PROGRAMS on a folder of image files; return the number of images and the seconds."""
    began = time.perf_counter()
    done = PROGRAMS[program](Path(source), Path(out))
    return {"done": done, "seconds": time.perf_counter() - began}
