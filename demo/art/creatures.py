"""The demo's twelve species as simple drawn creatures, each with a body hue of its own.

The hues stand at least 20 degrees apart and none lies between 280 and 330, the range of the NSFW stand-in's magenta.
Nothing here is traced from artwork: ears, a tail and a mark or two hint at who is meant.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from demo.art.gallery import CREAM, INK, WHITE, Canvas, Colour, Pen, Point, darker, mix, oval, ribbon, smooth, tone
from pokefa.text import species_slug


@dataclass(frozen=True)
class Species:
    """A demo species: its name in quotas/popularity.csv, its hue in degrees, saturation and value of the body."""

    name: str
    hue: float
    saturation: float
    value: float

    @property
    def slug(self) -> str:
        """Return the name as the caption's `pokemon` field and the folders have it."""
        return species_slug(self.name)

    @property
    def body(self) -> Colour:
        return tone(self.hue, self.saturation, self.value)


SPECIES = (
    Species("Umbreon", 238, 0.70, 0.74),
    Species("Mimikyu", 76, 0.66, 0.84),
    Species("Sylveon", 346, 0.56, 0.95),
    Species("Eevee", 32, 0.68, 0.83),
    Species("Vaporeon", 187, 0.66, 0.88),
    Species("Lucario", 211, 0.70, 0.87),
    Species("Gengar", 264, 0.60, 0.80),
    Species("Gardevoir", 127, 0.58, 0.80),
    Species("Bulbasaur", 157, 0.60, 0.80),
    Species("Pikachu", 54, 0.74, 0.94),
    Species("Charizard", 10, 0.72, 0.92),
    Species("Flabébé", 101, 0.62, 0.84),
)
FAKEMON_BODY = tone(32, 0.10, 0.70)  # grey-brown: a hue of none of the twelve, and too weak to count as one

BLUSH = tone(4, 0.62, 0.95)
GOLD = tone(48, 0.33, 0.97)  # too pale for demo.standins.pixel_rules to take it for a body

Eyes = Literal["open", "wide", "sleepy", "happy"]
EYES: tuple[Eyes, ...] = ("open", "wide", "sleepy", "happy")


@dataclass(frozen=True)
class Pose:
    """Where a four-legged body has its parts, in a Pen's coordinates.

    Args:
        head: centre of the head.
        radius: of the head.
        body: points of the body's outline.
        far, near: limbs behind and before the body, as ovals (x, y, rx, ry, tilt).
        chest: centre of the chest and its half sizes.
        tail: where the tail starts.
        back: the top of the back.
        turn: tilt of the whole creature in degrees.
        lift: how far the feet hang above the ground.
    """

    head: Point
    radius: float
    body: tuple[Point, ...]
    far: tuple[tuple[float, float, float, float, float], ...]
    near: tuple[tuple[float, float, float, float, float], ...]
    chest: tuple[float, float, float, float]
    tail: Point
    back: Point
    turn: float = 0.0
    lift: float = 0.0


