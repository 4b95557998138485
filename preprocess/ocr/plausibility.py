"""How plausible it is that a polygon contains text: one number from the detector, the reader and the polygon's shape.

Gradient-boosted trees with few splits compute it, fitted by benchmarks/fit_plausibility.py on images with known text
(benchmarks/text_set.py). plausibility.json holds two sets of trees, with and without the reader's facts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocess.ocr.polygons import TextPolygon, measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FITTED = Path(__file__).with_suffix(".json")

# Characters that the reader also sees in eyes, dots and feet.
ROUND = frozenset("0689DOQo")

SHAPE = ("score", "height", "aspect", "area_frac", "closer_look", "seen_twice")
AREA_FRAC = SHAPE.index("area_frac")
READING = ("readable", "letters", "letters_for_length")
Facts = tuple[float, ...]


def shares(polygons: Sequence[TextPolygon]) -> NDArray[np.float64]:
    """Return the overlap of the upright boxes of polygons from different views, 0 to 1, n × n."""
    import numpy as np

    corners = [np.array(polygon.points, np.float64) for polygon in polygons]
    low, high = (np.array([pick(each, axis=0) for each in corners]).reshape(-1, 2) for pick in (np.min, np.max))
    areas = np.prod(high - low, axis=1) + 1
    scales = np.array([polygon.scale for polygon in polygons])
    found = np.zeros((len(polygons), len(polygons)))
    for place in range(len(polygons)):
        both = np.prod(np.clip(np.minimum(high[place], high) - np.maximum(low[place], low), 0, None), axis=1)
        found[place] = np.where(scales == scales[place], 0, both / (areas[place] + areas - both))
    return found


def describe_shapes(polygons: Sequence[TextPolygon], shared: NDArray[np.float64], size: tuple[int, int]) -> list[Facts]:
    """Return the facts of SHAPE for each polygon of an image of (width, height) `size`.

    `seen_twice` is the score of a polygon of another view at the same place, times their overlap.
    """
    import numpy as np

    scores = np.array([polygon.score for polygon in polygons])
    facts: list[Facts] = []
    for polygon, others in zip(polygons, shared, strict=True):
        longer, shorter, area = measure(polygon.points)
        shape = shorter, longer / max(1, shorter), area / (size[0] * size[1])
        facts.append((polygon.score, *shape, float(polygon.scale >= 1), float((others * scores).max())))
    return facts


def describe_reading(words: str, confidence: float, shape: Facts) -> Facts:
    """Return the facts of READING for the text, `confidence` from 0 to 1, in a polygon of this shape."""
    signs = [sign for sign in words if sign.isalnum()]
    return confidence, len(set(signs) - ROUND), len(signs) / shape[SHAPE.index("aspect")]


def plausibility(facts: Facts) -> float:
    """Return how plausible text is, 0 to 1, from the facts of SHAPE, and those of READING if present."""
    model = fitted()["read" if len(facts) > len(SHAPE) else "unread"]
    total = model["start"]
    for tree in model["trees"]:
        node = tree
        while isinstance(node, list):  # [fact, threshold, node up to it, node over it]
            node = node[2] if facts[node[0]] <= node[1] else node[3]
        total += node
    return 1 / (1 + math.exp(-total))


@cache
def fitted() -> dict[str, Any]:
    return json.loads(FITTED.read_text(encoding="utf-8"))
