"""What one thread does: bring the candidates of a species to their end, one after the other, until it has enough."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pokefa.engine import Work, each
from pokefa.errors import BudgetReached, Interrupted, RunError
from pokefa.images import SUFFIXES
from pokefa.journal import utc_now
from pokefa.run import Row
from scraping.hosts import check_domain
from scraping.records import Records
from scraping.sources import Candidate
from scraping.utils import Download, Limits, Picture, Refused, Species, clean_text, examine, host_of

if TYPE_CHECKING:
    from scraping.download import Downloader

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Job:
    """The candidates of one species, in order, and how many images are wanted of them."""

    species: Species
    wanted: int
    candidates: Callable[[], Iterable[Candidate]]


@dataclass(frozen=True)
class Tried:
    """What became of one candidate; `row` is the ledger row of a saved image."""

    status: str
    row: Row | None = None


class Shared:
    """What the threads of a run have in common."""

    def __init__(self, root: Path, run_id: str, limits: Limits, records: Records) -> None:
        self.root = root
        self.run_id = run_id
        self.limits = limits
        self.records = records
        self.tried: queue.SimpleQueue[Tried] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.budget_reached: BudgetReached | None = None
        self.error: RunError | None = None

    def fail(self, error: RunError) -> None:
        """Stop every thread; the first error is the one to tell."""
        if not self.stop.is_set():
            self.error = error
            self.stop.set()


@dataclass(frozen=True)
class ScrapeSpecies:
    """The worker: takes one species after the other, and the candidates of each in order until it has enough."""

    shared: Shared
    new_downloader: Callable[[], Downloader]

    def __call__(self) -> Work[Job, int]:
        downloader = self.new_downloader()
        return each(lambda job: self.scrape(job, downloader))

    def scrape(self, job: Job, downloader: Downloader) -> int:
        """Return how many images were saved."""
        shared, saved = self.shared, 0
        if shared.stop.is_set():
            return 0
        try:
            for candidate in job.candidates():
                if shared.stop.is_set():
                    break
                tried = self.settle(job.species, candidate, downloader)
                if tried is None:
                    continue
                shared.tried.put(tried)
                saved += tried.row is not None
                if saved == job.wanted:
                    break  # before the next candidate, which may cost another search
        except Interrupted:
            pass
        except BudgetReached as error:
            shared.budget_reached = error  # the other species may still use the pages that they have
        except RunError as error:
            shared.fail(error)
        return saved

    def settle(self, species: Species, candidate: Candidate, downloader: Downloader) -> Tried | None:
        """Bring a candidate to its end: an image with its row, or a line in urls.jsonl that says why not.

        Returns None for an address that the species has dealt with before.
        """
        shared = self.shared
        claim = shared.records.claim(candidate.url, species.name)
        if claim == "known":
            return None
        try:
            if claim == "elsewhere":
                raise Refused("duplicate_url", f"tried for {shared.records.owner(candidate.url)}")
            check_domain(host_of(candidate.page), shared.limits.excluded)  # the image's own host is for the download
            got = read_file(candidate.path, shared.limits) if candidate.path else downloader.fetch(candidate.url)
            check_sum(got.data, candidate.image_id)
            picture = examine(got.data, shared.limits)
            owner = shared.records.claim_image(picture.image_id, species.name)
            if owner is not None:
                raise Refused("duplicate_bytes", f"{picture.image_id} is stored for {owner}")
        except Refused as refusal:
            log.debug("%s: %s", candidate.url, refusal)
            shared.records.write(species, candidate.url, refusal.slug, clean_text(refusal.detail))
            return Tried(refusal.slug)
        row = row_of(species, candidate, got, picture) | {"scrape_run_id": shared.run_id}
        shared.records.save(species, candidate.url, got.data, row)
        return Tried("saved", row)


def read_file(path: Path, limits: Limits) -> Download:
    """Return the bytes of a user's file.

    Raises:
        Refused: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limits.max_bytes + 1)
    except OSError as error:
        raise Refused("missing_file", error.strerror or "it cannot be read") from None
    if len(data) > limits.max_bytes:
        raise Refused("too_many_bytes", f"over {limits.max_bytes} bytes")
    return Download(data, None)


def check_sum(data: bytes, image_id: str | None) -> None:
    """Check bytes against the MD5 that a list of addresses gives for them.

    Raises:
        Refused: they are others.
    """
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if image_id is not None and found != image_id:
        raise Refused("hash_mismatch", f"the bytes have MD5 {found}, not {image_id}")


def row_of(species: Species, candidate: Candidate, got: Download, picture: Picture) -> Row:
    """Return the ledger row of an image, apart from the run's id."""
    return {
        "image_id": picture.image_id,
        "sha256": picture.sha256,
        "species": species.name,
        "rank": species.rank,
        "band": species.band,
        "query": candidate.query,
        "source_url": candidate.url,
        "source_page": candidate.page,
        "source_domain": candidate.domain,
        "title": candidate.title,
        "path_raw": f"{species.folder}/{picture.image_id}.{SUFFIXES[picture.fmt]}",
        "fmt": picture.fmt,
        "w": picture.w,
        "h": picture.h,
        "bytes": len(got.data),
        "content_type": clean_text(got.content_type),
        "ts": utc_now(),
    }
