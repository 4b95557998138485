"""The rules by which the demo's stand-in for the OpenAI API judges and describes an image, from its pixels.

There is no model: the rules apply to the demo's drawings only, and give the same answer for the same pixels.

- `relevance`: flat art scores high, grain low. On a copy of 160 px on its longer side, it goes by the share of pixels
  whose 3×3 neighbourhood spans at most 8 grey levels: a share of 0 gives 0, of 0.35 gives 78, of 1 gives 100.
- `aesthetic`: goes by the span between the 5th and the 95th percentile of grey levels plus twice the mean chroma (each
  from 0 to 1): 0.2 gives 20, 0.45 gives 34, 0.65 gives 66, 1.2 gives 87. A checksum of the pixels adds 0 to 8, so that
  two copies of an image seldom have the same score.
- `artifact`: the difference between the left and right half, divided by the mean difference along the rows. Under
  0.12 the image is a tiling, `strong`; under 0.3 it is `mild`.
- species: pixels of chroma 0.35 or more (0.13 if fewer than 2 % reach that, as in a faded image) are a creature's;
  each goes to the demo species whose hue is within 10 degrees. The species with most of them is the subject, another
  one with at least a fifth as many is its companion. Without such pixels the creature is a `fakemon`.
"""

from __future__ import annotations

import colorsys
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from PIL import Image, ImageChops, ImageFilter, ImageStat

from demo.art.creatures import SPECIES, Species

FLAT_SPAN = 8
STRONG_CHROMA = 0.35
FADED_CHROMA = 0.13
CREATURE_SHARE = 0.02
HUE_REACH = 10.0
COMPANION_SHARE = 0.2
RELEVANCE_OF_FLATNESS = ((0.0, 0.0), (0.35, 78.0), (1.0, 100.0))
AESTHETIC_OF_CONTRAST = ((0.2, 20.0), (0.45, 34.0), (0.65, 66.0), (1.2, 87.0))
JITTER = 9
TILING = 0.12
NEARLY_TILING = 0.3
MAGENTA_HUE = 300.0

Pixel = tuple[int, int, int]


def judge(image: Image.Image) -> dict[str, Any]:
    """Return {"relevance": 0-100, "aesthetic": 0-100, "artifact": "none", "mild" or "strong"} of an RGB image."""
    small = _shrink(image, 160)
    return {
        "relevance": round(interpolate(measure_flatness(small), RELEVANCE_OF_FLATNESS)),
        "aesthetic": _aesthetic(small),
        "artifact": _artifact(measure_repetition(image)),
    }


def measure_flatness(small: Image.Image) -> float:
    """Return the share (0 to 1) of pixels whose 3×3 neighbourhood spans at most FLAT_SPAN grey levels."""
    grey = small.convert("L")
    span = ImageChops.subtract(grey.filter(ImageFilter.MaxFilter(3)), grey.filter(ImageFilter.MinFilter(3)))
    counts = span.histogram()
    return sum(counts[: FLAT_SPAN + 1]) / sum(counts)


def measure_repetition(image: Image.Image) -> float:
    """Return the mean difference of the left from the right half over the mean difference along rows; 0 is a tiling."""
    square = image.resize((96, 96), Image.Resampling.BOX, reducing_gap=3)
    halves = ImageChops.difference(square.crop((0, 0, 48, 96)), square.crop((48, 0, 96, 96)))
    rows = square.resize((1, 96), Image.Resampling.BOX).resize((96, 96))
    along = ImageChops.difference(square, rows)
    return sum(ImageStat.Stat(halves).mean) / max(sum(ImageStat.Stat(along).mean), 1.0)


def measure_contrast(small: Image.Image) -> tuple[float, float]:
    """Return the span of grey levels between the 5th and 95th percentile, and the mean chroma, both from 0 to 1."""
    counts = small.convert("L").histogram()
    up_to = list(accumulate(counts))
    low, high = (bisect_left(up_to, share * up_to[-1]) for share in (0.05, 0.95))
    red, green, blue = small.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    return (high - low) / 255, ImageStat.Stat(ImageChops.subtract(highest, lowest)).mean[0] / 255


