"""How the set was made, stage by stage: with which settings, and what became of the images under them.

Counts come from the tables as they are now, so an image that was tried again counts once, under the run that had the
last word, and what a killed run finished counts too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import runpy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import polars as pl

from pokefa.ledger.runs import Run, repeated_arguments
from pokefa.setup.environments import CHECKOUT
from pokefa.stage.funnel import DECIDED_BY, Tables
from pokefa.stage.options import add_cluster_options, add_data_option, add_decoding_options, stage_parser
from pokefa.stage.rows import STEPS, filled

# Flags that say where things lie or who ran them, and not how the set was made.
PRIVATE = ("--root", "--ids", "--ids-file", "--contact", "--ray-address", "--config")
PUBLIC_VALUE = re.compile(r"[\w.,:=+-]{1,60}")

# Stages whose settings say what is in the set and how it looks: told with those that were not given too.
TOLD_IN_FULL = ("nsfw_filter", "ocr_pipeline", "resize", "rm_dups", "filter", "split")
NO_FLAGS = ("halves",)  # of them, what stands on the command line without its name
ABOUT_THE_WORK = ("batch_size", "redecide")  # their settings that change no result

# What the tables say of the images that a stage is done with: the table, the column, and the words for its cells, or
# one word for every filled cell; without words a cell speaks for itself.
OUTCOMES: Mapping[str, tuple[str, str, Mapping[str, str] | str | None]] = {
    "scrape": ("images", "path_raw", "saved"),
    "nsfw_filter": ("images", "is_nsfw", {str(True): "nsfw", str(False): "clean"}),
    "ocr_pipeline": ("images", "has_ocr", {str(True): "text_found", str(False): "no_text"}),
    "resize": ("images", "resize_action", None),
    "score": ("images", "ae_aesthetic", "scored"),
    "phash": ("images", "phash64", "hashed"),
    "sentence_tags": ("images", "base_caption", "captioned"),
    "hybrid_captions": ("base", "hybrid_caption", "written"),
    "species": ("base", "species", "named"),
    **{name: (STEPS[name].table, column, None) for name, column in DECIDED_BY.items()},
}

# The columns that name the run which did an image. Stages without one look at all images in every run: the settings of
# the last run hold for all.
RUN_IDS = {"scrape": "scrape_run_id"} | {
    step.owner: step.run_id for step in STEPS.values() if step.run_id and step.name not in DECIDED_BY
}
SCRIPTS = {step.owner: step.script for step in STEPS.values()}
ERRORS = {step.owner: step.error for step in STEPS.values() if step.error}


def stage_lines(runs: Sequence[Run], whole: Tables, stats: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield stage, versions of the code, settings, and counts: one line for each set of settings.

    Args:
        runs: of the whole dataset, the oldest first.
        whole: both tables with all their rows.
        stats: what split_stats.json says.
    """
    for stage in dict.fromkeys(run.stage for run in runs):
        own = [run for run in runs if run.stage == stage]
        if stage not in RUN_IDS and (stage in OUTCOMES or stage == "webdataset"):
            own = own[-1:]
        counts = count_images(stage, own, whole, stats)
        lines: dict[str, list[Run]] = {}
        for run in own:
            lines.setdefault(" ".join(settings_of(run)), []).append(run)
        for settings, alike in lines.items():
            told = sum((counts.pop(run.run_id, Counter()) for run in alike), Counter[str]())
            yield stage, ", ".join(dict.fromkeys(run.code for run in alike)), settings, list_counts(told)
        if counts:
            yield stage, "", "told by no journal", list_counts(sum(counts.values(), Counter()))


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
    if stage not in OUTCOMES:  # it drops, merges or mends, and no column tells by which run
        return {run.run_id: Counter((run.summary or {}).get("counts", {})) for run in own}
    table, column, words = OUTCOMES[stage]
    if words is None:
        word = pl.col(column)
    elif isinstance(words, str):
        word = pl.when(filled(column)).then(pl.lit(words))
    else:
        word = pl.col(column).replace(words)
    dropped = pl.when(pl.col("drop_reason").str.starts_with(f"{stage}:")).then(
        pl.col("drop_reason").str.strip_prefix(f"{stage}:")
    )
    failed = [pl.when(filled(ERRORS[stage])).then(pl.lit("error"))] if stage in ERRORS else []
    run_id = pl.col(RUN_IDS[stage]).fill_null("") if stage in RUN_IDS else pl.lit(own[-1].run_id)
    frame = whole.images if table == "images" else whole.base
    what = frame.select(run_id.alias("run"), pl.coalesce(dropped, word, *failed).alias("what"))
    counts: dict[str, Counter[str]] = {}
    for run, became, count in what.drop_nulls().group_by("run", "what").len().sort("run", "what").iter_rows():
        counts.setdefault(run, Counter())[became] = count
    return counts


