"""The demo's grounds: fourteen muted scenes for a creature to stand before, none of them with text in it.

No scene uses a colour of more chroma than `demo.art.gallery.MUTED_CHROMA` over more than a small area.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from demo.art.gallery import WHITE, Canvas, Colour, muted, oval, scatter

Range = tuple[float, float]
Scene = Callable[["Painter"], None]


class Painter:
    """Paints the few shapes that all scenes are made of, where chance puts them; heights are shares of the canvas's."""

    def __init__(self, canvas: Canvas, rng: random.Random) -> None:
        self.canvas, self.rng = canvas, rng
        self.hue = rng.uniform(0, 360)

    def sky(self, top: Colour, bottom: Colour, start: float = 0.0) -> None:
        self.canvas.gradient(top, bottom, start * self.canvas.height)

    def disc(self, colour: Colour, radius: Range, height: Range = (0.15, 0.45), rings: int = 1) -> None:
        """Paint a sun, a moon or a light with rings around it."""
        x, y = self.rng.uniform(0.15, 0.85) * self.canvas.width, self.rng.uniform(*height) * self.canvas.height
        size = self.rng.uniform(*radius)
        for ring in range(rings, 0, -1):
            self.canvas.fill(oval(x, y, ring * size, ring * size), colour, 1 / ring)

    def hill(self, height: Range, colour: Colour, swing: float = 0.08) -> None:
        """Fill everything below a wavy line."""
        canvas, rng = self.canvas, self.rng
        y, phase, waves = rng.uniform(*height) * canvas.height, rng.uniform(0, 6.3), rng.uniform(0.5, 1.5) * 2 * math.pi
        line = [(canvas.width * x / 40, y + swing * math.sin(phase + waves * x / 40)) for x in range(41)]
        canvas.fill([*line, (canvas.width, canvas.height), (0, canvas.height)], colour)

    def blobs(
        self, count: int, height: Range, size: Range, colour: Colour, flat: float = 1.0, fade: float = 1.0
    ) -> None:
        """Scatter ovals: clouds, crowns, flowers, stars, flakes, bubbles; `flat` is their height over their width."""
        canvas, (low, high) = self.canvas, height
        box = (0, low * canvas.height), (canvas.width, high * canvas.height)
        for x, y in scatter(self.rng, count, *box, 1.2 * size[0]):
            radius = self.rng.uniform(*size)
            canvas.fill(oval(x, y, radius, flat * radius), colour, fade)

    def clouds(self, count: int, height: Range = (0.08, 0.4), size: Range = (0.1, 0.18)) -> None:
        for x, y in scatter(self.rng, count, (0, height[0]), (self.canvas.width, height[1] * self.canvas.height), 0.3):
            radius = self.rng.uniform(*size)
            for away, grow in ((-0.8, 0.6), (0.8, 0.65), (0, 1)):
                self.canvas.fill(oval(x + away * radius, y, grow * radius, 0.6 * grow * radius), WHITE)

    def spikes(self, count: int, foot: Range, size: Range, colour: Colour, slim: float = 0.35, tiers: int = 1) -> None:
        """Scatter triangles: pines, mountains, crystals; a negative size hangs them up."""
        canvas = self.canvas
        box = (0, foot[0] * canvas.height), (canvas.width, foot[1] * canvas.height)
        for x, y in scatter(self.rng, count, *box, 0.12):
            tall = self.rng.uniform(*size)
            for tier in range(tiers):
                base, half, rise = y - tall * 0.3 * tier, slim * abs(tall) * (1 - 0.25 * tier), tall * (1 - 0.3 * tier)
                canvas.fill([(x - half, base), (x, base - rise), (x + half, base)], colour)

    def columns(
        self, count: int, top: Range, width: Range, colour: Colour, lean: float = 0.0, fade: float = 1.0
    ) -> None:
        """Paint trunks, towers, stripes or beams from a height down to the lower edge."""
        canvas = self.canvas
        for x, _ in scatter(self.rng, count, (-0.1, 0), (canvas.width + 0.1, 0), 1.1 * width[0]):
            half, y = self.rng.uniform(*width) / 2, self.rng.uniform(*top) * canvas.height
            low = canvas.height
            canvas.fill([(x - half, y), (x + half, y), (x + half + lean, low), (x - half + lean, low)], colour, fade)


def meadow(to: Painter) -> None:
    to.sky(muted(205, 0.3, 0.96), muted(185, 0.1, 0.98))
    to.disc(muted(50, 0.27, 1), (0.09, 0.16))
    to.clouds(3)
    for layer in range(3):
        to.hill((0.5 + 0.12 * layer, 0.62 + 0.12 * layer), muted(100, 0.32, 0.86 - 0.1 * layer))
    to.blobs(14, (0.75, 1), (0.015, 0.025), WHITE)


