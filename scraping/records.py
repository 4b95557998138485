"""The record of every address that was tried, and the saving of images so that a killed run loses none.

Each species' folder holds `urls.jsonl`, one line for each address that was decided on:

    {"url": "…", "species": "Umbreon", "status": "http_404", "detail": "Not Found", "ts": "…"}
    {"url": "…", "species": "Umbreon", "status": "saved", "detail": null, "ts": "…", "row": {"image_id": "…", …}}
    {"url": "…", "species": "Umbreon", "status": "duplicate_bytes", …, "image_id": "…", "page": "…"}

Statuses that a rule decided: saved, duplicate_url, duplicate_bytes, placeholder, taken_down_address, taken_down_bytes,
taken_down_picture, opted_out, excluded_domain, outside_folder, not_a_file, blocked_address, blocked_scheme, too_small,
bad_aspect, too_many_bytes, too_many_pixels, too_many_scans, too_many_segments, too_many_chunks. Failures: http_<code>,
dns_failed, connection_failed, tls_failed, timeout, host_busy, too_many_redirects, invalid_url, unsupported_encoding,
truncated, empty_file, not_an_image, unsupported_format, decode_timeout, decode_memory, decode_crash, hash_mismatch,
missing_file.

The line of a saved image holds its ledger row and reaches the disk before the file gets its name. So a run that is
killed at any moment leaves no image that the next one could not give a row to, see `Records.recover`.
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

# What a rule decided, not what failed: neither an error in the summary nor a reason for --strict to complain.
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
# Trying these again could bring nothing new.
FINAL = frozenset(
    {"saved", "duplicate_url", "duplicate_bytes", "placeholder", "taken_down_address", "taken_down_bytes"}
)

# The same bytes on so many pages are no picture of any of them, but what a host sends in the place of one that is gone.
PLACEHOLDER_PAGES = 5


class Records:
    """Every address tried and every image stored so far, over all species; threads may share it."""

    def __init__(
        self, root: Path, images: Mapping[str, str], pages: Mapping[str, str] | None = None, *, retry: bool = False
    ) -> None:
        """Start with the ledger's images.

        Args:
            images: {image_id: species}.
            pages: {image_id: page that it came from, or its address}; of a user's file there is none.
            retry: give what was not saved a new try.
        """
        self._root = root
        self._retry = retry
        self.failed_before: set[str] = set()  # addresses passed over in this run because an earlier one got nothing
        self._lock = threading.Lock()
        self._images = dict(images)
        self._first_pages = dict(pages or {})
        self._other_pages: defaultdict[str, set[str]] = defaultdict(set)
        self._statuses: dict[tuple[str, str], str] = {}
        self._owners: dict[str, str] = {}
        self._claimed: set[tuple[str, str]] = set()
        self._passing = itertools.count(1)

    def recover(self) -> Iterator[Row]:
        """Read every urls.jsonl, mend what a killed run left, and yield the ledger rows that it could not write.

        Raises:
            InputError: a line is damaged.
            RunError: a file cannot be mended.
        """
        raw = self._root / RAW_FOLDER
        try:
            for path in sorted(raw.glob(f"*/*/{URLS_FILE}")):
                yield from self._recover_folder(path)
            # What has no line was not finished: parts of images, and of searches that were being stored.
            for leftover in (*raw.glob("*/*/.*.part"), *raw.glob("*/*/.*.tmp"), *raw.glob("*/.*.tmp")):
                leftover.unlink()
        except OSError as error:
            raise RunError(f"cannot mend {error.filename}: {error.strerror}") from None

    def claim(self, url: str, species: str) -> bool:
        """Tell whether a species has yet to deal with an address, which is true once in a run.

        Whoever claims an address first is its `owner` and may try it.
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
        """Return the species that claimed an address first."""
        return self._owners[url]

    def claim_image(self, image_id: str, species: str, page: str | None) -> str | None:
        """Reserve an image that a page showed for a species; return None, or who has it already."""
        with self._lock:
            self._saw(image_id, page)
            if image_id in self._images:
                return self._images[image_id]
            self._images[image_id] = species
            return None

    def pages_of(self, image_id: str) -> int:
        """Return from how many different pages an image has come, over all species and runs."""
        with self._lock:
            return len({*self._other_pages.get(image_id, ()), *filter(None, [self._first_pages.get(image_id)])})

    def placeholders(self) -> dict[str, int]:
        """Return the images that have come from PLACEHOLDER_PAGES or more, and from how many."""
        counts = {image_id: self.pages_of(image_id) for image_id in list(self._other_pages)}
        return {image_id: pages for image_id, pages in counts.items() if pages >= PLACEHOLDER_PAGES}

    def write(self, species: Species, url: str, status: str, detail: str | None = None, **facts: str | None) -> None:
        """Append the line of an address that was not saved; `facts` are more of its keys.

        Raises:
            RunError: it cannot be written.
        """
        folder = self._root / species.folder
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            append_line(folder / URLS_FILE, _line(url, species.name, status, detail) | facts, durable=False)

    def keep(self, species: Species, data: bytes) -> Path:
        """Bring bytes to the disk under a passing name and return it; `save` gives them their own.

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
        """Store what `keep` has kept under its row's `path_raw`, with its line: file, line, name, in this order.

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
        for number, line in enumerate(read_lines(path, mend=True), 1):
            # Earlier versions stored long addresses whole.
            url, species, status = stored_address(line["url"]), line["species"], line["status"]
            row: Row | None = line.get("row")
            if row is not None and str(row["image_id"]) not in self._images:
                target = self._root / str(row["path_raw"])
                temporary = part_of(target)
                if not target.exists() and temporary.exists():
                    temporary.replace(target)
                if not target.exists():
                    continue  # neither a row nor bytes: the address is free to be tried again
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
    """Return the page that showed an image, or its address where no page is known; None for a user's own file."""
    return None if url.startswith("file:") else page or url