POSES = {
    "sitting": Pose(
        head=(-0.04, -0.66),
        radius=0.27,
        body=((-0.12, -0.5), (0.13, -0.5), (0.27, -0.24), (0.26, -0.04), (0.0, 0.0), (-0.19, -0.04), (-0.2, -0.28)),
        far=((0.19, -0.035, 0.13, 0.055, 0),),
        near=((-0.11, -0.13, 0.062, 0.14, 0), (0.04, -0.13, 0.062, 0.14, 0)),
        chest=(-0.04, -0.37, 0.15, 0.13),
        tail=(0.22, -0.14),
        back=(0.2, -0.4),
    ),
    "standing": Pose(
        head=(0.0, -0.8),
        radius=0.23,
        body=((-0.1, -0.63), (0.1, -0.63), (0.18, -0.38), (0.15, -0.14), (0.0, -0.1), (-0.15, -0.14), (-0.18, -0.38)),
        far=((-0.1, -0.08, 0.08, 0.1, 0), (0.1, -0.08, 0.08, 0.1, 0)),
        near=((-0.2, -0.42, 0.055, 0.15, 28), (0.2, -0.42, 0.055, 0.15, -28)),
        chest=(0.0, -0.36, 0.12, 0.19),
        tail=(0.13, -0.2),
        back=(0.13, -0.55),
    ),
    "walking": Pose(
        head=(-0.33, -0.6),
        radius=0.24,
        body=((-0.3, -0.44), (0.0, -0.52), (0.32, -0.5), (0.46, -0.33), (0.3, -0.17), (0.0, -0.15), (-0.24, -0.2)),
        far=((-0.12, -0.12, 0.06, 0.13, 12), (0.3, -0.12, 0.06, 0.13, -14)),
        near=((-0.22, -0.12, 0.065, 0.14, -8), (0.38, -0.13, 0.07, 0.14, 8)),
        chest=(-0.24, -0.34, 0.13, 0.12),
        tail=(0.43, -0.38),
        back=(0.14, -0.5),
    ),
    "lying": Pose(
        head=(-0.32, -0.33),
        radius=0.24,
        body=((-0.3, -0.22), (0.0, -0.36), (0.3, -0.36), (0.5, -0.16), (0.42, -0.02), (0.0, 0.0), (-0.3, -0.03)),
        far=(),
        near=((-0.42, -0.035, 0.14, 0.05, 0), (0.3, -0.04, 0.14, 0.055, 0)),
        chest=(-0.26, -0.14, 0.12, 0.09),
        tail=(0.47, -0.14),
        back=(0.16, -0.34),
    ),
    "leaping": Pose(
        head=(-0.36, -0.56),
        radius=0.24,
        body=((-0.32, -0.4), (0.0, -0.46), (0.32, -0.42), (0.46, -0.26), (0.32, -0.14), (0.0, -0.16), (-0.26, -0.2)),
        far=((-0.28, -0.12, 0.06, 0.15, 52), (0.42, -0.1, 0.06, 0.15, -58)),
        near=((-0.38, -0.18, 0.06, 0.16, 66), (0.5, -0.16, 0.065, 0.17, -68)),
        chest=(-0.27, -0.3, 0.13, 0.12),
        tail=(0.45, -0.3),
        back=(0.14, -0.45),
        turn=12.0,
        lift=0.26,
    ),
}

# Who can take which pose; the others stand or float upright.
UPRIGHT = ("Mimikyu", "Gengar", "Gardevoir", "Flabébé")
TWO_LEGGED = ("Lucario", "Charizard")


def poses_of(name: str) -> tuple[str, ...]:
    """Return the poses that a species can take."""
    if name in UPRIGHT:
        return "standing", "leaping"
    if name in TWO_LEGGED:
        return "standing", "sitting", "leaping"
    return tuple(pose for pose in POSES if pose != "standing" or name == "Pikachu")


@dataclass(frozen=True)
class Look:
    """How a creature holds itself: a pose of POSES, its eyes, and whether it faces right."""

    pose: str
    eyes: Eyes
    mirror: bool


def choose_look(rng: random.Random, name: str) -> Look:
    """Return a look for a species, by lot."""
    return Look(rng.choice(poses_of(name)), rng.choice(EYES), rng.random() < 0.5)


def paint_creature(canvas: Canvas, name: str, foot: Point, size: float, look: Look) -> None:
    """Paint one creature and its shadow.

    Args:
        name: a species' name; any other gives the fakemon.
        foot: where it stands, in the canvas's units.
        size: its height without ears, in the canvas's units.
    """
    body = {species.name: species.body for species in SPECIES}.get(name, FAKEMON_BODY)
    stance = POSES[look.pose]
    x, y = foot
    canvas.shade(oval(x, y, 0.42 * size, 0.07 * size), INK, 0.34, 0.03 * size)
    painter = _UPRIGHT_PAINTERS.get(name)
    turn = -0.6 * stance.turn if painter else stance.turn
    pen = Pen(canvas, x, y - stance.lift * size, size, turn, look.mirror)
    if painter:
        painter(pen, body, look.eyes)
    else:
        _paint_beast(pen, name, body, stance, look.eyes)


