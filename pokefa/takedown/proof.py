"""Verifies takedowns: what is left of images that were taken down, as (kind, what).

The check does not rely on a list of known places. It opens every path that a journal ever named for such an image, and
matches every file in the data folders, linked ones included, by its name and its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from pokefa.errors import PokefaError
from pokefa.files import fault_of, walk_files
from pokefa.images.phash import Hash, is_flat
from pokefa.ledger.columns import SCHEMAS, TAKEN_DOWN
from pokefa.ledger.runs import entries_of_run, journal_paths
from pokefa.ledger.table import KEY
from pokefa.ledger.tables import TAKEDOWNS_FOLDER
from pokefa.llm.batch_records import questions_about
from pokefa.llm.store import count_answers
from pokefa.shards.layout import BUILDING, DATA, read_members
from pokefa.stage.funnel import Tables
from pokefa.takedown.find import DATA_FOLDERS, IMAGE_ID, may_show_any, named_files, pages_showing, requests_about
from pokefa.takedown.records import Record, look_alikes, read_records
from pokefa.takedown.shards import plan_withdrawal


def check_gone(root: Path, tables: Tables) -> Iterator[tuple[str, str]]:
    """Yield what is left of taken-down images, and unfinished takedowns."""
    images = tables.images
    gone = set(images.filter(TAKEN_DOWN)[KEY])
    try:
        records = read_records(root)
        yield from check_records(root, records, images)
    except PokefaError as error:
        yield "takedown_unfinished", str(error)
        return
    if not gone:
        return
    yield from (("taken_down_bytes", path) for path in left_files(root, tables, records))
    yield from check_looks(root, images)
    yield from check_packed(root, gone)
    for path in old_pages(root, gone):
        yield "taken_down_shown", path
    try:
        answers = count_answers(root, requests_about(root, gone))
        if answers:
            yield "taken_down_asked", f"{answers} stored answers"
        for waiting in questions_about(root, gone):
            yield (
                "taken_down_asked",
                f"{len(waiting.image_ids)} questions in {waiting.record.path(root).relative_to(root)}",
            )
    except PokefaError as error:
        yield "taken_down_asked", f"cannot be checked: {error}"


def left_files(root: Path, tables: Tables, records: Collection[Record]) -> list[str]:
    """Return the files, relative to the root, that hold bytes of taken-down images.

    A file that the row of another image names belongs to that image even if the bytes are the same: takedown.py has
    listed it as the same picture from elsewhere.
    """
    gone = tables.images.filter(TAKEN_DOWN).select(KEY, "bytes")
    ids = set(gone[KEY])
    sums = {(int(size), digest) for record in records for size, digest in record.removed.get("sums", [])}
    sizes = {size for size, _ in sums} | {int(size) for size in gone["bytes"].drop_nulls()}
    named = {file.path for file in named_files(tables)}
    found = [path for path in paths_ever_named(root, ids) if (root / path).is_file() and path not in named]
    for folder in DATA_FOLDERS:
        for path in walk_files(root / folder):
            place = path.relative_to(root).as_posix()
            owner = IMAGE_ID.search(path.name)
            if (owner and owner.group() in ids) or (place not in named and _has_bytes_of(path, ids, sums, sizes)):
                found.append(place)
    return list(dict.fromkeys(found))


def paths_ever_named(root: Path, image_ids: Collection[str]) -> list[str]:
    """Return every path that a journal gave to one of the images."""
    columns = {name for schema in SCHEMAS.values() for name in schema.path_names}
    named: dict[str, None] = {}
    for journal in journal_paths(root):
        for entry in entries_of_run(journal):
            rows = entry.get("rows") or ([entry["set"] | {KEY: entry[KEY]}] if "set" in entry else [])
            for row in rows:
                if row.get(KEY) in image_ids:
                    paths = (text for name, text in row.items() if name in columns and text)
                    named |= dict.fromkeys(path for path in paths if fault_of(path) is None)
    return list(named)


def _has_bytes_of(
    path: Path, image_ids: Collection[str], sums: Collection[tuple[int, str]], sizes: Collection[int]
) -> bool:
    try:
        size = path.stat().st_size
        if size not in sizes:
            return False
        data = path.read_bytes()
    except OSError:
        return False
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return md5 in image_ids or (size, hashlib.sha256(data).hexdigest()) in sums


def check_records(root: Path, records: Collection[Record], images: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield records that a killed run left unfinished, and images whose row and record disagree."""
    for record in records:
        if record.finished is None:
            yield "takedown_unfinished", f"{TAKEDOWNS_FOLDER}/{record.run_id}.json is not finished"
    named = {image_id for record in records for image_id in record.image_ids}
    gone = set(images.filter(TAKEN_DOWN)[KEY])
    for image_id in sorted(gone - named):
        yield "takedown_unfinished", f"{image_id} is in no record of {TAKEDOWNS_FOLDER}"
    finished = {image_id for record in records if record.finished is not None for image_id in record.image_ids}
    for image_id in sorted(finished.intersection(images[KEY]) - gone):
        yield "taken_down_unmarked", image_id


def check_looks(root: Path, images: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the images that look like one that was taken down."""
    told = [image for record in read_records(root) for image in record.images if image.get("phash")]
    hashes = [Hash(str(image["phash"]), image.get("phash_contrast")) for image in told]
    for image_id in look_alikes(images.filter(~TAKEN_DOWN), [one for one in hashes if not is_flat(one)]):
        yield "looks_taken_down", image_id


def check_packed(root: Path, gone: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield shards, finished or being built, that hold an image, and manifests that name one."""
    for folder in (DATA, BUILDING):
        for path in sorted((root / folder).glob("*.tar")):
            try:
                held = {member.image_id for member in read_members(path)}
            except PokefaError:
                continue  # reported by another check
            for image_id in sorted(held.intersection(gone)):
                yield "taken_down_bytes", f"{image_id} in {folder}/{path.name}"
    try:
        plan = plan_withdrawal(root, gone)
    except PokefaError:
        return
    yield from (("taken_down_named", name) for name in plan.paths if not name.endswith(".tar"))


def old_pages(root: Path, gone: Collection[str]) -> Iterator[str]:
    """Yield generated pages that may show an image: those older than its takedown."""
    ends = {
        str(image[KEY]): datetime.fromisoformat(record.finished).timestamp()
        for record in read_records(root)
        for image in record.images
        if record.finished is not None
    }
    for path in pages_showing(root, gone):
        page = path.read_text(encoding="utf-8", errors="replace")
        shown = set(gone) if may_show_any(page) else set(IMAGE_ID.findall(page)).intersection(gone)
        if any(path.stat().st_mtime < ends.get(image_id, float("inf")) for image_id in shown):
            yield path.relative_to(root).as_posix()
