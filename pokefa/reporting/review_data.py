"""The data of a review page: the dataset as review.py reads it, and a flagged image as the page shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.ledger.columns import TAKEN_DOWN
from pokefa.ledger.runs import Run, read_runs
from pokefa.ledger.tables import Ledger
from pokefa.stage.funnel import Tables, read_tables

# Sorts last: the distance to the threshold is unknown.
UNKNOWN = float("inf")

Cells = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """One picture of an image: its file, relative to the root, and the polygons to draw on it.

    Args:
        boxes: corners (x, y) of each polygon, in pixels of a picture of `size` (width, height).
        veiled: whether it is blurred until a person unblurs it.
    """

    caption: str
    path: str
    boxes: list[list[tuple[int, int]]] = field(default_factory=list)
    size: tuple[int, int] = (1, 1)
    veiled: bool = False


@dataclass(frozen=True)
class Mate:
    """Another image of the same group, with its file; a veiled one is blurred until a person unblurs it."""

    image_id: str
    path: str
    veiled: bool = False


@dataclass(frozen=True)
class Flagged:
    """One flagged image.

    Args:
        says: why it is flagged, in a few words.
        score: the number that the page filters by.
        closeness: sort key; the smallest, closest to the threshold, comes first.
        tags: (tag, description); the page filters by the tags.
        text: a sentence shown in full.
        mates: other images of its group, and the number of those not listed.
        values: numbers that the actions compute with.
    """

    image_id: str
    species: str
    says: str
    score: float | None
    closeness: tuple[float, ...]
    pictures: list[Picture]
    tags: list[tuple[str, str]] = field(default_factory=list)
    text: str = ""
    mates: list[Mate] = field(default_factory=list)
    more_mates: int = 0
    facts: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)

    @property
    def veiled(self) -> bool:
        """Whether one of the pictures shown with it is blurred."""
        return any(picture.veiled for picture in self.pictures) or any(mate.veiled for mate in self.mates)


@dataclass(frozen=True)
class Dataset:
    """The ledger, tables and runs behind the pages."""

    root: Path
    ledger: Ledger

    @cached_property
    def tables(self) -> Tables:
        return read_tables(self.ledger)

    @cached_property
    def runs(self) -> list[Run]:
        return read_runs(self.root)

    def rows(self, wanted: pl.Expr) -> list[dict[str, Any]]:
        """Return the rows of images.csv that match, except those that were taken down."""
        return self.tables.images.filter(wanted & ~TAKEN_DOWN).to_dicts()


def number(text: str | None) -> float | None:
    """Return the number in a cell, or None if there is none."""
    try:
        return float(text or "")
    except ValueError:
        return None


def scores(text: str | None) -> dict[str, float]:
    """Return the {tag: number} of a JSON cell, empty if the cell is empty or damaged."""
    try:
        parsed = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(parsed, dict):
        return {}
    return {str(tag): value for tag, value in parsed.items() if isinstance(value, int | float)}


def known(value: float | None) -> float:
    return UNKNOWN if value is None else value


def facts_of(cells: Cells, *columns: str) -> list[tuple[str, str]]:
    return [(column, str(cells[column])) for column in ("title", "source_domain", *columns) if cells[column]]


def species_of(cells: Cells) -> str:
    return cells["species"] or "unknown species"
