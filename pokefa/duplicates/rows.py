"""The rows that duplicates are decided on, as typed values. Needs no NumPy, so that --help does not either."""

from __future__ import annotations

import polars as pl

from pokefa.errors import InputError
from pokefa.ledger.columns import IMAGES
from pokefa.ledger.table import KEY

READ = ("phash64", "phash_contrast", "sha256", "resize_source", "ae_aesthetic", "w", "h", "ts")


def typed_rows(frame: pl.DataFrame, *, variants: bool) -> pl.DataFrame:
    """Return the columns that decide, as typed values.

    Raises:
        InputError: no image has variants, and they are to count.
    """
    if variants and len(frame) and frame["phash_variants"].null_count() == len(frame):
        raise InputError("no image has phash_variants: run preprocess/dup/phash.py --with-variants first")
    kinds = {"int": pl.Int64, "float": pl.Float64}
    return frame.select(KEY, *READ, *(["phash_variants"] if variants else [])).with_columns(
        pl.col(column.name).cast(kinds[column.kind])
        for column in map(IMAGES.column, READ)
        if column is not None and column.kind in kinds
    )
