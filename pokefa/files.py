"""Paths that come from cells, and folders that stages write to, links and all.

A path in a cell is data: it is relative, has no `..`, and names a file in the data folder or in a folder that the data
folder itself links to, as one does who keeps `data_raw` on another disk. Any other path is an error of its row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pokefa.errors import ImageError


class BadPathError(ImageError):
    """A path in a cell leads out of the data folder."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__("bad_path", f"{path!r} {why}")
        self.path = path
        self.why = why

    def __reduce__(self) -> tuple[type[BadPathError], tuple[str, str]]:
        return type(self), (self.path, self.why)  # so that it comes whole out of a worker process


def locate(folder: Path, path: object) -> Path:
    """Return where a path of a cell lies under the data folder, which may be remote.

    Raises:
        BadPathError: it is absolute, empty, holds `..`, or is a link that leads out of its folder.
    """
    text = str(path or "")
    why = fault_of(text)
    if why is not None:
        raise BadPathError(text, why)
    place = folder / text
    # A linked folder is the user's own arrangement; no stage makes a linked file.
    if isinstance(place, Path) and place.is_symlink():
        target = place.resolve()
        if not (target.is_relative_to(folder.resolve()) or target.is_relative_to(place.parent.resolve())):
            raise BadPathError(text, "is a link that leads out of the data folder")
    return place


def fault_of(path: str) -> str | None:
    """Return why a path may not stand in a cell, as far as its text tells, or None."""
    if not path or "\0" in path:
        return "names no file"
    if path.startswith("/"):
        return "is absolute"
    return "holds .." if ".." in PurePosixPath(path).parts else None


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield every file under a folder in order, following linked folders but none of them twice."""
    seen: set[tuple[int, int]] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        try:
            facts = Path(parent).stat()
        except FileNotFoundError:
            continue  # a stage has removed it meanwhile
        if (facts.st_dev, facts.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        subfolders.sort()
        yield from (Path(parent) / name for name in sorted(names))
