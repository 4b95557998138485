"""The views of an image: at which scales, in which tiles, and rotated or not.

A detector sees text of about 12 to 100 pixels. So each image has two views, the second one shrunk for large text; a
third one may enlarge it for small text. Dots are removed from shrunk views: screentone and grain hide large faint
writing, and look like writing themselves. Large views are divided into overlapping tiles, because memory grows with the
size of the input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The side of the median filter: it removes dots, and keeps strokes of this width.
DOTS_PX = 3

# The network halves its input five times.
SIDE_STEP = 32


@dataclass(frozen=True)
class Looks:
    """The views to take of each image.

    Args:
        scales: scale factors, one view each.
        max_side: no scale makes the longer side of an image longer than this, in pixels.
        tile: larger views are divided into tiles of at most this side, in pixels of the view.
        overlap: overlap of neighbouring tiles, in pixels of the view.
        turns: whether to repeat each view after a quarter turn, for vertical text.
    """

    scales: tuple[float, ...] = (1.0, 0.5)
    max_side: int = 4096
    tile: int = 1280
    overlap: int = 160
    turns: bool = False


@dataclass(frozen=True)
class View:
    """A part of an image, as the detector sees it.

    Args:
        scale: as requested; the actual scale follows from the size.
        box: left, top, right and bottom of the part in pixels of the image.
        size: width and height of the view before rotation, multiples of SIDE_STEP.
        turned: whether it is rotated by 90 degrees anticlockwise.
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
            # Averaging keeps thin strokes that sampling would skip.
            part = cv2.resize(part, self.size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            if self.scale < 1:
                part = cv2.medianBlur(part, DOTS_PX)
        return np.ascontiguousarray(np.rot90(part) if self.turned else part)

    def place(self, points: Sequence[Sequence[float]]) -> tuple[tuple[int, int], ...]:
        """Convert points (x, y) of the view to pixels of the image."""
        left, top, right, bottom = self.box
        width, height = self.size
        if self.turned:
            points = [(width - y, x) for x, y in points]
        across, down = (right - left) / width, (bottom - top) / height
        return tuple((round(left + x * across), round(top + y * down)) for x, y in points)


def views_of(size: tuple[int, int], looks: Looks) -> Iterator[View]:
    """Yield the views of an image of (width, height) `size`, in the same order each time."""
    largest = looks.max_side / max(size)
    # Scales below 1 also apply to an image already shrunk to the cap, or its large text would have no view. Scales that
    # the cap makes equal would find the same text twice.
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