def _paint_beast(pen: Pen, name: str, body: Colour, pose: Pose, eyes: Eyes) -> None:
    """Paint the four-legged (or two-legged) build that eight of the species and the fakemon share."""
    (hx, hy), r = pose.head, pose.radius
    if name == "Charizard":
        _wings(pen, body, pose)
    _tail(pen, name, body, pose)
    if name == "Sylveon":
        _streamers(pen, pose)
    for limb in pose.far:
        pen.part(oval(*limb), darker(body, 0.88))
    pen.part(smooth(pose.body), body)
    if name == "Bulbasaur":
        _bulb(pen, body, pose)
    cx, cy, rx, ry = pose.chest
    if name in ("Charizard", "Lucario"):
        pen.fill(oval(cx, cy, rx * 0.85, ry), CREAM)
    for limb in pose.near:
        pen.part(oval(*limb), body)
    if name == "Eevee":
        _ruff(pen, (cx, cy - 0.02), 0.19)
    if name == "Vaporeon":
        _frill(pen, (hx, hy), r)
    _ears(pen, name, body, pose)
    pen.part(oval(hx, hy, r * 1.08, r * 0.96), body)
    if name == "Lucario":
        pen.fill(smooth([(hx - 1.05 * r, hy), (hx, hy - 0.32 * r), (hx + 0.98 * r, hy), (hx, hy + 0.36 * r)]), INK)
    lid = WHITE if name == "Lucario" else INK  # its eyes lie on a dark mask
    _face(pen, (hx - 0.12 * r, hy + 0.1 * r), r, eyes, iris=_IRIS.get(name, INK), lid=lid)
    _marks(pen, name, body, pose)


_IRIS: dict[str, Colour] = {
    "Umbreon": tone(6, 0.75, 0.75),
    "Bulbasaur": tone(2, 0.7, 0.7),
    "Sylveon": tone(205, 0.75, 0.75),
    "Lucario": tone(4, 0.72, 0.75),
    "Vaporeon": tone(250, 0.5, 0.4),
    "Eevee": tone(24, 0.6, 0.35),
}


def _face(
    pen: Pen, at: Point, r: float, eyes: Eyes, *, iris: Colour = INK, lid: Colour = INK, mouth: bool = True
) -> None:
    """Paint eyes, nose, mouth and blush on a head of radius r whose face is centred at `at`."""
    x, y = at
    for side in (-1, 1):
        ex, ey = x + side * 0.42 * r, y
        if eyes == "happy":
            arc = [(ex - 0.17 * r, ey + 0.05 * r), (ex, ey - 0.1 * r), (ex + 0.17 * r, ey + 0.05 * r)]
            pen.stroke(arc, 0.07 * r, lid)
        else:
            grow = 1.2 if eyes == "wide" else 1.0
            pen.fill(oval(ex, ey, 0.18 * r * grow, 0.25 * r * grow), INK if iris == INK else darker(iris, 0.35))
            if iris != INK:
                pen.fill(oval(ex, ey + 0.05 * r, 0.13 * r * grow, 0.17 * r * grow), iris)
            pen.fill(oval(ex - 0.05 * r, ey - 0.09 * r, 0.075 * r * grow, 0.09 * r * grow), WHITE)
            if eyes == "sleepy":
                arc = [(ex - 0.21 * r, ey - 0.02 * r), (ex, ey - 0.09 * r), (ex + 0.21 * r, ey - 0.02 * r)]
                pen.stroke(arc, 0.08 * r, lid)
        pen.shade(oval(x + side * 0.7 * r, y + 0.32 * r, 0.17 * r, 0.1 * r), BLUSH, 0.45)
    if mouth:
        pen.fill(oval(x, y + 0.26 * r, 0.07 * r, 0.045 * r), INK)
        pen.stroke([(x - 0.16 * r, y + 0.42 * r), (x, y + 0.5 * r), (x + 0.16 * r, y + 0.42 * r)], 0.045 * r, INK)


