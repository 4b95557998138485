"""Checks of the tables against the files, and of both against themselves: each yields (kind, what) of what is wrong."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from tqdm import tqdm

from metadata.funnel import TAKEN_DOWN, Tables
from metadata.history import BASE_PATHS, IMAGE_PATHS
from pokefa.columns import BASE, IMAGES, is_true
from pokefa.errors import InputError
from pokefa.selection import FLAGGED_NSFW, filled
from pokefa.table import KEY

DATA_FOLDERS = ("data_raw", "data_stage", "data_clean")
WRITTEN_FOLDERS = (*DATA_FOLDERS, "metadata", "webdataset")

# What belongs to an image: its name holds an image_id or ends like an image's. Stages keep other files beside them.
IMAGE_FILE = re.compile(r"([0-9a-f]{32})|\.(?:jpe?g|png|webp|gif)$", re.IGNORECASE)

# A younger temporary file may belong to a stage that is at work.
TEMPORARY = re.compile(r"(^|/)\.[^/]*\.(tmp|part|link)$")
LEFT_BEHIND_AFTER_S = 600.0


@dataclass(frozen=True)
class Missing:
    """A file that a row names and that is not there; `table` is images or base."""

    table: str
    image_id: str
    column: str
    path: str


def check_cells(frame: pl.DataFrame, schema_name: str) -> Iterator[tuple[str, str]]:
    """Yield the cells that are not of their column's type."""
    schema = {"images": IMAGES, "base": BASE}[schema_name]
    for column in schema.columns:
        if column.kind == "text" or column.name not in frame.columns:
            continue
        for image_id, text in frame.filter(filled(column.name)).select(KEY, column.name).iter_rows():
            try:
                column.decode(text)
            except InputError as error:
                yield "bad_cell", f"{schema.path}, image {image_id}, {error}"


def named_files(tables: Tables) -> Iterator[Missing]:
    """Yield each file that a row names, but for those of taken-down images."""
    for name, frame, columns in (("images", tables.images, IMAGE_PATHS), ("base", tables.base, BASE_PATHS)):
        here = frame.filter(~TAKEN_DOWN)
        for column in columns:
            for image_id, path in here.filter(filled(column)).select(KEY, column).iter_rows():
                yield Missing(name, image_id, column, path)


def missing_files(tables: Tables, root: Path) -> list[Missing]:
    return [file for file in named_files(tables) if not (root / file.path).is_file()]


def check_files(tables: Tables, root: Path) -> Iterator[tuple[str, str]]:
    """Yield files that are named and missing, that lie there unnamed, or that belong to a taken-down image."""
    gone = set(tables.images.filter(TAKEN_DOWN)[KEY])
    named = {file.path for file in named_files(tables)}
    for file in missing_files(tables, root):
        kind = "missing_raw" if file.column == "path_raw" else "missing_file"
        yield kind, f"{file.path} ({file.column} of {file.image_id})"
    for path in files_under(root, DATA_FOLDERS):
        found = IMAGE_FILE.search(path.rpartition("/")[2])
        if found and found.group(1) in gone:
            yield "taken_down_bytes", path
        elif found and path not in named and not TEMPORARY.search(path):
            yield "orphan_file", path


def check_sums(images: pl.DataFrame, root: Path) -> Iterator[tuple[str, str]]:
    """Yield raw files whose MD5 is not the image_id, or whose SHA-256 is not the row's."""
    rows = images.filter(~TAKEN_DOWN & filled("path_raw")).select(KEY, "sha256", "path_raw")
    for image_id, sha256, path in tqdm(
        rows.iter_rows(), total=len(rows), desc="sums", unit="img", disable=not sys.stderr.isatty()
    ):
        try:
            data = (root / path).read_bytes()
        except OSError:
            continue  # a missing file is a finding of its own
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


def check_temporaries(root: Path, fix: bool, now: float) -> Iterator[tuple[str, str]]:
    """Yield the temporary files that are left, having removed with `fix` those that no run can still be writing."""
    for path in files_under(root, WRITTEN_FOLDERS):
        if not TEMPORARY.search(path):
            continue
        try:
            age = now - (root / path).stat().st_ctime  # a new link to an old file has the old file's mtime
        except FileNotFoundError:
            continue  # its stage has given it its name, or removed it
        if fix and age > LEFT_BEHIND_AFTER_S:
            (root / path).unlink(missing_ok=True)
            print(f"removed {path}")
        elif fix:
            yield "temporary_file", f"{path} (changed {age:.0f} s ago: a stage may be writing it, so it was left)"
        else:
            yield "temporary_file", path


def files_under(root: Path, folders: Iterable[str]) -> Iterator[str]:
    """Yield the paths of all files, relative to the root, in order."""
    for folder in folders:
        for parent, subfolders, names in os.walk(root / folder):
            subfolders.sort()
            for name in sorted(names):
                yield (Path(parent) / name).relative_to(root).as_posix()


def out_of_set() -> dict[str, pl.Expr]:
    """Return the rows of images.csv that may not stand in base.csv, by why."""
    return {
        "flagged as NSFW": FLAGGED_NSFW,
        "a duplicate": is_true("dupe_removed"),
        "taken down": TAKEN_DOWN,
        "not kept by the filter": (pl.col("filter_decision") != "kept").fill_null(True),
    }
