"""A labelled set of images with text on backgrounds that the project did not draw, for measuring text detection.

    python benchmarks/text_set.py --side choose --out /tmp/choose
    python benchmarks/text_set.py --side judge --out /tmp/judge

Writes  DIR/<number>.png; for images with text also <number>_clean.png, the same without it, and <number>_ink.png,
        which holds the number of the mark (1 and up) at each pixel that it covers; DIR/labels.json

Every second image has no text. 600 images are for choosing rules and 300, from other seeds, fonts, figures and
backgrounds, for judging them once. Backgrounds: photographs and wallpapers, alone and with drawn species and clipart
over them, the demo's drawn scenes, noise with flat circles, flat colours, screentone, manga panels. Run it in the
environment of requirements/requirements_benchmarks_text.txt.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageStat

from benchmarks.text_set_grounds import Ground, paint_ground
from benchmarks.text_set_sources import SIDES, Side, clipart, figures, font_file, photographs

COUNTS = {"choose": 600, "judge": 300}
TEXTS = {
    "latin": ("@rowan_draws", "do not repost", "Umbreon by moonlight", "www.drawn.example", "GARDEVOIR", "Rowan 2026"),
    "signature": ("Rowan Demo", "Mika Tanaka '26", "ellis.art", "by Noor", "@inkfern", "S. Okafor"),
    "japanese": ("無断転載禁止", "月夜のブラッキー", "絵 さくら", "イーブイの森", "ポケットの中"),
    "korean": ("무단전재금지", "달빛의 블래키", "그림 하나", "이브이의 숲"),
    "cyrillic": ("не копировать", "Рисунок Анны", "Покемон у моря", "лесной друг"),
}
BUBBLE = "Wait for me!\nI saw it\nby the river,"
HEIGHTS = {
    "upright": (10, 12, 12, 16, 20, 28, 40, 60, 90, 140, 200, 250),
    "signature": (16, 24, 36, 54, 80),
    "title": (60, 90, 130, 180),
    "bubble": (12, 16, 20, 26, 34),
    "watermark": (32, 60, 90, 130, 160),
    "tiled": (24, 36, 54),
}
KINDS = (
    "upright",
    "upright",
    "watermark",
    "signature",
    "watermark",
    "title",
    "tiled",
    "bubble",
    "upright",
    "watermark",
)
OPACITIES = {"watermark": (0.15, 0.25, 0.35, 0.5), "tiled": (0.15, 0.25, 0.35)}
SLANTS = (15, 22, 30, 38, 45)
INKED = 96  # of 255: the coverage from which a pixel counts as ink
LEAST_EDGE = 0.2  # share of the ink inside the figure, and outside it, at least: the mark crosses the figure's edge


@dataclass(frozen=True)
class Mark:
    """One piece of text; `height` is the font's size in pixels, `angle` in degrees, `opacity` from 0 to 1."""

    kind: str
    script: str
    font: str
    height: int
    angle: int
    opacity: float
    text: str
    edge: bool = False


# -- marks ------------------------------------------------------------------------------------------------------------


def choose_mark(kind: str, side: Side, rng: random.Random, height: int) -> tuple[Mark, ImageFont.FreeTypeFont]:
    script = rng.choice(("latin", "latin", "japanese", "korean", "cyrillic"))
    script = {"signature": "signature", "bubble": "latin"}.get(kind, script)
    package, file = rng.choice(side.fonts[script])
    text = BUBBLE if kind == "bubble" else rng.choice(TEXTS[script])
    slanted = kind == "tiled" or (kind == "watermark" and rng.random() < 0.75)
    angle = rng.choice(SLANTS) * rng.choice((1, 1, -1)) if slanted else 0
    if kind == "signature":
        angle = rng.randint(-8, 15)
    opacity = rng.choice(OPACITIES.get(kind, (1.0,)))
    mark = Mark(kind, "latin" if script == "signature" else script, file, height, angle, opacity, text)
    return mark, ImageFont.truetype(str(font_file(package, file)), height)


