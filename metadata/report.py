"""One page that shows the dataset: metadata/report.html, self-contained, for a screen, a phone or paper.

The funnel, what the filter decided, why images were left out, the scores with the gates, the species against their
quotas, sizes and formats, inpainting before and after, a contact sheet, and the runs with their times. The same
ledger gives the same bytes. Images that were flagged as NSFW, or not screened, appear as blocks of colour only.

Reads   images.csv, base.csv, the run journals, quotas/quotas.csv, the image files
Writes  metadata/report.html

    python metadata/report.py
    python metadata/report.py --root my-dataset --thumbnails 200
"""

from __future__ import annotations

import argparse
import bisect
import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import polars as pl

from metadata.command import Reading, reading_parser, run_reading
from metadata.figures import bars, columns, coverage, histogram
from metadata.funnel import FAILED, KEPT, WAITING, Tables, count_fates, count_levels, left_out, read_tables
from metadata.journals import Run, flag_value, read_runs
from metadata.pages import Thumbnail, render, thumbnail
from pokefa.errors import InputError
from pokefa.options import positive_int
from pokefa.selection import SCREENED, filled
from pokefa.table import KEY
from pokefa.text import write_text

REPORT = "metadata/report.html"
QUOTAS = "quotas/quotas.csv"
STAND_IN_MARK = "demo/standin.txt"
STAND_IN = re.compile(r"stand[-_ ]?in", re.IGNORECASE)
MODEL_COLUMNS = ("nsfw_model", "ocr_model", "ocr_inpainter", "ae_model", "caption_model")

SCORE_NAMES = {"relevance": "ae_relevance", "aesthetic": "ae_aesthetic"}
ERROR_COLUMNS = ("nsfw_error", "ocr_error", "resize_error", "score_error", "phash_error", "caption_error")

TILE_SIDE = 132
PAIR_SIDE = 300
MOST_PAIRS = 6
SCORE_EDGES = list(range(0, 105, 5))

# Lower bounds of the classes of size, fine around the one megapixel that most trainers want.
MEGAPIXEL_CLASSES = (0, 0.5, 1, 1.5, 2, 4, 8)


@dataclass(frozen=True)
class Tile:
    """One picture of the contact sheet, with what is known of it."""

    image_id: str
    species: str
    verdict: str
    detail: str
    link: str
    picture: Thumbnail


@dataclass(frozen=True)
class BandCoverage:
    """The species of one popularity band against their quotas, in images and in species."""

    band: str
    species: int
    covered: int
    quota: int
    downloaded: int
    kept: int


@dataclass(frozen=True)
class StageTime:
    """All runs of one stage together."""

    stage: str
    runs: int
    stopped: int
    done: int
    errors: int
    seconds: float
    last: str
    counts: str


def stand_in_signs(images: pl.DataFrame, root: Path) -> list[str]:
    """Return what shows that stand-ins answered for real services: models by name, or the demo's mark."""
    signs = [STAND_IN_MARK] if (root / STAND_IN_MARK).exists() else []
    for column in MODEL_COLUMNS:
        names = images[column].drop_nulls().unique().sort()
        signs += [f"{column} {name}" for name in names if STAND_IN.search(name)]
    return signs


def gates_of(runs: Sequence[Run]) -> dict[str, float]:
    """Return the gates of the last filter run: its own flags, else the filter's defaults."""
    from preprocess.filter.filter import build_parser as build_filter_parser

    arguments = next((run.arguments for run in reversed(runs) if run.stage == "filter"), ())
    gates = {}
    for name in ("relevance", "aesthetic"):
        given = flag_value(arguments, f"--min-{name}")
        gates[name] = float(given if given is not None else build_filter_parser().get_default(f"min_{name}"))
    return gates


def read_quotas(root: Path) -> list[dict[str, Any]]:
    """Return rank, name, band and quota of each species; none where there is no quotas.csv.

    Raises:
        InputError: the file is not what quotas/allocate.py writes.
    """
    path = root / QUOTAS
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return [{**row, "rank": int(row["rank"]), "quota": int(row["quota"])} for row in rows]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{QUOTAS} cannot be read ({error!r}): run quotas/allocate.py again") from None


def count_by(frame: pl.DataFrame, column: str) -> Counter[str]:
    return Counter(dict(frame.filter(filled(column)).group_by(column).len().rows()))


def ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    """Return (name, count), the most frequent first and equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def cover_bands(quotas: Sequence[dict[str, Any]], downloaded: Counter[str], kept: Counter[str]) -> list[BandCoverage]:
    """Return the coverage of each band, in the order of the quotas."""
    bands: dict[str, list[dict[str, Any]]] = {}
    for row in quotas:
        bands.setdefault(row["band"], []).append(row)
    return [
        BandCoverage(
            band,
            len(rows),
            sum(1 for row in rows if kept[row["name"]]),
            sum(row["quota"] for row in rows),
            sum(downloaded[row["name"]] for row in rows),
            sum(kept[row["name"]] for row in rows),
        )
        for band, rows in bands.items()
    ]


def stage_times(runs: Sequence[Run]) -> list[StageTime]:
    """Return the runs of each stage added up, in the order in which the stages first ran."""
    by_stage: dict[str, list[Run]] = {}
    for run in runs:
        by_stage.setdefault(run.stage, []).append(run)
    times = []
    for stage, of_stage in by_stage.items():
        closed = [run.summary for run in of_stage if run.summary]
        counts: Counter[str] = Counter()
        for summary in closed:
            counts.update(summary.get("counts", {}))
        times.append(
            StageTime(
                stage,
                len(of_stage),
                len(of_stage) - len(closed),
                sum(int(summary.get("done", 0)) for summary in closed),
                sum(int(summary.get("errors", 0)) for summary in closed),
                sum(run.seconds for run in of_stage),
                of_stage[-1].started[:16].replace("T", " "),
                ", ".join(f"{name} {count}" for name, count in counts.items()),
            )
        )
    return times


def contact_sheet(tables: Tables, root: Path, most: int) -> tuple[list[Tile], list[Tile]]:
    """Return up to `most` kept images, the best first, and up to `most` left out, every reason in turn."""
    images = tables.images
    paths = dict(tables.base.select(KEY, "path").iter_rows())
    rank = pl.col("filter_rank").cast(pl.Int64, strict=False)
    kept = images.filter(pl.col("fate") == KEPT).sort(rank, KEY, nulls_last=True).head(most)
    out = images.filter(~pl.col("fate").is_in([KEPT, WAITING])).sort(KEY)
    by_reason = [part.to_dicts() for _, part in sorted(out.group_by("fate_stage", "fate", maintain_order=True))]
    in_turn = [row for rows in zip_longest(*by_reason) for row in rows if row is not None][:most]
    screened = set(images.filter(SCREENED)[KEY])
    return (
        [tile(row, paths, root, veiled=row[KEY] not in screened) for row in kept.to_dicts()],
        [tile(row, paths, root, veiled=row[KEY] not in screened) for row in in_turn],
    )


def tile(row: dict[str, Any], paths: dict[str, str | None], root: Path, *, veiled: bool) -> Tile:
    path = paths.get(row[KEY]) or row["path_resized"] or row["path_raw"]
    verdict = KEPT if row["fate"] == KEPT else f"{row['fate_stage']}: {row['fate']}"
    if row["fate"] == KEPT and row["filter_rank"]:
        verdict = f"kept, rank {row['filter_rank']}"
    scores = [f"{name} {row[column]}" for name, column in SCORE_NAMES.items() if row[column]]
    reasons = [row[column] for column in ERROR_COLUMNS if row["fate"] == FAILED and row[column]]
    gone = row["fate_stage"] == "takedown"
    return Tile(
        image_id=row[KEY],
        species=row["species"] or "unknown species",
        verdict=verdict,
        detail=", ".join(scores + reasons),
        link=web_address(row["source_page"]) or web_address(row["source_url"]),
        picture=Thumbnail(problem="taken down") if gone else thumbnail(root / str(path), TILE_SIDE, veiled=veiled),
    )


def web_address(text: str | None) -> str:
    """Return an address that a page may link to: http and https, since strangers wrote it."""
    return text if text and text.startswith(("http://", "https://")) else ""


def inpainting_pairs(images: pl.DataFrame, root: Path) -> list[tuple[str, Thumbnail, Thumbnail]]:
    """Return (species, before, after) of images that text was painted out of, the most text first."""
    wanted = filled("ocr_inpainted_path") & pl.col("ocr_override").is_null() & SCREENED
    area = pl.col("ocr_area_frac").cast(pl.Float64, strict=False)
    rows = images.filter(wanted & ~pl.col("fate_stage").eq("takedown")).sort(area, KEY, descending=[True, False])
    return [
        (
            row["species"] or "unknown species",
            thumbnail(root / str(row["path_raw"]), PAIR_SIDE),
            thumbnail(root / row["ocr_inpainted_path"], PAIR_SIDE),
        )
        for row in rows.head(MOST_PAIRS).to_dicts()
    ]


def score_figures(images: pl.DataFrame, gates: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Yield (title, SVG) of the two scores, kept and left out apart, with the gates."""
    for name, column in SCORE_NAMES.items():
        scored = images.select("fate", pl.col(column).cast(pl.Float64, strict=False).alias("score")).drop_nulls("score")
        if scored.is_empty():
            continue
        groups = {
            "kept": scored.filter(pl.col("fate") == KEPT)["score"].to_list(),
            "not kept": scored.filter(pl.col("fate") != KEPT)["score"].to_list(),
        }
        over = int((scored["score"] >= gates[name]).sum())
        alt = f"Histogram of {name}: {len(scored)} scored images, {over} at the gate of {gates[name]:g} or above"
        yield name, histogram(name, alt, groups, SCORE_EDGES, label=f"{name}, 0 to 100", gate=gates[name])


