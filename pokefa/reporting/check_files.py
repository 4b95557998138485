"""Checks the tables against the files, and both for consistency: each check yields (kind, what) of its findings."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
from tqdm import tqdm

from pokefa.files import BadPathError, fault_of, locate, walk_files
from pokefa.images.formats import SUFFIXES
from pokefa.ledger.columns import TAKEN_DOWN, is_true
from pokefa.ledger.table import KEY
from pokefa.reporting.open_runs import UnderWay
from pokefa.stage.funnel import Tables
from pokefa.stage.rows import FLAGGED_NSFW, filled
from pokefa.takedown.find import DATA_FOLDERS, NamedFile, named_files

WRITTEN_FOLDERS = (*DATA_FOLDERS, "metadata", "webdataset")

# A file belongs to an image if its name holds an image_id or has an image's suffix; other files may be stages' own.
IMAGE_FILE = re.compile(rf"([0-9a-f]{{32}})|\.(?:jpeg|{'|'.join(SUFFIXES.values())})$", re.IGNORECASE)

# A younger temporary file may belong to a running stage.
TEMPORARY = re.compile(r"(^|/)\.[^/]*\.(tmp|part|link)$")
LEFT_BEHIND_AFTER_S = 600.0


def missing_files(tables: Tables, root: Path) -> list[NamedFile]:
    """Return the missing files that a row names, except those in places that are not allowed."""
    return [file for file in named_files(tables) if fault_of(file.path) is None and not (root / file.path).is_file()]


def check_files(tables: Tables, root: Path, under_way: UnderWay) -> Iterator[tuple[str, str]]:
    """Yield files that are named but missing, present but not named, or in a place that is not allowed."""
    gone = set(tables.images.filter(TAKEN_DOWN)[KEY])
    named: set[str] = set()
    for file in named_files(tables):
        named.add(file.path)
        told = f"{file.path} ({file.column} of {file.image_id})"
        try:
            place = locate(root, file.path)
        except BadPathError as error:
            yield "bad_path", f"{told}: {error.why}"
            continue
        if not place.is_file() and file.column not in under_way.columns:
            yield "missing_raw" if file.column == "path_raw" else "missing_file", told
    for path in files_under(root, DATA_FOLDERS):
        found = IMAGE_FILE.search(path.rpartition("/")[2])
        if found is None or TEMPORARY.search(path) or path in named or found.group(1) in gone:
            continue
        if not under_way.may_have_made(root / path):
            yield "orphan_file", path


def check_sums(images: pl.DataFrame, root: Path) -> Iterator[tuple[str, str]]:
    """Yield raw files whose MD5 is not the image_id, or whose SHA-256 is not the row's."""
    rows = images.filter(~TAKEN_DOWN & filled("path_raw")).select(KEY, "sha256", "path_raw")
    for image_id, sha256, path in tqdm(
        rows.iter_rows(), total=len(rows), desc="sums", unit="img", disable=not sys.stderr.isatty()
    ):
        try:
            data = locate(root, path).read_bytes()
        except (BadPathError, OSError):
            continue  # reported by another check
        if hashlib.md5(data).hexdigest() != image_id:
            yield "wrong_md5", path
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            yield "wrong_sha256", path


def check_base(tables: Tables) -> Iterator[tuple[str, str]]:
    """Yield rows of base.csv whose image is unknown, flagged, a duplicate, taken down, or not kept."""
    images = tables.images
    for image_id in tables.base.join(images, on=KEY, how="anti")[KEY]:
        yield "base_not_in_images", image_id
    in_base = images.join(tables.base.select(KEY), on=KEY, how="semi")
    for why, wrong in out_of_set().items():
        for image_id in in_base.filter(wrong)[KEY]:
            yield "base_not_kept", f"{image_id} ({why})"


def check_temporaries(root: Path, fix: bool, now: float, under_way: UnderWay) -> Iterator[tuple[str, str]]:
    """Yield leftover temporary files; with `fix` remove those that no run can still be writing."""
    for path in files_under(root, WRITTEN_FOLDERS):
        if not TEMPORARY.search(path) or under_way.may_have_made(root / path):
            continue
        try:
            age = now - (root / path).stat().st_ctime  # a new link to an old file has the old file's mtime
        except FileNotFoundError:
            continue  # its stage has renamed or removed it
        if fix and age > LEFT_BEHIND_AFTER_S:
            (root / path).unlink(missing_ok=True)
            print(f"removed {path}")
        elif fix:
            yield "temporary_file", f"{path} (changed {age:.0f} s ago: a stage may be writing it, so it was left)"
        else:
            yield "temporary_file", path


def files_under(root: Path, folders: Iterable[str]) -> Iterator[str]:
    """Yield the paths of all files, relative to the root, sorted; linked folders are followed."""
    for folder in folders:
        yield from (path.relative_to(root).as_posix() for path in walk_files(root / folder))


def out_of_set() -> dict[str, pl.Expr]:
    """Return the conditions on rows of images.csv that must not be in base.csv, by reason."""
    return {
        "flagged as NSFW": FLAGGED_NSFW,
        "a duplicate": is_true("dupe_removed"),
        "taken down": TAKEN_DOWN,
        "not kept by the filter": (pl.col("filter_decision") != "kept").fill_null(True),
    }
