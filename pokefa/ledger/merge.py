"""Journal entries applied to a table in memory: the pure part of a merge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from pokefa.errors import PokefaError
from pokefa.ledger.table import KEY, Table, filled_cells, with_missing

Cells = dict[str, str | None]

# Entries kept as Python objects before they go into the frame: bounds the memory of a long replay.
ENTRIES_PER_BLOCK = 50_000


class Changes:
    """The changes to one table, in journal order, applied in blocks with one scatter per column."""

    def __init__(self, table: Table) -> None:
        self._path = table.schema.path
        self._frame = table.read_keyed()
        self._added: dict[str, None] = {}
        self._cells: dict[str, dict[str, str | None]] = {}
        self._entries = 0

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add one journal entry.

        An entry with `rows` replaces the table's rows, in this order, and keeps the other columns. An entry with `add`
        appends a row unless its key exists. Any other sets cells; those of a row that a person removed are ignored.
        """
        if "rows" in entry:
            self._apply()
            self._frame = replace_rows(self._frame, entry["columns"], entry["rows"])
            return
        if entry.get("add"):
            self._added[entry[KEY]] = None
        for name, text in entry["set"].items():
            self._cells.setdefault(name, {})[entry[KEY]] = text
        self._entries += 1
        if self._entries >= ENTRIES_PER_BLOCK:
            self._apply()

    def result(self) -> pl.DataFrame:
        """Return the table with every change applied; rows keep their order and new ones follow.

        Raises:
            PokefaError: a change lost rows or cells that no entry removes; this is a bug.
        """
        self._apply()
        return self._frame

    def _apply(self) -> None:
        before = self._frame
        frame = with_missing(before, list(self._cells))
        if self._added:
            new = pl.DataFrame({KEY: list(self._added)}, schema={KEY: pl.String})
            frame = pl.concat([frame, new.join(frame, on=KEY, how="anti", maintain_order="left")], how="diagonal")
        positions = frame.select(KEY).with_row_index("position")
        for name, texts in self._cells.items():
            columns = {KEY: list(texts), "text": list(texts.values())}
            update = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).join(positions, on=KEY)
            frame = frame.with_columns(frame[name].scatter(update["position"], update["text"]))
        self._check_kept(before, frame)
        self._frame, self._entries = frame, 0
        self._added.clear()
        self._cells.clear()

    def _check_kept(self, before: pl.DataFrame, after: pl.DataFrame) -> None:
        """Check that no cells are lost other than those that the entries empty."""
        if len(after) < len(before):
            raise PokefaError(f"{self._path} would have lost {len(before) - len(after)} rows: nothing was written")
        for name in before.columns:
            emptied = sum(text is None for text in self._cells.get(name, {}).values())
            lost = filled_cells(before, name) - filled_cells(after, name) - emptied
            if lost > 0:
                raise PokefaError(f"{self._path} would have lost {lost} cells of {name}: nothing was written")


def replace_rows(frame: pl.DataFrame, columns: list[str], rows: list[Cells]) -> pl.DataFrame:
    """Return `rows` with `columns`, in order; the frame's other columns are joined by key.

    Columns keep their order, unless one of `columns` is new.
    """
    new = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String))
    carried = frame.select(KEY, *(name for name in frame.columns if name not in columns))
    replaced = new.join(carried, on=KEY, how="left", maintain_order="left")
    return replaced.select(frame.columns) if set(columns) <= set(frame.columns) else replaced
