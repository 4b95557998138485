"""CSV files that people edit: read as they are, or refused with one line that says what to change.

Spreadsheets save CSV with other separators, encodings and extra lines. Nothing is guessed: a file that is not
comma-separated UTF-8 is refused, and the message names the separator or the encoding. A cell that a spreadsheet would
run as a formula is written with a leading apostrophe, which is removed on reading.
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
# The mark of little-endian UTF-32 begins with that of UTF-16, so it comes first.
ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
    (b"PK\x03\x04", "a spreadsheet (XLSX or ODS)"),
    (b"PAR1", "Parquet"),
)


# A spreadsheet treats these as the beginning of a formula (OWASP, "CSV Injection"). The pattern includes leading
# apostrophes, so that a text that already begins with one is read back unchanged.
FORMULA = "'*[=+\\-@\\t\\r\\n＝＋－＠]"


def read_csv(
    path: Path, columns: Sequence[str], advice: str, *, strip: bool = True
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file that has at least `columns`; blank lines are skipped.

    Args:
        advice: ends the message about a missing file or column.
        strip: remove spaces around the cells.

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
            f"{path} is not UTF-8 (it contains the byte 0x{byte:02x}, as Windows-1252 or Shift-JIS do): {SAVE_AS}"
        ) from None


def check_encoding(path: Path | str, start: bytes) -> None:
    """Check the first bytes of a CSV file.

    Raises:
        InputError: they mark another encoding or another file type.
    """
    for mark, name in ENCODINGS:
        if start.startswith(mark):
            raise InputError(f"{path} is {name}: {SAVE_AS}")


def _read_rows(
    path: Path, binary: IO[bytes], columns: Sequence[str], advice: str, *, strip: bool
) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(sys.maxsize)  # the default refuses cells over 128 KiB, and a URL may be longer
    reader = csv.reader(io.TextIOWrapper(binary, "utf-8-sig", newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        check_header(path, header, columns, advice)
        for cells in reader:
            number = reader.line_num
            if any("\0" in cell for cell in cells):
                raise InputError(f"{path} line {number} contains a NUL byte: {SAVE_AS}")
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < len(header) or any(cells[len(header) :]):
                raise InputError(
                    f"{path} line {number} has {len(cells)} cells, but the header has {len(header)}: complete the row, "
                    "and put quotes around a cell that contains a comma"
                )
            texts = (remove_guard(cell.strip() if strip else cell) for cell in cells)
            yield number, dict(zip(header, texts, strict=False))
    except csv.Error as error:
        raise InputError(
            f"{path} is damaged near line {reader.line_num} ({error}): close the quote, or restore the truncated file"
        ) from None


def check_header(path: Path | str, header: Sequence[str], columns: Sequence[str], advice: str) -> None:
    """Check the first line of a CSV file.

    Raises:
        InputError: it is not a comma-separated list of unique names that includes `columns`.
    """
    first = header[0] if header else ""
    if any("\0" in name for name in header):
        raise InputError(f"{path} is UTF-16 or damaged (line 1 contains a NUL byte): {SAVE_AS}")
    if first.lower().startswith("sep="):
        raise InputError(f"{path} begins with the spreadsheet line {first!r}: remove that line, and {SAVE_AS}")
    for mark, name in SEPARATORS.items():
        if mark in first and not set(columns) <= set(header):
            raise InputError(f"{path} separates its cells with {name}: {SAVE_AS}")
    for name in columns:
        if name not in header:
            raise InputError(f"{path} has no column {name}: {advice}")
    for name in header:
        if name and header.count(name) > 1:
            raise InputError(f"{path} has two columns called {name}: rename one of them")


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return CSV text with LF line ends, like the ledger's tables; None is an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([guard_formula(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return stream.getvalue()


def guard_formula(text: str) -> str:
    """Return a text with a leading apostrophe if a spreadsheet would run it as a formula."""
    return f"'{text}" if re.match(FORMULA, text) else text


def remove_guard(text: str) -> str:
    """Return the text that `guard_formula` was given."""
    return text[1:] if re.match(f"'{FORMULA}", text) else text