# -- settings ----------------------------------------------------------------------------------------------------------


def settings_of(run: Run) -> list[str]:
    """Return the settings of a run as flags; of the stages that are told in full, with the defaults.

    The defaults are those of this version of the stage. A command line that it no longer takes is told as it was.
    """
    if run.stage in TOLD_IN_FULL:
        with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            return public_flags(as_flags(parser_of(run.stage).parse_args(list(run.arguments)), run.stage))
    return public_flags(repeated_arguments(run.arguments))


def as_flags(args: argparse.Namespace, stage: str) -> Iterator[str]:
    """Yield a parsed command line with all its settings, but for those that every stage has."""
    given = vars(args)
    usual = usual_values(stage, given)
    for name, value in given.items():
        value = usual.get(name, value)
        if name in shared_settings() or name in ABOUT_THE_WORK or value is None or value is False:
            continue
        if name not in NO_FLAGS:
            yield f"--{name.replace('_', '-')}"
        if value is not True:
            yield from map(str, value if isinstance(value, list) else [value])


def usual_values(stage: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings whose default depends on another setting; None for those that another leaves unused."""
    if stage == "nsfw_filter" and given["tags"] is None:
        from preprocess.nsfw.nsfw_filter import read_table

        table = read_table(None, given["threshold"], given["backend"])
        return {"threshold": [f"{tag.replace(' ', '_')}={value:g}" for tag, value in table.items()]}
    if stage == "rm_dups" and given["embeddings"] is None:
        return {"min_cosine": None}
    if stage == "ocr_pipeline":
        if given["halves"] == "inpaint":
            return {name: None for name in given if name not in ("halves", "inpainter", "paint_doubtful")}
        return {"inpainter": None, "paint_doubtful": None} if given["halves"] == "detect" else {}
    return {}


@cache
def parser_of(stage: str) -> argparse.ArgumentParser:
    """Return the parser of a stage's script, by its path: webdataset/ cannot be imported from."""
    parser = runpy.run_path(str(CHECKOUT / SCRIPTS[stage]))["build_parser"]()
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


@cache
def shared_settings() -> frozenset[str]:
    """Return the names of the settings that say where and on what a stage works."""
    parser = stage_parser("", workers=True)
    add_data_option(parser)
    add_decoding_options(parser)
    add_cluster_options(parser, "core", batches=True)
    return frozenset(vars(parser.parse_args([])))


def public_flags(arguments: Iterable[str]) -> list[str]:
    """Return the flags of a command line without paths, addresses and ids."""
    shown: list[str] = []
    hidden = False
    for argument in (part for word in arguments for part in split_flag(word)):
        if argument.startswith("--"):
            hidden = argument in PRIVATE
        if not hidden and PUBLIC_VALUE.fullmatch(argument):
            shown.append(argument)
    return shown


def split_flag(word: str) -> list[str]:
    """Return `--flag=value` as two words."""
    return word.split("=", 1) if word.startswith("--") and "=" in word else [word]
