"""Stage 3: finds text (detect) and paints it over (inpaint); `run` does both.

Text drops no image: it is painted over, and the resize stage uses the inpainted image if there is one. An image in
which text covers more than --max-text-frac stays as it is: too little of the original would remain. An image is
doubtful if the mask is large or the text may be none. It waits for a person: metadata/review.py --stage ocr shows it,
and ocr_unflag.py sets whether its original is used or it is painted over.

Reads   images.csv: is_nsfw, nsfw_override, path_raw
Writes  images.csv: has_ocr, ocr_boxes_path, ocr_mask_path, ocr_area_frac, ocr_text_dominated, ocr_model,
        ocr_doubt, ocr_text, ocr_inpainted_path, ocr_inpainter, ocr_run_id, ocr_error
        data_stage/OCR_detection/boxes/<image_id>.json and masks/<image_id>.png, where there is text
        data_stage/OCR_inpainted/<image_id>.png, where there is text

The detector is part of the requirements. The weights of LaMa (205,669,692 bytes) are downloaded once; LAMA_MODEL names
another file. A model file other than the pinned ones, and any --det-model, needs --trust-model-file and runs in a
process that cannot write. Each worker loads its own model (1 GB or more), and the workers share the cores evenly.

    python preprocess/ocr/ocr_pipeline.py run
    python preprocess/ocr/ocr_pipeline.py detect --scales 1 0.5 1.5 --limit 100
    python preprocess/ocr/ocr_pipeline.py inpaint --paint-doubtful
    LAMA_MODEL=weights/big-lama.pt python preprocess/ocr/ocr_pipeline.py inpaint --workers 2
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from pokefa.engine.work import Pool
from pokefa.errors import ImageError
from pokefa.images.weights import Trust, check_available, check_trust
from pokefa.machine import available_cores
from pokefa.setup.steps import STEPS
from pokefa.stage.check_step import has_finished
from pokefa.stage.options import (
    add_cluster_options,
    add_data_option,
    add_decoding_options,
    add_trust_options,
    number,
    positive_int,
    stage_parser,
    trust_from,
    whole_number,
)
from pokefa.stage.rows import DOUBTFUL, SCREENED, filled
from pokefa.stage.runner import StageRun, run_stage
from preprocess.ocr.detect import Detection, DetectRows, TextRules, Verify, boxes_path, mask_path, spread_rows
from preprocess.ocr.inpaint import InpaintRows, inpainted_path
from preprocess.ocr.inpainters import BIG_LAMA, WAYS_OUT, InpainterModel, Kind, find_inpainter, find_named_weights
from preprocess.ocr.models import DETECTOR, READER, embedded_file
from preprocess.ocr.views import Looks

# Four cores keep one model busy; one model per core would need more memory than most machines have.
CORES_PER_WORKER = 4


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Args:
        halves: `detect`, `inpaint` or both, in this order.
        det_model: a detector that PaddleOCR downloads; None for the embedded one.
        inpainter: which one paints over the text.
        paint_doubtful: whether to paint over doubtful masks before a person has reviewed them.
        trust: what unpinned model files may do.
    """

    halves: tuple[str, ...]
    looks: Looks
    rules: TextRules
    det_model: str | None
    inpainter: Kind
    paint_doubtful: bool
    trust: Trust


