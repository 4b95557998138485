"""Glyphs told from their ground: which pixels in and around a polygon are the strokes of its text.

The ground is the median of what lies around a pixel, over a window higher than a line, so strokes do not count in it.
What differs from it is ink, where the two can be told apart; where they cannot, the whole polygon is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Lines are measured at no more than this height in pixels: strokes are as plain there, and medians cheaper.
MOST_HEIGHT = 48

# The window of the ground's median, as a share of the line's height.
WINDOW = 1.4

# Ink covers this much of a line: less is a speck in it, more is no writing.
LEAST_INK, MOST_INK = 0.02, 0.6

# Of the rim around the line, no more than this may look like ink: else the ground is as lively as the writing.
MOST_RIM = 0.2

# Levels of CIE Lab, of 255, that ink differs from its ground by at least.
LEAST_CONTRAST = 8.0

# Between ink and ground lies Otsu's threshold, times this: beside the edge of a figure, faint ink differs less.
FAINTER = 0.7

# How far the mask reaches over the strokes, as a share of the line's height: outlines, shadows and blur.
MARGIN = 0.06
LEAST_MARGIN_PX = 2


def find_strokes(rgb: NDArray[np.uint8], inside: NDArray[np.bool_], height: float) -> NDArray[np.bool_] | None:
    """Return where the strokes are, with a margin, or None where ink and ground cannot be told apart.

    Args:
        rgb: the polygon's surroundings, (rows, columns, 3).
        inside: (rows, columns), where the mask may reach.
        height: of the text, in pixels.
    """
    import cv2
    import numpy as np

    shrink = min(1.0, MOST_HEIGHT / height)
    size = max(1, round(rgb.shape[1] * shrink)), max(1, round(rgb.shape[0] * shrink))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    within = cv2.resize(inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    if not within.any():
        return None
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    window = min(255, 2 * round(WINDOW * height * shrink / 2) + 1)
    ground = cv2.medianBlur(lab, max(3, window))
    difference = cv2.absdiff(lab, ground).max(axis=2)
    between, _ = cv2.threshold(difference[within].reshape(-1, 1), 0, 255, cv2.THRESH_OTSU)
    ink = difference > max(LEAST_CONTRAST, FAINTER * between)
    if not LEAST_INK <= ink[within].mean() <= MOST_INK:
        return None
    rim = ~within
    if rim.any() and ink[rim].mean() > MOST_RIM:
        return None
    strokes = cv2.resize((ink & within).astype(np.uint8), rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    margin = max(LEAST_MARGIN_PX, round(MARGIN * height))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return (cv2.dilate(strokes, disc) > 0) & inside
