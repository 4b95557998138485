"""How an image is looked at: scales, tiles, turns, and the way back into the image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.ocr.views import SIDE_STEP, Looks, View, spans, views_of


def test_a_small_image_is_one_view_at_each_scale() -> None:
    views = list(views_of((640, 480), Looks((1.0, 1.5), max_side=4096, tile=1280, overlap=160)))
    assert [(view.box, view.size) for view in views] == [((0, 0, 640, 480), (640, 480)), ((0, 0, 640, 480), (960, 704))]


def test_no_scale_goes_over_the_longest_side_and_none_is_taken_twice() -> None:
    views = list(views_of((4000, 1000), Looks((1.0, 2.0), max_side=2000, tile=2048, overlap=160)))
    assert [(view.scale, view.size) for view in views] == [(0.5, (1984, 512))]


@pytest.mark.parametrize(
    ("longer", "scales"), [(4096, [1, 0.5]), (6144, [2 / 3, 1 / 3]), (8192, [0.5, 0.25]), (16384, [0.25, 0.125])]
)
def test_an_image_over_the_longest_side_is_looked_at_a_second_time_half_as_large(
    longer: int, scales: list[float]
) -> None:
    views = list(views_of((longer, 2048), Looks()))
    assert list(dict.fromkeys(view.scale for view in views)) == pytest.approx(scales)
    looked_at = sum(view.size[0] * view.size[1] for view in views)
    assert looked_at < 2 * 4096 * 2048, "tiles overlap, but a larger image takes no more than one at the cap"


def test_turns_double_the_views() -> None:
    views = list(views_of((640, 480), Looks((1.0,), turns=True)))
    assert [view.turned for view in views] == [False, True]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20_000), st.integers(320, 4000), st.integers(0, 160))
def test_parts_cover_a_side_and_overlap(length: int, tile: int, overlap: int) -> None:
    parts = spans(length, tile, overlap)
    assert parts[0][0] == 0 and parts[-1][1] == length
    assert all(0 < end - start <= tile for start, end in parts)
    assert all(before[1] - after[0] >= overlap for before, after in itertools.pairwise(parts))
    assert len({end - start for start, end in parts}) == 1


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([0.5, 1.0, 1.7]), st.booleans())
def test_every_pixel_is_in_a_view_that_the_network_can_take(width: int, height: int, scale: float, turns: bool) -> None:
    looks = Looks((scale,), max_side=4096, tile=1280, overlap=160, turns=turns)
    views = list(views_of((width, height), looks))
    for side, first, last in ((width, 0, 2), (height, 1, 3)):
        seen = sorted({(view.box[first], view.box[last]) for view in views})
        assert seen[0][0] == 0 and seen[-1][1] == side
        assert all(after[0] < before[1] for before, after in itertools.pairwise(seen))
    assert all(side % SIDE_STEP == 0 and side <= looks.tile for view in views for side in view.size)


@pytest.mark.parametrize("turned", [False, True])
def test_a_mark_in_a_view_is_found_where_it_stands_in_the_image(turned: bool) -> None:
    image = np.zeros((400, 600, 3), np.uint8)
    image[220:240, 410:430] = 255
    view = View(2.0, (300, 100, 600, 400), (608, 608), turned)
    shown = view.cut(image)
    assert shown.shape == (608, 608, 3) and shown.flags.c_contiguous
    rows, columns = np.nonzero(shown[..., 0] > 127)
    corners = view.place([(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)])
    assert sorted(x for x, _ in corners) == [410, 430]
    assert sorted(y for _, y in corners) == [220, 240]


def test_dots_are_gone_from_what_is_shrunk() -> None:
    image = np.full((640, 640, 3), 255, np.uint8)
    image[::6, ::6] = image[1::6, ::6] = image[::6, 1::6] = image[1::6, 1::6] = 0
    (view,) = views_of((640, 640), Looks((0.5,)))
    assert np.ptp(view.cut(image)[10:-10, 10:-10]) <= 90
