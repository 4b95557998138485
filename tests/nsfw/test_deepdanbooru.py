"""Project folders, the preparation of pictures, and the model, with real TensorFlow."""

from __future__ import annotations

import http.server
import io
import json
import math
import shutil
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from demo.standins.nsfw_model import LOGITS, MODEL_FILE, build_model, build_project
from pokefa.errors import InputError, PokefaError
from pokefa.images.confined import can_confine
from pokefa.images.weights import Member, ModelArchive, Trust
from preprocess.nsfw.deepdanbooru import find_project, open_project, prepare
from tests.conftest import Finished

Draw = Callable[..., Image.Image]

needs_confinement = pytest.mark.skipif(not can_confine(), reason="no Landlock here: nothing can be confined")


# -- preparation ------------------------------------------------------------------------------------------------------


def area_weights(have: int, wanted: int) -> np.ndarray:
    """Return (wanted, have): how much of each old place lies under each new one."""
    edges = np.linspace(0, have, wanted + 1)
    old = np.arange(have)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.clip(overlap, 0, None) * wanted / have


def centre_weights(have: int, length: int) -> np.ndarray:
    """Return (length, have): bilinear reading at the places of a centred picture, clamped to its edges."""
    weights = np.zeros((length, have))
    for place in range(length):
        at = place + 0.5 - length / 2 + have / 2 - 0.5
        for neighbour in (math.floor(at), math.floor(at) + 1):
            weights[place, min(max(neighbour, 0), have - 1)] += max(0.0, 1 - abs(at - neighbour))
    return weights


def prepare_plainly(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    rows, columns = pixels.shape[:2]
    scale = min(np.float32(height) / np.float32(rows), np.float32(width) / np.float32(columns))
    fitted = [max(1, int(np.round(scale * np.float32(side)))) for side in (rows, columns)]
    down = centre_weights(fitted[0], height) @ area_weights(rows, fitted[0])
    across = centre_weights(fitted[1], width) @ area_weights(columns, fitted[1])
    return np.einsum("hr,rck,wc->hwk", down, pixels.astype(float), across, optimize=True) / 255


SIZES = st.one_of(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 3), st.integers(500, 3000)),
    st.tuples(st.integers(500, 3000), st.integers(1, 3)),
)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from(["RGB", "RGBA", "L", "LA"]), st.integers(0, 2**32 - 1))
def test_preparation_equals_the_plain_reference(size: tuple[int, int], mode: str, seed: int) -> None:
    """Of any size, also so thin that nothing would be left of a side; on white where a pixel is clear; grey too."""
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode.startswith("L"):
        image = image.getchannel("G")
        pixels = pixels[..., 1:2].repeat(3, 2)
    if mode.endswith("A"):  # wholly clear or wholly there: what lies between is the business of pokefa.images
        clear = chance.integers(0, 2, size[::-1], dtype=np.uint8)
        image.putalpha(Image.fromarray(255 * (1 - clear)))
        pixels = np.where(clear[..., None] == 1, np.uint8(255), pixels)
    assert image.mode == mode
    prepared = prepare(image, 32, 24)
    assert prepared.dtype == np.float32 and prepared.shape == (24, 32, 3)
    np.testing.assert_allclose(prepared, prepare_plainly(pixels, 32, 24), atol=1e-4)


def test_preparation_at_full_size_equals_the_plain_reference() -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (777, 1001, 3), dtype=np.uint8)
    np.testing.assert_allclose(prepare(Image.fromarray(pixels), 512, 512), prepare_plainly(pixels, 512, 512), atol=1e-4)


def test_a_wide_picture_is_centred_and_its_edges_are_repeated() -> None:
    pixels = np.zeros((2, 8, 3), np.uint8)
    pixels[0], pixels[1] = (255, 0, 0), (0, 0, 255)
    prepared = prepare(Image.fromarray(pixels), 8, 8)
    assert (prepared[:4] == (1, 0, 0)).all() and (prepared[4:] == (0, 0, 1)).all()


def test_an_odd_margin_takes_the_mean_of_two_pixels() -> None:
    pixels = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8).repeat(2, 0)
    prepared = prepare(Image.fromarray(pixels), 3, 2)
    assert prepared[0, :, 0].tolist() == [0.0, 0.5, 1.0]