def forest(to: Painter) -> None:
    to.sky(muted(95, 0.2, 0.9), muted(125, 0.3, 0.62))
    for depth in range(3):
        to.columns(3 + depth, (0, 0), (0.05 + 0.03 * depth, 0.1 + 0.03 * depth), muted(130, 0.35, 0.72 - 0.17 * depth))
    to.hill((0.72, 0.82), muted(110, 0.4, 0.55), 0.05)
    to.blobs(9, (0, 0.25), (0.12, 0.25), muted(130, 0.4, 0.48), 0.7)


def beach(to: Painter) -> None:
    to.sky(muted(200, 0.3, 0.97), muted(190, 0.12, 0.98))
    to.disc(muted(50, 0.27, 1), (0.09, 0.16), (0.1, 0.3))
    to.clouds(2, (0.08, 0.3))
    to.hill((0.38, 0.55), muted(190, 0.35, 0.75), 0.0)
    to.hill((0.6, 0.76), muted(40, 0.3, 0.93), 0.15)
    to.blobs(3, (0.5, 0.62), (0.12, 0.2), muted(140, 0.5, 0.6), 0.5)


def night(to: Painter) -> None:
    to.sky(muted(230, 0.7, 0.22), muted(215, 0.55, 0.44))
    to.disc(muted(50, 0.14, 0.97), (0.1, 0.2), (0.15, 0.35), rings=2)
    to.blobs(24, (0, 0.6), (0.005, 0.01), WHITE)
    for layer in range(2):
        to.hill((0.55 + 0.14 * layer, 0.66 + 0.14 * layer), muted(225, 0.5, 0.34 - 0.1 * layer), 0.12)


def snow(to: Painter) -> None:
    to.sky(muted(212, 0.22, 0.86), muted(215, 0.06, 0.97))
    to.hill((0.45, 0.65), muted(215, 0.14, 0.92), 0.1)
    to.spikes(7, (0.6, 0.72), (0.2, 0.5), muted(168, 0.42, 0.52), tiers=3)
    to.hill((0.72, 0.82), muted(215, 0.05, 0.98), 0.06)
    to.blobs(26, (0, 1), (0.006, 0.01), WHITE)


def sunset(to: Painter) -> None:
    to.sky(muted(250, 0.3, 0.72), muted(20, 0.3, 0.97))
    to.disc(muted(32, 0.24, 0.98), (0.16, 0.22), (0.4, 0.6), rings=3)
    to.hill((0.58, 0.68), muted(250, 0.4, 0.48), 0.0)
    to.blobs(9, (0.68, 0.85), (0.1, 0.24), muted(20, 0.28, 0.9), 0.06)
    to.hill((0.82, 0.88), muted(255, 0.4, 0.28), 0.05)


def cave(to: Painter) -> None:
    to.sky(muted(to.hue, 0.45, 0.2), muted(to.hue, 0.45, 0.3))
    to.disc(muted(to.hue, 0.2, 0.85), (0.2, 0.28), (0.35, 0.5), rings=3)
    to.hill((0.74, 0.82), muted(to.hue, 0.4, 0.32), 0.05)
    to.spikes(4, (0, 0), (-0.45, -0.2), muted(to.hue, 0.4, 0.36))
    to.spikes(4, (0.95, 1), (0.2, 0.5), muted(to.hue + 30, 0.35, 0.5))


def studio(to: Painter) -> None:
    to.sky(muted(to.hue, 0.16, 0.97), muted(to.hue, 0.24, 0.9))
    to.disc(muted(to.hue + 150, 0.22, to.rng.choice((0.72, 0.86))), (0.35, 0.5), (0.3, 0.6))
    to.blobs(4, (0, 0.7), (0.07, 0.15), muted(to.hue + 30, 0.18, 0.8))
    to.hill((0.74, 0.84), muted(to.hue + 20, 0.2, 0.8), 0.04)


def stripes(to: Painter) -> None:
    to.sky(muted(to.hue, 0.2, 0.95), muted(to.hue, 0.22, 0.88))
    to.columns(7, (0, 0), (0.14, 0.2), muted(to.hue + 120, 0.22, 0.78), to.rng.choice((-0.8, -0.4, 0.4, 0.8)))
    to.hill((0.72, 0.84), muted(to.hue + 15, 0.12, 0.97), 0.06)


