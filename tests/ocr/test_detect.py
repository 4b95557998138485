"""Text detection: the real PP-OCRv6 models on drawn pages, and the rules that follow them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from demo.art.text_set import draw_set, load_font
from pokefa.errors import PokefaError
from pokefa.files import sha256_of
from preprocess.ocr.detect import MOST_READ, UNREAD, TextRules, find_text, rejection, says_something
from preprocess.ocr.models import DETECTOR, DETECTOR_SETTINGS, READER, Detector, Reader, embedded_file, load_detector
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
    ((read, sureness),) = reader(turned.convert("RGB"), [polygon])
    assert read.replace(" ", "") == text.replace(" ", "")
    assert says_something(read, sureness, RULES)


# -- rules ------------------------------------------------------------------------------------------------------------


def rectangle(width: int, height: int, score: float = 0.9) -> TextPolygon:
    return TextPolygon(((10, 10), (10 + width, 10), (10 + width, 10 + height), (10, 10 + height)), score)


@pytest.mark.parametrize(
    ("polygon", "reason"),
    [
        (rectangle(100, 20, score=0.75), None),
        (rectangle(100, 20, score=0.7499), "low_confidence"),
        (rectangle(20, 10), None),
        (rectangle(19, 10), "too_small"),
        (rectangle(36, 20), None),
        (rectangle(20, 36), None),
        (rectangle(35, 20), "not_elongated"),
        (rectangle(20, 35), "not_elongated"),
        (rectangle(800, 600), "not_elongated"),
        (rectangle(900, 600), "too_large"),
        (rectangle(900, 600, score=0.5), "too_large"),
        (rectangle(980, 540), None),
    ],
)
def test_what_is_sure_to_be_text(polygon: TextPolygon, reason: str | None) -> None:
    rules = TextRules(min_confidence=0.75, min_aspect=1.8, min_area_frac=0.0002)
    assert rejection(polygon, (1000, 1000), rules) == reason


@pytest.mark.parametrize(
    ("text", "sureness", "says"),
    [
        ("Mew", 0.7, True),
        ("Mew", 0.69, False),
        ("青い海", 0.9, True),
        ("", 1.0, False),
        ("!", 1.0, False),
        ("X", 1.0, False),
        ("XX", 1.0, False),
        ("00", 1.0, False),
        ("68.90", 1.0, False),
        ("oO", 1.0, False),
        ("Co°", 1.0, False),
        ("17", 1.0, True),
        ("O7", 1.0, False),  # two feet of a drawn creature
        ("Go", 1.0, False),
        ("Got", 1.0, True),
    ],
)
def test_what_was_read_says_something(text: str, sureness: float, says: bool) -> None:
    assert says_something(text, sureness, TextRules(min_readable=0.7)) is says


SURE = rectangle(100, 20)
FAINT = TextPolygon(((10, 100), (110, 100), (110, 120), (10, 120)), 0.5)
ROUND = TextPolygon(((200, 100), (260, 100), (260, 160), (200, 160)), 0.9)
FAINTEST = TextPolygon(((10, 200), (110, 200), (110, 220), (10, 220)), 0.1)
PAPER = Image.new("RGB", (400, 300))


def judged(rules: TextRules, texts: dict[TextPolygon, str]) -> tuple[set[TextPolygon], dict[str, int]]:
    """What is kept of the four polygons, and the reasons for the others, where the reader reads `texts`."""
    kept, rejected = find_text(
        PAPER,
        lambda image: [FAINT, ROUND, SURE, FAINTEST],
        rules,
        None if rules.verify == "none" else lambda image, asked: [(texts.get(one, ""), 0.9) for one in asked],
    )
    return set(kept), dict(rejected)


def test_without_the_reader_what_is_likely_counts_too() -> None:
    likely = rectangle(40, 20, score=0.62)
    assert rejection(likely, (1000, 1000), RULES) == "low_confidence"
    assert rejection(likely, (1000, 1000), UNREAD) is None
    assert UNREAD.least_score == 0.6 and RULES.least_score == 0.4


def test_without_the_reader_only_what_is_sure_counts() -> None:
    assert judged(TextRules(verify="none"), {}) == ({SURE}, {"low_confidence": 2, "not_elongated": 1})


def test_what_is_doubtful_counts_if_it_can_be_read() -> None:
    rules = TextRules(verify="doubtful")
    assert judged(rules, {}) == ({SURE}, {"low_confidence": 1, "unreadable": 2})
    assert judged(rules, {FAINT: "Eevee"}) == ({SURE, FAINT}, {"low_confidence": 1, "unreadable": 1})
    assert judged(rules, {FAINT: "Eevee", ROUND: "海の"})[0] == {SURE, FAINT, ROUND}


def test_everything_may_have_to_be_readable() -> None:
    assert judged(TextRules(verify="all"), {FAINT: "Eevee"}) == ({FAINT}, {"low_confidence": 1, "unreadable": 2})


def test_what_is_too_small_is_not_read() -> None:
    rules = TextRules(min_area_frac=0.0179)  # of 120,000 pixels 2,148: only ROUND has more
    assert judged(rules, {ROUND: "Eevee"}) == ({ROUND}, {"too_small": 3})


def test_what_the_whole_image_shows_is_not_read() -> None:
    whole = TextPolygon(((0, 0), (400, 0), (400, 200), (0, 200)), 0.9)
    kept, rejected = find_text(PAPER, lambda image: [whole], RULES, lambda image, asked: [("Ne", 0.9) for _ in asked])
    assert (kept, rejected) == ([], {"too_large": 1})


def judged_marks(unread_score: float, text: Callable[[int], str]) -> tuple[int, dict[str, int], int]:
    """How many count of MOST_READ round marks of score 0.9 and ten more, why the others do not, and how many are read.

    The mark that is read as number n says `text(n)`.
    """
    marks = [
        TextPolygon(((x, 10), (x + 8, 10), (x + 8, 18), (x, 18)), 0.9 if number < MOST_READ else unread_score)
        for number, x in enumerate(range(0, 20 * (MOST_READ + 10), 20))
    ]
    asked: list[TextPolygon] = []

    def read(image: Image.Image, polygons: list[TextPolygon]) -> list[tuple[str, float]]:
        asked.extend(polygons)
        return [(text(number), 0.9) for number in range(len(polygons))]

    paper = Image.new("RGB", (20 * (MOST_READ + 10), 40))
    kept, rejected = find_text(paper, lambda image: marks[::-1], TextRules(), read)
    assert set(asked) == set(marks[:MOST_READ]), "the surest"
    return len(kept), dict(rejected), len(asked)


def test_of_very_many_doubtful_polygons_the_surest_are_read() -> None:
    assert judged_marks(0.64, lambda number: "Eevee") == (MOST_READ, {"unread": 10}, MOST_READ)


def test_what_is_left_unread_beside_mostly_text_is_text_by_its_score() -> None:
    assert judged_marks(0.65, lambda number: "Eevee") == (MOST_READ + 10, {}, MOST_READ)
    most = MOST_READ // 2 + 1
    judged = judged_marks(0.65, lambda number: "Eevee" if number < most else "OO")
    assert judged == (most + 10, {"unreadable": MOST_READ - most}, MOST_READ)


def test_what_is_left_unread_beside_eyes_and_patterns_is_no_text() -> None:
    judged = judged_marks(0.89, lambda number: "Eevee" if number < MOST_READ // 2 else "OO")
    assert judged == (MOST_READ // 2, {"unreadable": MOST_READ // 2, "unread": 10}, MOST_READ)


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
    tiled, _ = load_detector(None, RULES.least_score, Looks((1.0,), tile=512, overlap=128))
    image = Image.new("RGB", (900, 300), (250, 250, 240))
    ImageDraw.Draw(image).text((60, 130), "A line that is longer than a tile", font=load_font("serif", 48), fill=0)
    seen = tiled(image)
    assert len(seen) >= 2 and max(x for polygon in seen for x, _ in polygon.points) > 512 + 128
    polygons, _ = find_text(image, tiled, TextRules(verify="none"), None)
    assert len(polygons) == 1
    text = np.asarray(image.convert("L")) < 128
    assert not text[~mask_of(image, polygons)].any()


def test_a_quarter_turn_is_a_look_of_its_own() -> None:
    turning, _ = load_detector(None, RULES.least_score, Looks((1.0,), turns=True))
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
