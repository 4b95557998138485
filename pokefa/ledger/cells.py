"""Cell types: which texts are valid, which value each means, and its canonical spelling.

Decisions read cells through the column's type, and never compare texts. Another program may spell a value differently
(`TRUE`, ` true`, `1`, `84.0`): it is read as the same value and written back in canonical form. A text that is not a
value of the type stops the script.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from pokefa.errors import InputError

Kind = Literal["text", "int", "float", "bool"]
Value = str | int | float | bool | None

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}(\.0*)?\Z", re.ASCII)
_OUR_FLOAT = r"-?[0-9]+\.[0-9]+(e[+-]?[0-9]+)?"
# Spreadsheets round larger whole numbers, which have no exact float.
_LARGEST_INTEGER = 2**53


@dataclass(frozen=True)
class CellType:
    """The type of a column's cells.

    Args:
        kind: the Python type of a value.
        expected: what a cell must be, for messages and the data dictionary.
        example: the text of such a cell.
        canonical: regular expression of the canonical spelling, for Polars; None = any text.
        read: turns the text of a cell into its value, or raises ValueError.
        low, high: range of a number, both ends included.
    """

    kind: Kind
    expected: str
    example: str
    canonical: str | None = None
    read: Callable[[str], Value] = str
    low: float = -math.inf
    high: float = math.inf

    def encode(self, name: str, value: Value) -> str | None:
        """Return the cell text of `value` in column `name`; None and "" both mean an empty cell, "not decided yet".

        Raises:
            InputError: the value is not of this type, or contains a NUL or a lone surrogate.
        """
        if value is None:
            return None
        if self.kind == "text" and isinstance(value, str):
            text = check_text(name, value)
            if text and self.canonical is not None and not re.fullmatch(self.canonical, text):
                raise InputError(f"{name}: {text!r} is not {self.expected}")
            return text or None
        if self.kind == "bool" and isinstance(value, bool):
            return str(value)
        types = {"int": (int,), "float": (int, float)}.get(self.kind, ())
        if isinstance(value, str | bool) or not isinstance(value, types):
            raise InputError(f"{name}: {value!r} is not of type {self.kind}")
        if not math.isfinite(value):
            raise InputError(f"{name}: {value!r} is not a finite number")
        if not self.low <= value <= self.high:
            raise InputError(f"{name}: {value!r} is not {self.expected}")
        return str(value) if self.kind == "int" else repr(float(value))

    def decode(self, name: str, text: str | None) -> Value:
        """Return the typed value of a cell of column `name`; an empty cell is None.

        Raises:
            InputError: the text is not a value of this type, for example after an edit in another program.
        """
        if text is None or text == "":
            return None
        if self.canonical is None:
            return text
        trimmed = text.strip()
        if not trimmed:
            return None
        try:
            value = self.read(trimmed)
            inside = not isinstance(value, int | float) or self.low <= value <= self.high
        except ValueError:
            inside = False
        if not inside:
            raise InputError(f"{name}: {text!r} is not {self.expected}; correct the cell or empty it")
        return value

    def respell(self, name: str, cells: pl.Series) -> tuple[pl.Series, dict[str, str]]:
        """Return the cells in canonical spelling, and a message for each invalid text, whose cells become empty.

        Args:
            cells: String column.
        """
        if self.canonical is None:
            return cells, {}
        odd = cells.filter(cells.is_not_null() & ~self._is_ours(cells))
        spelled: dict[str, str | None] = {}
        wrong: dict[str, str] = {}
        for text in odd.unique().to_list():
            try:
                spelled[text] = self.encode(name, self.decode(name, text))
            except InputError as error:
                spelled[text] = None
                wrong[text] = str(error)
        if not spelled:
            return cells, {}
        return cells.replace_strict(list(spelled), list(spelled.values()), default=cells, return_dtype=pl.String), wrong

    def _is_ours(self, cells: pl.Series) -> pl.Series:
        ours = cells.str.contains(f"^(?:{self.canonical})$")
        if self.kind in ("int", "float"):
            ours &= cells.cast(pl.Float64, strict=False).is_between(self.low, self.high)
        return ours.fill_null(False)


def check_text(name: str, text: str) -> str:
    """Return `text` if a UTF-8 CSV can hold it.

    Raises:
        InputError: it contains a NUL, which RFC 4180 readers refuse, or a lone surrogate, which UTF-8 cannot encode.
    """
    if "\0" in text:
        raise InputError(f"{name}: {text!r} contains a NUL character, which a CSV cannot store")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{name}: {text!r} contains a lone surrogate, which UTF-8 cannot store") from None
    return text


def _read_boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError from None


def _read_integer(text: str) -> int:
    if not _INTEGER.match(text) or abs(number := int(text.partition(".")[0])) > _LARGEST_INTEGER:
        raise ValueError
    return number


def _read_float(text: str) -> float:
    if "_" in text or not text.isascii() or not math.isfinite(number := float(text)):
        raise ValueError
    return number


TEXT = CellType("text", "text", "A drawing of Umbreon, by night")
# pokefa/files.py decides which paths are valid in a data folder.
PATH = CellType("text", "path relative to the root", "data_stage/resized/001-150/0001_umbreon/picture.png")
BOOLEAN = CellType("bool", "True or False", "False", "True|False", _read_boolean)


def integer(low: int, high: int | None = None) -> CellType:
    """Return the type of integers in an inclusive range."""
    span = f"of {low} or more" if high is None else f"from {low} to {high}"
    top = _LARGEST_INTEGER if high is None else high
    return CellType("int", f"a whole number {span}", f"{low}", "-?(0|[1-9][0-9]{0,15})", _read_integer, low, top)


def decimal(low: float, high: float | None = None) -> CellType:
    """Return the type of finite numbers in an inclusive range."""
    span = f"of {low:g} or more" if high is None else f"from {low:g} to {high:g}"
    top = math.inf if high is None else high
    return CellType("float", f"a number {span}", f"{low + 0.5}", _OUR_FLOAT, _read_float, low, top)


def hex_digits(count: int, times: int = 1) -> CellType:
    """Return the type of hashes of `count` hex digits, `times` of them, separated by spaces."""
    one = f"[0-9a-f]{{{count}}}"
    pattern = one + f"( {one}){{{times - 1}}}" if times > 1 else one
    expected = f"{count} hex digits" if times == 1 else f"{times} times {count} hex digits"
    return _matching(pattern, expected, " ".join([("0123456789abcdef" * 4)[:count]] * times))


def one_of(*choices: str) -> CellType:
    """Return the type of a fixed set of words."""
    listed = ", ".join(choices[:-1]) + f" or {choices[-1]}" if len(choices) > 1 else choices[0]
    return _matching("|".join(map(re.escape, choices)), listed, choices[0])


def reason_of(*stages: str) -> CellType:
    """Return the type of `stage:reason`, such as `species:no_known_species`."""
    example = f"{stages[0]}:reason"
    return _matching(rf"(?:{'|'.join(stages)}):.+", f"a stage and a reason, such as {example}", example)


def _matching(pattern: str, expected: str, example: str) -> CellType:
    def read(text: str) -> str:
        lowered = text.lower()
        if not re.fullmatch(pattern, lowered):
            raise ValueError
        return lowered

    return CellType("text", expected, example, pattern, read)
