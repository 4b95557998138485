"""The sources of URLs: the image search, or a user's list."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pokefa.csv_files import read_csv
from pokefa.errors import InputError
from scraping.addresses import candidate_of
from scraping.utils import Candidate, Species, SpeciesIndex, read_parquet

log = logging.getLogger("pokefa")


class Search(Protocol):
    """The interface of `serpapi_client.SearchClient`."""

    def page(self, query: str, number: int) -> list[dict[str, Any]]: ...


def searched(species: Species, search: Search | None, templates: Sequence[str], max_pages: int) -> Iterator[Candidate]:
    """Yield the search results for a species; a page is paid for when the previous one is used up."""
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
                break  # no more results, or repeated ones
            seen.update(new)
            for url in new:
                yield candidate_of(url, query, page=found[url].get("link"), title=found[url].get("title"))


def from_urls(path: Path, index: SpeciesIndex) -> dict[Species, list[Candidate]]:
    """Return the URLs of a table with source_url, species and optionally image_id, by species.

    Rows without a species, as in a base.csv, are skipped. A file name ending in .parquet is read as Parquet, as written
    by `webdataset.py --urls-only`; any other as CSV.

    Raises:
        InputError: the file cannot be read, or a species or MD5 is invalid.
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
            raise InputError(f"{path} line {number}: image_id {image_id!r} is not an MD5 of 32 hex digits")
        candidate = candidate_of(row["source_url"], "from-urls", image_id=image_id or None)
        found.setdefault(species, []).append(candidate)
    if unnamed:
        log.warning("%s: %d rows without a species are skipped", path, unnamed)
    return found
