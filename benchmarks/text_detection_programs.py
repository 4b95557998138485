"""Measures benchmarks/text_detection.py's detection on labelled images, in the ocr stage's environment.

`try_settings` runs the stage's own code on the labelled images of demo/art/text_set.py and measures what each setting
finds, and its processor time. Views and readings that several settings share are computed once and counted for each.
`draw` writes some of the images as JPEGs, for benchmarks/text_detection_speed.py.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from demo.art.text_set import Picture, draw_set
from pokefa.machine import available_cores
from preprocess.ocr.detect import LEAST_SCORE, TextRules, find_text
from preprocess.ocr.models import Detector, Reader, load_detector, load_reader
from preprocess.ocr.polygons import TextPolygon, draw_mask
from preprocess.ocr.views import Looks

# A text is found when the mask covers at least this share of its ink.
FOUND = 0.5

# Images in memory at once, per core.
HELD = 4


@dataclass(frozen=True)
class Setting:
    """A setting to try: the views, and what counts as text."""

    name: str
    looks: tuple[Looks, ...]
    rules: TextRules


SHRUNK = Looks((1.0,), max_side=960)
PLAIN, HALF, CLOSER = Looks((1.0,)), Looks((0.5,)), Looks((1.5,))
SETTINGS = (
    Setting("longer side at most 960", (SHRUNK,), TextRules()),
    Setting("scale 1", (PLAIN,), TextRules()),
    Setting("scales 1 and 0.5, by score and shape (--verify-text none)", (PLAIN, HALF), TextRules(verify="none")),
    Setting("scales 1 and 0.5 (default)", (PLAIN, HALF), TextRules()),
    Setting("scales 1, 0.5 and 1.5", (PLAIN, HALF, CLOSER), TextRules()),
)


def try_settings(pictures: int) -> dict[str, Any]:
    """Return what each setting finds in the first images of the set, and its processor seconds per image."""
    cores = available_cores()
    looks = dict.fromkeys(look for setting in SETTINGS for look in setting.looks)
    detectors = {look: load_detector(None, LEAST_SCORE, look)[0] for look in looks}
    reader = load_reader()
    results = {setting.name: _Result() for setting in SETTINGS}
    with ThreadPoolExecutor(cores) as threads:
        for start in range(0, pictures, HELD * cores):
            drawn = list(draw_set(range(start, min(start + HELD * cores, pictures))))
            for picture, found in zip(drawn, threads.map(lambda one: _try(one, detectors, reader), drawn), strict=True):
                for name, (polygons, seconds) in found.items():
                    results[name].add(picture, polygons, seconds)
            print(f"{start + len(drawn)} of {pictures} pictures", file=sys.stderr, flush=True)
    return {name: result.as_json() for name, result in results.items()}


def _try(
    picture: Picture, detectors: dict[Looks, Detector], reader: Reader
) -> dict[str, tuple[list[TextPolygon], float]]:
    """Return what each setting finds in an image, and the seconds of this thread that it takes."""
    seen: dict[Looks, list[TextPolygon]] = {}
    costs: dict[Looks, float] = {}
    for look, detector in detectors.items():
        began = time.thread_time()
        seen[look] = detector(picture.image)
        costs[look] = time.thread_time() - began
    read: dict[TextPolygon, tuple[tuple[str, float], float]] = {}
    results = {}
    for setting in SETTINGS:
        looked = [polygon for look in setting.looks for polygon in seen[look]]
        asked: list[TextPolygon] = []

        def found_before(_: Image.Image, looked: list[TextPolygon] = looked) -> list[TextPolygon]:
            return looked

        def ask(image: Image.Image, polygons: Sequence[TextPolygon], asked: list[TextPolygon] = asked) -> Any:
            for polygon in polygons:
                if polygon not in read:
                    began = time.thread_time()
                    [line] = reader(image, [polygon])
                    read[polygon] = line, time.thread_time() - began
            asked += polygons
            return [read[polygon][0] for polygon in polygons]

        found, _ = find_text(
            picture.image,
            found_before,
            setting.rules,
            None if setting.rules.verify == "none" else ask,
        )
        seconds = sum(costs[look] for look in setting.looks) + sum(read[polygon][1] for polygon in asked)
        results[setting.name] = found, seconds
    return results


class _Result:
    """The findings of one setting, image by image."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, str, str], list[bool]] = defaultdict(list)
        self.false_alarms: Counter[str] = Counter()
        self.without_text = 0
        self.seconds = 0.0
        self.pictures = 0

    def add(self, picture: Picture, polygons: Sequence[TextPolygon], seconds: float) -> None:
        self.seconds += seconds
        self.pictures += 1
        if not picture.writings:
            self.without_text += 1
            self.false_alarms[picture.ground] += bool(polygons)
            return
        mask = draw_mask(polygons, picture.image.size, TextRules().dilate)
        for writing in picture.writings:
            kind = f"{writing.kind}, {picture.ground}"
            self.found[writing.height, kind, writing.font].append(writing.covered(mask) >= FOUND)

    def as_json(self) -> dict[str, Any]:
        return {
            "found": [[*key, sum(these), len(these)] for key, these in sorted(self.found.items())],
            "false_alarms": dict(+self.false_alarms),
            "without_text": self.without_text,
            "seconds": self.seconds / self.pictures,
        }


def draw(pictures: int, folder: str) -> dict[str, int]:
    """Write the first images of the set, half of them with text."""
    for picture in draw_set(range(pictures)):
        picture.image.save(Path(folder) / f"{picture.number:03}.jpg", quality=92)
    return {"pictures": pictures}
