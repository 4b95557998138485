"""The demo's twelve species as simple drawn creatures, each with a body hue of its own.

The hues stand at least 20 degrees apart and none lies between 280 and 330, the range of the NSFW stand-in's magenta.
Nothing here is traced from artwork: ears, a tail and a mark or two hint at who is meant.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from demo.art.gallery import INK, WHITE, Canvas, Colour, Point, darker, leaf, oval, tone, turned
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
FAKEMON = Species("fakemon", 32, 0.10, 0.70)  # grey-brown: a hue of none of the twelve, and too weak to count as one

CREAM: Colour = (250, 238, 214)
GOLD = tone(48, 0.33, 0.97)  # too pale for demo.standins.pixel_rules to take it for a body
RED_EYED = ("Lucario", "Gengar", "Umbreon")
RED, FLAME, BROWN = tone(4, 0.72, 0.92), tone(38, 0.75, 0.98), tone(28, 0.3, 0.5)


class Part(NamedTuple):
    """A piece of a creature; its outline is in radii of the head from where it is fixed.

    Args:
        layer: `back` is behind the body, `neck` between body and head, `face` over the head.
        at: what it is fixed to: `head`, `body` (the middle) or `tail` (the root).
        colour: None is the body's.
        both: once more, mirrored, on the other side.
    """

    layer: str
    at: str
    outline: Sequence[Point]
    colour: Colour | None = None
    both: bool = False


# Where most parts are: an ear is one of two.
ear = partial(Part, "neck", "head", both=True)
mark = partial(Part, "face", "head")
tail = partial(Part, "back", "tail")
collar = partial(Part, "neck", "head", colour=CREAM)
wing = partial(Part, "back", "body", both=True)
LONG_EARS = ear(leaf((0.5, -0.5), (1.2, -1.95), 0.75))
INNER_EARS = ear(leaf((0.65, -0.8), (1.1, -1.7), 0.36), BROWN)
BUSHY_TAIL = tail(leaf((-0.2, 0.1), (1.5, -1.8), 1.1))
WHITE_FACE = mark(oval(0, 0.12, 0.86, 0.78), WHITE)

PARTS: dict[str, tuple[Part, ...]] = {
    "Umbreon": (
        BUSHY_TAIL,
        tail(oval(0.76, -0.95, 0.5, 0.2), GOLD),
        LONG_EARS,
        ear(oval(0.95, -1.35, 0.26, 0.14), GOLD),
        mark(oval(0, -0.6, 0.2, 0.14), GOLD),
    ),
    "Mimikyu": (
        tail(leaf((0, 0), (1.7, -1.4), 0.3), BROWN),
        Part("neck", "head", leaf((-0.5, -0.6), (-1.1, -2.4), 0.75)),
        Part("neck", "head", leaf((-0.9, -1.8), (-1.1, -2.4), 0.4), INK),
        Part("neck", "head", leaf((0.5, -0.6), (1.7, -1.1), 0.75)),
        mark(oval(0.7, 0.45, 0.2, 0.15), BROWN, both=True),
    ),
    "Sylveon": (
        BUSHY_TAIL,
        LONG_EARS,
        INNER_EARS,
        collar(leaf((0, 1), (2.2, 0.5), 0.35), both=True),
        mark(leaf((0.6, -0.7), (1.3, -1), 0.5), CREAM),
        mark(leaf((0.6, -0.7), (0, -1), 0.5), CREAM),
    ),
    "Eevee": (
        BUSHY_TAIL,
        tail(leaf((0.8, -0.95), (1.5, -1.8), 0.75), CREAM),
        LONG_EARS,
        INNER_EARS,
        collar(oval(0, 1, 0.95, 0.5)),
    ),
    "Vaporeon": (
        tail(leaf((-0.2, 0.1), (1.6, -0.9), 0.7)),
        tail(leaf((1.4, -0.7), (1.1, -2.1), 0.8)),
        tail(leaf((1.4, -0.7), (2.9, -1.3), 0.8)),
        collar(oval(0, 0.1, 1.35, 1.2)),
        ear(leaf((0.7, -0.3), (1.8, -1.3), 0.55)),
        ear(leaf((0.7, 0), (2, -0.2), 0.55)),
        Part("neck", "head", leaf((0, -0.6), (0.1, -1.7), 0.5)),
    ),
    "Lucario": (
        tail(leaf((-0.2, 0.1), (1.5, -0.9), 0.7)),
        ear(leaf((0.5, -0.6), (0.75, -1.9), 0.6)),
        collar(oval(0, 1.3, 0.5, 0.55)),
        mark(oval(0, 0.05, 1, 0.36), INK),
    ),
    "Gengar": (
        wing(leaf((0.9, -0.6), (2.1, -1.6), 0.7)),
        wing(leaf((0.9, 0), (2.3, -0.6), 0.7)),
        ear(leaf((0.5, -0.5), (1, -1.6), 0.8)),
        mark(leaf((-0.75, 0.5), (0.75, 0.5), 0.5), WHITE),
    ),
    "Gardevoir": (
        wing(leaf((0, -0.6), (1.5, -0.3), 0.4)),
        Part("neck", "body", leaf((0, -0.7), (-0.8, -1.1), 0.4), RED),
        ear(leaf((0.4, -0.5), (1.7, 0.8), 0.9)),
        WHITE_FACE,
        mark(leaf((-0.95, -0.2), (0.95, -0.6), 0.8)),
    ),
    "Bulbasaur": (
        Part("back", "body", leaf((0, 0), (-1.2, -1.9), 1.2)),
        Part("back", "body", leaf((0, 0), (1.5, -1.7), 1.2)),
        Part("back", "body", leaf((0, 0), (0.2, -2.2), 1.3)),
        ear(leaf((0.6, -0.5), (0.95, -1.4), 0.6)),
        mark(oval(0.4, -0.55, 0.2, 0.13), tone(157, 0.6, 0.6), both=True),
    ),
    "Pikachu": (
        tail(leaf((-0.1, 0.1), (0.9, -0.8), 0.4)),
        tail(leaf((0.5, -0.5), (1.5, -1.2), 0.6)),
        tail(leaf((0.9, -0.9), (2.2, -2.4), 1)),
        ear(leaf((0.5, -0.6), (1.1, -2.1), 0.55)),
        ear(leaf((0.9, -1.55), (1.1, -2.1), 0.4), INK),
        mark(oval(0.75, 0.42, 0.2, 0.18), RED, both=True),
    ),
    "Charizard": (
        wing(leaf((0.2, -0.5), (2.4, -2), 1.3)),
        tail(leaf((-0.2, 0.1), (1.7, -0.7), 0.7)),
        tail(leaf((1.5, -0.4), (1.8, -1.9), 0.8), FLAME),
        ear(leaf((0.4, -0.7), (0.8, -1.7), 0.4)),
        collar(oval(0, 1.3, 0.55, 0.6)),
    ),
    "Flabébé": (
        *(wing(leaf((0, 0), tip, 1.2)) for tip in ((0.6, -1.7), (1.9, -0.9), (2, 0.5), (0.9, 1.5))),
        ear(leaf((0.4, -0.5), (1.3, -1.2), 0.6)),
        WHITE_FACE,
        mark(leaf((-0.9, -0.35), (0.9, -0.35), 0.9), GOLD),
    ),
    "fakemon": (BUSHY_TAIL, ear(leaf((0.6, -0.4), (1.5, 0.5), 0.6))),
}

Oval = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class Pose:
    """Where a body has its parts, with its feet at (0, 0), about 1 high, facing left.

    Args:
        radius: of the head.
        body, feet: ovals (x, y, rx, ry, tilt in degrees).
        tail: where the tail starts.
        turn: tilt of the whole creature in degrees.
        lift: how far the feet hang above the ground.
    """

    head: Point
    radius: float
    body: Oval
    feet: tuple[Oval, ...]
    tail: Point
    turn: float = 0.0
    lift: float = 0.0


_STANDING = (
    *((x, -0.08, 0.08, 0.1, 0) for x in (-0.1, 0.1)),
    *((x, -0.42, 0.055, 0.15, -140 * x) for x in (-0.2, 0.2)),
)
_SITTING = ((0.17, -0.04, 0.13, 0.055, 0), (-0.11, -0.12, 0.062, 0.14, 0), (0.04, -0.12, 0.062, 0.14, 0))
_WALKING = tuple((x, -0.12, 0.065, 0.14, tilt) for x, tilt in ((-0.12, 12), (0.28, -14), (-0.22, -8), (0.38, 8)))
_LYING = ((-0.42, -0.035, 0.14, 0.05, 0), (0.3, -0.04, 0.14, 0.055, 0))
_LEAPING = tuple((x, -0.16, 0.06, 0.16, tilt) for x, tilt in ((-0.28, 52), (0.42, -58), (-0.4, 66), (0.5, -68)))
_UPRIGHT = ((-0.12, -0.03, 0.1, 0.05, 0), (0.12, -0.03, 0.1, 0.05, 0))
POSES = {
    "sitting": Pose((-0.04, -0.66), 0.27, (0.03, -0.27, 0.23, 0.27, 0), _SITTING, (0.22, -0.14)),
    "standing": Pose((0, -0.8), 0.23, (0, -0.36, 0.18, 0.29, 0), _STANDING, (0.13, -0.2)),
    "walking": Pose((-0.33, -0.6), 0.24, (0.07, -0.34, 0.38, 0.18, 4), _WALKING, (0.4, -0.38)),
    "lying": Pose((-0.32, -0.33), 0.24, (0.07, -0.18, 0.42, 0.18, 0), _LYING, (0.44, -0.18)),
    "leaping": Pose((-0.36, -0.56), 0.24, (0.06, -0.3, 0.4, 0.16, 0), _LEAPING, (0.42, -0.32), 12, 0.26),
    "upright": Pose((0, -0.78), 0.24, (0, -0.32, 0.26, 0.32, 0), _UPRIGHT, (0.2, -0.2)),
    "floating": Pose((0, -0.78), 0.24, (0.03, -0.32, 0.24, 0.34, 0), (), (0.2, -0.2), -10, 0.2),
}
# Half width and half height of the eyes, in radii of the head.
EYES = {"open": (0.18, 0.25), "wide": (0.22, 0.31), "sleepy": (0.2, 0.12), "closed": (0.2, 0.04)}


def poses_of(name: str) -> tuple[str, ...]:
    """Return the poses that a species can take."""
    if name in ("Mimikyu", "Gengar", "Gardevoir", "Flabébé"):
        return "upright", "floating"
    if name in ("Lucario", "Charizard", "Pikachu"):
        return "standing", "sitting", "leaping"
    return "sitting", "walking", "lying", "leaping"


@dataclass(frozen=True)
class Look:
    """How a creature holds itself: a pose of POSES, eyes of EYES, and whether it faces right."""

    pose: str
    eyes: str
    mirror: bool


def choose_look(rng: random.Random, name: str) -> Look:
    """Return a look for a species, by lot."""
    return Look(rng.choice(poses_of(name)), rng.choice(tuple(EYES)), rng.random() < 0.5)


def paint_creature(canvas: Canvas, name: str, foot: Point, size: float, look: Look) -> None:
    """Paint one creature and its shadow.

    Args:
        name: a species' name; any other gives the fakemon.
        foot: where it stands, in the canvas's units.
        size: its height without ears, in the canvas's units.
    """
    species = {species.name: species for species in SPECIES}.get(name, FAKEMON)
    pose, side = POSES[look.pose], -1 if look.mirror else 1
    (x, y), r = pose.head, pose.radius
    fixed = {"head": pose.head, "body": pose.body[:2], "tail": pose.tail}

    def fill(outline: Sequence[Point], colour: Colour, line: float = 0.016) -> None:
        at = foot[0], foot[1] - pose.lift * size
        points = ((side * px * size, py * size) for px, py in turned(outline, pose.turn, (0, 0)))
        canvas.fill([(at[0] + px, at[1] + py) for px, py in points], colour, line=line * size)

    def paint(layer: str) -> None:
        for part in PARTS[species.name]:
            ax, ay = fixed[part.at]
            for way in ((1, -1) if part.both else (1,)) if part.layer == layer else ():
                outline = [(ax + way * px * r, ay + py * r) for px, py in part.outline]
                fill(outline, part.colour or species.body, 0.008 if part.colour else 0.016)

    canvas.fill(oval(*foot, 0.42 * size, 0.07 * size), INK, 0.3)
    paint("back")
    for far in pose.feet[:2]:
        fill(oval(*far), darker(species.body, 0.88))
    for shape in (pose.body, *pose.feet[2:]):
        fill(oval(*shape), species.body)
    paint("neck")
    fill(oval(x, y, 1.08 * r, 0.96 * r), species.body)
    paint("face")
    rx, ry = EYES[look.eyes]
    for eye in (-0.52, 0.3):
        fill(oval(x + eye * r, y + 0.1 * r, rx * r, ry * r), RED if name in RED_EYED else INK, 0)
        if ry > 0.1:
            fill(oval(x + (eye - 0.05) * r, y, 0.07 * r, 0.08 * r), WHITE, 0)
    if name != "Gengar":
        fill(oval(x - 0.12 * r, y + 0.42 * r, 0.1 * r, 0.06 * r), INK, 0)
