"""Paths from table cells, linked folders, and atomic writes.

A path in a cell is untrusted data. It must be relative, without `..`, and name a file in the data folder or in a folder
that the data folder links to, such as a `data_raw` on another disk. Any other path is an error of its row.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from pokefa.errors import ImageError, PokefaError, first_line

PRIVATE = 0o600  # prompts, titles, answers and takedown requesters: readable by their owner only

# -- paths from cells, and linked folders ------------------------------------------------------------------------------


class BadPathError(ImageError):
    """A path in a cell leads out of the data folder."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__("bad_path", f"{path!r} {why}")
        self.path = path
        self.why = why

    def __reduce__(self) -> tuple[type[BadPathError], tuple[str, str]]:
        return type(self), (self.path, self.why)  # so that it can be pickled


def locate(folder: Path, path: object) -> Path:
    """Return the location of a cell's path in the data folder, which may be remote.

    Raises:
        BadPathError: it is absolute, empty, contains `..`, or is a link that leads out of its folder.
    """
    text = str(path or "")
    why = fault_of(text)
    if why is not None:
        raise BadPathError(text, why)
    place = folder / text
    # The user may link folders; no stage creates a linked file.
    if isinstance(place, Path) and place.is_symlink():
        target = place.resolve()
        if not (target.is_relative_to(folder.resolve()) or target.is_relative_to(place.parent.resolve())):
            raise BadPathError(text, "is a link that leads out of the data folder")
    return place


def fault_of(path: str) -> str | None:
    """Return why the text of a path is not allowed in a cell, or None if it is."""
    if not path or "\0" in path:
        return "names no file"
    if path.startswith("/"):
        return "is absolute"
    return "contains .." if ".." in PurePosixPath(path).parts else None


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield every file under a folder in order, following each linked folder once."""
    seen: set[tuple[int, int]] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        try:
            facts = Path(parent).stat()
        except FileNotFoundError:
            continue  # removed by a stage in the meantime
        if (facts.st_dev, facts.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        subfolders.sort()
        yield from (Path(parent) / name for name in sorted(names))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# -- writing -----------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a stream whose content replaces `path` when the block succeeds: written, fsynced, renamed.

    Raises:
        PokefaError: the content could not be written; `path` is unchanged and no temporary file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve() if path.is_symlink() else path  # the file on the other disk, not the link to it
    temporary: Path | None = None
    try:
        prefix, suffix = temporary_name(path, "*").split("*")
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~current_umask())
        temporary.replace(path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise PokefaError(f"cannot write {path}: {first_line(error)}; the old file is unchanged") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path, mark: str) -> str:
    """Return the name of a temporary file beside `path`; the mark "*" gives the pattern for all of them."""
    return f".{path.name}.{mark}.tmp"


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in `folder` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> bool:
    """Write `text` to `path` atomically in UTF-8, if it differs; return whether the file changed.

    Raises:
        PokefaError: the file cannot be written; an existing one is unchanged.
    """
    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return False
    with replacing(path) as stream:
        stream.write(data)
    return True


def place_file(source: Path, target: Path) -> bool:
    """Hard-link `source` to `target`, or copy it across devices; return False if `target` has this content.

    `target` appears or is replaced atomically. The caller creates its folder, and syncs it if needed.

    Raises:
        PokefaError: the file could not be placed; `target` is unchanged.
    """
    temporary = target.with_name(f".{target.name}.link")
    try:
        if target.exists() and filecmp.cmp(source, target):
            return False
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        temporary.replace(target)
    except FileNotFoundError as error:
        raise PokefaError(f"cannot place {source} at {target}: {error.strerror}") from None
    except OSError:  # another device, a file system without links, or a file with too many links
        with replacing(target) as copy, source.open("rb") as stream:
            shutil.copyfileobj(stream, copy)
        shutil.copystat(source, target)  # the next call compares size and time first
    return True


def keep_beside(path: Path) -> None:
    """Copy a file that is about to be replaced."""
    shutil.copy2(path, path.with_name(f"{path.name}.{time.strftime('%Y%m%dT%H%M%S')}.before-rebuild"))


# -- private files -----------------------------------------------------------------------------------------------------


def make_private(path: Path) -> None:
    """Create an empty file that only its owner can read, or restrict an existing one to its owner.

    Raises:
        OSError: the file cannot be created.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE))
    close_to_others(path)


def close_to_others(path: Path) -> None:
    """Restrict a file to its owner, if it exists and is ours."""
    with contextlib.suppress(FileNotFoundError, PermissionError):  # another user's file keeps its permissions
        if path.stat().st_mode & 0o077:
            path.chmod(PRIVATE)


@contextmanager
def replacing_privately(path: Path) -> Iterator[IO[bytes]]:
    """`replacing` for a private file: at no moment can anyone but its owner open it.

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