def _leaf(base: Point, tip: Point, width: float, belly: float = 0.45) -> list[Point]:
    """Return a leaf shape from base to tip, `width` wide at the share `belly` of its length."""
    (bx, by), (tx, ty) = base, tip
    dx, dy = tx - bx, ty - by
    length = math.hypot(dx, dy) or 1.0
    nx, ny = -dy / length * width / 2, dx / length * width / 2
    mx, my = bx + dx * belly, by + dy * belly
    left = smooth([(bx + nx * 0.5, by + ny * 0.5), (mx + nx, my + ny), tip], closed=False)
    right = smooth([tip, (mx - nx, my - ny), (bx - nx * 0.5, by - ny * 0.5)], closed=False)
    return left + right


def _ears(pen: Pen, name: str, body: Colour, pose: Pose) -> None:
    (hx, hy), r = pose.head, pose.radius
    inner = mix(body, INK, 0.45)
    for side in (-1, 1):
        if name == "Charizard":
            base = (hx + side * 0.42 * r, hy - 0.72 * r)
            pen.part(_leaf(base, (hx + side * 0.75 * r + 0.2 * r, hy - 1.7 * r), 0.34 * r, 0.2), body)
        elif name == "Bulbasaur":
            base, tip = (hx + side * 0.66 * r, hy - 0.62 * r), (hx + side * 0.92 * r, hy - 1.28 * r)
            pen.part(_leaf(base, tip, 0.5 * r, 0.25), body)
        elif name == "Vaporeon":
            for angle in (-28, 4, 34):
                spread = math.radians(angle)
                tip = (
                    hx + side * (0.8 + 1.0 * math.cos(spread)) * r,
                    hy - 0.25 * r - (0.35 + 1.0 * math.sin(spread)) * r,
                )
                pen.part(_leaf((hx + side * 0.75 * r, hy - 0.3 * r), tip, 0.42 * r, 0.6), mix(body, CREAM, 0.35))
        elif name == "Lucario":
            base, tip = (hx + side * 0.52 * r, hy - 0.66 * r), (hx + side * 0.72 * r, hy - 1.85 * r)
            pen.part(_leaf(base, tip, 0.55 * r, 0.3), body)
            pen.fill(_leaf((base[0], base[1] - 0.12 * r), (tip[0], tip[1] + 0.3 * r), 0.2 * r, 0.3), inner)
        elif name == "Pikachu":
            base, tip = (hx + side * 0.6 * r, hy - 0.6 * r), (hx + side * 1.12 * r, hy - 2.05 * r)
            pen.part(_leaf(base, tip, 0.52 * r, 0.5), body)
            cap = (base[0] + (tip[0] - base[0]) * 0.68, base[1] + (tip[1] - base[1]) * 0.68)
            pen.fill(_leaf(cap, tip, 0.36 * r, 0.3), INK)
        elif name in ("Umbreon", "Eevee", "Sylveon"):
            base, tip = (hx + side * 0.55 * r, hy - 0.55 * r), (hx + side * 1.25 * r, hy - 1.95 * r)
            pen.part(_leaf(base, tip, 0.72 * r, 0.5), body)
            pen.fill(
                _leaf((base[0] + side * 0.08 * r, base[1] - 0.25 * r), (tip[0], tip[1] + 0.3 * r), 0.36 * r), inner
            )
            if name == "Umbreon":
                band = (base[0] + (tip[0] - base[0]) * 0.6, base[1] + (tip[1] - base[1]) * 0.6)
                pen.fill(oval(*band, 0.3 * r, 0.12 * r, side * 26), GOLD)
        else:
            base, tip = (hx + side * 0.7 * r, hy - 0.4 * r), (hx + side * 1.5 * r, hy + 0.35 * r)
            pen.part(_leaf(base, tip, 0.6 * r, 0.6), darker(body, 0.85))


