"""Everything about some images outside the rows of images.csv: all that a takedown removes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pokefa.files import sha256_of, walk_files
from pokefa.images.phash import Hash
from pokefa.images.storage import files_under
from pokefa.ledger.columns import BASE, IMAGES, TAKEN_DOWN
from pokefa.ledger.runs import entries_of_run, journal_paths
from pokefa.ledger.table import KEY
from pokefa.llm.batch_records import Waiting, questions_about, read_records, withdraw_questions
from pokefa.llm.store import count_answers, forget_answers
from pokefa.stage.funnel import Tables
from pokefa.stage.rows import filled
from pokefa.takedown.records import look_alikes
from pokefa.takedown.shards import Withdrawal, plan_withdrawal, withdraw

DATA_FOLDERS = ("data_raw", "data_stage", "data_clean")
IMAGE_ID = re.compile(r"[0-9a-f]{32}")
IMAGE_HASH = re.compile(r"[0-9a-fA-F]{16}")

REPORT_TITLE = "PokeFA dataset report"
# In the head of a report that names every image it shows; earlier reports showed inpainting without ids.
REPORT_MARK = "PokeFA report 2"


@dataclass(frozen=True)
class Traces:
    """Everything about some images.

    Args:
        files: in the data folders, including masks, boxes and temporary files.
        elsewhere: the same under --data-root, if that is not the root.
        pages: generated pages that show one of them.
        withdrawal: the changes to the shards and their manifests.
        requests: the requests about them; `answers` of the answers are stored.
        waiting: files of questions about them that are not done.
    """

    files: tuple[Path, ...]
    elsewhere: tuple[Path, ...]
    pages: tuple[Path, ...]
    withdrawal: Withdrawal
    requests: frozenset[str]
    answers: int
    waiting: tuple[Waiting, ...]

    @property
    def with_files(self) -> set[str]:
        """The ids of images with a file."""
        names = (IMAGE_ID.search(path.name) for path in (*self.files, *self.elsewhere))
        return {found.group() for found in names if found}

    def told(self, root: Path) -> dict[str, object]:
        """Return them as part of a takedown's record."""
        return {
            "files": [path.relative_to(root).as_posix() for path in self.files],
            "sums": [[path.stat().st_size, sha256_of(path)] for path in self.files if path.is_file()],
            "elsewhere": [str(path) for path in self.elsewhere],
            "pages": [path.relative_to(root).as_posix() for path in self.pages],
            "rewritten": self.withdrawal.paths,
            "answers": self.answers,
            "batches": [one.record.name for one in self.waiting],
        }

    def lines(self, root: Path, *, would: bool) -> Iterator[str]:
        """Yield a line for each kind of thing to remove."""
        for path in (*(path.relative_to(root) for path in (*self.files, *self.pages)), *self.elsewhere):
            yield f"    {'would remove' if would else 'removed'} {path}"
        for name in self.withdrawal.paths:
            yield f"    {'would rewrite' if would else 'rewrote'} {name} without the images"
        if self.answers:
            yield f"    {'would remove' if would else 'removed'} {self.answers} stored answers about the images"
        for one in self.waiting:
            name = one.record.name
            yield f"    {'would take' if would else 'took'} {len(one.image_ids)} questions out of the batch {name}"
            if one.record.at_service:
                yield f"    the service has the images of {name} ({one.record.at_service}): ask it to delete them"


def find_traces(root: Path, data: Path, images: pl.DataFrame, image_ids: Collection[str]) -> Traces:
    """Find everything about some images.

    Args:
        data: the folder of the images, if that is not the root.
        images: cell texts of images.csv.

    Raises:
        InputError: a shard, a journal or a record is damaged.
        RunError: the stored answers cannot be read.
    """
    requests = requests_about(root, image_ids)
    return Traces(
        tuple(files_of(root, image_ids)),
        tuple(files_of(data, image_ids)) if data != root else (),
        tuple(pages_showing(root, {*image_ids, *same_groups(images, image_ids)[KEY]})),
        plan_withdrawal(root, image_ids),
        frozenset(requests),
        count_answers(root, requests),
        tuple(questions_about(root, image_ids)),
    )


