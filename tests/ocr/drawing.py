"""Pictures with and without text, drawn so that the right answer is known."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

GROUND = (96, 141, 187)
INK = (250, 250, 245)
WORDS = "Umbreon by moonlight"


@dataclass(frozen=True)
class Page:
    """A drawn page: the image, and a mask of mode L that is 255 wherever a glyph left a trace."""

    image: Image.Image
    text: Image.Image


def flat_page(height: int = 48, size: tuple[int, int] = (800, 600), ground: tuple[int, int, int] = GROUND) -> Page:
    """Text of the given height in pixels on a ground of one colour."""
    return write_on(Image.new("RGB", size, ground), height)


def busy_page(height: int = 48, size: tuple[int, int] = (800, 600)) -> Page:
    """The same on a ground of many dark patches."""
    rng = random.Random(7)
    image = Image.new("RGB", size, (40, 70, 50))
    draw = ImageDraw.Draw(image)
    for _ in range(500):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        across, down = rng.randrange(10, 50), rng.randrange(10, 50)
        green = rng.randrange(60, 120)
        draw.ellipse((x, y, x + across, y + down), fill=(rng.randrange(30, 60), green, rng.randrange(30, 70)))
    return write_on(image, height)


def write_on(image: Image.Image, height: int, colour: int | tuple[int, ...] = INK) -> Page:
    text = Image.new("L", image.size, 0)
    place, font = (image.width // 8, image.height // 3), ImageFont.load_default(height)
    ImageDraw.Draw(text).text(place, WORDS, font=font, fill=255)
    ImageDraw.Draw(image).text(place, WORDS, font=font, fill=colour)
    return Page(image, text.point(lambda value: 255 * (value > 0)))


def creature(pattern: str, size: tuple[int, int] = (800, 600)) -> Image.Image:
    """A round-eyed creature without any text, before `plain`, `stripes`, `checks` or `stars`."""
    rng = random.Random(11)
    image = Image.new("RGB", size, (228, 214, 190))
    draw = ImageDraw.Draw(image)
    if pattern == "stripes":
        for x in range(0, size[0], 40):
            draw.rectangle((x, 0, x + 19, size[1]), fill=(214, 190, 160))
    elif pattern == "checks":
        for x in range(0, size[0], 60):
            for y in range(60 * (x // 60 % 2), size[1], 120):
                draw.rectangle((x, y, x + 59, y + 59), fill=(200, 205, 190))
    elif pattern == "stars":
        draw.rectangle((0, 0, *size), fill=(24, 26, 60))
        for _ in range(60):
            x, y = rng.randrange(size[0]), rng.randrange(size[1])
            draw.ellipse((x, y, x + 4, y + 4), fill="white")
    x, y = size[0] / 2, size[1] * 0.55
    for side in (-1, 1):
        draw.polygon(
            [(x + side * 150, y - 80), (x + side * 130, y - 260), (x + side * 30, y - 150)], fill=(90, 80, 120)
        )
    draw.ellipse((x - 170, y - 170, x + 170, y + 170), fill=(90, 80, 120))
    for side in (-1, 1):
        for radius, colour in ((34, "white"), (16, "black")):
            middle = x + side * 70, y - 40
            draw.ellipse((middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius), fill=colour)
    draw.arc((x - 50, y + 10, x + 50, y + 80), 20, 160, fill="black", width=5)
    return image