def draw_label(mark: Mark, font: ImageFont.FreeTypeFont, size: tuple[int, int]) -> Image.Image:
    """Return the mark's coverage of each pixel, mode L."""
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = (
        round(edge) for edge in probe.multiline_textbbox((0, 0), mark.text, font=font, align="center")
    )
    label = Image.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(label).multiline_text((4 - left, 4 - top), mark.text, font=font, fill=255, align="center")
    if mark.kind == "tiled":
        far, one = math.ceil(math.hypot(*size)), label
        label = Image.new("L", (far, far))
        across, down = round(one.width * 1.5), round(mark.height * 3.5)
        for row, y in enumerate(range(0, far, down)):
            for x in range(-(row % 2) * across // 2, far, across):
                label.paste(one, (x, y))
    if mark.angle:
        label = label.rotate(mark.angle, Image.Resampling.BICUBIC, expand=mark.kind != "tiled")
    if mark.kind == "tiled":
        left, top = (label.width - size[0]) // 2, (label.height - size[1]) // 2
        return label.crop((left, top, left + size[0], top + size[1]))
    return label.crop(label.getbbox())


def write(
    ground: Ground, image: Image.Image, ink: Image.Image, kind: str, side: Side, number: int, rng: random.Random
) -> Mark | None:
    """Write one mark into an image where there is no text yet; return None if there is no room."""
    heights = [*HEIGHTS[kind]]
    rng.shuffle(heights)
    for height in heights:
        mark, font = choose_mark(kind, side, rng, height)
        label = draw_label(mark, font, image.size)
        margin = (6 + height // 4) * (kind != "tiled")
        room = image.width - label.width - 2 * margin, image.height - label.height - 2 * margin
        if min(room) >= 0:
            break
    else:
        return None
    for _ in range(30):
        left, top = margin + rng.randint(0, room[0]), margin + rng.randint(0, room[1])
        box = (left, top, left + label.width, top + label.height)
        if ink.crop((left - margin, top - margin, box[2] + margin, box[3] + margin)).getbbox() is None:
            break
    else:
        return None
    lightness = 255.0 if kind == "bubble" else ImageStat.Stat(image.crop(box).convert("L"), label).mean[0]
    paper, colour = _colours(lightness, mark, rng)
    if kind == "bubble":
        wide, high = round(0.24 * label.width), round(0.3 * label.height)
        ImageDraw.Draw(image).ellipse((left - wide, top - high, box[2] + wide, box[3] + high), "white", "black", 3)
        ImageDraw.Draw(ground.image).ellipse(
            (left - wide, top - high, box[2] + wide, box[3] + high), "white", "black", 3
        )
    if kind == "title" or (kind == "upright" and height >= 28 and rng.random() < 0.3):
        rim = label.filter(ImageFilter.MaxFilter(2 * max(1, height // 24) + 1))
        image.paste(paper, box, rim)
        label = ImageChops.lighter(label, rim) if kind == "title" else label
        image.paste(colour, box, draw_label(mark, font, image.size))
    else:
        image.paste(colour, box, label.point(lambda value: round(value * mark.opacity)))
    inked = label.point(lambda value: 255 * (value >= INKED))
    ink.paste(number, box, inked)
    inside = ImageStat.Stat(ground.figure.crop(box), inked).mean[0] / 255
    return Mark(**{**asdict(mark), "edge": LEAST_EDGE <= inside <= 1 - LEAST_EDGE})


def _colours(lightness: float, mark: Mark, rng: random.Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the colours of the outline and the mark, with enough contrast to the background."""
    light, dark = (tuple(rng.randint(low, low + 25) for _ in range(3)) for low in (230, 0))
    if mark.opacity == 1 and rng.random() < 0.5:
        tint = rng.randrange(3)
        light, dark = (
            tuple(
                value - 60 * (place == tint) if value > 128 else value + 80 * (place == tint)
                for place, value in enumerate(each)
            )
            for each in (light, dark)
        )
    return (dark, light) if lightness < 140 else (light, dark)


# -- the set ----------------------------------------------------------------------------------------------------------


def make_picture(number: int, name: str, folder: Path) -> dict[str, object]:
    """Write one image of the set and return its label; odd numbers have no text."""
    side, rng = SIDES[name], random.Random(f"{name}/{number}")
    ground = paint_ground(number, side, rng)
    marks: list[Mark] = []
    if number % 2 == 0:
        image, ink = ground.image.copy(), Image.new("L", ground.image.size)
        kind = KINDS[number // 2 % len(KINDS)]
        for another in (
            (kind,) if kind == "tiled" else (kind, rng.choice(("upright", "signature")), "upright")[: rng.randint(1, 3)]
        ):
            mark = write(ground, image, ink, another, side, len(marks) + 1, rng)
            marks += [mark] if mark else []
        ground.image.save(folder / f"{number:03}_clean.png", compress_level=1)
        ink.save(folder / f"{number:03}_ink.png")
        ground.image = image
    ground.image.save(folder / f"{number:03}.png", compress_level=1)
    ground.figure.save(folder / f"{number:03}_figure.png")
    return {"number": number, "ground": ground.name, "marks": [asdict(mark) for mark in marks]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=list(SIDES), required=True, help="which half")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into; made if missing")
    parser.add_argument("--pictures", type=int, metavar="N", help="only the first N images")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    side = SIDES[args.side]
    for load in (photographs, figures, clipart):
        load(side)
    for package, file in (font for fonts in side.fonts.values() for font in fonts):
        font_file(package, file)  # before several processes need it
    numbers = range(args.pictures or COUNTS[args.side])
    with ProcessPoolExecutor() as pool:
        labels = list(pool.map(partial(make_picture, name=args.side, folder=args.out), numbers))
    (args.out / "labels.json").write_text(json.dumps(labels, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps({"pictures": len(labels), "marks": sum(len(label["marks"]) for label in labels)}))  # type: ignore[arg-type, misc]
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
