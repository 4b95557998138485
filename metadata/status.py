"""Show the status of the dataset on one screen.

For each step it shows the eligible, done, pending and failed images, and the last run. Then it shows why images were
left out, the quotas by popularity band, the money spent, the running steps, and the commands to run next, with the
flags of each stage's last run. Every image has one fate, so the counts add up.

Reads   images.csv, base.csv, the run journals, quotas/quotas.csv, metadata/batches, webdataset/manifests
Writes  nothing

    python metadata/status.py
    python metadata/status.py --root my-dataset
    python metadata/status.py --root my-dataset --json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.console import show
from pokefa.ledger.runs import Run, last_run_of_each_stage, read_runs
from pokefa.ledger.table import KEY
from pokefa.reporting.next_steps import next_commands, next_steps, read_situation, retry_commands, unpacked_steps
from pokefa.reporting.open_runs import OpenRun, open_runs
from pokefa.reporting.species_coverage import BandCoverage, read_coverage, sum_bands
from pokefa.reporting.spending import BY_LIST_PRICE, StageCost, cost_stages, searches_left, total_usd, waiting_batches
from pokefa.setup.steps import STEPS
from pokefa.shards.layout import read_stats
from pokefa.stage.funnel import KEPT, StepCount, Tables, count_fates, count_steps, left_out, read_tables
from pokefa.stage.options import add_json_flag, reading_parser
from pokefa.stage.reader import Reading, run_reading
from pokefa.stage.rows import eligible_rows


@dataclass(frozen=True)
class Status:
    """The content of the screen.

    Args:
        fates: (step, fate, images), see `pokefa.stage.funnel.add_fate`.
        open_runs: runs without a closed journal, by stage.
        batches: requests waiting in batches, by stage.
        awaited: the next steps, running or not; `next` has their commands if none is running.
        retry: commands that retry failed images.
    """

    images: int
    kept: int
    steps: list[StepCount]
    fates: list[tuple[str, str, int]]
    bands: list[BandCoverage]
    costs: list[StageCost]
    searches_left: int | None
    batches: dict[str, int]
    last_runs: list[Run]
    open_runs: dict[str, OpenRun]
    awaited: list[str]
    next: list[str]
    retry: list[str]


def read_status(reading: Reading) -> Status:
    """Collect the status of the dataset."""
    root = reading.root
    tables = read_tables(reading.ledger)
    images = len(tables.images)
    counts = count_steps(tables)
    fates = count_fates(tables.images)
    runs = read_runs(root)
    open_now = open_runs(runs)
    situation = read_situation(root, runs, open_now)
    unpacked = unpacked_steps(tables, root)
    return Status(
        images=images,
        kept=sum(count for _, fate, count in fates if fate == KEPT),
        steps=[*counts, count_packed(tables, root)],
        fates=fates,
        bands=sum_bands(read_coverage(root, tables.images)),
        costs=cost_stages(runs, root),
        searches_left=searches_left(runs),
        batches=waiting_batches(root),
        last_runs=last_run_of_each_stage(runs),
        open_runs=open_now,
        awaited=next_steps(counts, images, unpacked, situation),
        next=next_commands(counts, images, unpacked, situation),
        retry=retry_commands(counts, situation),
    )


def count_packed(tables: Tables, root: Path) -> StepCount:
    """Return the counts of the shards: images of the split that are packed, pending and failed."""
    in_set = eligible_rows(tables.base, STEPS["webdataset"]).filter(pl.col("drop_reason").is_null())
    eligible = len(in_set)
    stats = read_stats(root)
    if stats is None or unpacked_steps(tables, root):
        return StepCount("webdataset", eligible, 0, eligible, 0)
    failed = len(set(in_set[KEY]) & set(stats.left_out))
    return StepCount("webdataset", eligible, eligible - failed, 0, failed)


def screen(status: Status, root: Path) -> Iterator[str]:
    """Yield the lines of the screen."""
    yield f"PokeFA dataset {root.resolve().name}: {status.images} images, {status.kept} kept"
    yield ""
    yield f"{'step':<16}{'eligible':>9}{'done':>9}{'pending':>9}{'errors':>9}  last run, UTC"
    yield from _step_lines(status)
    yield from _section(
        "Left out", (f"{stage:<16}{fate:<24}{count:>6}" for stage, fate, count in left_out(status.fates))
    )
    yield from _section("Quotas, by searched species", _band_lines(status.bands))
    yield from _section("Money spent", _money_lines(status))
    under_way = (
        f"{stage:<16}since {one.run.started[:16].replace('T', ' ')}, {one.state}"
        for stage, one in status.open_runs.items()
        if one.running is not False
    )
    yield from _section("Running", under_way)
    yield from _section("Retry failed images with", status.retry)
    yield from _section("Next", _next_lines(status))


def _step_lines(status: Status) -> Iterator[str]:
    """Yield a line for each step that counts rows or has run, with the last run of its stage."""
    counts = {step.name: step for step in status.steps}
    runs = {run.stage: run for run in status.last_runs}
    for name in STEPS:
        step, run = counts.get(name), runs.get(STEPS[name].owner)
        if step is None and run is None:
            continue
        cells = (step.eligible, step.done, step.pending, step.errors) if step else ("",) * 4
        line = f"{name:<16}" + "".join(f"{cell:>9}" for cell in cells)
        yield f"{line}  {_last_run(run, status.open_runs)}".rstrip() if run else line


def _last_run(run: Run, open_now: dict[str, OpenRun]) -> str:
    began = run.started[:16].replace("T", " ")
    if run.summary is not None:
        return f"{began}{run.seconds:>9.1f} s"
    return f"{began}  {open_now[run.stage].state}"


def _band_lines(bands: Sequence[BandCoverage]) -> Iterator[str]:
    if not bands:
        return
    yield f"{'band':<18}{'species':>8}{'kept any':>10}{'met':>8}{'quota':>9}{'downloaded':>12}{'kept':>9}"
    for band in bands:
        name = f"{band.band} {band.part}"
        yield (
            f"{name:<18}{band.species:>8}{band.with_any:>10}{band.met:>8}"
            f"{band.quota:>9}{band.downloaded:>12}{band.kept:>9}"
        )


def _money_lines(status: Status) -> Iterator[str]:
    for cost in status.costs:
        if not cost.asked:
            continue
        parts = [] if cost.usd is None else [f"${cost.usd:.4f}"]
        if cost.input_tokens or cost.output_tokens:
            parts.append(f"{cost.input_tokens} input and {cost.output_tokens} output tokens")
        if cost.unpriced_tokens:
            parts.append(f"{cost.unpriced_tokens} of these from a model without a known price")
        if cost.searches:
            parts.append(f"{cost.searches} searches paid")
            if status.searches_left is not None:
                parts.append(f"{status.searches_left} left on the account after the last run")
        yield f"{cost.stage:<16}{', '.join(parts)}"
    total = total_usd(status.costs)
    if total is not None:
        yield f"{'total':<16}${total:.4f}, {BY_LIST_PRICE}"
    for stage, questions in status.batches.items():
        yield f"{stage:<16}{questions} requests wait in batches: not counted until they are collected"


def _next_lines(status: Status) -> list[str]:
    if status.next:
        return status.next
    owners = [STEPS[name].owner for name in status.awaited]
    busy = [stage for stage in dict.fromkeys(owners) if stage in status.open_runs]
    return [f"wait until {busy[0]} ends: it is running"] if busy else ["nothing: every step is done"]


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    rows = list(lines)
    if rows:
        yield from ("", title, *(f"  {row}" for row in rows))


def as_json(status: Status) -> dict[str, Any]:
    """Return the details of the status as JSON values."""
    runs = {
        run.stage: {"run_id": run.run_id, "started": run.started, "ended": run.ended, "summary": run.summary}
        for run in status.last_runs
    }
    return {
        "steps": [asdict(step) for step in status.steps],
        "fates": [{"step": stage, "fate": fate, "images": count} for stage, fate, count in status.fates],
        "quotas": [asdict(band) for band in status.bands],
        "money": {
            "usd": total_usd(status.costs),
            "usd_is": BY_LIST_PRICE,
            "searches_left": status.searches_left,
            "batched_questions": status.batches,
            "stages": [asdict(cost) for cost in status.costs],
        },
        "last_runs": runs,
        "open_runs": {
            stage: {"run_id": one.run.run_id, "pid": one.pid, "host": one.run.host, "running": one.running}
            for stage, one in status.open_runs.items()
        },
        "awaited": status.awaited,
        "next": status.next,
        "retry": status.retry,
    }


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
