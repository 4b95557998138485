"""Files that only their owner may read: prompts, titles, answers, and who asked for a takedown."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pokefa.table import replacing

PRIVATE = 0o600


def make_private(path: Path) -> None:
    """Create an empty file that only its owner may read, or take the rights of others from an existing one.

    Raises:
        OSError: the file cannot be created.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE))
    close_to_others(path)


def close_to_others(path: Path) -> None:
    """Take the rights of others from a file, where it exists and is ours."""
    with contextlib.suppress(FileNotFoundError, PermissionError):  # another user's file keeps its rights
        if path.stat().st_mode & 0o077:
            path.chmod(PRIVATE)


@contextmanager
def replacing_privately(path: Path) -> Iterator[IO[bytes]]:
    """`replacing`, for a file that only its owner may read: nobody else can open it at any moment.

    Raises:
        PokefaError: as `replacing`.
    """
    close_to_others(path)
    before = os.umask(0o777 & ~PRIVATE)
    try:
        with replacing(path) as stream:
            yield stream
    finally:
        os.umask(before)
