"""Remove images from the dataset at an artist's request.

Without --apply it only shows what would be removed. With --apply, it removes the images from data_raw, data_stage and
data_clean, the generated pages that show them, the stored answers about them, and requests about them that wait in a
batch. It rewrites base.csv, the manifests and the shards that contained them. The rows stay, marked with the reason,
and a record is written. A later scrape recognises the images by their bytes, URL or perceptual hash, and refuses them.
`metadata/verify.py` then proves that nothing is left under --root; for images elsewhere, give the stages' --data-root.
The next run completes a killed one, whichever images it names.

Reads   images.csv, base.csv, the run journals, the data folders, webdataset/, metadata/answers.sqlite and batches/
Writes  images.csv: drop_reason; base.csv; drops.csv; webdataset/; metadata/takedowns/<run_id>.json

    python metadata/takedown.py --artist-page https://example.com/people/someone --reason "the artist asked"
    python metadata/takedown.py --domain example.com --reason "the artist asked" --apply
    python metadata/takedown.py --root my-dataset --id 3f2a 77c0 --reason copyright --apply
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from pokefa.console import show
from pokefa.errors import ImageError, InputError
from pokefa.images.phash import Hash
from pokefa.ledger.columns import TAKEN_DOWN
from pokefa.ledger.journal import utc_now
from pokefa.ledger.runs import read_runs, setting_of_last
from pokefa.ledger.table import KEY
from pokefa.ledger.tables import TAKEDOWNS_FOLDER
from pokefa.shards.card import CARD
from pokefa.shards.layout import listed_ids
from pokefa.shards.publish import finish
from pokefa.stage.options import add_data_option, stage_parser
from pokefa.stage.rows import find_ids
from pokefa.stage.runner import StageRun, run_stage
from pokefa.takedown.addresses import Address, plain_host, read_address, read_typed
from pokefa.takedown.find import find_traces, near_copies, remove_traces
from pokefa.takedown.records import Record, hash_picture, read_records, require_libraries

# The filter's column still says that the images are kept, and others may now take their places. A duplicate that was
# removed in favour of a taken-down image may enter the set, and then needs every later stage.
RUN_AGAIN = ("filter",)
RUN_AGAIN_WITH_COPIES = (
    *("rm_dups", "filter", "sentence_tags", "cap_filter"),
    *("hybrid_captions", "species", "split", "webdataset"),
)


@dataclass(frozen=True)
class Source:
    """The source of an image: its URL and that of its page, and the hosts of both."""

    addresses: tuple[Address, ...]
    hosts: tuple[str, ...]


Matching = Callable[[Source], bool]


@dataclass(frozen=True)
class Request:
    """A takedown request: images by id, by URL of image or page, by host or by artist's page; and the reason."""

    reason: str
    ids: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    artist_pages: tuple[str, ...] = ()
    apply: bool = False

    def as_record(self) -> dict[str, list[str]]:
        """Return the request for the record."""
        named = {"id": self.ids, "url": self.urls, "domain": self.domains, "artist_page": self.artist_pages}
        return {name: list(values) for name, values in named.items() if values}


# -- which images -----------------------------------------------------------------------------------------------------


def find_images(images: pl.DataFrame, request: Request) -> list[str]:
    """Return the ids of the images in a request, in the ledger's order.

    Raises:
        InputError: a name matches no image, or is a page instead of a host.
    """
    wanted, unknown = find_ids(request.ids, images[KEY].to_list())
    missing = [f"id {name}" for name in unknown]
    chosen = set(wanted)
    by_source = request.urls or request.domains or request.artist_pages
    rows = images.select(KEY, "source_url", "source_page", "source_domain").rows() if by_source else []
    sources = {image_id: source_of(*texts) for image_id, *texts in rows}
    sorts: list[tuple[str, tuple[str, ...], Callable[[str], Matching]]] = [
        ("url", request.urls, _is_at),
        ("domain", request.domains, _is_on_host),
        ("artist page", request.artist_pages, _is_under_page),
    ]
    for name, values, matching in sorts:
        for value in values:
            matches = matching(value)
            found = {image_id for image_id, source in sources.items() if matches(source)}
            missing += [] if found else [f"{name} {value}"]
            chosen |= found
    if missing:
        raise InputError(f"no image has {', '.join(missing)}; nothing was changed: correct or remove these names")
    return [image_id for image_id in images[KEY] if image_id in chosen]


