"""metadata/runs/merged.json: how far each journal is merged, and what each table was then.

From that is told whether a table that another program has written since is the same one, edited by a person. Rows and
cells that no run removed may be a deliberate edit, or lost: a spreadsheet that saved its filtered view, a full disk, a
copy that broke off. A few removed rows are taken for an edit. More than that, or the end of the table, stops the
script: the person says that it was meant, or has the journals bring the rows back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.errors import InputError, first_line
from pokefa.files import sha256_of
from pokefa.ledger.journal import RUNS_FOLDER
from pokefa.ledger.table import KEY, filled_cells

MERGED_FILE = f"{RUNS_FOLDER}/merged.json"

# Shares of a table that a person may be expected to take out between two runs.
MOST_ROWS_REMOVED = 0.1
MOST_CELLS_EMPTIED = 0.5
FEW_CELLS = 5

REBUILD = "restore it, or make the tables anew from the journals with metadata/verify.py --rebuild"
WAYS_OUT = (
    "restore the file, bring the rows back with metadata/verify.py --rebuild, or, if the change was meant, run "
    "metadata/verify.py --accept-edits"
)


@dataclass(frozen=True)
class TableState:
    """A table as it was written.

    Args:
        sha256, bytes: of the file.
        mtime_ns: when it was written; with `bytes`, it spares the hash of an untouched file.
        rows: how many there are.
        last: image_id of the last one.
        filled: cells that are not empty, by declared column.
    """

    sha256: str
    bytes: int
    mtime_ns: int
    rows: int
    last: str | None
    filled: Mapping[str, int] = field(default_factory=dict)

    def is_file(self, path: Path) -> bool:
        """Tell whether the file is the one that was written."""
        try:
            facts = path.stat()
        except OSError:
            return False
        if facts.st_size != self.bytes:
            return False
        return facts.st_mtime_ns == self.mtime_ns or sha256_of(path) == self.sha256

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def state_of(path: Path, frame: pl.DataFrame, columns: list[str]) -> TableState:
    """Return the state of a table whose file holds `frame`."""
    facts = path.stat()
    filled = {name: count for name in columns if (count := filled_cells(frame, name))}
    last = frame[KEY][-1] if len(frame) else None
    return TableState(sha256_of(path), facts.st_size, facts.st_mtime_ns, len(frame), last, filled)


def check_edits(path: str, frame: pl.DataFrame, state: TableState) -> int:
    """Check that a table may be the one that was written, edited by a person; return how many rows were removed.

    Args:
        path: of the table, for the message.

    Raises:
        InputError: rows or cells are gone that no person is likely to have taken out.
    """
    removed = state.rows - len(frame)
    if removed > 1 and state.last is not None and not (frame[KEY] == state.last).any():
        raise InputError(f"{path} has lost its end: {len(frame)} of {state.rows} rows are left; {WAYS_OUT}")
    if removed > max(1, MOST_ROWS_REMOVED * state.rows):
        raise InputError(f"{path} has lost rows: {len(frame)} of {state.rows} are left; {WAYS_OUT}")
    for name, count in state.filled.items():
        left = filled_cells(frame, name)
        lost = count - left - max(0, removed)
        if name not in frame.columns or (lost > FEW_CELLS and lost > MOST_CELLS_EMPTIED * count):
            raise InputError(f"{path} has lost cells of {name}: {left} of {count} are left; {WAYS_OUT}")
    return max(0, removed)


@dataclass
class Merged:
    """What merged.json says.

    Args:
        journals: {run_id: bytes of its journal that are merged}.
        tables: what each table may be: as the last merge left it, and, while a merge is at it, as it is to be.
    """

    journals: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[TableState]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Merged:
        """Return what a merged.json says; one of an earlier version holds offsets alone.

        Raises:
            ValueError: it is not one.
        """
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        if "journals" not in found:
            found = {"journals": found, "tables": {}}
        try:
            journals = {str(run_id): int(offset) for run_id, offset in found["journals"].items()}
            tables = {name: [TableState(**state) for state in states] for name, states in found["tables"].items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"another shape: {error}") from None
        return cls(journals, tables)

    def to_text(self) -> str:
        tables = {name: [state.to_json() for state in states] for name, states in self.tables.items()}
        return json.dumps({"journals": self.journals, "tables": tables}, indent=0, sort_keys=True)


def read_merged(path: Path) -> Merged | None:
    """Return what a merged.json says, or None where there is no such file.

    Raises:
        InputError: it is damaged.
    """
    try:
        return Merged.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{MERGED_FILE} is damaged ({first_line(error)}): {REBUILD}") from None
