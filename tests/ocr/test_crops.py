"""Which parts of an image are computed: regions, windows, batches and tiles, by geometry alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocess.ocr.crops import (
    LEAST_CONTEXT_PX,
    LEAST_SIDE_PX,
    MOST_COMPONENTS,
    MOST_PIXELS,
    STEP_PX,
    TILE_CONTEXT_PX,
    TILE_PX,
    Box,
    batches,
    cut_tiles,
    fade_in,
    find_regions,
    reduction,
)

Mask = NDArray[np.uint8]


def mask_of(size: tuple[int, int], *boxes: Box) -> Mask:
    mask = np.zeros((size[1], size[0]), np.uint8)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = 255
    return mask


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Up to eight rectangles, in pictures from one pixel to some that no window may hold."""
    width, height = draw(st.sampled_from([(1, 1), (7, 300), (300, 260), (1001, 777), (2000, 1400)]))
    boxes = []
    for _ in range(draw(st.integers(1, 8))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))))
    return mask_of((width, height), *boxes)


@settings(max_examples=60, deadline=None)
@given(masks())
def test_every_masked_pixel_has_one_region_whose_window_shows_it_with_its_surroundings(mask: Mask) -> None:
    import cv2

    found = find_regions(mask)
    height, width = mask.shape
    assert ((found.owner > 0) == (mask > 0)).all()
    assert ((found.blend > 0) == (mask > 0)).all()
    assert sorted(set(np.unique(found.owner)) - {0}) == list(range(1, len(found.regions) + 1))
    for region in found.regions:
        left, top, right, bottom = region.window
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        for side, limit in ((right - left, width), (bottom - top, height)):
            assert side == limit or (side % STEP_PX == 0 and side >= LEAST_SIDE_PX)
        rows, columns = np.nonzero(found.owner == region.number)
        assert left <= max(0, columns.min() - LEAST_CONTEXT_PX) and top <= max(0, rows.min() - LEAST_CONTEXT_PX)
        assert right >= min(width, columns.max() + 1 + LEAST_CONTEXT_PX)
        assert bottom >= min(height, rows.max() + 1 + LEAST_CONTEXT_PX)
        if region.pixels > MOST_PIXELS:
            own = (found.owner == region.number).astype(np.uint8)
            assert cv2.connectedComponents(own, connectivity=8)[0] == 2, "only a single component may be that large"


@settings(max_examples=60, deadline=None)
@given(masks())
def test_a_batch_has_windows_of_one_size_and_is_bounded(mask: Mask) -> None:
    regions = find_regions(mask).regions
    together = list(batches(regions))
    assert [region for batch in together for region in batch] == regions
    for batch in together:
        assert len({region.size for region in batch}) == 1
        assert len(batch) == 1 or sum(region.pixels for region in batch) <= MOST_PIXELS


def test_words_of_a_line_share_a_window_and_a_far_signature_has_its_own() -> None:
    found = find_regions(mask_of((2048, 2048), (100, 100, 160, 130), (170, 100, 260, 130), (1900, 1990, 2000, 2010)))
    assert [region.window for region in found.regions] == [(1792, 1792, 2048, 2048), (20, 0, 340, 256)]
    assert found.owner[110, 120] == found.owner[110, 200] == 2 and found.owner[2000, 1950] == 1


def test_two_lines_in_like_windows_go_through_together() -> None:
    regions = find_regions(mask_of((2048, 2048), (100, 100, 300, 130), (1500, 1500, 1710, 1525))).regions
    assert [region.size for region in regions] == [(384, 256)] * 2
    assert [len(batch) for batch in batches(regions)] == [2]


def test_thicker_text_is_seen_with_more_around_it() -> None:
    sides = [
        find_regions(mask_of((2000, 2000), (900, 900, 1300, 900 + thick))).regions[0].size[1]
        for thick in (20, 100, 200, 400)
    ]
    assert sides == [256, 320, 640, 960]


def test_a_line_at_the_edge_is_as_thick_as_it_is_high() -> None:
    """Seen from the mask alone, a line that touches the edge might go on beyond it."""
    assert find_regions(mask_of((2000, 2000), (500, 0, 1500, 150))).regions[0].size == (1344, 512)


def test_a_mask_of_noise_is_cut_into_a_bounded_number_of_regions() -> None:
    mask = np.zeros((1500, 1500), np.uint8)
    mask[::12, ::12] = 255
    assert (mask > 0).sum() > 15 * MOST_COMPONENTS
    found = find_regions(mask)
    assert len(found.regions) <= MOST_COMPONENTS
    assert ((found.owner > 0) == (mask > 0)).all()


@pytest.mark.parametrize(
    ("thick", "edge"),
    [
        (10, [255, 255, 255]),  # no room for a feather: all of the source goes
        (20, [128, 255, 255]),
        (40, [85, 170, 255]),
        (80, [51, 102, 153, 204, 255]),
        (600, [51, 102, 153, 204, 255]),
    ],
)
def test_the_fill_fades_in_at_the_edge_in_proportion_to_the_thickness(thick: int, edge: list[int]) -> None:
    blend = find_regions(mask_of((900, 900), (50, 100, 850, 100 + thick))).blend
    assert blend[100 : 100 + len(edge), 450].tolist() == edge
    assert blend[100 : 100 + thick, 450].tolist() == blend[100 : 100 + thick, 450][::-1].tolist()
    assert not blend[99, 450] and not blend[100 + thick, 450]


@settings(max_examples=40, deadline=None)
@given(
    left=st.integers(0, 900),
    top=st.integers(0, 900),
    width=st.integers(1, 2000),
    height=st.integers(1, 1500),
)
def test_tiles_cover_the_box_and_the_last_one_pasted_leaves_no_gap(
    left: int, top: int, width: int, height: int
) -> None:
    size = (left + width + 30, top + height + 700)
    box = (left, top, left + width, top + height)
    covered = np.zeros((size[1], size[0]), np.float32)
    for tile in cut_tiles(box, size):
        across, down = tile.box[2] - tile.box[0], tile.box[3] - tile.box[1]
        assert 0 < across <= TILE_PX and 0 < down <= TILE_PX
        assert tile.inner[0] >= min(tile.box[0], TILE_CONTEXT_PX) and tile.inner[1] >= min(tile.box[1], TILE_CONTEXT_PX)
        assert tile.size[0] * tile.size[1] <= MOST_PIXELS
        share = fade_in(tile)
        assert share.shape == (down, across)
        part = covered[tile.box[1] : tile.box[3], tile.box[0] : tile.box[2]]
        part += share * (1 - part)  # as pasting does
    inside = covered[top : top + height, left : left + width]
    assert inside.min() > 0.999 and covered.sum() == pytest.approx(inside.sum())


@given(st.integers(1, 100_000_000))
def test_a_reduced_window_is_within_the_bound(pixels: int) -> None:
    assert pixels / reduction(pixels) ** 2 <= MOST_PIXELS
    assert reduction(pixels) == 1 or pixels / (reduction(pixels) - 1) ** 2 > MOST_PIXELS
