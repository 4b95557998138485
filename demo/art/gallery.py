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

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float]
Colour = tuple[int, int, int]

# The chroma (largest minus smallest channel, 0 to 1) that no ground, sky or plant goes over: only creatures and small
# things are stronger, which is how demo.standins.pixel_rules finds a creature.
MUTED_CHROMA = 0.27

WHITE: Colour = (252, 251, 248)
CREAM: Colour = (250, 238, 214)
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


def darker(colour: Colour, factor: float = 0.8) -> Colour:
    """Return the colour with its value times `factor`, hue and saturation kept."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    return tone(hue * 360, saturation, value * factor)


def oval(x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> list[Point]:
    """Return the outline of an ellipse; `tilt` in degrees, clockwise as y points down."""
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    angles = (2 * math.pi * step / 48 for step in range(48))
    corners = ((rx * math.cos(angle), ry * math.sin(angle)) for angle in angles)
    return [(x + px * cos - py * sin, y + px * sin + py * cos) for px, py in corners]


def smooth(points: Sequence[Point], closed: bool = True) -> list[Point]:
    """Return a Catmull-Rom curve through the points."""
    count = len(points)
    spans = count if closed else count - 1
    curve = []
    for index in range(spans):
        around = [
            points[(index + offset) % count if closed else min(max(index + offset, 0), count - 1)]
            for offset in (-1, 0, 1, 2)
        ]
        for step in range(10):
            curve.append(_between(around, step / 10))
    if not closed:
        curve.append(points[-1])
    return curve


def ribbon(points: Sequence[Point], widths: Sequence[float]) -> list[Point]:
    """Return the outline of a stroke along a curve through the points, as wide at each of them as `widths` says."""
    curve = smooth(points, closed=False)
    last = len(curve) - 1
    left, right = [], []
    for index, (x, y) in enumerate(curve):
        (ax, ay), (bx, by) = curve[max(index - 1, 0)], curve[min(index + 1, last)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        position = index / last * (len(widths) - 1)
        low = min(int(position), len(widths) - 2)
        width = widths[low] + (widths[low + 1] - widths[low]) * (position - low)
        dx, dy = -(by - ay) / length * width / 2, (bx - ax) / length * width / 2
        left.append((x + dx, y + dy))
        right.append((x - dx, y - dy))
    return left + right[::-1]


def _between(around: Sequence[Point], t: float) -> Point:
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = around
    return _catmull(x0, x1, x2, x3, t), _catmull(y0, y1, y2, y3, t)


def _catmull(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


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

    def __post_init__(self) -> None:
        width, height = (round(side * self.scale) for side in self.size)
        self.image = Image.new("RGB", (width, height), WHITE)
        self.unit = min(self.size) * self.scale

    @property
    def width(self) -> float:
        return self.size[0] / min(self.size)

    @property
    def height(self) -> float:
        return self.size[1] / min(self.size)

    def fill(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon."""
        ImageDraw.Draw(self.image).polygon(self._pixels(points), fill=colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a line with round joints and ends along the points."""
        pixels = self._pixels(points)
        thick = max(1, round(width * self.unit))
        draw = ImageDraw.Draw(self.image)
        draw.line(pixels, fill=colour, width=thick, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=colour)

    def shade(self, points: Sequence[Point], colour: Colour, opacity: float, blur: float = 0.0) -> None:
        """Lay a see-through shape over the picture, blurred by `blur` units: a shadow, a glow, a beam of light."""
        left, top, right, bottom = self._box(points, margin=3 * blur)
        if right <= left or bottom <= top:
            return
        step = max(1, round(blur * self.unit / 3))  # a blurred mask holds no detail: paint it small
        small = (max(1, (right - left) // step), max(1, (bottom - top) // step))
        mask = Image.new("L", small)
        corners = [((x - left) / step, (y - top) / step) for x, y in self._pixels(points)]
        ImageDraw.Draw(mask).polygon(corners, fill=round(255 * opacity))
        if blur:
            mask = mask.filter(ImageFilter.GaussianBlur(blur * self.unit / step))
        if step > 1:
            mask = mask.resize((right - left, bottom - top), Image.Resampling.BICUBIC)
        self.image.paste(colour, (left, top, right, bottom), mask)

    def part(self, points: Sequence[Point], colour: Colour, *, line: float, light: Point) -> None:
        """Paint a body part: an outline of `line` units, the colour, and a darker rim away from the light.

        Args:
            light: how far the lit shape is pushed towards the light, in units.
        """
        pixels = self._pixels(points)
        rim = darker(colour, 0.83)
        draw = ImageDraw.Draw(self.image)
        thick = max(1, round(line * self.unit))
        draw.line([*pixels, pixels[0], pixels[1]], fill=darker(colour, 0.42), width=thick, joint="curve")
        draw.polygon(pixels, fill=rim)
        left, top, right, bottom = self._box(points)
        if right <= left or bottom <= top:
            return
        masks = []
        for dx, dy in ((0.0, 0.0), (light[0] * self.unit, light[1] * self.unit)):
            mask = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(mask).polygon([(x - left + dx, y - top + dy) for x, y in pixels], fill=255)
            masks.append(mask)
        self.image.paste(colour, (left, top, right, bottom), ImageChops.darker(*masks))

    def gradient(self, top: Colour, bottom: Colour, start: float = 0.0, end: float | None = None) -> None:
        """Fill the full width from y `start` to y `end` with a vertical gradient."""
        first = round(start * self.unit)
        last = self.image.height if end is None else round(end * self.unit)
        column = Image.new("RGB", (1, 64))
        column.putdata([mix(top, bottom, row / 63) for row in range(64)])
        self.image.paste(column.resize((self.image.width, last - first), Image.Resampling.BICUBIC), (0, first))

    def finish(self) -> Image.Image:
        """Return the picture at its own size, or the thumbnail."""
        return self.image.reduce(round(self.scale)) if self.scale > 1 else self.image

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.unit, y * self.unit) for x, y in points]

    def _box(self, points: Sequence[Point], margin: float = 0.0) -> tuple[int, int, int, int]:
        """Return the pixel box around the points, cut to the picture."""
        xs, ys = zip(*points, strict=True)
        return (
            max(0, math.floor((min(xs) - margin) * self.unit)),
            max(0, math.floor((min(ys) - margin) * self.unit)),
            min(self.image.width, math.ceil((max(xs) + margin) * self.unit) + 1),
            min(self.image.height, math.ceil((max(ys) + margin) * self.unit) + 1),
        )


@dataclass(frozen=True)
class Pen:
    """Paints in a creature's own coordinates: its feet at (0, 0), about 1 high, y downwards, facing left."""

    canvas: Canvas
    x: float
    y: float
    size: float
    tilt: float = 0.0
    mirror: bool = False

    def place(self, points: Sequence[Point]) -> list[Point]:
        """Return the points in the canvas's coordinates."""
        cos, sin = math.cos(math.radians(self.tilt)), math.sin(math.radians(self.tilt))
        sign = -1 if self.mirror else 1
        turned = ((px * cos - py * sin, px * sin + py * cos) for px, py in points)
        return [(self.x + sign * px * self.size, self.y + py * self.size) for px, py in turned]

    def part(self, points: Sequence[Point], colour: Colour) -> None:
        self.canvas.part(
            self.place(points), colour, line=0.016 * self.size, light=(-0.018 * self.size, -0.022 * self.size)
        )

    def fill(self, points: Sequence[Point], colour: Colour) -> None:
        self.canvas.fill(self.place(points), colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        self.canvas.stroke(self.place(smooth(points, closed=False)), width * self.size, colour)

    def shade(self, points: Sequence[Point], colour: Colour, opacity: float, blur: float = 0.0) -> None:
        self.canvas.shade(self.place(points), colour, opacity, blur * self.size)


def scatter(rng: random.Random, count: int, low: Point, high: Point, apart: float) -> list[Point]:
    """Return up to `count` points of a box, at least `apart` from one another."""
    found: list[Point] = []
    for _ in range(count * 12):
        point = rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])
        if all(math.dist(point, other) >= apart for other in found):
            found.append(point)
        if len(found) == count:
            break
    return found