def test_alpha_is_laid_on_white_and_grey_becomes_rgb() -> None:
    clear = prepare(Image.new("RGBA", (5, 9), (255, 0, 255, 0)), 16, 16)
    grey = prepare(Image.new("L", (5, 9), 51), 16, 16)
    np.testing.assert_allclose(clear, 1, atol=1e-6)
    np.testing.assert_allclose(grey, 0.2, atol=1e-6)


# -- the model --------------------------------------------------------------------------------------------------------


def scores_of(model_dir: Path, *images: Image.Image) -> list[dict[str, float]]:
    project = open_project(model_dir)
    model = project.load(1)
    batch = np.stack([model.prepare(image) for image in images])
    answer = model.scores(batch)
    assert answer.dtype == np.float32 and answer.shape == (len(images), len(project.tags))
    return [dict(zip(project.tags, line, strict=True)) for line in answer.tolist()]


def test_the_stand_in_answers_as_computed_by_hand(model_dir: Path, draw_magenta_share: Draw) -> None:
    shares = [0.0, 0.03125, 0.0625, 0.078125, 0.125, 0.25, 0.5, 1.0]
    for share, scores in zip(shares, scores_of(model_dir, *map(draw_magenta_share, shares)), strict=True):
        for tag, (slope, offset) in LOGITS.items():
            expected = 1 / (1 + math.exp(-(slope * share + offset)))
            assert scores[tag] == pytest.approx(expected, abs=2e-3), (tag, share)


def test_the_stand_in_is_built_once_with_the_same_bytes(
    model_dir: Path, tmp_path: Path, run_script: Callable[..., Finished]
) -> None:
    before = {path.name: path.read_bytes() for path in model_dir.iterdir()}
    assert set(before) == {"project.json", "tags.txt", MODEL_FILE}
    finished = run_script("-m", "demo.standins.nsfw_model", "--out", model_dir)
    assert finished.summary == {
        "stand_in": True,
        "name": "stand-in-magenta",
        "model_dir": str(model_dir),
        "written": False,
    }
    assert build_project(tmp_path / "again")
    for folder in (model_dir, tmp_path / "again"):
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "Not DeepDanbooru" in json.loads(before["project.json"])["stand_in"]


@pytest.mark.parametrize("size", [(512, 512), (300, 200), (1400, 1900), (90, 90), (801, 600)])
def test_the_stand_in_bears_jpeg_and_resizing(model_dir: Path, draw_magenta_share: Draw, size: tuple[int, int]) -> None:
    """The magenta lies along one side, so that a repeated edge takes part of it along."""
    images = []
    for share in (0.05, 0.16):
        stored = io.BytesIO()
        draw_magenta_share(share, (size[0], size[0])).resize(size).save(stored, "JPEG", quality=60)
        images.append(Image.open(stored))
    low, high = scores_of(model_dir, *images)
    if size[0] <= size[1]:
        assert low["rating:explicit"] < 0.1
    assert high["rating:explicit"] > 0.9


def test_a_keras_file_answers_like_the_h5(model_dir: Path, tmp_path: Path, draw_magenta_share: Draw) -> None:
    shutil.copytree(model_dir, tmp_path / "project")
    (tmp_path / "project" / MODEL_FILE).unlink()
    build_model().save(tmp_path / "project" / "model-resnet_custom_v3.keras")
    picture = draw_magenta_share(0.08)
    assert scores_of(tmp_path / "project", picture) == scores_of(model_dir, picture)


def write_as_keras_2(model: Any, path: Path) -> None:
    """Write an h5 as the Keras of 2021 did, which the author of DeepDanbooru used: other keys, links and names."""
    layers = []
    for layer in model.layers:
        config = layer.get_config()
        if "batch_shape" in config:
            config = {"batch_input_shape": config["batch_shape"], "sparse": False, "ragged": False} | {
                "name": layer.name
            }
            before = []
        else:
            inputs = layer.input if isinstance(layer.input, list) else [layer.input]
            before = [[[tensor._keras_history.operation.name, 0, 0, {}] for tensor in inputs]]
        for key, value in config.items():
            if isinstance(value, dict) and "class_name" in value:
                config[key] = {"class_name": value["class_name"], "config": value["config"]}
        for newer in ("quantization_config", "renorm", "synchronized"):
            config.pop(newer, None)
        config["dtype"] = "float32"
        kind = type(layer).__name__
        layers.append({"class_name": kind, "config": config, "name": layer.name, "inbound_nodes": before})
    ends = {
        "input_layers": [[model.layers[0].name, 0, 0]],
        "output_layers": [[model.layers[-1].name, 0, 0]],
    }
    config = {"name": "model", "layers": layers, **ends}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        file.attrs["backend"], file.attrs["keras_version"] = "tensorflow", "2.6.0"
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = weights.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()


