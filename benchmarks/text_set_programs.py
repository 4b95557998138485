"""Runs the text stage on the images of benchmarks/text_set.py, in the environment of the ocr stage.

    python -m benchmarks.text_set_programs find --set /tmp/judge --out found.json
    python -m benchmarks.text_set_programs facts --set /tmp/choose --out facts.json

`find` runs the stage's own code, paints over with OpenCV and detects again. `facts` writes the facts of each polygon
that the detector proposes, for benchmarks/fit_plausibility.py: image, mark (0: none) and numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preprocess.ocr.detect import LEAST_LIKELY, LEAST_SCORE, TextRules, doubt_about, find_text
from preprocess.ocr.inpaint import paint_over
from preprocess.ocr.inpainters import InpainterModel, load_inpainter
from preprocess.ocr.models import Detector, Reader, load_detector, load_reader
from preprocess.ocr.plausibility import describe_reading, describe_shapes, plausibility, shares
from preprocess.ocr.polygons import TextPolygon, area_frac, draw_mask
from preprocess.ocr.views import Looks

# A mark is found when the mask covers at least this share of its ink.
FOUND = 0.5

# A polygon belongs to a mark when this share of it is that mark's ink.
LEAST_INK = 0.05

# A polygon that covers at least this share of a mark explains why it was rejected.
OVER = 0.3

RULES = TextRules()


@cache
def models() -> tuple[Detector, Reader]:
    return load_detector(None, LEAST_SCORE, Looks())[0], load_reader()


def open_picture(folder: Path, number: int, suffix: str = "") -> Image.Image:
    return Image.open(folder / f"{number:03}{suffix}.png").convert("L" if suffix in ("_ink", "_figure") else "RGB")


def filled(polygon: TextPolygon, size: tuple[int, int], dilate: float = 0.0) -> NDArray[np.bool_]:
    return np.asarray(draw_mask([polygon], size, dilate)) > 0


def facts(label: dict[str, Any], folder: Path) -> list[list[Any]]:
    """Return (image, mark or 0, facts) of each polygon that matches a mark, or touches none."""
    detector, reader = models()
    image = open_picture(folder, label["number"])
    ink = np.asarray(open_picture(folder, label["number"], "_ink")) if label["marks"] else np.zeros(image.size[::-1])
    polygons = sorted(detector(image), key=lambda polygon: (-polygon.score, polygon.scale, polygon.points))
    rows = []
    for polygon, shape in zip(polygons, describe_shapes(polygons, shares(polygons), image.size), strict=True):
        inside = ink[filled(polygon, image.size)]
        mark = max(range(1, len(label["marks"]) + 1), key=lambda each: (inside == each).sum(), default=0)
        covered = (inside == mark).mean() if mark else 0.0
        if 0 < covered < LEAST_INK:
            continue
        facts = shape + describe_reading(*reader(image, [polygon])[0], shape)
        rows.append([label["number"], mark if covered else 0, [round(float(each), 5) for each in facts]])
    return rows


def find(label: dict[str, Any], paint: bool, *, folder: Path) -> dict[str, Any]:
    """Return what the stage finds and masks in an image, and what remains after painting over."""
    detector, reader = models()
    image = open_picture(folder, label["number"])
    began = time.thread_time()
    seen = detector(image)
    polygons, _ = find_text(image, lambda _: seen, RULES, reader)
    mask = draw_mask(polygons, image.size, RULES.dilate, image)
    seconds = time.thread_time() - began
    found: dict[str, Any] = {
        "ground": label["ground"],
        "seconds": seconds,
        "masked": area_frac(mask),
        "boxes_masked": area_frac(draw_mask(polygons, image.size, RULES.dilate)),
        "doubt": doubt_about(polygons, area_frac(mask), RULES),
        "marks": [],
    }
    touched = np.asarray(mask) > 0
    figure = np.asarray(open_picture(folder, label["number"], "_figure")) > 0
    found["figure_touched"] = float(touched[figure].mean()) if figure.any() else 0.0
    if not label["marks"]:
        return found
    ink = np.asarray(open_picture(folder, label["number"], "_ink"))
    for number, mark in enumerate(label["marks"], start=1):
        covered = float(touched[ink == number].mean())
        why = "found" if covered >= FOUND else rejection(seen, ink == number, image, reader)
        found["marks"].append({**mark, "covered": covered, "why": why})
    if paint and polygons:
        clean = np.asarray(open_picture(folder, label["number"], "_clean")).astype(int)
        opencv = load_inpainter(InpainterModel("opencv", "opencv"), 1)
        for name, holes in (("strokes", mask), ("boxes", draw_mask(polygons, image.size, RULES.dilate))):
            painted = paint_over(image, holes, opencv, coarse_to_fine=False)
            error = np.abs(np.asarray(painted).astype(int) - clean).mean(axis=2)
            again, _ = find_text(painted, detector, RULES, reader)
            left = np.asarray(draw_mask(again, image.size, RULES.dilate)) > 0
            found[name] = {
                "error_inside": float(error[ink > 0].mean()),
                "error_outside": float(error[ink == 0].mean()),
                "still_found": [
                    float(left[ink == number].mean()) >= FOUND for number in range(1, len(label["marks"]) + 1)
                ],
            }
    return found


def rejection(seen: Sequence[TextPolygon], ink: NDArray[np.bool_], image: Image.Image, reader: Reader) -> str:
    """Return the rule that rejected the polygon covering most of a missed mark."""
    polygons = sorted(seen, key=lambda polygon: (-polygon.score, polygon.scale, polygon.points))
    covers = [float(filled(polygon, image.size, RULES.dilate)[ink].mean()) for polygon in polygons]
    place = max(range(len(polygons)), key=lambda each: covers[each], default=-1)
    if place < 0 or covers[place] < OVER:
        return "not_proposed"
    shape = describe_shapes(polygons, shares(polygons), image.size)[place]
    if plausibility(shape) < LEAST_LIKELY:
        return "implausible"
    line = reader(image, [polygons[place]])[0]
    return (
        "unreadable" if plausibility(shape + describe_reading(*line, shape)) < RULES.min_doubtful else "covered_in_part"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=["find", "facts"], help="what to run")
    parser.add_argument("--set", type=Path, required=True, metavar="DIR", help="output of benchmarks/text_set.py")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="output file, JSON")
    parser.add_argument("--from", type=int, default=0, metavar="N", dest="first", help="number of the first image")
    parser.add_argument("--pictures", type=int, metavar="N", help="number of images")
    parser.add_argument("--paint-every", type=int, default=4, metavar="N", help="paint over every Nth image")
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    labels = json.loads((args.set / "labels.json").read_text(encoding="utf-8"))[args.first :][: args.pictures]
    with ProcessPoolExecutor() as pool:
        if args.program == "facts":
            result: list[Any] = [row for rows in pool.map(partial(facts, folder=args.set), labels) for row in rows]
        else:
            paint = [label["number"] % args.paint_every == 0 for label in labels]
            result = list(pool.map(partial(find, folder=args.set), labels, paint, chunksize=4))
    args.out.write_text(json.dumps(result), encoding="utf-8")
    print(f"{len(result)} rows in {args.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
