"""A labelled set of pictures with writing on grounds that the project did not draw, for measuring text detection.

    python benchmarks/text_set.py --side choose --out /tmp/choose
    python benchmarks/text_set.py --side judge --out /tmp/judge

Writes  DIR/<number>.png, and where something is written <number>_clean.png, the same without it, and <number>_ink.png,
        which holds the number of the mark (1 and up) at each pixel that it covers; DIR/labels.json

Every second picture holds no text. 600 pictures are for choosing rules and 300, from other seeds, fonts, figures and
grounds, for judging them once. Grounds: photographs and wallpapers, alone and with drawn species and clipart over them,
the demo's drawn scenes, noise with flat circles, flat colours, screentone, manga panels. Run it in the environment of
requirements/requirements_benchmarks_text.txt.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps, ImageStat

from benchmarks.text_set_sources import SIDES, Side, clipart, figures, font_file, photographs
from demo.art.text_set import WITHOUT_TEXT

COUNTS = {"choose": 600, "judge": 300}
SIZES = ((800, 600), (768, 1024), (1024, 768), (1000, 1000), (720, 1280), (1280, 960), (1400, 1050))
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
INKED = 96  # of 255: how much of a pixel is covered where it counts as ink
LEAST_EDGE = 0.2  # of the ink lies in the figure, and as much beside it: the mark crosses the figure's edge


@dataclass(frozen=True)
class Mark:
    """One piece of writing; `height` is the font's size in pixels, `angle` in degrees, `opacity` from 0 to 1."""

    kind: str
    script: str
    font: str
    height: int
    angle: int
    opacity: float
    text: str
    edge: bool = False


@dataclass
class Ground:
    """A picture without text (RGB), and where figures stand in it (mode L)."""

    name: str
    image: Image.Image
    figure: Image.Image


# -- grounds ----------------------------------------------------------------------------------------------------------


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
    """Return dots on white whose size goes from one side to the other, as manga is shaded with."""
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
    """Return an SVG as RGBA of about this height; None where it cannot be drawn."""
    import resvg_py

    try:
        drawn = bytes(resvg_py.svg_to_bytes(svg_path=str(path), height=height))
    except (ValueError, RuntimeError):
        return None
    image = Image.open(io.BytesIO(drawn)).convert("RGBA")
    box = image.getchannel("A").getbbox()
    return image.crop(box) if box and image.width < 3 * height else None


def stand(ground: Ground, paths: Sequence[Path], share: float, rng: random.Random) -> None:
    """Draw one figure into the picture, `share` of it high."""
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
    """Return a picture without text; what it shows goes round with its number."""
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


GROUNDS = ("figure", "photo", "figure", "clipart", "flat", "drawn", "figure", "noise", "screentone", "photo", "manga")


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
    """Write one mark into a picture where nothing is written yet; None where there is no room."""
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
    """Return the colour of an outline and that of the mark, which stands out from what it is on."""
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
    """Write one picture of the set and return its label; those with odd numbers hold no text."""
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
    parser.add_argument("--pictures", type=int, metavar="N", help="only the first N")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    side = SIDES[args.side]
    for load in (photographs, figures, clipart):
        load(side)
    for package, file in (font for fonts in side.fonts.values() for font in fonts):
        font_file(package, file)  # before several processes want it
    numbers = range(args.pictures or COUNTS[args.side])
    with ProcessPoolExecutor() as pool:
        labels = list(pool.map(partial(make_picture, name=args.side, folder=args.out), numbers))
    (args.out / "labels.json").write_text(json.dumps(labels, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps({"pictures": len(labels), "marks": sum(len(label["marks"]) for label in labels)}))  # type: ignore[arg-type, misc]
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
