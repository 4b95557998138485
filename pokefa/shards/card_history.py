"""How the set was made, stage by stage: the settings, and what became of the images.

Counts come from the tables as they are now. An image that was tried again counts once, under the run whose result is in
the table, and the results of killed runs count too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from pokefa.ledger.runs import Run
from pokefa.setup.steps import Step, first_step_of
from pokefa.stage.funnel import Tables
from pokefa.stage.options import result_settings
from pokefa.stage.rows import filled

# Settings about places and persons, not about how the set was made.
PRIVATE = ("root", "ids", "ids_file", "contact", "ray_address", "config")
PUBLIC_VALUE = re.compile(r"[\w.,:=+-]{1,60}")


def stage_lines(runs: Sequence[Run], whole: Tables, stats: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield stage, versions of the code, settings, and counts: one line for each set of settings.

    Args:
        runs: of the whole dataset, the oldest first.
        whole: both tables with all their rows.
        stats: the content of split_stats.json.
    """
    for stage in dict.fromkeys(run.stage for run in runs):
        own = [run for run in runs if run.stage == stage]
        step = first_step_of(stage)
        if not _names_run(step) and (step.outcome or step.whole_table):
            own = own[-1:]  # each run decides anew over all images
        counts = count_images(stage, own, whole, stats)
        lines: dict[str, list[Run]] = {}
        for run in own:
            lines.setdefault(settings_of(run), []).append(run)
        for settings, alike in lines.items():
            told = sum((counts.pop(run.run_id, Counter()) for run in alike), Counter[str]())
            yield stage, ", ".join(dict.fromkeys(run.code for run in alike)), settings, list_counts(told)
        if counts:
            yield stage, "", "not in any journal", list_counts(sum(counts.values(), Counter()))


def list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))


def count_images(stage: str, own: Sequence[Run], whole: Tables, stats: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """Return {run_id: {what became of images: how many}} of a stage.

    Args:
        own: its runs whose settings stand, the oldest first.
    """
    if stage == "webdataset":
        left_out = Counter(reason.split(":")[0] for reason in stats["left_out"].values())
        return {own[-1].run_id: Counter(packed=sum(stats["samples"].values())) + left_out}
    step = first_step_of(stage)
    if not step.outcome:  # it drops, merges or fixes, and no column says which run did
        return {run.run_id: Counter((run.summary or {}).get("counts", {})) for run in own}
    table, column = step.outcome.split(".")
    if step.words is None:
        word = pl.col(column)
    elif isinstance(step.words, str):
        word = pl.when(filled(column)).then(pl.lit(step.words))
    else:
        word = pl.col(column).replace(step.words)
    dropped = pl.when(pl.col("drop_reason").str.starts_with(f"{stage}:")).then(
        pl.col("drop_reason").str.strip_prefix(f"{stage}:")
    )
    failed = [pl.when(filled(step.error)).then(pl.lit("error"))] if step.error else []
    run_id = pl.col(step.run_id).fill_null("") if _names_run(step) else pl.lit(own[-1].run_id)
    frame = whole.images if table == "images" else whole.base
    what = frame.select(run_id.alias("run"), pl.coalesce(dropped, word, *failed).alias("what"))
    counts: dict[str, Counter[str]] = {}
    for run, became, count in what.drop_nulls().group_by("run", "what").len().sort("run", "what").iter_rows():
        counts.setdefault(run, Counter())[became] = count
    return counts


def _names_run(step: Step) -> bool:
    """Tell whether a row says which run did it; a step that decides over all rows leaves the last run's name."""
    return bool(step.run_id) and not step.decides


# -- settings ----------------------------------------------------------------------------------------------------------


def settings_of(run: Run) -> str:
    """Return the settings of a run as flags, without paths, addresses and ids.

    For a stage whose settings determine the set's contents, defaults are listed too. Older journals have none.
    """
    step = first_step_of(run.stage)
    shown = result_settings(run)
    if not step.settings_matter:
        shown = {name: value for name, value in shown.items() if name in run.repeat}
    words = public_flags(shown, step.subcommands)
    unknown = step.settings_matter and not run.complete
    return " ".join(words) + (f"{' ' if words else ''}(defaults not recorded)" if unknown else "")


def public_flags(settings: Mapping[str, Any], subcommands: Sequence[str] = ()) -> list[str]:
    """Return settings as flags, without values that may reveal a person or a machine."""
    words: list[str] = []
    for name, value in settings.items():
        if name in PRIVATE or value is None or value is False:
            continue
        values = [f"{key}={number:g}" for key, number in value.items()] if isinstance(value, Mapping) else value
        values = values if isinstance(values, list) else [] if value is True else [value]
        if values and values[0] in subcommands:
            words.insert(0, values[0])
        else:
            words += [f"--{name.replace('_', '-')}", *filter(PUBLIC_VALUE.fullmatch, map(str, values))]
    return words
