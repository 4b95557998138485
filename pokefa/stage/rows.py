"""The rows that a step works on: eligible (not dropped by an earlier step) and pending (not done yet).

`pokefa.setup.steps` names the conditions, which are expressions here. Frames contain the ledger's cell texts; null is
an empty cell.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from pokefa.errors import InputError
from pokefa.ledger.columns import SCHEMAS, is_true
from pokefa.ledger.table import KEY
from pokefa.setup.steps import STEPS, Step, steps_before


def filled(name: str) -> pl.Expr:
    return pl.col(name).is_not_null()


def leads_out(column: str) -> pl.Expr:
    """Match paths that `pokefa.files.fault_of` refuses; an empty cell does not match."""
    return pl.col(column).str.contains(r"^/|\x00|(^|/)\.\.(/|$)").fill_null(False)


# A person's decision overrides a model's flag: an unflagged image counts as clean.
FLAGGED_NSFW = is_true("is_nsfw") & pl.col("nsfw_override").is_null()
HAS_TEXT = is_true("has_ocr") & pl.col("ocr_override").ne_missing(pl.lit("unflagged"))
# An image that is mostly text is not inpainted, because the result would be mostly the inpainter's.
MASKED = HAS_TEXT & ~is_true("ocr_text_dominated")
# Part of a figure may be masked: a person decides, and until then no later stage takes the image.
DOUBTFUL = MASKED & filled("ocr_doubt") & pl.col("ocr_override").is_null()
TO_INPAINT = MASKED & ~DOUBTFUL
SCREENED = filled("is_nsfw") & ~FLAGGED_NSFW
TEXT_CHECKED = filled("has_ocr") & (~MASKED | filled("ocr_inpainted_path"))
RESIZED = SCREENED & TEXT_CHECKED & filled("path_resized")
ANY_ROW = pl.lit(True)


# One-line messages list the first few ids only.
MOST_IDS_NAMED = 10

# The conditions that steps can name in addition to columns, each with the columns that it reads.
_SCREEN = ("is_nsfw", "nsfw_override")
_TEXT = (*_SCREEN, "has_ocr", "ocr_override", "ocr_inpainted_path")
CONDITIONS: Mapping[str, tuple[pl.Expr, tuple[str, ...]]] = {
    "screened": (SCREENED, _SCREEN),
    "text_checked": (TEXT_CHECKED, _TEXT),
    "masked": (MASKED, _TEXT),
    "to_inpaint": (TO_INPAINT, _TEXT),
    "nsfw": (is_true("is_nsfw"), ("is_nsfw",)),
    "has_text": (is_true("has_ocr"), ("has_ocr",)),
}


def all_of(names: Iterable[str]) -> pl.Expr:
    """Return the rows in which all these conditions hold and all these columns are filled."""
    return pl.all_horizontal(ANY_ROW, *(CONDITIONS[name][0] if name in CONDITIONS else filled(name) for name in names))


def needed_columns(step: Step) -> tuple[str, ...]:
    """Return the columns that a step reads to choose rows, and the others that it needs."""
    read = (column for name in step.rows for column in (CONDITIONS[name][1] if name in CONDITIONS else (name,)))
    return tuple(dict.fromkeys((*read, *step.needs)))


def not_dropped_before(step: Step) -> pl.Expr:
    """Return the rows whose `drop_reason`, `stage:reason`, names neither a takedown nor a step before this one."""
    earlier = [*steps_before(step.name), "takedown"]
    dropper = pl.col("drop_reason").str.split(":").list.first()
    return pl.col("drop_reason").is_null() | ~dropper.is_in(earlier)


def require_columns(frame: pl.DataFrame, step: Step) -> None:
    """Check that the table has the columns that `step` reads.

    Raises:
        InputError: one is missing; the message names the script that writes it.
    """
    for name in needed_columns(step):
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
    return frame.filter(all_of(step.rows) & not_dropped_before(step))


def pending_rows(frame: pl.DataFrame, step: Step, *, redo: bool = False, retry_errors: bool = False) -> pl.DataFrame:
    """Return the eligible rows that `step` has not done: all with `redo`, failed ones too with `retry_errors`."""
    rows = eligible_rows(frame, step)
    if redo or not step.done:
        return rows
    undone = pl.col(step.done).is_null() if step.done in rows.columns else pl.lit(True)
    if step.error in rows.columns and not retry_errors:
        undone &= pl.col(step.error).is_null()
    return rows.filter(undone)


def choose_ids(frame: pl.DataFrame, ids: Sequence[str] | None, limit: int | None) -> pl.DataFrame:
    """Return the rows with these ids, or all where None, limited to the first `limit`."""
    if ids is not None:
        frame = frame.filter(pl.col(KEY).is_in(list(ids)))
    return frame if limit is None else frame.head(limit)


def find_ids(named: Sequence[str], known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the ids that `named` means, in order and without repeats, and the names that match none.

    A name is an id, or a unique prefix of one.

    Raises:
        InputError: a name is a prefix of several ids.
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
            raise InputError(f"{name} is a prefix of several ids, such as {' and '.join(matches)}: use a longer prefix")
    return list(dict.fromkeys(found)), list(dict.fromkeys(unknown))


def name_some(names: Sequence[str]) -> str:
    """Return the first few names as text, and how many more there are."""
    rest = len(names) - MOST_IDS_NAMED
    return ", ".join(names[:MOST_IDS_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def stale_columns(stage: str, *, after: str) -> list[str]:
    """Return the images.csv columns of `stage` that are outdated once a decision of `after` is overridden."""
    if stage not in STEPS or stage in (*steps_before(after), after):
        raise ValueError(f"{stage} does not come after {after}")
    return SCHEMAS["images"].owned_by(STEPS[stage].owner)
