"""Which sample goes into which shard, and the contents of a shard."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokefa.errors import InputError, first_line
from pokefa.files import BadPathError, locate
from pokefa.ledger.table import KEY
from pokefa.shards.images import FORMAT_OF, Encoding
from pokefa.stage.runner import Row

DATA = "webdataset/data"
BUILDING = f"{DATA}/.building"
MANIFESTS = "webdataset/manifests"
STATS = f"{MANIFESTS}/split_stats.json"
SPLITS = ("train", "val")
IMAGE_SUFFIXES = tuple(FORMAT_OF)

SHARD_NAME = re.compile(r"(train|val)-\d{5,}\.tar")

# Part of every shard's plan: increase it whenever the contents of shards change, so that old shards are not kept.
LAYOUT = 2
TAR_BLOCK = 512
TAR_RECORD = 10240  # a tar file ends with two empty blocks and is padded to complete records
UNPLANNED_JSON_BYTES = 200  # md5, sha256, width and height are added to the facts when the image is read


@dataclass(frozen=True)
class Sample:
    """One image to pack: its file, its caption, and its facts from base.csv."""

    image_id: str
    path: str
    caption: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class ShardSize:
    """A shard is full at this many samples, or when the next sample would exceed this many bytes."""

    samples: int
    bytes: int | None = None

    def holds(self, samples: int, filled: int) -> bool:
        """Tell whether this many samples, whose members take `filled` bytes, fit into one shard."""
        file_bytes = -(-(filled + 2 * TAR_BLOCK) // TAR_RECORD) * TAR_RECORD
        return samples <= self.samples and (self.bytes is None or file_bytes <= self.bytes)


def tags_in(text: str) -> dict[str, Any]:
    """Return the tags of a tags cell.

    Raises:
        ValueError: the text is not a JSON object.
    """
    try:
        tags = json.loads(text)
        to_json(tags)
    except (ValueError, RecursionError):  # also rejects NaN and lone surrogates, which the shard's JSON cannot hold
        tags = None
    if not isinstance(tags, dict):
        raise ValueError("bad_tags: the tags are not a JSON object; caption the image again")
    return tags


def make_sample(row: Row) -> Sample:
    """Return the sample of one row of base.csv.

    Raises:
        ValueError: the row cannot be packed; the message starts with its reason slug.
    """
    image_id = str(row[KEY])
    tags = tags_in(str(row["tags"] or "{}"))
    if row["hybrid_caption"] is None:
        raise ValueError("no_caption: run caption/hybrid_captions.py first")
    species = str(row["species"] or "")
    copied = {name: row[name] for name in ("split", "source_url", "ae_relevance", "ae_aesthetic", "phash")}
    facts = {KEY: image_id, **copied, "species": species, "species_list": species.split(","), "tags": tags}
    return Sample(image_id, str(row["path"]), str(row["hybrid_caption"]), facts)


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Return the samples in an order that only depends on the seed and their ids."""
    return sorted(samples, key=lambda each: hashlib.sha256(f"shards {seed} {each.image_id}".encode()).digest())


def fill_shards(samples: Sequence[Sample], size: ShardSize, root: Path) -> Iterator[list[Sample]]:
    """Yield the samples of each shard, in order; none is empty."""
    shard: list[Sample] = []
    filled = 0
    for sample in samples:
        weight = tar_bytes(sample, root) if size.bytes is not None else 0
        if shard and not size.holds(len(shard) + 1, filled + weight):
            yield shard
            shard, filled = [], 0
        shard.append(sample)
        filled += weight
    if shard:
        yield shard