def share_cores(workers: int | None, threads: int | None = None) -> tuple[int, int]:
    """Return the number of workers, and the threads of each, so that together they use all cores.

    Args:
        threads: per worker, if they do not share this machine's cores.
    """
    cores = available_cores()
    workers = workers or max(1, cores // CORES_PER_WORKER)
    return workers, threads or max(1, cores // workers)


def do_halves(run: StageRun, plan: Plan) -> None:
    """Run the halves of the plan, one after the other.

    Raises:
        InputError: LAMA_MODEL names no file, or one that is not trusted.
    """
    named = None
    if "inpaint" in plan.halves and plan.inpainter == "lama":
        named = find_named_weights(plan.trust)  # report a wrong file before hours of detection, not after
    if "detect" in plan.halves:
        detect_text(run, plan)
    if "inpaint" in plan.halves:
        if "detect" in plan.halves:
            run.save()  # the other half reads the results from the table
        inpaint_text(run, plan, named)
    if not run.options.dry_run:
        run.save()
        waiting = DOUBTFUL & ~filled("ocr_inpainted_path")
        run.extra["waiting_for_review"] = len(run.table(STEPS["ocr_detect"]).filter(SCREENED & waiting))


def unchecked(det_model: str) -> str:
    return f"--det-model {det_model} is downloaded unchecked"


def detect_text(run: StageRun, plan: Plan) -> None:
    """Detect text in every pending image."""
    workers, threads = share_cores(run.options.workers, run.options.node_threads)
    confined = plan.det_model is not None and check_trust(unchecked(plan.det_model), plan.trust)
    work = DetectRows(run.data, plan.det_model, plan.looks, plan.rules, threads, confined)
    rejected: Counter[str] = Counter()
    doubts: Counter[str] = Counter()
    rows = run.rows(["path_raw"], STEPS["ocr_detect"])
    for row, found in run.map(work, rows, spread_rows(len(rows), workers, threads)):
        image_id = str(row["image_id"])
        if isinstance(found, ImageError):
            run.fail(image_id, str(found))
            continue
        rejected += found.rejected
        if found.doubt:
            doubts[found.doubt] += 1
        files = [boxes_path(image_id), mask_path(image_id)]
        run.record(
            image_id,
            {
                "has_ocr": found.has_text,
                "ocr_boxes_path": files[0] if found.has_text else None,
                "ocr_mask_path": files[1] if found.has_text else None,
                "ocr_area_frac": round(found.area_frac, 6) if found.has_text else None,
                "ocr_text_dominated": found.dominated if found.has_text else None,
                "ocr_doubt": found.doubt,
                "ocr_text": json.dumps(found.words, ensure_ascii=False) if found.words else None,
                "ocr_model": found.model,
                # The earlier inpainted image followed another mask.
                "ocr_inpainted_path": None,
                "ocr_inpainter": None,
            },
            reason=reason_for(found),
        )
        stale = [] if found.has_text else files
        if found.dominated or found.doubt or not found.has_text:
            stale = [*stale, inpainted_path(image_id)]
        for path in stale:
            (run.data / path).unlink(missing_ok=True)
    run.extra["rejected_polygons"] = dict(sorted(rejected.items()))
    run.extra["doubtful"] = dict(sorted(doubts.items()))


def reason_for(found: Detection) -> str:
    """Return the reason slug of a detection."""
    if not found.has_text:
        return "no_text"
    return "text_dominated" if found.dominated else "text_doubtful" if found.doubt else "text_found"


def inpaint_text(run: StageRun, plan: Plan, named: InpainterModel | None) -> None:
    """Paint over the text of every pending image that has some.

    Args:
        named: LaMa with the weights that the user names.
    """
    step = STEPS["ocr_inpaint"]
    both = "detect" in plan.halves
    if plan.paint_doubtful:
        step = replace(step, rows=("screened", "masked"))
    # Detection has just run; without rows it created no columns.
    rows = run.rows(["path_raw", "ocr_mask_path", "ocr_inpainted_path"], step, require=not both)
    if both:
        # With --redo these are all images with text; only paint those that this run detected.
        rows = [row for row in rows if row["ocr_inpainted_path"] is None]
    if not rows:
        return
    model = named or find_inpainter(plan.inpainter)
    workers, threads = share_cores(run.options.workers, run.options.node_threads)
    for row, path in run.map(InpaintRows(run.data, model, threads), rows, Pool(workers=workers)):
        cells = {"ocr_inpainted_path": path, "ocr_inpainter": model.label}
        run.record(str(row["image_id"]), cells, reason="inpainted")


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__)
    parser.add_subcommands("halves", STEPS["ocr_detect"].subcommands, "the first half, the second, or both")
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help=f"number of processes, each with its own model (default: one per {CORES_PER_WORKER} cores)",
    )
    add_detect_flags(parser.add_argument_group("detect"))
    inpaint = parser.add_argument_group("inpaint")
    inpaint.add_argument("--inpainter", choices=["lama", "opencv"], default="lama", help="how to paint over the text")
    inpaint.add_argument(
        "--paint-doubtful",
        action="store_true",
        help="also paint over doubtful masks that no person has reviewed",
    )
    add_trust_options(parser)
    add_data_option(parser)
    add_decoding_options(parser)
    add_cluster_options(parser, "ocr", cpus=CORES_PER_WORKER)
    return parser


