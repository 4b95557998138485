"""metadata/runs/merged.json: how far each journal is merged, and the state of each table after that merge.

It shows whether a table that another program has written since is an edited version of the same table. Missing rows and
cells may be a deliberate edit, or a loss: a spreadsheet that saved its filtered view, a full disk, an interrupted copy.
A few missing rows count as an edit. More than that, or a missing end of the table, stops the script until a person
accepts the change or restores the rows from the journals.
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

# The largest shares of a table that count as an edit between two runs.
MOST_ROWS_REMOVED = 0.1
MOST_CELLS_EMPTIED = 0.5
FEW_CELLS = 5

REBUILD = "restore it, or rebuild the tables from the journals with metadata/verify.py --rebuild"
WAYS_OUT = (
    "restore the file, restore the rows with metadata/verify.py --rebuild, or accept the change with "
    "metadata/verify.py --accept-edits"
)


@dataclass(frozen=True)
class TableState:
    """The state of a table after it was written.

    Args:
        sha256, bytes: of the file.
        mtime_ns: time of writing; an unchanged time and size make hashing unnecessary.
        rows: number of rows.
        last: image_id of the last row.
        filled: number of filled cells by declared column.
    """

    sha256: str
    bytes: int
    mtime_ns: int
    rows: int
    last: str | None
    filled: Mapping[str, int] = field(default_factory=dict)

    def is_file(self, path: Path) -> bool:
        """Tell whether the file is unchanged."""
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
    """Return the state of a table whose file contains `frame`."""
    facts = path.stat()
    filled = {name: count for name in columns if (count := filled_cells(frame, name))}
    last = frame[KEY][-1] if len(frame) else None
    return TableState(sha256_of(path), facts.st_size, facts.st_mtime_ns, len(frame), last, filled)


def check_edits(path: str, frame: pl.DataFrame, state: TableState) -> int:
    """Check that a table is the written one or a plausible edit of it; return the number of removed rows.

    Args:
        path: the table's path, for the message.

    Raises:
        InputError: more rows or cells are missing than an edit would remove.
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
    """The content of merged.json.

    Args:
        journals: {run_id: merged bytes of its journal}.
        tables: possible states of each table: after the last merge, and, during a merge, after that one too.
    """

    journals: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[TableState]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Merged:
        """Return the content of a merged.json; one of an earlier version has offsets only.

        Raises:
            ValueError: it has another shape.
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
    """Return the content of a merged.json, or None if there is no such file.

    Raises:
        InputError: it is damaged.
    """
    try:
        return Merged.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{MERGED_FILE} is damaged ({first_line(error)}): {REBUILD}") from None
