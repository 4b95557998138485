"""Write a page about the dataset: metadata/report.html, self-contained, for screen, phone or paper.

It shows the funnel, the filter's decisions, the reasons why images were left out, the scores with their thresholds,
text, duplicates, the species and their quotas, sizes and formats, source domains, images before and after inpainting, a
contact sheet of kept, borderline and dropped images, and the time and cost of each stage. Every figure has a table of
its numbers. The same ledger gives the same bytes. Images that are flagged as NSFW or not screened are shown as blocks
of colour.

Reads   images.csv, base.csv, the run journals, quotas/quotas.csv, the image files
Writes  metadata/report.html

    python metadata/report.py
    python metadata/report.py --root my-dataset --thumbnails 200
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl

from pokefa.errors import InputError
from pokefa.files import write_text
from pokefa.ledger.runs import Run, read_runs, thresholds_of_filter
from pokefa.outside import OLD_DAYS, old_facts
from pokefa.reporting.contact_sheet import contact_sheets, inpainting_pairs
from pokefa.reporting.figures import bars
from pokefa.reporting.pages import render
from pokefa.reporting.section_parts import Figure, Section, Table, spoken
from pokefa.reporting.sections import (
    domain_section,
    drops_section,
    duplicate_section,
    funnel_section,
    score_section,
    size_section,
    species_section,
    text_section,
)
from pokefa.reporting.species_coverage import count_species, read_coverage
from pokefa.reporting.spending import BY_LIST_PRICE, StageCost, cost_stages, total_usd
from pokefa.stage.funnel import KEPT, WAITING, Tables, count_fates, read_tables
from pokefa.stage.options import positive_int, reading_parser
from pokefa.stage.reader import Reading, run_reading
from pokefa.takedown.find import REPORT_MARK, REPORT_TITLE

REPORT = "metadata/report.html"
STAND_IN_MARK = "demo/standin.txt"
STAND_IN = re.compile(r"stand[-_ ]?in", re.IGNORECASE)
MODEL_COLUMNS = ("nsfw_model", "ocr_model", "ocr_inpainter", "ae_model", "caption_model")


def build_page(tables: Tables, runs: Sequence[Run], root: Path, most_tiles: int) -> str:
    """Return the page as HTML.

    Raises:
        InputError: quotas.csv is damaged.
    """
    images = tables.images
    fates = count_fates(images)
    settings = thresholds_of_filter(runs)
    thresholds = {name: settings[f"min_{name}"] for name in ("relevance", "aesthetic") if f"min_{name}" in settings}
    costs = cost_stages(runs, root)
    usd = total_usd(costs)
    as_of = max((run.ended or run.started for run in runs), default="")
    return render(
        "report",
        title=REPORT_TITLE,
        mark=REPORT_MARK,
        as_of=as_of[:16].replace("T", " "),
        stand_in=stand_in_signs(images, root),
        numbers=[
            (f"{len(images)}", "images downloaded"),
            (f"{sum(count for _, fate, count in fates if fate == KEPT)}", "kept"),
            (f"{len(count_species(images.filter(pl.col('fate') == KEPT)))}", "species among them"),
            (f"{sum(count for _, fate, count in fates if fate == WAITING)}", "not decided yet"),
            ("–" if usd is None else f"${usd:.2f}", "by list price"),
            (spoken_time(sum(cost.seconds for cost in costs)), "of runs"),
        ],
        sections=[
            funnel_section(images),
            drops_section(fates, len(images)),
            score_section(images, thresholds),
            text_section(images),
            duplicate_section(images),
            species_section(read_coverage(root, images)),
            size_section(images),
            domain_section(images),
            cost_section(costs, as_of[:10]),
        ],
        pairs=inpainting_pairs(images, root),
        sheets=contact_sheets(tables, root, thresholds, most_tiles),
    )


def stand_in_signs(images: pl.DataFrame, root: Path) -> list[str]:
    """Return signs that stand-ins replaced real services: model names, or the demo's marker file."""
    signs = [STAND_IN_MARK] if (root / STAND_IN_MARK).exists() else []
    for column in MODEL_COLUMNS:
        names = images[column].drop_nulls().unique().sort()
        signs += [f"{column} {name}" for name in names if STAND_IN.search(name)]
    return signs