def underwater(to: Painter) -> None:
    to.sky(muted(192, 0.3, 0.92), muted(212, 0.5, 0.42))
    to.columns(3, (0, 0), (0.15, 0.3), WHITE, to.rng.uniform(-0.5, 0.5), 0.3)
    to.spikes(8, (0.9, 1), (0.2, 0.6), muted(150, 0.5, 0.48), 0.08)
    to.hill((0.76, 0.86), muted(44, 0.35, 0.72), 0.05)
    to.blobs(12, (0.05, 0.8), (0.01, 0.035), WHITE, fade=0.4)


def room(to: Painter) -> None:
    to.sky(muted(to.hue, 0.14, 0.95), muted(to.hue, 0.18, 0.9))
    x, y = to.rng.uniform(0.1, 0.55) * to.canvas.width, to.rng.uniform(0.08, 0.2)
    for edge, colour in ((0.03, WHITE), (0, muted(205, 0.3, to.rng.choice((0.35, 0.95))))):
        left, top, right, bottom = x - edge, y - edge, x + 0.42 + edge, y + 0.4 + edge
        to.canvas.fill([(left, top), (right, top), (right, bottom), (left, bottom)], colour)
    to.sky(muted(28, 0.36, 0.72), muted(26, 0.4, 0.6), to.rng.uniform(0.64, 0.76))
    to.blobs(1, (0.86, 0.9), (0.4, 0.6), muted(to.hue + 60, 0.3, 0.82), 0.25)


def town(to: Painter) -> None:
    to.sky(muted(235, 0.35, 0.6), muted(20, 0.25, 0.95))
    for depth in range(2):
        to.columns(6, (0.2, 0.62), (0.14, 0.26), muted(235, 0.4, 0.42 - 0.12 * depth))
    to.blobs(10, (0.5, 0.75), (0.015, 0.02), muted(46, 0.27, 0.98))
    to.hill((0.8, 0.84), muted(235, 0.3, 0.42), 0.0)


def mountains(to: Painter) -> None:
    to.sky(muted(205, 0.25, 0.95), muted(215, 0.06, 0.99))
    to.clouds(2)
    for layer in range(2):
        to.spikes(3, (0.75, 0.8), (0.3, 0.65 - 0.1 * layer), muted(222, 0.3, 0.72 - 0.16 * layer), 0.8)
    to.hill((0.64, 0.76), muted(110, 0.34, 0.72), 0.05)
    to.hill((0.78, 0.86), muted(96, 0.36, 0.8), 0.05)


def autumn(to: Painter) -> None:
    to.sky(muted(38, 0.14, 0.98), muted(34, 0.26, 0.93))
    to.hill((0.62, 0.76), muted(34, 0.34, 0.76), 0.1)
    to.columns(2, (0.1, 0.3), (0.08, 0.14), muted(24, 0.5, 0.42))
    to.blobs(8, (0, 0.3), (0.12, 0.24), muted(to.rng.uniform(16, 44), 0.45, 0.72), 0.8)
    to.hill((0.8, 0.88), muted(30, 0.4, 0.66), 0.04)
    to.blobs(16, (0.4, 1), (0.02, 0.026), muted(24, 0.5, 0.7), 0.7)


SCENES: dict[str, Scene] = {
    "in the meadow": meadow,
    "deep in the forest": forest,
    "on the beach": beach,
    "on a starry night": night,
    "in the first snow": snow,
    "by the lake at sunset": sunset,
    "in a crystal cave": cave,
    "in the studio": studio,
    "on candy stripes": stripes,
    "under the sea": underwater,
    "at home by the window": room,
    "in town at dusk": town,
    "in the mountains": mountains,
    "under the autumn tree": autumn,
}


def paint_scene(canvas: Canvas, name: str, rng: random.Random) -> float:
    """Paint one of SCENES, and return where a creature's feet may be, in the canvas's units."""
    SCENES[name](Painter(canvas, rng))
    return canvas.height * rng.uniform(0.85, 0.93)


def paint_foreground(canvas: Canvas, rng: random.Random) -> None:
    """Paint something near and see-through in a lower corner, in two pictures of five."""
    kind, side = rng.choice(("grass", "bokeh", "none", "none", "none")), rng.choice((0, canvas.width))
    for x, y in scatter(rng, 7, (side - 0.35, 0.8), (side + 0.35, 1), 0.08) if kind != "none" else ():
        if kind == "bokeh":
            canvas.fill(oval(x, y * canvas.height, 0.07, 0.07), WHITE, 0.3)
        else:
            tip, low = x + rng.uniform(-0.1, 0.1), canvas.height
            canvas.fill(
                [(x - 0.03, low), (tip, low - rng.uniform(0.12, 0.34)), (x + 0.03, low)], muted(130, 0.5, 0.4), 0.9
            )
