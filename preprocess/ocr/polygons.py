"""Polygons around text: their measures, merging, and the mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Two polygons are one if they overlap, have about the same height and together fill this much of the smallest rectangle
# around both: the same line found twice, or a line cut by the edge of a tile.
LEAST_FILL = 0.75
MOST_UNLIKE = 2.0

# The closer view gives the tighter outline; it is used alone if it is about as long as both together.
LEAST_LENGTH = 0.9

# A polygon is inside another if this much of its area is.
LEAST_INSIDE = 0.8

# Glyphs extend a little beyond the polygon: outlines, shadows and the blur of scaling.
LEAST_DILATION_PX = 2

# The margin around the dilated polygon that is used to tell glyphs from their background.
RIM_PX = 2


@dataclass(frozen=True)
class TextPolygon:
    """A convex polygon around text.

    Args:
        points: corners (x, y) in pixels of the upright image.
        score: the detector's mean text probability inside, 0 to 1.
        scale: the scale of the view.
        turned: whether the view was rotated by a quarter turn.
        plausible: how plausible it is that this is text, 0 to 1, once that has been judged.
        words: the text that was read in it, if any.
    """

    points: tuple[tuple[int, int], ...]
    score: float
    scale: float = 1.0
    turned: bool = False
    plausible: float = 0.0
    words: str = ""


def measure(points: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
    """Return the longer side, the shorter side and the area of a polygon in pixels, sides of its smallest rectangle.

    The shorter side is the text's height, whichever way the text runs.
    """
    import cv2

    corners = _corners(points)
    sides = cv2.minAreaRect(corners)[1]
    return max(sides), min(sides), float(cv2.contourArea(corners))


def merge(polygons: Iterable[TextPolygon]) -> list[TextPolygon]:
    """Return the polygons, merged where they mark the same text, the surest first; the input order does not matter.

    A merged polygon is the smallest rectangle around its parts, with the best score among them and that part's other
    values. If several scales found the complete line, it is the outline of the closest view. A polygon that is merely
    inside another, as a small word in a large figure, stays.
    """
    kept: list[TextPolygon] = []
    for polygon in sorted(polygons, key=_surest_first):
        place = 0
        while place < len(kept):  # after growing it may touch others
            union = _merged(kept[place], polygon)
            if union is None:
                place += 1
            else:
                polygon = union
                del kept[place]
                place = 0
        kept.append(polygon)
    return sorted(kept, key=_surest_first)


def _surest_first(polygon: TextPolygon) -> tuple[object, ...]:
    return -polygon.plausible, -polygon.score, polygon.scale, polygon.turned, polygon.points


def _merged(first: TextPolygon, second: TextPolygon) -> TextPolygon | None:
    """Return one polygon for both, or None if they are two pieces of text."""
    import cv2
    import numpy as np

    one, other = _corners(first.points), _corners(second.points)
    if (one.max(0) < other.min(0)).any() or (other.max(0) < one.min(0)).any():
        return None
    heights = sorted((measure(first.points)[1], measure(second.points)[1]))
    if heights[1] > MOST_UNLIKE * heights[0]:
        return None
    shared = cv2.intersectConvexConvex(cv2.convexHull(one), cv2.convexHull(other))[0]
    if shared <= 0:
        return None
    around = cv2.minAreaRect(np.concatenate([one, other]))
    if cv2.contourArea(one) + cv2.contourArea(other) - shared < LEAST_FILL * around[1][0] * around[1][1]:
        return None
    best = min(first, second, key=_surest_first)
    closer, farther = sorted((first, second), key=lambda polygon: -polygon.scale)
    if closer.scale > farther.scale and measure(closer.points)[0] >= LEAST_LENGTH * max(around[1]):
        return replace(best, points=closer.points, scale=closer.scale, turned=closer.turned)
    corners = tuple((round(float(x)), round(float(y))) for x, y in cv2.boxPoints(around))
    return replace(best, points=corners)


def contains(outer: TextPolygon, inner: TextPolygon) -> bool:
    """Tell whether a polygon is inside another, except for a rim."""
    import cv2

    corners = _corners(inner.points)
    shared = cv2.intersectConvexConvex(cv2.convexHull(_corners(outer.points)), cv2.convexHull(corners))[0]
    return bool(shared >= LEAST_INSIDE * cv2.contourArea(corners))


def draw_mask(
    polygons: Sequence[TextPolygon], size: tuple[int, int], dilate: float, image: Image.Image | None = None
) -> Image.Image:
    """Return a mask of mode L and the given (width, height): 255 on and around the text, else 0.

    Each polygon is filled and dilated by a disc whose radius is `dilate` times the height of its text. Within that area
    only the strokes are masked if they can be told from the background.

    Args:
        image: the RGB image of this size; without it, entire polygons are masked.
    """
    import cv2
    import numpy as np

    from preprocess.ocr.strokes import find_strokes

    mask = np.zeros((size[1], size[0]), np.uint8)
    pixels = None if image is None else np.asarray(image)
    for polygon in polygons:
        corners = _corners(polygon.points)
        tall = max(1.0, measure(polygon.points)[1])
        radius = max(LEAST_DILATION_PX, round(dilate * tall))
        x, y, width, height = cv2.boundingRect(corners)
        reach = 2 * radius + RIM_PX
        left, top = max(0, x - reach), max(0, y - reach)
        part = np.s_[top : max(0, y + height + reach), left : max(0, x + width + reach)]
        if mask[part].size:
            outside = np.full(mask[part].shape, 255, np.uint8)
            cv2.fillPoly(outside, [corners - np.array([left, top], np.int32)], 0)
            inside = distances(outside) <= radius
            strokes = None if pixels is None else find_strokes(pixels[part], inside, tall)
            mask[part][inside if strokes is None else strokes] = 255
    return Image.fromarray(mask)


def distances(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the distance in pixels of each nonzero pixel of a mask from the nearest zero pixel, float32.

    OpenCV's last bit depends on the memory alignment of its arrays: 7 may be 7.0000005, which is not within 7. Squared
    distances are integers, so they can be recovered exactly up to some 1,500 pixels.
    """
    import cv2
    import numpy as np

    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    np.square(distance, out=distance)
    np.rint(distance, out=distance)
    return np.sqrt(distance, out=distance)


def area_frac(mask: Image.Image) -> float:
    """Return the masked pixels divided by all pixels."""
    return mask.histogram()[255] / (mask.width * mask.height)


def _corners(points: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    import numpy as np

    return np.array(points, np.int32)
