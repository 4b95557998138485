"""Formats numbers and tables as Markdown, and writes the generated parts of pages."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from pokefa.errors import InputError
from pokefa.files import replacing


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, with an empty line before and after it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n" + "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def spread(values: Iterable[float]) -> str:
    """Return "median (minimum to maximum)" as text, or only the value if there is one."""
    values = sorted(values)
    digits = 0 if values[0] >= 100 else 1 if values[0] >= 10 else 2 if values[0] >= 0.1 else 3
    middle, *ends = (f"{value:,.{digits}f}" for value in (statistics.median(values), values[0], values[-1]))
    return middle if len(values) == 1 else f"{middle} ({' to '.join(ends)})"


def plain(wanted: float | None) -> str:
    """Return a goal without needless digits; "" for no goal."""
    return "" if wanted is None else f"{wanted:.2f}".rstrip("0").rstrip(".")


def mebibytes(size: float) -> str:
    """Return a number of bytes as text in MiB."""
    return f"{size / 2**20:,.0f} MiB"


def fill_page(page: Path, script: str, text: str) -> None:
    """Write text between the marks in a page that enclose a script's output.

    Raises:
        InputError: the page has no marks.
    """
    begin, end = (f"<!-- {word}: written by {script} -->\n" for word in ("begin", "end"))
    before, found_begin, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise InputError(f"{page.name} lacks the lines {begin.strip()} and {end.strip()}")
    with replacing(page) as stream:
        stream.write(f"{before}{begin}{text}\n{end}{after}".encode())
