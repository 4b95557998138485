"""The pictures of the report: kept, borderline and left out images, and inpainting before and after.

An image that is flagged as NSFW, or not screened yet, appears as a few blocks of colour: the page does not contain it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.ledger.table import KEY
from pokefa.reporting.section_parts import number
from pokefa.reporting.sections import SCORES
from pokefa.reporting.thumbnails import Thumbnail, thumbnail
from pokefa.stage.funnel import FAILED, KEPT, WAITING, Tables
from pokefa.stage.rows import HAS_TEXT, SCREENED, filled

ERROR_COLUMNS = ("nsfw_error", "ocr_error", "resize_error", "score_error", "phash_error", "caption_error")

TILE_SIDE = 132
PAIR_SIDE = 300
MOST_PAIRS = 6

# An image is borderline if the deciding score is this close to its threshold, on either side.
BORDER = 10

Cells = dict[str, Any]


@dataclass(frozen=True)
class Tile:
    """One picture of the contact sheet, with what is known about it.

    Args:
        alt: description of the picture, as far as known.
    """

    image_id: str
    species: str
    verdict: str
    detail: str
    link: str
    alt: str
    picture: Thumbnail


@dataclass(frozen=True)
class Sheet:
    """A section of the contact sheet: `of` images belong to it, and some of them are shown."""

    name: str
    title: str
    says: str
    of: int
    tiles: list[Tile]


@dataclass(frozen=True)
class Pair:
    """An image before and after inpainting; `share` of it, 0 to 1, was painted."""

    image_id: str
    species: str
    share: float
    before: Thumbnail
    after: Thumbnail


def contact_sheets(tables: Tables, root: Path, thresholds: Mapping[str, float], most: int) -> list[Sheet]:
    """Return up to `most` kept, borderline and left out images each; none appears twice."""
    images = tables.images
    paths = dict(tables.base.select(KEY, "path").iter_rows())
    screened = set(images.filter(SCREENED)[KEY])
    border = borderline(images, thresholds)
    on_border = border.head(most)
    others = images.join(on_border.select(KEY), on=KEY, how="anti", maintain_order="left")
    kept = others.filter(pl.col("fate") == KEPT).sort(
        pl.col("filter_rank").cast(pl.Int64, strict=False), KEY, nulls_last=True
    )
    out = others.filter(~pl.col("fate").is_in([KEPT, WAITING]))

    def tiles(rows: list[Cells]) -> list[Tile]:
        return [tile(row, paths, root, veiled=row[KEY] not in screened) for row in rows]

    closest = f"A score within {BORDER} points of its threshold, on either side, the closest first."
    return [
        Sheet("kept", "Kept", "The best first.", len(kept), tiles(kept.head(most).to_dicts())),
        Sheet("borderline", "Borderline", closest, len(border), tiles(on_border.to_dicts())),
        Sheet("dropped", "Left out", "Every reason in turn.", len(out), tiles(in_turn(out, most))),
    ]


def borderline(images: pl.DataFrame, thresholds: Mapping[str, float]) -> pl.DataFrame:
    """Return the images closest to the thresholds, the closest first.

    The deciding score is the one with the smallest margin over its threshold; an image is kept if both are above.
    """
    if thresholds.keys() < SCORES.keys():
        return images.clear()
    room = pl.min_horizontal([number(column) - thresholds[name] for name, column in SCORES.items()])
    decided = pl.col("fate").is_in([KEPT, "below_relevance", "below_aesthetic"])
    close = images.filter(decided & SCREENED).with_columns(room.alias("room")).filter(pl.col("room").abs() <= BORDER)
    return close.sort(pl.col("room").abs(), KEY).drop("room")


def in_turn(out: pl.DataFrame, most: int) -> list[Cells]:
    """Return rows of all reasons in turn, so that no reason fills the sheet."""
    by_reason = [part.head(most).to_dicts() for _, part in sorted(out.sort(KEY).group_by("fate_stage", "fate"))]
    return [row for rows in zip_longest(*by_reason) for row in rows if row is not None][:most]


def tile(row: Cells, paths: Mapping[str, str | None], root: Path, *, veiled: bool) -> Tile:
    path = paths.get(row[KEY]) or row["path_resized"] or row["path_raw"]
    verdict = KEPT if row["fate"] == KEPT else f"{row['fate_stage']}: {row['fate']}"
    if row["fate"] == KEPT and row["filter_rank"]:
        verdict = f"kept, rank {row['filter_rank']}"
    scores = [f"{name} {row[column]}" for name, column in SCORES.items() if row[column]]
    reasons = [row[column] for column in ERROR_COLUMNS if row["fate"] == FAILED and row[column]]
    gone = row["fate_stage"] == "takedown"
    species = row["species"] or "unknown species"
    shows = "Blocks of colour, not the picture" if veiled else row["base_caption"] or "Not captioned"
    return Tile(
        image_id=row[KEY],
        species=species,
        verdict=verdict,
        detail=", ".join(scores + reasons),
        link=web_address(row["source_page"]) or web_address(row["source_url"]),
        alt=f"{species}. {shows}",
        picture=Thumbnail(problem="taken down") if gone else thumbnail(root, str(path), TILE_SIDE, veiled=veiled),
    )


def web_address(text: str | None) -> str:
    """Return an address that a page may link to: only http and https, because strangers wrote it."""
    return text if text and text.startswith(("http://", "https://")) else ""


def inpainting_pairs(images: pl.DataFrame, root: Path) -> list[Pair]:
    """Return inpainted images before and after, those with the most text first."""
    wanted = filled("ocr_inpainted_path") & HAS_TEXT & SCREENED
    share = number("ocr_area_frac").fill_null(0.0)
    rows = images.filter(wanted & ~pl.col("fate_stage").eq("takedown")).with_columns(share.alias("share"))
    return [
        Pair(
            row[KEY],
            row["species"] or "unknown species",
            row["share"],
            thumbnail(root, str(row["path_raw"]), PAIR_SIDE),
            thumbnail(root, str(row["ocr_inpainted_path"]), PAIR_SIDE),
        )
        for row in rows.sort("share", KEY, descending=[True, False]).head(MOST_PAIRS).to_dicts()
    ]
