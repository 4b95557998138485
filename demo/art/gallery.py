"""A small vector painter for the demo: a canvas in units of its shorter side, and colours that keep their hue.

Everything is drawn from points, so the same picture can be painted at any size: `demo.art.draw` paints a thumbnail
first, to see whether a composition is like one that it already has, and the real picture afterwards.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

# The chroma (largest minus smallest channel, 0 to 1) that no ground, sky or plant goes over: only creatures and small
# things are stronger, which is how demo.standins.pixel_rules finds a creature.
MUTED_CHROMA = 0.27

WHITE: Colour = (252, 251, 248)
INK: Colour = (44, 38, 48)


def tone(hue: float, saturation: float, value: float) -> Colour:
    """Return an sRGB colour: hue in degrees, saturation and value from 0 to 1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, min(saturation, 1), min(value, 1))
    return round(red * 255), round(green * 255), round(blue * 255)


def muted(hue: float, saturation: float, value: float) -> Colour:
    """Return a colour whose chroma is at most MUTED_CHROMA."""
    return tone(hue, min(saturation, MUTED_CHROMA / max(value, 0.01)), value)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return `first` with `share` (0 to 1) of `second` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(colour: Colour, factor: float) -> Colour:
    """Return the colour with its value times `factor`, hue and saturation kept."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    return tone(hue * 360, saturation, value * factor)


def oval(x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> list[Point]:
    """Return the outline of an ellipse; `tilt` in degrees, clockwise as y points down."""
    around = (2 * math.pi * step / 48 for step in range(48))
    return turned([(rx * math.cos(angle), ry * math.sin(angle)) for angle in around], tilt, (x, y))


def leaf(base: Point, tip: Point, width: float) -> list[Point]:
    """Return the outline of a leaf from base to tip, widest a little before its middle."""
    length, angle = math.dist(base, tip), math.degrees(math.atan2(tip[1] - base[1], tip[0] - base[0]))
    points = [
        (share * length, width / 2 * math.sin(math.pi * share**0.8)) for share in (step / 12 for step in range(13))
    ]
    return turned([*points, *((x, -y) for x, y in reversed(points))], angle, base)


def turned(points: Sequence[Point], degrees: float, centre: Point) -> list[Point]:
    """Return points around (0, 0), turned clockwise and moved to `centre`."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in points]


def smooth(points: Sequence[Point]) -> list[Point]:
    """Return an open Catmull-Rom curve through the points."""
    curve = []
    for at in range(len(points) - 1):
        near = [points[min(max(at + offset, 0), len(points) - 1)] for offset in (-1, 0, 1, 2)]
        for t in (step / 10 for step in range(10)):
            weights = ((2 - t) * t - 1) * t, (3 * t - 5) * t * t + 2, ((4 - 3 * t) * t + 1) * t, (t - 1) * t * t
            x, y = (sum(w * point[axis] for w, point in zip(weights, near, strict=True)) / 2 for axis in (0, 1))
            curve.append((x, y))
    return [*curve, points[-1]]


@dataclass
class Canvas:
    """A picture under way. Its shorter side is 1 unit, x grows to the right and y downwards.

    Args:
        size: (width, height) of the finished picture in pixels.
        scale: over 1, how many times larger it is painted, to be averaged down by `finish`; under 1, a thumbnail.
            What is painted does not depend on it.
    """

    size: tuple[int, int]
    scale: float = 1
    image: Image.Image = field(init=False)
    unit: float = field(init=False)
    width: float = field(init=False)
    height: float = field(init=False)

    def __post_init__(self) -> None:
        across, down = (round(side * self.scale) for side in self.size)
        self.image = Image.new("RGB", (across, down), WHITE)
        self.unit = min(self.size) * self.scale
        self.width, self.height = (side / min(self.size) for side in self.size)

    def fill(self, points: Sequence[Point], colour: Colour, opacity: float = 1.0, line: float = 0.0) -> None:
        """Fill a polygon, see-through where `opacity` is under 1, with a dark outline of `line` units."""
        pixels = [(x * self.unit, y * self.unit) for x, y in points]
        draw = ImageDraw.Draw(self.image, "RGBA")
        if line:
            width = max(1, round(2 * line * self.unit))
            draw.line([*pixels, *pixels[:2]], fill=darker(colour, 0.42), width=width, joint="curve")
        draw.polygon(pixels, fill=(*colour, round(255 * opacity)))

    def gradient(self, top: Colour, bottom: Colour, start: float = 0.0) -> None:
        """Fill everything from y `start` downwards with a vertical gradient."""
        first = round(start * self.unit)
        column = Image.new("RGB", (1, 64))
        column.putdata([mix(top, bottom, row / 63) for row in range(64)])
        size = self.image.width, max(1, self.image.height - first)
        self.image.paste(column.resize(size, Image.Resampling.BICUBIC), (0, first))

    def finish(self) -> Image.Image:
        """Return the picture at its own size, or the thumbnail."""
        return self.image.reduce(round(self.scale)) if self.scale > 1 else self.image


def scatter(rng: random.Random, count: int, low: Point, high: Point, apart: float) -> list[Point]:
    """Return up to `count` points of a box, at least `apart` from one another."""
    found: list[Point] = []
    for _ in range(count * 12):
        point = rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])
        if len(found) < count and all(math.dist(point, other) >= apart for other in found):
            found.append(point)
    return found
