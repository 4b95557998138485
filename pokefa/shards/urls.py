"""The set without its images: what is published where the images may not be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pokefa.files import replacing
from pokefa.ledger.columns import BASE
from pokefa.ledger.table import KEY, with_missing

URLS = "webdataset/urls.parquet"
TYPES = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "text": pl.String}


def write_urls(root: Path, base: pl.DataFrame, images: pl.DataFrame, ids: Sequence[str]) -> None:
    """Write the declared columns of base.csv, and sha256 of the downloaded bytes, for these ids.

    `image_id` is the MD5 of the downloaded bytes, by which `scrape.py --from-urls` knows that it got the same.

    Args:
        base, images: cell texts of both tables.

    Raises:
        PokefaError: the file cannot be written; an older one is unchanged.
    """
    declared = [pl.col(column.name).cast(TYPES[column.kind]) for column in BASE.columns]
    sums = with_missing(images, ["sha256"]).select(KEY, "sha256")
    chosen = with_missing(base, BASE.names).filter(pl.col(KEY).is_in(list(ids))).select(declared)
    frame = chosen.join(sums, on=KEY, how="left").sort(KEY)
    stream = io.BytesIO()
    frame.write_parquet(stream)
    path = root / URLS
    if not path.is_file() or path.read_bytes() != stream.getvalue():
        with replacing(path) as target:
            target.write(stream.getvalue())
