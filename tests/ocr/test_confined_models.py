"""Model files that write, read and evaluate, in the process that keeps them from it, and in one that does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pokefa.errors import PokefaError
from pokefa.files import sha256_of
from pokefa.images.confined import can_confine
from preprocess.ocr.inpainters import Inpainter, InpainterModel, load_inpainter
from preprocess.ocr.models import DETECTOR, DETECTOR_SETTINGS, Detector, embedded_file, load_detector
from preprocess.ocr.views import Looks
from tests.ocr.drawing import flat_page
from tests.ocr.models import filing_model, impossible_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.skipif(not can_confine(), reason="no Landlock here: nothing can be confined"),
]

DET_MODEL = "PP-OCRv5_mobile_det"  # any that PaddleOCR offers


def loaded(weights: Path, *, confined: bool = True) -> Inpainter:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMA_MODEL", "")  # the loader sets it: put it back
        return load_inpainter(InpainterModel("lama", "lama", weights, confined), 1)


def asked(size: tuple[int, int] = (41, 30), count: int = 2) -> tuple[list[Image.Image], list[Image.Image]]:
    rng = np.random.default_rng(5)
    images = [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)) for _ in range(count)]
    mask = Image.new("L", size)
    mask.paste(255, (5, 7, 20, 20))
    return images, [mask] * count


def test_a_confined_model_paints_as_any_other(stand_in: Path) -> None:
    free, confined = loaded(stand_in, confined=False), loaded(stand_in)
    for size, count in (((41, 30), 3), ((64, 64), 1)):
        ours, theirs = (fill(*asked(size, count)) for fill in (confined, free))
        assert [np.asarray(image).tobytes() for image in ours] == [np.asarray(image).tobytes() for image in theirs]


def test_a_model_that_writes_a_file_writes_none_when_confined(tmp_path: Path) -> None:
    target = tmp_path / "written"
    weights = filing_model(tmp_path / "writes.pt", target, write=True)
    loaded(weights, confined=False)(*asked())
    assert target.read_bytes() == b"A" * 64  # it is such a model
    target.unlink()
    with pytest.raises(PokefaError, match=r"^inpainter_failed: "):
        loaded(weights)(*asked())
    assert not target.exists()
    target.write_bytes(b"old" * 30)
    with pytest.raises(PokefaError, match=r"^inpainter_failed: "):
        loaded(weights)(*asked())
    assert target.read_bytes() == b"old" * 30


def test_a_model_that_reads_a_users_file_reads_none_when_confined(tmp_path: Path) -> None:
    secret = tmp_path / "private" / "key"
    secret.parent.mkdir()
    secret.write_bytes(b"S" * 64)
    (tmp_path / "model").mkdir()
    weights = filing_model(tmp_path / "model" / "reads.pt", secret, write=False)
    assert loaded(weights, confined=False)(*asked())
    with pytest.raises(PokefaError, match=r"^inpainter_failed: "):
        loaded(weights)(*asked())


def test_a_failure_of_a_confined_model_is_one_line(tmp_path: Path) -> None:
    fill = loaded(impossible_model(tmp_path / "model.pt", "image.view([7, 7])", "image.size(3) > 100"))
    with pytest.raises(PokefaError) as caught:
        fill(*asked((200, 32), 1))
    assert str(caught.value).startswith("inpainter_failed: ")
    assert str(caught.value).endswith(", for 1 crop of 200x32")
    assert fill(*asked((40, 32), 1))  # and its process is still there
    memory = impossible_model(tmp_path / "memory.pt", "torch.empty([1 << 46])")
    with pytest.raises(PokefaError, match=r"^out_of_memory: "):
        loaded(memory)(*asked())


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "readme.pt"
    path.write_text("these are no weights")
    with pytest.raises(PokefaError) as caught:
        loaded(path)
    assert str(caught.value).startswith(f"{path} is no TorchScript model (")


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A detector where PaddleOCR keeps those that it has downloaded."""
    from paddlex.inference.utils.official_models import official_models

    monkeypatch.setattr(official_models, "_save_dir", tmp_path)
    folder = tmp_path / f"{DET_MODEL}_onnx"
    folder.mkdir()
    shutil.copy(embedded_file(DETECTOR), folder / "inference.onnx")
    write_settings(folder, "1./255.")
    return folder


def write_settings(folder: Path, scale: str) -> None:
    settings = json.loads(json.dumps(DETECTOR_SETTINGS))
    settings["Global"]["model_name"] = DET_MODEL
    for operation in settings["PreProcess"]["transform_ops"]:
        operation.get("NormalizeImage", {})["scale"] = scale
    (folder / "inference.yml").write_text(json.dumps(settings))


def test_a_confined_detector_finds_the_same(detector: Detector, downloaded: Path) -> None:
    page = flat_page().image
    confined, label = load_detector(DET_MODEL, 0.0, Looks())
    assert label == f"{DET_MODEL} sha256:{sha256_of(embedded_file(DETECTOR))[:12]} unpinned"
    assert confined(page) == detector(page) != []
    assert confined(Image.new("RGB", (300, 200), (90, 160, 80))) == []


def test_what_a_downloaded_detector_evaluates_writes_nothing_when_confined(downloaded: Path, tmp_path: Path) -> None:
    target = tmp_path / "written"
    write_settings(downloaded, f"1. / 255. if open({str(target)!r}, 'w') else 0.")
    load_detector(DET_MODEL, 0.4, Looks(), confined=False)
    assert target.exists()  # PaddleX does evaluate it
    target.unlink()
    with pytest.raises(PokefaError, match=f"^--det-model {DET_MODEL} cannot be loaded "):
        load_detector(DET_MODEL, 0.4, Looks())
    assert not target.exists()
