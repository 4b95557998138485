"""Packs shards: the work of the worker processes, and the map over it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pokefa.engine.local import run_batches
from pokefa.engine.work import WORKER_DIED, Outcome, Pool, Work, each
from pokefa.errors import ImageError, PokefaError
from pokefa.files import BadPathError, locate, replacing, sha256_of, write_text
from pokefa.images.decoding import DECODER_SLUGS, in_decoder
from pokefa.images.files import MAX_BYTES
from pokefa.images.formats import SUFFIXES
from pokefa.images.storage import is_remote
from pokefa.shards.images import Encoding, prepare
from pokefa.shards.layout import Sample, built_shard, to_json
from pokefa.shards.tar import HashingStream, open_tar

_PERHAPS_NEXT_TIME = tuple(f"unreadable: {slug}" for slug in DECODER_SLUGS)

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Packed:
    """A shard on disk, and what it was made from.

    Args:
        plan: hash of the samples' captions and facts, in order; see `plan_hash`.
        images: hash of the image files, in the same order; see `Digest`.
        left_out: {image_id: reason} of the planned images that it does not contain.
    """

    plan: str
    images: str
    sha256: str
    bytes: int
    samples: int
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A shard of an earlier run, and its file, if any of its images could be packed."""

    packed: Packed
    path: Path | None = None


@dataclass(frozen=True)
class Task:
    """One shard to pack, unless it is unchanged.

    Args:
        known: an earlier shard of the same plan.
        deadly: ids of images that killed their worker process; they are left out.
    """

    plan: str
    samples: tuple[Sample, ...]
    known: Known | None = None
    deadly: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PackShards:
    """The worker: packs shards that have changed.

    Args:
        images: the base folder of the images' paths; None = the root.
    """

    root: Path
    encoding: Encoding
    images: Path | None = None

    @property
    def folder(self) -> Path:
        return self.root if self.images is None else self.images

    def __call__(self) -> Work[Task, Packed]:
        return each(self.pack)

    def pack(self, task: Task) -> Packed:
        if task.known is not None and is_unchanged(self.folder, task.samples, task.known):
            return task.known.packed
        return self.pack_shard(task)

    def pack_shard(self, task: Task) -> Packed:
        """Write the shard and its description under the building folder; return the description.

        Raises:
            PokefaError: it cannot be written.
        """
        built = built_shard(self.root, task.plan)
        digest = Digest()
        left_out: dict[str, str] = {}
        with replacing(built) as stream:
            hashing = HashingStream(stream)
            with open_tar(hashing) as writer:
                for sample in task.samples:
                    content = read_image(self.folder, sample.path)
                    sha256 = digest.add(content)
                    if sample.image_id in task.deadly:
                        left_out[sample.image_id] = WORKER_DIED
                        continue
                    try:
                        writer.write(self.members_of(sample, content, sha256))
                    except ImageError as error:
                        left_out[sample.image_id] = f"unreadable: {error}"
        samples = len(task.samples) - len(left_out)
        packed = Packed(task.plan, digest.hexdigest(), hashing.hexdigest(), hashing.bytes, samples, left_out)
        write_text(built.with_suffix(".json"), json.dumps(vars(packed), sort_keys=True) + "\n")
        return packed

    def members_of(self, sample: Sample, exported: bytes | ImageError, sha256: str) -> dict[str, Any]:
        """Return the sample in the library's form: its key, and the bytes of each member by extension.

        In the facts, `md5` is that of the exported file and `sha256` that of the image in the shard.

        Args:
            exported: the image's file, or the error in reading it.
            sha256: of the exported file.

        Raises:
            ImageError: the image cannot be read or decoded.
        """
        if isinstance(exported, ImageError):
            raise exported
        trusted = self.encoding.keeps and not self.encoding.decode  # reading a header needs no decoding process
        seen, made = prepare(exported, self.encoding) if trusted else in_decoder(prepare, exported, self.encoding)
        content = exported if made is None else made
        if made is not None:
            sha256 = hashlib.sha256(made).hexdigest()
        md5 = hashlib.md5(exported, usedforsecurity=False).hexdigest()
        facts = sample.facts | {"md5": md5, "sha256": sha256, "width": seen.width, "height": seen.height}
        members = {SUFFIXES[seen.format]: content, "txt": sample.caption.encode(), "json": to_json(facts)}
        return {"__key__": sample.image_id, **members}


