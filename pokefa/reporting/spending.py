"""The cost of the dataset: dollars, tokens, searches and time, summed from the run journals.

Dollars are the tokens reported by the server times the list price in pokefa/llm/prices.py at the time of the run: close
to the bill, but not the bill. SerpApi sells searches by the month, so they are counted and not priced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pokefa.errors import InputError
from pokefa.ledger.runs import Run, entries_of_run
from pokefa.llm.batch_records import read_records

# One file per paid page of results; see scraping/serpapi_client.py.
SEARCHES_FOLDER = "data_raw/serpapi"
BY_LIST_PRICE = "tokens times the list price at the time of the run: an estimate, not the bill"


@dataclass(frozen=True)
class StageCost:
    """All runs of one stage together.

    Args:
        stopped: runs without a closing line; they count up to their last result.
        usd: by list price; None if no model with a known price was used.
        unpriced_tokens: tokens of models without a known price.
        searches: paid ones.
        counts: of the results, by reason.
    """

    stage: str
    runs: int = 0
    stopped: int = 0
    done: int = 0
    errors: int = 0
    seconds: float = 0.0
    usd: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    unpriced_tokens: int = 0
    searches: int = 0
    last: str = ""
    counts: str = ""

    @property
    def asked(self) -> bool:
        """Whether the stage used anything that costs money."""
        return bool(self.usd or self.input_tokens or self.output_tokens or self.searches)


def cost_stages(runs: Sequence[Run], root: Path) -> list[StageCost]:
    """Return the cost of each stage, in the order in which the stages first ran."""
    by_stage: dict[str, list[Run]] = {}
    for run in runs:
        by_stage.setdefault(run.stage, []).append(run)
    return [cost_stage(stage, of_stage, root) for stage, of_stage in by_stage.items()]


def cost_stage(stage: str, runs: Sequence[Run], root: Path) -> StageCost:
    summaries = [run.summary if run.summary is not None else sum_entries(run) for run in runs]
    stopped = sum(1 for run in runs if run.summary is None)
    counts: Counter[str] = Counter()
    for summary in summaries:
        counts.update(summary.get("counts", {}))
    priced = [summary["usd"] for summary in summaries if summary.get("usd") is not None]
    searches = sum(int(summary.get("searches", {}).get("paid", 0)) for summary in summaries)
    if stage == "scrape" and stopped:
        # A killed run did not count its searches; its stored pages do.
        searches = max(searches, sum(1 for _ in (root / SEARCHES_FOLDER).glob("*.json.gz")))
    return StageCost(
        stage,
        len(runs),
        stopped,
        sum(int(summary.get("done", 0)) for summary in summaries),
        sum(int(summary.get("errors", 0)) for summary in summaries),
        sum(float(summary.get("seconds", 0.0)) for summary in summaries),
        sum(priced) if priced else None,
        sum(int(summary.get("input_tokens", 0)) for summary in summaries),
        sum(int(summary.get("output_tokens", 0)) for summary in summaries),
        sum(tokens_of(summary) for summary in summaries if summary.get("usd") is None),
        searches,
        runs[-1].started[:16].replace("T", " "),
        ", ".join(f"{name} {count}" for name, count in sorted(counts.items())),
    )


def sum_entries(run: Run) -> dict[str, Any]:
    """Return the summary of a run that has none, because it is running or was killed, computed from its lines."""
    total: dict[str, Any] = {"done": 0, "errors": 0, "input_tokens": 0, "output_tokens": 0, "usd": None}
    counts: Counter[str] = Counter()
    last = run.started
    for entry in entries_of_run(run.path):
        last = entry.get("ts", last)
        reason = entry.get("reason")
        if reason == "error":
            total["errors"] += 1
        elif reason is not None:
            total["done"] += 1
            counts[reason] += 1
        usage = entry.get("usage") or (entry.get("note") or {}).get("usage") or {}
        for name in ("input_tokens", "output_tokens"):
            total[name] += int(usage.get(name, 0))
        if "usd" in usage:
            total["usd"] = (total["usd"] or 0.0) + float(usage["usd"])
    return total | {"counts": dict(counts), "seconds": seconds_between(run.started, last)}


def seconds_between(start: str, end: str) -> float:
    """Return the seconds between two times of a journal, or 0 if one is not a time."""
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except ValueError:
        return 0.0


def tokens_of(usage: dict[str, Any]) -> int:
    return int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0))


def total_usd(costs: Sequence[StageCost]) -> float | None:
    """Return the dollars of all stages, or None if no price was known."""
    known = [cost.usd for cost in costs if cost.usd is not None]
    return sum(known) if known else None


def searches_left(runs: Sequence[Run]) -> int | None:
    """Return the account's remaining searches after the last run that queried them."""
    answers = [run.summary["searches"].get("left") for run in runs if run.summary and "searches" in run.summary]
    return next((left for left in reversed(answers) if left is not None), None)


def waiting_batches(root: Path) -> dict[str, int]:
    """Return the number of each stage's questions in batches that were not collected yet."""
    waiting: Counter[str] = Counter()
    try:
        for record in read_records(root):
            if record.state == "submitted":
                waiting[record.name.split("-")[1]] += len(record.requests)  # a run id: time, stage, digits
    except InputError:
        return {}  # the stage itself reports the error
    return dict(waiting)
