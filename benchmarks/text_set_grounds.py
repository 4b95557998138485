"""The backgrounds of benchmarks/text_set.py: images without text, and where figures are in them."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from benchmarks.text_set_sources import Side, clipart, figures, photographs
from demo.art.text_set import WITHOUT_TEXT

SIZES = ((800, 600), (768, 1024), (1024, 768), (1000, 1000), (720, 1280), (1280, 960), (1400, 1050))
GROUNDS = ("figure", "photo", "figure", "clipart", "flat", "drawn", "figure", "noise", "screentone", "photo", "manga")


@dataclass
class Ground:
    """An image without text (RGB), and where figures are in it (mode L)."""

    name: str
    image: Image.Image
    figure: Image.Image


def photograph(side: Side, size: tuple[int, int], rng: random.Random) -> Image.Image:
    with Image.open(rng.choice(photographs(side))) as opened:
        opened.draft("RGB", size)
        image = opened.convert("RGB")
    zoom = rng.uniform(1, 1.6) * max(size[0] / image.width, size[1] / image.height)
    image = image.resize((math.ceil(image.width * zoom) + 1, math.ceil(image.height * zoom) + 1))
    left, top = rng.randrange(image.width - size[0]), rng.randrange(image.height - size[1])
    return image.crop((left, top, left + size[0], top + size[1]))


def flat(size: tuple[int, int], rng: random.Random) -> Image.Image:
    first, second = (tuple(rng.randrange(40, 250) for _ in range(3)) for _ in range(2))
    if rng.random() < 0.5:
        return Image.new("RGB", size, first)
    fade = Image.linear_gradient("L").rotate(rng.choice((0, 90))).resize(size)
    return Image.composite(Image.new("RGB", size, first), Image.new("RGB", size, second), fade)


def noise(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return coarse noise with flat circles."""
    cell = rng.choice((1, 3, 6))
    small = Image.frombytes(
        "RGB", (size[0] // cell, size[1] // cell), rng.randbytes(3 * (size[0] // cell) * (size[1] // cell))
    )
    image = Image.blend(flat(size, rng), small.resize(size), rng.uniform(0.1, 0.35))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randrange(3, 12)):
        x, y, radius = rng.randrange(size[0]), rng.randrange(size[1]), rng.randrange(20, 200)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(rng.randbytes(3)))
    return image


def screentone(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return dots on white with gradually changing size, as used for shading in manga."""
    step = rng.choice((6, 8, 12))
    angle = math.radians(rng.choice((0, 30, 45)))
    image = Image.new("L", (2 * size[0], 2 * size[1]), 255)
    draw = ImageDraw.Draw(image)
    across = math.ceil(math.hypot(*image.size) / (2 * step))
    for row in range(-across, across):
        for column in range(-across, across):
            x = image.width / 2 + 2 * step * (column * math.cos(angle) - row * math.sin(angle))
            y = image.height / 2 + 2 * step * (column * math.sin(angle) + row * math.cos(angle))
            radius = step * (0.2 + 0.5 * min(max(y / image.height, 0), 1))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=30)
    return image.reduce(2).convert("RGB")


def vector(path: Path, height: int) -> Image.Image | None:
    """Return an SVG as RGBA of about this height, or None if it cannot be drawn."""
    import resvg_py

    try:
        drawn = bytes(resvg_py.svg_to_bytes(svg_path=str(path), height=height))
    except (ValueError, RuntimeError):
        return None
    image = Image.open(io.BytesIO(drawn)).convert("RGBA")
    box = image.getchannel("A").getbbox()
    return image.crop(box) if box and image.width < 3 * height else None


def stand(ground: Ground, paths: Sequence[Path], share: float, rng: random.Random) -> None:
    """Draw one figure into the image, `share` of its height."""
    drawn = None
    while drawn is None:
        drawn = vector(rng.choice(paths), round(share * ground.image.height))
    image = ground.image
    place = (
        rng.randint(-drawn.width // 8, max(1, image.width - drawn.width)),
        rng.randint(0, max(1, image.height - drawn.height)),
    )
    image.paste(drawn, place, drawn)
    ground.figure.paste(255, place, drawn.getchannel("A").point(lambda value: 255 * (value > 127)))


def manga(side: Side, size: tuple[int, int], rng: random.Random) -> Ground:
    """Return a page of framed panels, some with figures, in shades of grey."""
    ground = Ground("manga", Image.new("RGB", size, "white"), Image.new("L", size))
    gap, rows = 14, rng.randint(2, 3)
    for row in range(rows):
        top, bottom = gap + row * (size[1] - gap) // rows, (row + 1) * (size[1] - gap) // rows
        edges = [gap, *([round(size[0] * rng.uniform(0.35, 0.65))] if rng.random() < 0.7 else []), size[0]]
        for left, right in pairwise(edges):
            panel = (right - left - gap, bottom - top)
            make = rng.choice(
                (screentone, lambda of, by: photograph(side, of, by), lambda of, by: Image.new("RGB", of, "white"))
            )
            part = Ground("panel", make(panel, rng), Image.new("L", panel))
            stand(part, figures(side), rng.uniform(0.5, 0.9), rng)
            ground.image.paste(ImageOps.grayscale(part.image).convert("RGB"), (left, top))
            ground.figure.paste(part.figure, (left, top))
            ImageDraw.Draw(ground.image).rectangle(
                (left, top, left + panel[0], top + panel[1]), outline="black", width=4
            )
    return ground


def paint_ground(number: int, side: Side, rng: random.Random) -> Ground:
    """Return an image without text; the kind rotates with its number."""
    size = SIZES[rng.randrange(len(SIZES))]
    name = GROUNDS[number // 2 % len(GROUNDS)]
    if name == "manga":
        return manga(side, size, rng)
    if name == "drawn":
        return Ground(name, WITHOUT_TEXT[rng.choice(tuple(WITHOUT_TEXT))](size, rng), Image.new("L", size))
    makers: dict[str, Callable[[], Image.Image]] = {
        "noise": partial(noise, size, rng),
        "flat": partial(flat, size, rng),
        "screentone": partial(screentone, size, rng),
    }
    image = makers.get(name, partial(photograph, side, size, rng))()
    ground = Ground(name, image, Image.new("L", size))
    if name == "clipart":
        for _ in range(rng.randint(1, 3)):
            stand(ground, clipart(side), rng.uniform(0.25, 0.7), rng)
    elif name != "photo" and name != "noise":
        stand(ground, figures(side), rng.uniform(0.35, 0.95), rng)
    return ground
