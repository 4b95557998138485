"""The programs of benchmarks/text_detection.py, for the environment of the ocr stage. The last line is JSON.

    python -m benchmarks.text_detection_programs settings --pictures 20
    python -m benchmarks.text_detection_programs speed --pictures 4 --rounds 1

`settings` runs the stage's own code on the labelled pictures of demo/text_set.py: what each setting finds, and what it
costs. Looks that several settings share are taken once, and each look is timed by itself. `speed` times the stage's
path from file to files beside bare PaddleOCR calls on arrays that lie ready, picture by picture in turns. Neither
counts its start-up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from demo.text_set import Picture, draw_set
from pokefa.engine import Work, available_cores
from pokefa.run import Row
from preprocess.ocr.detect import Detection, DetectRows, TextRules, find_text
from preprocess.ocr.models import DETECTOR, DETECTOR_SETTINGS, embedded_file, load_detector, load_reader
from preprocess.ocr.polygons import TextPolygon, draw_mask
from preprocess.ocr.views import Looks

# A writing is found when the mask covers at least this share of its ink.
FOUND = 0.5


@dataclass(frozen=True)
class Setting:
    """What is tried: the looks that are taken, and what counts as text."""

    name: str
    looks: tuple[Looks, ...]
    rules: TextRules


SHRUNK = Looks((1.0,), max_side=960)
PLAIN = Looks((1.0,))
CLOSER = Looks((1.5,))
BY_SCORE = TextRules(verify="none", min_confidence=0.6, min_aspect=1.75)
DOUBTFUL = TextRules(verify="doubtful")
SETTINGS = (
    Setting("longer side at most 960, by score and shape", (SHRUNK,), BY_SCORE),
    Setting("scale 1, by score and shape", (PLAIN,), BY_SCORE),
    Setting("longer side at most 960, doubtful ones read", (SHRUNK,), DOUBTFUL),
    Setting("scale 1, doubtful ones read (default)", (PLAIN,), DOUBTFUL),
    Setting("scale 1, all read", (PLAIN,), TextRules(verify="all")),
    Setting("scales 1 and 1.5, doubtful ones read", (PLAIN, CLOSER), DOUBTFUL),
)


def try_settings(pictures: int) -> dict[str, Any]:
    """Return what each setting finds in the first pictures of the set, and its seconds per picture."""
    threads = available_cores()
    least = min(setting.rules.least_score for setting in SETTINGS)
    looks = list(dict.fromkeys(look for setting in SETTINGS for look in setting.looks))
    detectors = {look: load_detector(None, threads, least, look)[0] for look in looks}
    reader = load_reader(threads)
    results = {setting.name: _Result() for setting in SETTINGS}
    for picture in draw_set(range(pictures)):
        seen: dict[Looks, list[TextPolygon]] = {}
        costs: dict[Looks, float] = {}
        for look in looks:
            began = time.perf_counter()
            seen[look] = detectors[look](picture.image)
            costs[look] = time.perf_counter() - began
        for setting in SETTINGS:
            found = [polygon for look in setting.looks for polygon in seen[look]]
            found = [polygon for polygon in found if polygon.score >= setting.rules.least_score]
            began = time.perf_counter()
            ask = None if setting.rules.verify == "none" else reader
            polygons, _ = find_text(picture.image, partial(_as_found, found), setting.rules, ask)
            seconds = time.perf_counter() - began + sum(costs[look] for look in setting.looks)
            results[setting.name].add(picture, polygons, setting.rules, seconds)
        print(f"picture {picture.number + 1} of {pictures}", file=sys.stderr, flush=True)
    return {name: result.as_json() for name, result in results.items()}


def _as_found(polygons: list[TextPolygon], image: Image.Image) -> list[TextPolygon]:
    return polygons


class _Result:
    """What one setting found, picture by picture."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, str, str], list[bool]] = defaultdict(list)
        self.false_alarms: Counter[str] = Counter()
        self.without_text = 0
        self.seconds = 0.0
        self.pictures = 0

    def add(self, picture: Picture, polygons: Sequence[TextPolygon], rules: TextRules, seconds: float) -> None:
        self.seconds += seconds
        self.pictures += 1
        if not picture.writings:
            self.without_text += 1
            self.false_alarms[picture.ground] += bool(polygons)
            return
        mask = draw_mask(polygons, picture.image.size, rules.dilate)
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


def compare_speed(pictures: int, rounds: int) -> dict[str, list[float]]:
    """Return images per second of the stage's path and of bare PaddleOCR calls, one number for each round."""
    import numpy as np
    from paddleocr import TextDetection

    threads = available_cores()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # One look at scale 1 takes pictures up to a tile as they are: the same input as that of the bare calls.
        chosen = [picture for picture in draw_set(range(4 * pictures)) if max(picture.image.size) <= Looks().tile]
        arrays: list[Any] = []
        rows: list[Row] = []
        for picture in chosen[:pictures]:
            picture.image.save(root / f"{picture.number}.jpg", quality=92)
            with Image.open(root / f"{picture.number}.jpg") as opened:
                arrays.append(np.ascontiguousarray(np.asarray(opened)[:, :, ::-1]))
            rows.append({"image_id": f"{picture.number:032x}", "path_raw": f"{picture.number}.jpg"})
        (root / "inference.yml").write_text(json.dumps(DETECTOR_SETTINGS))
        (root / "inference.onnx").write_bytes(embedded_file(DETECTOR).read_bytes())
        bare = TextDetection(
            model_name=DETECTOR.name,
            model_dir=folder,
            engine="onnxruntime",
            device="cpu",
            engine_config={"intra_op_num_threads": threads, "inter_op_num_threads": 1},
            limit_side_len=Looks().tile,
            limit_type="max",
            box_thresh=TextRules().least_score,
        )
        runs: dict[str, Callable[[int], object]] = {
            "bare PaddleOCR calls on ready arrays": lambda place: bare.predict(arrays[place])
        }
        for name, rules in (
            ("the stage's path, --verify-text none", TextRules(verify="none", min_confidence=TextRules().least_score)),
            ("the stage's path, as it comes", TextRules()),
        ):
            work = DetectRows(root, None, PLAIN, rules, threads)()
            runs[name] = partial(_detect, work, rows)
        for run in runs.values():
            run(0)
        speeds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            seconds: dict[str, list[float]] = {name: [] for name in runs}
            for place in range(len(rows)):
                for name, run in runs.items():
                    began = time.perf_counter()
                    run(place)
                    seconds[name].append(time.perf_counter() - began)
            for name, these in seconds.items():
                speeds[name].append(1 / statistics.mean(these))
        return speeds


def _detect(work: Work[Row, Detection], rows: Sequence[Row], place: int) -> object:
    return work([rows[place]])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=["settings", "speed"], help="what to run")
    parser.add_argument("--pictures", type=int, required=True, metavar="N", help="how many pictures")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="how often the speed is measured")
    args = parser.parse_args(argv)
    result = try_settings(args.pictures) if args.program == "settings" else compare_speed(args.pictures, args.rounds)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
