"""Which images look alike, for a stage that must not part them: no groups, and none of them is kept or removed."""

from __future__ import annotations

import polars as pl

from pokefa.table import KEY

HASHES = ("phash64", "phash_contrast", "phash_variants", "sha256")


def look_alikes(images: pl.DataFrame, threshold: int) -> list[tuple[str, str]]:
    """Return pairs of image_ids that join, directly or through others, all images within `threshold` bits.

    Args:
        images: cell texts of image_id and HASHES. Images without a hash, and flat ones, whose hash says nothing, are
            like no other.

    Raises:
        PokefaError: the threshold is so high that too many pairs are near.
    """
    import numpy as np

    from preprocess.dup.decisions import hashes_of, with_flat
    from preprocess.dup.looks import looks_of, near_looks

    hashed = images.filter(pl.col("phash64").is_not_null())
    hashed = hashed.with_columns(pl.col("phash_contrast").cast(pl.Float64))
    if hashed["phash_variants"].null_count() == len(hashed):
        hashed = hashed.drop("phash_variants")
    hashed = with_flat(hashed)
    looks = looks_of(hashed)
    places = np.arange(len(looks))
    searched = np.flatnonzero((looks == places) & ~hashed["flat"].to_numpy())
    same = np.column_stack((places, looks))[looks != places]
    near = np.concatenate((same, near_looks(hashes_of(hashed), searched, threshold)))
    ids = hashed[KEY].to_list()
    return [(ids[one], ids[other]) for one, other in near.tolist()]
