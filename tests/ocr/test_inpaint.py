"""Painting over: what changes and what stays, with LaMa's code on a small TorchScript model, and OpenCV's Telea."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from pokefa.errors import PokefaError
from pokefa.images.files import flatten
from preprocess.ocr.crops import MOST_PIXELS, find_regions
from preprocess.ocr.inpaint import paint_over
from preprocess.ocr.inpainters import Inpainter, InpainterModel, find_inpainter, load_inpainter
from tests.ocr.drawing import GROUND, flat_page

# LaMa's weights are a TorchScript file, which PyTorch reads but would like to see no more.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

Images = Sequence[Image.Image]


@pytest.fixture(scope="module")
def lama(stand_in: Path) -> Inpainter:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMA_MODEL", "")  # the loader sets it: put it back
        return load_inpainter(InpainterModel("lama", "lama", stand_in), 1)


@pytest.fixture(scope="module")
def telea() -> Inpainter:
    return load_inpainter(find_inpainter("opencv"), 1)


def one_colour(images: Images, masks: Images) -> list[Image.Image]:
    """An inpainter whose every answer is the same colour."""
    return [Image.new("RGB", image.size, (1, 2, 3)) for image in images]


# -- what the fill is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1001, 777), (800, 600), (37, 61)])
def test_lama_gives_flat_ground_its_own_colour_at_any_size(lama: Inpainter, size: tuple[int, int]) -> None:
    page = flat_page(min(size) // 12, size)
    result = paint_over(page.image, page.text, lama)
    assert result.size == size and result.mode == "RGB"
    assert result.getcolors() == [(size[0] * size[1], GROUND)]


def test_telea_gives_flat_ground_nearly_its_own_colour(telea: Inpainter) -> None:
    page = flat_page()
    result = paint_over(page.image, page.text.filter(ImageFilter.MaxFilter(9)), telea)
    away = np.abs(np.asarray(result).astype(int) - GROUND).max()
    assert away <= 8  # its gradients overshoot by a few levels; the ink was 154 levels away


def test_a_hole_between_two_colours_is_filled_with_those_that_lie_nearest(lama: Inpainter) -> None:
    image = Image.new("RGB", (400, 100), (200, 0, 0))
    image.paste((0, 0, 200), (200, 0, 400, 100))
    hole = Image.new("L", (400, 100), 0)
    hole.paste(255, (20, 40, 60, 60))
    hole.paste(255, (340, 40, 380, 60))
    image.paste((255, 255, 255), mask=hole)
    result = paint_over(image, hole, lama)
    assert result.getpixel((40, 50)) == (200, 0, 0)
    assert result.getpixel((360, 50)) == (0, 0, 200)


def test_a_hole_too_large_for_one_window_goes_on_with_what_lies_around_it(lama: Inpainter) -> None:
    """From coarse to fine: the answer to a slope is the slope, without seams between the tiles."""
    width, height = 1700, 1300
    slope = np.add.outer(np.linspace(40, 90, height), np.linspace(0, 120, width))
    picture = np.stack([slope, 255 - slope, slope / 2], axis=-1).round().astype(np.uint8)
    hole = Image.new("L", (width, height), 0)
    hole.paste(255, (150, 150, width - 150, height - 150))
    written = Image.fromarray(picture)
    written.paste((255, 0, 255), mask=hole)
    sizes: list[int] = []

    def watch(images: Images, masks: Images) -> list[Image.Image]:
        sizes.append(sum(image.width * image.height for image in images))
        return lama(images, masks)

    result = np.asarray(paint_over(written, hole, watch)).astype(int)
    assert len(sizes) > 4 and max(sizes) <= MOST_PIXELS
    away = np.abs(result - picture)[np.asarray(find_regions(np.asarray(hole)).blend) == 255]
    assert away.mean() < 12 and away.max() < 60, "push and pull flattens a slope somewhat"
    inner = result[160:-160, 160:-160]
    assert max(np.abs(np.diff(inner, axis=axis)).max() for axis in (0, 1)) <= 6, "no seam"


@pytest.mark.parametrize(("coarse_to_fine", "calls"), [(True, 4 + 1), (False, 1)])
def test_a_large_hole_is_filled_in_two_passes_or_at_once(coarse_to_fine: bool, calls: int) -> None:
    hole = Image.new("L", (1400, 1400), 0)
    hole.paste(255, (300, 300, 1100, 1100))
    seen: list[tuple[int, int]] = []

    def watch(images: Images, masks: Images) -> list[Image.Image]:
        seen.extend(image.size for image in images)
        return one_colour(images, masks)

    result = paint_over(Image.new("RGB", hole.size), hole, watch, coarse_to_fine=coarse_to_fine)
    assert len(seen) == calls and (seen == [(1344, 1344)]) == (not coarse_to_fine)
    assert result.crop((310, 310, 1090, 1090)).getcolors() == [(780 * 780, (1, 2, 3))]


def test_a_hole_beside_another_text_is_not_filled_with_its_ink(lama: Inpainter) -> None:
    image, hole = Image.new("RGB", (900, 900), GROUND), Image.new("L", (900, 900), 0)
    for box in ((100, 100, 800, 160), (100, 300, 160, 800), (200, 165, 240, 180)):
        hole.paste(255, box)
        image.paste((0, 0, 0), tuple(edge + 5 * sign for edge, sign in zip(box, (1, 1, -1, -1), strict=True)))
    result = paint_over(image, hole, lama)
    assert result.getcolors() == [(900 * 900, GROUND)]


# -- what stays -------------------------------------------------------------------------------------------------------

MODES = {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2}
SIZES = [(1, 1), (13, 40), (257, 64), (1001, 777), (2701, 401)]  # the last is more than one window may hold


@st.composite
def images_with_masks(draw: st.DrawFn) -> tuple[Image.Image, Image.Image]:
    (width, height), mode = draw(st.sampled_from(SIZES)), draw(st.sampled_from(sorted(MODES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = rng.integers(0, 256, (height, width, MODES[mode]), np.uint8).squeeze(axis=2 if mode == "L" else ())
    mask = np.zeros((height, width), np.uint8)
    kind = draw(st.sampled_from(["boxes", "dots", "all"]))
    if kind == "dots":
        mask[rng.random((height, width)) < 0.01] = 255
    for _ in range(draw(st.integers(1, 5))):
        left, top = rng.integers(width), rng.integers(height)
        mask[top : top + rng.integers(1, 1 + height // 3 + 1), left : left + rng.integers(1, 1 + width // 3 + 1)] = 255
    if kind == "all":
        mask[:] = 255
    return Image.fromarray(pixels, mode), Image.fromarray(mask)


@settings(max_examples=40, deadline=None)
@given(images_with_masks())
def test_every_pixel_outside_the_mask_is_the_same_and_alpha_stays(both: tuple[Image.Image, Image.Image]) -> None:
    image, mask = both
    before = image.tobytes()
    result = paint_over(image, mask, one_colour)
    assert image.tobytes() == before
    assert (result.size, result.mode) == (image.size, image.mode)
    old, new = np.asarray(image), np.asarray(result)
    outside = np.asarray(mask) == 0
    assert (old[outside] == new[outside]).all()
    if "A" in image.mode:
        assert (old[..., -1] == new[..., -1]).all()
    inside = find_regions(np.asarray(mask)).blend == 255
    painted = new[inside][..., :3] if image.mode.startswith("RGB") else new[inside].reshape(inside.sum(), -1)[:, 0]
    assert (painted == ((1, 2, 3) if image.mode.startswith("RGB") else 2)).all()


@pytest.mark.parametrize("size", [(1001, 777), (2701, 801)])
@pytest.mark.parametrize("name", ["lama", "telea"])
def test_what_lies_under_the_mask_does_not_matter(
    name: str, size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    inpainter: Inpainter = request.getfixturevalue(name)
    rng = np.random.default_rng(5)
    ground = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    hole = Image.new("L", size, 0)
    draw = ImageDraw.Draw(hole)
    draw.rectangle((100, 300, size[0] - 100, 420), fill=255)
    draw.rectangle((300, 440, 380, 460), fill=255)
    masked = np.asarray(hole) > 0
    results = []
    for ink in (0, 255):
        ground[masked] = ink
        results.append(np.asarray(paint_over(Image.fromarray(ground), hole, inpainter)))
    deep = find_regions(np.asarray(hole)).blend == 255
    assert (results[0][deep] == results[1][deep]).all()


def test_the_edge_of_the_mask_fades_from_the_source_into_the_fill() -> None:
    hole = Image.new("L", (300, 300), 0)
    hole.paste(255, (100, 100, 200, 200))
    result = paint_over(Image.new("L", (300, 300), 200), hole, one_colour)
    assert [result.getpixel((150, y)) for y in range(98, 107)] == [200, 200, 160, 121, 81, 42, 2, 2, 2]


def test_one_percent_of_text_costs_less_than_a_fifth_of_the_picture() -> None:
    """Two lines, one in a corner, that mask 1 % of 1024 × 1024 pixels."""
    hole = Image.new("L", (1024, 1024), 0)
    hole.paste(255, (30, 60, 30 + 190, 60 + 28))
    hole.paste(255, (824, 990, 1014, 1018))
    computed = []

    def watch(images: Images, masks: Images) -> list[Image.Image]:
        computed.extend(image.width * image.height for image in images)
        return list(images)

    paint_over(Image.new("RGB", hole.size), hole, watch)
    assert 5 * sum(computed) < 1024 * 1024


def test_the_inpainter_sees_transparent_parts_as_white() -> None:
    image = Image.new("RGBA", (30, 20), (10, 20, 30, 0))
    image.paste((200, 100, 50, 255), (0, 0, 15, 20))
    seen: list[Image.Image] = []

    def watch(images: Images, masks: Images) -> list[Image.Image]:
        seen.extend(images)
        return list(images)

    hole = Image.new("L", (30, 20), 0)
    hole.paste(255, (10, 5, 20, 15))
    result = paint_over(image, hole, watch)
    assert seen[0].mode == "RGB" and sorted(seen[0].getcolors()) == [(300, (200, 100, 50)), (300, (255,) * 3)]
    assert flatten(result).tobytes() == flatten(image).tobytes()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(PokefaError) as caught:
        paint_over(Image.new("RGB", (30, 20)), Image.new("L", (20, 30), 255), one_colour)
    assert str(caught.value) == "mask_mismatch: the mask has 20x30 pixels, the image 30x20"


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(PokefaError) as caught:
        paint_over(Image.new("RGB", (30, 20)), Image.new("L", (30, 20), 0), one_colour)
    assert str(caught.value) == "empty_mask: the mask is black"
