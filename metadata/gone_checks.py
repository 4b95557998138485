"""Proof of takedowns: what is still there of images that were taken down, as (kind, what).

Files in the data folders are told by `checks.check_files`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from metadata.asked import questions_about, requests_about, stored_answers
from metadata.funnel import TAKEN_DOWN
from metadata.packed import read_members
from metadata.takedowns import TAKEDOWNS_FOLDER, Hash, is_flat, look_alikes, read_records
from metadata.traces import IMAGE_ID, may_show_any, pages_showing
from pokefa.errors import PokefaError
from pokefa.table import KEY
from shards.plan import BUILDING, DATA
from shards.withdraw import WITHDRAWING, plan_withdrawal


def check_gone(root: Path, images: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield what is left of images that were taken down, and takedowns that were not finished.

    Args:
        images: cell texts of images.csv.
    """
    gone = set(images.filter(TAKEN_DOWN)[KEY])
    try:
        yield from check_records(root, gone)
    except PokefaError as error:
        yield "takedown_unfinished", str(error)
        return
    if not gone:
        return
    yield from check_looks(root, images)
    yield from check_packed(root, gone)
    for path in old_pages(root, gone):
        yield "taken_down_shown", path
    try:
        answers = stored_answers(root, requests_about(root, gone))
        if answers:
            yield "taken_down_asked", f"{answers} stored answers"
        for waiting in questions_about(root, gone):
            yield "taken_down_asked", f"{len(waiting.image_ids)} questions in {waiting.path.relative_to(root)}"
    except PokefaError as error:
        yield "taken_down_asked", f"cannot be told: {error}"


def check_records(root: Path, gone: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield records and changes that a killed run left unfinished, and images that no record names."""
    records = read_records(root)
    for record in records:
        if record.finished is None:
            yield "takedown_unfinished", f"{TAKEDOWNS_FOLDER}/{record.run_id}.json is not finished"
    if (root / WITHDRAWING).is_dir():
        yield "takedown_unfinished", f"{WITHDRAWING} holds a change that was not made"
    named = {image_id for record in records for image_id in record.image_ids}
    for image_id in sorted(set(gone) - named):
        yield "takedown_unfinished", f"{image_id} is in no record of {TAKEDOWNS_FOLDER}"


def check_looks(root: Path, images: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the images that are still there and look like one that was taken down."""
    told = [image for record in read_records(root) for image in record.images if image.get("phash")]
    hashes = [Hash(str(image["phash"]), image.get("phash_contrast")) for image in told]
    for image_id in look_alikes(images.filter(~TAKEN_DOWN), [one for one in hashes if not is_flat(one)]):
        yield "looks_taken_down", image_id


def check_packed(root: Path, gone: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield shards that hold an image, finished or being built, and manifests that name one."""
    for folder in (DATA, BUILDING):
        for path in sorted((root / folder).glob("*.tar")):
            try:
                held = {member.image_id for member in read_members(path)}
            except PokefaError:
                continue  # a damaged shard is a finding of its own
            for image_id in sorted(held.intersection(gone)):
                yield "taken_down_bytes", f"{image_id} in {folder}/{path.name}"
    try:
        plan = plan_withdrawal(root, gone)
    except PokefaError:
        return
    yield from (("taken_down_named", name) for name in plan.paths if not name.endswith(".tar"))


def old_pages(root: Path, gone: Collection[str]) -> Iterator[str]:
    """Yield generated pages that may show an image and are older than its takedown: later ones cannot show it."""
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
