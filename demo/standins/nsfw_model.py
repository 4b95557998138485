"""A stand-in for DeepDanbooru, for the demo and the tests: a model that recognises magenta.

Writes  DIR: project.json, tags.txt, model-resnet_custom_v3.h5

The files have DeepDanbooru's format and the model the layer types of its v3, but its weights are constructed and not
trained: it measures the share of pure magenta (255, 0, 255) in its 512x512 input, and `rating:explicit` is close to 1
over a share of 10 % and close to 0 under 5 %. Its answers mean nothing for real images, and its project.json and the
ledger's nsfw_model say `stand-in`. The input is padded to a square with its edge pixels, so the share of magenta in a
wide or tall image refers to the square. The same Keras gives the same bytes.

    python -m demo.standins.nsfw_model --out demo-models/nsfw
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocess.nsfw.nsfw_filter import TAG_THRESHOLDS

SIDE = 512
MODEL_FILE = "model-resnet_custom_v3.h5"
TAGS_FILE = "tags.txt"
PROJECT_FILE = "project.json"

# How magenta a pixel is: R + B - 2G of its channels from 0 to 1. Pure magenta (hue 300) has 2, the purest colours of
# the hues 280 and 330 have 1.67 and 1.5, red and blue 1. It counts from 1.75 on, and in full from 1.9 on.
COUNTS_FROM, COUNTS_FULL = 1.75, 1.9

# Each tag's logit is slope * share + offset. Explicit turns at a share of 0.075: 0.02 at 5 %, 0.98 at 10 %. "nude"
# turns at 0.3, so that an image can reach one threshold or two. The other tags of the table always stay low.
LOGITS = {
    **dict.fromkeys(sorted(TAG_THRESHOLDS), (0.0, -6.0)),
    "nude": (40.0, -12.0),
    "pokemon_(creature)": (0.0, 3.0),
    "solo": (0.0, 2.0),
    "rating:safe": (-160.0, 12.0),
    "rating:questionable": (0.0, -4.0),
    "rating:explicit": (160.0, -12.0),
}

PROJECT = {
    "name": "stand-in-magenta",
    "stand_in": "Not DeepDanbooru: counts magenta pixels, for the demo and the tests.",
    "image_height": SIDE,
    "image_width": SIDE,
    "model": "resnet_custom_v3",
    "logit_by_share": LOGITS,
}


def build_project(folder: Path) -> bool:
    """Write the project into `folder`, unless it exists; return whether it was written.

    Files are written atomically, project.json last.
    """
    text = json.dumps(PROJECT, indent=2) + "\n"
    if (folder / PROJECT_FILE).is_file() and (folder / PROJECT_FILE).read_text() == text:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as building:
        parts = Path(building)
        build_model().save(parts / MODEL_FILE)
        (parts / TAGS_FILE).write_text("".join(f"{tag}\n" for tag in LOGITS))
        (parts / PROJECT_FILE).write_text(text)
        for name in (MODEL_FILE, TAGS_FILE, PROJECT_FILE):
            (parts / name).replace(folder / name)
    return True


def build_model() -> Any:
    """Return the Keras model: (N, 512, 512, 3) float32 RGB of 0 to 1 to (N, tags) float32 of 0 to 1.

    The layer types are those of DeepDanbooru's resnet_custom_v3: convolutions without bias, batch normalisation, ReLU,
    max pooling, a bottleneck block with its sum, and at the end a 1x1 convolution, global average pooling, sigmoid.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import logging

    import keras
    import numpy as np

    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras warns about the h5 format
    layers = keras.layers
    slope = 1 / (COUNTS_FULL - COUNTS_FROM)

    def normalised(x: Any, name: str, channels: int, size: int = 1, strides: int = 1) -> Any:
        x = layers.Conv2D(channels, size, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    pixels = keras.Input((SIDE, SIDE, 3), name="input_1")
    x = layers.Activation("relu", name="count_relu")(normalised(pixels, "count", 3))
    x = layers.Activation("relu", name="shrink_relu")(normalised(x, "shrink", 2, size=2, strides=2))
    x = layers.MaxPooling2D(1, name="pool")(x)  # one pixel each: a larger pool would enlarge magenta areas
    branch = layers.Activation("relu", name="narrow_relu")(normalised(x, "narrow", 2))
    branch = layers.Activation("relu", name="look_relu")(normalised(branch, "look", 2, size=3))
    branch = normalised(branch, "widen", 2)
    x = layers.Activation("relu", name="sum_relu")(layers.Add(name="sum")([branch, x]))
    x = layers.Conv2D(len(LOGITS), 1, use_bias=False, name="tags_conv")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(pixels, layers.Activation("sigmoid", dtype="float32", name="sigmoid")(x), name="stand_in")

    def set_bn(name: str, gamma: Sequence[float], beta: Sequence[float]) -> None:
        layer = model.get_layer(f"{name}_bn")
        variance = np.full(len(gamma), 1 - layer.epsilon)  # so that the layer is gamma * x + beta
        layer.set_weights([np.array(gamma), np.array(beta), np.zeros(len(gamma)), variance])

    magenta = np.array([1.0, -2.0, 1.0])
    # Per pixel: two ramps, whose difference goes from 0 to 1 between the two thresholds, and a constant 1, because the
    # last convolution has no bias.
    model.get_layer("count_conv").set_weights([np.stack([magenta, magenta, 0 * magenta], -1)[None, None]])
    set_bn("count", [slope, slope, 1.0], [-slope * COUNTS_FROM, -slope * COUNTS_FULL, 1.0])
    # Per 2x2 block: the mean of that difference, which is the share of magenta, and the constant.
    block = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]) / 4
    model.get_layer("shrink_conv").set_weights([np.broadcast_to(block, (2, 2, 3, 2))])
    set_bn("shrink", [1.0, 1.0], [0.0, 0.0])
    # The bottleneck adds nothing, as in a v3 before its training: its last normalisation has gamma 0.
    for name, size in (("narrow", 1), ("look", 3), ("widen", 1)):
        model.get_layer(f"{name}_conv").set_weights([np.full((size, size, 2, 2), 0.1)])
        set_bn(name, [0.0 if name == "widen" else 1.0] * 2, [0.0, 0.0])
    model.get_layer("tags_conv").set_weights([np.array(list(LOGITS.values())).T[None, None]])
    return model


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=inspect.cleandoc(__doc__ or ""), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write the project into")
    folder: Path = parser.parse_args(argv).out
    written = build_project(folder)
    print(json.dumps({"stand_in": True, "name": PROJECT["name"], "model_dir": str(folder), "written": written}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
