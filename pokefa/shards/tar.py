"""The tar files of shards: written by the webdataset library, hashed on the way."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import IO, Any

from pokefa.errors import PokefaError
from pokefa.images.files import MAX_BYTES

OWNER = "pokefa"
SCRIPTS = Path(__file__).resolve().parents[2] / "webdataset"

# Writing to disk starts as soon as each piece of a shard is complete, so that little is left at the end.
START_WRITING_BYTES = 8 * 2**20


class HashingStream:
    """A stream that hashes and counts what is written to it, and makes the system write it to disk early."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._given_out = 0
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.bytes += len(data)
        written = self._stream.write(data)
        if self.bytes - self._given_out >= START_WRITING_BYTES and hasattr(os, "posix_fadvise"):
            self._stream.flush()
            # Linux starts to write these pages without waiting; those not yet on the disk stay in memory.
            length = self.bytes - self._given_out
            os.posix_fadvise(self._stream.fileno(), self._given_out, length, os.POSIX_FADV_DONTNEED)
            self._given_out = self.bytes
        return written

    def tell(self) -> int:
        return self.bytes

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def open_tar(stream: HashingStream) -> Any:
    """Return the library's TarWriter on a stream, with a fixed owner and time.

    It writes each member directly to the stream; the library's own method copies blocks of 10 kB.
    """
    library_writer = import_tar_writer()

    class DirectTarWriter(library_writer):  # type: ignore[misc,valid-type]
        @staticmethod
        def tarmode(fileobj: object, compress: object = None) -> str:
            return "w"

    # A float as mtime would add an extra header to every member.
    writer = DirectTarWriter(stream, user=OWNER, group=OWNER, mode=0o644, mtime=0, encoder=False)
    writer.tarstream.copybufsize = MAX_BYTES  # a member in one piece is passed on without a copy
    return writer


def import_tar_writer() -> Any:
    """Return the library's TarWriter.

    The folder of the scripts has the library's name. While one of them runs, it is on `sys.path` and must be removed
    first.

    Raises:
        PokefaError: the library is not installed.
    """
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != SCRIPTS]
    try:
        from webdataset import TarWriter  # type: ignore[attr-defined]  # mypy sees the scripts' folder
    except ImportError:
        raise PokefaError(
            "the webdataset library is missing: pip install -r requirements/requirements_webdataset.txt"
        ) from None
    return TarWriter
