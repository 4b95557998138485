"""Where images are stored: under the root, or on storage that all nodes of a cluster share (`--data-root`).

URLs such as s3://bucket/folder are those of fsspec. universal_pathlib gives them the methods of pathlib, so a stage
opens `folder / path` in either place. Only writing and copying differ, and are done here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pokefa.errors import InputError, PokefaError, first_line
from pokefa.files import place_file, replacing, sync_folder, walk_files

REQUIREMENTS = "requirements/requirements_data_root.txt"


def data_folder(address: str | None, root: Path) -> Path:
    """Return the folder that the paths in the ledger are relative to: `root` unless an address is given.

    For a URL, the result has the methods of Path but is not one.

    Raises:
        InputError: the library for such URLs is not installed, or the storage or folder does not exist.
    """
    if address is None:
        return root
    if "://" not in address:
        folder = Path(address).absolute()
        if not folder.is_dir():
            raise InputError(f"--data-root {address} does not exist: name an existing folder")
        return folder
    try:
        from upath import UPath  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError:
        raise InputError(f"--data-root {address} needs more libraries: pip install -r {REQUIREMENTS}") from None
    try:
        remote = UPath(address)
        there = remote.exists()  # a wrong URL or a missing library fails here, not at each image
    except Exception as error:
        raise InputError(f"--data-root {address} cannot be used: {first_line(error)}") from None
    if not there:
        raise InputError(f"--data-root {address} does not exist, or is not visible with these credentials: check both")
    return cast(Path, remote)


def is_remote(path: Path) -> bool:
    """Tell whether a path is an fsspec path, which has the methods of Path but is not one."""
    return not isinstance(path, Path)


def files_under(folder: Path) -> Iterator[Path]:
    """Yield every file under a local or remote folder; in a local one, linked folders are followed."""
    if not is_remote(folder):
        yield from walk_files(folder)
    elif folder.exists():
        yield from (path for path in sorted(folder.rglob("*")) if not path.is_dir())


def write_file(path: Path, content: bytes) -> None:
    """Write or replace a file atomically, and create its folder.

    Raises:
        PokefaError: it could not be written.
    """
    if not is_remote(path):
        with replacing(path) as stream:
            stream.write(content)
        return
    try:
        path.write_bytes(content)  # object storage writes atomically
    except Exception as error:
        raise PokefaError(f"cannot write {path}: {first_line(error)}") from None


def copy_file(source: Path, target: Path) -> bool:
    """Link a file to a second name, or copy it within remote storage; return False if it exists already.

    Raises:
        PokefaError: it could not be placed.
    """
    if not is_remote(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        placed = place_file(source, target)
        if placed:
            sync_folder(target.parent)
        return placed
    files = target.fs  # type: ignore[attr-defined]
    try:
        if target.exists() and files.checksum(str(source)) == files.checksum(str(target)):
            return False
        files.cp_file(str(source), str(target))
    except Exception as error:
        raise PokefaError(f"cannot copy {source} to {target}: {first_line(error)}") from None
    return True