def _tail(pen: Pen, name: str, body: Colour, pose: Pose) -> None:
    x, y = pose.tail
    if name == "Pikachu":
        steps = [(0, 0), (0.16, -0.1), (0.1, -0.2), (0.3, -0.3), (0.24, -0.42), (0.48, -0.62)]
        steps += [(0.52, -0.46), (0.36, -0.36), (0.42, -0.24), (0.2, -0.12), (0.24, -0.02), (0.02, 0.06)]
        pen.part([(x - 0.04 + dx, y + dy) for dx, dy in steps], body)
    elif name == "Charizard":
        root = [(x - 0.05, y), (x + 0.22, y + 0.08), (x + 0.36, y - 0.12), (x + 0.38, y - 0.28)]
        pen.part(ribbon(root, (0.17, 0.12, 0.05)), body)
        fx, fy = x + 0.39, y - 0.26
        pen.part(_leaf((fx, fy + 0.07), (fx + 0.03, fy - 0.26), 0.2, 0.3), tone(38, 0.75, 0.98))
        pen.fill(_leaf((fx, fy + 0.04), (fx + 0.02, fy - 0.12), 0.1, 0.3), CREAM)
    elif name == "Vaporeon":
        root = [(x - 0.05, y), (x + 0.2, y + 0.06), (x + 0.38, y - 0.08), (x + 0.44, y - 0.26)]
        fin = (x + 0.44, y - 0.22)
        for tip in ((x + 0.24, y - 0.5), (x + 0.68, y - 0.46)):
            pen.part(_leaf(fin, tip, 0.2, 0.55), body)
        pen.part(ribbon(root, (0.2, 0.14, 0.06)), body)
    elif name == "Lucario":
        pen.part(_leaf((x - 0.02, y), (x + 0.34, y - 0.22), 0.17, 0.6), body)
    elif name == "Bulbasaur":
        pen.part(_leaf((x - 0.04, y), (x + 0.14, y - 0.03), 0.12, 0.4), body)
    else:
        tip = (x + 0.36, y - 0.42)
        pen.part(_leaf((x - 0.05, y + 0.02), tip, 0.26, 0.6), body)
        if name == "Umbreon":
            pen.fill(oval(x + 0.19, y - 0.23, 0.13, 0.05, 40), GOLD)
        if name == "Eevee":
            pen.fill(_leaf((x + 0.2, y - 0.26), tip, 0.2, 0.4), CREAM)


def _wings(pen: Pen, body: Colour, pose: Pose) -> None:
    x, y = pose.back
    for side, reach in ((-1, 0.5), (1, 0.62)):
        tip = (x - 0.1 + side * reach, y - 0.46)
        hand = (x - 0.1 + side * reach * 0.55, y - 0.5)
        edge = [
            (x - 0.1 + side * reach * share, y + drop) for share, drop in ((0.86, -0.02), (0.55, -0.06), (0.3, 0.12))
        ]
        pen.part([(x - 0.1, y), hand, tip, edge[0], (tip[0] * 0.5 + hand[0] * 0.5, y - 0.14), edge[1], edge[2]], body)
        lining = [(x - 0.1 + side * 0.06, y - 0.02), (hand[0], hand[1] + 0.07), (edge[1][0], edge[1][1] - 0.03)]
        pen.fill(lining, tone(196, 0.28, 0.8))


