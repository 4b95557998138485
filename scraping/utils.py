"""The species of quotas.csv, the limits of downloads, and checks of bytes: everything that needs no network."""

from __future__ import annotations

import difflib
import email.utils
import hashlib
import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import polars as pl

from pokefa.csv_files import read_csv
from pokefa.errors import ImageError, InputError, PokefaError, first_line
from pokefa.images.decoding import in_decoder
from pokefa.images.files import MAX_BYTES, MAX_PIXELS, check_image
from pokefa.text import clean_text, species_slug

RAW_FOLDER = "data_raw"

MIN_SIDE = 256
MAX_ASPECT = 4.0  # higher ratios are banners, comic strips and rows of sprites
DEADLINE_S = 60.0
MOST_PATIENCE_S = 365 * 86_400.0  # longer than any host asks for, and in range of every clock


@dataclass(frozen=True)
class Species:
    """A row of quotas.csv."""

    name: str
    rank: int
    band: str
    quota: int

    @property
    def folder(self) -> str:
        """The folder of its raw images, relative to the root."""
        return f"{RAW_FOLDER}/{self.band}/{self.rank:04d}_{species_slug(self.name)}"


def read_quotas(path: Path) -> list[Species]:
    """Return the species of a quotas.csv in the file's order.

    Raises:
        InputError: the file is missing, or a row is not one that quotas/allocate.py writes.
    """
    species: list[Species] = []
    slugs: set[str] = set()
    for number, row in read_csv(path, ["rank", "name", "band", "quota"], "run quotas/allocate.py first"):
        if not all(re.fullmatch("[0-9]{1,9}", row[name]) for name in ("rank", "quota")):
            raise InputError(f"{path} line {number}: rank and quota must be whole numbers")
        found = Species(row["name"], int(row["rank"]), row["band"], int(row["quota"]))
        slug = species_slug(found.name)
        # The band becomes a folder's name.
        if not (slug and found.band.replace("-", "").isalnum() and found.band.isascii()):
            raise InputError(f"{path} line {number}: the name {found.name!r} or the band {found.band!r} is malformed")
        if slug in slugs:
            raise InputError(f"{path} line {number}: the species {found.name!r} occurs twice: remove a row")
        slugs.add(slug)
        species.append(found)
    return species


def read_parquet(path: Path, columns: Sequence[str], advice: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (row number, row) of a Parquet file like `read_csv`, with numbers from 1.

    Raises:
        InputError: the file cannot be read or lacks a column; `advice` ends the message.
    """
    try:
        with path.open("rb") as stream:  # Polars would treat a path as a pattern
            frame = pl.read_parquet(stream)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}): {advice}") from None
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}: {advice}")
    for number, row in enumerate(frame.iter_rows(named=True), start=1):
        yield number, {name: "" if cell is None else str(cell).strip() for name, cell in row.items()}


class SpeciesIndex:
    """Finds a species by name or folder: "Flabébé", "flabebe" or "0639_flabebe"."""

    def __init__(self, species: Iterable[Species]) -> None:
        self.species = list(species)
        self._by_slug: dict[str, Species] = {}
        for one in self.species:
            self._by_slug[species_slug(one.name)] = one
            self._by_slug[f"{one.rank:04d}_{species_slug(one.name)}"] = one

    def find(self, text: str) -> Species | None:
        """Return the species, the first of several separated by commas; None if it is unknown."""
        return self._by_slug.get(species_slug(text.split(",")[0]))

    def require(self, text: str, where: str) -> Species:
        """Return the species.

        Raises:
            InputError: the species is unknown; `where` begins the message.
        """
        found = self.find(text)
        if found is None:
            raise InputError(f"{where}: unknown species {text!r}{self._suggestion(text)}: use a name from quotas.csv")
        return found

    def _suggestion(self, text: str) -> str:
        names = {species_slug(one.name): one.name for one in self.species}
        like = difflib.get_close_matches(species_slug(text), names, n=1, cutoff=0.7)
        return f" (did you mean {names[like[0]]}?)" if like else ""


def host_of(url: str | None) -> str | None:
    """Return the host name of a URL, or None if it has none."""
    try:
        return clean_text(urlsplit(url or "").hostname)
    except ValueError:
        return None


class Refused(PokefaError):
    """A URL or its bytes cannot be used; `slug` is its status in urls.jsonl."""

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(f"{slug}: {detail}")
        self.slug = slug
        self.detail = detail


class Busy(Refused):
    """A host asks to wait; `after` is the number of seconds, or None if it does not say."""

    def __init__(self, slug: str, detail: str, host: str, after: float | None) -> None:
        super().__init__(slug, detail)
        self.host = host
        self.after = after


@dataclass(frozen=True)
class Candidate:
    """A possible image: a URL or a user's file, with known facts.

    `refused` says why it cannot be used, if that is known before trying.
    """

    url: str
    query: str
    page: str | None = None
    domain: str | None = None
    title: str | None = None
    image_id: str | None = None
    path: Path | None = None
    refused: Refused | None = None


Check = Literal["full", "header"]


@dataclass(frozen=True)
class Limits:
    """Limits of downloads and images. Sizes are in bytes and pixels, times in seconds."""

    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS
    min_side: int = MIN_SIDE
    max_aspect: float = MAX_ASPECT
    deadline: float = DEADLINE_S
    ignore_opt_out: bool = False
    excluded: frozenset[str] = frozenset()
    check: Check = "full"


@dataclass(frozen=True)
class Download:
    """The bytes as sent by the server, and its content type."""

    data: bytes
    content_type: str | None


@dataclass(frozen=True)
class ImageFacts:
    """Facts about the bytes of an image; width and height in pixels after EXIF orientation."""

    image_id: str
    sha256: str
    fmt: str
    w: int
    h: int


def examine(data: bytes, limits: Limits) -> ImageFacts:
    """Return the facts about an image, decoding it completely unless `limits.check` is "header".

    Raises:
        Refused: its format is not supported, it is damaged, or it is outside the limits.
    """
    try:
        facts = in_decoder(
            check_image,
            data,
            decode=limits.check == "full",
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
        )
    except ImageError as error:
        raise Refused(error.slug, error.detail) from None
    width, height = facts.width, facts.height
    if min(width, height) < limits.min_side:
        raise Refused("too_small", f"{width}x{height}: a side is under {limits.min_side} pixels")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Refused("bad_aspect", f"{width}x{height}: one side is over {limits.max_aspect:g} times the other")
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return ImageFacts(md5, hashlib.sha256(data).hexdigest(), facts.format, width, height)


def retry_after(value: str | None) -> float | None:
    """Return the seconds in a Retry-After header, at most MOST_PATIENCE_S; None if it is missing or invalid.

    A past date gives 0, and an impossible one the maximum.
    """
    if value is None:
        return None
    if re.fullmatch(r"[0-9]+", value.strip()):
        seconds = float(value)
    else:
        try:
            date = email.utils.parsedate_tz(value)
            seconds = -math.inf if date is None else email.utils.mktime_tz(date) - time.time()
        except (ValueError, OverflowError):  # the year 99999, or the month 13
            seconds = math.inf
        if seconds == -math.inf:
            return None
    return min(max(seconds, 0.0), MOST_PATIENCE_S)
