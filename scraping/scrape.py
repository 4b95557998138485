"""Stage 1: find images of every species and download them, up to its quota.

Reads   quotas/quotas.csv: rank, name, band, quota; files of earlier runs
Writes  images.csv: one row for each image: image_id, sha256, species, … scrape_run_id
        data_raw/<band>/<rank>_<name>/<image_id>.<ext>: the file, byte for byte as on the server
        data_raw/<band>/<rank>_<name>/urls.jsonl: the result for every URL
        data_raw/serpapi/: every paid search; no search is paid for twice

Images that metadata/takedown.py took down do not come back. Their bytes and URLs are refused, and so are images whose
perceptual hash differs from theirs in at most --takedown-threshold of 64 bits.

Searches use SERPAPI_BASE_URL (https://serpapi.com) and the key in SERPAPI_API_KEY. Images can also come from a folder
whose sub-folders name the species, or from a list of URLs such as a published base.csv, without a search or a quota. No
URL is tried twice without --retry-errors.

The same bytes from 5 or more pages are a placeholder ("image removed"). The image stays on disk and in the ledger, with
drop_reason scrape:placeholder and a row in drops.csv, but later stages ignore it. --keep-placeholder restores it.

    python scraping/scrape.py --contact you@example.org
    python scraping/scrape.py --species Umbreon Mimikyu --limit 20 --max-searches 2
    python scraping/scrape.py --root my-dataset --from-folder pictures
    python scraping/scrape.py --root my-dataset --from-urls base.csv
"""

from __future__ import annotations

import argparse
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pokefa.engine.local import run_batches
from pokefa.engine.work import Pool
from pokefa.errors import PokefaError
from pokefa.ledger.table import KEY
from pokefa.stage.options import stage_parser
from pokefa.stage.runner import StageRun, run_stage
from pokefa.takedown.records import read_taken_down
from scraping.event_loop import WorkLoop
from scraping.folders import files_as_candidates, from_folder
from scraping.hosts import Hosts, read_domains
from scraping.placeholders import SET_ASIDE, keep_placeholders, set_aside_placeholders
from scraping.records import DECISIONS, Records, page_of
from scraping.settings import QUERY, SEARCH_FLAGS, Settings, add_arguments
from scraping.sources import Search, from_urls, searched
from scraping.utils import Limits, SpeciesIndex, read_quotas
from scraping.worker import Downloads, GetImage, Job, ScrapeSpecies, Shared, Tried

if TYPE_CHECKING:
    from scraping.serpapi_client import SearchClient

QUOTAS_FILE = "quotas/quotas.csv"
GRACE_S = 15.0  # for downloads in progress at a stop

log = logging.getLogger("pokefa")


def scrape(run: StageRun, settings: Settings) -> None:
    """Get images for every species that needs some.

    Raises:
        InputError: the settings or their files are wrong.
        BudgetReached: no paid searches are left.
    """
    if settings.keep_placeholders:
        keep_placeholders(run, settings.keep_placeholders)
        return
    index = SpeciesIndex(read_quotas(settings.quotas or run.root / QUOTAS_FILE))
    limits = replace(settings.limits, excluded=read_domains(settings.excluded) if settings.excluded else frozenset())
    table = run.table()
    # Placeholders do not count towards the quota.
    saved = Counter(table.filter(pl.col("drop_reason").ne_missing(SET_ASIDE))["species"])
    if run.options.dry_run:
        jobs = plan_jobs(settings, index, saved, None, run.options.limit)
        run.extra["wanted"] = sum(job.wanted for job in jobs)
        log.info("dry run: would look for up to %d images of %d species", run.extra["wanted"], len(jobs))
        return
    records = read_records(run.root, table, retry=run.options.retry_errors)
    taken_down = read_taken_down(run.root, table, settings.takedown_threshold)
    shared = Shared(run.root, run.run_id, limits, records, taken_down)
    for row in records.recover():
        record(run, Tried("adopted", row))
        saved[str(row["species"])] += 1
    try:
        work_through(run, shared, settings, index, saved)
    finally:
        set_aside_placeholders(run, records)
    if records.failed_before:
        tried = len(records.failed_before)
        log.info("%d URLs were tried before and not saved: use --retry-errors to try them again", tried)


def read_records(root: Path, table: pl.DataFrame, *, retry: bool) -> Records:
    """Return the records of the ledger's images."""
    rows = list(table.select(KEY, "species", "source_page", "source_url").iter_rows())
    pages = {image_id: page_of(page, url) for image_id, _, page, url in rows if url is not None}
    return Records(
        root,
        {image_id: species for image_id, species, *_ in rows},
        {image_id: page for image_id, page in pages.items() if page is not None},
        retry=retry,
    )


def work_through(run: StageRun, shared: Shared, settings: Settings, index: SpeciesIndex, saved: Counter[str]) -> None:
    """Work through the jobs; `saved` counts the images of each species."""
    from scraping.download import Downloader, user_agent
    from scraping.public_addresses import any_address, is_public

    downloader = Downloader(
        shared.limits,
        user_agent(settings.contact),
        Hosts(settings.per_host, settings.concurrency),
        allowed=any_address if settings.allow_private else is_public,
    )
    downloads: Downloads = WorkLoop(GetImage(shared, downloader), downloader, shared.stop)
    client = search_client(run, settings, shared) if settings.searches else None
    jobs = plan_jobs(settings, index, saved, client, run.options.limit)
    try:
        with downloads:
            # Twice as many candidates as parallel downloads, so that a slow one does not leave threads idle.
            ahead = 2 * settings.concurrency // max(1, min(len(jobs), settings.workers))
            short = map_jobs(run, shared, ScrapeSpecies(shared, downloads, max(1, ahead)), jobs, settings.workers)
    finally:
        if client is not None:
            account = client.account() if client.paid else None
            left = account.left if account is not None else None
            run.extra["searches"] = {"paid": client.paid, "reused": client.reused, "left": left}
    run.check_stop()
    reason = shared.error or shared.budget_reached
    if reason is not None:
        raise reason
    if settings.searches:
        run.extra["species_short"] = short