def _bulb(pen: Pen, body: Colour, pose: Pose) -> None:
    x, y = pose.back
    green = darker(mix(body, tone(120, 0.5, 0.6), 0.25), 0.9)
    pen.part(_leaf((x - 0.05, y + 0.12), (x - 0.26, y - 0.24), 0.3, 0.4), green)
    pen.part(_leaf((x + 0.05, y + 0.12), (x + 0.28, y - 0.22), 0.3, 0.4), green)
    pen.part(_leaf((x, y + 0.14), (x + 0.02, y - 0.36), 0.36, 0.35), mix(green, body, 0.5))


def _ruff(pen: Pen, at: Point, radius: float) -> None:
    x, y = at
    lobes = 9
    points = []
    for lobe in range(lobes * 2):
        reach = radius * (1.12 if lobe % 2 else 0.86)
        angle = math.pi * lobe / lobes
        points.append((x + reach * math.cos(angle) * 1.1, y + reach * math.sin(angle) * 0.85))
    pen.part(smooth(points), CREAM)


def _frill(pen: Pen, head: Point, r: float) -> None:
    x, y = head
    points = []
    for lobe in range(20):
        reach = r * (1.4 if lobe % 2 else 1.16)
        angle = math.pi * lobe / 10
        points.append((x + reach * math.cos(angle), y + 0.2 * r + reach * math.sin(angle) * 0.86))
    pen.part(smooth(points), CREAM)


def _streamers(pen: Pen, pose: Pose) -> None:
    cx, cy, rx, _ = pose.chest
    for side, drop in ((-1, 0.1), (1, -0.16)):
        path = [(cx + side * rx, cy - 0.1), (cx + side * 0.34, cy + drop), (cx + side * 0.5, cy - 0.12)]
        path.append((cx + side * 0.66, cy + drop - 0.1))
        pen.part(ribbon(path, (0.03, 0.06, 0.07, 0.02)), mix(CREAM, tone(346, 0.3, 0.98), 0.4))


def _bow(pen: Pen, at: Point, size: float) -> None:
    x, y = at
    for side in (-1, 1):
        pen.part(_leaf((x, y), (x + side * size, y - 0.3 * size), 0.7 * size, 0.7), CREAM)
    pen.part(oval(x, y, 0.22 * size, 0.22 * size), tone(205, 0.26, 0.95))


def _marks(pen: Pen, name: str, body: Colour, pose: Pose) -> None:
    (hx, hy), r = pose.head, pose.radius
    if name == "Umbreon":
        pen.fill(oval(hx - 0.1 * r, hy - 0.58 * r, 0.2 * r, 0.13 * r), GOLD)
        bx, by = pose.body[3]
        pen.fill(oval(bx - 0.09, by - 0.06, 0.06, 0.075), GOLD)
    elif name == "Sylveon":
        cx, cy, _, ry = pose.chest
        _bow(pen, (hx + 0.68 * r, hy - 0.66 * r), 0.5 * r)
        _bow(pen, (cx, cy - 0.6 * ry), 0.46 * r)
    elif name == "Pikachu":
        for side in (-1, 1):
            pen.fill(oval(hx - 0.12 * r + side * 0.74 * r, hy + 0.42 * r, 0.19 * r, 0.18 * r), tone(4, 0.72, 0.92))
    elif name == "Vaporeon":
        pen.part(
            _leaf((hx - 0.05 * r, hy - 0.7 * r), (hx + 0.05 * r, hy - 1.6 * r), 0.5 * r, 0.5), mix(body, CREAM, 0.35)
        )
    elif name == "Lucario":
        cx, cy, _, ry = pose.chest
        pen.part(_leaf((cx, cy - 0.5 * ry), (cx - 0.1, cy - 0.75 * ry), 0.06, 0.3), WHITE)
    elif name == "Bulbasaur":
        spot = darker(body, 0.78)
        pen.fill(oval(hx - 0.35 * r, hy - 0.6 * r, 0.2 * r, 0.12 * r, -20), spot)
        pen.fill(oval(hx + 0.38 * r, hy - 0.5 * r, 0.15 * r, 0.13 * r, 20), spot)
    elif name == "Charizard":
        pen.fill(oval(hx - 0.5 * r, hy + 0.32 * r, 0.03 * r, 0.05 * r), INK)


