"""The inpainters' weights, found, downloaded and loaded; and SimpleLama's model called with several crops at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pokefa.errors import InputError, PokefaError
from pokefa.files import sha256_of
from pokefa.images.confined import can_confine
from pokefa.images.weights import ModelFile, Trust
from preprocess.ocr import inpainters
from preprocess.ocr.inpainters import (
    BIG_LAMA,
    Inpainter,
    InpainterModel,
    find_inpainter,
    find_named_weights,
    load_inpainter,
)
from tests.ocr.models import impossible_model, network

# LaMa's weights are a TorchScript file, which PyTorch reads but would like to see no more.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def pictures(size: tuple[int, int], count: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """Return images of noise, and masks with a hole in another place each."""
    rng = np.random.default_rng(3)
    images = [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)) for _ in range(count)]
    masks = [Image.new("L", size, 0) for _ in range(count)]
    for index, mask in enumerate(masks):
        mask.paste(255, (5 + index, 7, size[0] // 2, size[1] // 2 + index))
    return images, masks


def one_at_a_time(weights: Path, images: list[Image.Image], masks: list[Image.Image]) -> list[np.ndarray]:
    """Return what SimpleLama's own call makes of each, cut to size."""
    from simple_lama_inpainting import SimpleLama

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMA_MODEL", str(weights))
        lama = SimpleLama()
    return [
        np.asarray(lama(image, mask))[: image.height, : image.width] for image, mask in zip(images, masks, strict=True)
    ]


def loaded(weights: Path) -> Inpainter:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMA_MODEL", "")  # the loader sets it: put it back
        return load_inpainter(InpainterModel("lama", "lama", weights), 1)


@pytest.mark.parametrize("size", [(128, 96), (101, 77), (19, 300)])
def test_several_crops_at_once_give_what_simple_lama_gives_for_each(stand_in: Path, size: tuple[int, int]) -> None:
    images, masks = pictures(size, 3)
    alone = one_at_a_time(stand_in, images, masks)
    together = loaded(stand_in)(images, masks)
    assert [image.size for image in together] == [size] * 3
    for ours, theirs, image in zip(together, alone, images, strict=True):
        assert (np.asarray(ours) == theirs).all()
        assert (theirs != np.asarray(image)).any()


def test_a_network_of_lamas_shape_gives_the_same_in_a_batch(tmp_path: Path) -> None:
    """Convolutions and Fourier transforms may add in another order: a level of difference is rounding."""
    weights = network(tmp_path / "network.pt")
    images, masks = pictures((117, 90), 4)
    alone = one_at_a_time(weights, images, masks)
    for ours, theirs in zip(loaded(weights)(images, masks), alone, strict=True):
        assert np.abs(np.asarray(ours).astype(int) - theirs).max() <= 1
        assert np.ptp(theirs) > 50


def test_too_little_memory_is_said_in_one_line(tmp_path: Path) -> None:
    weights = impossible_model(tmp_path / "model.pt", "torch.empty([1 << 46])")
    with pytest.raises(PokefaError) as caught:
        loaded(weights)(*pictures((40, 30), 2))
    assert str(caught.value) == "out_of_memory: the inpainter needs more memory than there is for 2 crops of 40x30"


def test_any_other_failure_of_the_model_is_named_by_its_own_last_line(tmp_path: Path) -> None:
    weights = impossible_model(tmp_path / "model.pt", "image.view([7, 7])")
    with pytest.raises(PokefaError) as caught:
        loaded(weights)(*pictures((40, 32), 1))
    assert str(caught.value) == (
        "inpainter_failed: RuntimeError: shape '[7, 7]' is invalid for input of size 3840, for 1 crop of 40x32"
    )


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


@pytest.fixture
def named(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAMA_MODEL", str(stand_in))
    return stand_in


@pytest.mark.parametrize("unconfined", [False, True])
def test_weights_named_by_the_user_are_used_and_marked(named: Path, unconfined: bool) -> None:
    model = find_named_weights(Trust(unpinned=True, unconfined=unconfined or not can_confine()))
    label = f"lama stand-in.pt sha256:{sha256_of(named)[:12]} unpinned"
    assert model == InpainterModel("lama", label, named, confined=can_confine() and not unconfined)


def test_weights_that_nobody_vouches_for_are_refused(named: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_named_weights(Trust())
    assert str(caught.value).startswith(f"LAMA_MODEL: {named} is not the pinned model file (its SHA-256 is ")


def test_a_copy_of_the_pinned_weights_needs_no_word_of_trust(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = sha256_of(named)
    monkeypatch.setattr(inpainters, "BIG_LAMA", ModelFile("big-lama.pt", "https://example.org", 1, sha256))
    assert find_named_weights(Trust()) == InpainterModel("lama", f"lama stand-in.pt {sha256[:12]}", named)


def test_weights_named_by_the_user_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "none.pt"
    monkeypatch.setenv("LAMA_MODEL", str(missing))
    with pytest.raises(InputError) as caught:
        find_named_weights(Trust(unpinned=True))
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
    monkeypatch.setattr(inpainters, "BIG_LAMA", pinned)
    monkeypatch.setenv("POKEFA_CACHE", str(tmp_path / "cache"))
    first = find_inpainter("lama")
    (folder / "big-lama.pt").unlink()
    assert find_inpainter("lama") == first
    assert first.label == f"lama big-lama.pt {pinned.sha256[:12]}"
    assert first.weights is not None and first.weights.read_bytes() == data


def test_without_weights_the_error_names_the_ways_out(
    web_folder: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{web_folder[1]}/big-lama.pt"
    monkeypatch.setattr(inpainters, "BIG_LAMA", ModelFile("big-lama.pt", address, 10, "0" * 64))
    monkeypatch.setenv("POKEFA_CACHE", str(tmp_path / "cache"))
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
