"""A labelled set of drawn pictures, half of them with text, for measuring a text detector.

With text: six fonts, 10 to 200 pixels high, Latin and Japanese, rotated words, see-through watermarks and scrawled
signatures, on flat grounds and before painted scenes. Without: eyes, stripes, checks, foliage, mosaics, and creatures
before scenes. The fonts come from wheels in requirements/requirements_ocr.txt and _nodeps.txt. The same seed, fonts and
Pillow give the same pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import files

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps, ImageStat

from demo.art.creatures import SPECIES, choose_look, paint_creature
from demo.art.gallery import INK, WHITE, Canvas, Colour, Point, leaf, mix, smooth, tone
from demo.art.scenes import SCENES, paint_foreground, paint_scene

PICTURES = 200
SEED = 7
SIZES = ((640, 480), (800, 600), (768, 1024), (1024, 768), (1000, 1000), (720, 1280), (1600, 1200))

# Distribution and file, by what the font is like.
FONTS = {
    "sans": ("font-manrope", "Manrope-Regular.ttf"),
    "serif": ("font-caladea", "Caladea-Italic.ttf"),
    "rounded": ("font-fredoka-one", "FredokaOne-Regular.ttf"),
    "narrow": ("font-amatic-sc", "AmaticSC-Bold.ttf"),
    "handwritten": ("font-intuitive", "Intuitive.ttf"),
    "japanese": ("matplotlib-fontja", "ipaexg.ttf"),
}
LATIN = (
    "Umbreon by moonlight",
    "www.drawn.example",
    "do not repost",
    "@rowan_draws",
    "Commission 2026",
    "Rowan Demo",
    "GARDEVOIR",
    "Sylveon",
    "Eevee",
    "Mew!",
)
JAPANESE = ("月夜のブラッキー", "無断転載禁止です", "イーブイの森", "ピカチュウ", "絵 さくら", "青い海", "進化")

# Each picture with text holds one writing of every row, the next one of the row each time: 20 to 50 of each height.
HEIGHTS = ((48, 72, 100, 140, 200), (20, 24, 32), (10, 12, 14, 16), (16, 10, 12, 14))
KINDS = ("latin", "japanese", "latin", "rotated", "watermark", "latin", "signature", "japanese", "rotated", "watermark")
ANGLES = (-60, -45, -30, -15, -7, 7, 15, 30, 45, 60, 90, -90)
LEAST_SCRAWL = 24  # pixels; smaller scrawls are dots
LEAST_OUTLINED = 32  # pixels; from here on every second writing before a scene has an outline, as titles have
OUTLINE = 1 / 32  # its width, as a share of the height
PLACES = 3  # free places of which a writing gets the calmest, as an artist would choose it

# A glyph's pixel counts as ink when at least this much of it, of 255, is covered.
INKED = 96


@dataclass(frozen=True)
class Writing:
    """One piece of text in a picture.

    Args:
        kind: `latin`, `japanese`, `rotated`, `watermark` or `signature`.
        height: size of the font in pixels, which is the line's height; for a signature the height of its strokes.
        at: where the left upper corner of `ink` lies.
        ink: mode L, 255 where the writing left a trace.
    """

    kind: str
    height: int
    font: str
    at: tuple[int, int]
    ink: Image.Image

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, in pixels of the picture."""
        return *self.at, self.at[0] + self.ink.width, self.at[1] + self.ink.height

    def covered(self, mask: Image.Image) -> float:
        """Return the share of the ink that a mask of mode L, as large as the picture, covers with 255."""
        both = ImageChops.darker(self.ink, mask.crop(self.box))
        return both.histogram()[255] / self.ink.histogram()[255]


@dataclass(frozen=True)
class Picture:
    """A drawn picture (RGB), what it was drawn on or of, and the text that it holds."""

    number: int
    ground: str
    image: Image.Image
    writings: tuple[Writing, ...]


