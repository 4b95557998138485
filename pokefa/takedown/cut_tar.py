"""Cutting a shard: which bytes of the tar file stay when samples leave, and the file made of them."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pokefa.errors import InputError, first_line
from pokefa.files import replacing
from pokefa.shards.layout import DATA, TAR_BLOCK, TAR_RECORD

COPY_BYTES = 2**20


@dataclass(frozen=True)
class Cut:
    """A shard that loses samples.

    Args:
        name: of the file.
        kept: (begin, end) in bytes of each sample that stays, in order.
        gone: {image_id: the species that its facts name} of the samples that leave.
    """

    name: str
    kept: tuple[tuple[int, int], ...]
    gone: Mapping[str, tuple[str, ...]]


def read_cut(path: Path, gone: frozenset[str]) -> Cut | None:
    """Return how a shard is cut, or None where it holds none of the images.

    Raises:
        InputError: it is not a whole tar.
    """
    kept: list[tuple[int, int]] = []
    species: dict[str, tuple[str, ...]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                end = member.offset_data + -(-member.size // TAR_BLOCK) * TAR_BLOCK
                if key not in gone:
                    kept.append((member.offset, end))
                    continue
                species.setdefault(key, ())
                stream = tar.extractfile(member) if extension == "json" else None
                if stream is not None:
                    species[key] = _species_in(stream.read())
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{DATA}/{path.name} is not a whole tar ({first_line(error)}): run webdataset/webdataset.py again"
        ) from None
    return Cut(path.name, tuple(_joined(kept)), species) if species else None


def write_cut(root: Path, cut: Cut, staged: Path) -> dict[str, Any]:
    """Write what is left of a shard, and return its SHA-256 and bytes."""
    digest, written = hashlib.sha256(), 0
    with replacing(staged) as stream, (root / DATA / cut.name).open("rb") as source:
        for block in _blocks(source, cut.kept):
            digest.update(block)
            written += stream.write(block)
        filled = -(-(written + 2 * TAR_BLOCK) // TAR_RECORD) * TAR_RECORD  # as tarfile ends an archive
        end = bytes(filled - written)
        digest.update(end)
        written += stream.write(end)
    return {"sha256": digest.hexdigest(), "bytes": written}


def _species_in(facts: bytes) -> tuple[str, ...]:
    """Return the species that a sample's facts name, each once."""
    try:
        named = str(json.loads(facts)["species"])
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(dict.fromkeys(name for name in named.split(",") if name))


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ranges, those that touch as one."""
    begin = end = -1
    for first, last in ranges:
        if first == end:
            end = last
            continue
        if end > begin:
            yield begin, end
        begin, end = first, last
    if end > begin:
        yield begin, end


def _blocks(source: IO[bytes], ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    for begin, end in ranges:
        source.seek(begin)
        while begin < end and (block := source.read(min(COPY_BYTES, end - begin))):
            begin += len(block)
            yield block