def tar_bytes(sample: Sample, root: Path) -> int:
    """Return the maximum bytes of a sample in a shard: for each member a header and its content in blocks."""
    try:
        image = locate(root, sample.path).stat().st_size
    except (OSError, BadPathError):
        image = 0  # will be left out
    members = (image, len(sample.caption.encode()), len(to_json(sample.facts)) + UNPLANNED_JSON_BYTES)
    return sum(TAR_BLOCK + -(-size // TAR_BLOCK) * TAR_BLOCK for size in members)


def plan_hash(samples: Sequence[Sample], encoding: Encoding) -> str:
    """Return a hash of everything in a shard except the image files themselves."""
    how = [LAYOUT, encoding.format, encoding.max_side]
    if not encoding.decode:  # the same bytes, but this shard must not count as one with decoded images
        how.append("header")
    content = [how, *([each.image_id, each.path, each.caption, each.facts] for each in samples)]
    return hashlib.sha256(to_json(content)).hexdigest()


def to_json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True).encode("utf-8")


def json_text(value: object) -> str:
    """Return the text of a manifest, with sorted keys, so that the same set gives the same text."""
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


# -- the contents of a set of shards -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One file of a shard: its image_id, its extension, and the offset of its bytes in the tar."""

    image_id: str
    extension: str
    offset: int
    size: int


@dataclass(frozen=True)
class Stats:
    """split_stats.json, which webdataset.py writes last: what it packed, and from which id lists.

    Args:
        shards, id_lists: {file name: {"sha256", "bytes", "samples", …}}.
        left_out: {image_id: reason} of the images that could not be packed.
    """

    shards: dict[str, dict[str, Any]] = field(default_factory=dict)
    id_lists: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def built_shard(root: Path, plan: str) -> Path:
    """Return where a shard with this plan is built."""
    return root / BUILDING / f"{plan}.tar"


def shard_paths(root: Path) -> list[Path]:
    return sorted((root / DATA).glob("*.tar"))


def split_of(shard: Path) -> str:
    """Return `train` for train-00000.tar."""
    return shard.name.rpartition("-")[0]


def read_members(shard: Path) -> Iterator[Member]:
    """Yield the files of a shard in order; the key of a sample is its image_id.

    Raises:
        InputError: the file is not a complete tar.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isfile():
                    key, _, extension = member.name.partition(".")
                    yield Member(key, extension, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{DATA}/{shard.name} is not a complete tar ({first_line(error)}): run webdataset/webdataset.py again"
        ) from None


def read_stats(root: Path) -> Stats | None:
    """Return the content of split_stats.json, or None if it is missing, which means that no set is complete.

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
    return {split: set(_read_text(root / MANIFESTS / f"{split}_ids.txt").split()) for split in SPLITS}


def lists_packed(root: Path, stats: Stats) -> bool:
    """Tell whether the shards were made from the id lists as they are now."""
    return all(
        hashlib.sha256(_read_text(root / MANIFESTS / name).encode()).hexdigest() == facts.get("sha256")
        for name, facts in stats.id_lists.items()
    )


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


# -- why a row is in no split ------------------------------------------------------------------------------------------

# Excluded on purpose, or waiting for an earlier stage; a row with another reason needs attention.
HARMLESS = ("dropped", "no_caption", "no_species", "no_split")


def why_in_no_split(
    image_id: str, drop_reason: str | None, caption: str | None, tags: str | None, species: str | None, *, failed: bool
) -> str:
    """Return the first reason that excludes a row from the split, in the order of the stages.

    Args:
        drop_reason, caption, tags, species: its cells; drop_reason is None if no earlier stage dropped it.
        failed: whether the last attempt to caption it failed.
    """
    if drop_reason is not None:
        return f"dropped: {drop_reason}"
    try:
        if caption is None:
            script = "caption/sentence_tags.py"
            return f"caption_failed: run {script} --retry-errors" if failed else f"no_caption: run {script} first"
        tags_in(tags or "")
        pokemon_in(tags or "")
    except ValueError as error:
        return str(error)
    missing = "species" if species is None else "split"
    return f"no_{missing}: run webdataset/{missing}.py first"


def pokemon_in(tags: str) -> list[str]:
    """Return the names under `pokemon` in the text of a tags cell.

    Raises:
        ValueError: the text is not a JSON object whose `pokemon`, if any, is a list of strings.
    """
    try:
        found = json.loads(tags)
    except (ValueError, RecursionError):
        found = None
    names = found.get("pokemon", []) if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("bad_tags: the tags are not a JSON object with a list `pokemon`; caption the image again")
    return names