def add_detect_flags(group: argparse._ArgumentGroup) -> None:
    """Add the flags of detection; their defaults come from the tables of benchmarks/text_detection.py."""
    looks, rules = Looks(), TextRules()
    group.add_argument(
        "--det-model", metavar="NAME", help="a detector that PaddleOCR downloads, instead of the embedded one"
    )
    group.add_argument(
        "--scales",
        type=number(0.1, 4),
        nargs="+",
        default=list(looks.scales),
        metavar="S",
        help="scales at which the image is examined, one after the other; time grows with the square",
    )
    group.add_argument(
        "--max-side",
        type=whole_number(64),
        default=looks.max_side,
        metavar="PX",
        help="maximum longer side for detection: larger images are shrunk",
    )
    group.add_argument(
        "--tile",
        type=whole_number(256, 4000),
        default=looks.tile,
        metavar="PX",
        help="larger images are divided into overlapping tiles of this side; memory grows with its square",
    )
    group.add_argument("--turns", action="store_true", help="also detect after a quarter turn; takes twice the time")
    for flag, default, letter, text in (
        ("--min-plausible", rules.min_plausible, "P", "minimum plausibility of a polygon to be text"),
        (
            "--min-doubtful",
            rules.min_doubtful,
            "P",
            "minimum plausibility to be possible text, which makes the image doubtful",
        ),
        ("--max-mask-frac", rules.max_mask_frac, "F", "an image is doubtful if more than this share is masked"),
        ("--min-area-frac", rules.min_area_frac, "F", "minimum area of a polygon, as a share of the image"),
        ("--dilate", rules.dilate, "F", "how far the mask may extend around text, as a share of its height"),
        ("--max-text-frac", rules.max_text_frac, "F", "an image is not painted over if more than this share is masked"),
    ):
        group.add_argument(flag, type=number(0, 1), default=default, metavar=letter, help=text)
    group.add_argument(
        "--verify-text",
        choices=get_args(Verify),
        default=rules.verify,
        help="all: read likely candidates before deciding; none: decide by score and shape alone, which is faster",
    )


def check_detector(args: argparse.Namespace) -> None:
    """Check that the text models are available before an earlier stage starts.

    Raises:
        PokefaError: they are not, or one needs --trust-model-file.
    """
    if args.det_model is not None:
        check_trust(unchecked(args.det_model), Trust(args.trust_model_file, args.unconfined_model_file))
    for model in (DETECTOR, READER):
        embedded_file(model)


def check_weights(args: argparse.Namespace) -> None:
    """Check that LaMa's weights are available, or can be downloaded, before an earlier stage starts.

    Raises:
        PokefaError: they are not, or need --trust-model-file.
    """
    if args.halves != "detect" and args.inpainter == "lama":
        named = find_named_weights(Trust(args.trust_model_file, args.unconfined_model_file))
        if named is None and not has_finished(args.root, "ocr_detect", "ocr_inpaint"):
            check_available(BIG_LAMA, ways_out=WAYS_OUT)


READY_CHECKS = (check_detector, check_weights)  # for pokefa.stage.check_step


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    trust = trust_from(parser, args)
    halves = ("detect", "inpaint") if args.halves == "run" else (args.halves,)
    looks = Looks(tuple(args.scales), args.max_side, args.tile, turns=args.turns)
    rules = TextRules(
        min_plausible=args.min_plausible,
        min_doubtful=min(args.min_plausible, args.min_doubtful),
        max_mask_frac=args.max_mask_frac,
        min_area_frac=args.min_area_frac,
        verify=args.verify_text,
        dilate=args.dilate,
        max_text_frac=args.max_text_frac,
    )
    plan = Plan(halves, looks, rules, args.det_model, args.inpainter, args.paint_doubtful, trust)
    return run_stage(f"ocr_{halves[0]}", args, lambda run: do_halves(run, plan))


if __name__ == "__main__":
    raise SystemExit(main())
