"""Which size an image gets: the policy of stage 4, by exact fractions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pokefa.errors import InputError

# Below this factor bicubic gives no better picture than the plain mean of the covered area, and takes longer.
AREA_BELOW = Fraction(1, 2)


@dataclass(frozen=True)
class Bounds:
    """The sizes that are wanted, in pixels.

    Raises:
        InputError: no size meets them all.
    """

    min_side: int = 1024
    max_short: int = 2048
    max_long: int = 4096

    def __post_init__(self) -> None:
        if not self.min_side <= self.max_short <= self.max_long:
            raise InputError(
                f"--min-side {self.min_side}, --max-short {self.max_short} and --max-long {self.max_long} do not "
                "rise: give sizes from small to large"
            )


@dataclass(frozen=True)
class Target:
    """The size that an image gets: both sides by `factor`, and whether the shorter one stays under the minimum."""

    size: tuple[int, int]
    factor: Fraction
    strip: bool

    @property
    def action(self) -> str:
        return "keep" if self.factor == 1 else "up" if self.factor > 1 else "down"

    @property
    def kernel(self) -> str:
        return "none" if self.factor == 1 else "area" if self.factor < AREA_BELOW else "bicubic"


def target_size(width: int, height: int, bounds: Bounds) -> Target:
    """Return the size that the policy gives to an image of `width` x `height` pixels.

    One exact factor serves both sides. The side that decides gets its bound; the other is rounded to the nearest
    pixel, half up, and is at least 1, so neither side is off by more than half a pixel from the image's shape.
    """
    short, long = min(width, height), max(width, height)
    factor = min(
        max(Fraction(1), Fraction(bounds.min_side, short)),
        Fraction(bounds.max_short, short),
        Fraction(bounds.max_long, long),
    )
    size = (scaled(width, factor), scaled(height, factor))
    return Target(size, factor, strip=min(size) < bounds.min_side)


def scaled(side: int, factor: Fraction) -> int:
    """Return `side` times `factor`, rounded half up, at least 1."""
    return max(1, (2 * side * factor.numerator + factor.denominator) // (2 * factor.denominator))
