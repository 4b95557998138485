"""The files of a user's folder as candidates, each accepted or refused with a reason.

The first level of sub-folders names the species. A link to a folder on this level is followed anywhere, because the
user placed it. Deeper links are followed only within the folder or that species' folder, so that an unpacked archive
cannot bring in other files. File names are bytes, and need not be UTF-8.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pokefa.csv_files import read_csv
from pokefa.errors import InputError
from scraping.utils import Candidate, Refused, Species, SpeciesIndex

LEADS_OUT = "a link leads out of the folder"

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class FolderFile:
    """A file of the folder; `name` is its path within the folder, and `refused` says why it cannot be used."""

    path: Path
    name: str
    refused: Refused | None = None

    @property
    def address(self) -> str:
        """Its path within the folder as a `file:` URL, without the folder's own path."""
        return f"file:{quote(os.fsencode(self.name))}"


def from_folder(folder: Path, labels: Path | None, index: SpeciesIndex) -> dict[Species, list[FolderFile]]:
    """Return the files of a folder by species, in the order of their paths or of the labels.

    Raises:
        InputError: the folder is missing or cannot be listed, or a sub-folder or label names an unknown species.
    """
    if not folder.is_dir():
        raise InputError(f"--from-folder {folder} is not a folder: name an existing one")
    found: dict[Species, list[FolderFile]] = {}
    if labels is not None:
        for number, row in read_csv(labels, ["file", "species"], "it needs the columns file and species"):
            species = index.require(row["species"], f"{labels} line {number}")
            found.setdefault(species, []).append(labelled_file(folder, row["file"]))
        return found
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"--from-folder {folder} cannot be listed: {error.strerror}") from None
    for name in names:
        if name.startswith("."):
            continue
        if not _is_folder(folder / name):
            log.warning("%s is skipped, because it is not in a sub-folder named after its species", folder / name)
            continue
        for file in walk_species(folder, name):
            # File names are read as UTF-8 in every locale, like quotas.csv.
            called = os.fsencode(name).decode("utf-8", "replace")
            found.setdefault(index.require(called, f"sub-folder of {folder}"), []).append(file)
    return found


def labelled_file(folder: Path, label: str) -> FolderFile:
    """Return the file that a label names by its path within the folder."""
    named = Path(os.fsdecode(label.encode("utf-8")))
    path = folder / named
    if named.is_absolute() or ".." in named.parts:
        return FolderFile(path, str(named), Refused("outside_folder", "the label is not a path within the folder"))
    return FolderFile(path, str(named), None if _is_within(path, _roots(folder, named.parts)) else _leads_out())


def walk_species(folder: Path, species_folder: str) -> Iterator[FolderFile]:
    """Yield the files in one species' sub-folder, by path; each folder is entered once."""
    roots = _roots(folder, [species_folder])
    entered: set[tuple[int, int]] = set()
    waiting = [folder / species_folder]
    while waiting:
        path = waiting.pop()
        name = str(path.relative_to(folder))
        if not _is_within(path, roots):
            yield FolderFile(path, name, _leads_out())
        elif not _is_folder(path):
            yield FolderFile(path, name)
        else:
            try:
                facts = path.stat()
                inside = sorted(path.iterdir(), reverse=True)
            except OSError as error:
                yield FolderFile(path, name, Refused("missing_file", error.strerror or "it cannot be listed"))
                continue
            if (facts.st_dev, facts.st_ino) not in entered:
                entered.add((facts.st_dev, facts.st_ino))
                waiting += [one for one in inside if not one.name.startswith(".")]


def files_as_candidates(files: Sequence[FolderFile], max_bytes: int) -> Iterator[Candidate]:
    """Yield a candidate for each file.

    Its URL contains its path and the MD5 of its bytes, so that a file of the same name in another folder, or a changed
    file, is another candidate.
    """
    for file in files:
        address, refused = file.address, file.refused
        if refused is None:
            try:
                data = read_file(file.path, max_bytes)
                address += f"#{hashlib.md5(data, usedforsecurity=False).hexdigest()}"
            except Refused as refusal:
                refused = refusal
        yield Candidate(address, "from-folder", path=file.path, refused=refused)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file, without waiting for a pipe or reading a file that is too large.

    Raises:
        Refused: it cannot be read, is not a regular file, or is too large.
    """
    try:
        _check_kind(path.stat(), max_bytes)  # before opening it, which may block or trigger a device
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            _check_kind(os.fstat(descriptor), max_bytes)
            data = stream.read(max_bytes + 1)
    except OSError as error:
        raise Refused("missing_file", error.strerror or "it cannot be read") from None
    if len(data) > max_bytes:
        raise Refused("too_many_bytes", f"over {max_bytes} bytes")
    return data


def _check_kind(facts: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise Refused("not_a_file", "a folder, pipe, socket or device, not a regular file")
    if facts.st_size > max_bytes:
        raise Refused("too_many_bytes", f"over {max_bytes} bytes")


def _roots(folder: Path, parts: Sequence[str]) -> tuple[str, ...]:
    """Return the real folders that may contain a file: the folder, and the sub-folder that `parts` begin with."""
    first = [folder / part for part in parts[:1] if _is_folder(folder / part)]
    return tuple(os.path.realpath(one) for one in (folder, *first))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or an inaccessible folder
        return False


def _is_within(path: Path, roots: Sequence[str]) -> bool:
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, root]) == root for root in roots)


def _leads_out() -> Refused:
    return Refused("outside_folder", LEADS_OUT)
