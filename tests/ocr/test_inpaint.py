"""Inpainting: the real simple-lama-inpainting and PyTorch on a small TorchScript model, and OpenCV's Telea."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pokefa.errors import InputError, PokefaError
from pokefa.images import flatten
from pokefa.model_files import ModelFile, sha256_of
from preprocess.ocr import inpaint
from preprocess.ocr.inpaint import (
    BIG_LAMA,
    Inpainter,
    InpainterModel,
    crop_around,
    find_inpainter,
    load_inpainter,
    paint_over,
)
from tests.ocr.drawing import GROUND, flat_page

# LaMa's weights are a TorchScript file, which PyTorch reads but would like to see no more.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture(scope="module")
def lama(stand_in: Path) -> Inpainter:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMA_MODEL", "")  # the loader sets it: put it back
        return load_inpainter(InpainterModel("lama", "lama", stand_in), 2)


@pytest.fixture(scope="module")
def telea() -> Inpainter:
    return load_inpainter(find_inpainter("opencv"), 2)


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


MODES = {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2}


@st.composite
def images_with_masks(draw: st.DrawFn) -> tuple[Image.Image, Image.Image]:
    width, height, mode = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.sampled_from(sorted(MODES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = rng.integers(0, 256, (height, width, MODES[mode]), np.uint8).squeeze(axis=2 if mode == "L" else ())
    mask = (rng.random((height, width)) < draw(st.sampled_from([0.02, 0.5, 1.0]))).astype(np.uint8) * 255
    mask[rng.integers(height), rng.integers(width)] = 255
    return Image.fromarray(pixels, mode), Image.fromarray(mask)


@settings(max_examples=60, deadline=None)
@given(images_with_masks())
def test_every_pixel_outside_the_mask_is_the_same_and_alpha_stays(both: tuple[Image.Image, Image.Image]) -> None:
    image, mask = both
    before = image.tobytes()
    result = paint_over(image, mask, lambda part, hole: Image.new("RGB", part.size, (1, 2, 3)))
    assert image.tobytes() == before
    assert (result.size, result.mode) == (image.size, image.mode)
    old, new, hole = np.asarray(image), np.asarray(result), np.asarray(mask) > 0
    assert (old[~hole] == new[~hole]).all()
    if "A" in image.mode:
        assert (old[..., -1] == new[..., -1]).all()
    painted = new[hole][..., :3] if image.mode.startswith("RGB") else new[hole].reshape(hole.sum(), -1)[:, 0]
    assert (painted == ((1, 2, 3) if image.mode.startswith("RGB") else 2)).all()


def test_the_inpainter_sees_transparent_parts_as_white() -> None:
    image = Image.new("RGBA", (30, 20), (10, 20, 30, 0))
    image.paste((200, 100, 50, 255), (0, 0, 15, 20))
    seen: list[Image.Image] = []

    def watch(part: Image.Image, hole: Image.Image) -> Image.Image:
        seen.append(part)
        return part

    hole = Image.new("L", (30, 20), 0)
    hole.paste(255, (10, 5, 20, 15))
    result = paint_over(image, hole, watch)
    assert seen[0].mode == "RGB" and sorted(seen[0].getcolors()) == [(300, (200, 100, 50)), (300, (255,) * 3)]
    assert flatten(result).tobytes() == flatten(image).tobytes()


@pytest.mark.parametrize(
    ("box", "part"),
    [
        ((500, 400, 540, 410), (372, 272, 668, 538)),
        ((500, 400, 800, 410), (200, 272, 1100, 538)),
        ((0, 0, 10, 10), (0, 0, 138, 138)),
        ((1990, 1490, 2000, 1500), (1862, 1362, 2000, 1500)),
        ((0, 0, 2000, 1500), (0, 0, 2000, 1500)),
    ],
)
def test_the_inpainter_gets_the_mask_and_its_surroundings(
    box: tuple[int, int, int, int], part: tuple[int, int, int, int]
) -> None:
    assert crop_around(box, (2000, 1500)) == part


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(PokefaError) as caught:
        paint_over(Image.new("RGB", (30, 20)), Image.new("L", (20, 30), 255), lambda part, hole: part)
    assert str(caught.value) == "mask_mismatch: the mask has 20x30 pixels, the image 30x20"


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(PokefaError) as caught:
        paint_over(Image.new("RGB", (30, 20)), Image.new("L", (30, 20), 0), lambda part, hole: part)
    assert str(caught.value) == "empty_mask: the mask is black"


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def web_folder(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a real web server on loopback serves it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    folder = tmp_path / "web"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_named_by_the_user_are_used_and_told_by_their_sum(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMA_MODEL", str(stand_in))
    model = find_inpainter("lama")
    assert model == InpainterModel("lama", f"lama stand-in.pt {sha256_of(stand_in)[:12]}", stand_in)


def test_weights_named_by_the_user_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "none.pt"
    monkeypatch.setenv("LAMA_MODEL", str(missing))
    with pytest.raises(InputError) as caught:
        find_inpainter("lama")
    assert str(caught.value) == (
        f"LAMA_MODEL names {missing}, which is no file: correct it, or unset it to download big-lama.pt"
    )


def test_weights_are_downloaded_once_and_then_found(
    stand_in: Path, web_folder: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = web_folder
    data = stand_in.read_bytes()
    (folder / "big-lama.pt").write_bytes(data)
    pinned = ModelFile("big-lama.pt", f"{address}/big-lama.pt", len(data), sha256_of(stand_in))
    monkeypatch.setattr(inpaint, "BIG_LAMA", pinned)
    monkeypatch.setenv("POKEFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAMA_MODEL", raising=False)
    first = find_inpainter("lama")
    (folder / "big-lama.pt").unlink()
    assert find_inpainter("lama") == first
    assert first.label == f"lama big-lama.pt {pinned.sha256[:12]}"
    assert first.weights is not None and first.weights.read_bytes() == data


def test_without_weights_the_error_names_the_ways_out(
    web_folder: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{web_folder[1]}/big-lama.pt"
    monkeypatch.setattr(inpaint, "BIG_LAMA", ModelFile("big-lama.pt", address, 10, "0" * 64))
    monkeypatch.setenv("POKEFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAMA_MODEL", raising=False)
    with pytest.raises(PokefaError) as caught:
        find_inpainter("lama")
    assert str(caught.value) == (
        f"cannot download {address} (HTTP Error 404: File not found); download it elsewhere and name it in LAMA_MODEL, "
        "or choose --inpainter opencv, which needs no weights"
    )


def test_the_pinned_weights_are_those_of_the_design() -> None:
    """Golden values: another file needs an issue, and other rows in every ledger."""
    assert BIG_LAMA.size == 205_669_692
    assert BIG_LAMA.sha256 == "344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9"


def test_a_file_that_is_no_torchscript_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMA_MODEL", "")
    path = tmp_path / "readme.pt"
    path.write_text("these are no weights")
    with pytest.raises(PokefaError) as caught:
        load_inpainter(InpainterModel("lama", "lama", path), 1)
    assert str(caught.value).startswith(f"{path} is no TorchScript model (RuntimeError: ")
    assert str(caught.value).endswith("): name another file in LAMA_MODEL")


def test_opencv_is_recorded_with_its_version() -> None:
    import cv2

    assert find_inpainter("opencv") == InpainterModel("opencv", f"opencv-telea {cv2.__version__}")
