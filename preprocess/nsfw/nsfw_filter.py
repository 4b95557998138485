"""Stage 2: screen every raw image for NSFW content with DeepDanbooru, or on request with another model.

Reads   images.csv: path_raw; the raw files; a DeepDanbooru project (project.json, tags.txt, model-*.h5 or .keras)
Writes  images.csv: is_nsfw, nsfw_score, nsfw_tags, nsfw_threshold, nsfw_model, nsfw_run_id, nsfw_error; drops.csv

An image is flagged if the score of a tag in the table reaches its threshold. Later stages skip flagged images;
nsfw_unflag.py restores those that a person has cleared. Without --model-dir, the author's release v3 is downloaded once
(650 MB) and checked. Another model needs --trust-model-file, and runs in a process that cannot write. --tags FILE gives
another table as a JSON object, such as {"rating:explicit": 0.5, "nude": 0.9}.

Scores over 0.05 are recorded, so --redecide can apply other thresholds without the model. A tag that its table does not
name stays in nsfw_threshold as "unused", and a later --redecide can use it. If no tag of its table has a recorded
score, nsfw_score is an upper limit, at most 0.05.

--backend opennsfw needs no download: Yahoo's open_nsfw is in this stage's packages. It has one tag, "nsfw", and was
trained on photographs: its authors say that it is not for sketches and cartoons. It is used only on request, and
nsfw_model records which model screened an image.

    python preprocess/nsfw/nsfw_filter.py
    python preprocess/nsfw/nsfw_filter.py --root my-dataset --model-dir models/deepdanbooru-v3 --batch-size 32
    python preprocess/nsfw/nsfw_filter.py --redecide --threshold 0.3 --dry-run
    python preprocess/nsfw/nsfw_filter.py --backend opennsfw --threshold 0.6
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pokefa.errors import ImageError, InputError
from pokefa.images.weights import Trust, check_available
from pokefa.ledger.cells import Value
from pokefa.stage.check_step import has_finished
from pokefa.stage.options import (
    add_cluster_options,
    add_data_option,
    add_decoding_options,
    add_trust_options,
    positive_int,
    stage_parser,
    trust_from,
)
from pokefa.stage.overrides import UNFLAGGED
from pokefa.stage.rows import choose_ids, eligible_rows, filled
from pokefa.stage.runner import Row, StageRun, decode_rows, run_stage
from preprocess.nsfw.deepdanbooru import V3, WAYS_OUT, find_project
from preprocess.nsfw.opennsfw import TAG, find_weights
from preprocess.nsfw.screening import Screen, ScreenRows, spread_work

# rating:explicit has DeepDanbooru's own threshold for reporting tags. rating:questionable includes swimsuits and tight
# clothes, and "nude" includes creatures that never wear clothes, so both need a higher confidence.
TAG_THRESHOLDS = {
    "rating:explicit": 0.5,
    "rating:questionable": 0.8,
    "cum": 0.5,
    "nipples": 0.5,
    "nude": 0.7,
    "penis": 0.5,
    "pussy": 0.5,
    "sex": 0.5,
}

# The README of open_nsfw calls scores from here on NSFW with high probability.
OPENNSFW_THRESHOLDS = {TAG: 0.8}

# Per worker on a Ray cluster: more cores speed up one model less and less.
CPUS_PER_WORKER = 4

TABLES = {"deepdanbooru": TAG_THRESHOLDS, "opennsfw": OPENNSFW_THRESHOLDS}

RECORDED_OVER = 0.05
DIGITS = 4  # another batch size changes the seventh digit of a score, but must not change the record or the decision

log = logging.getLogger("pokefa")

UNUSED = "unused"  # the image was screened for the tag, but the deciding table does not name it

Scores = Mapping[str, float]
Thresholds = Mapping[str, float | str | None]  # UNUSED, or None if the model does not know the tag


def reached(scores: Scores, thresholds: Thresholds) -> list[str]:
    """Return the tags whose score is at least their threshold, the highest score first."""
    used = ((tag, threshold) for tag, threshold in thresholds.items() if isinstance(threshold, int | float))
    found = [tag for tag, threshold in used if scores.get(tag, 0.0) >= threshold]
    return sorted(found, key=lambda tag: (-scores[tag], tag))


def describe_scores(scores: Scores, thresholds: Thresholds) -> dict[str, Value]:
    """Return the cells with the scores of one image and the decision.

    Args:
        scores: score of every tag of the table that the model knows, 0 to 1.
    """
    scores = {tag: round(float(score), DIGITS) for tag, score in scores.items()}
    return {
        "is_nsfw": bool(reached(scores, thresholds)),
        "nsfw_score": max(scores.values()),
        "nsfw_tags": to_json({tag: score for tag, score in scores.items() if score > RECORDED_OVER}),
        "nsfw_threshold": to_json(thresholds),
    }


def known_thresholds(table: Mapping[str, float], tags: Sequence[str]) -> tuple[dict[str, float | None], list[str]]:
    """Return the table with None for tags that the model does not know, and those tags.

    Raises:
        InputError: it knows none of the tags.
    """
    known = set(tags)
    unknown = sorted(tag for tag in table if tag not in known)
    if len(unknown) == len(table):
        raise InputError(f"the model knows none of these tags ({', '.join(unknown)}): name others with --tags FILE")
    return {tag: threshold if tag in known else None for tag, threshold in table.items()}, unknown


def redecide_row(row: Row, table: Mapping[str, float]) -> dict[str, Value] | None:
    """Return the new cells of a screened row, or None if its record lacks a tag of the table.

    Tags that the table does not name stay on record, so that another table can use them.

    Raises:
        InputError: the record is damaged.
    """
    scores = recorded_scores(row)
    before = read_record(row, "nsfw_threshold", UNUSED)
    if any(tag not in before and tag not in scores for tag in table):
        return None
    unknown = {tag: None for tag, threshold in before.items() if threshold is None}
    if unknown.keys() >= table.keys():
        return None
    after: Thresholds = {**dict.fromkeys(before, UNUSED), **table, **unknown}
    # Scores that are not on record are at most RECORDED_OVER; if none is, the cell has the highest of them.
    highest = RECORDED_OVER if row["nsfw_score"] is None else min(float(row["nsfw_score"]), RECORDED_OVER)
    return {
        "is_nsfw": bool(reached(scores, after)),
        "nsfw_score": max((scores[tag] for tag in table if tag in scores), default=highest),
        "nsfw_threshold": to_json(after),
    }


def recorded_scores(row: Row) -> dict[str, float]:
    """Return the recorded scores of all tags that the image was screened for.

    Raises:
        InputError: the record is damaged.
    """
    return {tag: score for tag, score in read_record(row, "nsfw_tags").items() if isinstance(score, int | float)}


def read_record(row: Row, column: str, *words: str) -> dict[str, float | str | None]:
    """Return a JSON cell {tag: number, null or one of `words`}.

    Raises:
        InputError: the cell has another shape.
    """
    try:
        record = json.loads(str(row[column]))
        if isinstance(record, dict) and all(
            value is None or type(value) in (int, float) or value in words for value in record.values()
        ):
            return record
    except ValueError:
        pass
    raise InputError(f"images.csv, image {row['image_id']}: {column} is damaged: screen it again with --redo --ids")


def to_json(record: Thresholds) -> str:
    return json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def screen_images(
    run: StageRun, find_screen: Callable[[], Screen], table: Mapping[str, float], batch_size: int
) -> None:
    """Screen every pending image.

    Args:
        find_screen: finds and checks the model; called only if there is an image to screen.
    """
    rows = run.rows(["path_raw", "nsfw_override"])
    if not rows:
        return
    screen = find_screen()
    thresholds, unknown = known_thresholds(table, screen.tags)
    if unknown:
        log.warning("the model does not know these tags: %s", ", ".join(unknown))
    run.extra |= {"model": screen.label, "unknown_tags": unknown}
    tags = tuple(tag for tag in thresholds if tag not in unknown)
    pool, threads = spread_work(batch_size, run.options.workers or 1, run.options.node_threads)
    for row, scores in run.map(ScreenRows(run.data, screen, tags, batch_size, threads), rows, pool):
        if isinstance(scores, ImageError):
            run.fail(str(row["image_id"]), str(scores))
        else:
            record_decision(run, row, describe_scores(scores, thresholds) | {"nsfw_model": screen.label}, scores)


def redecide(run: StageRun, table: Mapping[str, float], backend: str) -> None:
    """Apply the table to the scores that `backend` recorded for every screened image; only changed rows are written.

    Scores of two models are not comparable, even for the same tag, so rows of the other backend stay unchanged.
    """
    columns = ["is_nsfw", "nsfw_score", "nsfw_tags", "nsfw_threshold", "nsfw_model", "nsfw_override"]
    screened = filled("is_nsfw") & filled("nsfw_tags") & filled("nsfw_threshold")
    table_now = run.table()
    frame = choose_ids(eligible_rows(table_now, run.step).filter(screened), run.named_ids(table_now), run.options.limit)
    run.seen = len(frame)
    incomplete = others = 0
    for row in decode_rows(frame, columns, run.step):
        if not str(row["nsfw_model"]).startswith(f"{backend}:"):
            others += 1
            continue
        values = redecide_row(row, table)
        if values is None:
            incomplete += 1
        elif all(row[name] == value for name, value in values.items()):
            run.counts["unchanged"] += 1
        else:
            record_decision(run, row, values, recorded_scores(row))
    if incomplete:
        run.counts["not_recorded"] = incomplete
        log.warning(
            "%d images are unchanged: not all of these tags are on record (%s), screen the images again with --redo",
            incomplete,
            ", ".join(table),
        )
    if others:
        run.counts["other_backend"] = others
        log.warning("%d images are unchanged: they were screened with another --backend than %s", others, backend)


def record_decision(run: StageRun, row: Row, values: Mapping[str, Value], scores: Scores) -> None:
    """Record one decision; a flagged image is a drop, unless a person has cleared it."""
    image_id = str(row["image_id"])
    if not values["is_nsfw"]:
        run.record(image_id, values, reason="clean")
    elif row["nsfw_override"] == UNFLAGGED:
        run.record(image_id, values, reason=UNFLAGGED)
    else:
        thresholds = json.loads(str(values["nsfw_threshold"]))
        detail = ", ".join(f"{tag} {scores[tag]:.4f} >= {thresholds[tag]}" for tag in reached(scores, thresholds))
        run.record(image_id, values, drop="nsfw", detail=detail)


def read_table(path: Path | None, threshold: float | None, backend: str = "deepdanbooru") -> dict[str, float]:
    """Return the table in `path`, or the backend's, with `threshold` for all tags if given.

    Raises:
        InputError: the file is not a JSON object of thresholds.
    """
    if path is None:
        return {tag: usual if threshold is None else threshold for tag, usual in TABLES[backend].items()}
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"--tags {path} cannot be read as JSON: {error}") from None
    if not isinstance(table, dict) or not table:
        raise InputError(f'--tags {path} is not a JSON object such as {{"rating:explicit": 0.5}}')
    for tag, value in table.items():
        if type(value) not in (int, float) or not RECORDED_OVER < value <= 1:
            raise InputError(f"--tags {path}: the threshold of {tag} is {value!r}, not a number over 0.05 and up to 1")
    return {tag: float(value) for tag, value in table.items()}


def threshold_of(text: str) -> float:
    """Parse a threshold over RECORDED_OVER, below which no scores are recorded, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not RECORDED_OVER < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0.05 and up to 1")
    return number


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--backend",
        choices=list(TABLES),
        default="deepdanbooru",
        help="the model; opennsfw was trained on photographs, not on drawings",
    )
    parser.add_argument("--model-dir", type=Path, metavar="DIR", help="DeepDanbooru project folder (default: download)")
    table = parser.add_mutually_exclusive_group()
    table.add_argument(
        "--threshold", type=threshold_of, metavar="X", help="the same threshold for every tag of the table"
    )
    table.add_argument("--tags", type=Path, metavar="FILE", help="another table: a JSON object {tag: threshold}")
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        default=8,
        metavar="N",
        help="images per call of the model; fewer need less memory",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="processes, each with its own model and a share of the cores (default: 1, and on a Ray cluster as many as "
        "fit)",
    )
    parser.for_one_run("redecide")
    parser.add_argument("--redecide", action="store_true", help="decide again from recorded scores, without the model")
    add_trust_options(parser)
    add_data_option(parser)
    add_decoding_options(parser)
    add_cluster_options(parser, "nsfw", cpus=CPUS_PER_WORKER)
    return parser


