"""The record of every tried URL, and the saving of images so that a killed run loses none.

Each species' folder contains `urls.jsonl`, with one line for each URL that was decided on:

    {"url": "…", "species": "Umbreon", "status": "http_404", "detail": "Not Found", "ts": "…"}
    {"url": "…", "species": "Umbreon", "status": "saved", "detail": null, "ts": "…", "row": {"image_id": "…", …}}
    {"url": "…", "species": "Umbreon", "status": "duplicate_bytes", …, "image_id": "…", "page": "…"}

Statuses decided by a rule: saved, duplicate_url, duplicate_bytes, placeholder, taken_down_address, taken_down_bytes,
taken_down_picture, opted_out, excluded_domain, outside_folder, not_a_file, blocked_address, blocked_scheme, too_small,
bad_aspect, too_many_bytes, too_many_pixels, too_many_scans, too_many_segments, too_many_chunks. Failures: http_<code>,
dns_failed, connection_failed, tls_failed, timeout, host_busy, too_many_redirects, invalid_url, unsupported_encoding,
truncated, empty_file, not_an_image, unsupported_format, decode_timeout, decode_memory, decode_crash, hash_mismatch,
missing_file.

The line of a saved image contains its ledger row, and is on disk before the file gets its name. So after a kill at any
moment, the next run can add the row of every image: see `Records.recover`.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pokefa.errors import InputError, RunError
from pokefa.files import sync_folder
from pokefa.ledger.columns import IMAGES
from pokefa.ledger.journal import utc_now
from pokefa.stage.runner import Row
from scraping.addresses import stored_address
from scraping.utils import RAW_FOLDER, Species

URLS_FILE = "urls.jsonl"

# Decided by a rule, not failed: these do not count as errors in the summary or for --strict.
DECISIONS = frozenset(
    {
        "saved",
        "adopted",
        "duplicate_url",
        "duplicate_bytes",
        "placeholder",
        "taken_down_address",
        "taken_down_bytes",
        "taken_down_picture",
        "opted_out",
        "excluded_domain",
        "outside_folder",
        "not_a_file",
        "blocked_address",
        "blocked_scheme",
        "too_small",
        "bad_aspect",
        "too_many_bytes",
        "too_many_pixels",
        "too_many_scans",
        "too_many_segments",
        "too_many_chunks",
    }
)
# A retry of these cannot change the result.
FINAL = frozenset(
    {"saved", "duplicate_url", "duplicate_bytes", "placeholder", "taken_down_address", "taken_down_bytes"}
)

# The same bytes on this many pages are a placeholder.
PLACEHOLDER_PAGES = 5


class Records:
    """All URLs tried and all images stored so far, over all species; threads may share it."""

    def __init__(
        self, root: Path, images: Mapping[str, str], pages: Mapping[str, str] | None = None, *, retry: bool = False
    ) -> None:
        """Start with the ledger's images.

        Args:
            images: {image_id: species}.
            pages: {image_id: page that it came from, or its URL}; without the user's own files.
            retry: try URLs again that were not saved.
        """
        self._root = root
        self._retry = retry
        self.failed_before: set[str] = set()  # URLs skipped in this run because an earlier one failed to save them
        self._lock = threading.Lock()
        self._images = dict(images)
        self._first_pages = dict(pages or {})
        self._other_pages: defaultdict[str, set[str]] = defaultdict(set)
        self._statuses: dict[tuple[str, str], str] = {}
        self._owners: dict[str, str] = {}
        self._claimed: set[tuple[str, str]] = set()
        self._passing = itertools.count(1)

    def recover(self) -> Iterator[Row]:
        """Read every urls.jsonl, repair what a killed run left, and yield the ledger rows that it did not write.

        Raises:
            InputError: a line is damaged.
            RunError: a file cannot be repaired.
        """
        raw = self._root / RAW_FOLDER
        try:
            for path in sorted(raw.glob(f"*/*/{URLS_FILE}")):
                yield from self._recover_folder(path)
            # Files without a line are unfinished: parts of images and of stored searches.
            for leftover in (*raw.glob("*/*/.*.part"), *raw.glob("*/*/.*.tmp"), *raw.glob("*/.*.tmp")):
                leftover.unlink()
        except OSError as error:
            raise RunError(f"cannot repair {error.filename}: {error.strerror}; fix that and run again") from None

    def claim(self, url: str, species: str) -> bool:
        """Claim a URL for a species; return False if it was claimed in this run or decided before.

        The first species that claims a URL is its `owner` and may try it.
        """
        key = (species, url)
        with self._lock:
            status = self._statuses.get(key)
            if key in self._claimed or (status is not None and (status in FINAL or not self._retry)):
                if status is not None and status not in FINAL:
                    self.failed_before.add(url)
                return False
            self._claimed.add(key)
            self._owners.setdefault(url, species)
            return True

    def owner(self, url: str) -> str:
        """Return the species that claimed a URL first."""
        return self._owners[url]

    def claim_image(self, image_id: str, species: str, page: str | None) -> str | None:
        """Reserve an image from a page for a species; return None, or the species that has it already."""
        with self._lock:
            self._saw(image_id, page)
            if image_id in self._images:
                return self._images[image_id]
            self._images[image_id] = species
            return None

    def pages_of(self, image_id: str) -> int:
        """Return the number of different pages an image has come from, over all species and runs."""
        with self._lock:
            return len({*self._other_pages.get(image_id, ()), *filter(None, [self._first_pages.get(image_id)])})

    def placeholders(self) -> dict[str, int]:
        """Return the images from PLACEHOLDER_PAGES pages or more, with the number of pages."""
        counts = {image_id: self.pages_of(image_id) for image_id in list(self._other_pages)}
        return {image_id: pages for image_id, pages in counts.items() if pages >= PLACEHOLDER_PAGES}

    def write(self, species: Species, url: str, status: str, detail: str | None = None, **facts: str | None) -> None:
        """Append the line of a URL that was not saved; `facts` are additional keys.

        Raises:
            RunError: it cannot be written.
        """
        folder = self._root / species.folder
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            append_line(folder / URLS_FILE, _line(url, species.name, status, detail) | facts, durable=False)

    def keep(self, species: Species, data: bytes) -> Path:
        """Write bytes to disk under a temporary name and return it; `save` gives them the final name.

        Raises:
            RunError: they cannot be written.
        """
        folder = self._root / species.folder
        temporary = folder / f".{next(self._passing)}.tmp"
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        return temporary

    def save(self, species: Species, url: str, kept: Path, row: Row) -> None:
        """Move the file from `keep` to its row's `path_raw` and write its line: file, line, name, in this order.

        Raises:
            RunError: it cannot be written.
        """
        target = self._root / str(row["path_raw"])
        with _writing(target.parent):
            kept.replace(part_of(target))
            line = _line(url, species.name, "saved", None) | {"row": row}
            append_line(self._root / species.folder / URLS_FILE, line, durable=True)
            part_of(target).replace(target)
            sync_folder(target.parent)

    def _saw(self, image_id: str, page: str | None) -> None:
        if page is not None and self._first_pages.setdefault(image_id, page) != page:
            self._other_pages[image_id].add(page)

    def _recover_folder(self, path: Path) -> Iterator[Row]:
        for number, line in enumerate(read_lines(path, repair=True), 1):
            # Earlier versions stored long URLs in full.
            url, species, status = stored_address(line["url"]), line["species"], line["status"]
            row: Row | None = line.get("row")
            if row is not None and str(row["image_id"]) not in self._images:
                target = self._root / str(row["path_raw"])
                temporary = part_of(target)
                if not target.exists() and temporary.exists():
                    temporary.replace(target)
                if not target.exists():
                    continue  # neither a row nor bytes: the URL may be tried again
                try:
                    IMAGES.encode_cells("scrape", row)
                except (ValueError, InputError) as error:
                    raise _damaged(path, number, error) from None
                self._images[str(row["image_id"])] = species
                yield row
            image_id = image_of(line)
            if image_id is not None:
                page = line.get("page") if row is None else line["row"].get("source_page")
                self._saw(image_id, page_of(page, url))
            self._statuses[species, url] = status
            if status != "duplicate_url":
                self._owners[url] = species


def page_of(page: str | None, url: str) -> str | None:
    """Return the page of an image, or its URL if no page is known; None for a user's own file."""
    return None if url.startswith("file:") else page or url


