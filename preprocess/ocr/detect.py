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

# The detector's own score below which nothing is looked at: 2 % of the marks of benchmarks/text_set.py lie there.
LEAST_SCORE = 0.4

# What is less likely than this by score and shape alone is not read: that spares a third of the readings.
LEAST_LIKELY = 0.05

# A drawn page may hold hundreds of likely marks. The likeliest are read, which takes about a second; of those left,
# score and shape decide alone.
MOST_READ = 100

# Polygons of two looks that share this much of both are in one place.
SAME_PLACE = 0.5

# Words that the reader is this sure of are kept for the ledger.
LEAST_READABLE = 0.6

# One call of the work brings the results of so many pictures for each thread. All threads wait for the last picture,
# which costs less the more there are; but what a killed run was at is lost.
PICTURES_PER_THREAD = 8

# A call cannot be stopped in its middle, so what it was at may as well be kept.
GRACE_S = 120.0


@dataclass(frozen=True)
class TextRules:
    """What counts as text, how far around it the mask reaches, and which masks a person has to look at.

    Args:
        min_plausible: plausibility (preprocess/ocr/plausibility.py) of what is text, 0 to 1.
        min_doubtful: plausibility of what may be text: it is masked, and the image is doubtful.
        max_mask_frac: an image is doubtful when the mask covers more than this share of it.
        min_area_frac: area of the polygon divided by that of the image.
        verify: whether the reader is asked.
        dilate: how far the mask may reach over the polygon, as a share of the text's height.
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
        dominated: whether so much is text that nothing is painted over.
        doubt: why a person has to look before anything is.
        words: what was read, line by line.
        rejected: polygons that do not count as text, by reason.
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
    """Return the polygons around what is or may be text in an RGB image, the most plausible first, and how many were
    rejected, by reason.

    They are judged before they are merged, so that none is lost in a larger one that is no text.

    Args:
        reader: None: score and shape decide alone.
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
    """Return what the reader says of polygons, by their place, and how sure that is; of the likeliest MOST_READ.

    What two looks see in one place is read once.

    Args:
        likely: places of polygons, the likeliest first.
        shared: as `shares` returns it.
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
    """Return why a person has to look before these are painted over, or None; `masked` is the mask's share."""
    if masked > rules.max_mask_frac:
        return "large_mask"
    return "unsure" if any(polygon.plausible < rules.min_plausible for polygon in polygons) else None


def boxes_path(image_id: str) -> str:
    """Return where the polygons of an image are kept, relative to the root."""
    return f"{BOXES_FOLDER}/{image_id}.json"


def mask_path(image_id: str) -> str:
    """Return where the mask of an image is kept, relative to the root."""
    return f"{MASKS_FOLDER}/{image_id}.png"


def spread_rows(rows: int, workers: int, threads: int) -> Pool:
    """Return the pool for so many rows, processes and threads in each."""
    share = max(1, -(-rows // workers))
    return Pool("process", workers=workers, batch_size=min(PICTURES_PER_THREAD * threads, share), grace=GRACE_S)


@dataclass(frozen=True)
class DetectRows:
    """The worker: looks for text in the raw files of a batch of rows, and writes polygons and mask where it finds some.

    Args:
        det_model: as `name` of `load_detector`.
        confined: as for `load_detector`.
        threads: so many pictures are worked on at once, each on one core.
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
            # A file that cannot be opened is a result: raised, it would make the engine redo its neighbours.
            try:
                return self.detect_row(row, detector, reader, model)
            except ImageError as error:
                return error

        def detect_rows(rows: Sequence[Row]) -> list[Detection | ImageError]:
            found = [threads.submit(detect, row) for row in rows]
            wait(found)  # all of them, even if one fails: the engine then tries each alone
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