def _paint_gengar(pen: Pen, body: Colour, eyes: Eyes) -> None:
    for x, y, tilt in ((0.3, -0.78, 30), (0.42, -0.6, 50), (0.46, -0.4, 70)):
        reach = math.radians(tilt)
        pen.part(_leaf((x - 0.1, y + 0.08), (x + 0.2 * math.sin(reach), y - 0.2 * math.cos(reach)), 0.18, 0.3), body)
    for side in (-1, 1):
        pen.part(_leaf((side * 0.24, -0.76), (side * 0.44, -1.12), 0.26, 0.3), body)
        pen.part(oval(side * 0.22, -0.05, 0.14, 0.07), darker(body, 0.9))
    pen.part(
        smooth(
            [
                (0, -0.92),
                (0.34, -0.8),
                (0.46, -0.44),
                (0.34, -0.1),
                (0, -0.02),
                (-0.34, -0.1),
                (-0.46, -0.44),
                (-0.34, -0.8),
            ]
        ),
        body,
    )
    for side in (-1, 1):
        pen.part(oval(side * 0.46, -0.36, 0.07, 0.15, side * -38), body)
        if eyes == "happy":
            pen.stroke([(side * 0.1, -0.6), (side * 0.2, -0.68), (side * 0.3, -0.6)], 0.025, INK)
        else:
            pen.fill(_leaf((side * 0.08, -0.54), (side * 0.34, -0.72), 0.15, 0.5), tone(2, 0.72, 0.9))
            pen.fill(oval(side * 0.2, -0.62, 0.022, 0.035), INK)
    grin = smooth([(-0.28, -0.46), (0, -0.38), (0.28, -0.46)], closed=False)
    pen.fill(
        grin + smooth([(0.28, -0.46), (0.16, -0.28), (0, -0.24), (-0.16, -0.28), (-0.28, -0.46)], closed=False), WHITE
    )


def _paint_mimikyu(pen: Pen, body: Colour, eyes: Eyes) -> None:
    pen.part(
        ribbon([(0.2, -0.1), (0.4, -0.14), (0.46, -0.34), (0.58, -0.5)], (0.05, 0.05, 0.05, 0.03)), tone(28, 0.3, 0.5)
    )
    pen.part(_leaf((-0.16, -0.84), (-0.3, -1.3), 0.2, 0.5), body)
    pen.part(ribbon([(0.14, -0.82), (0.24, -1.02), (0.36, -1.04), (0.44, -0.92)], (0.1, 0.17, 0.13, 0.03)), body)
    pen.fill(_leaf((-0.26, -1.14), (-0.3, -1.3), 0.13, 0.3), INK)
    hem = [
        (0.36, -0.02),
        (0.25, -0.06),
        (0.16, 0.0),
        (0.05, -0.05),
        (-0.06, 0.0),
        (-0.17, -0.05),
        (-0.27, 0.0),
        (-0.36, -0.03),
    ]
    cloak = [
        (-0.3, -0.34),
        (-0.2, -0.5),
        (-0.27, -0.7),
        (-0.16, -0.9),
        (0.12, -0.92),
        (0.26, -0.72),
        (0.21, -0.5),
        (0.31, -0.32),
    ]
    pen.part(smooth(hem + cloak), body)
    for side in (-1, 1):
        if eyes == "happy":
            pen.stroke([(side * 0.11 - 0.06, -0.7), (side * 0.11, -0.75), (side * 0.11 + 0.06, -0.7)], 0.02, INK)
        else:
            pen.fill(oval(side * 0.11, -0.72, 0.036, 0.05 if eyes != "sleepy" else 0.026), INK)
        pen.fill(oval(side * 0.18, -0.61, 0.045, 0.035), tone(24, 0.5, 0.75))
    pen.stroke([(-0.09, -0.59), (0.0, -0.565), (0.1, -0.6)], 0.016, INK)
    for side in (-1, 1):
        pen.fill(oval(side * 0.09, -0.3, 0.02, 0.03), INK)


