"""The species and their quotas: the target number of images, the number downloaded, and the number kept.

An image counts for the species that it was searched for. `webdataset/manifests` counts the species that it shows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pokefa.species.coverage import QUOTAS_FILE, cover_quotas
from pokefa.stage.funnel import KEPT
from pokefa.stage.rows import filled
from pokefa.text import species_slug

MOST_WANTED = 12


@dataclass(frozen=True)
class SpeciesCoverage:
    """One species: its rank, its slug, its quota, and its images."""

    rank: int
    name: str
    band: str
    quota: int
    downloaded: int
    kept: int

    @property
    def met(self) -> bool:
        return 0 < self.quota <= self.kept


@dataclass(frozen=True)
class BandCoverage:
    """The species of one popularity band.

    Args:
        part: `head`, `middle` or `tail` of the ranking.
        with_any: species with a kept image.
        met: species with as many kept images as their quota.
    """

    band: str
    part: str
    species: int
    with_any: int
    met: int
    quota: int
    downloaded: int
    kept: int


def read_coverage(root: Path, images: pl.DataFrame) -> list[SpeciesCoverage]:
    """Return the coverage of every species, in the order of the quotas; empty without quotas.csv.

    Args:
        images: the table with `fate`, see `pokefa.stage.funnel.read_tables`.

    Raises:
        InputError: quotas/allocate.py did not write the file.
    """
    path = root / QUOTAS_FILE
    if not path.is_file():
        return []
    downloaded = cover_quotas(path, count_species(images))
    kept = cover_quotas(path, count_species(images.filter(pl.col("fate") == KEPT)))
    return [
        SpeciesCoverage(int(str(rank)), str(name), str(band), int(str(quota)), int(str(found)), int(str(kept_row[4])))
        for (rank, name, band, quota, found, _), kept_row in zip(downloaded.rows, kept.rows, strict=True)
    ]


def count_species(images: pl.DataFrame) -> Counter[str]:
    """Return the number of images found by searching for each species, by slug."""
    counts: Counter[str] = Counter()
    for name, images_of_it in images.filter(filled("species")).group_by("species").len().iter_rows():
        counts[species_slug(name)] += images_of_it
    return counts


def sum_bands(species: list[SpeciesCoverage]) -> list[BandCoverage]:
    """Return the bands in the order of the quotas, from the head to the tail."""
    bands: dict[str, list[SpeciesCoverage]] = {}
    for one in species:
        bands.setdefault(one.band, []).append(one)
    parts = ["head", *["middle"] * (len(bands) - 2), "tail"]
    return [sum_band(band, part, of_band) for (band, of_band), part in zip(bands.items(), parts, strict=False)]


def sum_band(band: str, part: str, species: list[SpeciesCoverage]) -> BandCoverage:
    return BandCoverage(
        band,
        part,
        len(species),
        sum(1 for one in species if one.kept),
        sum(1 for one in species if one.met),
        sum(one.quota for one in species),
        sum(one.downloaded for one in species),
        sum(one.kept for one in species),
    )


def most_wanted(species: list[SpeciesCoverage], most: int = MOST_WANTED) -> list[SpeciesCoverage]:
    """Return the species with results that miss the most images, the worst first."""
    short = [one for one in species if one.downloaded and not one.met and one.quota]
    return sorted(short, key=lambda one: (one.kept - one.quota, one.rank))[:most]
