"""What to run next, as commands ready to copy, with the flags of the stage's earlier runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.ledger.runs import Run, flags_of, last_run_of_each_stage
from pokefa.ledger.table import KEY
from pokefa.reporting.open_runs import OpenRun
from pokefa.reporting.spending import waiting_batches
from pokefa.setup.runner import command_line
from pokefa.setup.steps import STEPS, Step
from pokefa.shards.layout import listed_ids, lists_packed, read_stats
from pokefa.species.coverage import QUOTAS_FILE
from pokefa.stage.funnel import StepCount, Tables


@dataclass(frozen=True)
class Situation:
    """What the commands depend on, beside the counts.

    Args:
        repeat: the settings that the next run of each stage needs too, by owner.
        running: stages that are under way now, by owner.
        killed: stages whose last run was killed or interrupted, by owner.
        batches: stages with batches to be collected, by owner.
    """

    root: Path
    repeat: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    running: Collection[str] = ()
    killed: Collection[str] = ()
    batches: Collection[str] = ()


def read_situation(root: Path, runs: Sequence[Run], open_now: Mapping[str, OpenRun]) -> Situation:
    last = last_run_of_each_stage(runs)
    interrupted = {run.stage for run in last if (run.summary or {}).get("interrupted")}
    return Situation(
        root,
        {run.stage: run.repeat for run in last},
        {stage for stage, one in open_now.items() if one.running},
        {stage for stage, one in open_now.items() if one.running is False} | interrupted,
        set(waiting_batches(root)),
    )


def unpacked_steps(tables: Tables, root: Path) -> list[str]:
    """Return the steps that bring the shards up to base.csv; none if they match its split, or there is none.

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


def next_commands(counts: Sequence[StepCount], images: int, unpacked: Sequence[str], situation: Situation) -> list[str]:
    """Return the next commands, in order; none if every step is done or the next one is running.

    Args:
        counts: from `count_steps`.
        images: rows of the ledger.
        unpacked: the steps that bring the shards up to base.csv, once no image is pending.
    """
    names = next_steps(counts, images, unpacked, situation)
    if any(STEPS[name].owner in situation.running for name in names):
        return []
    commands = [command(STEPS[name], situation) for name in names]
    if names[:1] == ["scrape"] and not (situation.root / QUOTAS_FILE).is_file():
        commands.insert(0, command(STEPS["quotas"], situation))
    return commands


def next_steps(counts: Sequence[StepCount], images: int, unpacked: Sequence[str], situation: Situation) -> list[str]:
    """Return the names of the next steps, whether they are running or not."""
    if not images:
        return ["scrape"]
    waiting = {count.name for count in counts if count.pending}
    waiting |= {step.name for step in STEPS.values() if step.whole_table and step.name in situation.killed}
    first = next((name for name in STEPS if name in waiting), None)
    names = list(unpacked) if first is None else [first]
    if first == "webdataset":
        names = list(unpacked) or ["webdataset"]
    if first == "hybrid_captions":
        names = ["cap_filter", first]  # dropped images need no hybrid caption
    # The rows do not show which species are still to be searched; a killed run does.
    return ["scrape", *names] if "scrape" in situation.killed else names


def retry_commands(counts: Sequence[StepCount], situation: Situation) -> list[str]:
    """Return the commands that try failed images again, of stages that are not running."""
    failed = [STEPS[count.name] for count in counts if count.errors]
    idle = [step for step in failed if step.owner not in situation.running]
    return list(dict.fromkeys(f"{command(step, situation, collect=False)} --retry-errors" for step in idle))


def command(step: Step, situation: Situation, *, collect: bool = True) -> str:
    """Return the command line of a step, as typed in the repository root.

    Args:
        collect: collect the answers of waiting batches instead of asking about the images again.
    """
    words = [*step.subcommands[:1], *flags_of(situation.repeat.get(step.owner, {}))]
    if collect and step.owner in situation.batches:
        words += ["--batch", "collect"]
    return command_line(step.script, situation.root, words)
