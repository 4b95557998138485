"""Where images lie: under the root, or on storage that every node of a cluster sees (`--data-root`).

Addresses such as s3://bucket/folder are those of fsspec. universal_pathlib gives them the methods of pathlib, so a
stage writes `folder / path` and opens it, wherever it lies; only writing and copying differ, and stand here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pokefa.errors import InputError, PokefaError, first_line
from pokefa.files import place_file, replacing, sync_folder, walk_files

REQUIREMENTS = "requirements/requirements_data_root.txt"


def data_folder(address: str | None, root: Path) -> Path:
    """Return the folder under which the paths of the ledger's images begin: `root` unless there is an address.

    What is returned for an address with a scheme has the methods of Path, and is none.

    Raises:
        InputError: the library for such addresses is not installed, there is no such storage, or nothing lies there.
    """
    if address is None:
        return root
    if "://" not in address:
        folder = Path(address).absolute()
        if not folder.is_dir():
            raise InputError(f"--data-root {address}: there is no such folder")
        return folder
    try:
        from upath import UPath  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError:
        raise InputError(f"--data-root {address} needs more libraries: pip install -r {REQUIREMENTS}") from None
    try:
        remote = UPath(address)
        there = remote.exists()  # an address that is wrong, or whose library is missing, shows here, not at each image
    except Exception as error:
        raise InputError(f"--data-root {address} cannot be used: {first_line(error)}") from None
    if not there:
        raise InputError(f"--data-root {address}: nothing lies there, or these credentials may not see it")
    return cast(Path, remote)


def is_remote(path: Path) -> bool:
    """Tell whether a path is one of fsspec's, which is no Path though it has its methods."""
    return not isinstance(path, Path)


def files_under(folder: Path) -> Iterator[Path]:
    """Yield every file under a folder, wherever it is; of a folder here also those in linked folders."""
    if not is_remote(folder):
        yield from walk_files(folder)
    elif folder.exists():
        yield from (path for path in sorted(folder.rglob("*")) if not path.is_dir())


def write_file(path: Path, content: bytes) -> None:
    """Put a file in the place of `path`, whole or not at all, and make its folder.

    Raises:
        PokefaError: it could not be written.
    """
    if not is_remote(path):
        with replacing(path) as stream:
            stream.write(content)
        return
    try:
        path.write_bytes(content)  # object storage shows an object when it has all of it
    except Exception as error:
        raise PokefaError(f"cannot write {path}: {first_line(error)}") from None


def copy_file(source: Path, target: Path) -> bool:
    """Give a file a second name: a link, or a copy made by the storage itself. Return False if it has it already.

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
