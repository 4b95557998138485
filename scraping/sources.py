"""Where addresses come from: the image search, or a list of the user's."""

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
                yield candidate_of(url, query, page=found[url].get("link"), title=found[url].get("title"))


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
        candidate = candidate_of(row["source_url"], "from-urls", image_id=image_id or None)
        found.setdefault(species, []).append(candidate)
    if unnamed:
        log.warning("%s: %d rows without a species are passed over", path, unnamed)
    return found
