"""What `benchmarks.inpainting` measures, each piece of it a program of its own in the environment `ocr`.

The last line of stdout is a JSON object.

    python -m benchmarks.inpainting_task weights --weights network.pt
    python -m benchmarks.inpainting_task paint --weights network.pt --way crops --size 1024 --share 0.01
    python -m benchmarks.inpainting_task levels
    python -m benchmarks.inpainting_task cases --picture cases.png
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from demo.art.creatures import SPECIES
from demo.art.draw import Plan, compose
from demo.art.scenes import SCENES
from preprocess.ocr.inpaint import paint_over
from preprocess.ocr.inpainters import InpainterModel, find_inpainter, load_inpainter

SEED = 1
# As preprocess/ocr/detect.py does it: the mask reaches over a line of text by this share of its height.
DILATION = 0.2
WORDS = "All creatures of this page were drawn by hand and belong to whoever likes them best. "
LEVELS = (1, 3, 6, 9)
CASES = 10
CASE_SIZE = (480, 360)


def draw_picture(number: int, size: tuple[int, int]) -> Image.Image:
    """Return a drawn creature before a drawn scene, without text."""
    scenes = sorted(SCENES)
    plan = Plan(
        species=SPECIES[number % len(SPECIES)],
        number=1,
        kind="plain",
        variant="",
        format="png",
        size=size,
        scene=scenes[number % len(scenes)],
    )
    return compose(plan, SEED, scale=2 if size[0] < 1000 else 1)


def write_text(image: Image.Image, share: float) -> tuple[Image.Image, Image.Image]:
    """Return the picture with so much text that its mask covers `share` of it, and the mask.

    A signature in a corner, a title, and then lines from the bottom up; each is a fortieth of the side high.
    """
    side = image.width
    height = side // 40
    image, mask = image.copy(), Image.new("L", image.size, 0)
    places = [(side - round(0.11 * side), side - 2 * height, 0.1), (side // 12, side // 16, 0.25)]
    places += [(side // 12, side - round((0.1 + 0.06 * line) * side), 0.6) for line in range(14)]
    wanted = share * image.width * image.height
    for left, top, width in places:
        done = mask.histogram()[255]
        length = min(round(width * side), round((wanted - done) / (height * (1 + 2 * DILATION))))
        if length < height:
            break
        write_line(image, mask, (left, top, left + length, top + height))
    return image, mask


def write_line(image: Image.Image, mask: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Fill a box with one line of text, and mask it."""
    left, top, right, bottom = box
    line = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(line).text(
        (0, -(bottom - top) // 10), 3 * WORDS, font=ImageFont.load_default(bottom - top), fill=255
    )
    image.paste((250, 250, 245), (left, top), line)
    margin = round(DILATION * (bottom - top))
    mask.paste(255, (left - margin, top - margin, right + margin, bottom + margin))


def write_weights(path: Path, blocks: int) -> dict[str, Any]:
    from benchmarks.lama_network import write_network

    return {"weights": write_network(path, blocks=blocks)}


def paint(weights: Path, way: str, size: int, share: float, threads: int) -> dict[str, Any]:
    """Load the model, and with it paint over the text of one picture: by `crops`, as a `whole`, or not at all."""
    import torch

    fill = load_inpainter(InpainterModel("lama", "lama", weights), threads)
    torch.set_num_threads(threads)
    picture, mask = write_text(draw_picture(0, (size, size)), share)
    computed: list[int] = []

    def watched(images: Sequence[Image.Image], masks: Sequence[Image.Image]) -> list[Image.Image]:
        computed.extend(image.width * image.height for image in images)
        return fill(images, masks)

    fill([picture.crop((0, 0, 64, 64))], [mask.crop((0, 0, 64, 64))])  # the first call is slower for both
    began = time.perf_counter()
    if way == "crops":
        paint_over(picture, mask, watched)
    elif way == "whole":
        [filled] = watched([picture], [mask])
        picture.paste(filled, mask=mask)
    seconds = time.perf_counter() - began
    masked = mask.histogram()[255] / (size * size)
    return {"seconds": seconds, "computed": sum(computed), "crops": len(computed), "masked": masked}


def measure_levels() -> dict[str, Any]:
    """Return seconds to write and to read, and bytes, of a PNG of 2048 × 1536 at several levels."""
    image = draw_picture(3, (2048, 1536))
    # Pictures from the web have grain, which drawn ones lack.
    grain = Image.effect_noise(image.size, 12)
    image = Image.blend(image, Image.merge("RGB", (grain, grain, grain)), 0.06)
    found = {}
    for level in LEVELS:
        stream = io.BytesIO()
        began = time.perf_counter()
        image.save(stream, "PNG", compress_level=level)
        written = time.perf_counter()
        Image.open(stream).load()
        found[str(level)] = [written - began, time.perf_counter() - written, stream.tell()]
    return found


def draw_cases(path: Path) -> dict[str, Any]:
    """Write a picture of ten cases: before, mask, after with the demo's stand-in for LaMa, after with OpenCV."""
    from demo.standins.inpaint_model import write_model

    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / "stand-in.pt"
        write_model(stand_in)
        lama = load_inpainter(InpainterModel("lama", "stand-in", stand_in), 1)
        opencv = load_inpainter(find_inpainter("opencv"), 1)
    width, height = CASE_SIZE
    sheet = Image.new("RGB", (4 * width, CASES * height), "white")
    for case in range(CASES):
        before, mask = draw_case(case)
        row = [before, mask]
        row += [paint_over(before, mask, way, coarse_to_fine=way is not opencv) for way in (lama, opencv)]
        for column, picture in enumerate(row):
            thumbnail = picture.convert("RGB").resize((width - 6, height - 6), Image.Resampling.LANCZOS)
            sheet.paste(thumbnail, (column * width + 3, case * height + 3))
    sheet.save(path)
    return {"picture": str(path), "cases": CASES}


def draw_case(case: int) -> tuple[Image.Image, Image.Image]:
    """Return one picture with text on it, and the mask; every third has some very large text."""
    rng = random.Random(case)
    image = draw_picture(case, (1600, 1200))
    mask = Image.new("L", image.size, 0)
    for _ in range(1 + case % 3):
        height = rng.choice([24, 40, 70])
        left, top = rng.randrange(60, 700), rng.randrange(60, 1050)
        write_line(image, mask, (left, top, left + rng.randrange(6, 12) * height, top + height))
    if case % 3 == 2:
        write_line(image, mask, (150, 380, 1450, 800 + 20 * case))
    return image, mask


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["weights", "paint", "levels", "cases"], help="what to do")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="the TorchScript network")
    parser.add_argument("--blocks", type=int, default=9, metavar="N", help="residual blocks of the network")
    parser.add_argument("--way", choices=["crops", "whole", "load"], help="how to paint over the text")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the picture")
    parser.add_argument("--share", type=float, metavar="F", help="share of the picture that is masked, 0 to 1")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads for the network")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to write the ten cases")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's, about TorchScript
    os.environ["LAMA_MODEL"] = ""
    if args.task == "weights":
        result = write_weights(args.weights, args.blocks)
    elif args.task == "paint":
        result = paint(args.weights, args.way, args.size, args.share, args.threads)
    elif args.task == "levels":
        result = measure_levels()
    else:
        result = draw_cases(args.picture)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
