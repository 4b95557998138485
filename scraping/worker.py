"""What the threads do: bring the candidates of a species to their end until it has enough, many downloads at once."""

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

from pokefa.engine import Work, each
from pokefa.errors import BudgetReached, ImageError, Interrupted, RunError
from pokefa.formats import SUFFIXES
from pokefa.journal import utc_now
from pokefa.run import Row
from scraping.hosts import check_domain
from scraping.pool import DownloadPool
from scraping.records import Records
from scraping.sources import Candidate
from scraping.utils import Download, Limits, Picture, Refused, Species, clean_text, examine, host_of

if TYPE_CHECKING:
    from metadata.takedowns import TakenDown
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
    """What the threads of a run have in common; `taken_down` is None where nothing was taken down."""

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
        """Stop every thread; the first error is the one to tell."""
        if not self.stop.is_set():
            self.error = error
            self.stop.set()


@dataclass(frozen=True)
class Got:
    """An image that is on disk under a passing name, with what is known about it."""

    picture: Picture
    content_type: str | None
    size: int
    kept: Path


class GetImage:
    """What a thread of the download pool does: bring a candidate's bytes to the disk, if they are an image."""

    def __init__(self, shared: Shared, downloader: Downloader) -> None:
        self._shared = shared
        self._downloader = downloader

    def __call__(self, wanted: tuple[Species, Candidate]) -> Got:
        """Return what a candidate gives.

        Raises:
            Refused: it gives no image that is wanted.
            RunError: the image cannot be written.
            Interrupted: the run is to stop.
        """
        species, candidate = wanted
        limits = self._shared.limits
        check_domain(host_of(candidate.page), limits.excluded)  # the image's own host is for the download
        taken_down = self._shared.taken_down
        if taken_down is not None:
            check_address(candidate, taken_down)
        got = read_file(candidate.path, limits) if candidate.path else self._downloader.fetch(candidate.url)
        check_sum(got.data, candidate.image_id)
        picture = examine(got.data, limits)
        if taken_down is not None:
            check_picture(picture.image_id, got.data, taken_down)
        return Got(picture, got.content_type, len(got.data), self._shared.records.keep(species, got.data))


class ScrapeSpecies:
    """The worker: takes one species after the other, and of each only as many candidates as it takes.

    No more downloads are under way than images are still wanted. So nothing is fetched in vain, and what is tried is
    the same as if the candidates were tried one by one: the first ones, until enough of them were images. They are
    settled in their order too, so that of two addresses with the same bytes the first one counts.

    Args:
        shared: what the threads of the run have in common.
        downloads: the pool that all species share.
        ahead: candidates of one species that may be under way at once.
    """

    def __init__(self, shared: Shared, downloads: DownloadPool[tuple[Species, Candidate], Got], ahead: int) -> None:
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
        """Yield the candidates that the species has not dealt with before, until the run is to stop."""
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
            shared.budget_reached = error  # the other species may still use the pages that they have
        except RunError as error:
            shared.fail(error)

    def _begin(self, species: Species, candidate: Candidate) -> Future[Got]:
        owner = self._shared.records.owner(candidate.url)
        if owner != species.name:
            known: Future[Got] = Future()
            known.set_exception(Refused("duplicate_url", f"tried for {owner}"))
            return known
        return self._downloads.submit((species, candidate), None if candidate.path else host_of(candidate.url))

    def _settle(self, species: Species, candidate: Candidate, begun: Future[Got]) -> bool:
        """Bring a candidate to its end: an image with its row, or a line in urls.jsonl that says why not.

        Returns whether an image was saved. Raises as `GetImage` does, but for Refused.
        """
        shared = self._shared
        try:
            got = self._downloads.result(begun)
            image_id = got.picture.image_id
            owner = shared.records.claim_image(image_id, species.name)
            if owner is not None:
                got.kept.unlink()
                raise Refused("duplicate_bytes", f"{image_id} is stored for {owner}")
        except Refused as refusal:
            log.debug("%s: %s", candidate.url, refusal)
            shared.records.write(species, candidate.url, refusal.slug, clean_text(refusal.detail))
            shared.tried.put(Tried(refusal.slug))
            return False
        row = row_of(species, candidate, got) | {"scrape_run_id": shared.run_id}
        shared.records.save(species, candidate.url, got.kept, row)
        shared.tried.put(Tried("saved", row))
        return True


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
    if image_id is None:
        return
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != image_id:
        raise Refused("hash_mismatch", f"the bytes have MD5 {found}, not {image_id}")


def check_address(candidate: Candidate, taken_down: TakenDown) -> None:
    """Check that an image at an address was not taken down.

    Raises:
        Refused: it was.
    """
    if candidate.url in taken_down.addresses:
        raise Refused("taken_down_address", "the image at this address was taken down")


def check_picture(image_id: str, data: bytes, taken_down: TakenDown) -> None:
    """Check that an image is none that was taken down, nor looks like one.

    Raises:
        Refused: it is, or does, or cannot be hashed.
    """
    if image_id in taken_down.ids:
        raise Refused("taken_down_bytes", f"{image_id} was taken down")
    from metadata.takedowns import hash_picture

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
