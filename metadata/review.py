"""A page for looking through what a model flagged, and for clearing what it flagged wrongly.

The page lists the flagged images, those closest to the threshold first, with scores and tags. Tick the ones that are
fine and copy the command that it writes for them. NSFW images are blurred until asked for. For duplicates the page
shows each removed image beside the one that was kept for it, and writes the command that tells an image's history.

Reads   images.csv, the image files
Writes  metadata/review-nsfw.html, metadata/review-ocr.html or metadata/review-dup.html

    python metadata/review.py --stage nsfw
    python metadata/review.py --stage ocr --root my-dataset
    python metadata/review.py --stage dup --root my-dataset --limit 2000
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from metadata.command import Reading, reading_parser, run_reading
from metadata.funnel import TAKEN_DOWN, read_tables
from metadata.pages import Thumbnail, render, thumbnail
from pokefa.options import positive_int
from pokefa.selection import FLAGGED_NSFW, HAS_TEXT, SCREENED, is_true
from pokefa.table import KEY
from pokefa.text import write_text

THUMBNAIL_SIDE = 240

Cells = dict[str, str | None]


@dataclass(frozen=True)
class Flagged:
    """One flagged image: what is said of it, and its pictures with their captions."""

    image_id: str
    species: str
    says: str
    tags: list[tuple[str, str]]
    pictures: list[tuple[str, Thumbnail]]


@dataclass(frozen=True)
class Review:
    """What is reviewed of one stage.

    Args:
        flagged: the rows to look through.
        closeness: sort key of a row; the smallest, closest to the threshold, comes first.
        pictures: columns with the files to show, and their captions.
        script: clears the ticked images; where there is none, the command tells their history.
        cleared: the column of the person's word.
    """

    title: str
    flagged: pl.Expr
    closeness: Callable[[Cells], float]
    says: Callable[[Cells], str]
    pictures: tuple[tuple[str, str], ...]
    script: tuple[str, ...]
    cleared: str | None = None
    tags: Callable[[Cells], list[tuple[str, str]]] = field(default=lambda cells: [])


def number(text: str | None) -> float:
    """Return the number in a cell, or infinity, which sorts last, where there is none."""
    try:
        return float(text or "inf")
    except ValueError:
        return float("inf")


def scores(text: str | None) -> dict[str, float]:
    """Return the {tag: number} of a JSON cell; a cell that is empty or was damaged has none."""
    try:
        parsed = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(parsed, dict):
        return {}
    return {str(tag): value for tag, value in parsed.items() if isinstance(value, int | float)}


def over_threshold(cells: Cells) -> float:
    """Return by how much the tag that is farthest over its threshold is over it."""
    thresholds = scores(cells["nsfw_threshold"])
    over = [score - thresholds[tag] for tag, score in scores(cells["nsfw_tags"]).items() if tag in thresholds]
    return max(over) if over else number(cells["nsfw_score"])


def nsfw_tags(cells: Cells) -> list[tuple[str, str]]:
    """Return the tags with score and threshold, the highest score first."""
    thresholds = scores(cells["nsfw_threshold"])
    found = sorted(scores(cells["nsfw_tags"]).items(), key=lambda item: (-item[1], item[0]))
    return [(tag, f"{score:.2f}" + (f" of {thresholds[tag]:g}" if tag in thresholds else "")) for tag, score in found]


REVIEWS = {
    "nsfw": Review(
        title="Flagged as NSFW",
        flagged=FLAGGED_NSFW,
        closeness=over_threshold,
        says=lambda cells: f"score {number(cells['nsfw_score']):.3f}",
        tags=nsfw_tags,
        pictures=(("path_raw", "flagged"),),
        script=("preprocess/nsfw/nsfw_unflag.py", "--ids"),
        cleared="nsfw_override",
    ),
    "ocr": Review(
        title="Text was found",
        flagged=SCREENED & HAS_TEXT,
        closeness=lambda cells: number(cells["ocr_area_frac"]),
        says=lambda cells: f"text covers {number(cells['ocr_area_frac']):.2%}",
        pictures=(("path_raw", "before"), ("ocr_inpainted_path", "after")),
        script=("preprocess/ocr/ocr_unflag.py", "--ids"),
        cleared="ocr_override",
    ),
    "dup": Review(
        title="Removed as duplicates",
        flagged=SCREENED & is_true("dupe_removed"),
        closeness=lambda cells: -number(cells["dupe_distance"]),
        says=lambda cells: (
            f"{cells['dupe_flag']}, distance {cells['dupe_distance']}, decided by {cells['dupe_keep_reason']}"
        ),
        pictures=(("path_resized", "removed"), ("rep_path", "kept")),
        script=("metadata/history.py",),
    ),
}


def choose(images: pl.DataFrame, review: Review, limit: int) -> tuple[list[Cells], int]:
    """Return up to `limit` flagged rows, the closest to the threshold first, and how many there are in all."""
    files = images.select(pl.col(KEY).alias("dupe_rep_image"), pl.col("path_resized").alias("rep_path"))
    rows = images.filter(review.flagged & ~TAKEN_DOWN).join(files, on="dupe_rep_image", how="left").to_dicts()
    rows.sort(key=lambda cells: (review.closeness(cells), cells[KEY]))
    return rows[:limit], len(rows)


def flagged_image(cells: Cells, review: Review, root: Path) -> Flagged:
    pictures = [
        (caption, thumbnail(root / str(cells[column]), THUMBNAIL_SIDE))
        for column, caption in review.pictures
        if cells[column]
    ]
    return Flagged(
        str(cells[KEY]), cells["species"] or "unknown species", review.says(cells), review.tags(cells), pictures
    )


def command_start(review: Review, root: Path) -> str:
    """Return the command up to the ids."""
    script, *flags = review.script
    words = ["python", script, *(["--root", str(root)] if root != Path() else []), *flags]
    return shlex.join(words)


def write_review(reading: Reading, stage: str, limit: int) -> None:
    """Write the page of one stage, unless it is there already with the same content."""
    review, root = REVIEWS[stage], reading.root
    images = read_tables(reading.ledger).images
    rows, total = choose(images, review, limit)
    values: dict[str, Any] = {
        "stage": stage,
        "title": review.title,
        "images": [flagged_image(cells, review, root) for cells in rows],
        "total": total,
        "cleared": len(images.filter(pl.col(review.cleared).is_not_null())) if review.cleared else 0,
        "clears": review.cleared is not None,
        "command": command_start(review, root),
        "blurred": stage == "nsfw",
    }
    path = f"metadata/review-{stage}.html"
    written = write_text(root / path, render("review_template.jinja", **values))
    reading.seen, reading.done = total, len(rows)
    reading.extra = {"path": path, "written": written}


def build_parser() -> argparse.ArgumentParser:
    parser = reading_parser(__doc__)
    parser.add_argument("--stage", required=True, choices=list(REVIEWS), help="whose flags to look through")
    parser.add_argument("--limit", type=positive_int, default=500, metavar="N", help="at most N images (default: 500)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    stage, limit = args.stage, args.limit
    return run_reading("review", args.root, lambda reading: write_review(reading, stage, limit))


if __name__ == "__main__":
    raise SystemExit(main())