def search_client(run: StageRun, settings: Settings, shared: Shared) -> SearchClient:
    """Return the client of the image search."""
    from scraping.serpapi_client import BASE_URL, SEARCHES_FOLDER, SearchClient

    return SearchClient(
        run.root / SEARCHES_FOLDER,
        os.environ.get("SERPAPI_BASE_URL") or BASE_URL,
        parameters=settings.search_parameters,
        most=settings.max_searches,
        stop=shared.stop,
    )


def plan_jobs(
    settings: Settings, index: SpeciesIndex, saved: Counter[str], search: Search | None, limit: int | None
) -> list[Job]:
    """Return the job of each species, most popular first, for at most `limit` images in total.

    Without `search`, the jobs of a search can be counted but not run.

    Raises:
        InputError: a species or a file is wrong.
    """
    chosen = {index.require(name, "--species") for name in settings.species} or set(index.species)
    if settings.folder is not None:
        files = from_folder(settings.folder, settings.labels, index)
        jobs = [
            Job(one, len(these), partial(files_as_candidates, these, settings.limits.max_bytes))
            for one, these in files.items()
        ]
    elif settings.urls is not None:
        listed = from_urls(settings.urls, index)
        jobs = [Job(one, len(these), partial(iter, these)) for one, these in listed.items()]
    else:
        jobs = [
            Job(one, one.quota - saved[one.name], partial(searched, one, search, settings.queries, settings.max_pages))
            for one in index.species
        ]
    jobs = [job for job in jobs if job.species in chosen and job.wanted > 0]
    jobs.sort(key=lambda job: job.species.rank)
    return jobs if limit is None else limit_jobs(jobs, limit)


def limit_jobs(jobs: Iterable[Job], limit: int) -> list[Job]:
    """Return the first jobs, limited to `limit` images in total."""
    limited: list[Job] = []
    for job in jobs:
        wanted = min(job.wanted, limit)
        if wanted:
            limited.append(replace(job, wanted=wanted))
        limit -= wanted
    return limited


def map_jobs(run: StageRun, shared: Shared, worker: ScrapeSpecies, jobs: Sequence[Job], workers: int) -> int:
    """Work through the jobs, `workers` species at once, and return how many got fewer images than wanted.

    Only this thread records rows. It does so a few times per second, when the engine polls the stop flag.

    Raises:
        PokefaError: a species failed unexpectedly; the others were finished.
    """
    failures: list[str] = []
    short = 0
    with run.progress(sum(job.wanted for job in jobs)) as advance:

        def record_tried() -> bool:
            while not shared.tried.empty():
                tried = shared.tried.get()
                record(run, tried)
                if tried.row is not None:
                    advance()
            if run.stop_asked():
                shared.stop.set()
            return shared.stop.is_set()

        pool = Pool("thread", workers, queued=1, grace=GRACE_S)
        try:
            for outcome in run_batches(worker, jobs, pool, record_tried):
                name, wanted = outcome.item.species.name, outcome.item.wanted
                if outcome.error is not None:
                    log.error("%s: %s", name, outcome.error)
                    failures.append(f"{name}: {outcome.error}")
                elif (outcome.result or 0) < wanted and not shared.stop.is_set():
                    short += 1
                    log.info("%s: %d of %d wanted images", name, outcome.result, wanted)
        finally:
            shared.stop.set()  # for threads that are still running
            record_tried()
    if failures:
        raise PokefaError(f"{len(failures)} species failed, the first is {failures[0]}")
    return short


def record(run: StageRun, tried: Tried) -> None:
    """Count one candidate, and journal its row if it was saved."""
    run.seen += 1
    if tried.row is not None:
        run.record_row(tried.row, reason=tried.status)
        return
    run.counts[tried.status] += 1
    run.errors += tried.status not in DECISIONS


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.labels is not None and args.from_folder is None:
        parser.error("--labels needs --from-folder")
    if args.limit is not None and (args.from_folder or args.from_urls):
        parser.error("--limit applies to the search only: shorten the folder or the list instead")
    settings = Settings(
        quotas=args.quotas,
        species=tuple(args.species),
        folder=args.from_folder,
        labels=args.labels,
        urls=args.from_urls,
        keep_placeholders=tuple(args.keep_placeholder),
        queries=tuple(args.query or [QUERY]),
        search_parameters={name: getattr(args, name) for name in SEARCH_FLAGS if getattr(args, name) is not None},
        max_searches=args.max_searches,
        max_pages=args.max_pages,
        limits=Limits(
            max_bytes=args.max_bytes,
            max_pixels=args.max_pixels,
            min_side=args.min_side,
            max_aspect=args.max_aspect,
            deadline=args.deadline,
            ignore_opt_out=args.ignore_opt_out,
            check=args.check,
        ),
        excluded=args.exclude_domains,
        workers=args.workers,
        concurrency=args.concurrency,
        per_host=args.per_host,
        allow_private=args.allow_private,
        contact=args.contact,
        takedown_threshold=args.takedown_threshold,
    )
    return run_stage("scrape", args, lambda run: scrape(run, settings), create=True)


if __name__ == "__main__":
    raise SystemExit(main())
