"""The parts of the report's sections: figures, tables of their numbers, and the counting behind them."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import polars as pl

from pokefa.reporting.figures import bars
from pokefa.stage.rows import filled

Count = tuple[str, int]


@dataclass(frozen=True)
class Table:
    """Rows of cells with headings; the first `texts` columns are text, the others numbers."""

    headings: tuple[str, ...]
    rows: list[tuple[object, ...]]
    texts: int = 1
    name: str = "the numbers"


@dataclass(frozen=True)
class Figure:
    """A figure and its numbers. `svg` is empty if the numbers need none; `wide` shows them beside it at once."""

    title: str
    svg: str
    table: Table
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A section of the report: an opening sentence and figures. Without figures the sentence says what is missing."""

    name: str
    title: str
    says: str
    figures: list[Figure]


def number(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64, strict=False)


def count_by(frame: pl.DataFrame, column: str) -> Counter[str]:
    return Counter(dict(frame.filter(filled(column)).group_by(column).len().rows()))


def ranked(counts: Mapping[str, int]) -> list[Count]:
    """Return (name, count), sorted by count from the highest, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def classes(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Return how many values are in each class [edge, next edge); the last class includes its upper edge."""
    last = len(edges) - 2
    counts = Counter(min(bisect.bisect_right(edges, value) - 1, last) for value in values)
    return [counts[place] for place in range(last + 1)]


def megapixels(frame: pl.DataFrame, width: str, height: str) -> list[float]:
    """Return the known image sizes in megapixels."""
    return frame.select((number(width) * number(height) / 1e6).alias("size"))["size"].drop_nulls().to_list()


def count_sizes(sizes: Sequence[float], bounds: Sequence[float]) -> list[int]:
    """Return the number of sizes in each class from a lower bound to the next."""
    counts = Counter(bisect.bisect_right(bounds, size) - 1 for size in sizes)
    return [counts[place] for place in range(len(bounds))]


def size_names(bounds: Sequence[float], *, whole: bool = False) -> list[str]:
    """Return a name for each class: 0–0.5; with `whole`, for integers: 6–10."""
    names = []
    for low, high in pairwise(bounds):
        end = high - 1 if whole else high
        names.append(f"{low:g}" if end == low else f"{low:g}–{end:g}")
    return [*names, f"{bounds[-1]:g}+"]


def counted(name: str, title: str, heading: str, counts: Sequence[Count], total: int, *, wide: bool = False) -> Figure:
    """Return bars with the share of each count in `total`."""
    rows: list[tuple[object, ...]] = [(label, count, f"{count / (total or 1):.1%}") for label, count in counts]
    svg = bars(name, spoken(title, counts), counts, total=total)
    return Figure(title, svg, Table((heading, "images", "share"), rows), wide)


def grouped_table(heading: str, names: Sequence[str], groups: Mapping[str, Sequence[int]]) -> Table:
    rows = [row for row in zip(names, *groups.values(), strict=True) if any(row[1:])]
    return Table((heading, *groups), [tuple(row) for row in rows])


def spoken(title: str, counts: Sequence[tuple[str, float]]) -> str:
    """Return the counts as a sentence, for readers who cannot see the figure."""
    return f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts)


def short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
