"""Where candidates come from: the image search, a folder of files, or a list of addresses."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from pokefa.errors import InputError
from pokefa.user_files import read_csv
from scraping.utils import Species, SpeciesIndex, clean_text, host_of, read_parquet

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Candidate:
    """An image that may be had: an address, or a file of the user's; with what is known about it."""

    url: str
    query: str
    page: str | None = None
    domain: str | None = None
    title: str | None = None
    image_id: str | None = None
    path: Path | None = None


class Search(Protocol):
    """What `serpapi_client.SearchClient` does."""

    def page(self, query: str, number: int) -> list[dict[str, Any]]: ...


def searched(species: Species, search: Search | None, templates: Sequence[str], max_pages: int) -> Iterator[Candidate]:
    """Yield what the search finds for a species, page by page; a page is paid for when the one before is used up."""
    if search is None:
        return
    for template in templates:
        query = template.replace("{name}", species.name)
        seen: set[str] = set()
        for number in range(max_pages):
            results = search.page(query, number)
            found = {result["original"]: result for result in results if isinstance(result.get("original"), str)}
            new = [url for url in found if url not in seen]
            if not new:
                break  # no more, or a service that repeats itself
            seen.update(new)
            for url in new:
                page = clean_text(found[url].get("link"))
                domain = host_of(page) or host_of(url)
                yield Candidate(url, query, page, domain, clean_text(found[url].get("title")))


def from_folder(folder: Path, labels: Path | None, index: SpeciesIndex) -> dict[Species, list[Path]]:
    """Return the files of a folder by species, in the order of their paths or of the labels.

    Raises:
        InputError: the folder is missing, or a sub-folder or label names no species.
    """
    if not folder.is_dir():
        raise InputError(f"--from-folder {folder} is no folder")
    found: dict[Species, list[Path]] = {}
    if labels is not None:
        for number, row in read_csv(labels, ["file", "species"], "it needs the columns file and species"):
            species = index.require(row["species"], f"{labels} line {number}")
            name = os.fsdecode(row["file"].encode("utf-8"))  # whatever the locale says of file names
            found.setdefault(species, []).append(folder / name)
        return found
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        if len(parts) == 1:
            log.warning("%s lies in no sub-folder that names its species, and is passed over", path)
            continue
        species = index.require(parts[0], f"sub-folder of {folder}")
        found.setdefault(species, []).append(path)
    return found


def files_as_candidates(folder: Path, files: Sequence[Path]) -> Iterator[Candidate]:
    """Yield a candidate for each file of a folder.

    Its address is its path within the folder and the MD5 of its bytes, so that another folder's file of the same name
    is another candidate, and nothing of the user's machine is told.
    """
    for path in files:
        address = f"file:{quote(os.fsencode(path.relative_to(folder)))}"
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            yield Candidate(f"{address}#{digest}", "from-folder", path=path)
        except OSError:
            yield Candidate(address, "from-folder", path=path)


def from_urls(path: Path, index: SpeciesIndex) -> dict[Species, list[Candidate]]:
    """Return the addresses of a table with source_url, species and perhaps image_id, by species.

    Rows without a species are passed over, so that a base.csv will do. A name that ends in .parquet is read as Parquet,
    as `webdataset.py --urls-only` writes it; any other as CSV.

    Raises:
        InputError: the file cannot be read, or a row names no species or holds no MD5.
    """
    found: dict[Species, list[Candidate]] = {}
    unnamed = 0
    read = read_parquet if path.suffix.lower() == ".parquet" else read_csv
    for number, row in read(path, ["source_url", "species"], "it needs the columns source_url and species"):
        if not row["species"]:  # in a base.csv: an image that species.py has dropped
            unnamed += 1
            continue
        species = index.require(row["species"], f"{path} line {number}")
        image_id = row.get("image_id", "").lower()
        if image_id and not re.fullmatch(r"[0-9a-f]{32}", image_id):
            raise InputError(f"{path} line {number}: image_id {image_id!r} is no MD5 of 32 hex digits")
        url = row["source_url"]
        candidate = Candidate(url, "from-urls", domain=host_of(url), image_id=image_id or None)
        found.setdefault(species, []).append(candidate)
    if unnamed:
        log.warning("%s: %d rows without a species are passed over", path, unnamed)
    return found
