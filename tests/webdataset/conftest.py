"""What the tests of stage 9 share: loaded scripts, and the bytes of a whole dataset folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import Dataset, Finished, NamedDataset, names_in


class OneWorkerDataset(NamedDataset):
    """Packs with one worker process unless told otherwise: each takes half a second to start."""

    def run(self, script: str, *arguments: object, env: Mapping[str, str] | None = None) -> Finished:
        one = ("--workers", 1) if script == "webdataset/webdataset.py" and "--workers" not in arguments else ()
        return super().run(script, *arguments, *one, env=env)


@pytest.fixture
def dataset(dataset: Dataset) -> Dataset:
    return OneWorkerDataset(dataset.root)


@pytest.fixture
def species_script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("webdataset/species.py")


@pytest.fixture
def packing(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("webdataset/webdataset.py")


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """Return {path: (inode, bytes)} of every file below a folder; a file written anew has another inode."""

    def take(folder: Path) -> dict[str, tuple[int, bytes]]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
        return {str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes()) for path in files}

    return take


@pytest.fixture
def read_csv() -> Callable[[Path], list[dict[str, str]]]:
    def read(path: Path) -> list[dict[str, str]]:
        with path.open(encoding="utf-8", newline="") as stream:
            return [{column: names_in(cell) for column, cell in row.items()} for row in csv.DictReader(stream)]

    return read
