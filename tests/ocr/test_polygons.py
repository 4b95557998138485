"""Polygons: their measures, how several become one, and the masks that they give."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.ocr.polygons import TextPolygon, area_frac, contains, distances, draw_mask, measure, merge


def rectangle(left: int, top: int, width: int, height: int, score: float = 0.9) -> TextPolygon:
    right, bottom = left + width, top + height
    return TextPolygon(((left, top), (right, top), (right, bottom), (left, bottom)), score)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_the_height_of_text_does_not_depend_on_how_it_is_turned(degrees: int) -> None:
    turn = np.exp(1j * math.radians(degrees))
    corners = [complex(x, y) * turn + 500 + 500j for x, y in ((-200, -50), (200, -50), (200, 50), (-200, 50))]
    longer, shorter, area = measure([(round(z.real), round(z.imag)) for z in corners])
    assert longer == pytest.approx(400, abs=2)
    assert shorter == pytest.approx(100, abs=2)
    assert area == pytest.approx(40_000, rel=0.02)


# -- merging ----------------------------------------------------------------------------------------------------------


def test_a_line_found_twice_becomes_one_with_the_better_score() -> None:
    twice = [rectangle(100, 100, 200, 30, 0.7), rectangle(102, 98, 203, 34, 0.8)]
    (one,) = merge(twice)
    assert one.score == 0.8
    assert all(contains(one, polygon) for polygon in twice)


def test_a_line_that_the_edge_of_a_tile_cut_in_two_becomes_one() -> None:
    halves = [rectangle(100, 100, 220, 30), rectangle(280, 101, 240, 30)]
    (line,) = merge(halves)
    assert measure(line.points)[:2] == pytest.approx((420, 31), abs=1)


def test_of_two_looks_at_a_line_the_closer_one_draws_the_outline() -> None:
    close = replace(rectangle(100, 100, 200, 20, 0.7), scale=1.0)
    for loose in (rectangle(96, 92, 206, 36, 0.8), rectangle(102, 98, 194, 25, 0.6)):
        assert merge([close, replace(loose, scale=0.5)]) == [replace(close, score=max(close.score, loose.score))]


def test_what_the_closer_look_saw_in_part_is_not_cut_off() -> None:
    part = replace(rectangle(100, 100, 150, 30, 0.9), scale=1.0)
    whole = replace(rectangle(98, 98, 204, 34, 0.8), scale=0.5)
    (line,) = merge([part, whole])
    assert line.score == 0.9
    assert measure(line.points)[:2] == pytest.approx((204, 34), abs=1)


def test_a_closer_look_at_a_part_beside_leaves_nothing_out() -> None:
    far = replace(rectangle(100, 100, 300, 30, 0.7), scale=0.5)
    close = replace(rectangle(380, 100, 600, 30, 0.9), scale=1.0)
    (line,) = merge([far, close])
    assert measure(line.points)[:2] == pytest.approx((880, 30), abs=1)


@pytest.mark.parametrize(
    "apart",
    [
        [rectangle(100, 100, 200, 30), rectangle(100, 140, 200, 30)],
        [rectangle(100, 100, 200, 30), rectangle(290, 120, 30, 200)],
        [rectangle(0, 0, 600, 500), rectangle(100, 140, 200, 30)],
    ],
    ids=["two lines", "a corner", "a word in a figure"],
)
def test_what_is_not_the_same_text_stays_apart(apart: list[TextPolygon]) -> None:
    assert set(merge(apart)) == set(apart)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(4, 200), st.integers(4, 60)), max_size=12),
    st.integers(0, 2**32),
)
def test_merging_covers_all_and_does_not_depend_on_the_order(boxes: list[tuple[int, int, int, int]], seed: int) -> None:
    polygons = [rectangle(*box, score=0.5 + number / 100) for number, box in enumerate(boxes)]
    merged = merge(polygons)
    assert merged == merge(random.Random(seed).sample(polygons, len(polygons)))
    assert [polygon.score for polygon in merged] == sorted((polygon.score for polygon in merged), reverse=True)
    before, after = (np.asarray(draw_mask(these, (600, 500), 0)) > 0 for these in (polygons, merged))
    # The corners of a merged polygon are whole numbers, so that its sides may lie a pixel off.
    assert (before & ~after).sum() <= 0.03 * before.sum()


def test_what_lies_in_another_is_told() -> None:
    outer = rectangle(0, 0, 100, 100)
    assert contains(outer, rectangle(10, 10, 50, 10))
    assert contains(outer, rectangle(60, 10, 50, 10)), "four fifths of it"
    assert not contains(outer, rectangle(70, 10, 50, 10))
    assert not contains(rectangle(10, 10, 50, 10), outer)


# -- the mask ---------------------------------------------------------------------------------------------------------


def test_the_mask_is_the_polygon_and_a_margin_in_proportion_to_its_height() -> None:
    mask = np.asarray(draw_mask([rectangle(100, 100, 200, 50)], (400, 300), 0.2))
    assert mask.shape == (300, 400) and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (90, 160, 90, 310)
    assert mask[90, 90] == 0, "the margin is round at the corners"


def test_the_margin_is_never_less_than_two_pixels() -> None:
    mask = np.asarray(draw_mask([rectangle(10, 10, 40, 4)], (100, 100), 0.0))
    rows = np.nonzero(mask.any(axis=1))[0]
    assert (rows[0], rows[-1]) == (8, 16)


def test_a_mask_is_the_same_wherever_in_memory_it_is_drawn() -> None:
    """OpenCV's distances differ in the last bit with the place of its arrays; here they lie where the radius does."""
    sizes = [(114, 75), (117, 65), (122, 70), (35, 35)]
    polygons = [rectangle(60 + 40 * index, 60 + 40 * index, *size) for index, size in enumerate(sizes)]
    rng, masks = random.Random(1), set()
    for _ in range(100):
        between = [np.zeros(rng.randrange(1, 100_000), np.uint8) for _ in range(5)]
        masks.add(draw_mask(polygons, (800, 500), 0.2).tobytes())
        del between
    assert len(masks) == 1


@pytest.mark.parametrize("size", [(37, 41), (64, 100), (100, 333), (250, 801)])
def test_distances_are_the_roots_of_whole_numbers(size: tuple[int, int]) -> None:
    mask = np.full(size, 255, np.uint8)
    row = size[0] // 2
    mask[row, 5:20] = 0
    down, across = np.mgrid[: size[0], : size[1]]
    squares = (down - row) ** 2 + np.maximum(np.maximum(5 - across, across - 19), 0) ** 2
    found = distances(mask)
    assert found.dtype == np.float32 and (found == np.sqrt(squares.astype(np.float32))).all()


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
