"""Text detection: an image in, text polygons and a mask out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

from pokefa.engine.work import Pool, Work
from pokefa.errors import ImageError
from pokefa.images.decoding import in_decoder, readable
from pokefa.images.files import flatten, open_image, to_png
from pokefa.images.storage import write_file
from pokefa.stage.runner import Row
from preprocess.ocr.models import Detector, Reader, load_detector, load_reader
from preprocess.ocr.polygons import TextPolygon, area_frac, contains, draw_mask, measure, merge
from preprocess.ocr.views import Looks

BOXES_FOLDER = "data_stage/OCR_detection/boxes"
MASKS_FOLDER = "data_stage/OCR_detection/masks"


Verify = Literal["none", "doubtful", "all"]

# A drawn page may hold hundreds of doubtful marks, or as many short words. The surest are read, which takes about a
# second; where more than this share of them is text, those left are text too if they are sure by their score.
MOST_READ = 100
MOSTLY_TEXT = 0.5

# One call of the work brings the results of so many pictures for each thread. All threads wait for the last picture,
# which costs less the more there are; but what a killed run was at is lost.
PICTURES_PER_THREAD = 8

# A call cannot be stopped in its middle, so what it was at may as well be kept.
GRACE_S = 120.0

# What is not long and covers more than this much of an image is the creature or the pattern that it shows. One short
# word of that size would not be painted over either: see max_text_frac.
MOST_AREA_FRAC = 0.5

# These sizes are no text's, whatever the reader would see in them.
NOT_READ = ("too_small", "too_large")

# What says something holds this many different signs, not counting round ones: with one of them the reader also sees
# "O7" in two feet, so "Go" and "Oh!" are not found where the detector alone is not sure of them.
LEAST_LETTERS = 2
ROUND = frozenset("0689DOQo")


@dataclass(frozen=True)
class TextRules:
    """What counts as text, and how far around it the mask reaches.

    A polygon is sure by its confidence and shape, or else doubtful: then it counts if the reader can read it.

    Args:
        min_confidence: mean text probability inside a sure polygon, 0 to 1.
        min_aspect: longer by shorter side of a sure polygon: eyes, dots and whole figures are round, words are not, and
            two eyes make no long line.
        min_doubtful: least confidence of a doubtful polygon.
        min_area_frac: area of the polygon divided by that of the image.
        verify: which polygons the reader is asked about.
        min_readable: how sure the reader must be of what it reads, 0 to 1.
        dilate: how far the mask reaches over the polygon, as a share of the text's height.
        max_text_frac: an image is dominated by text when the mask covers more than this share of it.
    """

    min_confidence: float = 0.65
    min_aspect: float = 3.0
    min_doubtful: float = 0.4
    min_area_frac: float = 0.0
    verify: Verify = "doubtful"
    min_readable: float = 0.65
    dilate: float = 0.2
    max_text_frac: float = 0.35

    @property
    def least_score(self) -> float:
        """The least confidence at which a polygon is looked at."""
        return self.min_confidence if self.verify == "none" else min(self.min_confidence, self.min_doubtful)


# Without the reader, what is only likely has to count, or too much text would be missed. On the labelled set that finds
# 96 % of the writings of 16 px and more, but takes something for text in 11 % of the text-free pictures.
UNREAD = TextRules(verify="none", min_confidence=0.6, min_aspect=1.75)


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


def rejection(polygon: TextPolygon, size: tuple[int, int], rules: TextRules) -> str | None:
    """Return why a polygon is not sure to be text, as a slug, or None where it is.

    Args:
        size: (width, height) of the image.
    """
    longer, shorter, area = measure(polygon.points)
    if area < rules.min_area_frac * size[0] * size[1]:
        return "too_small"
    if area > MOST_AREA_FRAC * size[0] * size[1] and longer < rules.min_aspect * shorter:
        return "too_large"
    if polygon.score < rules.min_confidence:
        return "low_confidence"
    if longer < rules.min_aspect * shorter:
        return "not_elongated"
    return None


def says_something(text: str, sureness: float, rules: TextRules) -> bool:
    """Tell whether what was read is text: two different letters or digits that are not as round as an eye.

    In eyes the reader sees 00, 88 or 69, in checks a row of X.
    """
    letters = {sign for sign in text if sign.isalnum()} - ROUND
    return sureness >= rules.min_readable and len(letters) >= LEAST_LETTERS


def find_text(
    image: Image.Image, detector: Detector, rules: TextRules, reader: Reader | None
) -> tuple[list[TextPolygon], Counter[str]]:
    """Return the polygons around the text of an RGB image, the surest first, and how many were rejected, by reason.

    They are judged before they are merged, so that none is lost in a larger one that is no text.

    Args:
        reader: needed where `rules.verify` is not `none`.
    """
    sure: list[TextPolygon] = []
    doubtful: list[TextPolygon] = []
    rejected: Counter[str] = Counter()
    for polygon in detector(image):
        reason = rejection(polygon, image.size, rules)
        if reason is None:
            sure.append(polygon)
        elif rules.verify != "none" and reason not in NOT_READ and polygon.score >= rules.min_doubtful:
            doubtful.append(polygon)
        else:
            rejected[reason] += 1
    sure = merge(sure)
    if reader is None:
        return sure, rejected
    if rules.verify == "all":
        sure, doubtful = [], [*sure, *doubtful]
    doubtful = [polygon for polygon in merge(doubtful) if not any(contains(other, polygon) for other in sure)]
    read, unread = doubtful[:MOST_READ], doubtful[MOST_READ:]
    lines = zip(read, reader(image, read), strict=True)
    text = [polygon for polygon, (words, sureness) in lines if says_something(words, sureness, rules)]
    rejected["unreadable"] += len(read) - len(text)
    mostly_text = len(text) > MOSTLY_TEXT * len(read)
    likely = [polygon for polygon in unread if mostly_text and polygon.score >= rules.min_confidence]
    rejected["unread"] += len(unread) - len(likely)
    return merge([*sure, *text, *likely]), +rejected


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
        detector, model = load_detector(self.det_model, self.rules.least_score, self.looks, confined=self.confined)
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
            return Detection(False, 0.0, model, rejected)
        mask = draw_mask(polygons, image.size, self.rules.dilate)
        boxes = {
            "image_id": image_id,
            "width": image.width,
            "height": image.height,
            "model": model,
            "polygons": [_as_json(polygon) for polygon in polygons],
        }
        write_file(self.data / boxes_path(image_id), json.dumps(boxes, sort_keys=True).encode() + b"\n")
        write_file(self.data / mask_path(image_id), to_png(mask))
        return Detection(True, area_frac(mask), model, rejected)


def _as_json(polygon: TextPolygon) -> dict[str, object]:
    described: dict[str, object] = {"points": polygon.points, "score": polygon.score, "scale": polygon.scale}
    return described | ({"turned": True} if polygon.turned else {})
