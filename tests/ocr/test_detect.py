"""Text detection: the real PP-OCRv6 detector on drawn pages, and the rules and masks that follow it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pokefa.model_files import sha256_of
from preprocess.ocr.detect import (
    EMBEDDED_MODEL,
    EMBEDDED_SETTINGS,
    EMBEDDED_SHA256,
    Detector,
    TextPolygon,
    TextRules,
    area_frac,
    draw_mask,
    embedded_model,
    measure,
    rejection,
)
from tests.ocr.drawing import Page, busy_page, creature, flat_page

RULES = TextRules()


def kept(detector: Detector, image: Image.Image) -> list[TextPolygon]:
    return [polygon for polygon in detector(image) if rejection(polygon, image.size, RULES) is None]


@pytest.mark.parametrize("height", [24, 72])
@pytest.mark.parametrize("page_of", [flat_page, busy_page], ids=["flat", "busy"])
def test_the_mask_covers_every_drawn_glyph(detector: Detector, page_of: type[Page], height: int) -> None:
    page = page_of(height, (1024, 768))
    mask = np.asarray(draw_mask(kept(detector, page.image), page.image.size, RULES.dilate))
    text = np.asarray(page.text)
    assert text.any()
    assert not text[mask == 0].any()
    assert (mask > 0).sum() < 4 * np.ptp(np.nonzero(text)[0]) * np.ptp(np.nonzero(text)[1])


@pytest.mark.parametrize("pattern", ["plain", "stripes", "checks", "stars"])
def test_eyes_and_patterns_are_no_text(detector: Detector, pattern: str) -> None:
    image = creature(pattern)
    assert detector(image), "the detector itself takes something in the picture for text"
    assert kept(detector, image) == []


def test_paddleocr_reading_the_file_itself_finds_the_same(detector: Detector, tmp_path: Path) -> None:
    """So the channels come in the order that the network was trained with."""
    from paddleocr import TextDetection

    shutil.copy(embedded_model(), tmp_path / "inference.onnx")
    (tmp_path / "inference.yml").write_text(json.dumps(EMBEDDED_SETTINGS))
    bare = TextDetection(model_name=EMBEDDED_MODEL, model_dir=str(tmp_path), engine="onnxruntime", device="cpu")
    page = flat_page(ground=(170, 30, 60)).image
    page.save(tmp_path / "page.png")
    found = bare.predict(str(tmp_path / "page.png"))[0]
    ours = [polygon for polygon in detector(page) if polygon.score >= 0.45]
    assert [polygon.points for polygon in ours] == [tuple(map(tuple, points)) for points in found["dt_polys"].tolist()]
    assert [polygon.score for polygon in ours] == pytest.approx(found["dt_scores"], abs=1e-4)


def test_loading_the_detector_asks_no_network(detector: Detector, asked_network: list[str]) -> None:
    assert asked_network == []


def test_the_embedded_model_is_the_pinned_one() -> None:
    assert sha256_of(embedded_model()) == EMBEDDED_SHA256


@pytest.mark.parametrize("size", [(1, 1), (40, 10), (2000, 3)])
def test_images_of_odd_sizes_are_looked_at(detector: Detector, size: tuple[int, int]) -> None:
    assert kept(detector, Image.new("RGB", size, (9, 9, 9))) == []


def rectangle(width: int, height: int, score: float = 0.9) -> TextPolygon:
    return TextPolygon(((10, 10), (10 + width, 10), (10 + width, 10 + height), (10, 10 + height)), score)


@pytest.mark.parametrize(
    ("polygon", "reason"),
    [
        (rectangle(100, 20, score=0.6), None),
        (rectangle(100, 20, score=0.5999), "low_confidence"),
        (rectangle(20, 10), None),
        (rectangle(19, 10), "too_small"),
        (rectangle(35, 20), None),
        (rectangle(20, 35), None),
        (rectangle(34, 20), "not_elongated"),
        (rectangle(20, 34), "not_elongated"),
    ],
)
def test_what_counts_as_text(polygon: TextPolygon, reason: str | None) -> None:
    assert rejection(polygon, (1000, 1000), RULES) == reason


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_the_height_of_text_does_not_depend_on_how_it_is_turned(degrees: int) -> None:
    turn = np.exp(1j * math.radians(degrees))
    corners = [complex(x, y) * turn + 500 + 500j for x, y in ((-200, -50), (200, -50), (200, 50), (-200, 50))]
    longer, shorter, area = measure([(round(z.real), round(z.imag)) for z in corners])
    assert longer == pytest.approx(400, abs=2)
    assert shorter == pytest.approx(100, abs=2)
    assert area == pytest.approx(40_000, rel=0.02)


def test_the_mask_is_the_polygon_and_a_margin_in_proportion_to_its_height() -> None:
    mask = np.asarray(draw_mask([TextPolygon(((100, 100), (300, 100), (300, 150), (100, 150)), 0.9)], (400, 300), 0.2))
    assert mask.shape == (300, 400) and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (90, 160, 90, 310)
    assert mask[90, 90] == 0, "the margin is round at the corners"


def test_the_margin_is_never_less_than_two_pixels() -> None:
    mask = np.asarray(draw_mask([rectangle(40, 4)], (100, 100), 0.0))
    rows = np.nonzero(mask.any(axis=1))[0]
    assert (rows[0], rows[-1]) == (8, 16)


@settings(max_examples=50, deadline=None)
@given(
    corners=st.lists(st.tuples(st.integers(-20, 120), st.integers(-20, 90)), min_size=4, max_size=4),
    dilate=st.floats(0, 1),
)
def test_a_mask_holds_its_corners_and_grows_with_the_margin(corners: list[tuple[int, int]], dilate: float) -> None:
    polygon = TextPolygon(tuple(corners), 0.9)
    narrow, wide = (np.asarray(draw_mask([polygon], (100, 70), share)) for share in (0.0, dilate))
    assert (wide >= narrow).all()
    for x, y in corners:
        if 0 <= x < 100 and 0 <= y < 70:
            assert narrow[y, x] == 255


def test_the_share_of_the_mask_is_counted_in_pixels() -> None:
    mask = Image.new("L", (40, 50), 0)
    mask.paste(255, (0, 0, 10, 20))
    assert area_frac(mask) == 0.1
