"""DeepDanbooru projects: find or download one, prepare images, and get tag scores from its model.

A project is a folder with `project.json`, `tags.txt` (one tag per line, in the order of the model's outputs) and
`model-<name>.h5` or `.keras`, where <name> is `model` in project.json. The package `deepdanbooru` is not needed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pokefa.errors import InputError, PokefaError, first_line
from pokefa.files import sha256_of
from pokefa.images.confined import ConfinedModel, plain
from pokefa.images.files import flatten
from pokefa.images.weights import Member, ModelArchive, Trust, check_trust, fetch_archive, unpinned_file
from pokefa.machine import check_path
from pokefa.outside import DEEPDANBOORU_ADDRESS, DEEPDANBOORU_SHA256
from preprocess.nsfw.screening import TagModel

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

# The author's release. Nobody has published sums of the two small files.
V3 = ModelArchive(
    name="deepdanbooru-v3-20211112-sgd-e28",
    url=DEEPDANBOORU_ADDRESS,
    largest=1_000_000_000,
    members=(
        Member("model-resnet_custom_v3.h5", 646_744_888, DEEPDANBOORU_SHA256),
        Member("project.json", 2**16),
        Member("tags.txt", 2**22),
    ),
)

_importing = threading.Lock()

MOST_NAME = 100  # longest project name in the ledger, in characters

WAYS_OUT = (
    "without a connection, download and unpack that zip elsewhere and name its folder with --model-dir, or copy the "
    "cache folder from a machine that has it and set POKEFA_CACHE to it"
)


@dataclass(frozen=True)
class Project:
    """A checked project folder, whose model is not loaded yet.

    Args:
        confined: the model is not trusted, and runs in a process that cannot write.
    """

    name: str
    weights: Path
    sha256: str
    tags: tuple[str, ...]
    pinned: bool = True
    confined: bool = False

    @property
    def label(self) -> str:
        """The model's name in the ledger: backend, name, first 12 digits of the SHA-256 of its weights."""
        name = f"deepdanbooru:{self.name}"
        return f"{name}:{self.sha256[:12]}" if self.pinned else f"{name}:sha256:{self.sha256[:12]}:unpinned"

    def load(self, threads: int) -> TagModel:
        """Load the model, on a GPU if TensorFlow finds one.

        Raises:
            InputError: the file is not a model, or does not match the tags.
        """
        return load_model(self, threads)


def find_project(model_dir: Path | None, trust: Trust, archive: ModelArchive = V3) -> Project:
    """Return the project in `model_dir`, or if None that of `archive`, downloaded once.

    Raises:
        InputError: the folder is not a project, or its model is not that of `archive` and not trusted.
        PokefaError: the archive cannot be downloaded, or its model is not the pinned one.
    """
    pinned = archive.members[0].sha256
    if model_dir is not None:
        project = open_project(model_dir)
        if project.sha256 == pinned:
            return project
        confined = check_trust(unpinned_file(project.weights, project.sha256, str(pinned)), trust)
        return replace(project, pinned=False, confined=confined)
    project = open_project(fetch_archive(archive, ways_out=WAYS_OUT))
    if project.sha256 != pinned:
        raise PokefaError(f"{project.weights} is damaged: remove its folder, and it is downloaded again")
    return project


def open_project(folder: Path) -> Project:
    """Return the project in a folder.

    Raises:
        InputError: the folder lacks one of the files, or one of them cannot be read.
    """
    check_path("--model-dir", folder)
    if not folder.is_dir():
        raise InputError(f"model folder {folder} does not exist: name a DeepDanbooru project folder with --model-dir")
    settings = _read_settings(folder / "project.json")
    model = settings.get("model")
    if not isinstance(model, str) or not re.fullmatch(r"\w[\w.-]*", model):
        raise InputError(f"{folder / 'project.json'}: model is {model!r}, not a name such as resnet_custom_v3")
    candidates = [folder / f"model-{model}{suffix}" for suffix in (".h5", ".keras")]
    weights = next((path for path in candidates if path.is_file()), None)
    if weights is None:
        raise InputError(f"{folder} has neither {candidates[0].name} nor {candidates[1].name}: complete the project")
    tags = tuple(line.strip() for line in _read_text(folder / "tags.txt").splitlines() if line.strip())
    name = plain(settings.get("name") or folder.resolve().name)[:MOST_NAME]
    return Project(name, weights, sha256_of(weights), tags)


def prepare(image: Image.Image, width: int, height: int) -> np.ndarray:
    """Return an image prepared like DeepDanbooru's own `load_image_for_evaluate`.

    It is scaled to fit into width x height by area averaging, with its aspect ratio kept and small images enlarged. It
    is centred, and its edge pixels fill the margins. If a margin is an odd number of pixels, the result is the mean of
    two neighbours, like a bilinear shift by half a pixel. Alpha is composited on white.

    Returns:
        (height, width, 3) float32, RGB, 0 to 1.
    """
    import numpy as np

    tf = import_tensorflow()
    pixels = np.asarray(flatten(image))
    sides = np.array(pixels.shape[:2], np.float32)
    # tf.image.resize(preserve_aspect_ratio=True) gives the same sizes, but rounds a thin image's side to 0.
    fitted = np.maximum(np.round(sides * np.min(np.array([height, width], np.float32) / sides)), 1).astype(int)
    with tf.device("CPU:0"):  # the operation has no GPU kernel
        scaled = tf.image.resize(pixels, fitted, method=tf.image.ResizeMethod.AREA).numpy()
    for axis, length in enumerate((height, width)):
        scaled = _centre(scaled, length, axis)
    return scaled / np.float32(255)


