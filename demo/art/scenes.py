"""The demo's grounds: sixteen muted scenes for a creature to stand before, none of them with text in it.

A scene paints a canvas and returns the height, in the canvas's units, where a creature's feet may be. No scene uses a
colour of more chroma than `demo.art.MUTED_CHROMA` over more than a small area.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from demo.art.gallery import WHITE, Canvas, Colour, Point, darker, mix, muted, oval, ribbon, scatter, smooth, tone

Scene = Callable[[Canvas, random.Random], float]


def meadow(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.choice((196, 205, 214))
    canvas.gradient(muted(hue, 0.3, 0.96), muted(hue - 20, 0.1, 0.98))
    _sun(canvas, (rng.uniform(0.15, 0.85) * canvas.width, rng.uniform(0.14, 0.3)), rng.uniform(0.09, 0.15))
    _clouds(canvas, rng, rng.randint(1, 3), 0.1, 0.4)
    horizon = canvas.height * rng.uniform(0.5, 0.68)
    for layer, shift in enumerate((0.0, 0.1, 0.22)):
        colour = muted(rng.uniform(84, 120), 0.32, 0.86 - 0.1 * layer)
        _hill(canvas, rng, horizon + shift * canvas.height, rng.uniform(0.04, 0.12), colour)
    ground = canvas.height * rng.uniform(0.84, 0.93)
    for x, y in scatter(rng, 14, (0, horizon + 0.28), (canvas.width, canvas.height), 0.13):
        _flower(canvas, (x, y), 0.018 + 0.012 * (y / canvas.height), rng.choice((WHITE, muted(50, 0.4, 0.98))))
    return ground


def forest(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.uniform(95, 160)
    canvas.gradient(muted(hue - 30, 0.2, 0.9), muted(hue, 0.3, 0.62))
    for depth in range(3):
        shade = muted(hue, 0.35, 0.72 - 0.17 * depth)
        for x, _ in scatter(rng, 3 + depth, (0, 0), (canvas.width, 0.01), 0.2):
            width = rng.uniform(0.04, 0.09) * (1 + 0.5 * depth)
            canvas.fill(
                [
                    (x - width / 2, 0),
                    (x + width / 2, 0),
                    (x + width * 0.8, canvas.height),
                    (x - width * 0.8, canvas.height),
                ],
                shade,
            )
    ground = canvas.height * rng.uniform(0.82, 0.92)
    _hill(canvas, rng, ground - 0.1, 0.05, muted(hue - 15, 0.4, 0.55))
    side = rng.choice((0.0, canvas.width))
    for x, y in scatter(rng, 9, (side - 0.4, -0.1), (side + 0.4, 0.3), 0.1):
        canvas.fill(
            oval(x, y, rng.uniform(0.12, 0.2), rng.uniform(0.09, 0.15)), muted(hue, 0.4, rng.uniform(0.4, 0.55))
        )
    return ground


def beach(canvas: Canvas, rng: random.Random) -> float:
    canvas.gradient(muted(200, 0.3, 0.97), muted(190, 0.12, 0.98))
    _clouds(canvas, rng, 2, 0.08, 0.3)
    sea = canvas.height * rng.uniform(0.35, 0.55)
    canvas.gradient(muted(192, 0.4, 0.75), muted(180, 0.3, 0.9), sea)
    slope = rng.uniform(-0.22, 0.22)
    shore = canvas.height * rng.uniform(0.62, 0.74)
    edge = smooth(
        [
            (-0.1, shore - slope),
            (canvas.width * 0.35, shore + 0.04),
            (canvas.width * 0.7, shore - 0.03),
            (canvas.width + 0.1, shore + slope),
        ],
        closed=False,
    )
    below = [(canvas.width + 0.1, canvas.height + 0.1), (-0.1, canvas.height + 0.1)]
    canvas.fill([(x, y - 0.03) for x, y in edge] + below, WHITE)
    canvas.fill(edge + below, muted(40, 0.3, 0.93))
    if rng.random() < 0.7:
        _palm(canvas, rng.choice((0.12, canvas.width - 0.12)), shore + 0.2, rng)
    return max(canvas.height * rng.uniform(0.85, 0.93), shore + abs(slope) + 0.05)


def night(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.uniform(215, 250)
    canvas.gradient(muted(hue, 0.7, 0.22), muted(hue - 15, 0.55, 0.44))
    moon = rng.uniform(0.2, 0.8) * canvas.width, rng.uniform(0.18, 0.32)
    radius = rng.uniform(0.1, 0.2)
    canvas.shade(oval(*moon, radius * 1.8, radius * 1.8), WHITE, 0.35, radius * 0.4)
    canvas.fill(oval(*moon, radius, radius), muted(50, 0.14, 0.97))
    for x, y in scatter(rng, 26, (0, 0), (canvas.width, 0.62 * canvas.height), 0.09):
        _spark(canvas, (x, y), rng.uniform(0.006, 0.016), muted(50, 0.1, 0.95))
    for layer in range(2):
        colour = muted(hue - 10, 0.5, 0.34 - 0.1 * layer)
        _hill(canvas, rng, canvas.height * (0.62 + 0.14 * layer), rng.uniform(0.05, 0.12), colour)
    return canvas.height * rng.uniform(0.86, 0.93)


def snow(canvas: Canvas, rng: random.Random) -> float:
    canvas.gradient(muted(212, 0.22, 0.86), muted(215, 0.06, 0.97))
    horizon = canvas.height * rng.uniform(0.45, 0.65)
    _hill(canvas, rng, horizon, 0.09, muted(215, 0.14, 0.92))
    for x, y in scatter(rng, 7, (0, horizon - 0.02), (canvas.width, horizon + 0.16), 0.13):
        _pine(canvas, (x, y + 0.05), rng.uniform(0.2, 0.46), muted(168, 0.42, rng.uniform(0.45, 0.6)))
    _hill(canvas, rng, horizon + 0.2, 0.06, muted(215, 0.05, 0.98))
    for x, y in scatter(rng, 30, (0, 0), (canvas.width, canvas.height), 0.1):
        canvas.fill(oval(x, y, 0.008, 0.008), WHITE)
    return canvas.height * rng.uniform(0.86, 0.93)


def sunset(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.choice((14, 26, 345))
    canvas.gradient(muted(hue + 230, 0.3, 0.72), muted(hue, 0.3, 0.97))
    centre = rng.uniform(0.15, 0.85) * canvas.width, canvas.height * rng.uniform(0.45, 0.58)
    for ring in range(4):
        radius = 0.62 - 0.13 * ring
        canvas.fill(oval(*centre, radius, radius), muted(hue + 5 * ring, 0.28 - 0.04 * ring, 0.88 + 0.03 * ring))
    water = centre[1] + 0.06
    canvas.gradient(muted(hue + 240, 0.4, 0.5), muted(hue + 220, 0.4, 0.36), water)
    for row in range(6):
        y = water + 0.04 + 0.07 * row
        half = 0.24 - 0.025 * row
        canvas.fill(oval(centre[0] + rng.uniform(-0.05, 0.05), y, half, 0.012), muted(hue, 0.28, 0.9))
    ground = canvas.height * rng.uniform(0.86, 0.93)
    _hill(canvas, rng, ground - 0.07, 0.04, muted(hue + 235, 0.4, 0.26))
    return ground


def cave(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.choice((20, 220, 250, 180))
    canvas.gradient(muted(hue, 0.45, 0.2), muted(hue, 0.45, 0.3))
    cx, cy = rng.uniform(0.3, 0.7) * canvas.width, canvas.height * rng.uniform(0.38, 0.5)
    for layer in range(4):
        reach = 0.6 - 0.11 * layer
        points = [
            (
                cx + reach * rng.uniform(0.85, 1.1) * math.cos(angle),
                cy + reach * rng.uniform(0.8, 1.05) * math.sin(angle),
            )
            for angle in (math.pi * corner / 5 for corner in range(10))
        ]
        canvas.fill(smooth(points), muted(hue - 8 * layer, 0.4 - 0.07 * layer, 0.36 + 0.17 * layer))
    ground = canvas.height * rng.uniform(0.84, 0.92)
    _hill(canvas, rng, ground - 0.12, 0.05, muted(hue, 0.4, 0.3))
    for x, _ in scatter(rng, 6, (0, 0), (canvas.width, 0.01), 0.14):
        length, lean = rng.uniform(0.12, 0.34), rng.uniform(-0.03, 0.03)
        base = canvas.height if rng.random() < 0.4 else 0.0
        canvas.fill([(x - 0.06, base), (x + 0.06, base), (x + lean, abs(base - length))], muted(hue + 30, 0.35, 0.5))
    return ground


def studio(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.uniform(0, 360)
    canvas.gradient(muted(hue, 0.16, 0.97), muted(hue, 0.24, 0.9))
    x, y = rng.uniform(0.25, 0.75) * canvas.width, rng.uniform(0.35, 0.6) * canvas.height
    canvas.fill(oval(x, y, 0.42, 0.42), muted(hue + rng.choice((60, 150, 200)), 0.22, rng.choice((0.72, 0.86, 0.99))))
    for dx, dy in scatter(rng, 4, (0, 0), (canvas.width, canvas.height * 0.7), 0.35):
        radius = rng.uniform(0.05, 0.14)
        canvas.fill(oval(dx, dy, radius, radius), muted(hue + 30, 0.18, rng.choice((0.8, 0.93, 1.0))))
    floor = canvas.height * rng.uniform(0.74, 0.84)
    canvas.fill(
        oval(canvas.width * rng.uniform(0.3, 0.7), floor + 0.3, 0.95 * canvas.width, 0.34), muted(hue + 20, 0.2, 0.8)
    )
    return canvas.height * rng.uniform(0.86, 0.93)


def stripes(canvas: Canvas, rng: random.Random) -> float:
    hue, other = rng.uniform(0, 360), rng.choice((40, 120, 180))
    canvas.gradient(muted(hue, 0.2, 0.95), muted(hue, 0.22, 0.88))
    lean = rng.choice((-0.7, -0.35, 0.4, 0.8))
    width = rng.uniform(0.2, 0.38)
    start = -1.0 + rng.uniform(0, width)
    while start < canvas.width + 1.0:
        corners = [
            (start, 0),
            (start + width / 2, 0),
            (start + width / 2 + lean, canvas.height),
            (start + lean, canvas.height),
        ]
        canvas.fill(corners, muted(hue + other, 0.22, 0.78))
        start += width
    centre = canvas.width * rng.uniform(0.3, 0.7), canvas.height * rng.uniform(0.9, 1.1)
    canvas.fill(oval(*centre, 0.7 * canvas.width, 0.32), muted(hue + 15, 0.12, 0.97))
    return canvas.height * rng.uniform(0.86, 0.92)


def rays(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.uniform(0, 360)
    canvas.gradient(muted(hue, 0.1, 0.98), muted(hue, 0.2, 0.94))
    x, y = rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(0.1, 0.7) * canvas.height
    count, turn = rng.choice((7, 9, 11)), rng.uniform(0, 1)
    for ray in range(count):
        first, last = (2 * math.pi * (ray + turn + share) / count for share in (0.0, 0.5))
        canvas.fill(
            [
                (x, y),
                (x + 3 * math.cos(first), y + 3 * math.sin(first)),
                (x + 3 * math.cos(last), y + 3 * math.sin(last)),
            ],
            muted(hue + 25, 0.25, 0.8),
        )
    canvas.fill(oval(x, y, 0.2, 0.2), muted(hue, 0.08, 1.0))
    ground = canvas.height * rng.uniform(0.86, 0.93)
    canvas.fill(oval(canvas.width / 2, ground + 0.22, canvas.width * 0.8, 0.3), muted(hue + 10, 0.3, 0.66))
    return ground


def underwater(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.choice((175, 192, 205))
    canvas.gradient(muted(hue, 0.3, 0.92), muted(hue + 20, 0.5, 0.42))
    for start in (rng.uniform(0, 0.3), rng.uniform(0.4, 0.7), rng.uniform(0.8, 1.1)):
        x = start * canvas.width
        lean = rng.uniform(-0.5, 0.1)
        beam = [(x, -0.1), (x + 0.16, -0.1), (x + 0.3 + lean, canvas.height), (x - 0.05 + lean, canvas.height)]
        canvas.shade(beam, WHITE, 0.28, 0.02)
    floor = canvas.height * rng.uniform(0.76, 0.86)
    _hill(canvas, rng, floor, 0.05, muted(44, 0.35, 0.72))
    for x, _ in scatter(rng, 6, (0, 0), (canvas.width, 0.01), 0.12):
        top = floor - rng.uniform(0.1, 0.5)
        path = [(x, floor + 0.1), (x + 0.04, (floor + top) / 2), (x - 0.03, top)]
        canvas.fill(ribbon(path, (0.05, 0.045, 0.01)), muted(rng.uniform(130, 170), 0.5, rng.uniform(0.4, 0.55)))
    for x, y in scatter(rng, 14, (0, 0.05), (canvas.width, floor), 0.12):
        radius = rng.uniform(0.01, 0.035)
        canvas.shade(oval(x, y, radius, radius), WHITE, 0.4)
    return canvas.height * rng.uniform(0.86, 0.93)


def room(canvas: Canvas, rng: random.Random) -> float:
    wall = rng.uniform(0, 360)
    canvas.gradient(muted(wall, 0.14, 0.95), muted(wall, 0.18, 0.9))
    floor = canvas.height * rng.uniform(0.64, 0.76)
    canvas.gradient(muted(28, 0.36, 0.72), muted(26, 0.4, 0.6), floor)
    x, top = rng.uniform(0.1, 0.55) * canvas.width, rng.uniform(0.08, 0.16)
    right, bottom = x + rng.uniform(0.34, 0.5), top + rng.uniform(0.34, 0.46)
    canvas.fill(
        [(x - 0.03, top - 0.03), (right + 0.03, top - 0.03), (right + 0.03, bottom + 0.03), (x - 0.03, bottom + 0.03)],
        WHITE,
    )
    canvas.fill([(x, top), (right, top), (right, bottom), (x, bottom)], muted(205, 0.3, rng.choice((0.35, 0.95))))
    for edge, away in ((x, -1), (right, 1)):
        drape = [
            (edge + away * 0.16, top - 0.06),
            (edge - away * 0.08, top - 0.06),
            (edge - away * 0.02, (top + bottom) / 2),
            (edge + away * 0.06, bottom + 0.1),
            (edge + away * 0.18, bottom + 0.1),
        ]
        canvas.fill(drape, muted(wall + 160, 0.35, 0.7))
    canvas.fill(
        oval(
            canvas.width * rng.uniform(0.35, 0.65),
            floor + 0.5 * (canvas.height - floor),
            0.46 * canvas.width,
            0.4 * (canvas.height - floor),
        ),
        muted(wall + 60, 0.3, 0.82),
    )
    return floor + (canvas.height - floor) * rng.uniform(0.5, 0.75)


def dusk_town(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.choice((230, 250, 200))
    canvas.gradient(muted(hue, 0.35, 0.6), muted(20, 0.25, 0.95))
    ground = canvas.height * rng.uniform(0.86, 0.92)
    x = -0.1
    while x < canvas.width:
        width, top = rng.uniform(0.14, 0.28), canvas.height * rng.uniform(0.2, 0.62)
        colour = muted(hue, 0.4, rng.uniform(0.24, 0.4))
        roof = top - rng.choice((0.0, 0.1, 0.16))
        canvas.fill(
            [(x, top), (x + width / 2, roof), (x + width, top), (x + width, canvas.height), (x, canvas.height)], colour
        )
        if rng.random() < 0.6:
            canvas.fill(oval(x + width / 2, top + 0.1, 0.03, 0.03), muted(46, 0.27, 0.98))
        x += width
    canvas.gradient(muted(hue, 0.3, 0.46), muted(hue, 0.3, 0.34), ground - 0.1)
    return ground


def mountains(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.choice((200, 215, 28))
    canvas.gradient(muted(hue, 0.25, 0.95), muted(hue + 10, 0.06, 0.99))
    base = canvas.height * rng.uniform(0.62, 0.76)
    for layer in range(2):
        for x, _ in scatter(rng, 2 + layer, (0, 0), (canvas.width, 0.01), 0.3):
            height = rng.uniform(0.3, 0.58) * (1 - 0.25 * layer)
            half = height * rng.uniform(0.6, 0.95)
            peak = (x + rng.uniform(-0.08, 0.08), base - height)
            canvas.fill([(x - half, base + 0.05), peak, (x + half, base + 0.05)], muted(222, 0.3, 0.72 - 0.16 * layer))
            left, right = _along(peak, (x - half, base), 0.28), _along(peak, (x + half, base), 0.28)
            canvas.fill([left, peak, right, (x + 0.04, right[1] - 0.03), (x - 0.02, left[1] + 0.03)], WHITE)
    _hill(canvas, rng, base, 0.04, muted(110, 0.34, 0.72))
    _hill(canvas, rng, base + 0.14, 0.05, muted(96, 0.36, 0.8))
    return canvas.height * rng.uniform(0.86, 0.93)


def autumn(canvas: Canvas, rng: random.Random) -> float:
    canvas.gradient(muted(38, 0.14, 0.98), muted(34, 0.26, 0.93))
    ground = canvas.height * rng.uniform(0.86, 0.93)
    _hill(canvas, rng, ground - rng.uniform(0.12, 0.3), 0.1, muted(34, 0.34, 0.76))
    x = rng.choice((0.16, 0.84)) * canvas.width
    trunk = [(x + 0.05, ground), (x + 0.02, 0.6 * ground), (x - 0.04, 0.2)]
    canvas.fill(ribbon(trunk, (0.16, 0.09, 0.05)), muted(24, 0.5, 0.42))
    for lx, ly in scatter(rng, 12, (x - 0.4, 0.0), (x + 0.4, 0.42), 0.12):
        radius = rng.uniform(0.1, 0.17)
        canvas.fill(oval(lx, ly, radius, radius * 0.8), muted(rng.uniform(16, 44), 0.45, rng.uniform(0.62, 0.82)))
    for lx, ly in scatter(rng, 16, (0, 0.3), (canvas.width, canvas.height), 0.14):
        canvas.fill(oval(lx, ly, 0.026, 0.019, rng.uniform(0, 180)), muted(24, 0.5, 0.7))
    return ground


def clouds_above(canvas: Canvas, rng: random.Random) -> float:
    hue = rng.choice((205, 345, 250))
    canvas.gradient(muted(hue, 0.34, rng.choice((0.62, 0.9))), muted(hue - 25, 0.12, 0.98))
    centre = rng.uniform(0.0, 1.0) * canvas.width, canvas.height * rng.uniform(0.7, 0.95)
    if rng.random() < 0.6:
        for band, bow in enumerate((350, 30, 55, 130, 210)):
            radius = 0.78 - 0.06 * band
            canvas.fill(oval(*centre, radius, radius), muted(bow, 0.25, 0.95))
        canvas.fill(oval(*centre, 0.48, 0.48), muted(hue - 15, 0.16, 0.96))
    for x, y in scatter(rng, 9, (-0.1, 0.62 * canvas.height), (canvas.width + 0.1, canvas.height), 0.2):
        _cloud(canvas, (x, y), rng.uniform(0.13, 0.26))
    _clouds(canvas, rng, 2, 0.1, 0.45)
    return canvas.height * rng.uniform(0.84, 0.92)


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
    "in the spotlight": rays,
    "under the sea": underwater,
    "at home by the window": room,
    "in town at dusk": dusk_town,
    "in the mountains": mountains,
    "under the autumn tree": autumn,
    "above the clouds": clouds_above,
}


def paint_foreground(canvas: Canvas, rng: random.Random) -> None:
    """Paint something large and out of focus in one corner, in three pictures of five."""
    kind = rng.choice(("none", "leaf", "grass", "bokeh", "none"))
    left = rng.random() < 0.5
    x = 0.0 if left else canvas.width
    away = 1 if left else -1
    colour = muted(rng.uniform(90, 170), 0.5, rng.uniform(0.3, 0.5))
    if kind == "leaf":
        for angle in (20, 50, 85):
            reach = rng.uniform(0.3, 0.5)
            tip = x + away * reach * math.cos(math.radians(angle)), reach * math.sin(math.radians(angle)) - 0.02
            canvas.shade(
                ribbon([(x - away * 0.05, -0.05), (tip[0] * 0.5 + x * 0.5, tip[1] * 0.55), tip], (0.04, 0.13, 0.01)),
                colour,
                0.85,
                0.006,
            )
    elif kind == "grass":
        for blade in range(7):
            base = x + away * (0.03 + 0.045 * blade)
            tip = base + rng.uniform(-0.1, 0.12), canvas.height - rng.uniform(0.12, 0.34)
            canvas.shade(
                ribbon([(base, canvas.height + 0.05), (base, canvas.height - 0.1), tip], (0.05, 0.04, 0.005)),
                colour,
                0.9,
                0.004,
            )
    elif kind == "bokeh":
        for dx, dy in scatter(rng, 6, (0, 0.5), (0.45, 1.0), 0.13):
            radius = rng.uniform(0.04, 0.09)
            canvas.shade(oval(x + away * dx, dy * canvas.height, radius, radius), WHITE, 0.32, 0.008)


def _along(start: Point, end: Point, share: float) -> Point:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _hill(canvas: Canvas, rng: random.Random, y: float, swing: float, colour: Colour) -> None:
    """Fill everything below a wavy line around `y`."""
    phase, waves = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1.4)
    line = []
    for step in range(41):
        x = canvas.width * step / 40
        line.append((x, y + swing * math.sin(phase + waves * 2 * math.pi * step / 40)))
    canvas.fill([*line, (canvas.width, canvas.height + 0.1), (0, canvas.height + 0.1)], colour)


def _sun(canvas: Canvas, at: Point, radius: float) -> None:
    canvas.shade(oval(*at, radius * 1.7, radius * 1.7), WHITE, 0.55, radius * 0.4)
    canvas.fill(oval(*at, radius, radius), muted(50, 0.27, 1.0))


def _cloud(canvas: Canvas, at: Point, size: float) -> None:
    x, y = at
    puffs = ((-0.75, 0.1, 0.5), (0.0, -0.12, 0.68), (0.72, 0.08, 0.52), (0.3, 0.2, 0.55), (-0.35, 0.2, 0.5))
    for shift, colour in ((0.1, muted(215, 0.1, 0.9)), (0.0, WHITE)):
        for dx, dy, radius in puffs:
            canvas.fill(oval(x + dx * size, y + (dy + shift) * size * 0.7, radius * size, radius * size * 0.62), colour)


def _clouds(canvas: Canvas, rng: random.Random, count: int, low: float, high: float) -> None:
    for x, y in scatter(rng, count, (0, low), (canvas.width, high), 0.3):
        _cloud(canvas, (x, y), rng.uniform(0.08, 0.16))


def _flower(canvas: Canvas, at: Point, size: float, colour: Colour) -> None:
    x, y = at
    for petal in range(5):
        angle = 2 * math.pi * petal / 5
        canvas.fill(oval(x + size * math.cos(angle), y + size * 0.7 * math.sin(angle), size * 0.7, size * 0.55), colour)
    canvas.fill(oval(x, y, size * 0.5, size * 0.4), muted(40, 0.4, 0.9))


def _spark(canvas: Canvas, at: Point, size: float, colour: Colour) -> None:
    x, y = at
    thin = size * 0.3
    outline = [(0, -size), (thin, -thin), (size, 0), (thin, thin), (0, size), (-thin, thin), (-size, 0), (-thin, -thin)]
    canvas.fill([(x + dx, y + dy) for dx, dy in outline], colour)


def _pine(canvas: Canvas, foot: Point, height: float, colour: Colour) -> None:
    x, y = foot
    canvas.fill([(x - 0.02, y), (x + 0.02, y), (x + 0.02, y - 0.1), (x - 0.02, y - 0.1)], muted(24, 0.5, 0.4))
    for tier, share in enumerate((1.0, 0.76, 0.52)):
        base = y - 0.05 - tier * height * 0.24
        half = height * 0.32 * share
        canvas.fill([(x - half, base), (x, base - height * 0.42), (x + half, base)], mix(colour, WHITE, 0.08 * tier))


def _palm(canvas: Canvas, x: float, foot: float, rng: random.Random) -> None:
    lean = 0.16 if x < canvas.width / 2 else -0.16
    top = (x + lean, foot - rng.uniform(0.5, 0.7))
    canvas.fill(
        ribbon([(x, foot), (x + lean * 0.3, (foot + top[1]) / 2), top], (0.06, 0.045, 0.035)), muted(30, 0.5, 0.5)
    )
    for angle in (-170, -135, -90, -45, -10, 25, 155):
        reach = math.radians(angle)
        tip = top[0] + 0.26 * math.cos(reach), top[1] + 0.17 * math.sin(reach) + 0.08
        middle = top[0] + 0.15 * math.cos(reach), top[1] + 0.15 * math.sin(reach) - 0.02
        canvas.fill(ribbon([top, middle, tip], (0.03, 0.06, 0.005)), darker(muted(140, 0.5, 0.6), 0.9))
    canvas.fill(oval(*top, 0.03, 0.03), tone(24, 0.4, 0.4))