def image_of(line: dict[str, Any]) -> str | None:
    """Return the id of the image in a URL's line; None if there is none."""
    if line["status"] == "saved":
        return line["row"]["image_id"] if line.get("row") else None
    if line["status"] not in ("duplicate_bytes", "placeholder"):
        return None
    # Lines of earlier versions have the id only in `detail`.
    found = re.match("[0-9a-f]{32}", str(line.get("image_id") or line.get("detail") or ""))
    return found.group() if found else None


def part_of(target: Path) -> Path:
    """Return the name that a file has until its line is on disk."""
    return target.with_name(f".{target.name}.part")


def read_lines(path: Path, *, repair: bool = False) -> list[dict[str, Any]]:
    """Return the lines of a urls.jsonl; an incomplete last line does not count, and `repair` removes it.

    Raises:
        InputError: a complete line is damaged; the message gives its number.
    """
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    if repair and len(complete) < len(data):
        os.truncate(path, len(complete))
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(complete.splitlines(), 1):
        try:
            lines.append(check_line(json.loads(text)))
        except (ValueError, RecursionError) as error:
            raise _damaged(path, number, error) from None
    return lines


def _damaged(path: Path, number: int, error: Exception) -> InputError:
    return InputError(f"{path} line {number} is damaged ({error}): repair or remove that line")


def check_line(line: object) -> dict[str, Any]:
    """Return a line of urls.jsonl after checking its shape.

    Raises:
        ValueError: it has another shape, or its row names a file outside data_raw.
    """
    if not isinstance(line, dict) or not all(isinstance(line.get(name), str) for name in ("url", "species", "status")):
        raise ValueError("it is not an object with the strings url, species and status")
    row = line.get("row")
    pages = (line.get("page"), row.get("source_page") if isinstance(row, dict) else None)
    if not all(isinstance(page, str | None) for page in pages):
        raise ValueError("its page is not a string")
    if row is None:
        return line
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("image_id", "species")):
        raise ValueError("its row is not an object with the strings image_id and species")
    path = row.get("path_raw")
    parts = PurePosixPath(path).parts if isinstance(path, str) and "\0" not in path else ()
    if len(parts) != 4 or parts[0] != RAW_FOLDER or ".." in parts or not re.fullmatch("[0-9a-f]{32}", row["image_id"]):
        raise ValueError("its row does not name an image in data_raw")
    return line


def append_line(path: Path, line: dict[str, Any], *, durable: bool) -> None:
    """Append one line; with `durable` it is on disk when this returns."""
    data = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
    with path.open("ab", buffering=0) as stream:
        before = stream.tell()
        if stream.write(data) < len(data):
            stream.truncate(before)  # a partial line would damage the next one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if durable:
            os.fsync(stream.fileno())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn a file system error into an error that ends the run, because the next image would fail too."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write in {folder}: {error.strerror}; fix that and run the same command again") from None


def _line(url: str, species: str, status: str, detail: str | None) -> dict[str, Any]:
    return {"url": url, "species": species, "status": status, "detail": detail, "ts": utc_now()}
