"""Stage 2: screen every raw image for NSFW content with DeepDanbooru.

Reads   images.csv: path_raw; the raw files; a DeepDanbooru project (project.json, tags.txt, model-*.h5 or .keras)
Writes  images.csv: is_nsfw, nsfw_score, nsfw_tags, nsfw_threshold, nsfw_model, nsfw_run_id, nsfw_error; drops.csv

An image is flagged when one of the tags of a table reaches its threshold. Without --model-dir the author's release v3
is downloaded once (650 MB) and checked. Scores over 0.05 of the table are recorded: --redecide applies other thresholds
without the model. Flagged images leave the later stages; nsfw_unflag.py brings back those that a person has cleared.
With --tags FILE the table is a JSON object, as {"rating:explicit": 0.5, "nude": 0.9}.

    python preprocess/nsfw/nsfw_filter.py
    python preprocess/nsfw/nsfw_filter.py --root my-dataset --model-dir models/deepdanbooru-v3 --batch-size 32
    python preprocess/nsfw/nsfw_filter.py --redecide --threshold 0.3 --dry-run
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pokefa.columns import Value
from pokefa.engine import Pool, Work, available_cores
from pokefa.errors import InputError
from pokefa.images import ImageError, open_image
from pokefa.options import options_from, positive_int, stage_parser
from pokefa.overrides import UNFLAGGED
from pokefa.run import Row, StageRun, decode_rows, run_stage
from pokefa.selection import choose_ids, eligible_rows, filled
from preprocess.nsfw.deepdanbooru import Project, find_project, load_model, prepare

# rating:explicit at the threshold that DeepDanbooru itself reports tags from. rating:questionable also means swimsuits
# and tight clothes, and "nude" an undressed trainer as much as a creature that never wore anything: both must be surer.
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

RECORDED_OVER = 0.05
DIGITS = 4  # a batch of another size changes a score in its seventh digit; the record and the decision must not change

# A thread cannot be stopped in the middle of a batch, so what it was at may as well be kept.
GRACE_S = 300.0

log = logging.getLogger("pokefa")

Scores = Mapping[str, float]
Thresholds = Mapping[str, float | None]  # None: the model does not know the tag


def reached(scores: Scores, thresholds: Thresholds) -> list[str]:
    """Return the tags whose score is at least their threshold, the highest score first."""
    found = [tag for tag, threshold in thresholds.items() if threshold and scores.get(tag, 0.0) >= threshold]
    return sorted(found, key=lambda tag: (-scores[tag], tag))


def describe_scores(scores: Scores, thresholds: Thresholds) -> dict[str, Value]:
    """Return the cells that record the scores of one image and what they decide.

    Args:
        scores: of every tag of the table that the model knows, 0 to 1.
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
        InputError: it knows none of them.
    """
    known = set(tags)
    unknown = sorted(tag for tag in table if tag not in known)
    if len(unknown) == len(table):
        raise InputError(f"the model knows no tag of the table ({', '.join(unknown)}): name others with --tags FILE")
    return {tag: threshold if tag in known else None for tag, threshold in table.items()}, unknown


def redecide_row(row: Row, table: Mapping[str, float]) -> dict[str, Value] | None:
    """Return the new is_nsfw and nsfw_threshold of a screened row, or None where its record lacks a tag of the table.

    Raises:
        InputError: the record is damaged.
    """
    scores = read_record(row, "nsfw_tags")
    before = read_record(row, "nsfw_threshold")
    if any(tag not in before and tag not in scores for tag in table):
        return None
    after = {tag: threshold if before.get(tag, 1.0) is not None else None for tag, threshold in table.items()}
    if not any(after.values()):
        return None
    recorded = {tag: score for tag, score in scores.items() if score is not None}
    return {"is_nsfw": bool(reached(recorded, after)), "nsfw_threshold": to_json(after)}


def read_record(row: Row, column: str) -> dict[str, float | None]:
    """Return a JSON cell {tag: number or null}.

    Raises:
        InputError: the cell holds something else.
    """
    try:
        record = json.loads(str(row[column]))
        if isinstance(record, dict) and all(value is None or type(value) in (int, float) for value in record.values()):
            return record
    except ValueError:
        pass
    raise InputError(f"images.csv, image {row['image_id']}: {column} is damaged: screen it again with --redo --ids")


def to_json(record: Mapping[str, float | None]) -> str:
    return json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class ScreenRows:
    """The worker: decodes a batch of rows and asks the model for the scores of `tags`.

    Its threads share one model, which takes one batch at a time: while it works, the other threads decode theirs.
    """

    root: Path
    project: Project
    tags: tuple[str, ...]

    def __call__(self) -> Work[Row, dict[str, float] | ImageError]:
        import numpy as np

        model = load_model(self.project)
        places = [self.project.tags.index(tag) for tag in self.tags]

        def screen(rows: Sequence[Row]) -> list[dict[str, float] | ImageError]:
            results: dict[int, dict[str, float] | ImageError] = {}
            pictures: dict[int, np.ndarray] = {}
            for number, row in enumerate(rows):
                # A file that cannot be opened is a result: raised, it would make the engine redo its whole batch.
                try:
                    image = open_image(self.root / str(row["path_raw"]))
                    pictures[number] = prepare(image, model.width, model.height)
                except ImageError as error:
                    results[number] = error
            if pictures:
                scores = model.scores(np.stack(list(pictures.values())))[:, places]
                if not np.isfinite(scores).all():
                    raise ValueError("the model's scores are not finite")
                for number, line in zip(pictures, scores.tolist(), strict=True):
                    results[number] = dict(zip(self.tags, line, strict=True))
            return [results[number] for number in range(len(rows))]

        return screen


def screen_images(run: StageRun, table: Mapping[str, float], model_dir: Path | None, batch_size: int) -> None:
    """Screen every pending image."""
    rows = run.rows(["path_raw", "nsfw_override"])
    if not rows:
        return
    project = find_project(model_dir)
    thresholds, unknown = known_thresholds(table, project.tags)
    if unknown:
        log.warning("the model does not know these tags of the table: %s", ", ".join(unknown))
    run.extra |= {"model": project.label, "unknown_tags": unknown}
    tags = tuple(tag for tag in thresholds if tag not in unknown)
    # One thread alone would leave the model idle while it decodes.
    workers = run.options.workers or max(2, available_cores())
    pool = Pool("thread", workers=workers, batch_size=batch_size, grace=GRACE_S)
    for row, scores in run.map(ScreenRows(run.root, project, tags), rows, pool):
        if isinstance(scores, ImageError):
            run.fail(str(row["image_id"]), str(scores))
        else:
            record_decision(run, row, describe_scores(scores, thresholds) | {"nsfw_model": project.label}, scores)


def redecide(run: StageRun, table: Mapping[str, float]) -> None:
    """Apply the table to the recorded scores of every screened image; rows that stay the same are not written."""
    columns = ["is_nsfw", "nsfw_tags", "nsfw_threshold", "nsfw_override"]
    screened = filled("is_nsfw") & filled("nsfw_tags") & filled("nsfw_threshold")
    whole = run.table()
    frame = choose_ids(eligible_rows(whole, run.step).filter(screened), run.named_ids(whole), run.options.limit)
    run.seen = len(frame)
    lacking = 0
    for row in decode_rows(frame, columns, run.step):
        values = redecide_row(row, table)
        if values is None:
            lacking += 1
        elif all(row[name] == value for name, value in values.items()):
            run.counts["unchanged"] += 1
        else:
            scores = {tag: score for tag, score in read_record(row, "nsfw_tags").items() if score is not None}
            record_decision(run, row, values, scores)
    if lacking:
        run.counts["not_recorded"] = lacking
        log.warning(
            "%d images stay as they are: not all of these tags are on record (%s), screen the images again with --redo",
            lacking,
            ", ".join(table),
        )


def record_decision(run: StageRun, row: Row, values: Mapping[str, Value], scores: Scores) -> None:
    """Record one decision; a flagged image that no person has cleared is a drop."""
    image_id = str(row["image_id"])
    if not values["is_nsfw"]:
        run.record(image_id, values, reason="clean")
    elif row["nsfw_override"] == UNFLAGGED:
        run.record(image_id, values, reason=UNFLAGGED)
    else:
        thresholds = json.loads(str(values["nsfw_threshold"]))
        detail = ", ".join(f"{tag} {scores[tag]:.4f} >= {thresholds[tag]}" for tag in reached(scores, thresholds))
        run.record(image_id, values, drop="nsfw", detail=detail)


def read_table(path: Path | None, threshold: float | None) -> dict[str, float]:
    """Return the table of tags: that of `path`, or the built-in one with `threshold` for all tags where it is given.

    Raises:
        InputError: the file is not a JSON object of thresholds.
    """
    if path is None:
        return dict.fromkeys(TAG_THRESHOLDS, threshold) if threshold is not None else dict(TAG_THRESHOLDS)
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
    """Parse a threshold, for argparse; lower ones than the recorded scores could not be decided again."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not RECORDED_OVER < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0.05 and up to 1")
    return number


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, workers=True)
    parser.add_argument("--model-dir", type=Path, metavar="DIR", help="DeepDanbooru project folder (default: download)")
    table = parser.add_mutually_exclusive_group()
    table.add_argument("--threshold", type=threshold_of, metavar="X", help="one threshold for every tag of the table")
    table.add_argument("--tags", type=Path, metavar="FILE", help="another table: a JSON object {tag: threshold}")
    parser.add_argument(
        "--batch-size", type=positive_int, default=8, metavar="N", help="images in one call of the model"
    )
    parser.add_argument("--redecide", action="store_true", help="decide again from recorded scores, without the model")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.redecide and (args.redo or args.retry_errors or args.model_dir):
        parser.error("--redecide runs no model: leave out --redo, --retry-errors and --model-dir")

    def body(run: StageRun) -> None:
        table = read_table(args.tags, args.threshold)
        if args.redecide:
            redecide(run, table)
        else:
            screen_images(run, table, args.model_dir, args.batch_size)

    return run_stage("nsfw_filter", lambda: options_from(args), body, arguments=argv)


if __name__ == "__main__":
    raise SystemExit(main())