def draw_set(numbers: Sequence[int] | None = None, seed: int = SEED) -> Iterator[Picture]:
    """Yield the pictures with these numbers, 0 to PICTURES - 1; those with even numbers hold text."""
    for number in range(PICTURES) if numbers is None else numbers:
        yield draw_picture(number, seed)


def draw_picture(number: int, seed: int = SEED) -> Picture:
    """Return one picture of the set."""
    rng = random.Random(f"{seed}/{number}")
    turn = number // 2
    size = SIZES[(turn + turn // len(SIZES)) % len(SIZES)]  # else one size would go with each ground
    if number % 2:
        ground = tuple(WITHOUT_TEXT)[turn % len(WITHOUT_TEXT)]
        return Picture(number, ground, WITHOUT_TEXT[ground](size, rng), ())
    ground = ("flat", "busy")[turn % 2]
    image = (_flat if ground == "flat" else _scene)(size, rng)
    writings: list[Writing] = []
    for row, heights in enumerate(HEIGHTS):
        height = heights[turn // (1 if row else 2) % len(heights)]
        kind = KINDS[(turn + 3 * row) % len(KINDS)]
        if kind == "signature" and height < LEAST_SCRAWL:
            kind = "latin"
        written = _write(image, ground == "busy", kind, height, writings, rng)
        if written:
            writings.append(written)
    return Picture(number, ground, image, tuple(writings))


# -- text -------------------------------------------------------------------------------------------------------------


@cache
def load_font(name: str, height: int) -> ImageFont.FreeTypeFont:
    """Return one of FONTS; `height` is the size of its em square in pixels."""
    distribution, file = FONTS[name]
    path = next(path for path in files(distribution) or () if path.name == file)
    return ImageFont.truetype(str(path.locate()), height)


def _write(
    image: Image.Image, busy: bool, kind: str, height: int, others: Sequence[Writing], rng: random.Random
) -> Writing | None:
    """Write something where nothing stands yet; None where there is no room."""
    font = "japanese" if kind == "japanese" else rng.choice([name for name in FONTS if name != "japanese"])
    texts = JAPANESE if kind == "japanese" else LATIN
    angle = rng.choice(ANGLES) if kind == "rotated" else 0
    for text in (rng.choice(texts), *texts[len(texts) // 2 :]):
        label = _scrawl(height, rng) if kind == "signature" else _letters(text, font, height)
        if angle:
            label = label.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        label = ImageOps.expand(label.crop(label.getbbox()), round(height * OUTLINE))
        place = _free_place(image, label.size, max(8, height // 3), others, rng)
        if place:
            break
    else:
        return None
    opacity = rng.uniform(0.35, 0.6) if kind == "watermark" else 1.0
    box = (*place, place[0] + label.width, place[1] + label.height)
    colour = _ink_colour(image.crop(box), kind, rng)
    if busy and kind != "watermark" and height >= LEAST_OUTLINED and rng.random() < 0.5:
        outline = label.filter(ImageFilter.MaxFilter(2 * round(height * OUTLINE) + 1))
        image.paste(WHITE if max(colour) < 128 else INK, box, outline)
    image.paste(colour, box, label.point(lambda value: round(value * opacity)))
    ink = label.point(lambda value: 255 * (value >= INKED))
    return Writing(kind, height, "" if kind == "signature" else font, place, ink)


def _letters(text: str, font: str, height: int) -> Image.Image:
    face = load_font(font, height)
    left, top, right, bottom = (round(edge) for edge in face.getbbox(text))
    label = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(label).text((2 - left, 2 - top), text, font=face, fill=255)
    return label


def _scrawl(height: int, rng: random.Random) -> Image.Image:
    """Return a signature: a tall first stroke, loops that get flatter, and a line back under them."""
    points: list[Point] = [(0.1, 0.75), (0.3, 0.05), (0.42, 0.7)]
    x, loops = 0.5, rng.randint(4, 7)
    for loop in range(loops):
        tall = rng.uniform(0.25, 0.5) * (1 - 0.5 * loop / loops) + (0.35 if rng.random() < 0.25 else 0)
        points += [(x, 0.75), (x + 0.22, 0.7 - tall), (x + 0.06, 0.66 - tall), (x + 0.1, 0.76)]
        x += rng.uniform(0.2, 0.32)
    points += [(x + 0.35, 0.6), (x + 0.1, 0.92), (0.35, 0.95)]
    label = Image.new("L", (round((x + 0.6) * 4 * height), 4 * height))
    line = [(4 * height * px, 4 * height * py) for px, py in smooth(points)]
    ImageDraw.Draw(label).line(line, 255, round(0.27 * height), joint="curve")
    return label.reduce(4)


def _free_place(
    image: Image.Image, label: tuple[int, int], margin: int, others: Sequence[Writing], rng: random.Random
) -> tuple[int, int] | None:
    """Return the calmest of some places where nothing stands yet, or None where there is no room."""
    across, down = image.width - label[0] - 12, image.height - label[1] - 12
    if across < 12 or down < 12:
        return None
    found: dict[tuple[int, int], float] = {}
    for _ in range(60):
        x, y = rng.randint(12, across), rng.randint(12, down)
        box = (x - margin, y - margin, x + label[0] + margin, y + label[1] + margin)
        if all(
            box[2] <= other.box[0] or other.box[2] <= box[0] or box[3] <= other.box[1] or other.box[3] <= box[1]
            for other in others
        ):
            ground = image.crop((x, y, x + label[0], y + label[1]))
            found[x, y] = ImageStat.Stat(ground.convert("L")).stddev[0]
            if len(found) == PLACES:
                break
    return min(found, key=lambda place: found[place]) if found else None


def _ink_colour(ground: Image.Image, kind: str, rng: random.Random) -> Colour:
    """Return a colour that stands out from the ground's average, as an artist would choose it."""
    lightness = ground.convert("L").resize((1, 1), Image.Resampling.BOX).tobytes()[0]
    if kind == "watermark":
        return WHITE if lightness < 150 else INK
    if lightness < 128:
        return tone(rng.uniform(0, 360), rng.uniform(0, 0.35), rng.uniform(0.9, 1))
    return tone(rng.uniform(0, 360), rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.35))


# -- grounds ----------------------------------------------------------------------------------------------------------


def _flat(size: tuple[int, int], rng: random.Random) -> Image.Image:
    return Image.new("RGB", size, tone(rng.uniform(0, 360), rng.uniform(0.05, 0.5), rng.choice((0.2, 0.55, 0.8, 0.95))))


def _scene(size: tuple[int, int], rng: random.Random, scenes: Sequence[str] = tuple(SCENES)) -> Image.Image:
    """Return a creature before a scene, as in the demo."""
    canvas = Canvas(size)
    ground = paint_scene(canvas, rng.choice(scenes), rng)
    name = rng.choice(SPECIES).name
    foot = canvas.width * rng.uniform(0.3, 0.7), ground
    paint_creature(canvas, name, foot, rng.uniform(0.45, 0.75), choose_look(rng, name))
    paint_foreground(canvas, rng)
    return canvas.finish()


def _eyes(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return pairs of eyes of all sizes, with iris, pupil and highlight, some half closed."""
    image = _flat(size, rng)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(2, 14)):
        radius = rng.choice((6, 10, 16, 28, 50, 90))
        x, y = rng.randrange(radius, size[0] - radius), rng.randrange(radius, size[1] - radius)
        tall = rng.uniform(0.6, 1.4)
        iris = tone(rng.uniform(0, 360), rng.uniform(0.4, 1), rng.uniform(0.3, 0.9))
        for middle in (x, x + round(rng.uniform(2.2, 3.5) * radius)):
            for share, colour in ((1.12, (30, 24, 30)), (1.0, (250, 250, 250)), (0.62, iris), (0.34, (16, 12, 20))):
                rx, ry = radius * share, radius * share * tall
                draw.ellipse((middle - rx, y - ry, middle + rx, y + ry), fill=colour)
            spark = max(1, radius / 5)
            draw.ellipse((middle - spark, y - 2 * spark, middle + spark / 2, y - spark / 2), fill="white")
            if rng.random() < 0.3:
                draw.chord((middle - radius, y - radius, middle + radius, y + radius), 190, 350, fill=iris)
    return image


def _stripes(size: tuple[int, int], rng: random.Random) -> Image.Image:
    first, second = _two_tones(rng)
    across, angle = rng.choice((3, 6, 12, 25, 60)), math.radians(rng.choice((0, 20, 45, 70, 90)))
    image = Image.new("RGB", size, first)
    draw = ImageDraw.Draw(image)
    far = sum(size)
    dx, dy = math.cos(angle), math.sin(angle)
    for step in range(-far, far, 2 * across):
        x, y = step * -dy + size[0] / 2, step * dx + size[1] / 2
        draw.line((x - far * dx, y - far * dy, x + far * dx, y + far * dy), fill=second, width=across)
    return image


def _checks(size: tuple[int, int], rng: random.Random) -> Image.Image:
    first, second = _two_tones(rng)
    side = rng.choice((4, 8, 16, 30, 64, 110))
    small = Image.new("RGB", (math.ceil(size[0] / side), math.ceil(size[1] / side)), first)
    small.putdata([(first, second)[(x + y) % 2] for y in range(small.height) for x in range(small.width)])
    image = small.resize((small.width * side, small.height * side), Image.Resampling.NEAREST).crop((0, 0, *size))
    if rng.random() < 0.5:
        image = image.rotate(rng.choice((10, 30, 45)), Image.Resampling.BICUBIC, fillcolor=first)
    return image


def _foliage(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return leaves over leaves, each with its midrib."""
    image = Image.new("RGB", size, tone(rng.uniform(80, 150), 0.5, 0.25))
    draw = ImageDraw.Draw(image)
    length = rng.choice((14, 24, 45, 80))
    for _ in range(min(4000, 3 * size[0] * size[1] // length**2)):
        x, y, angle = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(0, 2 * math.pi)
        tip = x + math.cos(angle) * length, y + math.sin(angle) * length
        green = tone(rng.uniform(70, 150), rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.75))
        draw.polygon(leaf((x, y), tip, rng.uniform(0.4, 0.7) * length), fill=green)
        draw.line((x, y, *tip), fill=mix(green, (255, 255, 230), 0.35))
    return image


def _mosaic(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return tiles of random shades with joints between them."""
    side = rng.choice((8, 14, 24, 40, 70))
    hue, joint = rng.uniform(0, 360), rng.choice(((40, 36, 34), (235, 230, 220)))
    image = Image.new("RGB", size, joint)
    draw = ImageDraw.Draw(image)
    gap = max(1, side // 10)
    for y in range(0, size[1], side):
        for x in range(-(y // side % 2) * side // 2, size[0], side):
            shade = tone(hue + rng.uniform(-40, 40), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.95))
            draw.rectangle((x, y, x + side - gap - 1, y + side - gap - 1), fill=shade)
    return image.filter(ImageFilter.GaussianBlur(0.6))


def _two_tones(rng: random.Random) -> tuple[Colour, Colour]:
    hue = rng.uniform(0, 360)
    return (
        tone(hue, rng.uniform(0.1, 0.5), rng.uniform(0.7, 1)),
        tone(hue + rng.uniform(-60, 60), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.6)),
    )


WITHOUT_TEXT: dict[str, Callable[[tuple[int, int], random.Random], Image.Image]] = {
    "eyes": _eyes,
    "stripes": _stripes,
    "checks": _checks,
    "foliage": _foliage,
    "mosaic": _mosaic,
    "creature": _scene,
    "forest": partial(_scene, scenes=("deep in the forest", "in the meadow", "under the autumn tree")),
}