def check_model(args: argparse.Namespace) -> None:
    """Check that the model exists or can be downloaded.

    Raises:
        PokefaError: it cannot, or it needs --trust-model-file.
    """
    if args.backend == "opennsfw":
        find_weights()
    elif args.model_dir is not None:
        find_project(args.model_dir, Trust(args.trust_model_file, args.unconfined_model_file))
    elif not args.redecide and not has_finished(args.root, "nsfw_filter"):
        check_available(V3, ways_out=WAYS_OUT)


READY_CHECKS = (check_model,)  # of pokefa.stage.check_step


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.redecide and (args.redo or args.retry_errors or args.model_dir):
        parser.error("--redecide runs no model: remove --redo, --retry-errors and --model-dir")
    if args.backend == "opennsfw" and args.model_dir:
        parser.error("--model-dir is for DeepDanbooru: remove it, or --backend opennsfw")
    trust = trust_from(parser, args)
    find_screen = find_weights if args.backend == "opennsfw" else partial(find_project, args.model_dir, trust)

    def body(run: StageRun) -> None:
        table = read_table(args.tags, args.threshold, args.backend)
        run.settings.pop("threshold", None)
        run.settings["thresholds"] = {tag.replace(" ", "_"): value for tag, value in table.items()}
        if args.redecide:
            redecide(run, table, args.backend)
        else:
            screen_images(run, find_screen, table, args.batch_size)

    return run_stage("nsfw_filter", args, body)


if __name__ == "__main__":
    raise SystemExit(main())