def _paint_gardevoir(pen: Pen, body: Colour, eyes: Eyes) -> None:
    skirt = [
        (-0.06, -0.54),
        (0.06, -0.54),
        (0.16, -0.28),
        (0.34, -0.02),
        (0.12, -0.06),
        (0.0, 0.0),
        (-0.12, -0.06),
        (-0.34, -0.02),
        (-0.16, -0.28),
    ]
    pen.part(smooth(skirt), body)
    pen.fill(_leaf((0, -0.42), (0.03, -0.05), 0.14, 0.75), WHITE)
    pen.part(_leaf((-0.09, -0.55), (-0.36, -0.34), 0.08, 0.5), body)
    pen.part(_leaf((0.09, -0.55), (0.38, -0.62), 0.08, 0.5), body)
    pen.part(oval(0, -0.54, 0.1, 0.13), body)
    pen.part(_leaf((0, -0.52), (-0.16, -0.6), 0.09, 0.3), tone(356, 0.68, 0.86))
    for side in (-1, 1):
        pen.part(_leaf((side * 0.16, -0.8), (side * 0.4, -0.62), 0.2, 0.3), body)
    pen.part(oval(0, -0.8, 0.21, 0.2), WHITE)
    _face(pen, (-0.02, -0.77), 0.2, eyes, iris=tone(0, 0.65, 0.6), mouth=False)
    pen.stroke([(-0.06, -0.68), (-0.02, -0.665), (0.03, -0.68)], 0.012, INK)
    hair = [
        (-0.24, -0.72),
        (-0.25, -0.92),
        (-0.06, -1.05),
        (0.14, -1.03),
        (0.27, -0.9),
        (0.25, -0.7),
        (0.16, -0.86),
        (-0.02, -0.9),
    ]
    pen.part(smooth(hair), body)


def _paint_flabebe(pen: Pen, body: Colour, eyes: Eyes) -> None:
    pen.part(ribbon([(0.02, -0.4), (0.05, -0.22), (-0.02, 0.0)], (0.06, 0.05, 0.03)), darker(body, 0.7))
    for petal in range(8):
        angle = 2 * math.pi * petal / 8 + 0.2
        pen.part(_leaf((0, -0.44), (0.44 * math.cos(angle), -0.44 + 0.34 * math.sin(angle)), 0.3, 0.65), body)
    pen.part(oval(0, -0.46, 0.15, 0.12), GOLD)
    pen.part(_leaf((0, -0.44), (0, -0.72), 0.17, 0.4), WHITE)
    for side in (-1, 1):
        pen.part(_leaf((side * 0.05, -0.58), (side * 0.2, -0.5), 0.06, 0.5), WHITE)
        pen.part(_leaf((side * 0.1, -0.9), (side * 0.32, -1.06), 0.14, 0.6), body)
    pen.part(oval(0, -0.82, 0.17, 0.16), WHITE)
    pen.part(
        smooth(
            [(-0.17, -0.84), (-0.12, -0.99), (0.04, -1.02), (0.17, -0.93), (0.17, -0.82), (0.08, -0.9), (-0.06, -0.91)]
        ),
        GOLD,
    )
    _face(pen, (-0.02, -0.8), 0.15, eyes, mouth=False)
    pen.stroke([(-0.05, -0.735), (-0.02, -0.722), (0.02, -0.735)], 0.01, INK)


_UPRIGHT_PAINTERS: dict[str, Callable[[Pen, Colour, Eyes], None]] = {
    "Gengar": _paint_gengar,
    "Mimikyu": _paint_mimikyu,
    "Gardevoir": _paint_gardevoir,
    "Flabébé": _paint_flabebe,
}