def _aesthetic(small: Image.Image) -> int:
    contrast, chroma = measure_contrast(small)
    base = round(interpolate(contrast + 2 * chroma, AESTHETIC_OF_CONTRAST))
    quantised = small.resize((24, 24), Image.Resampling.BOX).point(lambda value: value // 4)
    return base + zlib.crc32(quantised.tobytes()) % JITTER


def _artifact(repetition: float) -> str:
    return "strong" if repetition < TILING else "mild" if repetition < NEARLY_TILING else "none"


def interpolate(value: float, knots: Sequence[tuple[float, float]]) -> float:
    """Return the height at `value` of the line through the knots, level beyond its ends."""
    if value <= knots[0][0]:
        return knots[0][1]
    for (x0, y0), (x1, y1) in pairwise(knots):
        if value <= x1:
            return y0 + (y1 - y0) * (value - x0) / (x1 - x0)
    return knots[-1][1]


def _shrink(image: Image.Image, longest: int) -> Image.Image:
    scale = min(1.0, longest / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=3)


@dataclass(frozen=True)
class Seen:
    """The findings of the rules in an image.

    Args:
        species: the demo species in it, the largest first; empty for a fakemon.
        area: share of creature pixels in the image, 0 to 1.
        x: middle of the subject, from the left, 0 to 1.
        shape: width of the subject over its height, in pixels.
        top, bottom: mean colour of the upper and lower third, without creatures.
        magenta: share of magenta pixels in the image.
        number: a checksum of the pixels, to choose words by.
    """

    species: tuple[Species, ...]
    area: float
    x: float
    shape: float
    top: Pixel
    bottom: Pixel
    magenta: float
    number: int


def look_at(image: Image.Image) -> Seen:
    """Find creatures and ground in an RGB image."""
    small = _shrink(image, 96)
    width, height = small.size
    data = small.tobytes()
    pixels: list[Pixel] = list(zip(data[0::3], data[1::3], data[2::3], strict=True))
    owners = _owners(pixels)
    counts = Counter(owner for owner in owners if owner is not None and owner >= 0)
    ranked = [index for index, count in counts.most_common() if count >= COMPANION_SHARE * max(counts.values())]
    if sum(counts.values()) < CREATURE_SHARE * len(pixels):
        ranked = []
    spots = [at for at, owner in enumerate(owners) if ranked and owner == ranked[0]] or list(range(len(pixels)))
    xs, ys = sorted(at % width for at in spots), sorted(at // width for at in spots)
    trim = len(spots) // 50  # stray pixels do not stretch the box
    wide, high = xs[-1 - trim] - xs[trim] + 1, ys[-1 - trim] - ys[trim] + 1
    ground = [None if owner is not None else pixel for pixel, owner in zip(pixels, owners, strict=True)]
    third = width * (height // 3)
    return Seen(
        species=tuple(SPECIES[index] for index in ranked),
        area=sum(counts[index] for index in ranked) / len(pixels),
        x=sum(xs) / len(xs) / width,
        shape=wide / high,
        top=_mean(ground[:third]),
        bottom=_mean(ground[-third:]),
        magenta=sum(_is_magenta(pixel) for pixel in pixels) / len(pixels),
        number=zlib.crc32(bytes(value // 4 for value in data)),
    )


def _owners(pixels: Sequence[Pixel]) -> list[int | None]:
    """Return for each pixel the index of its species, -1 for a strong colour of none, None for ground."""
    limit = STRONG_CHROMA * 255
    chromas = [max(pixel) - min(pixel) for pixel in pixels]
    if sum(chroma >= limit for chroma in chromas) < CREATURE_SHARE * len(pixels):
        limit = FADED_CHROMA * 255
    return [_nearest(_hue(pixel)) if chroma >= limit else None for pixel, chroma in zip(pixels, chromas, strict=True)]


def _nearest(hue: float) -> int:
    for index, species in enumerate(SPECIES):
        if _apart(hue, species.hue) <= HUE_REACH:
            return index
    return -1


def _apart(hue: float, other: float) -> float:
    return abs((hue - other + 180) % 360 - 180)


def _hue(pixel: Pixel) -> float:
    """Return the hue in degrees, 0 for grey."""
    return 360 * colorsys.rgb_to_hsv(*pixel)[0]


def _is_magenta(pixel: Pixel) -> bool:
    return max(pixel) - min(pixel) > 200 and _apart(_hue(pixel), MAGENTA_HUE) < 10


def _mean(pixels: Sequence[Pixel | None]) -> Pixel:
    kept = [pixel for pixel in pixels if pixel is not None] or [(128, 128, 128)]
    red, green, blue = (round(sum(channel) / len(kept)) for channel in zip(*kept, strict=True))
    return red, green, blue


# Up to which hue: what a muted colour is called, and what a strong one.
HUE_WORDS = (
    (18, "pink", "red"),
    (46, "sandy", "orange"),
    (70, "yellow", "yellow"),
    (165, "green", "green"),
    (200, "teal", "teal"),
    (250, "blue", "blue"),
    (290, "violet", "violet"),
    (360, "pink", "pink"),
)


def name_colour(pixel: Pixel) -> str:
    """Return words for a colour: "white", "dark blue", "pale green"."""
    value, chroma = max(pixel) / 255, (max(pixel) - min(pixel)) / 255
    if chroma < 0.06:
        return "white" if value > 0.9 else "dark grey" if value < 0.35 else "grey"
    hue = _hue(pixel)
    word = next(strong if chroma > 0.4 else weak for edge, weak, strong in HUE_WORDS if hue < edge)
    shade = "dark " if value < 0.45 else "pale " if value > 0.85 and chroma <= 0.4 else ""
    return shade + word


# Said of the subject, by its shape: (pose, action, verb for one, verb for several).
STANCES = {
    "tall": ("standing", "waiting", "stands", "stand"),
    "square": ("sitting", "resting", "sits", "sit"),
    "wide": ("stretched_out", "moving", "stretches out", "stretch out"),
}
SENTENCES = (
    "{who} {verb} {manner} {where} of a {colours} scene, {mood}, drawn with clean lines.",
    "{where} of the picture {who} {verb} {manner} on {bottom} ground, {mood}, with {top} behind.",
    "{who} {verb} {manner} {where} while {bottom} ground spreads out under {top} shapes, {mood}.",
    "against {colours} shapes, {who} {verb} {manner} {where}, {mood} and looking out of the frame.",
    "{who} {verb} {manner} {where} of a simple {bottom} landscape, {mood}, before a {top} backdrop.",
    "a cartoon drawing in which {who} {verb} {manner} {where}, {mood}, with {top} above and {bottom} below.",
)
MANNERS = ("quietly", "happily", "proudly", "patiently", "gently", "boldly", "calmly")
MOODS = ("calm and friendly", "curious", "bright-eyed", "at ease", "alert", "full of joy", "a little shy")


def describe(image: Image.Image) -> dict[str, Any]:
    """Return all caption fields for an RGB image."""
    seen = look_at(image)
    several = len(seen.species) > 1
    stance = "tall" if seen.shape < 0.8 else "wide" if seen.shape > 1.2 else "square"
    pose, action, one, more = STANCES[stance]
    top, bottom = name_colour(seen.top), name_colour(seen.bottom)
    night = max(seen.top) < 120
    outdoors = night or "blue" in top or "teal" in top
    names = [species.name for species in seen.species]
    return {
        "caption": _sentence(seen, " and ".join(names) or "a made-up creature", more if several else one, top, bottom),
        "pokemon": [species.slug for species in seen.species] or ["fakemon"],
        "form": [None] * max(1, len(seen.species)),
        "shiny_pokemon": [],
        "trainer_presence": False,
        "gijinka": False,
        "subject_count": "multiple" if several else "single",
        "multi_panel": False,
        "pose": [pose],
        "actions": [action],
        "outfit": [],
        "props": ["balloon"] if seen.magenta > 0.05 else [],
        "environment": ["outdoors" if outdoors else "plain_backdrop"],
        "biome": _biome(bottom) if outdoors else [],
        "time_of_day": "night" if night else "day" if outdoors else None,
        "weather": "clear" if outdoors and not night else None,
        "background": sorted(
            {_snake(top) + "_sky" if outdoors else _snake(top) + "_backdrop", _snake(bottom) + "_ground"}
        ),
        "characteristics": [f"{_snake(name_colour(species.body))}_body" for species in seen.species],
        "composition": [
            "close_up" if seen.area > 0.3 else "full_body",
            *(["group_shot"] if several else []),
            "centered" if abs(seen.x - 0.5) < 0.1 else "rule_of_thirds",
        ],
        "art_style": ["flat_color", "cartoon"],
    }


def _sentence(seen: Seen, who: str, verb: str, top: str, bottom: str) -> str:
    number, template = divmod(seen.number, len(SENTENCES))
    number, mood = divmod(number, len(MOODS))
    sentence = SENTENCES[template].format(
        who=who,
        verb=verb,
        where="on the left" if seen.x < 0.4 else "on the right" if seen.x > 0.6 else "in the middle",
        top=top,
        bottom=bottom,
        colours=top if top == bottom else f"{top} and {bottom}",
        mood=MOODS[mood],
        manner=MANNERS[number % len(MANNERS)],
    )
    return sentence[0].upper() + sentence[1:]


def _biome(ground: str) -> list[str]:
    words = {"green": "grassland", "sandy": "beach", "white": "snowfield", "blue": "lake", "teal": "ocean"}
    return [biome for word, biome in words.items() if word in ground][:1]


def _snake(words: str) -> str:
    return words.replace(" ", "_")
