"""Stage 3: text is found (detect) and painted over (inpaint); `run` does both.

Text drops no image: it is painted over, and the resize stage takes the inpainted image where there is one.

Reads   images.csv: is_nsfw, nsfw_override, path_raw
Writes  images.csv: has_ocr, ocr_boxes_path, ocr_mask_path, ocr_area_frac, ocr_model, ocr_inpainted_path,
        ocr_inpainter, ocr_run_id, ocr_error
        data_stage/OCR_detection/boxes/<image_id>.json and masks/<image_id>.png, where there is text
        data_stage/OCR_inpainted/<image_id>.png, where there is text

The detector comes with the requirements. The weights of LaMa (205,669,692 bytes) are downloaded once; LAMA_MODEL
names others. Each worker holds a model of its own (1 GB and more), and the workers share the cores evenly.

    python preprocess/ocr/ocr_pipeline.py run
    python preprocess/ocr/ocr_pipeline.py detect --min-confidence 0.7 --limit 100
    LAMA_MODEL=weights/big-lama.pt python preprocess/ocr/ocr_pipeline.py inpaint --workers 2
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pokefa.engine import Pool, available_cores
from pokefa.options import number, options_from, positive_int, stage_parser
from pokefa.run import StageRun, run_stage
from pokefa.selection import STEPS
from preprocess.ocr.detect import DetectRows, TextRules, boxes_path, mask_path
from preprocess.ocr.inpaint import InpaintRows, Kind, find_inpainter, inpainted_path, weights_by_hand

# Four cores keep one model busy; a model in every core's own process would need more memory than most machines have.
CORES_PER_WORKER = 4


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Args:
        halves: `detect`, `inpaint` or both, in this order.
        det_model: a detector that PaddleOCR downloads; None for the embedded one.
        inpainter: which one paints over the text.
    """

    halves: tuple[str, ...]
    rules: TextRules
    det_model: str | None
    inpainter: Kind


def share_cores(workers: int | None) -> tuple[int, int]:
    """Return how many workers there are, and how many threads each may use so that together they fill the cores."""
    cores = available_cores()
    workers = workers or max(1, cores // CORES_PER_WORKER)
    return workers, max(1, cores // workers)


def do_halves(run: StageRun, plan: Plan) -> None:
    """Run the halves of the plan, one after the other.

    Raises:
        InputError: LAMA_MODEL names no file.
    """
    if "inpaint" in plan.halves and plan.inpainter == "lama":
        weights_by_hand()  # a wrong path is known before hours of detection, not after
    if "detect" in plan.halves:
        detect_text(run, plan)
    if "inpaint" in plan.halves:
        if "detect" in plan.halves:
            run.save()  # what was just found is pending for the other half once it stands in the table
        inpaint_text(run, plan)


def detect_text(run: StageRun, plan: Plan) -> None:
    """Look for text in every pending image."""
    workers, threads = share_cores(run.options.workers)
    work = DetectRows(run.root, plan.det_model, plan.rules, threads)
    rejected: Counter[str] = Counter()
    rows = run.rows(["path_raw"], STEPS["ocr_detect"])
    for row, found in run.map(work, rows, Pool(workers=workers)):
        image_id = str(row["image_id"])
        rejected += found.rejected
        files = [boxes_path(image_id), mask_path(image_id)]
        run.record(
            image_id,
            {
                "has_ocr": found.has_text,
                "ocr_boxes_path": files[0] if found.has_text else None,
                "ocr_mask_path": files[1] if found.has_text else None,
                "ocr_area_frac": round(found.area_frac, 6) if found.has_text else None,
                "ocr_model": found.model,
                # What an earlier run painted over followed another mask.
                "ocr_inpainted_path": None,
                "ocr_inpainter": None,
            },
            reason="text_found" if found.has_text else "no_text",
        )
        if not found.has_text:
            for path in (*files, inpainted_path(image_id)):
                (run.root / path).unlink(missing_ok=True)
    run.extra["rejected_polygons"] = dict(sorted(rejected.items()))


def inpaint_text(run: StageRun, plan: Plan) -> None:
    """Paint over the text of every pending image that has some."""
    step = STEPS["ocr_inpaint"]
    both = "detect" in plan.halves
    if both:
        step = replace(step, needs=())  # the other half has just been here; it made no columns if it had no rows
    rows = run.rows(["path_raw", "ocr_mask_path", "ocr_inpainted_path"], step)
    if both:
        # With --redo these hold all images with text; what was not detected anew in this run is not painted anew.
        rows = [row for row in rows if row["ocr_inpainted_path"] is None]
    if not rows:
        return
    model = find_inpainter(plan.inpainter)
    workers, threads = share_cores(run.options.workers)
    for row, path in run.map(InpaintRows(run.root, model, threads), rows, Pool(workers=workers)):
        cells = {"ocr_inpainted_path": path, "ocr_inpainter": model.label}
        run.record(str(row["image_id"]), cells, reason="inpainted")


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__)
    parser.add_argument("halves", choices=["detect", "inpaint", "run"], help="the first half, the second, or both")
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help=f"how many processes, each with its own model (default: one for every {CORES_PER_WORKER} cores)",
    )
    rules = TextRules()
    detect = parser.add_argument_group("detect")
    detect.add_argument(
        "--det-model", metavar="NAME", help="a detector that PaddleOCR downloads, instead of the embedded one"
    )
    detect.add_argument(
        "--min-confidence", type=number(0, 1), default=rules.min_confidence, metavar="P", help="least polygon score"
    )
    detect.add_argument(
        "--min-area-frac",
        type=number(0, 1),
        default=rules.min_area_frac,
        metavar="F",
        help="least area of a polygon, as a share of the image",
    )
    detect.add_argument(
        "--min-aspect",
        type=number(1),
        default=rules.min_aspect,
        metavar="R",
        help="least ratio of a polygon's longer to its shorter side: eyes and dots are round, words are not",
    )
    detect.add_argument(
        "--dilate",
        type=number(0, 1),
        default=rules.dilate,
        metavar="F",
        help="how far the mask reaches around the text, as a share of the text's height",
    )
    inpaint = parser.add_argument_group("inpaint")
    inpaint.add_argument("--inpainter", choices=["lama", "opencv"], default="lama", help="what paints over the text")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    halves = ("detect", "inpaint") if args.halves == "run" else (args.halves,)
    rules = TextRules(args.min_confidence, args.min_area_frac, args.min_aspect, args.dilate)
    plan = Plan(halves, rules, args.det_model, args.inpainter)
    return run_stage(f"ocr_{halves[0]}", lambda: options_from(args), lambda run: do_halves(run, plan), arguments=argv)


if __name__ == "__main__":
    raise SystemExit(main())
