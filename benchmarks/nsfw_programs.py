"""The measured functions of benchmarks/nsfw.py, in the environment of the nsfw stage.

`build` writes a DeepDanbooru project of the real size with random weights, and images. `time_model` calls the bare
Keras model on prepared arrays, directly or through tf.function. `time_worker` is the stage's own code from file to
score. Start-up is excluded, because the first calls of a model or a process are slow.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.scraping_server import make_picture

if TYPE_CHECKING:
    from pokefa.stage.runner import Row

# DeepDanbooru v3: the channels of its six stages, and the number of blocks after the first of each. With 9,176 tags
# they have 161,272,768 weights, which is 645 MB; the h5 that the author released has 647 MB.
CHANNELS = (256, 512, 1024, 1024, 2048, 4096)
BLOCKS = (2, 7, 19, 19, 2, 2)
TAGS = 9_176
SIDE = 512
NUMBERS = 161_272_768

PICTURES = 24
PICTURE = (1152, 896, 6.0)  # width, height, grain


def build(project: str) -> dict[str, int]:
    folder = Path(project)
    folder.mkdir(parents=True, exist_ok=True)
    model = build_v3()
    assert model.count_params() == NUMBERS
    model.save(folder / "model-resnet_custom_v3.h5")
    (folder / "tags.txt").write_text("".join(f"tag_{number}\n" for number in range(TAGS)))
    (folder / "project.json").write_text(json.dumps({"name": "random", "model": "resnet_custom_v3"}))
    for seed in range(PICTURES):
        (folder / f"{seed:02d}.jpg").write_bytes(make_picture(seed, *PICTURE))
    return {"pictures": PICTURES}


def build_v3() -> Any:
    """Return the Keras model: bottleneck blocks of a quarter of the channels, the stages after the first at half size.

    The random weights keep the activations in range: the last normalization of a block has gamma 0, as before training.
    """
    from preprocess.nsfw.deepdanbooru import import_tensorflow

    import_tensorflow()
    import keras

    keras.utils.set_random_seed(7)
    layers = keras.layers

    def normalised(x: Any, channels: int, size: int = 1, strides: int = 1, gamma: str = "ones") -> Any:
        x = layers.Conv2D(
            channels, size, strides, padding="same", use_bias=False, kernel_initializer="he_normal"
        )(x)  # fmt: skip
        return layers.BatchNormalization(gamma_initializer=gamma)(x)

    def relu(x: Any) -> Any:
        return layers.Activation("relu")(x)

    def block(x: Any, channels: int, strides: int, shortcut: Any) -> Any:
        inner = relu(normalised(x, channels // 4))
        inner = relu(normalised(inner, channels // 4, 3, strides))
        return relu(layers.Add()([normalised(inner, channels, gamma="zeros"), shortcut]))

    pixels = keras.Input((SIDE, SIDE, 3))
    x = relu(normalised(pixels, CHANNELS[0] // 4, 7, 2))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, (channels, more) in enumerate(zip(CHANNELS, BLOCKS, strict=True)):
        strides = 2 if stage else 1
        x = block(x, channels, strides, normalised(x, channels, 1, strides))
        for _ in range(more):
            x = block(x, channels, 1, x)
    x = layers.Conv2D(TAGS, 1, use_bias=False)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, layers.Activation("sigmoid", dtype="float32")(x))


def time_model(folder: str, batch: int, images: int, compiled: bool = False) -> dict[str, float]:
    """Return the seconds that the model needs for `images` images prepared as arrays."""
    import numpy as np

    from preprocess.nsfw.deepdanbooru import import_tensorflow, open_project, prepare

    tf = import_tensorflow()
    import keras

    from pokefa.images.files import open_image

    project = open_project(Path(folder))
    model = keras.models.load_model(project.weights, compile=False)
    paths = sorted(Path(folder).glob("*.jpg"))
    ready = [prepare(open_image(path), SIDE, SIDE) for path in paths[:batch]]
    array = np.stack((ready * (batch // len(ready) + 1))[:batch])
    signature = [tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32)]
    call = tf.function(lambda pictures: model(pictures), input_signature=signature) if compiled else model
    call(tf.constant(array[:1])).numpy()  # start-up; time_worker also starts with one image
    began = time.perf_counter()
    for _ in range(images // batch):
        call(tf.constant(array)).numpy()
    return {"seconds": time.perf_counter() - began}


def time_worker(project_folder: str, batch: int, images: int) -> dict[str, float]:
    """Return the seconds that one call of the work takes in a worker process, for `images` files."""
    from pokefa.engine.local import run_batches
    from pokefa.engine.work import Pool
    from preprocess.nsfw.deepdanbooru import open_project
    from preprocess.nsfw.screening import ScreenRows, spread_work

    folder = Path(project_folder)
    project = open_project(folder)
    _, threads = spread_work(batch, 1)
    names = [path.name for path in sorted(folder.glob("*.jpg"))]
    rows: list[Row] = [{"path_raw": names[number % len(names)]} for number in range(images)]
    make_work = ScreenRows(folder, project, project.tags[:8], batch, threads)
    # The first call starts the process: one file, and names of files that do not exist.
    pool = Pool("process", workers=1, batch_size=images, queued=1)
    nothing: Row = {"path_raw": "none"}
    first = [rows[0], *[nothing] * (images - 1)]
    began = 0.0
    for number, outcome in enumerate(run_batches(make_work, [*first, *rows], pool), 1):
        if number == images:
            began = time.perf_counter()
        if number > images and not isinstance(outcome.result, dict):
            raise RuntimeError(outcome.error or str(outcome.result))
    return {"seconds": time.perf_counter() - began}
