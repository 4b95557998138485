"""Which sample goes into which shard, and what a shard is made of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokefa.files import BadPathError, locate
from pokefa.run import Row
from pokefa.table import KEY
from shards.images import FORMAT_OF, Encoding

DATA = "webdataset/data"
BUILDING = f"{DATA}/.building"
MANIFESTS = "webdataset/manifests"
STATS = f"{MANIFESTS}/split_stats.json"
SPLITS = ("train", "val")
IMAGE_SUFFIXES = tuple(FORMAT_OF)

SHARD_NAME = re.compile(r"(train|val)-\d{5,}\.tar")

# Part of every shard's plan: a change in what shards hold takes another number, so that old ones are not kept.
LAYOUT = 2
TAR_BLOCK = 512
TAR_RECORD = 10240  # a tar file ends with two empty blocks and is filled up to whole records
UNPLANNED_JSON_BYTES = 200  # md5, sha256, width and height join the facts only when the image is read


@dataclass(frozen=True)
class Sample:
    """One image to pack: its file, its caption, and what base.csv says of it."""

    image_id: str
    path: str
    caption: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class ShardSize:
    """A shard is full at so many samples, or when the next sample would take its file over so many bytes."""

    samples: int
    bytes: int | None = None

    def holds(self, samples: int, filled: int) -> bool:
        """Tell whether so many samples, whose members take `filled` bytes, fit into one shard."""
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
    except (ValueError, RecursionError):  # NaN and lone surrogates too, which the shard's JSON could not hold
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
    """Return the samples in an order that depends on the seed and their ids alone."""
    return sorted(samples, key=lambda each: hashlib.sha256(f"shards {seed} {each.image_id}".encode()).digest())


def fill_shards(samples: Sequence[Sample], size: ShardSize, root: Path) -> Iterator[list[Sample]]:
    """Yield the samples of one shard after the other, in order; none is empty."""
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
    """Return the most bytes that a sample takes in a shard: for each member a header and its content in blocks."""
    try:
        image = locate(root, sample.path).stat().st_size
    except (OSError, BadPathError):
        image = 0  # to be left out
    members = (image, len(sample.caption.encode()), len(to_json(sample.facts)) + UNPLANNED_JSON_BYTES)
    return sum(TAR_BLOCK + -(-size // TAR_BLOCK) * TAR_BLOCK for size in members)


def plan_hash(samples: Sequence[Sample], encoding: Encoding) -> str:
    """Return a hash of all that goes into a shard, except for the image files themselves."""
    how = [LAYOUT, encoding.format, encoding.max_side]
    if not encoding.decode:  # the same bytes, but such a shard must not pass for one of decoded images
        how.append("header")
    content = [how, *([each.image_id, each.path, each.caption, each.facts] for each in samples)]
    return hashlib.sha256(to_json(content)).hexdigest()


def to_json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True).encode("utf-8")
