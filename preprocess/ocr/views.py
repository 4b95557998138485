"""How an image is looked at: at which scales, in which tiles, and turned or not.

A detector sees text of about 12 to 100 pixels. So an image is looked at twice, the second time shrunk for large text; a
third look may enlarge it for small text. What is shrunk loses its dots: screentone and grain hide large faint writing
and look like writing themselves. What is large is cut into tiles that overlap, since memory grows with what is
looked at in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The median over so many pixels takes away dots, and leaves strokes that are as wide.
DOTS_PX = 3

# The network halves its input five times.
SIDE_STEP = 32


@dataclass(frozen=True)
class Looks:
    """The looks that are taken at each image.

    Args:
        scales: how many times larger or smaller than it is an image is looked at, one look after the other.
        max_side: no scale makes the longer side of an image longer than this, in pixels.
        tile: what is larger, in pixels of the look, is cut into tiles of at most this side.
        overlap: by how much neighbouring tiles overlap, in pixels of the look.
        turns: whether each look is taken again after a quarter turn, for text that runs upwards or downwards.
    """

    scales: tuple[float, ...] = (1.0, 0.5)
    max_side: int = 4096
    tile: int = 1280
    overlap: int = 160
    turns: bool = False


@dataclass(frozen=True)
class View:
    """A part of an image, as the detector gets to see it.

    Args:
        scale: as asked for; what the view has in fact follows from its size.
        box: left, top, right and bottom of the part in pixels of the image.
        size: width and height of the view before it is turned, multiples of SIDE_STEP.
        turned: whether it is turned by 90 degrees anticlockwise.
    """

    scale: float
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    turned: bool

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the view of an image, both of shape (height, width, channels)."""
        import cv2
        import numpy as np

        left, top, right, bottom = self.box
        part = image[top:bottom, left:right]
        if (right - left, bottom - top) != self.size:
            shrinks = self.size[0] * self.size[1] < (right - left) * (bottom - top)
            # Averaging keeps thin strokes that sampling would step over.
            part = cv2.resize(part, self.size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            if self.scale < 1:
                part = cv2.medianBlur(part, DOTS_PX)
        return np.ascontiguousarray(np.rot90(part) if self.turned else part)

    def place(self, points: Sequence[Sequence[float]]) -> tuple[tuple[int, int], ...]:
        """Return points (x, y) of the view in pixels of the image."""
        left, top, right, bottom = self.box
        width, height = self.size
        if self.turned:
            points = [(width - y, x) for x, y in points]
        across, down = (right - left) / width, (bottom - top) / height
        return tuple((round(left + x * across), round(top + y * down)) for x, y in points)


def views_of(size: tuple[int, int], looks: Looks) -> Iterator[View]:
    """Yield the views of an image of (width, height) `size`, the same ones in the same order each time."""
    largest = looks.max_side / max(size)
    # What shrinks an image shrinks one over the cap beyond that, or its large text would have no look of its own. Two
    # scales that the cap makes the same would find the same twice.
    capped = (min(1, largest) * scale if scale <= 1 else min(scale, largest) for scale in looks.scales)
    for scale in dict.fromkeys(capped):
        columns, rows = (spans(side, looks.tile / scale, looks.overlap / scale) for side in size)
        for top, bottom in rows:
            for left, right in columns:
                shown = (_even(scale * (right - left)), _even(scale * (bottom - top)))
                for turned in (False, True) if looks.turns else (False,):
                    yield View(scale, (left, top, right, bottom), shown, turned)


def spans(length: int, tile: float, overlap: float) -> list[tuple[int, int]]:
    """Return equal parts of `length` pixels, none longer than `tile`, neighbours overlapping by at least `overlap`."""
    if length <= tile:
        return [(0, length)]
    count = math.ceil((length - overlap) / (tile - overlap))
    part = math.ceil((length + (count - 1) * overlap) / count)
    starts = [round(number * (length - part) / (count - 1)) for number in range(count)]
    return [(start, start + part) for start in starts]


def _even(side: float) -> int:
    return max(SIDE_STEP, round(side / SIDE_STEP) * SIDE_STEP)
