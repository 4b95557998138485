"""Stage 0: allocate a number of images to each species by popularity.

Reads   quotas/popularity.csv of the repository, or --popularity FILE: rank, name
Writes  <root>/quotas/quotas.csv: rank, name, band, weight, quota

Species are divided into bands by rank, and each band has its own budget. Within a band, every species gets the floor.
The rest of the budget is shared by weight = (rank in the band)^-exponent, rounded by largest remainder. The quotas sum
to the budget exactly, and never increase from a better rank to a worse one. An unchanged result is not rewritten.

    python quotas/allocate.py
    python quotas/allocate.py --root my-dataset --budget 6000 --floor 1
    python quotas/allocate.py --plot quotas.png
    python quotas/allocate.py --band 1-150:12000:0.20 --band 151-1025:18000:0.15
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from pokefa.csv_files import read_csv
from pokefa.errors import EXIT_DONE, InputError, PokefaError
from pokefa.files import replacing, write_text
from pokefa.ledger.journal import new_run_id
from pokefa.stage.options import options_from, positive_int, stage_parser, whole_number
from pokefa.stage.reader import exit_code_of
from pokefa.stage.runner import log, set_up_logging

POPULARITY = Path(__file__).resolve().parent / "popularity.csv"
QUOTAS_FILE = "quotas/quotas.csv"
QUOTA_COLUMNS = ("rank", "name", "band", "weight", "quota")
FLOOR = 6
PLOT_FORMATS = ("png", "svg", "pdf")

_BAND = re.compile(r"([0-9]+)-([0-9]+):([0-9]+):([0-9]+(?:\.[0-9]+)?)", re.ASCII)


@dataclass(frozen=True)
class Band:
    """Species with ranks `first` to `last`, which share `budget` images; a higher exponent favours the first ranks."""

    first: int
    last: int
    budget: int
    exponent: float

    @property
    def label(self) -> str:
        return f"{self.first:03d}-{self.last:03d}"

    @property
    def size(self) -> int:
        return self.last - self.first + 1


# The first band gets 40 % of the images for 15 % of the species, the last 7 % for 22 %.
BANDS = (
    Band(1, 150, 12_000, 0.20),
    Band(151, 500, 10_500, 0.19),
    Band(501, 800, 5_400, 0.10),
    Band(801, 1025, 2_100, 0.25),
)


@dataclass(frozen=True)
class Quota:
    """One row of quotas.csv."""

    rank: int
    name: str
    band: str
    weight: float
    quota: int


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Share `total` units by weight, rounded by largest remainder (Hamilton's method); ties go to the first.

    Shares are exact fractions, so the sum is exactly `total` and a larger weight never gets less than a smaller one
    after it. At least one weight must be positive, and none negative.
    """
    exact = [Fraction(weight) for weight in weights]
    total_weight = sum(exact)
    shares = [total * weight / total_weight for weight in exact]
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: counts[index] - shares[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def scale_budgets(bands: Sequence[Band], total: int) -> list[Band]:
    """Return the bands with budgets in the same proportions that add up to `total`.

    Raises:
        InputError: all budgets are 0, so there are no proportions.
    """
    if not sum(band.budget for band in bands):
        raise InputError("--budget cannot be shared between bands whose budgets are all 0")
    budgets = apportion(total, [band.budget for band in bands])
    return [replace(band, budget=budget) for band, budget in zip(bands, budgets, strict=True)]


def check_bands(bands: Sequence[Band], species: int, floor: int) -> list[Band]:
    """Return the bands by rank, after checking them against each other, the species and the floor.

    Raises:
        InputError: they overlap, leave a gap, do not cover ranks 1 to `species`, or cannot pay the floor.
    """
    ordered = sorted(bands, key=lambda band: (band.first, band.last))
    expected = 1
    for band in ordered:
        if band.first < 1:
            raise InputError(f"band {band.first}-{band.last} begins before rank 1: use ranks from 1")
        if band.last < band.first:
            raise InputError(f"band {band.first}-{band.last} ends before it begins: swap its ranks")
        if band.first < expected:
            raise InputError(f"bands overlap: rank {band.first} is in more than one band: correct --band")
        if band.first > expected:
            raise InputError(f"bands leave a gap: no band has rank {expected}: correct --band")
        expected = band.last + 1
    if expected != species + 1:
        raise InputError(f"bands end at rank {expected - 1}, the popularity list at rank {species}: make them agree")
    for band in ordered:
        if band.budget < floor * band.size:
            raise InputError(
                f"band {band.first}-{band.last} has a budget of {band.budget}, less than the floor of {floor} for each "
                f"of {band.size} species ({floor * band.size}): raise the budget or lower --floor"
            )
    return ordered


def allocate(names: Sequence[str], bands: Sequence[Band], floor: int) -> list[Quota]:
    """Return one quota for each name, in rank order; `names[0]` has rank 1.

    Raises:
        InputError: the bands do not fit, see `check_bands`.
    """
    quotas: list[Quota] = []
    for band in check_bands(bands, len(names), floor):
        weights = [place**-band.exponent for place in range(1, band.size + 1)]
        shares = apportion(band.budget - floor * band.size, weights)
        for rank, (weight, share) in enumerate(zip(weights, shares, strict=True), band.first):
            quotas.append(Quota(rank, names[rank - 1], band.label, weight, floor + share))
    return quotas


def read_popularity(path: Path) -> list[str]:
    """Return the species' names in rank order.

    Raises:
        InputError: the file cannot be read, or its ranks are not 1, 2, 3, … with one name each.
    """
    names: dict[int, str] = {}
    for _, row in read_csv(path, ["rank", "name"], "name a CSV with rank and name"):
        rank, name = row["rank"], row["name"]
        if not re.fullmatch("[0-9]{1,9}", rank) or not name:
            raise InputError(f"{path}: rank {rank!r} with name {name!r} is not a whole number with a name")
        if int(rank) in names:
            raise InputError(f"{path}: rank {rank} occurs twice: remove a row")
        if name in names.values():
            raise InputError(f"{path}: {name!r} occurs twice: remove a row")
        names[int(rank)] = name
    if not names:
        raise InputError(f"{path} has no rows: name a CSV with rank and name")
    if sorted(names) != list(range(1, len(names) + 1)):
        missing = next(rank for rank in range(1, len(names) + 1) if rank not in names)
        raise InputError(f"{path}: rank {missing} is missing: add its row")
    return [names[rank] for rank in sorted(names)]


def quotas_csv(quotas: Sequence[Quota]) -> str:
    """Return the content of quotas.csv; weights have six digits, so that all platforms write the same bytes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(QUOTA_COLUMNS)
    for quota in quotas:
        writer.writerow((quota.rank, quota.name, quota.band, f"{quota.weight:.6g}", quota.quota))
    return text.getvalue()


def plot(quotas: Sequence[Quota], file_format: str) -> bytes:
    """Return a chart of quota by rank, with one line per band, as a PNG, SVG or PDF file.

    Raises:
        PokefaError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise PokefaError("--plot needs matplotlib: pip install -r requirements/requirements_quotas.txt") from None
    # No date and no random ids, so that the same quotas give the same bytes.
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[file_format]
    with matplotlib.rc_context({"svg.hashsalt": "quotas"}):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for band in dict.fromkeys(quota.band for quota in quotas):
            members = [quota for quota in quotas if quota.band == band]
            images = sum(quota.quota for quota in members)
            ranks, counts = [quota.rank for quota in members], [quota.quota for quota in members]
            axes.plot(ranks, counts, drawstyle="steps-mid", label=f"{band}: {images:,} images")
        axes.set(xlabel="popularity rank", ylabel="images", title="Quota of each species")
        axes.set_ylim(bottom=0)
        axes.legend()
        content = io.BytesIO()
        figure.savefig(content, format=file_format, dpi=120, metadata=metadata)
    return content.getvalue()


def parse_band(text: str) -> Band:
    """Parse `FIRST-LAST:BUDGET:EXPONENT`, for argparse."""
    match = _BAND.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST-LAST:BUDGET:EXPONENT, such as 1-150:12000:0.20")
    first, last, budget, exponent = match.groups()
    return Band(int(first), int(last), int(budget), float(exponent))


def parse_plot(text: str) -> Path:
    """Parse the file name of a chart, for argparse."""
    path = Path(text)
    if path.suffix.lower().removeprefix(".") not in PLOT_FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png, .svg or .pdf")
    return path


def save(quotas: Sequence[Quota], target: Path, plot_path: Path | None) -> bool:
    """Write quotas.csv and, if requested, the chart; return whether quotas.csv changed.

    Raises:
        PokefaError: a file cannot be written, or matplotlib is not installed.
    """
    try:
        written = write_text(target, quotas_csv(quotas))
        log.info("%s %s", target, "written" if written else "unchanged")
        if plot_path is not None:
            chart = plot(quotas, plot_path.suffix.lower().removeprefix("."))
            if not (plot_path.is_file() and plot_path.read_bytes() == chart):
                with replacing(plot_path) as stream:
                    stream.write(chart)
    except OSError as error:
        raise PokefaError(f"cannot write {error.filename}: {error.strerror}") from None
    return written


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument(
        "--popularity",
        type=Path,
        metavar="FILE",
        help="CSV with rank and name (default: the repository's list)",
    )
    parser.add_argument(
        "--budget",
        type=positive_int,
        metavar="N",
        help="total number of images; bands keep their proportions",
    )
    parser.add_argument(
        "--band",
        type=parse_band,
        action="append",
        metavar="FIRST-LAST:BUDGET:EXPONENT",
        help="a band of ranks; repeat the flag for each; default: "
        + " ".join(f"{band.first}-{band.last}:{band.budget}:{band.exponent:.2f}" for band in BANDS),
    )
    parser.add_argument("--floor", type=whole_number(0), default=FLOOR, metavar="N", help="least images per species")
    parser.add_argument("--plot", type=parse_plot, metavar="FILE", help="also plot quota by rank (.png, .svg, .pdf)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    started = time.monotonic()
    summary: dict[str, Any] = {"stage": "allocate", "run_id": new_run_id("allocate")}
    summary |= {"seen": 0, "done": 0, "errors": 0, "counts": {}}

    def work() -> int:
        options = options_from(args)
        set_up_logging(options)
        target = options.root / QUOTAS_FILE
        bands = scale_budgets(args.band or BANDS, args.budget) if args.budget else args.band or BANDS
        quotas = allocate(read_popularity(args.popularity or POPULARITY), bands, args.floor)
        summary.update(seen=len(quotas), images=sum(quota.quota for quota in quotas))
        if options.dry_run:
            summary["dry_run"] = True
            log.info("dry run: would give %d species %d images in %s", len(quotas), summary["images"], target)
        elif save(quotas, target, args.plot):
            summary.update(done=len(quotas), counts={"written": len(quotas)})
        else:
            summary["counts"] = {"unchanged": len(quotas)}
        return EXIT_DONE

    code = exit_code_of(work)
    print(json.dumps(summary | {"seconds": round(time.monotonic() - started, 3)}))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
