"""The workers: process the candidates of a species with parallel downloads until it has enough images."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pokefa.engine.work import Work, each
from pokefa.errors import BudgetReached, ImageError, Interrupted, RunError
from pokefa.images.formats import SUFFIXES
from pokefa.ledger.journal import utc_now
from pokefa.ledger.table import KEY
from pokefa.machine import available_cores
from pokefa.stage.runner import Row
from pokefa.text import clean_text
from scraping.event_loop import Threads, WorkLoop
from scraping.folders import read_file
from scraping.hosts import check_domain
from scraping.records import PLACEHOLDER_PAGES, Records, page_of
from scraping.utils import Candidate, Download, ImageFacts, Limits, Refused, Species, examine, host_of

if TYPE_CHECKING:
    from pokefa.takedown.records import TakenDown
    from scraping.download import Downloader

WRITERS = 4  # threads for disk writes, in addition to one per core for decoding

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Job:
    """The candidates of one species, in order, and the number of images wanted."""

    species: Species
    wanted: int
    candidates: Callable[[], Iterable[Candidate]]


@dataclass(frozen=True)
class Tried:
    """The result for one candidate; `row` is the ledger row of a saved image."""

    status: str
    row: Row | None = None


class Shared:
    """The shared state of a run's threads; `taken_down` is None if nothing was taken down."""

    def __init__(
        self, root: Path, run_id: str, limits: Limits, records: Records, taken_down: TakenDown | None = None
    ) -> None:
        self.root = root
        self.run_id = run_id
        self.limits = limits
        self.records = records
        self.taken_down = taken_down
        self.tried: queue.SimpleQueue[Tried] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.budget_reached: BudgetReached | None = None
        self.error: RunError | None = None

    def fail(self, error: RunError) -> None:
        """Stop every thread, and keep the first error."""
        if not self.stop.is_set():
            self.error = error
            self.stop.set()


@dataclass(frozen=True)
class Got:
    """An image on disk under a temporary name, with known facts."""

    picture: ImageFacts
    content_type: str | None
    size: int
    kept: Path


class GetImage:
    """The work of the event loop: fetch a candidate and write it to disk, if it is an image."""

    def __init__(self, shared: Shared, downloader: Downloader) -> None:
        self._shared = shared
        self._downloader = downloader
        self._threads = Threads(available_cores() + WRITERS)

    async def __call__(self, wanted: tuple[Species, Candidate]) -> Got:
        """Return the image of a candidate.

        Raises:
            Refused: it is not an image, or not a wanted one.
            RunError: the image cannot be written.
        """
        species, candidate = wanted
        # The download checks the image's own host.
        check_domain(host_of(candidate.page), self._shared.limits.excluded)
        if self._shared.taken_down is not None:
            check_address(candidate, self._shared.taken_down)
        got = None if candidate.path is not None else await self._downloader.fetch(candidate.url)
        return await self._threads.run(self._keep, species, candidate, got)

    def _keep(self, species: Species, candidate: Candidate, got: Download | None) -> Got:
        """Examine the bytes of a candidate, and write them to disk."""
        limits, taken_down = self._shared.limits, self._shared.taken_down
        if got is None:
            assert candidate.path is not None
            got = Download(read_file(candidate.path, limits.max_bytes), None)
        check_sum(got.data, candidate.image_id)
        picture = examine(got.data, limits)
        if taken_down is not None:
            check_picture(picture.image_id, got.data, taken_down)
        return Got(picture, got.content_type, len(got.data), self._shared.records.keep(species, got.data))


Downloads = WorkLoop[tuple[Species, Candidate], Got]


