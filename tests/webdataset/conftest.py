"""What the tests of stage 9 share: loaded scripts, and the bytes of a whole dataset folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from pokefa.ledger import Ledger
from pokefa.state import MERGED_FILE
from tests.conftest import Dataset, Finished, named_id, names_in

ID_COLUMNS = ("image_id", "dupe_group", "dupe_rep_image")


class OneWorkerDataset(Dataset):
    """Packs with one worker process unless told otherwise, each takes half a second to start; knows images by name.

    A short name stands for an id in what is written, and for that id in what is read and printed.
    """

    def run(self, script: str, *arguments: object, env: Mapping[str, str] | None = None) -> Finished:
        one = ("--workers", 1) if script == "webdataset/webdataset.py" and "--workers" not in arguments else ()
        done = super().run(script, *arguments, *one, env=env)
        summary = json.loads(names_in(json.dumps(done.summary)))
        return Finished(done.code, summary, names_in(done.stdout), names_in(done.stderr))

    def rows(self, name: str) -> list[dict[str, str]]:
        return [{column: names_in(cell) for column, cell in row.items()} for row in super().rows(name)]

    def text(self, path: str) -> str:
        """Return a text file of the dataset, ids as names."""
        return names_in((self.root / path).read_text(encoding="utf-8"))

    def _write(self, name: str, columns: list[str], rows: Iterable[Mapping[str, object]]) -> None:
        ids = [
            {**row, **{column: named_id(str(row[column])) for column in ID_COLUMNS if row.get(column)}} for row in rows
        ]
        super()._write(name, columns, ids)
        if (self.root / MERGED_FILE).exists():  # the rows that are gone were taken out deliberately
            Ledger(self.root).accept()


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
