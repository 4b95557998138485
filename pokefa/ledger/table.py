"""One CSV table on disk, read and replaced as a unit, with every cell as text.

Cells stay text so that a merge cannot change a cell that it does not set; only values of declared types get their
canonical spelling (`pokefa/ledger/cells.py`). A text that a spreadsheet would run as a formula has a leading apostrophe
in the file, and none in a frame. Polars reads and writes, at 10 times the speed of pandas for a million rows (see
benchmarks/). This module opens the files, because Polars would treat a file name as a pattern.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import polars as pl

from pokefa.csv_files import FORMULA, check_encoding, check_header
from pokefa.errors import InputError, first_line
from pokefa.files import replacing
from pokefa.ledger.cells import Value
from pokefa.ledger.columns import BadCell, TableSchema

KEY = "image_id"

LONGEST_CELL = 2**31 - 1  # the csv module's default limit is shorter than some URLs


class Table:
    """The CSV file of one schema under a root. Frames hold String columns only; null is an empty cell."""

    def __init__(self, root: Path, schema: TableSchema) -> None:
        self.schema = schema
        self.path = root / schema.path
        self.held: pl.DataFrame | None = None  # what `read` returns if the root is read-only

    def exists(self) -> bool:
        """Tell whether the file exists, even if it cannot be opened."""
        return os.path.lexists(self.path)

    def read(self) -> pl.DataFrame:
        """Return the table; one that does not exist yet has its first columns and no rows.

        Raises:
            InputError: the file is not a CSV table, or a cell is not of its column's type.
        """
        frame, bad = self.read_leniently()
        if bad:
            raise InputError(f"{self.schema.path}, image {bad[0].image_id}, {bad[0].message}")
        return frame

    def read_leniently(self) -> tuple[pl.DataFrame, list[BadCell]]:
        """Return the table and its invalid cells, which are empty in it.

        Raises:
            InputError: the file is not a CSV table.
        """
        if self.held is not None:
            return self.held, []
        try:
            with self.path.open("rb") as stream:
                frame = pl.read_csv(stream, infer_schema=False)
        except FileNotFoundError:
            if self.exists():
                raise InputError(f"{self.schema.path} is a broken link: restore its target") from None
            return empty_frame(self.schema.first_names), []
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{self.schema.path} cannot be read as CSV: {first_line(error)}") from None
        if KEY not in frame.columns:
            raise InputError(f"{self.schema.path} has no column {KEY}: restore the header line")
        for name in frame.columns:
            first, _, _ = name.rpartition("_duplicated_")  # Polars renames a repeated column so
            if first and first in frame.columns:
                raise InputError(f"{self.schema.path} has two columns called {first}: rename one of them")
        # A quoted empty cell is read as "", which means the same as an empty one.
        frame = frame.with_columns(pl.all().replace("", None))
        return self.schema.respell(self._without_guards(frame))

    def salvage(self) -> pl.DataFrame:
        """Return the rows of a damaged file that are complete and have a key; invalid cells become empty.

        Raises:
            InputError: the file exists and cannot be read.
        """
        if not self.exists():
            return empty_frame(self.schema.first_names)
        try:
            text = self.path.read_bytes().decode("utf-8", "replace").replace("\0", "")
        except OSError as error:
            raise InputError(f"{self.schema.path} cannot be read ({error.strerror}): fix that first") from None
        text = text[: text.rfind("\n") + 1]
        csv.field_size_limit(LONGEST_CELL)
        header, *records = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")) if text else [[]]
        if KEY not in header or len(set(header)) < len(header):
            return empty_frame(self.schema.first_names)
        complete = [record for record in records if len(record) == len(header)]
        frame = pl.DataFrame(complete, schema=dict.fromkeys(header, pl.String), orient="row")
        frame, _ = self.schema.respell(self._without_guards(frame.with_columns(pl.all().replace("", None))))
        frame = frame.filter(pl.col(KEY).is_not_null())
        return frame if self.schema.is_log else frame.unique(KEY, keep="first", maintain_order=True)

    def read_keyed(self) -> pl.DataFrame:
        """Return the table, after a check that each row has a unique key.

        Raises:
            InputError: the table cannot be read, or a key is missing or repeated.
        """
        return self.check_keys(self.read())

    def check_keys(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the frame after a check of its keys.

        Raises:
            InputError: a row has no key, or a key is repeated.
        """
        if frame[KEY].null_count():
            line = int(frame[KEY].is_null().arg_true()[0]) + 2
            raise InputError(f"{self.schema.path} record {line} has no {KEY}: complete or remove it")
        if frame[KEY].n_unique() != len(frame):
            twice = frame[KEY].filter(frame[KEY].is_duplicated())[0]
            raise InputError(f"{self.schema.path} has {KEY} {twice} more than once: remove one of the rows")
        return frame

    def check_records(self) -> None:
        """Check the structure of a file that another program has written, which takes one second for 100 MB.

        It must be UTF-8, with each record as long as the header and ended by a line end.

        Raises:
            InputError: it is not; the message names the record.
        """
        path = self.schema.path
        fix = "restore it, or correct the line"
        try:
            with self.path.open("rb") as raw:
                start = raw.peek(4)
                if not start:
                    raise InputError(f"{path} is empty: restore it")
                check_encoding(path, start)
                lines = io.TextIOWrapper(raw, "utf-8-sig", newline="")
                csv.field_size_limit(LONGEST_CELL)
                records = csv.reader(_lines_of(lines, path), strict=True)
                header = next(records, [])
                check_header(path, header, [KEY], "restore the header line")
                width = len(header)
                for number, record in enumerate(records, start=2):
                    if len(record) != width and record:
                        raise InputError(f"{path} record {number} has {len(record)} cells of {width}: {fix}")
        except csv.Error as error:
            raise InputError(f"{path} is not CSV after line {records.line_num} ({error}): {fix}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None

    def write(self, frame: pl.DataFrame) -> None:
        """Replace the file with `frame` atomically.

        Raises:
            PokefaError: the disk is full or not writable; the old file is unchanged.
        """
        with replacing(self.path) as stream:
            self.write_to(stream, frame)

    def write_to(self, stream: IO[bytes], frame: pl.DataFrame) -> None:
        """Write a frame in the file's format."""
        texts = [column.name for column in self._texts(frame)]
        write_frame(guard_formulas(frame, texts), stream)

    def decode(self, cells: Mapping[str, str | None]) -> dict[str, Value]:
        """Return typed values of a row's cells; undeclared columns stay text."""
        values: dict[str, Value] = {}
        for name, text in cells.items():
            column = self.schema.column(name)
            values[name] = text if column is None else column.decode(text)
        return values

    def _texts(self, frame: pl.DataFrame) -> Iterator[pl.Series]:
        """Yield the free-text columns."""
        for column in self.schema.columns:
            if column.type.canonical is None and column.name in frame.columns:
                yield frame[column.name]

    def _without_guards(self, frame: pl.DataFrame) -> pl.DataFrame:
        guarded = [cells.name for cells in self._texts(frame) if cells.str.starts_with("'").any()]
        return frame.with_columns(pl.col(name).str.replace(f"^'({FORMULA})", "${1}") for name in guarded)


def guard_formulas(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return cell texts with a leading apostrophe before each formula; `Table.read` removes it."""
    running = [name for name in columns if frame[name].str.contains(f"^{FORMULA}").any()]
    return frame.with_columns(pl.col(name).str.replace(f"^({FORMULA})", "'${1}") for name in running)


def _lines_of(stream: Iterator[str], path: str) -> Iterator[str]:
    """Yield the lines of a text file.

    Raises:
        InputError: a line contains a NUL, or the last one has no line end.
    """
    number, line = 0, "\n"
    for number, line in enumerate(stream, start=1):
        if "\0" in line:
            raise InputError(f"{path} line {number} contains a NUL character: restore it, or correct the line")
        yield line
    if not line.endswith(("\n", "\r")):
        raise InputError(
            f"{path} line {number} has no line end, so the file may be truncated: restore it, or add the line end if "
            "the row is complete"
        )


def empty_frame(columns: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))


def with_missing(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return `frame` with the missing `columns` appended, empty."""
    absent = [name for name in columns if name not in frame.columns]
    return frame.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)


def filled_cells(frame: pl.DataFrame, name: str) -> int:
    """Return the number of filled cells of a column; 0 if there is no such column."""
    return len(frame) - frame[name].null_count() if name in frame.columns else 0


def write_frame(frame: pl.DataFrame, stream: IO[bytes]) -> None:
    """Write a frame as CSV.

    Raises:
        OSError: it could not be written.
    """
    try:
        frame.write_csv(stream)
    except pl.exceptions.PolarsError as error:
        raise OSError(first_line(error)) from None
