"""What lies in the shards: read from the tar files themselves, and from the manifests beside them."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokefa.errors import InputError
from pokefa.table import first_line

DATA_FOLDER = "webdataset/data"
MANIFESTS_FOLDER = "webdataset/manifests"
STATS = f"{MANIFESTS_FOLDER}/split_stats.json"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Member:
    """One file of a shard: the image_id it belongs to, its extension, and where its bytes begin in the tar."""

    image_id: str
    extension: str
    offset: int
    size: int


@dataclass(frozen=True)
class Stats:
    """split_stats.json, which webdataset.py writes last: what it packed, and from which id lists.

    Args:
        shards, id_lists: {file name: {"sha256", "bytes", "samples", …}}.
        left_out: {image_id: reason} of the images that no shard could take.
    """

    shards: dict[str, dict[str, Any]] = field(default_factory=dict)
    id_lists: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def shard_paths(root: Path) -> list[Path]:
    return sorted((root / DATA_FOLDER).glob("*.tar"))


def split_of(shard: Path) -> str:
    """Return `train` for train-00000.tar."""
    return shard.name.rpartition("-")[0]


def read_members(shard: Path) -> Iterator[Member]:
    """Yield the files of a shard in order; a sample's key is its image_id.

    Raises:
        InputError: the file is not a whole tar.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isfile():
                    key, _, extension = member.name.partition(".")
                    yield Member(key, extension, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{DATA_FOLDER}/{shard.name} is not a whole tar ({first_line(error)}): run webdataset/webdataset.py again"
        ) from None


def read_stats(root: Path) -> Stats | None:
    """Return what split_stats.json says, or None where it is missing: then no set of shards is whole.

    Raises:
        InputError: the file is damaged.
    """
    try:
        stats = json.loads((root / STATS).read_text(encoding="utf-8"))
        return Stats(dict(stats["shards"]), dict(stats["id_lists"]), dict(stats["left_out"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{STATS} is damaged ({error!r}): run webdataset/webdataset.py again") from None


def listed_ids(root: Path) -> dict[str, set[str]]:
    """Return the ids in split.py's lists, by split; empty before they are written."""
    return {split: set(_read_text(root / MANIFESTS_FOLDER / f"{split}_ids.txt").split()) for split in SPLITS}


def lists_packed(root: Path, stats: Stats) -> bool:
    """Tell whether the shards were made from the id lists as they are now."""
    return all(
        hashlib.sha256(_read_text(root / MANIFESTS_FOLDER / name).encode()).hexdigest() == facts.get("sha256")
        for name, facts in stats.id_lists.items()
    )


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
