"""Check the whole dataset: files, sums, tables, shards and journals against one another.

Every row's files exist, and the raw bytes have the MD5 and SHA-256 that the row says. The data folders hold nothing
that no row names, and no temporary files. base.csv holds only kept images, the shards hold base.csv, and the
manifests fit the shards. The journals, replayed from the start, give the cells of the tables; what a person edited
is named, and is no error. What is wrong is listed by kind, with how to mend it, and the exit code is 1.

Reads   images.csv, base.csv, the run journals, the data folders, webdataset/
Writes  nothing; with --fix it removes temporary files that a killed run left behind

    python metadata/verify.py
    python metadata/verify.py --root my-dataset
    python metadata/verify.py --root my-dataset --fix
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from metadata.command import Reading, add_json_flag, reading_parser, run_reading, show
from metadata.funnel import TAKEN_DOWN, Tables, read_tables
from metadata.history import BASE_PATHS, IMAGE_PATHS
from metadata.replay import compare_with_journals
from metadata.shards import (
    DATA_FOLDER,
    MANIFESTS_FOLDER,
    SPLITS,
    STATS,
    Stats,
    listed_ids,
    read_members,
    read_stats,
    shard_paths,
    split_of,
)
from pokefa.columns import BASE, IMAGES
from pokefa.errors import EXIT_FAILED, InputError
from pokefa.model_files import sha256_of
from pokefa.selection import FLAGGED_NSFW, filled, is_true
from pokefa.table import KEY

DATA_FOLDERS = ("data_raw", "data_stage", "data_clean")
WRITTEN_FOLDERS = (*DATA_FOLDERS, "metadata", "webdataset")

# What belongs to an image: its name holds an image_id or ends like an image's. Stages keep other files beside them.
IMAGE_FILE = re.compile(r"([0-9a-f]{32})|\.(?:jpe?g|png|webp|gif)$", re.IGNORECASE)

# A younger temporary file may belong to a stage that is at work.
TEMPORARY = re.compile(r"(^|/)\.[^/]*\.(tmp|part|link)$")
LEFT_BEHIND_AFTER_S = 600.0

# Examples of each kind on the screen; --json has them all.
MOST_EXAMPLES = 5

MENDING = {
    "bad_cell": "correct the cell or empty it",
    "missing_raw": "put the file back, or take the row out with takedown.py",
    "missing_file": "run the stage that writes it again with --redo --ids",
    "wrong_md5": "the file was changed or damaged: put the original back",
    "wrong_sha256": "the file was changed or damaged: put the original back",
    "orphan_file": "no row names it: run the stage that writes it, or remove it",
    "temporary_file": "a killed run left it: remove it with --fix",
    "taken_down_bytes": "run takedown.py again with --apply: bytes of a taken-down image are still there",
    "base_not_in_images": "run preprocess/filter/filter.py again",
    "base_not_kept": "run preprocess/filter/filter.py again, then split and webdataset",
    "shard_damaged": "run webdataset/webdataset.py again",
    "shard_not_in_base": "run webdataset/webdataset.py again",
    "shard_lacks_image": "run webdataset/webdataset.py again",
    "manifest_differs": "run webdataset/webdataset.py again",
    "list_differs": "run webdataset/split.py and webdataset/webdataset.py again",
    "journal_damaged": "repair the line that is named, or remove it",
    "not_merged": "remove metadata/runs/merged.json: the next command merges every journal anew",
    "edited_by_hand": "nothing to mend: no journal set this value, so a person did",
    "removed_by_hand": "nothing to mend: the journals added this row and a person removed it",
    "row_without_journal": "nothing to mend: no journal added this row, so a person did",
}
NOTES = ("edited_by_hand", "removed_by_hand", "row_without_journal")


@dataclass
class Findings:
    """What was found, by kind, in the order in which it was found."""

    by_kind: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, what: str) -> None:
        if kind not in MENDING:
            raise ValueError(f"no mending is written down for {kind}")
        self.by_kind[kind].append(what)

    def add_all(self, found: Iterable[tuple[str, str]]) -> None:
        for kind, what in found:
            self.add(kind, what)

    @property
    def errors(self) -> dict[str, list[str]]:
        return {kind: found for kind, found in self.by_kind.items() if kind not in NOTES}


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


def check_files(tables: Tables, root: Path) -> Iterator[tuple[str, str]]:
    """Yield files that are named and missing, that lie there unnamed, or that belong to a taken-down image."""
    gone = set(tables.images.filter(TAKEN_DOWN)[KEY])
    named: set[str] = set()
    here = tables.images.filter(~TAKEN_DOWN)
    base = tables.base.filter(~TAKEN_DOWN)
    for frame, columns in ((here, IMAGE_PATHS), (base, BASE_PATHS)):
        for column in columns:
            kind = "missing_raw" if column == "path_raw" else "missing_file"
            for image_id, path in frame.filter(filled(column)).select(KEY, column).iter_rows():
                named.add(path)
                if not (root / path).is_file():
                    yield kind, f"{path} ({column} of {image_id})"
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


def check_shards(tables: Tables, root: Path) -> Iterator[tuple[str, str]]:
    """Yield what differs between the shards, their manifests, and base.csv; nothing before the first shards."""
    shards = shard_paths(root)
    try:
        stats = read_stats(root)
    except InputError as error:
        yield "manifest_differs", str(error)
        return
    if stats is None:
        if shards:
            yield "manifest_differs", f"{STATS} is missing: these shards are not a whole set"
        return
    yield from check_manifest(root, shards, stats)
    packed: dict[str, set[str]] = {split: set() for split in SPLITS}
    for shard in shards:
        try:
            packed.setdefault(split_of(shard), set()).update(member.image_id for member in read_members(shard))
        except InputError as error:
            yield "shard_damaged", str(error)
    out = [*out_of_set().values(), filled("drop_reason")]
    refused = {image_id for wrong in out for image_id in tables.images.filter(wrong)[KEY]}
    for split, ids in packed.items():
        in_set = set(tables.base.filter(pl.col("split") == split)[KEY]) - refused
        for image_id in sorted(ids - in_set):
            yield "shard_not_in_base", f"{image_id} in {split}"
        for image_id in sorted(in_set - ids - stats.left_out.keys()):
            yield "shard_lacks_image", f"{image_id} in {split}"
    for split, ids in listed_ids(root).items():
        in_base = set(tables.base.filter(pl.col("split") == split)[KEY])
        for image_id in sorted(ids ^ in_base):
            yield "list_differs", f"{image_id} in {split}_ids.txt or base.csv, not in both"


def check_manifest(root: Path, shards: Sequence[Path], stats: Stats) -> Iterator[tuple[str, str]]:
    """Yield what split_stats.json says of a shard or id list and is not so."""
    for shard in shards:
        if shard.name not in stats.shards:
            yield "manifest_differs", f"{shard.name} is not in {STATS}"
    for folder, files in ((DATA_FOLDER, stats.shards), (MANIFESTS_FOLDER, stats.id_lists)):
        for name, facts in files.items():
            path = root / folder / name
            if not path.is_file():
                yield "manifest_differs", f"{folder}/{name} does not exist"
            elif path.stat().st_size != facts["bytes"] or sha256_of(path) != facts["sha256"]:
                yield "manifest_differs", f"{folder}/{name} has other bytes than when it was packed"


def check_temporaries(root: Path, fix: bool, now: float) -> Iterator[tuple[str, str]]:
    """Yield the temporary files that are left, having removed with `fix` those that no run can still be writing."""
    for path in files_under(root, WRITTEN_FOLDERS):
        if not TEMPORARY.search(path):
            continue
        age = now - (root / path).stat().st_ctime  # a new link to an old file has the old file's mtime
        if fix and age > LEFT_BEHIND_AFTER_S:
            (root / path).unlink()
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


def verify(reading: Reading, fix: bool) -> Findings:
    """Run every check."""
    tables = read_tables(reading.ledger)
    root, findings = reading.root, Findings()
    reading.seen = len(tables.images)
    findings.add_all(check_cells(tables.images, "images"))
    findings.add_all(check_cells(tables.base, "base"))
    findings.add_all(check_files(tables, root))
    findings.add_all(check_sums(tables.images, root))
    findings.add_all(check_base(tables))
    findings.add_all(check_shards(tables, root))
    findings.add_all(compare_with_journals(reading.ledger))
    findings.add_all(check_temporaries(root, fix, time.time()))
    return findings


def show_findings(reading: Reading, fix: bool, details_only: bool) -> None:
    """Print what was found by kind, with how to mend it."""
    findings = verify(reading, fix)
    reading.errors = sum(len(found) for found in findings.errors.values())
    reading.done = reading.seen
    reading.code = EXIT_FAILED if reading.errors else reading.code
    reading.extra = {"counts": dict(Counter({kind: len(found) for kind, found in findings.by_kind.items()}))}
    if details_only:
        details: dict[str, Any] = {
            kind: {"mend": MENDING[kind], "is_error": kind not in NOTES, "found": found}
            for kind, found in findings.by_kind.items()
        }
        reading.extra["findings"] = details
        return
    show([*listing(findings), conclusion(reading.seen, reading.errors)])


def listing(findings: Findings) -> Iterator[str]:
    """Yield the lines that tell the findings, with a few examples of each kind."""
    for kind, found in findings.by_kind.items():
        yield f"{'note: ' if kind in NOTES else ''}{kind}: {len(found)}. {MENDING[kind]}"
        yield from (f"    {what}" for what in found[:MOST_EXAMPLES])
        if len(found) > MOST_EXAMPLES:
            yield f"    … and {len(found) - MOST_EXAMPLES} more (all with --json)"


def conclusion(images: int, errors: int) -> str:
    checked = f"{images} images checked: "
    return checked + (f"{errors} {'thing is' if errors == 1 else 'things are'} wrong" if errors else "all is well")


def build_parser() -> argparse.ArgumentParser:
    parser = reading_parser(__doc__)
    parser.add_argument("--fix", action="store_true", help="remove temporary files older than ten minutes")
    add_json_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    root, fix, details_only = args.root, args.fix, args.json
    return run_reading("verify", root, lambda reading: show_findings(reading, fix, details_only))


if __name__ == "__main__":
    raise SystemExit(main())
