"""Where the dataset stands, on one screen.

For each step: how many images it may work on, how many are done, waiting and failed. Then why images were left out,
the last run of each stage, and the command to run next. Every image has one fate, so the reasons add up.

Reads   images.csv, base.csv, the run journals, webdataset/manifests
Writes  nothing

    python metadata/status.py
    python metadata/status.py --root my-dataset
    python metadata/status.py --root my-dataset --json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from metadata.command import Reading, add_json_flag, reading_parser, run_reading, show
from metadata.funnel import (
    KEPT,
    StepCount,
    Tables,
    count_fates,
    count_steps,
    left_out,
    next_commands,
    read_tables,
    retry_commands,
)
from metadata.journals import Run, last_run_of_each_stage, read_runs
from metadata.shards import listed_ids, lists_packed, read_stats
from pokefa.table import KEY


@dataclass(frozen=True)
class Status:
    """Everything that the screen shows."""

    images: int
    kept: int
    steps: list[StepCount]
    fates: list[tuple[str, str, int]]
    last_runs: list[Run]
    next: list[str]
    retry: list[str]


def read_status(reading: Reading) -> Status:
    """Collect the status of the dataset."""
    tables = read_tables(reading.ledger)
    steps = count_steps(tables)
    fates = count_fates(tables.images)
    return Status(
        images=len(tables.images),
        kept=sum(count for _, fate, count in fates if fate == KEPT),
        steps=steps,
        fates=fates,
        last_runs=last_run_of_each_stage(read_runs(reading.root)),
        next=next_commands(steps, len(tables.images), unpacked_steps(tables, reading.root), reading.root),
        retry=retry_commands(steps, reading.root),
    )


def unpacked_steps(tables: Tables, root: Path) -> list[str]:
    """Return the steps that bring the shards up to base.csv; none where they hold its split, or there is none.

    Raises:
        InputError: split_stats.json is damaged.
    """
    in_set = tables.base.filter(pl.col("drop_reason").is_null())
    listed = listed_ids(root)
    sides = {split: set(in_set.filter(pl.col("split") == split)[KEY]) for split in listed}
    if listed != sides:
        return ["split", "webdataset"]
    stats = read_stats(root)
    packed = stats is not None and lists_packed(root, stats)
    return [] if packed or not any(sides.values()) else ["webdataset"]


def screen(status: Status, root: Path) -> Iterator[str]:
    """Yield the lines of the screen."""
    yield f"PokeFA dataset {root.resolve().name}: {status.images} images, {status.kept} kept"
    yield ""
    yield f"{'step':<16}{'eligible':>10}{'done':>10}{'pending':>10}{'errors':>10}"
    for step in status.steps:
        yield f"{step.name:<16}{step.eligible:>10}{step.done:>10}{step.pending:>10}{step.errors:>10}"
    yield from _section(
        "Left out", (f"{stage:<16}{fate:<24}{count:>6}" for stage, fate, count in left_out(status.fates))
    )
    yield from _section(
        "Last runs", (f"{run.stage:<16}{run.started[:19]:<21}{_ending(run)}" for run in status.last_runs)
    )
    yield from _section("Failed images are tried again with", status.retry)
    yield from _section("Next", status.next or ["nothing: every step is done"])


def as_json(status: Status) -> dict[str, Any]:
    """Return the details of the status as JSON values."""
    runs = {
        run.stage: {"run_id": run.run_id, "started": run.started, "ended": run.ended, "summary": run.summary}
        for run in status.last_runs
    }
    return {
        "steps": [asdict(step) for step in status.steps],
        "fates": [{"step": stage, "fate": fate, "images": count} for stage, fate, count in status.fates],
        "last_runs": runs,
        "next": status.next,
        "retry": status.retry,
    }


def _section(title: str, lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    rows = list(lines)
    if rows:
        yield from ("", title, *(f"  {row}" for row in rows))


def _ending(run: Run) -> str:
    if run.summary is None:
        return "stopped before its end"
    parts = [f"{name} {run.summary.get(name, 0)}" for name in ("done", "errors")]
    return ", ".join([*parts, f"{run.seconds:.1f} s"])


def show_status(reading: Reading, details_only: bool) -> None:
    """Print the screen, or with `details_only` put all of it into the JSON line."""
    status = read_status(reading)
    reading.seen, reading.done = status.images, status.kept
    reading.errors = sum(step.errors for step in status.steps)
    if details_only:
        reading.extra = as_json(status)
        return
    reading.extra = {"next": status.next}
    show([*screen(status, reading.root), ""])


def build_parser() -> argparse.ArgumentParser:
    parser = reading_parser(__doc__)
    add_json_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    root, details_only = args.root, args.json
    return run_reading("status", root, lambda reading: show_status(reading, details_only))


if __name__ == "__main__":
    raise SystemExit(main())
