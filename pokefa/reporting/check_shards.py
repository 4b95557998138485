"""Checks the shards against their manifests and base.csv: each check yields (kind, what) of its findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from pokefa.errors import InputError
from pokefa.files import sha256_of
from pokefa.ledger.columns import TAKEN_DOWN
from pokefa.ledger.table import KEY
from pokefa.reporting.check_files import out_of_set
from pokefa.shards.layout import (
    DATA,
    MANIFESTS,
    SPLITS,
    STATS,
    Stats,
    listed_ids,
    read_members,
    read_stats,
    shard_paths,
    split_of,
)
from pokefa.shards.publish import MOVES
from pokefa.stage.funnel import Tables
from pokefa.stage.rows import filled


def check_shards(tables: Tables, root: Path) -> Iterator[tuple[str, str]]:
    """Yield the differences between the shards, their manifests, and base.csv; nothing before the first shards."""
    shards = shard_paths(root)
    if (root / MOVES).exists():
        yield "manifest_differs", f"{MOVES}: a run was killed while it put these shards in place"
    try:
        stats = read_stats(root)
    except InputError as error:
        yield "manifest_differs", str(error)
        return
    if stats is None:
        if shards:
            yield "manifest_differs", f"{STATS} is missing: these shards are not a complete set"
        return
    yield from check_manifest(root, shards, stats)
    packed: dict[str, set[str]] = {split: set() for split in SPLITS}
    for shard in shards:
        try:
            packed.setdefault(split_of(shard), set()).update(member.image_id for member in read_members(shard))
        except InputError as error:
            yield "shard_damaged", str(error)
    out = [*out_of_set().values(), filled("drop_reason")]
    refused = {image_id for wrong in out for image_id in tables.images.filter(wrong)[KEY]}
    gone = set(tables.images.filter(TAKEN_DOWN)[KEY])
    for split, ids in packed.items():
        in_set = set(tables.base.filter(pl.col("split") == split)[KEY]) - refused
        for image_id in sorted(ids - in_set - gone):  # the check of takedowns reports those
            yield "shard_not_in_base", f"{image_id} in {split}"
        for image_id in sorted(in_set - ids - stats.left_out.keys()):
            yield "shard_lacks_image", f"{image_id} in {split}"
    for split, ids in listed_ids(root).items():
        in_base = set(tables.base.filter(pl.col("split") == split)[KEY])
        for image_id in sorted(ids ^ in_base):
            yield "list_differs", f"{image_id} in {split}_ids.txt or base.csv, not in both"
        if ids == in_base:
            yield from check_species(tables, root, split)


def check_species(tables: Tables, root: Path, split: str) -> Iterator[tuple[str, str]]:
    """Yield the species whose count in a manifest of split.py differs from base.csv; nothing without a manifest."""
    path = root / MANIFESTS / f"{split}_species.csv"
    if not path.is_file():
        return
    lists = tables.base.filter((pl.col("split") == split) & filled("species"))["species"]
    shown = Counter(name for names in lists for name in set(names.replace(",", " ").split()))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        told = Counter({name: int(count) for name, count, _ in (line.split(",") for line in lines)})
    except ValueError:
        yield "list_differs", f"{path.name} is damaged"
        return
    for name in sorted(told.keys() | shown.keys()):
        if told[name] != shown[name]:
            yield "list_differs", f"{path.name} counts {told[name]} of {name}, base.csv has {shown[name]}"


def check_manifest(root: Path, shards: Sequence[Path], stats: Stats) -> Iterator[tuple[str, str]]:
    """Yield the errors in what split_stats.json says about shards and id lists."""
    for shard in shards:
        if shard.name not in stats.shards:
            yield "manifest_differs", f"{shard.name} is not in {STATS}"
    for folder, files in ((DATA, stats.shards), (MANIFESTS, stats.id_lists)):
        for name, facts in files.items():
            path = root / folder / name
            if not path.is_file():
                yield "manifest_differs", f"{folder}/{name} does not exist"
            elif path.stat().st_size != facts["bytes"] or sha256_of(path) != facts["sha256"]:
                yield "manifest_differs", f"{folder}/{name} has other bytes than when it was packed"