class ScrapeSpecies:
    """The worker: processes one species after another, with only as many candidates as needed.

    Parallel downloads never exceed the number of images still wanted. So no download is wasted, and the candidates
    tried are the same as if they were tried one by one. Results are handled in order, so that of two URLs with the same
    bytes the first counts.

    Args:
        shared: the shared state of the run.
        downloads: the event loop that all species share.
        ahead: the largest number of parallel candidates of one species.
    """

    def __init__(self, shared: Shared, downloads: Downloads, ahead: int) -> None:
        self._shared = shared
        self._downloads = downloads
        self._ahead = ahead

    def __call__(self) -> Work[Job, int]:
        return each(self.scrape)

    def scrape(self, job: Job) -> int:
        """Return how many images were saved."""
        saved = 0
        candidates = self._unknown(job)
        begun: deque[tuple[Candidate, Future[Got]]] = deque()
        while True:
            while len(begun) < min(self._ahead, job.wanted - saved):
                candidate = next(candidates, None)  # which may cost another search
                if candidate is None:
                    break
                begun.append((candidate, self._begin(job.species, candidate)))
            if not begun:
                return saved
            try:
                saved += self._settle(job.species, *begun.popleft())
            except Interrupted:
                pass
            except RunError as error:
                self._shared.fail(error)

    def _unknown(self, job: Job) -> Iterator[Candidate]:
        """Yield the candidates that the species has not tried before, until the run is stopped."""
        shared = self._shared
        try:
            for candidate in job.candidates():
                if shared.stop.is_set():
                    return
                if shared.records.claim(candidate.url, job.species.name):
                    yield candidate
        except Interrupted:
            pass
        except BudgetReached as error:
            shared.budget_reached = error  # other species can still use stored pages
        except RunError as error:
            shared.fail(error)

    def _begin(self, species: Species, candidate: Candidate) -> Future[Got]:
        owner = self._shared.records.owner(candidate.url)
        refused = candidate.refused if owner == species.name else Refused("duplicate_url", f"tried for {owner}")
        if refused is not None:
            known: Future[Got] = Future()
            known.set_exception(refused)
            return known
        return self._downloads.submit((species, candidate))

    def _settle(self, species: Species, candidate: Candidate, begun: Future[Got]) -> bool:
        """Save a candidate's image and row, or record in urls.jsonl why there is none; return whether it was saved.

        Raises as `GetImage`, except Refused.
        """
        shared = self._shared
        facts: dict[str, str | None] = {}
        try:
            got = self._downloads.result(begun)
            image_id = got.picture.image_id
            page = page_of(candidate.page, candidate.url)
            owner = shared.records.claim_image(image_id, species.name, page)
            if owner is not None:
                got.kept.unlink()
                facts = {KEY: image_id, "page": candidate.page}
                raise known_bytes(image_id, owner, shared.records.pages_of(image_id))
        except Refused as refusal:
            log.debug("%s: %s", candidate.url, refusal)
            shared.records.write(species, candidate.url, refusal.slug, clean_text(refusal.detail), **facts)
            shared.tried.put(Tried(refusal.slug))
            return False
        row = row_of(species, candidate, got) | {"scrape_run_id": shared.run_id}
        shared.records.save(species, candidate.url, got.kept, row)
        shared.tried.put(Tried("saved", row))
        return True


def known_bytes(image_id: str, owner: str, pages: int) -> Refused:
    """Return the refusal of bytes that are stored already; `pages` is the number of pages that show them."""
    if pages >= PLACEHOLDER_PAGES:
        return Refused("placeholder", f"{image_id} has come from {pages} pages")
    return Refused("duplicate_bytes", f"{image_id} is stored for {owner}")


def check_sum(data: bytes, image_id: str | None) -> None:
    """Check bytes against the MD5 in a list of URLs.

    Raises:
        Refused: they differ.
    """
    if image_id is None:
        return
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != image_id:
        raise Refused("hash_mismatch", f"the bytes have MD5 {found}, not {image_id}")


def check_address(candidate: Candidate, taken_down: TakenDown) -> None:
    """Check that the image at a URL was not taken down.

    Raises:
        Refused: it was.
    """
    if candidate.url in taken_down.addresses:
        raise Refused("taken_down_address", "the image at this URL was taken down")


def check_picture(image_id: str, data: bytes, taken_down: TakenDown) -> None:
    """Check that an image was not taken down, and is not similar to one that was.

    Raises:
        Refused: it was, or is similar, or cannot be hashed.
    """
    if image_id in taken_down.ids:
        raise Refused("taken_down_bytes", f"{image_id} was taken down")
    from pokefa.takedown.records import hash_picture

    try:
        hashed = hash_picture(data)
    except ImageError as error:
        raise Refused(error.slug, error.detail) from None
    near = taken_down.nearest(hashed) if hashed is not None else None
    if near is not None:
        raise Refused("taken_down_picture", f"its hash is {near[1]} bits from that of {near[0]}, which was taken down")


def row_of(species: Species, candidate: Candidate, got: Got) -> Row:
    """Return the ledger row of an image, apart from the run's id."""
    picture = got.picture
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
        "bytes": got.size,
        "content_type": clean_text(got.content_type),
        "ts": utc_now(),
    }
