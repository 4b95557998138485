"""The set without its images, for publication when the images may not be published."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from pokefa.errors import InputError, first_line
from pokefa.files import replacing
from pokefa.ledger.columns import BASE
from pokefa.ledger.table import KEY, with_missing

URLS = "webdataset/urls.parquet"
TYPES = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "text": pl.String}


def write_urls(root: Path, base: pl.DataFrame, images: pl.DataFrame, ids: Sequence[str]) -> None:
    """Write the declared columns of base.csv, and sha256 of the downloaded bytes, for these ids.

    `image_id` is the MD5 of the downloaded bytes, with which `scrape.py --from-urls` verifies a download.

    Args:
        base, images: cell texts of both tables.

    Raises:
        PokefaError: the file cannot be written; an existing one is unchanged.
    """
    declared = [pl.col(column.name).cast(TYPES[column.kind]) for column in BASE.columns]
    sums = with_missing(images, ["sha256"]).select(KEY, "sha256")
    chosen = with_missing(base, BASE.names).filter(pl.col(KEY).is_in(list(ids))).select(declared)
    frame = chosen.join(sums, on=KEY, how="left").sort(KEY)
    content = _parquet(frame)
    path = root / URLS
    if not path.is_file() or path.read_bytes() != content:
        with replacing(path) as target:
            target.write(content)


def urls_without(root: Path, ids: Collection[str]) -> bytes | None:
    """Return the content of the file without some images, or None if it names none of them.

    Raises:
        InputError: the file is damaged.
    """
    if not (root / URLS).is_file():
        return None
    chosen = pl.col(KEY).is_in(sorted(ids))
    try:
        urls = pl.read_parquet(root / URLS)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{URLS} cannot be read ({first_line(error)}): run webdataset/webdataset.py --urls-only again"
        ) from None
    return _parquet(urls.filter(~chosen)) if len(urls.filter(chosen)) else None


def _parquet(frame: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.write_parquet(stream)
    return stream.getvalue()
