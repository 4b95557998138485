"""Text detection: an image in, text polygons and a mask out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from pokefa.engine.work import Pool, Work
from pokefa.errors import ImageError
from pokefa.images.decoding import in_decoder, readable
from pokefa.images.files import flatten, open_image, to_png
from pokefa.images.storage import write_file
from pokefa.stage.runner import Row
from preprocess.ocr.models import Detector, Reader, load_detector, load_reader
from preprocess.ocr.plausibility import AREA_FRAC, describe_reading, describe_shapes, plausibility, shares
from preprocess.ocr.polygons import TextPolygon, area_frac, contains, draw_mask, merge
from preprocess.ocr.views import Looks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BOXES_FOLDER = "data_stage/OCR_detection/boxes"
MASKS_FOLDER = "data_stage/OCR_detection/masks"

Verify = Literal["none", "all"]
Doubt = Literal["large_mask", "unsure"]

# The minimum detector score of a candidate: 2 % of the text in benchmarks/text_set.py scores lower.
LEAST_SCORE = 0.4

# Candidates less likely than this by score and shape alone are not read, which saves a third of the readings.
LEAST_LIKELY = 0.05

# A comic page may hold hundreds of candidates. Reading the likeliest takes about a second; score and shape alone decide
# about the others.
MOST_READ = 100

# Polygons of two views that share this much of both are at one place.
SAME_PLACE = 0.5

# Words with at least this confidence are stored in the ledger.
LEAST_READABLE = 0.6

# Images per thread in one batch. All threads wait for the last image, which costs less with larger batches; but a
# killed run loses its batch.
PICTURES_PER_THREAD = 8

# A batch cannot be interrupted, so a stopping run waits for it and keeps the results.
GRACE_S = 120.0


@dataclass(frozen=True)
class TextRules:
    """What counts as text, how far the mask extends around it, and which masks a person must review.

    Args:
        min_plausible: plausibility (preprocess/ocr/plausibility.py) from which a polygon is text, 0 to 1.
        min_doubtful: plausibility from which it may be text: it is masked, and the image is doubtful.
        max_mask_frac: an image is doubtful when the mask covers more than this share of it.
        min_area_frac: minimum area of the polygon divided by that of the image.
        verify: whether to use the reader.
        dilate: how far the mask may extend beyond the polygon, as a share of the text's height.
        max_text_frac: an image is dominated by text when the mask covers more than this share of it.
    """

    min_plausible: float = 0.95
    min_doubtful: float = 0.75
    max_mask_frac: float = 0.05
    min_area_frac: float = 0.0
    verify: Verify = "all"
    dilate: float = 0.2
    max_text_frac: float = 0.35


@dataclass(frozen=True)
class Detection:
    """What was found in one image.

    Args:
        has_text: whether any polygon counts as text.
        area_frac: masked pixels divided by all pixels.
        model: the detector and its version.
        dominated: whether there is so much text that nothing is painted over.
        doubt: why a person must review the image before anything is painted over.
        words: the text that was read, line by line.
        rejected: number of rejected polygons, by reason.
    """

    has_text: bool
    area_frac: float
    model: str
    dominated: bool = False
    doubt: Doubt | None = None
    words: tuple[str, ...] = ()
    rejected: Counter[str] = field(default_factory=Counter)


def find_text(
    image: Image.Image, detector: Detector, rules: TextRules, reader: Reader | None
) -> tuple[list[TextPolygon], Counter[str]]:
    """Return the polygons around text or possible text in an RGB image, the most plausible first, and the number of
    rejected ones by reason.

    Polygons are judged before they are merged, so that text is not lost inside a larger polygon that is not text.

    Args:
        reader: None if score and shape alone decide.
    """
    seen = sorted(detector(image), key=lambda polygon: (-polygon.score, polygon.scale, polygon.points))
    polygons = [polygon for polygon in seen if polygon.score >= LEAST_SCORE]
    rejected: Counter[str] = Counter(low_confidence=len(seen) - len(polygons))
    shared = shares(polygons)
    shapes = describe_shapes(polygons, shared, image.size)
    by_shape = [plausibility(shape) for shape in shapes]
    least = rules.min_doubtful if reader is None else min(LEAST_LIKELY, rules.min_doubtful)
    likely = []
    for place in sorted(range(len(polygons)), key=lambda place: (-by_shape[place], place)):
        if shapes[place][AREA_FRAC] < rules.min_area_frac:
            rejected["too_small"] += 1
        elif by_shape[place] < least:
            rejected["implausible"] += 1
        else:
            likely.append(place)
    lines = {} if reader is None else read_once(image, polygons, likely, shared, reader)
    text: list[TextPolygon] = []
    for place in likely:
        plausible, words = by_shape[place], ""
        if place in lines:
            plausible = plausibility(shapes[place] + describe_reading(*lines[place], shapes[place]))
            words = lines[place][0] if lines[place][1] >= LEAST_READABLE else ""
        if plausible >= rules.min_doubtful:
            text.append(replace(polygons[place], plausible=round(plausible, 4), words=words))
        else:
            rejected["unreadable" if place in lines else "implausible"] += 1
    sure = merge(polygon for polygon in text if polygon.plausible >= rules.min_plausible)
    unsure = [polygon for polygon in text if polygon.plausible < rules.min_plausible]
    unsure = [polygon for polygon in unsure if not any(contains(other, polygon) for other in sure)]
    return merge([*sure, *unsure]), +rejected


def read_once(
    image: Image.Image,
    polygons: Sequence[TextPolygon],
    likely: Sequence[int],
    shared: NDArray[np.float64],
    reader: Reader,
) -> dict[int, tuple[str, float]]:
    """Return the reader's text and confidence by polygon index, for the MOST_READ likeliest polygons.

    Polygons of two views at one place are read once.

    Args:
        likely: polygon indices, the likeliest first.
        shared: the result of `shares`.
    """
    same: dict[int, int] = {}
    asked: list[int] = []
    for place in likely:
        twin = next((other for other in asked if shared[place, other] >= SAME_PLACE), None)
        if twin is None and len(asked) < MOST_READ:
            asked.append(place)
            twin = place
        if twin is not None:
            same[place] = twin
    lines = dict(zip(asked, reader(image, [polygons[place] for place in asked]), strict=True)) if asked else {}
    return {place: lines[twin] for place, twin in same.items()}


def doubt_about(polygons: Sequence[TextPolygon], masked: float, rules: TextRules) -> Doubt | None:
    """Return why a person must review these before they are painted over, or None; `masked` is the mask's share."""
    if masked > rules.max_mask_frac:
        return "large_mask"
    return "unsure" if any(polygon.plausible < rules.min_plausible for polygon in polygons) else None


