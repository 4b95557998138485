"""CSV files between people and scripts: read as they are, or refused with one line that says what to change.

Spreadsheets save CSV with other separators, encodings and extra lines. Nothing is guessed: a file that is not
comma-separated UTF-8 is refused, and the message names the separator or the encoding. What a spreadsheet would run as a
formula is written with an apostrophe before it, which reading takes away.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from pokefa.errors import InputError

SAVE_AS = "save it as CSV with commas, in UTF-8"
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# UTF-32 in little-endian order begins like UTF-16, so it comes first.
ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
    (b"PK\x03\x04", "a spreadsheet (XLSX or ODS)"),
    (b"PAR1", "Parquet"),
)


# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection"). Apostrophes before it are part of
# the pattern, so that a text which begins with one already comes back with it.
FORMULA = "'*[=+\\-@\\t\\r\\n＝＋－＠]"


def read_csv(
    path: Path, columns: Sequence[str], advice: str, *, strip: bool = True
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file that has `columns`, and perhaps others; blank lines are skipped.

    Args:
        advice: ends the message about a missing file or column.
        strip: remove blanks around the cells.

    Raises:
        InputError: the file cannot be read, lacks a column, or is not comma-separated UTF-8 with complete rows.
    """
    try:
        with path.open("rb") as binary:
            check_encoding(path, binary.peek(4))
            yield from _read_rows(path, binary, columns, advice, strip=strip)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {advice}") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{path} is not UTF-8 (it holds the byte 0x{byte:02x}, as Windows-1252 or Shift-JIS do): {SAVE_AS}"
        ) from None


def check_encoding(path: Path | str, start: bytes) -> None:
    """Check the first bytes of a CSV file.

    Raises:
        InputError: they are those of another encoding, or of another kind of file.
    """
    for mark, name in ENCODINGS:
        if start.startswith(mark):
            raise InputError(f"{path} is {name}: {SAVE_AS}")


def _read_rows(
    path: Path, binary: IO[bytes], columns: Sequence[str], advice: str, *, strip: bool
) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(sys.maxsize)  # the default refuses cells over 128 KiB, and an address may be longer
    reader = csv.reader(io.TextIOWrapper(binary, "utf-8-sig", newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        check_header(path, header, columns, advice)
        for cells in reader:
            number = reader.line_num
            if any("\0" in cell for cell in cells):
                raise InputError(f"{path} line {number} holds a NUL byte: {SAVE_AS}")
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < len(header) or any(cells[len(header) :]):
                raise InputError(
                    f"{path} line {number} has not {len(header)} cells as the header, but {len(cells)}: complete the "
                    "row, and put quotes around a cell that holds a comma"
                )
            texts = (remove_guard(cell.strip() if strip else cell) for cell in cells)
            yield number, dict(zip(header, texts, strict=False))
    except csv.Error as error:
        raise InputError(
            f"{path} is damaged near line {reader.line_num} ({error}): a quote is not closed, or the file was cut"
        ) from None


def check_header(path: Path | str, header: Sequence[str], columns: Sequence[str], advice: str) -> None:
    """Check the first line of a CSV file.

    Raises:
        InputError: it is not the names of columns, `columns` among them, with commas between.
    """
    first = header[0] if header else ""
    if any("\0" in name for name in header):
        raise InputError(f"{path} is UTF-16 or damaged (line 1 holds a NUL byte): {SAVE_AS}")
    if first.lower().startswith("sep="):
        raise InputError(f"{path} begins with the line {first!r} of a spreadsheet: remove that line, and {SAVE_AS}")
    for mark, name in SEPARATORS.items():
        if mark in first and not set(columns) <= set(header):
            raise InputError(f"{path} has {name} between its cells: {SAVE_AS}")
    for name in columns:
        if name not in header:
            raise InputError(f"{path} has no column {name}: {advice}")
    for name in header:
        if name and header.count(name) > 1:
            raise InputError(f"{path} has two columns called {name}: rename one of them")


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a CSV with LF line ends, as the ledger's tables have them; None is an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([guard_formula(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return stream.getvalue()


def guard_formula(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet would run it as a formula."""
    return f"'{text}" if re.match(FORMULA, text) else text


def remove_guard(text: str) -> str:
    """Return the text that `guard_formula` was given."""
    return text[1:] if re.match(f"'{FORMULA}", text) else text
