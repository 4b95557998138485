"""The progress of the images: counts for each step, and the fate of each image.

Selection is defined in pokefa/stage/rows.py; this module only counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from pokefa.ledger.columns import BASE, IMAGES, PLACEHOLDER, TAKEN_DOWN, is_true
from pokefa.ledger.table import KEY, with_missing
from pokefa.ledger.tables import Ledger
from pokefa.setup.steps import STEPS, Step
from pokefa.stage.rows import ANY_ROW, FLAGGED_NSFW, RESIZED, SCREENED, TEXT_CHECKED, all_of, eligible_rows, filled


def _failed(step: Step) -> pl.Expr:
    """Match the eligible rows of a step of images.csv that have failed."""
    return all_of(step.rows) & pl.col(step.done).is_null() & filled(step.error)


CAN_FAIL = [step for step in STEPS.values() if step.table == "images" and step.done and step.error]

# Outdated decisions: the filter has to run again, although every row has a decision.
DECISION = pl.col("filter_decision")
STALE_DECISION = (
    ((DECISION == "not_scored") & filled("ae_aesthetic"))
    | ((DECISION == "nsfw") & ~FLAGGED_NSFW)
    | ((DECISION == "error") & ~pl.any_horizontal([_failed(step) for step in CAN_FAIL]))
    | ((DECISION == "duplicate") & ~is_true("dupe_removed"))
    | ((DECISION == "placeholder") & ~PLACEHOLDER)
    | ((DECISION == "kept") & (FLAGGED_NSFW | is_true("dupe_removed") | PLACEHOLDER | TAKEN_DOWN))
).fill_null(False)

KEPT = "kept"
WAITING = "waiting"
FAILED = "failed"


@dataclass(frozen=True)
class Tables:
    """The ledger's two tables as cell texts, with every declared column.

    `base` also has `drop_reason` and `caption_error` of images.csv; `images` also has `base_caption` and
    `base_split`, and `fate` and `fate_stage` (see `add_fate`).
    """

    images: pl.DataFrame
    base: pl.DataFrame


@dataclass(frozen=True)
class StepCount:
    """How many images a step may work on, and how many are done, pending and failed."""

    name: str
    eligible: int
    done: int
    pending: int
    errors: int


def read_tables(ledger: Ledger) -> Tables:
    """Read both tables.

    Raises:
        InputError: a table is damaged.
    """
    return join_tables(ledger.images.read_keyed(), ledger.base.read_keyed())


def join_tables(images: pl.DataFrame, base: pl.DataFrame) -> Tables:
    """Return both tables, given as cell texts, each with columns of the other."""
    images, base = with_missing(images, IMAGES.names), with_missing(base, BASE.names)
    from_images = images.select(KEY, "drop_reason", "caption_error")
    from_base = base.select(KEY, pl.col("caption").alias("base_caption"), pl.col("split").alias("base_split"))
    return Tables(
        add_fate(images.join(from_base, on=KEY, how="left", maintain_order="left")),
        base.join(from_images, on=KEY, how="left", maintain_order="left"),
    )


def count_steps(tables: Tables) -> list[StepCount]:
    """Return the counts of each step that marks its rows, in pipeline order."""
    return [count_step(tables, step) for step in STEPS.values() if step.marks]


def count_step(tables: Tables, step: Step) -> StepCount:
    frame = tables.images if step.table == "images" else tables.base
    eligible = eligible_rows(frame, step)
    if step.name == "filter":
        stale = frame.filter(STALE_DECISION)
        undecided = eligible.filter(DECISION.is_null())
        seen = len(pl.concat([eligible.select(KEY), stale.select(KEY)]).unique())
        return StepCount(step.name, seen, seen - len(undecided) - len(stale), len(undecided) + len(stale), 0)
    # An image dropped by this step or a later one is done, although the step's cells are empty.
    open_rows = eligible.filter(pl.col("drop_reason").is_null())
    undone = open_rows.filter(pl.col(step.marks).is_null())
    errors = len(undone.filter(filled(step.error))) if step.error else 0
    return StepCount(step.name, len(eligible), len(eligible) - len(undone), len(undone) - errors, errors)


def add_fate(images: pl.DataFrame) -> pl.DataFrame:
    """Append `fate`, one word for an image's state so far, and `fate_stage`, the step that decided it.

    `fate` is `kept`, `waiting`, `failed`, or the reason why the image was left out. Every image has exactly
    one, so the counts add up to the number of images.
    """
    verdicts = [pl.col("drop_reason"), _verdict(FLAGGED_NSFW, "nsfw_filter", pl.lit("nsfw"))]
    verdicts += [_verdict(_failed(step), step.name, pl.lit(FAILED)) for step in CAN_FAIL]
    kept = DECISION == KEPT
    verdicts += [
        _verdict(is_true("dupe_removed"), "rm_dups", pl.col("dupe_flag").fill_null("duplicate")),
        # The filter skipped an image without a score, which is waiting for its score.
        _verdict(~kept & (DECISION != "not_scored"), "filter", DECISION),
        _verdict(kept & pl.col("base_caption").is_null() & filled("caption_error"), "sentence_tags", pl.lit(FAILED)),
        _verdict(kept, "filter", pl.lit(KEPT)),
        pl.lit(f":{WAITING}"),
    ]
    parts = pl.coalesce(verdicts).str.split_exact(":", 1).struct
    stage, fate = parts.field("field_0"), parts.field("field_1").fill_null("dropped")
    return images.with_columns(stage.alias("fate_stage"), fate.alias("fate"))


def count_fates(images: pl.DataFrame) -> list[tuple[str, str, int]]:
    """Return (step, fate, images), in pipeline order of the step and then the most frequent first."""
    order = {name: place for place, name in enumerate(STEPS)}
    counted = images.group_by("fate_stage", "fate").len().rows()
    return sorted(counted, key=lambda row: (order.get(row[0], len(order)), -row[2], row[1]))


def left_out(fates: Iterable[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Return the fates of images that are out of the set by a decision or a failure."""
    return [row for row in fates if row[1] not in (KEPT, WAITING)]


def count_levels(images: pl.DataFrame) -> list[tuple[str, int]]:
    """Return (level, images) from the download to the split; each level is part of the one before."""
    levels = (
        ("downloaded", ANY_ROW),
        ("screened, not NSFW", SCREENED),
        ("text checked", TEXT_CHECKED),
        ("resized", RESIZED),
        ("scored", filled("ae_aesthetic")),
        ("not a duplicate", filled("dupe_flag") & ~is_true("dupe_removed")),
        ("kept by the filter", DECISION == KEPT),
        ("captioned", filled("base_caption") & pl.col("drop_reason").is_null()),
        ("in train or val", filled("base_split")),
    )
    counts = []
    for name, reached in levels:
        images = images.filter(reached)
        counts.append((name, len(images)))
    return counts


def _verdict(condition: pl.Expr, stage: str, fate: pl.Expr) -> pl.Expr:
    """Return `stage:fate` where the condition holds, else null."""
    return pl.when(condition).then(pl.concat_str(pl.lit(f"{stage}:"), fate))
