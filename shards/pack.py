"""Packing one shard: what the worker processes do."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image

from pokefa.engine import Work, each
from pokefa.errors import PokefaError
from pokefa.images import MAX_BYTES, SUFFIXES, Facts, ImageError, check_image, flatten, open_image
from pokefa.model_files import sha256_of
from pokefa.table import replacing
from pokefa.text import write_text
from shards.plan import BUILDING, Encoding, Sample, to_json

OWNER = "pokefa"
SCRIPTS = Path(__file__).resolve().parents[1] / "webdataset"

# Pillow's own default of 75 is visible on line art; WebP at its default method is as small and four times as fast as
# at the slowest.
SAVING: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"quality": 95},
}
COPY_BYTES = 2**20  # tarfile's own 16 kB would cost a fifth of the speed


@dataclass(frozen=True)
class Packed:
    """A shard that lies on disk, and what it was made of.

    Args:
        plan: hash of the samples' captions and facts, in order; see `plan_hash`.
        images: hash of the image files, in the same order; see `Digest`.
        left_out: {image_id: reason} of the planned images that it does not hold.
    """

    plan: str
    images: str
    sha256: str
    bytes: int
    samples: int
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A shard of an earlier run, and its file; there is none where all its images were bad."""

    packed: Packed
    path: Path | None = None


@dataclass(frozen=True)
class Task:
    """One shard to pack, or to find unchanged: `known` describes an earlier one of the same plan."""

    plan: str
    samples: tuple[Sample, ...]
    known: Known | None = None


@dataclass(frozen=True)
class PackShards:
    """The worker: packs shards that have to be packed."""

    root: Path
    encoding: Encoding

    def __call__(self) -> Work[Task, Packed]:
        return each(self.pack)

    def pack(self, task: Task) -> Packed:
        if task.known is not None and is_unchanged(self.root, task.samples, task.known):
            return task.known.packed
        return pack_shard(self.root, task, self.encoding)


def is_unchanged(root: Path, samples: Sequence[Sample], known: Known) -> bool:
    """Tell whether a known shard is whole, and its images are what they were when it was packed."""
    if known.path is not None and (not known.path.is_file() or sha256_of(known.path) != known.packed.sha256):
        return False
    digest = Digest()
    for sample in samples:
        digest.add(read_image(root, sample.path))
    return digest.hexdigest() == known.packed.images


def pack_shard(root: Path, task: Task, encoding: Encoding) -> Packed:
    """Write the shard and its description under the building folder; return the description.

    Raises:
        PokefaError: it cannot be written.
    """
    digest = Digest()
    left_out: dict[str, str] = {}
    with replacing(built_shard(root, task.plan)) as stream:
        hashing = HashingStream(stream)
        with open_tar(hashing) as writer:
            for sample in task.samples:
                content = read_image(root, sample.path)
                sha256 = digest.add(content)
                try:
                    if isinstance(content, ImageError):
                        raise content
                    writer.write(members_of(sample, content, sha256, encoding))
                except ImageError as error:
                    left_out[sample.image_id] = f"unreadable: {error}"
    samples = len(task.samples) - len(left_out)
    packed = Packed(task.plan, digest.hexdigest(), hashing.hexdigest(), hashing.bytes, samples, left_out)
    write_text(built_shard(root, task.plan).with_suffix(".json"), json.dumps(vars(packed), sort_keys=True) + "\n")
    return packed


def built_shard(root: Path, plan: str) -> Path:
    return root / BUILDING / f"{plan}.tar"


def read_image(root: Path, path: str) -> bytes | ImageError:
    """Return the bytes of an image file, at most one more than `check_image` takes, or why there are none."""
    try:
        with (root / path).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        return ImageError("missing_file", f"{path}: {error.strerror}")


def members_of(sample: Sample, exported: bytes, sha256: str, encoding: Encoding) -> dict[str, Any]:
    """Return the sample as the library writes it: its key, and the bytes of each member by extension.

    Of the facts, `md5` is that of the exported file and `sha256` that of the image as it stands in the shard.

    Args:
        sha256: of the exported file.

    Raises:
        ImageError: the image does not decode.
    """
    seen = check_image(exported)
    content = encode(exported, seen, encoding)
    if content is not exported:
        seen = check_image(content, decode=False)
        sha256 = hashlib.sha256(content).hexdigest()
    md5 = hashlib.md5(exported, usedforsecurity=False).hexdigest()
    facts = sample.facts | {"md5": md5, "sha256": sha256, "width": seen.width, "height": seen.height}
    members = {SUFFIXES[seen.format]: content, "txt": sample.caption.encode(), "json": to_json(facts)}
    return {"__key__": sample.image_id, **members}


def encode(exported: bytes, seen: Facts, encoding: Encoding) -> bytes:
    """Return the image as `encoding` asks; the same bytes where it is so already."""
    name = seen.format if encoding.format == "keep" else FORMAT_OF[encoding.format]
    longer = max(seen.width, seen.height)
    side = min(longer, encoding.max_side or longer)
    if (name, side) == (seen.format, longer):
        return exported
    image = open_image(exported)
    if name == "JPEG" and image.mode != "L":
        image = flatten(image)  # JPEG has no alpha
    if side < longer:
        size = (max(1, round(image.width * side / longer)), max(1, round(image.height * side / longer)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, name, **SAVING[name])
    return stream.getvalue()


FORMAT_OF = {suffix: name for name, suffix in SUFFIXES.items()}


class Digest:
    """The hash over the image files of a shard: of each the SHA-256 of its bytes, or why it cannot be read."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, content: bytes | ImageError) -> str:
        """Take the next file; return its SHA-256 in hex, which means nothing for an error."""
        one = hashlib.sha256(str(content).encode() if isinstance(content, ImageError) else content).hexdigest()
        self._hash.update(f"{type(content).__name__} {one}\n".encode())
        return one

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class HashingStream:
    """A stream to write to, which hashes and counts what passes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.bytes += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self.bytes

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def open_tar(stream: HashingStream) -> Any:
    """Return the library's TarWriter on a stream, with a fixed owner and time.

    It writes each member straight to the stream, where the library's own way goes through blocks of 10 kB.
    """
    library_writer = import_tar_writer()

    class DirectTarWriter(library_writer):  # type: ignore[misc,valid-type]
        @staticmethod
        def tarmode(fileobj: object, compress: object = None) -> str:
            return "w"

    # A float as mtime would bring an extra header to every member.
    writer = DirectTarWriter(stream, user=OWNER, group=OWNER, mode=0o644, mtime=0, encoder=False)
    writer.tarstream.copybufsize = COPY_BYTES
    return writer


def import_tar_writer() -> Any:
    """Return the library's TarWriter.

    The folder of the scripts bears the library's name; where it stands on `sys.path`, as it does while one of them
    runs, it is taken off first.

    Raises:
        PokefaError: the library is not installed.
    """
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != SCRIPTS]
    try:
        from webdataset import TarWriter
    except ImportError:
        raise PokefaError(
            "the webdataset library is missing: pip install -r requirements/requirements_webdataset.txt"
        ) from None
    return TarWriter