def source_of(url: str | None, page: str | None, domain: str | None) -> Source:
    found = [address for address in (read_address(url), read_address(page)) if address is not None]
    return Source(tuple(found), tuple({plain_host(domain or ""), *(address.host for address in found)}))


def _is_at(url: str) -> Matching:
    """Return a test for images at a URL or on a page."""
    wanted = read_typed(url)
    return lambda source: wanted in source.addresses


def _is_on_host(domain: str) -> Matching:
    """Return a test for images from a host or its sub-domains.

    Raises:
        InputError: a page was given instead of a host.
    """
    wanted = read_typed(domain)
    if wanted is None or not wanted.host:
        return lambda source: False
    if not wanted.is_host:
        raise InputError(f"--domain {domain} is a page: give only the host, or use --artist-page")
    host = wanted.host
    return lambda source: any(name == host or name.endswith(f".{host}") for name in source.hosts)


def _is_under_page(page: str) -> Matching:
    """Return a test for images on a page or on pages under it."""
    wanted = read_typed(page)
    return lambda source: wanted is not None and any(address.is_under(wanted) for address in source.addresses)


def slug_of(reason: str) -> str:
    """Return a reason as a slug: `The artist asked!` is `the_artist_asked`.

    Raises:
        InputError: the reason contains no letter or digit.
    """
    slug = re.sub(r"[\W_]+", "_", reason.lower()).strip("_")
    if not slug:
        raise InputError(f"--reason {reason!r} has no letters or digits: write why the images are removed")
    return slug


# -- taking them down -------------------------------------------------------------------------------------------------


def take_down(run: StageRun, request: Request) -> None:
    """Mark the requested images and remove all traces of them; without `apply`, show what would be removed.

    Raises:
        InputError: a name matches no image, the reason is empty, or a file is damaged.
    """
    slug_of(request.reason)
    images = run.table()
    base = run.ledger.base.read_keyed()
    records = read_records(run.root)
    unfinished = [record for record in records if record.finished is None]
    reasons = {image_id: record.reason for record in unfinished for image_id in record.image_ids}
    chosen = find_images(images, request)
    chosen += [image_id for image_id in images[KEY] if image_id in reasons and image_id not in chosen]
    gone = set(images.filter(TAKEN_DOWN)[KEY])
    addresses = dict(images.select(KEY, "source_url").iter_rows())
    run.seen = len(chosen)
    show(
        f"{image_id}  {addresses[image_id] or 'no URL'}{'  (already marked)' if image_id in gone else ''}"
        for image_id in chosen
    )
    copies = near_copies(images, chosen)
    if copies:
        show(
            [
                "Copies from elsewhere stay, and the next rm_dups.py and filter.py may select them. "
                f"To take them down too, add them to --id: {' '.join(copies)}"
            ]
        )
    apply = request.apply and not run.options.dry_run
    if apply:
        finish(run.root)  # what a run had decided that was killed while it rewrote the shards
    in_split = len({image_id for ids in listed_ids(run.root).values() for image_id in ids} & set(chosen))
    traces = find_traces(run.root, run.data, images, chosen)
    lost = [image_id for image_id in chosen if image_id not in gone and image_id not in traces.with_files]
    elsewhere = setting_of_last(read_runs(run.root), "data_root") if lost and run.options.data_root is None else None
    if apply and elsewhere is not None:
        raise InputError(
            f"{len(lost)} of the images have no file here, and earlier runs used --data-root {elsewhere}: add it; "
            "nothing was changed"
        )
    if lost:
        show([f"{len(lost)} of them have no file here: if the images are stored elsewhere, add --data-root."])
    if apply:
        known = {image_id for record in records for image_id in record.image_ids}
        new = describe_images(run, images, [image_id for image_id in chosen if image_id not in known])
        if new:
            told = traces.told(run.root)
            record = Record(run.run_id, utc_now(), request.reason, request.as_record(), tuple(new), told)
            record.write(run.root)
            unfinished.append(record)
        mark(run, {each: reasons.get(each, request.reason) for each in chosen if each not in gone})
        leave_base(run, base, set(chosen))
        remove_traces(run.root, traces, base)
        for record in unfinished:
            replace(record, finished=utc_now()).write(run.root)
    show(traces.lines(run.root, would=not apply))
    if not apply:
        show(["Nothing was changed: add --apply to take them down."])
    elif request.domains or request.artist_pages:
        show(["Other images from there may be scraped again: list the host for scrape.py --exclude-domains."])
    again = RUN_AGAIN_WITH_COPIES if copies else RUN_AGAIN
    run.extra = {
        "applied": apply,
        "files": len(traces.files) + len(traces.elsewhere),
        "pages": [path.relative_to(run.root).as_posix() for path in traces.pages],
        "rewritten": traces.withdrawal.paths,
        "answers": traces.answers,
        "batches": [one.record.name for one in traces.waiting],
        "near_copies": copies,
        "in_split": in_split,
        "records": [f"{TAKEDOWNS_FOLDER}/{record.run_id}.json" for record in unfinished] if apply else [],
        "run_again": [*again, *(["card"] if in_split and (run.root / CARD).is_file() else [])],
    }


