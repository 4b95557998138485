"""Take images out of the dataset, for an artist who asks.

Without --apply it shows what would go. With it, the images' bytes are removed from data_raw, data_stage and
data_clean, with the generated pages that show them. The rows stay, marked with the reason: they are the proof, and
keep a later scrape from bringing the same bytes back. The summary names the stages to run again, so that base.csv
and the shards lose the images too; `metadata/verify.py` then proves that they are gone.

Reads   images.csv: image_id, source_url, source_page, source_domain
Writes  images.csv: drop_reason; drops.csv

    python metadata/takedown.py --domain example.com --reason "the artist asked"
    python metadata/takedown.py --domain example.com --reason "the artist asked" --apply
    python metadata/takedown.py --root my-dataset --id 3f2a 77c0 --reason copyright --apply
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl

from metadata.command import show
from metadata.funnel import TAKEN_DOWN
from metadata.shards import listed_ids
from pokefa.errors import InputError
from pokefa.options import options_from, stage_parser
from pokefa.run import StageRun, run_stage
from pokefa.selection import find_ids
from pokefa.table import KEY

BYTES_FOLDERS = ("data_raw", "data_stage", "data_clean")

# Stages that carry the removal on to base.csv and the shards. Where another image of a duplicate group had been removed
# in favour of one that is taken down, it may enter the set, and needs what every new image of the set needs.
RUN_AGAIN = ("filter", "species", "split", "webdataset")
RUN_AGAIN_WITH_COPIES = (
    *("rm_dups", "filter", "sentence_tags", "cap_filter"),
    *("hybrid_captions", "species", "split", "webdataset"),
)


@dataclass(frozen=True)
class Request:
    """What was asked for: images by id, by address of the image or of its page, by host; and why."""

    reason: str
    ids: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    apply: bool = False


def find_images(images: pl.DataFrame, request: Request) -> list[str]:
    """Return the ids of the images that a request means, in the ledger's order.

    Raises:
        InputError: something that was named fits no image.
    """
    wanted, unknown = find_ids(request.ids, images[KEY].to_list())
    missing = [f"id {name}" for name in unknown]
    chosen = set(wanted)
    pages = images.select(KEY, "source_url", "source_page", "source_domain").rows()
    for url in request.urls:
        found = {image_id for image_id, image, page, _ in pages if url in (image, page)}
        missing += [] if found else [f"url {url}"]
        chosen |= found
    for domain in request.domains:
        host = domain.lower().strip(".")
        found = {
            image_id
            for image_id, image, page, source in pages
            if any(_is_under(name, host) for name in (source, _host(image), _host(page)))
        }
        missing += [] if found else [f"domain {domain}"]
        chosen |= found
    if missing:
        raise InputError(f"no image has {', '.join(missing)}; nothing was changed: correct or leave out what is named")
    return [image_id for image_id in images[KEY] if image_id in chosen]


def files_of(root: Path, image_ids: Iterable[str]) -> list[Path]:
    """Return every file in the data folders whose name holds one of the ids: masks, boxes and temporaries too."""
    ids = set(image_ids)
    found = []
    for folder in BYTES_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            owner = re.search(r"[0-9a-f]{32}", path.name)
            if owner and owner.group() in ids and not path.is_dir():
                found.append(path)
    return found


def pages_showing(root: Path, images: pl.DataFrame, image_ids: Sequence[str]) -> list[Path]:
    """Return the generated pages that show a thumbnail of one of the images.

    A page of duplicates shows the kept image beside the removed one and names only the latter, so a page that names
    any image of the same group counts.
    """
    ids = {*image_ids, *same_groups(images, image_ids)[KEY]}
    return [
        path
        for path in sorted((root / "metadata").glob("*.html"))
        if not ids.isdisjoint(re.findall(r"[0-9a-f]{32}", path.read_text(encoding="utf-8", errors="replace")))
    ]


def near_copies(images: pl.DataFrame, image_ids: Sequence[str]) -> list[str]:
    """Return other images of the same duplicate groups: the same picture, found elsewhere."""
    others = same_groups(images, image_ids).filter(~pl.col(KEY).is_in(image_ids))
    return others.filter(~TAKEN_DOWN)[KEY].to_list()


def same_groups(images: pl.DataFrame, image_ids: Sequence[str]) -> pl.DataFrame:
    """Return the rows of the duplicate groups that the images belong to, the images among them."""
    groups = images.filter(pl.col(KEY).is_in(image_ids) & pl.col("dupe_group").is_not_null())["dupe_group"]
    return images.filter(pl.col("dupe_group").is_in(groups.to_list()))


def slug_of(reason: str) -> str:
    """Return a reason as a slug: `The artist asked!` is `the_artist_asked`.

    Raises:
        InputError: nothing of the reason is a letter or a digit.
    """
    slug = re.sub(r"[\W_]+", "_", reason.lower()).strip("_")
    if not slug:
        raise InputError(f"--reason {reason!r} says nothing: write why the images go")
    return slug


def take_down(run: StageRun, request: Request) -> None:
    """Mark the images that were asked for and remove their bytes; without `apply`, say what would go.

    Raises:
        InputError: something that was named fits no image, or the reason is empty.
    """
    slug = slug_of(request.reason)
    images = run.table()
    chosen = find_images(images, request)
    files = files_of(run.root, chosen)
    pages = pages_showing(run.root, images, chosen)
    copies = near_copies(images, chosen)
    gone = set(images.filter(TAKEN_DOWN)[KEY])
    addresses = dict(images.select(KEY, "source_url").iter_rows())
    run.seen = len(chosen)
    show(
        f"{image_id}  {addresses[image_id] or 'no address'}{'  (marked already)' if image_id in gone else ''}"
        for image_id in chosen
    )
    if copies:
        show(
            [
                "The same picture from elsewhere stays, and the next rm_dups.py and filter.py may let it in; "
                f"name these too if they are meant: {' '.join(copies)}"
            ]
        )
    apply = request.apply and not run.options.dry_run
    if apply:
        mark(run, [image_id for image_id in chosen if image_id not in gone], slug, request.reason)
        for path in (*files, *pages):
            path.unlink(missing_ok=True)
            show([f"    removed {path.relative_to(run.root)}"])
    else:
        show(f"    would remove {path.relative_to(run.root)}" for path in (*files, *pages))
        show(["Nothing was changed: add --apply to take them down."])
    listed = {image_id for ids in listed_ids(run.root).values() for image_id in ids}
    run.extra = {
        "applied": apply,
        "files": len(files),
        "pages": [path.relative_to(run.root).as_posix() for path in pages],
        "near_copies": copies,
        "in_split": len(listed & set(chosen)),
        "run_again": list(RUN_AGAIN_WITH_COPIES if copies else RUN_AGAIN),
    }


def mark(run: StageRun, image_ids: Iterable[str], slug: str, reason: str) -> None:
    """Mark rows as taken down, on disk when this returns: no stage may work on bytes that are about to go."""
    for image_id in image_ids:
        run.record(image_id, {"drop_reason": f"takedown:{slug}"}, drop=slug, detail=reason, durable=True)
    run.save()


def _host(url: str | None) -> str | None:
    try:
        return urlsplit(url or "").hostname
    except ValueError:
        return None


def _is_under(name: str | None, host: str) -> bool:
    """Tell whether `name` is `host` or lies under it: www.example.com is under example.com."""
    name = (name or "").lower()
    return name == host or name.endswith(f".{host}")


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument(
        "--id", nargs="+", default=[], metavar="ID", help="these images; the beginning of an id will do"
    )
    parser.add_argument("--url", nargs="+", default=[], metavar="URL", help="images from this address or on this page")
    parser.add_argument(
        "--domain", nargs="+", default=[], metavar="HOST", help="images from this host and those under it"
    )
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; kept in the row and in drops.csv")
    parser.add_argument("--apply", action="store_true", help="do it; without this, only show what would go")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if not (args.id or args.url or args.domain):
        parser.error("name the images with --id, --url or --domain")
    request = Request(args.reason, tuple(args.id), tuple(args.url), tuple(args.domain), args.apply)
    return run_stage("takedown", lambda: options_from(args), lambda run: take_down(run, request), arguments=argv)


if __name__ == "__main__":
    raise SystemExit(main())
