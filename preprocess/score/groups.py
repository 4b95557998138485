"""Near-duplicates that share the scores of their largest member, in the same groups as in rm_dups.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import polars as pl

from pokefa.ledger.cells import Value
from pokefa.ledger.columns import SAME_AS
from pokefa.ledger.table import KEY

SCORES = ("ae_relevance", "ae_aesthetic", "ae_artifact")


def find_leaders(images: pl.DataFrame, pending: Collection[str]) -> dict[str, str]:
    """Return {image_id: the largest member of its group} for images that have near-duplicates.

    Args:
        images: cell texts of images.csv. Images that are neither pending nor scored, for example after an error, lead
            no group; images without a hash are in no group.
        pending: the images to score.
    """
    from pokefa.duplicates.grouping import Rules, decide
    from pokefa.duplicates.rows import typed_rows
    from pokefa.images.phash import THRESHOLD

    usable = pl.col("ae_aesthetic").is_not_null() | pl.col(KEY).is_in(list(pending))
    rows = typed_rows(images.filter(pl.col("phash64").is_not_null() & usable), variants=False)
    if not len(rows):
        return {}
    # Without scores the best image of a group is the one with the most pixels.
    decided, _ = decide(rows.with_columns(pl.lit(None, pl.Int64).alias("ae_aesthetic")), Rules(THRESHOLD, "star"))
    return dict(decided.filter(pl.col("dupe_group").is_not_null()).select(KEY, "dupe_group").iter_rows())


def shared_cells(leader: str, scores: Mapping[str, Value]) -> dict[str, Value]:
    """Return the cells of an image that shares another image's scores."""
    return {**{name: scores[name] for name in SCORES}, "ae_model": f"{SAME_AS}{leader}"}


def has_hashes(images: pl.DataFrame) -> bool:
    return images["phash64"].null_count() < len(images)