def _centre(pixels: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Return `pixels` centred in `length` places along an axis, with the edges repeated."""
    import numpy as np

    have = pixels.shape[axis]
    place = np.arange(length) - (length - have) / 2
    lower, upper = (np.clip(side(place).astype(int), 0, have - 1) for side in (np.floor, np.ceil))
    below = pixels.take(lower, axis)
    return below if (length - have) % 2 == 0 else (below + pixels.take(upper, axis)) / 2


def load_model(project: Project, threads: int) -> TagModel:
    """Return the project's model, on a GPU if TensorFlow finds one.

    Args:
        threads: number of TensorFlow's threads, if this process has not used it before.

    Raises:
        InputError: the file is not a model, or does not match the tags.
    """
    if project.confined:
        return load_confined_model(project, threads)
    call, shapes = load_keras(project.weights, threads)
    height, width = check_shapes(project, *shapes)
    return TagModel(partial(prepare, width=width, height=height), call)


def load_confined_model(project: Project, threads: int) -> TagModel:
    """Return the same as `load_model`, for a file that runs in a confined process."""
    import numpy as np

    tf = import_tensorflow()  # prepares the images in this process, on the CPU
    set_threads(tf, threads)
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    arguments = {"weights": str(project.weights.absolute()), "threads": threads}
    try:
        model = ConfinedModel("preprocess.nsfw.deepdanbooru:serve_model", arguments, [project.weights])
    except PokefaError as error:
        raise InputError(str(error)) from None
    height, width = check_shapes(project, *(_as_shape(model.facts.get(name)) for name in ("input", "output")))

    def scores(batch: np.ndarray) -> np.ndarray:
        found = model(batch)
        if [(array.shape, array.dtype) for array in found] != [((len(batch), len(project.tags)), np.float32)]:
            raise PokefaError("the model's process did not return one score per tag")
        return found[0]

    return TagModel(partial(prepare, width=width, height=height), scores)


def serve_model(
    weights: str, threads: int
) -> tuple[Callable[[Sequence[np.ndarray]], list[np.ndarray]], dict[str, Any]]:
    """Load a model in a confined process: images (N, height, width, 3) to scores (N, tags), float32."""
    call, shapes = load_keras(Path(weights), threads)
    return lambda arrays: [call(arrays[0])], dict(zip(("input", "output"), shapes, strict=True))


def check_shapes(project: Project, taken: object, given: object) -> tuple[int, int]:
    """Return height and width of a model's input images.

    Raises:
        InputError: its input or output has another shape.
    """
    _, height, width, channels = _shape(taken, 4)
    _, outputs = _shape(given, 2)
    if channels != 3 or height is None or width is None or outputs != len(project.tags):
        raise InputError(
            f"{project.weights} has the input {taken} and the output {given}: name a model that takes RGB images of a "
            f"fixed size and returns one score for each of the {len(project.tags)} lines of tags.txt"
        )
    return height, width


def load_keras(weights: Path, threads: int) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[object, object]]:
    """Return a function of a batch of images, and the shapes of its input and output.

    Raises:
        InputError: the file is not a model.
    """
    tf = import_tensorflow()
    import keras

    set_threads(tf, threads)
    with contextlib.suppress(RuntimeError):
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    try:
        # Safe mode refuses files that contain code.
        model = keras.models.load_model(weights, compile=False, safe_mode=True)
    except Exception as error:
        raise InputError(f"{weights} cannot be loaded as a Keras model: {first_line(error)}") from None
    _, height, width, channels = _shape(model.input_shape, 4)
    call = tf.function(
        lambda batch: model(batch, training=False),
        input_signature=[tf.TensorSpec((None, height, width, channels), tf.float32)],
    )

    def scores(batch: np.ndarray) -> np.ndarray:
        answer: np.ndarray = call(tf.constant(batch, tf.float32)).numpy()
        return answer

    return scores, (model.input_shape, model.output_shape)


def set_threads(tf: ModuleType, threads: int) -> None:
    """Set the number of TensorFlow's threads, unless it is already in use."""
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def import_tensorflow() -> ModuleType:
    """Import TensorFlow without the oneDNN messages that it writes to stderr before it reads its log level."""
    with _importing:  # during an import, other threads would find a partial module in sys.modules
        return sys.modules["tensorflow"] if "tensorflow" in sys.modules else _import_quietly()


def _import_quietly() -> ModuleType:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        return importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _shape(shape: object, length: int) -> Sequence[int | None]:
    """Return a shape of `length` numbers; for anything else, such as several inputs, all are None."""
    if isinstance(shape, tuple) and len(shape) == length and not isinstance(shape[0], tuple):
        return shape
    return (None,) * length


def _as_shape(fact: object) -> object:
    """Return a shape reported by a confined process; None for anything else."""
    if isinstance(fact, list) and all(length is None or type(length) is int for length in fact):
        return tuple(fact)
    return None


def _read_settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = json.loads(_read_text(path))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path} is not a JSON object")
    return settings


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}; complete the DeepDanbooru project") from None
