"""The measured functions of `benchmarks.inpainting`, in the environment `ocr`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from demo.art.creatures import SPECIES
from demo.art.draw import Plan, compose
from preprocess.ocr.inpaint import paint_over
from preprocess.ocr.inpainters import InpainterModel, load_inpainter

SEED = 1
# As in preprocess/ocr/detect.py: the mask extends beyond a line of text by this share of its height.
DILATION = 0.2
WORDS = "All creatures of this page were drawn by hand and belong to whoever likes them best. "


def draw_picture(size: int) -> Image.Image:
    """Return a drawn creature in front of a drawn scene, without text."""
    plan = Plan(SPECIES[0], 1, "plain", "", "png", (size, size), scene="under the autumn tree")
    return compose(plan, SEED, scale=1)


def write_text(image: Image.Image, share: float) -> tuple[Image.Image, Image.Image]:
    """Return the image with enough text that its mask covers `share` of it, and the mask.

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


def write_weights(path: str, blocks: int) -> dict[str, int]:
    """Write the network, and return its number of weights."""
    from benchmarks.lama_network import write_network

    return {"weights": write_network(Path(path), blocks=blocks)}


def paint(weights: str, threads: int, way: str, size: int, share: float) -> dict[str, Any]:
    """Load the model and use it to paint over the text of one image: by `crops`, or as a `whole`."""
    import torch

    fill = load_inpainter(InpainterModel("lama", "lama", Path(weights)), threads)
    torch.set_num_threads(threads)
    picture, mask = write_text(draw_picture(size), share)
    computed: list[int] = []

    def watched(images: Sequence[Image.Image], masks: Sequence[Image.Image]) -> list[Image.Image]:
        computed.extend(image.width * image.height for image in images)
        return fill(images, masks)

    fill([picture.crop((0, 0, 64, 64))], [mask.crop((0, 0, 64, 64))])  # the first call is slower for both
    began = time.perf_counter()
    if way == "crops":
        paint_over(picture, mask, watched)
    else:
        [filled] = watched([picture], [mask])
        picture.paste(filled, mask=mask)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "computed": sum(computed), "crops": len(computed)}