def cost_section(costs: Sequence[StageCost], day: str) -> Section:
    """Return what each stage took: time, and what it asked others for.

    Args:
        day: of the last run, for what was known of prices and models then.
    """
    if not costs:
        return Section("runs", "Time and cost", "No stage has run yet.", [])
    seconds = [(cost.stage, round(cost.seconds, 1 if cost.seconds < 10 else None)) for cost in costs]
    drawn = bars("time", spoken("Seconds of all runs by stage", seconds), seconds)
    rows: list[tuple[object, ...]] = [
        (
            cost.stage,
            cost.last,
            f"{cost.runs}" + (f" ({cost.stopped} stopped)" if cost.stopped else ""),
            cost.done,
            cost.errors,
            f"{cost.seconds:.1f}",
            f"{cost.seconds / cost.done:.3f}" if cost.done and cost.seconds else "",
        )
        for cost in costs
    ]
    headings = ("stage", "last run, UTC", "runs", "images", "errors", "seconds", "per image")
    figures = [Figure("Seconds of all runs", drawn, Table(headings, rows, 2), wide=True)]
    spent: list[tuple[object, ...]] = [
        (
            cost.stage,
            "not known" if cost.usd is None and cost.unpriced_tokens else "" if cost.usd is None else f"{cost.usd:.4f}",
            f"{1000 * cost.usd / cost.done:.2f}" if cost.usd and cost.done else "",
            cost.input_tokens or "",
            cost.output_tokens or "",
            cost.searches or "",
        )
        for cost in costs
        if cost.asked
    ]
    if spent:
        money = ("stage", "dollars", "per 1,000 images", "input tokens", "output tokens", "searches")
        figures.append(Figure("Money", "", Table(money, spent), wide=True))
    notes = [f"Dollars are {BY_LIST_PRICE}."] if spent else []
    return Section("runs", "Time and cost", " ".join([*notes, *old_facts_note(day)]), figures)


def old_facts_note(day: str) -> list[str]:
    """Return a sentence about the facts of others that nobody had checked for long on a day, or nothing."""
    old = old_facts(date.fromisoformat(day)) if day else []
    names = ", ".join(f"{fact.what} ({fact.checked})" for fact in old)
    return [f"Not checked for over {OLD_DAYS} days before the last run, see pokefa/outside.py: {names}."] if old else []


def spoken_time(seconds: float) -> str:
    """Return a duration in the unit that suits it: 42 s, 3.5 min, 12.0 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def write_report(reading: Reading, most_tiles: int, out: Path | None) -> None:
    """Write the report, if its content has changed.

    Raises:
        InputError: the root is read-only, and --out is not given.
    """
    if out is None and not reading.ledger.is_writable():
        raise InputError(f"{reading.root / REPORT} cannot be written: name another file with --out")
    tables = read_tables(reading.ledger)
    page = build_page(tables, read_runs(reading.root), reading.root, most_tiles)
    written = write_text(out or reading.root / REPORT, page)
    reading.seen = reading.done = len(tables.images)
    reading.extra = {"path": str(out or REPORT), "written": written, "bytes": len(page.encode("utf-8"))}


def build_parser() -> argparse.ArgumentParser:
    parser = reading_parser(__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"output file (default: {REPORT} under --root); takedowns do not find files elsewhere",
    )
    parser.add_argument(
        "--thumbnails",
        type=positive_int,
        default=60,
        metavar="N",
        help="at most N kept, N borderline and N left-out images on the contact sheet (default: 60)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    most_tiles, out = args.thumbnails, args.out
    return run_reading("report", args.root, lambda reading: write_report(reading, most_tiles, out), alone=True)


if __name__ == "__main__":
    raise SystemExit(main())