def describe_images(run: StageRun, images: pl.DataFrame, image_ids: Iterable[str]) -> list[Mapping[str, object]]:
    """Return the images for the record, with the hash of each remaining file."""
    ids = set(image_ids)
    if ids:
        require_libraries()
    told: list[Mapping[str, object]] = []
    columns = ("sha256", "source_url", "source_page", "path_raw")
    for image_id, sha256, url, page, path in images.filter(pl.col(KEY).is_in(ids)).select(KEY, *columns).iter_rows():
        hashed = (hash_if_any(run.root / path) or hash_if_any(run.data / path)) if path else None
        told.append(
            {
                KEY: image_id,
                "sha256": sha256,
                "source_url": url,
                "source_page": page,
                "phash": hashed and hashed.phash,
                "phash_contrast": hashed and hashed.contrast,
            }
        )
    return told


def hash_if_any(path: Path) -> Hash | None:
    """Return the hash of an image file; None if it cannot be hashed, which must not stop a takedown."""
    try:
        return hash_picture(path)
    except ImageError:
        return None


def mark(run: StageRun, reasons: Mapping[str, str]) -> None:
    """Mark rows as taken down, durably, so that no stage works on files that are about to be removed."""
    for image_id, reason in reasons.items():
        slug = slug_of(reason)
        run.record(image_id, {"drop_reason": f"takedown:{slug}"}, drop=slug, detail=reason, durable=True)
    run.save()


def leave_base(run: StageRun, base: pl.DataFrame, image_ids: set[str]) -> None:
    """Remove rows from base.csv."""
    stay = [image_id for image_id in base[KEY] if image_id not in image_ids]
    if len(stay) < len(base):
        run.replace_rows("base", [{KEY: image_id} for image_id in stay])
        run.save()


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    add_data_option(parser)
    ask = parser.add_argument
    ask("--id", nargs="+", default=[], metavar="ID", help="these images; id prefixes are enough")
    ask("--url", nargs="+", default=[], metavar="URL", help="images from this URL or on this page")
    ask("--domain", nargs="+", default=[], metavar="HOST", help="images from this host and its sub-domains")
    ask("--artist-page", nargs="+", default=[], metavar="URL", help="images on this page and pages under it")
    ask("--reason", required=True, metavar="TEXT", help="reason, kept in the row, drops.csv and the record")
    ask("--apply", action="store_true", help="apply the takedown; without it, only show what would be removed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if not (args.id or args.url or args.domain or args.artist_page):
        parser.error("name the images with --id, --url, --domain or --artist-page")
    request = Request(
        args.reason, tuple(args.id), tuple(args.url), tuple(args.domain), tuple(args.artist_page), args.apply
    )
    return run_stage(
        "takedown",
        args,
        lambda run: take_down(run, request),
        reads_only=not args.apply,
    )


if __name__ == "__main__":
    raise SystemExit(main())