@dataclass(frozen=True)
class TryImages:
    """A worker that processes images as packing does, without writing, to find those that kill it."""

    packer: PackShards

    def __call__(self) -> Work[Sample, None]:
        return each(self.try_image)

    def try_image(self, sample: Sample) -> None:
        with suppress(ImageError):
            self.packer.members_of(sample, read_image(self.packer.folder, sample.path), "")


def pack_tasks(
    packer: PackShards, tasks: Sequence[Task], pool: Pool, should_stop: Callable[[], bool]
) -> Iterator[tuple[Task, Packed]]:
    """Yield each finished shard; an image that kills its worker process is left out.

    Raises:
        PokefaError: a shard cannot be packed.
    """
    killed: list[Task] = []
    for outcome in run_batches(packer, tasks, pool, should_stop):
        if outcome.error == WORKER_DIED:
            killed.append(outcome.item)
        else:
            yield outcome.item, packed_by(outcome)
    for task in killed:
        log.warning("a process died twice over a shard of %d images: trying them one by one", len(task.samples))
        tried = run_batches(TryImages(packer), task.samples, pool, should_stop)
        deadly = frozenset(outcome.item.image_id for outcome in tried if outcome.error == WORKER_DIED)
        for outcome in run_batches(packer, [replace(task, deadly=deadly)], replace(pool, workers=1), should_stop):
            yield task, packed_by(outcome)


def packed_by(outcome: Outcome[Task, Packed]) -> Packed:
    if outcome.result is None:
        raise PokefaError(f"a shard of {len(outcome.item.samples)} images cannot be packed: {outcome.error}")
    return outcome.result


def is_unchanged(folder: Path, samples: Sequence[Sample], known: Known) -> bool:
    """Tell whether a known shard is intact and its images have not changed since.

    A shard is not unchanged if an image is missing because of a crash, a time-out or lack of memory: it is tried again.
    """
    if any(reason == WORKER_DIED or reason.startswith(_PERHAPS_NEXT_TIME) for reason in known.packed.left_out.values()):
        return False
    if known.path is not None and (not known.path.is_file() or sha256_of(known.path) != known.packed.sha256):
        return False
    digest = Digest()
    for sample in samples:
        digest.add(read_image(folder, sample.path))
    return digest.hexdigest() == known.packed.images


def read_image(folder: Path, path: str) -> bytes | ImageError:
    """Return the bytes of an image file, at most one more than `check_image` accepts, or the error in reading it."""
    try:
        place = locate(folder, path)
        if is_remote(folder):
            with place.open("rb") as stream:
                return stream.read(MAX_BYTES + 1)
        with place.open("rb", buffering=0) as stream:
            if os.fstat(stream.fileno()).st_size > MAX_BYTES:
                return stream.read(MAX_BYTES + 1)
            return stream.readall()  # `read` would allocate MAX_BYTES every time, at twice the cost of hashing
    except BadPathError as error:
        return error
    except OSError as error:
        return ImageError("missing_file", f"{path}: {error.strerror}")


class Digest:
    """The hash of a shard's image files: the SHA-256 of the bytes of each, or the error in reading it."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, content: bytes | ImageError) -> str:
        """Add the next file; return its SHA-256 in hex, which has no meaning for an error."""
        one = hashlib.sha256(str(content).encode() if isinstance(content, ImageError) else content).hexdigest()
        self._hash.update(f"{type(content).__name__} {one}\n".encode())
        return one

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