def boxes_path(image_id: str) -> str:
    """Return the path of the polygons of an image, relative to the root."""
    return f"{BOXES_FOLDER}/{image_id}.json"


def mask_path(image_id: str) -> str:
    """Return the path of the mask of an image, relative to the root."""
    return f"{MASKS_FOLDER}/{image_id}.png"


def spread_rows(rows: int, workers: int, threads: int) -> Pool:
    """Return the pool for `rows` rows, with `workers` processes and `threads` threads in each."""
    share = max(1, -(-rows // workers))
    return Pool("process", workers=workers, batch_size=min(PICTURES_PER_THREAD * threads, share), grace=GRACE_S)


@dataclass(frozen=True)
class DetectRows:
    """The worker: finds text in the raw files of a batch of rows, and writes polygons and mask if there is any.

    Args:
        det_model: the `name` for `load_detector`.
        confined: as for `load_detector`.
        threads: images processed at once, each on one core.
    """

    data: Path
    det_model: str | None
    looks: Looks
    rules: TextRules
    threads: int
    confined: bool = True

    def __call__(self) -> Work[Row, Detection | ImageError]:
        detector, model = load_detector(self.det_model, LEAST_SCORE, self.looks, confined=self.confined)
        reader = load_reader() if self.rules.verify != "none" else None
        threads = ThreadPoolExecutor(self.threads)

        def detect(row: Row) -> Detection | ImageError:
            # A file that cannot be opened is a result: if raised, it would make the engine redo its neighbours.
            try:
                return self.detect_row(row, detector, reader, model)
            except ImageError as error:
                return error

        def detect_rows(rows: Sequence[Row]) -> list[Detection | ImageError]:
            found = [threads.submit(detect, row) for row in rows]
            wait(found)  # wait for all, even if one fails: the engine then tries each alone
            return [future.result() for future in found]

        return detect_rows

    def detect_row(self, row: Row, detector: Detector, reader: Reader | None, model: str) -> Detection:
        image_id = str(row["image_id"])
        image = flatten(in_decoder(open_image, readable(self.data / str(row["path_raw"]))))
        polygons, rejected = find_text(image, detector, self.rules, reader)
        if not polygons:
            return Detection(False, 0.0, model, rejected=rejected)
        mask = draw_mask(polygons, image.size, self.rules.dilate, image)
        masked = area_frac(mask)
        dominated = masked > self.rules.max_text_frac
        doubt = None if dominated else doubt_about(polygons, masked, self.rules)
        words = tuple(dict.fromkeys(polygon.words for polygon in polygons if polygon.words))
        boxes = {
            "image_id": image_id,
            "width": image.width,
            "height": image.height,
            "model": model,
            "polygons": [_as_json(polygon) for polygon in polygons],
        }
        write_file(self.data / boxes_path(image_id), json.dumps(boxes, sort_keys=True).encode() + b"\n")
        write_file(self.data / mask_path(image_id), to_png(mask))
        return Detection(True, masked, model, dominated, doubt, words, rejected)


def _as_json(polygon: TextPolygon) -> dict[str, object]:
    return {name: value for name, value in asdict(polygon).items() if name not in ("turned", "words") or value}
