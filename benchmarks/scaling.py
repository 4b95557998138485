"""Estimates the cost of one, ten and a hundred million images from the benchmark table, for docs/scaling.md.

    python benchmarks/scaling.py                              write the tables into docs/scaling.md
    python benchmarks/scaling.py --images 2000000 --cores 256 --show

Every assumption is a flag and is listed in the page. Rates are those of benchmarks/results/results.json, per core of
the machine that was measured. A stage on N cores is assumed to be N times as fast, which holds while storage keeps up.
Run it after benchmarks/run.py, in the same environment.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from benchmarks.harness import Growth, Rate
from benchmarks.markdown import fill_page, table
from pokefa.errors import InputError, PokefaError
from pokefa.llm.prices import BATCH, cost_of
from pokefa.setup.environments import CHECKOUT

RESULTS = CHECKOUT / "benchmarks/results/results.json"
PAGE = CHECKOUT / "docs/scaling.md"
MODEL = "gpt-5-mini"
IMAGES = (1_000_000, 10_000_000, 100_000_000)

# The stages' rates, by their names in the benchmark scripts.
SCRAPE = "scrape, 512 kB"
NSFW = "nsfw_filter.py --batch-size 8"
DETECT = "ocr_pipeline.py detect"
INPAINT = "inpaint, 5% of 1024 px"
RESIZE = "resize.py"
PHASH = "phash.py"
SHARDS = "webdataset.py"
LEDGER = "ledger: merge"
MERGE = "ledger: journal and merge 5,000 results"
SEARCH = "rm_dups' search at 6"

# Commands from nsfw_filter to webdataset, each of which ends with a merge. Longer commands also merge while they run,
# which takes a twentieth of the time (pokefa/stage/runner.py).
COMMANDS = 13


def _given(value: float, meaning: str) -> Any:
    return field(default=value, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Assumptions:
    """What is not measured here; each is a flag. Prices are in the range of list prices: replace them with your own."""

    cores: int = _given(64, "cores of the cluster")
    core_hour: float = _given(0.04, "dollars for a core with 4 GB of memory, an hour")
    disk_month: float = _given(0.02, "dollars for a gigabyte of storage, a month")
    bandwidth: float = _given(1.0, "gigabits a second of the machine that scrapes")
    tried: float = _given(1.5, "addresses tried for each image that is saved")
    per_search: float = _given(20.0, "images saved for each search")
    search: float = _given(0.01, "dollars for a search")
    raw: float = _given(0.5, "megabytes of a raw image")
    resized: float = _given(0.7, "megabytes of a resized image")
    with_text: float = _given(0.15, "share of the images that are painted over")
    inpainted: float = _given(3.0, "megabytes of an inpainted PNG")
    kept: float = _given(0.5, "share of the images that the filter keeps")
    score_tokens: int = _given(1800, "input tokens of a scored picture")
    caption_tokens: int = _given(2400, "input tokens of a captioned picture")
    answer_tokens: int = _given(120, "output tokens of an answer")
    requests: int = _given(10_000, "requests a minute that the model's server allows")


@dataclass(frozen=True)
class Cost:
    """The cost of one stage."""

    stage: str
    images: float
    hours: float
    dollars: float
    gigabytes: float
    bound: str


def estimate_costs(
    images: int, known: Mapping[str, Rate], growths: Mapping[str, Growth], given: Assumptions
) -> Iterator[Cost]:
    """Yield the cost of each stage for `images` images.

    Args:
        known: the measured rates by name.
        growths: the fitted exponents by name.
    """

    def spread_out(stage: str, rate: str, count: float, gigabytes: float = 0.0) -> Cost:
        core_hours = count * known[rate].cores / known[rate].per_second / 3600
        bound = f"{given.cores} cores"
        return Cost(stage, count, core_hours / given.cores, core_hours * given.core_hour, gigabytes, bound)

    def asked(stage: str, count: float, tokens: int) -> Cost:
        usage = {"input_tokens": tokens, "output_tokens": given.answer_tokens}
        dollars = count * (cost_of(MODEL, usage, BATCH) or 0.0)
        return Cost(stage, count, count / given.requests / 60, dollars, 0.0, f"{given.requests:,} requests a minute")

    kept = given.kept * images
    scrape = known[SCRAPE]
    network_hours = images * given.tried * given.raw * 8e6 / (given.bandwidth * 1e9) / 3600
    work_hours = images * given.tried / scrape.per_second / 3600
    yield Cost(
        "1 scrape",
        images,
        max(network_hours, work_hours),
        images / given.per_search * given.search,
        images * given.raw / 1000,
        "the network of one machine" if network_hours > work_hours else f"{scrape.cores} cores of one machine",
    )
    yield spread_out("2 nsfw_filter", NSFW, images)
    yield spread_out("3 ocr detect", DETECT, images)
    painted = given.with_text * images
    yield spread_out("3 ocr inpaint", INPAINT, painted, painted * given.inpainted / 1000)
    yield spread_out("4 resize", RESIZE, images, images * given.resized / 1000)
    yield asked("5 score", images, given.score_tokens)
    yield spread_out("6 phash", PHASH, images)
    yield grown("6 rm_dups", images, known[SEARCH], growths[f"{SEARCH}, hashes"], given)
    yield asked("8 sentence_tags", kept, given.caption_tokens)
    yield spread_out("9 webdataset", SHARDS, kept, kept * given.resized / 1000)
    ledger = known[LEDGER]
    hours = COMMANDS * images / ledger.per_second / 3600
    dollars = hours * ledger.cores * given.core_hour
    yield Cost(f"{COMMANDS} merges of the ledger", images, hours, dollars, 0.0, f"{ledger.cores} cores of one machine")


def grown(stage: str, images: int, rate: Rate, growth: Growth, given: Assumptions) -> Cost:
    """Return the cost of a stage that one machine runs on all images at once, by its fitted exponent."""
    measured = growth.sizes[-1]
    hours = measured / rate.per_second * (images / measured) ** (growth.seconds or 1) / 3600
    return Cost(stage, images, hours, hours * rate.cores * given.core_hour, 0.0, f"{rate.cores} cores of one machine")


def tables(results: Mapping[str, Any], sizes: Sequence[int], given: Assumptions) -> str:
    """Return the Markdown of the page's second half.

    Raises:
        InputError: the benchmark table lacks something.
    """
    known = {rate["stage"]: Rate(**rate) for found in results.values() for rate in found["rates"]}
    growths = {one["what"]: Growth(**one) for found in results.values() for one in found["growths"]}
    needed = [SCRAPE, NSFW, DETECT, INPAINT, RESIZE, PHASH, SHARDS, LEDGER, SEARCH]
    if missing := [name for name in needed if name not in known]:
        raise InputError(f"{RESULTS.name} lacks the rates of {', '.join(missing)}: run benchmarks/run.py")
    parts = ["\n### Assumptions\n", table(["what", "flag", "value"], assumption_rows(given))]
    parts.append("\n### Measured, on the machine of benchmarks/results/RESULTS.md\n")
    rows = [
        [name, f"{rate.per_second:,.1f}", rate.cores, f"{rate.peak / 1e9:.1f} GB"]
        for name, rate in known.items()
        if name in needed
    ]
    parts.append(table(["what", "a second", "cores", "peak memory"], rows))
    for images in sizes:
        costs = list(estimate_costs(images, known, growths, given))
        rows = [
            [
                one.stage,
                f"{one.images:,.0f}",
                f"{one.hours:,.1f}",
                f"{one.dollars:,.0f}",
                f"{one.gigabytes:,.0f}",
                one.bound,
            ]
            for one in costs
        ]
        hours, dollars, disk = (sum(getattr(one, name) for one in costs) for name in ("hours", "dollars", "gigabytes"))
        rows.append(
            ["**together**", "", f"{hours:,.0f}", f"{dollars:,.0f}", f"{disk:,.0f}", "one stage after the other"]
        )
        parts.append(f"\n### {images:,} images\n")
        parts.append(table(["stage", "images", "hours", "dollars", "gigabytes", "bound by"], rows))
        memory = known[LEDGER].peak / growths[MERGE].sizes[-1] * images / 1e9
        month = disk * given.disk_month
        parts.append(
            f"\nStorage for a month: {month:,.0f} dollars. A merge of the ledger needs {memory:,.0f} GB of memory"
        )
        parts.append(": more than most machines have; split the set into several roots.\n" if memory > 256 else ".\n")
    return "".join(parts)


def assumption_rows(given: Assumptions) -> list[list[str]]:
    return [
        [one.metadata["meaning"], f"`{flag_of(one.name)}`", f"{getattr(given, one.name):,}"]
        for one in fields(Assumptions)
    ]


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES, metavar="N", help="number of raw images")
    parser.add_argument("--show", action="store_true", help="print the tables instead of writing the page")
    for one in fields(Assumptions):
        kind = float if isinstance(one.default, float) else int
        meaning = f"{one.metadata['meaning']} (default: {one.default})"
        parser.add_argument(flag_of(one.name), type=kind, default=one.default, metavar="N", help=meaning)
    args = parser.parse_args(argv)
    given = Assumptions(**{one.name: getattr(args, one.name) for one in fields(Assumptions)})
    try:
        if not RESULTS.exists():
            raise InputError(f"there is no {RESULTS.name}: run benchmarks/run.py")
        text = tables(json.loads(RESULTS.read_text(encoding="utf-8")), args.images, given)
        if args.show:
            print(text)
        else:
            fill_page(PAGE, "benchmarks/scaling.py", text)
    except PokefaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
