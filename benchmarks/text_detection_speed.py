"""The speed of text detection, for benchmarks/text_detection.py, in the ocr stage's environment.

It compares the stage's worker, from files to boxes and masks, with bare PaddleOCR calls on prepared arrays: the same
inputs, in the same engine. Start-up is excluded.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pokefa.images.files import open_image
from pokefa.machine import available_cores
from pokefa.stage.runner import Row
from preprocess.ocr.detect import LEAST_SCORE, DetectRows, TextRules, find_text
from preprocess.ocr.models import (
    DETECTOR,
    DETECTOR_SETTINGS,
    LARGEST_SIDE,
    READER,
    EmbeddedModel,
    load_detector,
    load_reader,
    model_folder,
    reader_settings,
    straighten,
)
from preprocess.ocr.polygons import TextPolygon
from preprocess.ocr.views import Looks, views_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Inputs = list[list[NDArray[np.uint8]]]

STAGE = "the stage as it comes"
UNREAD_STAGE = "the stage, --verify-text none"
BARE = "bare detection calls"
BARE_AND_READER = "bare detection and reading calls"
CORE_EACH = "bare detection calls, a picture for each core"

WARM_UP = 4  # images processed before the clock starts


def time_stage(folder: str, rounds: int) -> dict[str, Any]:
    """Return images per second of the stage's worker and of bare calls, and the worker's peak memory.

    The bare calls use all cores for one image, as by default. Where the stage reads, they read the same crops.
    """
    cores = available_cores()
    paths = sorted(Path(folder).glob("*.jpg"))
    places = range(len(paths))
    with ThreadPoolExecutor(cores) as threads:
        rules = {STAGE: TextRules(), UNREAD_STAGE: TextRules(verify="none")}
        runs = {name: stage_run(paths, rules[name], cores) for name in rules}
        runs[STAGE](places)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        views, lines = inputs(paths)
        detect = bare("TextDetection", DETECTOR, DETECTOR_SETTINGS, cores)
        read = bare("TextRecognition", READER, reader_settings(), cores)
        alone = bare("TextDetection", DETECTOR, DETECTOR_SETTINGS, 1)
        runs[BARE] = lambda places: [detect(views[place]) for place in places]
        runs[BARE_AND_READER] = lambda places: [(detect(views[place]), read(lines[place])) for place in places]
        runs[CORE_EACH] = lambda places: list(threads.map(alone, (views[place] for place in places)))
        return {"rounds": time_rounds(runs, len(paths), rounds), "peak": peak}


def stage_run(paths: Sequence[Path], rules: TextRules, cores: int) -> Callable[[Sequence[int]], object]:
    """Return a function that makes a worker of the stage detect text in the files at some indices of `paths`."""
    root = paths[0].parent
    rows: list[Row] = [{"image_id": f"{number:032x}", "path_raw": path.name} for number, path in enumerate(paths)]
    work = DetectRows(root, None, Looks(), rules, cores)()
    return lambda places: work([rows[place] for place in places])


def inputs(paths: Sequence[Path]) -> tuple[Inputs, Inputs]:
    """Return the stage's inputs to its detector, and to its reader, for each file; all in BGR."""
    import numpy as np

    detector, _ = load_detector(None, LEAST_SCORE, Looks())
    reader = load_reader()
    views, lines = [], []
    for path in paths:
        image = open_image(path)
        bgr = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        views.append([view.cut(bgr) for view in views_of(image.size, Looks())])
        asked: list[TextPolygon] = []

        def read(
            image: Image.Image, polygons: Sequence[TextPolygon], asked: list[TextPolygon] = asked
        ) -> list[tuple[str, float]]:
            asked.extend(polygons)
            return reader(image, polygons)

        find_text(image, detector, TextRules(), read)
        lines.append([line for polygon in asked for line in straighten(bgr, polygon)])
    return views, lines


def bare(
    kind: str, model: EmbeddedModel, settings: Mapping[str, Any], threads: int
) -> Callable[[Sequence[NDArray[np.uint8]]], object]:
    """Return a function that calls a PaddleOCR model on one array after the other."""
    import paddleocr

    options = {"limit_side_len": LARGEST_SIDE, "limit_type": "max", "box_thresh": LEAST_SCORE}
    with model_folder(model, dict(settings)) as folder:
        called = getattr(paddleocr, kind)(
            model_name=model.name,
            model_dir=folder,
            engine="onnxruntime",
            device="cpu",
            engine_config={"intra_op_num_threads": threads, "inter_op_num_threads": 1},
            **(options if kind == "TextDetection" else {}),
        )
    return lambda arrays: [called.predict(array) for array in arrays]


def time_rounds(
    runs: Mapping[str, Callable[[Sequence[int]], object]], pictures: int, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return (seconds, processor seconds) per image of each run, with all runs in every round."""
    for run in runs.values():
        run(range(min(WARM_UP, pictures)))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter(), time.process_time()
            run(range(pictures))
            took = (time.perf_counter() - began[0]) / pictures, (time.process_time() - began[1]) / pictures
            found[name].append(took)
            print(f"round {number + 1} of {rounds}: {name}: {took[0]:.2f} s", file=sys.stderr, flush=True)
    return found
