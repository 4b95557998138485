"""Which parts of an image an inpainter needs to fill the masked pixels: windows around components, and tiles.

Boxes are (left, top, right, bottom) in pixels, right and bottom exclusive. Masks are height × width arrays, uint8, 255
where to fill, else 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from preprocess.ocr.polygons import distances

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Box = tuple[int, int, int, int]

# The context around a hole is as wide as the hole is thick (a line of text is as thick as it is high), within these
# bounds.
LEAST_CONTEXT_PX = 64
MOST_CONTEXT_PX = 256

# LaMa was trained on crops of 256 × 256; it does not handle smaller inputs well.
LEAST_SIDE_PX = 256

# Windows grow until their sides are multiples of this (LaMa needs multiples of 8), so that windows of similar size have
# the same size and share a batch.
STEP_PX = 64

# The most pixels in one pass through the network, as one window or several: it limits the memory. LaMa's authors report
# good results up to about 2,000 px a side, but holes grow with the image, and those in its training fit into 256.
MOST_PIXELS = 1024 * 1024

# A larger component is filled at a reduced size first and then in tiles at full size. A tile's hole is at most 44 % of
# its window.
TILE_PX = 512
TILE_CONTEXT_PX = 128
TILE_OVERLAP_PX = 32

# Fill and source are blended over this share of a component's thickness, up to this many pixels. The text detector's
# masks extend further around the glyphs, so no ink shows through.
FEATHER_SHARE = 0.05
MOST_FEATHER_PX = 4

# A mask of noise may have any number of components; the excess is merged with neighbours.
MOST_COMPONENTS = 1000


@dataclass(frozen=True)
class Region:
    """Components that are filled together.

    Args:
        window: what the inpainter sees.
        number: their number in `Regions.owner`, from 1.
    """

    window: Box
    number: int

    @property
    def size(self) -> tuple[int, int]:
        return self.window[2] - self.window[0], self.window[3] - self.window[1]

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class Regions:
    """All masked pixels of an image, divided into regions.

    Args:
        regions: sorted by window size, then from top to bottom.
        owner: height × width, int32: the region number of each pixel, 0 where nothing is masked.
        blend: height × width, uint8: the weight of the fill in each pixel, 255 = all; 0 where nothing is masked.
    """

    regions: list[Region]
    owner: NDArray[np.int32]
    blend: NDArray[np.uint8]


@dataclass(frozen=True)
class Tile:
    """A part of a region that is filled at full size.

    Args:
        window: what the inpainter sees.
        box: what it fills.
        follows: whether another tile is to the left, and whether one is above; both were pasted before this one.
    """

    window: Box
    box: Box
    follows: tuple[bool, bool]

    @property
    def size(self) -> tuple[int, int]:
        return self.window[2] - self.window[0], self.window[3] - self.window[1]

    @property
    def inner(self) -> Box:
        """The box relative to the window."""
        left, top = self.window[:2]
        return self.box[0] - left, self.box[1] - top, self.box[2] - left, self.box[3] - top


Part = TypeVar("Part", Region, Tile)


def find_regions(mask: NDArray[np.uint8]) -> Regions:
    """Divide the masked pixels into regions whose windows have few pixels in total.

    Components are joined while their common window has at most the pixels of their own two, and at most MOST_PIXELS.
    Only a single component can have a larger window.
    """
    import numpy as np

    size = mask.shape[1], mask.shape[0]
    labels, boxes = _components(mask)
    distance = distances(mask)
    thickness = np.zeros(len(boxes))
    for label, (left, top, right, bottom) in enumerate(boxes.tolist()):
        part = np.s_[top:bottom, left:right]
        deepest = 2 * float(distance[part].max(where=labels[part] == label + 1, initial=0))
        thickness[label] = min(deepest, right - left, bottom - top)  # at the image's edge a hole seems twice as thick
    contexts = np.clip(np.ceil(thickness), LEAST_CONTEXT_PX, MOST_CONTEXT_PX).astype(np.int64)
    windows, members = _join(boxes, contexts, size)

    order = sorted(range(len(windows)), key=lambda index: _reading_order(windows[index]))
    number_of = np.zeros(len(boxes) + 1, np.int32)
    for number, index in enumerate(order, start=1):
        number_of[[label + 1 for label in members[index]]] = number
    regions = [Region(windows[index], number) for number, index in enumerate(order, start=1)]

    feather = np.minimum(FEATHER_SHARE * thickness, MOST_FEATHER_PX).astype(np.int32)  # integer pixels
    share = distance / (np.concatenate([[0], feather]).astype(np.float32)[labels] + 1)
    blend = np.rint(255 * np.minimum(share, 1)).astype(np.uint8)
    return Regions(regions, number_of[labels], blend)


def cut_tiles(box: Box, size: tuple[int, int]) -> Iterator[Tile]:
    """Yield overlapping tiles that cover `box` in an image of (width, height) `size`, row by row."""
    import numpy as np

    columns, rows = (_cut(box[axis], box[axis + 2]) for axis in (0, 1))
    for (row, (top, bottom)), (column, (left, right)) in itertools.product(enumerate(rows), enumerate(columns)):
        part = (left, top, right, bottom)
        window = _windows(np.array([part], np.int64), np.array([TILE_CONTEXT_PX], np.int64), size)
        yield Tile(_box(window[0]), part, (column > 0, row > 0))


def fade_in(tile: Tile) -> NDArray[np.float32]:
    """Return the weight of a tile in each pixel of its box, height × width, 0 to 1.

    It rises over the overlap with the tiles to the left and above, and is 1 elsewhere.
    """
    import numpy as np

    left, top, right, bottom = tile.box
    across, down = (np.ones(length, np.float32) for length in (right - left, bottom - top))
    ramp = (np.arange(2 * TILE_OVERLAP_PX, dtype=np.float32) + 0.5) / (2 * TILE_OVERLAP_PX)
    for shares, follows in ((across, tile.follows[0]), (down, tile.follows[1])):
        if follows:
            shares[: len(ramp)] = ramp[: len(shares)]
    return down[:, None] * across[None, :]


def reduction(pixels: int) -> int:
    """Return the integer by which to divide both sides so that `pixels` becomes at most MOST_PIXELS."""
    return math.ceil(math.sqrt(pixels / MOST_PIXELS))


def batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Yield neighbours in the list with windows of one size and at most MOST_PIXELS together, at least one each."""
    for (width, height), group in itertools.groupby(parts, key=lambda part: part.size):
        alike = list(group)
        length = max(1, MOST_PIXELS // (width * height))
        for start in range(0, len(alike), length):
            yield alike[start : start + length]


def _components(mask: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the label of each pixel, 0 where nothing is masked, and the box of each label, from 1."""
    import cv2
    import numpy as np

    radius = 0
    while True:
        kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask, kernel), connectivity=8)
        if count <= MOST_COMPONENTS + 1:
            labels[mask == 0] = 0
            boxes = stats[1:, :4].astype(np.int64)
            boxes[:, 2:] += boxes[:, :2]
            return labels, boxes
        radius = 2 * radius + 4


def _join(
    boxes: NDArray[np.int64], contexts: NDArray[np.int64], size: tuple[int, int]
) -> tuple[list[Box], list[list[int]]]:
    """Return the windows after joining, and the indices of the components in each."""
    import numpy as np

    members = [[index] for index in range(len(boxes))]
    joined = True
    while joined:
        joined = False
        index = 0
        while index < len(boxes):
            areas = _areas(_windows(boxes, contexts, size))
            corners = np.minimum(boxes[index], boxes)[:, :2], np.maximum(boxes[index], boxes)[:, 2:]
            union = np.concatenate(corners, axis=1)
            wider = np.maximum(contexts[index], contexts)
            together = _areas(_windows(union, wider, size))
            saved = np.where(together <= MOST_PIXELS, areas[index] + areas - together, -1)
            saved[index] = -1
            best = int(saved.argmax())
            if saved[best] < 0:
                index += 1
                continue
            boxes[index], contexts[index] = union[best], wider[best]
            boxes, contexts = np.delete(boxes, best, axis=0), np.delete(contexts, best)
            others = members.pop(best)
            index -= best < index
            members[index] += others
            joined = True
    return [_box(window) for window in _windows(boxes, contexts, size)], members


def _windows(boxes: NDArray[np.int64], contexts: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Return the windows around boxes, n × 4."""
    import numpy as np

    windows = np.empty_like(boxes)
    for axis, limit in enumerate(size):
        start, end = boxes[:, axis], boxes[:, axis + 2]
        length = np.maximum(end - start + 2 * contexts, LEAST_SIDE_PX)
        length = np.minimum(-(-length // STEP_PX) * STEP_PX, limit)
        # At the image's edge the window keeps its size and extends further on the other side.
        first = np.clip((start + end - length) // 2, 0, limit - length)
        windows[:, axis], windows[:, axis + 2] = first, first + length
    return windows


def _areas(windows: NDArray[np.int64]) -> NDArray[np.int64]:
    return (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])


def _box(corners: NDArray[np.int64]) -> Box:
    left, top, right, bottom = corners.tolist()
    return left, top, right, bottom


def _cut(start: int, end: int) -> list[tuple[int, int]]:
    """Divide a length into parts of at most TILE_PX, each extending TILE_OVERLAP_PX into its neighbours."""
    count = math.ceil((end - start) / (TILE_PX - 2 * TILE_OVERLAP_PX))
    edges = [start + (end - start) * index // count for index in range(count + 1)]
    return [
        (edges[index] - TILE_OVERLAP_PX * (index > 0), edges[index + 1] + TILE_OVERLAP_PX * (index < count - 1))
        for index in range(count)
    ]


def _reading_order(window: Box) -> tuple[int, ...]:
    left, top, right, bottom = window
    return (right - left, bottom - top, top, left)
