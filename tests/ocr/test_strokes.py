"""Strokes told from their ground: what of a polygon is masked."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from preprocess.ocr.polygons import TextPolygon, draw_mask
from tests.ocr.drawing import Page, busy_page, flat_page, write_on


def around(page: Page) -> TextPolygon:
    box = page.text.getbbox()
    assert box is not None
    left, top, right, bottom = box
    return TextPolygon(((left, top), (right, top), (right, bottom), (left, bottom)), 0.9)


def masks(page: Page) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the text is, where its polygon is masked, and where its strokes are."""
    image = page.image.convert("RGB")
    boxes, strokes = (draw_mask([around(page)], image.size, 0.2, given) for given in (None, image))
    return np.asarray(page.text) > 0, np.asarray(boxes) > 0, np.asarray(strokes) > 0


def outlined_page() -> Page:
    """Light text with a dark rim, on a ground that goes from light to dark."""
    page = Image.linear_gradient("L").rotate(90).resize((800, 600)).convert("RGB")
    flat = flat_page(72)
    rim = flat.text.filter(ImageFilter.MaxFilter(7))
    page.paste((20, 20, 30), mask=rim)
    page.paste((250, 240, 200), mask=flat.text)
    return Page(page, rim)


PAGES = {
    "flat": flat_page(48),
    "small": flat_page(14),
    "large": flat_page(96, (1600, 600)),
    "busy": busy_page(48),
    "faint": write_on(Image.new("RGB", (800, 600), (96, 141, 187)), 60, (116, 159, 201)),
    "outlined": outlined_page(),
}


@pytest.mark.parametrize("name", PAGES)
def test_every_stroke_is_masked_and_little_else(name: str) -> None:
    text, boxes, strokes = masks(PAGES[name])
    assert not (strokes & ~boxes).any(), "never more than the polygon and its margin"
    assert strokes[text].mean() >= 0.98
    assert strokes.sum() <= 0.75 * boxes.sum()


def test_where_ground_and_ink_look_alike_the_whole_polygon_is_masked() -> None:
    rng = random.Random(3)
    noise = Image.frombytes("RGB", (200, 150), rng.randbytes(3 * 200 * 150)).resize((800, 600))
    page = write_on(noise, 48, (128, 128, 128))
    _, boxes, strokes = masks(page)
    assert (strokes == boxes).all()


def test_a_polygon_without_any_ink_is_filled() -> None:
    page = Page(Image.new("RGB", (400, 300), "white"), Image.new("L", (400, 300)))
    ImageDraw.Draw(page.text).rectangle((100, 100, 300, 140), fill=255)
    _, boxes, strokes = masks(page)
    assert (strokes == boxes).all() and boxes.any()


@pytest.mark.parametrize("size", [(1, 1), (40, 3), (3, 200)])
def test_polygons_at_the_edge_of_odd_images_are_masked(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (9, 9, 9))
    corners = ((-5, -5), (size[0] + 5, -5), (size[0] + 5, size[1] + 5), (-5, size[1] + 5))
    assert np.asarray(draw_mask([TextPolygon(corners, 0.9)], size, 0.2, image)).all()
