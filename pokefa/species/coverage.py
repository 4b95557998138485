"""How far images fill the quotas, by species and by popularity band."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pokefa.csv_files import csv_text, read_csv
from pokefa.errors import InputError
from pokefa.text import species_slug

QUOTAS_FILE = "quotas/quotas.csv"


@dataclass
class Band:
    """One popularity band, or all species: how many species have an image, and its images and quotas."""

    name: str
    species: int = 0
    covered: int = 0
    quota: int = 0
    images: int = 0

    def add(self, quota: int, images: int) -> None:
        self.species += 1
        self.covered += images > 0
        self.quota += quota
        self.images += images

    def __str__(self) -> str:
        share = f"{100 * self.images / self.quota:.1f} %" if self.quota else "-"
        return f"{self.name:<10}{self.species:>8}{self.covered:>8}{self.quota:>9}{self.images:>9}{share:>9}"


@dataclass
class Coverage:
    """The images and quota of each species, in the order of the quotas, and sums by band."""

    rows: list[tuple[object, ...]] = field(default_factory=list)
    bands: dict[str, Band] = field(default_factory=dict)

    @property
    def csv(self) -> str:
        return csv_text(["rank", "pokemon", "band", "quota", "count", "fraction"], self.rows)

    @property
    def table(self) -> str:
        head = f"{'band':<10}{'species':>8}{'covered':>8}{'quota':>9}{'images':>9}{'share':>9}"
        return "\n".join([head, *map(str, self.bands.values())])


def cover_quotas(path: Path, counts: Mapping[str, int]) -> Coverage:
    """Return how far the counts fill the quotas of a quotas.csv; an image counts for each of its species.

    Raises:
        InputError: the file is not one that quotas/allocate.py writes.
    """
    coverage, total = Coverage(), Band("all")
    for number, row in read_csv(path, ["rank", "name", "band", "quota"], "run quotas/allocate.py again"):
        slug = species_slug(row["name"])
        try:
            rank, quota = int(row["rank"]), int(row["quota"])
        except ValueError:
            raise InputError(f"{path} line {number}: rank and quota must be whole numbers") from None
        count = counts.get(slug, 0)
        fraction = f"{count / quota:.4f}" if quota else ""
        coverage.rows.append((rank, slug, row["band"], quota, count, fraction))
        coverage.bands.setdefault(row["band"], Band(row["band"])).add(quota, count)
        total.add(quota, count)
    coverage.bands["all"] = total
    return coverage