def size_figures(images: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield (title, SVG) of megapixels and formats, before and after resizing."""
    before, after = megapixels(images, "w", "h"), megapixels(images, "resized_w", "resized_h")
    if before:
        alt = f"Megapixels of {len(before)} downloaded and {len(after)} resized images"
        groups = {"downloaded": count_sizes(before), "resized": count_sizes(after)}
        yield "sizes", columns("sizes", alt, groups, size_names(), label="megapixels")
    formats = ranked(count_by(images, "fmt"))
    if formats:
        alt = _spoken("Formats of the downloaded images", formats)
        yield "formats", bars("formats", alt, formats, total=sum(count for _, count in formats))


def build_page(tables: Tables, runs: Sequence[Run], root: Path, most_tiles: int) -> str:
    """Return the page as HTML.

    Raises:
        InputError: quotas.csv is damaged.
    """
    images = tables.images
    fates = count_fates(images)
    levels = count_levels(images)
    out = [(f"{stage}: {fate}", count) for stage, fate, count in left_out(fates)]
    decisions = ranked(count_by(images, "filter_decision"))
    quotas = read_quotas(root)
    downloaded = count_by(images, "species")
    kept = count_by(images.filter(pl.col("fate") == KEPT), "species")
    kept_tiles, out_tiles = contact_sheet(tables, root, most_tiles)
    return render(
        "report_template.jinja",
        images=len(images),
        kept=sum(count for _, fate, count in fates if fate == KEPT),
        waiting=sum(count for _, fate, count in fates if fate == WAITING),
        species=len(kept),
        as_of=max((run.ended or run.started for run in runs), default="")[:16].replace("T", " "),
        stand_in=stand_in_signs(images, root),
        levels=levels,
        funnel=bars("funnel", _spoken("Images that reached each level", levels), levels, total=len(images)),
        decisions=decisions,
        decisions_figure=bars("decisions", _spoken("Filter decisions", decisions), decisions, total=len(images)),
        out=out,
        out_figure=bars("out", _spoken("Images left out", out), out, total=len(images)) if out else "",
        scores=list(score_figures(images, gates_of(runs))),
        bands=cover_bands(quotas, downloaded, kept),
        coverage=coverage_figure(quotas, kept),
        most_wanted=most_wanted(quotas, downloaded, kept),
        sizes=list(size_figures(images)),
        pairs=inpainting_pairs(images, root),
        kept_tiles=kept_tiles,
        out_tiles=out_tiles,
        times=stage_times(runs),
    )


def coverage_figure(quotas: Sequence[dict[str, Any]], kept: Counter[str]) -> str:
    if not quotas:
        return ""
    have = sum(1 for row in quotas if kept[row["name"]])
    alt = f"Quota and kept images over the rank of the species: {have} of {len(quotas)} species have a kept image"
    return coverage(
        "coverage", alt, [r["rank"] for r in quotas], [r["quota"] for r in quotas], [kept[r["name"]] for r in quotas]
    )


def most_wanted(
    quotas: Sequence[dict[str, Any]], downloaded: Counter[str], kept: Counter[str], most: int = 12
) -> list[tuple[str, int, int, int]]:
    """Return (species, quota, downloaded, kept) of the species that were searched for and lack the most images."""
    rows = [(row["name"], row["quota"], downloaded[row["name"]], kept[row["name"]]) for row in quotas]
    short = [row for row in rows if row[2] and row[3] < row[1]]
    return sorted(short, key=lambda row: (row[3] - row[1], row[0]))[:most]


def write_report(reading: Reading, most_tiles: int) -> None:
    """Write the report, unless it is there already with the same content."""
    tables = read_tables(reading.ledger)
    page = build_page(tables, read_runs(reading.root), reading.root, most_tiles)
    written = write_text(reading.root / REPORT, page)
    reading.seen = reading.done = len(tables.images)
    reading.extra = {"path": REPORT, "written": written, "bytes": len(page.encode("utf-8"))}


def megapixels(frame: pl.DataFrame, width: str, height: str) -> list[float]:
    """Return the sizes of the images that have one, in megapixels."""
    product = pl.col(width).cast(pl.Float64, strict=False) * pl.col(height).cast(pl.Float64, strict=False) / 1e6
    return frame.select(product.alias("size"))["size"].drop_nulls().to_list()


def count_sizes(sizes: Sequence[float]) -> list[int]:
    """Return the number of images in each class of size."""
    counts = Counter(bisect.bisect_right(MEGAPIXEL_CLASSES, size) - 1 for size in sizes)
    return [counts[place] for place in range(len(MEGAPIXEL_CLASSES))]


def size_names() -> list[str]:
    ends = [f"{low:g}–{high:g}" for low, high in pairwise(MEGAPIXEL_CLASSES)]
    return [*ends, f"{MEGAPIXEL_CLASSES[-1]:g}+"]


def _spoken(title: str, counts: Sequence[tuple[str, int]]) -> str:
    return f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts)


def build_parser() -> argparse.ArgumentParser:
    parser = reading_parser(__doc__)
    parser.add_argument(
        "--thumbnails",
        type=positive_int,
        default=60,
        metavar="N",
        help="at most N kept and N left-out images on the contact sheet (default: 60)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    most_tiles = args.thumbnails
    return run_reading("report", args.root, lambda reading: write_report(reading, most_tiles))


if __name__ == "__main__":
    raise SystemExit(main())