def test_an_h5_of_keras_2_answers_as_constructed(model_dir: Path, tmp_path: Path, draw_magenta_share: Draw) -> None:
    shutil.copytree(model_dir, tmp_path / "project")
    write_as_keras_2(build_model(), tmp_path / "project" / MODEL_FILE)
    assert open_project(tmp_path / "project").sha256 != open_project(model_dir).sha256
    shares = [0.0, 0.0625, 0.078125, 0.5]
    pictures = [draw_magenta_share(share) for share in shares]
    answers = scores_of(tmp_path / "project", *pictures)
    assert answers == scores_of(model_dir, *pictures)
    for share, scores in zip(shares, answers, strict=True):
        for tag, (slope, offset) in LOGITS.items():
            assert scores[tag] == pytest.approx(1 / (1 + math.exp(-(slope * share + offset))), abs=2e-3), (tag, share)


def test_tags_that_do_not_fit_the_model_are_refused(model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(model_dir, folder)
    (folder / "tags.txt").write_text("rating:explicit\n")
    with pytest.raises(InputError) as caught:
        open_project(folder).load(1)
    assert str(caught.value) == (
        f"{folder / MODEL_FILE} has the input (None, 512, 512, 3) and the output (None, {len(LOGITS)}): name a model "
        "that takes RGB images of a fixed size and returns one score for each of the 1 lines of tags.txt"
    )


def test_a_damaged_model_is_one_error(model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(model_dir, folder)
    (folder / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot be loaded as a Keras model: .+"):
        open_project(folder).load(1)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_model_that_carries_code_is_refused(model_dir: Path, tmp_path: Path, suffix: str) -> None:
    import keras

    folder = tmp_path / "project"
    shutil.copytree(model_dir, folder)
    (folder / MODEL_FILE).unlink()
    pixels = keras.Input((512, 512, 3))
    x = keras.layers.Lambda(lambda values: values * 2)(pixels)
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x)).save((folder / MODEL_FILE).with_suffix(suffix))
    with pytest.raises(InputError, match=r"cannot be loaded as a Keras model: .+"):
        open_project(folder).load(1)


# -- models that nobody has checked -----------------------------------------------------------------------------------


def test_a_model_that_is_not_the_pinned_one_is_refused_marked_and_confined(model_dir: Path) -> None:
    sha256 = open_project(model_dir).sha256
    with pytest.raises(InputError, match="is not the pinned model file"):
        find_project(model_dir, Trust())
    trusted = find_project(model_dir, Trust(unpinned=True, unconfined=not can_confine()))
    assert trusted.label == f"deepdanbooru:stand-in-magenta:sha256:{sha256[:12]}:unpinned"
    assert trusted.confined == can_confine()
    assert not find_project(model_dir, Trust(unpinned=True, unconfined=True)).confined


def test_a_copy_of_the_pinned_model_needs_no_word_of_trust(model_dir: Path) -> None:
    sha256 = open_project(model_dir).sha256
    released = ModelArchive("stand-in", "https://example.org", 1, (Member(MODEL_FILE, 1, sha256),))
    found = find_project(model_dir, Trust(), released)
    assert (found.label, found.confined) == (f"deepdanbooru:stand-in-magenta:{sha256[:12]}", False)


@needs_confinement
def test_a_confined_model_gives_the_same_scores(model_dir: Path, draw_magenta_share: Draw) -> None:
    free = open_project(model_dir)
    models = [free.load(1), replace(free, confined=True).load(1)]
    pictures = np.stack([models[0].prepare(draw_magenta_share(share)) for share in (0.0, 0.07, 0.5)])
    ours, theirs = (model.scores(pictures) for model in reversed(models))
    assert (ours == theirs).all()
    assert (ours.shape, ours.dtype) == ((3, len(LOGITS)), np.float32)


@needs_confinement
def test_a_confined_model_that_does_not_fit_or_load_is_one_error(model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(model_dir, folder)
    (folder / "tags.txt").write_text("rating:explicit\n")
    with pytest.raises(
        InputError, match=r"has the input \(None, 512, 512, 3\) and the output \(None, \d+\): name a model"
    ):
        replace(open_project(folder), confined=True).load(1)
    (folder / MODEL_FILE).write_bytes(b"no model")
    with pytest.raises(InputError, match=r"cannot be loaded as a Keras model: .+"):
        replace(open_project(folder), confined=True).load(1)


# -- project folders --------------------------------------------------------------------------------------------------


def test_a_project_knows_its_name_its_sum_and_its_tags(model_dir: Path) -> None:
    project = open_project(model_dir)
    assert project.tags == tuple(LOGITS)
    assert project.label == f"deepdanbooru:stand-in-magenta:{project.sha256[:12]}"


def test_a_project_without_a_name_is_called_after_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-project"
    write_project(folder, {"model": "m"})
    assert open_project(folder).name == "my-project"


def test_a_projects_name_is_short_and_printable(tmp_path: Path) -> None:
    write_project(tmp_path / "project", {"model": "m", "name": "a\x1b[31m\nname" + "x" * 300})
    assert open_project(tmp_path / "project").name == "a [31m name" + "x" * 89


def write_project(folder: Path, project: object) -> None:
    folder.mkdir()
    (folder / "project.json").write_text(json.dumps(project))
    (folder / "tags.txt").write_text("solo\n\n rating:explicit \n")
    (folder / "model-m.h5").write_bytes(b"weights")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (shutil.rmtree, "model folder {folder} does not exist: name a DeepDanbooru project folder with --model-dir"),
        (lambda folder: (folder / "project.json").write_text("[1]"), "{folder}/project.json is not a JSON object"),
        (lambda folder: (folder / "project.json").write_text("{"), "{folder}/project.json is not JSON: Expecting "
         "property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (lambda folder: (folder / "project.json").unlink(), "{folder}/project.json cannot be read: [Errno 2] No such "
         "file or directory: '{folder}/project.json'; complete the DeepDanbooru project"),
        (lambda folder: (folder / "project.json").write_text('{"model": "../m"}'), "{folder}/project.json: model is "
         "'../m', not a name such as resnet_custom_v3"),
        (lambda folder: (folder / "model-m.h5").unlink(), "{folder} has neither model-m.h5 nor model-m.keras: complete "
         "the project"),
        (lambda folder: (folder / "tags.txt").unlink(), "{folder}/tags.txt cannot be read: [Errno 2] No such file or "
         "directory: '{folder}/tags.txt'; complete the DeepDanbooru project"),
    ],
)  # fmt: skip
def test_an_incomplete_project_is_one_error(tmp_path: Path, break_it: Callable[[Path], object], message: str) -> None:
    folder = tmp_path / "project"
    write_project(folder, {"model": "m"})
    assert open_project(folder).tags == ("solo", "rating:explicit")
    break_it(folder)
    with pytest.raises(InputError) as caught:
        open_project(folder)
    assert str(caught.value) == message.format(folder=folder)


def test_the_released_zip_is_downloaded_once_and_checked(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served").mkdir()
    with zipfile.ZipFile(tmp_path / "served" / "release.zip", "w") as archive:
        for path in model_dir.iterdir():
            archive.write(path, path.name)
    monkeypatch.setenv("POKEFA_CACHE", str(tmp_path / "cache"))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        pinned = open_project(model_dir).sha256
        members = (Member(MODEL_FILE, 10**6, pinned), Member("project.json", 10**4), Member("tags.txt", 10**4))
        url = f"http://127.0.0.1:{server.server_address[1]}/release.zip"
        released = ModelArchive("stand-in", url, 10**6, members)
        project = find_project(None, Trust(), released)
        server.shutdown()
        thread.join()
    assert project.sha256 == pinned and project.tags == tuple(LOGITS)
    assert find_project(None, Trust(), released) == project  # the server is gone: this one comes from the cache
    project.weights.write_bytes(b"damaged")
    with pytest.raises(PokefaError) as caught:
        find_project(None, Trust(), released)
    assert str(caught.value) == f"{project.weights} is damaged: remove its folder, and it is downloaded again"
