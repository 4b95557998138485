"""Separates glyphs from their background: which pixels in and around a polygon are strokes of its text.

The background is the median around a pixel, over a window taller than a line, so that strokes do not affect it. Pixels
that differ from it are ink. If ink and background cannot be told apart, the caller masks the entire polygon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Lines are measured at this height in pixels or less: strokes stay clear, and medians are cheaper.
MOST_HEIGHT = 48

# The window of the background's median, as a share of the line's height.
WINDOW = 1.4

# The share of a line that ink covers: less is a speck, more is not writing.
LEAST_INK, MOST_INK = 0.02, 0.6

# At most this much of the rim around the line may look like ink: otherwise the background is as busy as the writing.
MOST_RIM = 0.2

# The minimum difference between ink and its background, in levels of CIE Lab (0 to 255).
LEAST_CONTRAST = 8.0

# The factor on Otsu's threshold between ink and background: beside the edge of a figure, faint ink differs less.
FAINTER = 0.7

# How far the mask extends beyond the strokes, as a share of the line's height: outlines, shadows and blur.
MARGIN = 0.06
LEAST_MARGIN_PX = 2


def find_strokes(rgb: NDArray[np.uint8], inside: NDArray[np.bool_], height: float) -> NDArray[np.bool_] | None:
    """Return where the strokes are, with a margin, or None if ink and background cannot be told apart.

    Args:
        rgb: the polygon's surroundings, (rows, columns, 3).
        inside: (rows, columns), where the mask may extend to.
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
