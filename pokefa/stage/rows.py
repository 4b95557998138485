"""Which rows a stage works on: eligible (no earlier stage dropped them) and pending (not done yet).

Both are defined here, once, for every stage. Frames hold the cell texts of the ledger; null is an empty cell.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from pokefa.errors import InputError
from pokefa.ledger.columns import SCHEMAS, is_true
from pokefa.ledger.table import KEY


def filled(name: str) -> pl.Expr:
    return pl.col(name).is_not_null()


def leads_out(column: str) -> pl.Expr:
    """Tell, of a column of paths, which ones `pokefa.files.fault_of` would name; an empty cell is none."""
    return pl.col(column).str.contains(r"^/|\x00|(^|/)\.\.(/|$)").fill_null(False)


# What a person decided outranks what a model said: an unflagged image counts as clean.
FLAGGED_NSFW = is_true("is_nsfw") & pl.col("nsfw_override").is_null()
HAS_TEXT = is_true("has_ocr") & pl.col("ocr_override").ne_missing(pl.lit("unflagged"))
# Painted over, an image that is mostly text would be mostly the inpainter's work: it goes on as it is.
WITH_HOLES = HAS_TEXT & ~is_true("ocr_text_dominated")
# A figure may be painted away: a person decides, and until then no later stage takes the image.
DOUBTFUL = WITH_HOLES & filled("ocr_doubt") & pl.col("ocr_override").is_null()
TO_PAINT_OVER = WITH_HOLES & ~DOUBTFUL
SCREENED = filled("is_nsfw") & ~FLAGGED_NSFW
TEXT_SETTLED = filled("has_ocr") & (~WITH_HOLES | filled("ocr_inpainted_path"))
RESIZED = SCREENED & TEXT_SETTLED & filled("path_resized")
ANY_ROW = pl.lit(True)


@dataclass(frozen=True)
class Step:
    """One step of the pipeline, as far as choosing its rows goes.

    A step is done with a row when `done` is filled and has failed on it when `error` is filled. Steps without
    `done` decide over all eligible rows at once (rm_dups, filter, split) or write no cells (webdataset).
    """

    name: str
    table: str
    script: str
    eligible: pl.Expr
    done: str | None = None
    error: str | None = None
    run_id: str | None = None
    needs: tuple[str, ...] = field(default=())

    @property
    def owner(self) -> str:
        """The name under which the step owns columns: both halves of OCR write as `ocr_pipeline`."""
        return "ocr_pipeline" if self.name in ("ocr_detect", "ocr_inpaint") else self.name


# A list of ids in a one-line message: the first few tell what went wrong.
MOST_IDS_NAMED = 10

_SCREEN = ("is_nsfw", "nsfw_override")
_TEXT = (*_SCREEN, "has_ocr", "ocr_override", "ocr_inpainted_path")

STEPS = {
    step.name: step
    for step in (
        Step("scrape", "images", "scraping/scrape.py", ANY_ROW, "path_raw"),
        # Empties cells of later stages whose files are missing.
        Step("verify", "images", "metadata/verify.py", ANY_ROW),
        Step(
            "nsfw_filter", "images", "preprocess/nsfw/nsfw_filter.py", filled("path_raw"),
            "is_nsfw", "nsfw_error", "nsfw_run_id", ("path_raw",),
        ),
        Step("nsfw_unflag", "images", "preprocess/nsfw/nsfw_unflag.py", is_true("is_nsfw"), needs=("is_nsfw",)),
        Step(
            "ocr_detect", "images", "preprocess/ocr/ocr_pipeline.py", SCREENED,
            "has_ocr", "ocr_error", "ocr_run_id", _SCREEN,
        ),
        Step(
            "ocr_inpaint", "images", "preprocess/ocr/ocr_pipeline.py", SCREENED & TO_PAINT_OVER,
            "ocr_inpainted_path", "ocr_error", "ocr_run_id", _TEXT,
        ),
        Step("ocr_unflag", "images", "preprocess/ocr/ocr_unflag.py", is_true("has_ocr"), needs=("has_ocr",)),
        Step(
            "resize", "images", "preprocess/resize/resize.py", SCREENED & TEXT_SETTLED,
            "path_resized", "resize_error", "resize_run_id", _TEXT,
        ),
        Step(
            "score", "images", "preprocess/score/score.py", RESIZED,
            "ae_aesthetic", "score_error", "score_run_id", (*_TEXT, "path_resized"),
        ),
        Step(
            "phash", "images", "preprocess/dup/phash.py", RESIZED,
            "phash64", "phash_error", "phash_run_id", (*_TEXT, "path_resized"),
        ),
        Step(
            "rm_dups", "images", "preprocess/dup/rm_dups.py", RESIZED & filled("phash64"),
            run_id="dupe_run_id", needs=(*_TEXT, "path_resized", "phash64"),
        ),
        Step("filter", "images", "preprocess/filter/filter.py", ANY_ROW, run_id="filter_run_id"),
        Step(
            "sentence_tags", "base", "caption/sentence_tags.py", filled("path"),
            "caption", "caption_error", "caption_run_id", ("path",),
        ),
        Step("cap_filter", "base", "caption/cap_filter.py", ANY_ROW),
        Step("recap_merge", "base", "caption/recap_merge.py", ANY_ROW),
        Step(
            "hybrid_captions", "base", "caption/hybrid_captions.py", filled("caption"),
            "hybrid_caption", needs=("caption", "tags"),
        ),
        Step("species", "base", "webdataset/species.py", filled("tags"), "species", needs=("tags",)),
        Step("split", "base", "webdataset/split.py", filled("species"), needs=("species",)),
        Step(
            "webdataset", "base", "webdataset/webdataset.py", filled("split") & filled("hybrid_caption"),
            needs=("split", "hybrid_caption"),
        ),
        Step("takedown", "images", "metadata/takedown.py", ANY_ROW),
    )
}  # fmt: skip

ORDER = list(STEPS)


def not_dropped_before(step: Step) -> pl.Expr:
    """Return the rows whose `drop_reason`, `stage:reason`, names neither a takedown nor a step before this one."""
    earlier = [*ORDER[: ORDER.index(step.name)], "takedown"]
    dropper = pl.col("drop_reason").str.split(":").list.first()
    return pl.col("drop_reason").is_null() | ~dropper.is_in(earlier)


def require_columns(frame: pl.DataFrame, step: Step) -> None:
    """Check that the table has the columns that `step` reads.

    Raises:
        InputError: one is missing; the message names the script that writes it.
    """
    for name in step.needs:
        if name in frame.columns:
            continue
        schema = SCHEMAS[step.table]
        column = schema.column(name)
        writers = [other.script for other in STEPS.values() if column and other.owner in column.owners]
        raise InputError(f"{schema.path} has no column {name}: run {writers[0]} first")


def eligible_rows(frame: pl.DataFrame, step: Step) -> pl.DataFrame:
    """Return the rows that `step` may work on.

    `frame` has the table's columns, and for base.csv also `drop_reason` and the step's error column of images.csv.
    """
    return frame.filter(step.eligible & not_dropped_before(step))


def pending_rows(frame: pl.DataFrame, step: Step, *, redo: bool = False, retry_errors: bool = False) -> pl.DataFrame:
    """Return the eligible rows that `step` has not done: all with `redo`, failed ones too with `retry_errors`."""
    rows = eligible_rows(frame, step)
    if redo or step.done is None:
        return rows
    undone = pl.col(step.done).is_null() if step.done in rows.columns else pl.lit(True)
    if step.error is not None and step.error in rows.columns and not retry_errors:
        undone &= pl.col(step.error).is_null()
    return rows.filter(undone)


def choose_ids(frame: pl.DataFrame, ids: Sequence[str] | None, limit: int | None) -> pl.DataFrame:
    """Return the rows with these ids, or all where None, and of those the first `limit`."""
    if ids is not None:
        frame = frame.filter(pl.col(KEY).is_in(list(ids)))
    return frame if limit is None else frame.head(limit)


def find_ids(named: Sequence[str], known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the ids that `named` stands for, in order and without repeats, and the names that stand for none.

    A name is an id, or the beginning of exactly one.

    Raises:
        InputError: a name is the beginning of several ids.
    """
    ordered = sorted(known)
    found: list[str] = []
    unknown: list[str] = []
    for name in named:
        place = bisect.bisect_left(ordered, name)
        matches = [candidate for candidate in ordered[place : place + 2] if name and candidate.startswith(name)]
        if not matches:
            unknown.append(name)
        elif len(matches) == 1 or matches[0] == name:
            found.append(matches[0])
        else:
            raise InputError(f"{name} is the beginning of several ids, of {' and '.join(matches)}: write more of it")
    return list(dict.fromkeys(found)), list(dict.fromkeys(unknown))


def name_some(names: Sequence[str]) -> str:
    """Return the first few names as text, and how many more there are."""
    rest = len(names) - MOST_IDS_NAMED
    return ", ".join(names[:MOST_IDS_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def stale_columns(stage: str, *, after: str) -> list[str]:
    """Return the images.csv columns of `stage` that hold nothing true once a decision of `after` was overturned."""
    if ORDER.index(stage) <= ORDER.index(after):
        raise ValueError(f"{stage} does not come after {after}")
    return SCHEMAS["images"].owned_by(STEPS[stage].owner)