def image_of(line: dict[str, Any]) -> str | None:
    """Return the id of the image that an address gave, as its line tells it; None where it gave none."""
    if line["status"] == "saved":
        return line["row"]["image_id"] if line.get("row") else None
    if line["status"] not in ("duplicate_bytes", "placeholder"):
        return None
    # Lines of earlier versions have the id in their detail alone.
    found = re.match("[0-9a-f]{32}", str(line.get("image_id") or line.get("detail") or ""))
    return found.group() if found else None


def part_of(target: Path) -> Path:
    """Return the name that a file has until its line is on disk."""
    return target.with_name(f".{target.name}.part")


def read_lines(path: Path, *, mend: bool = False) -> list[dict[str, Any]]:
    """Return the lines of a urls.jsonl; a last line without its end never counted, and with `mend` is cut off.

    Raises:
        InputError: a whole line is not one that this module writes; the message gives its number.
    """
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if mend and len(whole) < len(data):
        os.truncate(path, len(whole))
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            lines.append(check_line(json.loads(text)))
        except (ValueError, RecursionError) as error:
            raise _damaged(path, number, error) from None
    return lines


def _damaged(path: Path, number: int, error: Exception) -> InputError:
    return InputError(f"{path} line {number} is damaged ({error}): repair or remove that line")


def check_line(line: object) -> dict[str, Any]:
    """Return a line of urls.jsonl.

    Raises:
        ValueError: it is of another shape, or its row names a file elsewhere than in data_raw.
    """
    if not isinstance(line, dict) or not all(isinstance(line.get(name), str) for name in ("url", "species", "status")):
        raise ValueError("it is no object with the texts url, species and status")
    row = line.get("row")
    pages = (line.get("page"), row.get("source_page") if isinstance(row, dict) else None)
    if not all(isinstance(page, str | None) for page in pages):
        raise ValueError("its page is no text")
    if row is None:
        return line
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("image_id", "species")):
        raise ValueError("its row is no object with the texts image_id and species")
    path = row.get("path_raw")
    parts = PurePosixPath(path).parts if isinstance(path, str) and "\0" not in path else ()
    if len(parts) != 4 or parts[0] != RAW_FOLDER or ".." in parts or not re.fullmatch("[0-9a-f]{32}", row["image_id"]):
        raise ValueError("its row names no image of data_raw")
    return line


def append_line(path: Path, line: dict[str, Any], *, durable: bool) -> None:
    """Append one line; with `durable` it is on disk when this returns."""
    data = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
    with path.open("ab", buffering=0) as stream:
        before = stream.tell()
        if stream.write(data) < len(data):
            stream.truncate(before)  # half a line would spoil the next one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if durable:
            os.fsync(stream.fileno())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Let an error of the file system end the run: the next image could not be written either."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write in {folder}: {error.strerror}; mend that and run the same command again"
        ) from None


def _line(url: str, species: str, status: str, detail: str | None) -> dict[str, Any]:
    return {"url": url, "species": species, "status": status, "detail": detail, "ts": utc_now()}