def remove_traces(root: Path, traces: Traces, base: pl.DataFrame) -> None:
    """Remove the traces; if the run is killed, the next one finishes the removal.

    Args:
        base: cell texts of base.csv while it still had the images.

    Raises:
        PokefaError: something cannot be removed.
    """
    species = {}
    if "species" in base.columns:
        named = base.filter(pl.col("species").is_not_null()).select(KEY, "species").iter_rows()
        species = {image_id: tuple(dict.fromkeys(names.split(","))) for image_id, names in named}
    withdraw(root, traces.withdrawal, species)
    for path in (*traces.files, *traces.elsewhere, *traces.pages):
        path.unlink(missing_ok=True)
    forget_answers(root, traces.requests)
    for waiting in traces.waiting:
        withdraw_questions(root, waiting)


def requests_about(root: Path, image_ids: Collection[str]) -> set[str]:
    """Return the requests about images; they are the keys of the stored answers, which name no image.

    Raises:
        InputError: a journal or a record of a batch is damaged.
    """
    if not image_ids:
        return set()
    found = {
        str(entry["usage"]["request"])
        for path in journal_paths(root)
        for entry in entries_of_run(path)
        if entry.get(KEY) in image_ids and "request" in (entry.get("usage") or {})
    }
    batched = (record.requests.items() for record in read_records(root))
    return found | {request for requests in batched for image_id, request in requests if image_id in image_ids}


def files_of(root: Path, image_ids: Iterable[str]) -> list[Path]:
    """Return all files in the data folders whose name contains one of the ids: images, masks, boxes, temporaries."""
    ids = set(image_ids)
    found = []
    for folder in DATA_FOLDERS:
        for path in files_under(root / folder):
            owner = IMAGE_ID.search(path.name)
            if owner and owner.group() in ids:
                found.append(path)
    return found


def pages_showing(root: Path, image_ids: Collection[str]) -> list[Path]:
    """Return the generated pages that name one of the images, and the reports that may show any image.

    A page of duplicates shows the kept image beside the removed one but only names the latter, so look for an image
    together with its duplicate group.
    """
    found = []
    for path in walk_files(root / "metadata"):
        if path.suffix != ".html":
            continue
        page = path.read_text(encoding="utf-8", errors="replace")
        if may_show_any(page) or not set(image_ids).isdisjoint(IMAGE_ID.findall(page)):
            found.append(path)
    return found


def may_show_any(page: str) -> bool:
    """Tell whether a page is a report of an earlier version, which showed images without naming them."""
    head = page.partition("</head>")[0]
    return f"<title>{REPORT_TITLE}</title>" in head and f'content="{REPORT_MARK}"' not in head


def near_copies(images: pl.DataFrame, image_ids: Sequence[str]) -> list[str]:
    """Return other images of the same duplicate groups, and ungrouped images with nearly the same hash.

    They show the same picture, found elsewhere.
    """
    rows = images.filter(pl.col(KEY).is_in(list(image_ids)))
    hashes = [Hash(text, None) for text in rows["phash64"].drop_nulls() if IMAGE_HASH.fullmatch(text)]
    alike = {*same_groups(images, image_ids)[KEY], *look_alikes(images, hashes)}.difference(image_ids)
    return images.filter(pl.col(KEY).is_in(sorted(alike)) & ~TAKEN_DOWN)[KEY].to_list()


def same_groups(images: pl.DataFrame, image_ids: Collection[str]) -> pl.DataFrame:
    """Return the rows of the images' duplicate groups, including the images."""
    groups = images.filter(pl.col(KEY).is_in(list(image_ids)) & pl.col("dupe_group").is_not_null())["dupe_group"]
    return images.filter(pl.col("dupe_group").is_in(groups.to_list()))


@dataclass(frozen=True)
class NamedFile:
    """A file that a row names; `table` is images or base."""

    table: str
    image_id: str
    column: str
    path: str


def named_files(tables: Tables) -> Iterator[NamedFile]:
    """Yield each file that a row names, except those of taken-down images."""
    for schema, frame in ((IMAGES, tables.images), (BASE, tables.base)):
        here = frame.filter(~TAKEN_DOWN)
        for column in schema.path_names:
            for image_id, path in here.filter(filled(column)).select(KEY, column).iter_rows():
                yield NamedFile(schema.name, image_id, column, path)
