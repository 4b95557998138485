"""The decision about duplicates: which images are near-duplicates, and which of them is kept.

Tables of images have the typed values of `pokefa.duplicates.rows.typed_rows`. The order of the rows does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from pokefa.duplicates.embeddings import Embeddings, cosine_pairs
from pokefa.duplicates.linkage import Linkage, link
from pokefa.images.hamming import Numbers
from pokefa.images.near_hashes import Hashes, add_links, classes_of, collect, hashes_of, near_classes, with_flat
from pokefa.ledger.table import KEY

# An inpainted image is in part the inpainter's guess, so a copy without inpainting outranks it.
CRITERIA = ("unpainted", "aesthetic", "pixels", "ts", KEY)
DESCENDING = (True, True, True, False, False)


@dataclass(frozen=True)
class Rules:
    """When two images are near-duplicates, and how near-duplicates form groups."""

    threshold: int
    linkage: Linkage
    variants: bool = False
    embeddings: Embeddings | None = None
    min_cosine: float = 1.0


def rank(rows: pl.DataFrame) -> pl.DataFrame:
    """Return typed rows best first, with CRITERIA as columns; missing values come last."""
    pixels = (pl.col("w") * pl.col("h")).fill_null(0)
    unpainted = pl.col("resize_source").ne_missing(pl.lit("inpainted"))
    criteria = rows.with_columns(
        unpainted.alias("unpainted"), pl.col("ae_aesthetic").alias("aesthetic"), pixels.alias("pixels")
    )
    return criteria.sort(CRITERIA, descending=DESCENDING, nulls_last=True)


def links_of(images: pl.DataFrame, rules: Rules) -> Numbers:
    """Return (Q, 2) int64: pairs of rows whose embeddings are near; flat images are excluded."""
    if rules.embeddings is None:
        return np.empty((0, 2), np.int64)
    ids = pl.DataFrame({KEY: rules.embeddings.ids}, {KEY: pl.String}).with_row_index("row")
    searched = images.with_row_index("place").filter(~pl.col("flat")).join(ids, on=KEY, maintain_order="left")
    vectors = rules.embeddings.vectors[searched["row"].to_numpy()]
    return searched["place"].to_numpy().astype(np.int64)[collect(cosine_pairs(vectors, rules.min_cosine))]


def decide(rows: pl.DataFrame, rules: Rules) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return image_id and rm_dups' columns, without the run, for every row, and some counts.

    Args:
        rows: typed rows from `pokefa.duplicates.rows.typed_rows`.
    """
    images = with_flat(rows)
    hashes = hashes_of(images)
    classes = classes_of(images)
    searched = np.flatnonzero((classes == np.arange(len(classes))) & ~images["flat"].to_numpy())
    near = near_classes(hashes, searched, rules.threshold)
    links = links_of(images, rules)
    counts = {"flat": int(images["flat"].sum()), "pairs": len(near)}
    if rules.embeddings is not None:
        counts["pairs_by_embedding"] = len(links)
    classes, near = add_links(classes, near, links)
    # Ranking costs more than the search, and only images with near-duplicates need it.
    company = np.bincount(classes, minlength=len(classes)) > 1
    company[near] = True
    ranked = rank(images.with_row_index("row").filter(pl.Series(company[classes], dtype=pl.Boolean)))
    places = ranked["row"].to_numpy()
    numbers, best, of_place = np.unique(classes[places], return_index=True, return_inverse=True)
    kept = link(rules.linkage, len(places), best[np.searchsorted(numbers, near)])[best[of_place]]
    grouped = describe_groups(ranked, Hashes(hashes.own[places], hashes.turned[places]), kept)
    alone = images.filter(pl.Series(~company[classes], dtype=pl.Boolean)).select(KEY)
    unique = alone.with_columns(pl.lit("unique").alias("dupe_flag"), pl.lit(False).alias("dupe_removed"))
    return pl.concat([grouped, unique], how="diagonal"), counts


def describe_groups(images: pl.DataFrame, hashes: Hashes, kept: Numbers) -> pl.DataFrame:
    """Return image_id and the decided columns of ranked images, given the position of the image kept for each."""
    places = np.arange(len(kept))
    removed = kept != places
    losers = np.flatnonzero(removed)
    kept_ones, second_best = np.unique(kept[losers], return_index=True)
    rival = kept.copy()  # explains the choice: the kept image for a removed one, the next best for the kept one
    rival[kept_ones] = losers[second_best]
    grouped = removed.copy()
    grouped[kept_ones] = True
    same = hashes.own == hashes.own[kept]
    others = images[rival.tolist()] if len(images) else images
    reason = pl.coalesce(pl.when(images[name].ne_missing(others[name])).then(pl.lit(name)) for name in CRITERIA)
    decided = images.select(
        pl.col(KEY),
        pl.when(pl.Series(grouped)).then(images[KEY].gather(kept)).alias("dupe_group"),
        pl.when(pl.Series(grouped)).then(pl.Series(hashes.distances(places, kept))).alias("dupe_distance"),
        pl.when(~pl.Series(grouped))
        .then(pl.lit("unique"))
        .when(~pl.Series(removed))
        .then(pl.lit("kept"))
        .when(pl.Series(same))
        .then(pl.lit("identical"))
        .otherwise(pl.lit("near"))
        .alias("dupe_flag"),
        pl.Series("dupe_removed", removed),
        pl.when(pl.Series(grouped)).then(reason).alias("dupe_keep_reason"),
    )
    return decided.insert_column(2, decided["dupe_group"].alias("dupe_rep_image"))
