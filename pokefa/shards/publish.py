"""Putting a set of shards in place, whole or not at all, and its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pokefa.files import sync_folder, write_text
from pokefa.shards.layout import BUILDING, DATA, MANIFESTS, SHARD_NAME, SPLITS, STATS
from pokefa.shards.pack import Known, Packed, built_shard


def read_known(root: Path) -> dict[str, Known]:
    """Return {plan: shard} of the last set, and of what a broken-off run has built."""
    known: dict[str, Known] = {}
    try:
        stats = json.loads((root / STATS).read_text(encoding="utf-8"))
        for facts in stats["empty_shards"]:
            known[facts["plan"]] = Known(Packed(**facts))
        for name in filter(SHARD_NAME.fullmatch, stats["shards"]):
            facts = stats["shards"][name]
            known[facts["plan"]] = Known(Packed(**facts), root / DATA / name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known.clear()  # no manifest, or a damaged one: every shard is packed anew
    for path in (root / BUILDING).glob("*.json"):
        try:
            packed = Packed(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            continue
        known[packed.plan] = Known(packed, path.with_suffix(".tar"))
    return known


def clear_building(root: Path, plans: set[str]) -> None:
    """Remove what a broken-off run of another set, or a killed worker, left in the building folder."""
    for path in (root / BUILDING).glob("*"):
        if path.stem not in plans:
            path.unlink()


def publish(root: Path, shards: Mapping[str, Packed], known: Mapping[str, Known]) -> None:
    """Put the shards in place under their names and remove those of an older set.

    The manifest goes before the first change and comes back after the last: while it is missing, the set is not whole.
    """
    folder = root / DATA
    moves = {}
    for name, shard in shards.items():
        built = built_shard(root, shard.plan)
        source = built if built.exists() else known[shard.plan].path
        if source is not None and source != folder / name:
            moves[name] = (source, built)
    stale = [path for path in folder.glob("*.tar") if SHARD_NAME.fullmatch(path.name) and path.name not in shards]
    if moves or stale:
        (root / STATS).unlink(missing_ok=True)
        (root / BUILDING).mkdir(exist_ok=True)
        for source, built in moves.values():  # a kept shard with another number steps aside, before names are taken
            source.replace(built)
        for path in stale:
            path.unlink(missing_ok=True)
        for name, (_, built) in moves.items():
            built.replace(folder / name)
        sync_folder(folder)
    clear_building(root, set())
    if (root / BUILDING).is_dir():
        (root / BUILDING).rmdir()


def write_stats(
    root: Path,
    shards: Mapping[str, Packed],
    packed: Mapping[str, Packed],
    left_out: Mapping[str, str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Write split_stats.json, and return what it says.

    Args:
        shards: the set by file name.
        packed: by plan, with the shards that hold no sample and are no files.
    """
    counts = {
        split: sum(shard.samples for name, shard in shards.items() if name.startswith(f"{split}-")) for split in SPLITS
    }
    stats = {
        "empty_shards": [vars(shard) for shard in packed.values() if not shard.samples],
        "id_lists": {f"{split}_ids.txt": describe_ids(read_ids(root, split)) for split in SPLITS},
        "left_out": dict(left_out),
        "samples": counts,
        "settings": dict(settings),
        "shards": {name: vars(shard) for name, shard in shards.items()},
    }
    # No time and no run id: the same set has the same text.
    write_text(root / STATS, json.dumps(stats, ensure_ascii=False, indent=1, sort_keys=True) + "\n")
    return stats


def read_ids(root: Path, split: str) -> str:
    """Return the text of an id list; an empty one where there is none."""
    try:
        return (root / MANIFESTS / f"{split}_ids.txt").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def describe_ids(text: str) -> dict[str, int | str]:
    """Return what the manifest says of an id list."""
    data = text.encode()
    return {"bytes": len(data), "samples": len(text.split()), "sha256": hashlib.sha256(data).hexdigest()}
