"""The target size of an image: the policy of stage 4, in exact fractions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pokefa.errors import InputError

# Below this factor, bicubic is no better than the mean of the covered area, and slower.
AREA_BELOW = Fraction(1, 2)


@dataclass(frozen=True)
class Bounds:
    """The bounds of the target size, in pixels.

    Raises:
        InputError: they contradict each other.
    """

    min_side: int = 1024
    max_short: int = 2048
    max_long: int = 4096

    def __post_init__(self) -> None:
        if not self.min_side <= self.max_short <= self.max_long:
            raise InputError(
                f"--min-side {self.min_side}, --max-short {self.max_short} and --max-long {self.max_long} do not "
                "increase: give sizes from small to large"
            )


@dataclass(frozen=True)
class Target:
    """The target size of an image: both sides scaled by `factor`; `strip`: the shorter stays under the minimum."""

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
    """Return the target size of an image of `width` x `height` pixels.

    Both sides have one exact factor. The side that determines it gets its bound exactly. The other is rounded to the
    nearest pixel, half up, and is at least 1, so neither side is off by more than half a pixel.
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
