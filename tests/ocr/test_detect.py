"""Text detection: the real PP-OCRv6 models on drawn pages, and the rules that follow them."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from demo.art.text_set import draw_set, load_font
from pokefa.errors import PokefaError
from pokefa.files import sha256_of
from preprocess.ocr.detect import LEAST_SCORE, MOST_READ, TextRules, doubt_about, find_text
from preprocess.ocr.models import DETECTOR, DETECTOR_SETTINGS, READER, Detector, Reader, embedded_file, load_detector
from preprocess.ocr.plausibility import describe_reading, describe_shapes, plausibility, shares
from preprocess.ocr.polygons import TextPolygon, draw_mask
from preprocess.ocr.views import Looks
from tests.ocr.drawing import Page, busy_page, creature, flat_page

RULES = TextRules()


def mask_of(image: Image.Image, polygons: list[TextPolygon]) -> np.ndarray:
    return np.asarray(draw_mask(polygons, image.size, RULES.dilate)) > 0


# -- the models -------------------------------------------------------------------------------------------------------


def test_paddleocr_reading_the_file_itself_finds_the_same(detector: Detector, tmp_path: Path) -> None:
    """So the channels come in the order that the network was trained with."""
    from paddleocr import TextDetection

    shutil.copy(embedded_file(DETECTOR), tmp_path / "inference.onnx")
    (tmp_path / "inference.yml").write_text(json.dumps(DETECTOR_SETTINGS))
    bare = TextDetection(model_name=DETECTOR.name, model_dir=str(tmp_path), engine="onnxruntime", device="cpu")
    page = flat_page(ground=(170, 30, 60)).image
    page.save(tmp_path / "page.png")
    found = bare.predict(str(tmp_path / "page.png"))[0]
    ours = [polygon for polygon in detector(page) if polygon.scale == 1 and polygon.score >= 0.45]
    assert len(ours) == len(found["dt_polys"]) >= 1
    for polygon, points in zip(ours, found["dt_polys"], strict=True):
        assert np.abs(np.array(polygon.points) - points).max() <= 1  # PaddleOCR rounds once, the way back once more
    assert [polygon.score for polygon in ours] == pytest.approx(found["dt_scores"], abs=1e-4)


def test_loading_the_detector_asks_no_network(detector: Detector, asked_network: list[str]) -> None:
    assert asked_network == []


@pytest.mark.parametrize("model", [DETECTOR, READER], ids=["detector", "reader"])
def test_the_embedded_models_are_the_pinned_ones(model: object) -> None:
    assert sha256_of(embedded_file(model)) == model.sha256


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(PokefaError) as wrong:
        load_detector("no_such_model", 0.4, Looks())
    assert str(wrong.value).startswith("--det-model no_such_model cannot be loaded (ValueError: ")
    assert str(wrong.value).endswith(
        "): give a detector that PaddleOCR offers for ONNX, with a network for its download, or leave the flag out for "
        "the embedded one"
    )


def box_around(ink: Image.Image) -> TextPolygon:
    left, top, right, bottom = ink.getbbox()
    corners = ((left - 4, top - 4), (right + 4, top - 4), (right + 4, bottom + 4), (left - 4, bottom + 4))
    return TextPolygon(corners, 0.9)


def line_of(text: str, font: str) -> Image.Image:
    """The text in black on white, as a page of mode L."""
    page = Image.new("L", (600, 120), 255)
    ImageDraw.Draw(page).text((30, 30), text, font=load_font(font, 48), fill=0)
    return page


@pytest.mark.parametrize(
    ("text", "font"), [("Umbreon", "serif"), ("do not repost", "sans"), ("無断転載禁止", "japanese")]
)
@pytest.mark.parametrize("turn", [0, 20, 90, 270])
def test_the_reader_reads_lines_however_they_run(reader: Reader, text: str, font: str, turn: int) -> None:
    page = line_of(text, font)
    ink = page.point(lambda value: 255 - value).getbbox()
    turned = page.rotate(turn, expand=True, fillcolor=255)
    corners = [(ink[0] - 4, ink[1] - 4), (ink[2] + 4, ink[1] - 4), (ink[2] + 4, ink[3] + 4), (ink[0] - 4, ink[3] + 4)]
    spin = np.exp(-1j * np.radians(turn))  # Pillow turns anticlockwise, and y points down
    middle, new_middle = complex(300, 60), complex(turned.width / 2, turned.height / 2)
    places = [(complex(*corner) - middle) * spin + new_middle for corner in corners]
    polygon = TextPolygon(tuple((round(place.real), round(place.imag)) for place in places), 0.9)
    ((read, confidence),) = reader(turned.convert("RGB"), [polygon])
    assert read.replace(" ", "") == text.replace(" ", "")
    assert confidence >= 0.6


# -- rules ------------------------------------------------------------------------------------------------------------


def rectangle(left: int, top: int, width: int, height: int, score: float = 0.85, scale: float = 1.0) -> TextPolygon:
    right, bottom = left + width, top + height
    return TextPolygon(((left, top), (right, top), (right, bottom), (left, bottom)), score, scale)


PAPER = Image.new("RGB", (400, 300))
LINE = rectangle(10, 10, 120, 20)
FAINT = rectangle(10, 100, 120, 20, score=0.5)
EYE = rectangle(200, 100, 60, 60, score=0.6)
FAINTEST = rectangle(10, 200, 120, 20, score=0.3)
SEEN = [FAINT, EYE, LINE, FAINTEST]
WORDS = {LINE: ("do not repost", 0.99), FAINT: ("Umbreon", 0.97)}


def judged(
    rules: TextRules, words: dict[TextPolygon, tuple[str, float]] | None, seen: list[TextPolygon] = SEEN
) -> tuple[dict[tuple[tuple[int, int], ...], TextPolygon], dict[str, int]]:
    """What is kept of some polygons, by its corners, and the reasons for the others, where the reader reads `words`."""
    read = None if words is None else lambda image, asked: [words.get(each, ("O", 0.3)) for each in asked]
    kept, rejected = find_text(PAPER, lambda image: seen, rules, read)
    return {polygon.points: polygon for polygon in kept}, dict(rejected)


def test_what_can_be_read_is_text_and_an_eye_is_none() -> None:
    kept, rejected = judged(RULES, WORDS)
    assert kept.keys() == {LINE.points, FAINT.points}
    assert {name: polygon.words for name, polygon in kept.items()} == {
        LINE.points: "do not repost",
        FAINT.points: "Umbreon",
    }
    assert all(polygon.plausible >= RULES.min_plausible for polygon in kept.values())
    assert sum(rejected.values()) == 2 and rejected["low_confidence"] == 1


def test_without_the_reader_score_and_shape_decide() -> None:
    kept, rejected = judged(RULES, None)
    assert LINE.points in kept and EYE.points not in kept
    assert rejected["low_confidence"] == 1 and "unreadable" not in rejected


@pytest.mark.parametrize("words", [("", 0.0), ("00", 0.99), ("O7", 0.9)])
def test_round_signs_are_eyes(words: tuple[str, float]) -> None:
    assert judged(RULES, {EYE: words}, [EYE])[0] == {}


def test_what_is_too_small_is_not_read() -> None:
    kept, rejected = judged(replace(RULES, min_area_frac=0.0201), WORDS, [LINE, EYE])  # 2,412 of 120,000 pixels
    assert LINE.points not in kept and rejected["too_small"] == 1


def test_what_is_read_surely_and_what_is_not_are_told_apart() -> None:
    """Between the thresholds lies what a person has to look at."""
    kept, _ = judged(RULES, WORDS)
    plausible = kept[FAINT.points].plausible
    strict = replace(RULES, min_plausible=min(1.0, plausible + 0.0001), min_doubtful=0.0)
    assert doubt_about(list(judged(strict, WORDS, [FAINT])[0].values()), 0.01, strict) == "unsure"
    assert doubt_about([kept[FAINT.points]], 0.01, RULES) is None
    assert doubt_about([kept[FAINT.points]], 0.0501, RULES) == "large_mask"


def test_what_two_looks_see_is_read_once() -> None:
    asked: list[TextPolygon] = []

    def read(image: Image.Image, polygons: list[TextPolygon]) -> list[tuple[str, float]]:
        asked.extend(polygons)
        return [("do not repost", 0.99) for _ in polygons]

    twin = rectangle(8, 8, 124, 24, score=0.8, scale=0.5)
    (kept,), _ = find_text(PAPER, lambda image: [twin, LINE], RULES, read)
    assert len(asked) == 1
    assert (kept.points, kept.scale, kept.words) == (LINE.points, 1.0, "do not repost")


def test_of_very_many_likely_polygons_the_likeliest_are_read() -> None:
    """Of those left, score and shape decide."""
    marks = [rectangle(10, 10 + 30 * number, 120, 20, score=0.9 - number / 10_000) for number in range(MOST_READ + 10)]
    asked: list[TextPolygon] = []

    def read(image: Image.Image, polygons: list[TextPolygon]) -> list[tuple[str, float]]:
        asked.extend(polygons)
        return [("", 0.0) for _ in polygons]

    find_text(Image.new("RGB", (400, 30 * len(marks))), lambda image: marks[::-1], RULES, read)
    assert len(asked) == MOST_READ
    assert judged(RULES, {}, [])[0] == {}


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 200), st.integers(4, 100), st.integers(4, 90), st.floats(0.4, 1)),
        max_size=8,
    ),
    st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None)
def test_plausibility_is_a_share_and_the_order_of_the_polygons_is_no_matter(
    boxes: list[tuple[int, int, int, int, float]], seed: int
) -> None:
    polygons = [rectangle(*box[:4], score=box[4], scale=(1.0, 0.5)[place % 2]) for place, box in enumerate(boxes)]
    shapes = describe_shapes(polygons, shares(polygons), PAPER.size)
    for shape in shapes:
        assert 0 < plausibility(shape) < 1 and 0 < plausibility(shape + describe_reading("Eevee", 0.9, shape)) < 1
    anywhere = replace(RULES, min_plausible=0.0, min_doubtful=0.0)
    shuffled = random.Random(seed).sample(polygons, len(polygons))
    assert judged(anywhere, {}, polygons) == judged(anywhere, {}, shuffled)


# -- drawn pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [12, 24, 72])
@pytest.mark.parametrize("page_of", [flat_page, busy_page], ids=["flat", "busy"])
def test_the_mask_covers_every_drawn_glyph(
    detector: Detector, reader: Reader, page_of: type[Page], height: int
) -> None:
    page = page_of(height, (1024, 768))
    polygons, _ = find_text(page.image, detector, RULES, reader)
    mask = mask_of(page.image, polygons)
    text = np.asarray(page.text)
    assert text.any()
    assert not text[~mask].any()
    assert mask.sum() < 4 * np.ptp(np.nonzero(text)[0]) * np.ptp(np.nonzero(text)[1])


@pytest.mark.parametrize("font", ["sans", "serif"])
def test_a_page_of_many_short_words_is_found_whole(detector: Detector, reader: Reader, font: str) -> None:
    """None is long enough to be text by its shape."""
    words = ("Mew", "Run", "Hey", "Her", "Yes", "Why", "Eek", "Not", "You", "Zap") * 6
    page, inks = Image.new("RGB", (1140, 920), (236, 228, 210)), []
    face = load_font(font, 36)
    for index, word in enumerate(words):
        place = 40 + 140 * (index % 8), 40 + 110 * (index // 8)
        ink = Image.new("L", page.size)
        for surface, colour in ((page, (40, 30, 50)), (ink, 255)):
            ImageDraw.Draw(surface).text(place, word, font=face, fill=colour)
        inks.append(np.asarray(ink) > 0)
    mask = mask_of(page, find_text(page, detector, RULES, reader)[0])
    assert [word for word, ink in zip(words, inks, strict=True) if mask[ink].mean() < 0.5] == []


@pytest.mark.parametrize("pattern", ["plain", "stripes", "checks", "stars"])
def test_eyes_and_patterns_are_no_text(detector: Detector, reader: Reader, pattern: str) -> None:
    image = creature(pattern)
    assert detector(image), "the detector itself takes something in the picture for text"
    assert find_text(image, detector, RULES, reader)[0] == []


@pytest.mark.parametrize("size", [(1, 1), (40, 10), (2000, 3)])
def test_images_of_odd_sizes_are_looked_at(detector: Detector, reader: Reader, size: tuple[int, int]) -> None:
    assert find_text(Image.new("RGB", size, (9, 9, 9)), detector, RULES, reader)[0] == []


def test_a_line_over_the_edge_of_a_tile_is_one_polygon() -> None:
    tiled, _ = load_detector(None, LEAST_SCORE, Looks((1.0,), tile=512, overlap=128))
    image = Image.new("RGB", (900, 300), (250, 250, 240))
    ImageDraw.Draw(image).text((60, 130), "A line that is longer than a tile", font=load_font("serif", 48), fill=0)
    seen = tiled(image)
    assert len(seen) >= 2 and max(x for polygon in seen for x, _ in polygon.points) > 512 + 128
    polygons, _ = find_text(image, tiled, RULES, None)
    assert len(polygons) == 1
    text = np.asarray(image.convert("L")) < 128
    assert not text[~mask_of(image, polygons)].any()


def test_a_quarter_turn_is_a_look_of_its_own() -> None:
    turning, _ = load_detector(None, LEAST_SCORE, Looks((1.0,), turns=True))
    page = flat_page(32, (640, 480))
    upwards = page.image.transpose(Image.Transpose.ROTATE_90)
    turned = [polygon for polygon in turning(upwards) if polygon.turned]
    text = np.asarray(page.text.transpose(Image.Transpose.ROTATE_90)) > 0
    assert not text[~mask_of(upwards, turned)].any()


def test_the_same_image_gives_the_same_polygons_and_mask(detector: Detector, reader: Reader) -> None:
    image = busy_page(20).image
    first, second = (find_text(image, detector, RULES, reader) for _ in range(2))
    assert first == second
    assert draw_mask(first[0], image.size, 0.2).tobytes() == draw_mask(second[0], image.size, 0.2).tobytes()


# -- a part of the labelled set ---------------------------------------------------------------------------------------


def test_the_labelled_set_is_drawn_alike_each_time() -> None:
    first, second = (list(draw_set(range(4))) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert [writing.box for writing in one.writings] == [writing.box for writing in other.writings]
        assert [writing.ink.tobytes() for writing in one.writings] == [
            writing.ink.tobytes() for writing in other.writings
        ]


def test_where_text_is_said_to_be_ink_was_laid() -> None:
    (picture,) = draw_set([0])
    assert len(picture.writings) >= 3
    ground = picture.image.getpixel((0, 0))
    changed = np.any(np.asarray(picture.image) != ground, axis=2)
    said = np.zeros(changed.shape, bool)
    for writing in picture.writings:
        left, top, right, bottom = writing.box
        ink = np.asarray(writing.ink) > 0
        assert changed[top:bottom, left:right][ink].all()
        said[top:bottom, left:right] = True
        assert writing.covered(Image.fromarray(changed.astype(np.uint8) * 255)) == 1
        assert writing.covered(Image.new("L", picture.image.size)) == 0
    assert not changed[~said].any()


def test_text_of_the_labelled_set_is_found_and_nothing_else(detector: Detector, reader: Reader) -> None:
    """On a few pictures; benchmarks/text_detection.py takes all of them."""
    large = small = found_large = found_small = 0
    for picture in draw_set(PART):
        polygons, _ = find_text(picture.image, detector, RULES, reader)
        if not picture.writings:
            assert polygons == [], picture
        mask = draw_mask(polygons, picture.image.size, RULES.dilate)
        for writing in picture.writings:
            hit = writing.covered(mask) >= 0.5
            if writing.height >= 16:
                large, found_large = large + 1, found_large + hit
            else:
                small, found_small = small + 1, found_small + hit
    assert large >= 8 and found_large >= 0.95 * large
    assert small >= 8 and found_small >= 0.8 * small


PART = (0, 1, 2, 3, 14, 15, 26, 27, 38, 39, 40, 41)  # small ones: 640 x 480 and 800 x 600
