"""Check the complete dataset: files, checksums, tables, shards and journals.

It checks that every row's files exist, and that raw files have the MD5 and SHA-256 of their row; that the data folders
contain no other files and no temporary files; that base.csv has only kept images, the shards match base.csv, and the
manifests match the shards; that the replayed journals give the tables' cells (manual edits are listed, but are not
errors); and that nothing is left of taken-down images: no file, sample, page, stored answer or batch request. Problems
are listed by kind, with a fix, and the exit code is 1.

Reads   images.csv, base.csv, the run journals, the data folders, webdataset/, metadata/takedowns/, answers and batches
Writes  nothing; with --fix it removes temporary files of killed runs, restores lost cells from the journals, and
        empties the cells of missing masks, inpainted and resized images, so that their stage creates them again

    python metadata/verify.py
    python metadata/verify.py --root my-dataset
    python metadata/verify.py --root my-dataset --fix
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokefa.console import show
from pokefa.errors import EXIT_FAILED, InputError
from pokefa.ledger.columns import SCHEMAS, TAKEN_DOWN
from pokefa.ledger.journal import RUNS_FOLDER
from pokefa.ledger.replay import compare_with_journals
from pokefa.ledger.runs import Run, read_runs, setting_of_last
from pokefa.ledger.table import KEY
from pokefa.ledger.tables import Ledger, Snapshot
from pokefa.llm.store import check_answers
from pokefa.reporting.check_files import check_base, check_files, check_sums, check_temporaries, missing_files
from pokefa.reporting.check_shards import check_shards
from pokefa.reporting.open_runs import UnderWay
from pokefa.setup.steps import STEPS
from pokefa.stage.funnel import join_tables, read_tables
from pokefa.stage.options import CommandLine, Options, add_json_flag, reading_parser
from pokefa.stage.reader import Reading, run_reading
from pokefa.stage.runner import StageRun
from pokefa.takedown.proof import check_gone

# Examples of each kind on the screen; --json has all.
MOST_EXAMPLES = 5

TAKE_DOWN_AGAIN = "name the images again with takedown.py --id … --apply, which completes the takedown"
FIXES = {
    "table_damaged": "see the message; --rebuild rebuilds the tables from the journals",
    "bad_cell": "correct the cell or empty it",
    "bad_path": "correct the cell: a path must be relative and stay in the data folder",
    "answers_damaged": "restore the file, or move it away: then answers are requested and paid for again",
    "missing_raw": "restore the file, or remove the image with takedown.py",
    "missing_file": "mark it pending with --fix and run its stage; for data_clean, run filter.py again",
    "wrong_md5": "the file was changed or damaged: restore the original",
    "wrong_sha256": "the file was changed or damaged: restore the original",
    "orphan_file": "no row names it: run the stage that writes it, or remove it",
    "temporary_file": "left by a killed run: remove it with --fix",
    "taken_down_bytes": TAKE_DOWN_AGAIN,
    "taken_down_named": TAKE_DOWN_AGAIN,
    "taken_down_shown": TAKE_DOWN_AGAIN,
    "taken_down_asked": TAKE_DOWN_AGAIN,
    "taken_down_unmarked": TAKE_DOWN_AGAIN,
    "takedown_unfinished": TAKE_DOWN_AGAIN,
    "base_not_in_images": "run preprocess/filter/filter.py again",
    "base_not_kept": "run preprocess/filter/filter.py again, then split and webdataset",
    "shard_damaged": "run webdataset/webdataset.py again",
    "shard_not_in_base": "run webdataset/webdataset.py again",
    "shard_lacks_image": "run webdataset/webdataset.py again",
    "manifest_differs": "run webdataset/webdataset.py again",
    "list_differs": "run webdataset/split.py and webdataset/webdataset.py again",
    "journal_damaged": "repair or remove the named line",
    "journal_lost": "a merged journal is missing: restore the file",
    "not_merged": "fill the empty cells from the journals with --fix",
    "looks_taken_down": "it is similar to an image that was taken down: remove it with takedown.py if necessary",
    "edited_by_hand": "nothing to fix: not in any journal, so a person set this value",
    "removed_by_hand": "nothing to fix: a person removed this row",
    "row_without_journal": "nothing to fix: not in any journal, so a person added this row",
    "under_way": "its output was not checked: run verify.py again when it has ended",
}
NOTES = ("under_way", "looks_taken_down", "edited_by_hand", "removed_by_hand", "row_without_journal")
OF_TAKEDOWNS = tuple(kind for kind, fix in FIXES.items() if fix == TAKE_DOWN_AGAIN)

# The stage that recreates a file from the raw image, byte for byte.
MADE_BY = {
    "ocr_boxes_path": "ocr_detect",
    "ocr_mask_path": "ocr_detect",
    "ocr_inpainted_path": "ocr_detect",
    "path_resized": "resize",
}


@dataclass
class Findings:
    """The findings by kind, in the order of the checks.

    `images` counts all rows, `pending` the emptied cells of missing files by stage, and `gone` the images
    taken down.
    """

    by_kind: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    pending: Counter[str] = field(default_factory=Counter)
    images: int = 0
    gone: int = 0

    def add(self, kind: str, what: str) -> None:
        if kind not in FIXES:
            raise ValueError(f"FIXES has no entry for {kind}")
        if what not in self.by_kind[kind]:
            self.by_kind[kind].append(what)

    def add_all(self, found: Iterable[tuple[str, str]]) -> None:
        for kind, what in found:
            self.add(kind, what)

    @property
    def errors(self) -> dict[str, list[str]]:
        return {kind: found for kind, found in self.by_kind.items() if kind not in NOTES}


def verify(ledger: Ledger, fix: bool) -> Findings:
    """Run every check; with `fix`, first fix what is safe to fix.

    Raises:
        InputError: with `fix`, the images are stored elsewhere.
    """
    findings, root = Findings(), ledger.root
    findings.add_all(("table_damaged", line) for line in ledger.check())
    if findings.by_kind:  # a damaged table cannot be compared
        return findings
    findings.add_all(bad_cells(ledger.snapshot()))
    runs: list[Run] = []
    try:
        runs = read_runs(root)
        if not findings.by_kind and ledger.is_writable():
            ledger.merge()
    except InputError as error:
        findings.add("journal_damaged", str(error))
    if fix and not findings.by_kind:
        findings.pending = mark_pending(ledger, runs)
    snapshot, under_way = ledger.snapshot(), UnderWay.of(runs)
    tables = join_tables(snapshot.frames["images"], snapshot.frames["base"])
    findings.images, findings.gone = len(tables.images), len(tables.images.filter(TAKEN_DOWN))
    findings.add_all(("journal_lost", f"{RUNS_FOLDER}/{run_id}.jsonl") for run_id in snapshot.lost)
    findings.add_all(("under_way", f"{one.run.stage}, {one.state}") for one in under_way.runs)
    findings.add_all(check_files(tables, root, under_way))
    findings.add_all(check_sums(tables.images, root))
    findings.add_all(check_answers(root))
    if not under_way.at_work("takedown"):
        findings.add_all(check_base(tables))
        findings.add_all(check_gone(root, tables))
    if not under_way.at_work("takedown", "webdataset", "split"):
        findings.add_all(check_shards(tables, root))
    findings.add_all(compare_with_journals(ledger, snapshot.frames, snapshot.lengths, fix))
    findings.add_all(check_temporaries(root, fix, time.time(), under_way))
    return findings


def bad_cells(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield the invalid cells."""
    for name, bad in snapshot.bad.items():
        yield from (("bad_cell", f"{SCHEMAS[name].path}, image {cell.image_id}, {cell.message}") for cell in bad)


def mark_pending(ledger: Ledger, runs: Sequence[Run]) -> Counter[str]:
    """Empty the cells of missing files whose raw image exists; return how many, by stage.

    Raises:
        InputError: the images are stored elsewhere.
    """
    root, elsewhere = ledger.root, setting_of_last(runs, "data_root")
    if elsewhere is not None:
        raise InputError(
            f"the images are in --data-root {elsewhere}, and --fix would treat them as missing: copy them to {root} "
            "first"
        )
    tables = read_tables(ledger)
    raw = dict(tables.images.select(KEY, "path_raw").iter_rows())
    stages: dict[str, set[str]] = defaultdict(set)
    busy = UnderWay.of(runs).columns
    for file in missing_files(tables, root):
        if file.column in MADE_BY.keys() - busy and (root / (raw[file.image_id] or "missing")).is_file():
            stages[MADE_BY[file.column]].add(file.image_id)
    run = StageRun(STEPS["verify"], Options(root=root), ledger, CommandLine(("--fix",), {"fix": True}))
    for stage, image_ids in stages.items():
        for image_id in sorted(image_ids):
            run.clear(image_id, [stage], reason="file_missing")
            run.counts["file_missing"] += 1
    run.finish()
    return Counter({STEPS[stage].script: len(image_ids) for stage, image_ids in stages.items()})


def show_findings(reading: Reading, fix: bool, details_only: bool) -> None:
    """Print the findings by kind, each with its fix."""
    findings = verify(reading.ledger, fix)
    reading.seen = findings.images
    reading.errors = sum(len(found) for found in findings.errors.values())
    reading.done = reading.seen
    reading.code = EXIT_FAILED if reading.errors else reading.code
    reading.extra = {"counts": {kind: len(found) for kind, found in findings.by_kind.items()}}
    reading.extra["taken_down"] = findings.gone
    if fix:
        reading.extra["pending"] = dict(findings.pending)
    if details_only:
        details: dict[str, Any] = {
            kind: {"fix": FIXES[kind], "is_error": kind not in NOTES, "found": found}
            for kind, found in findings.by_kind.items()
        }
        reading.extra["findings"] = details
        return
    show([*listing(findings), *conclusion(reading.seen, reading.errors, findings)])


def listing(findings: Findings) -> Iterator[str]:
    """Yield the lines of the findings, with a few examples of each kind."""
    for kind, found in findings.by_kind.items():
        yield f"{'note: ' if kind in NOTES else ''}{kind}: {len(found)}. {FIXES[kind]}"
        yield from (f"    {what}" for what in found[:MOST_EXAMPLES])
        if len(found) > MOST_EXAMPLES:
            yield f"    … and {len(found) - MOST_EXAMPLES} more (all with --json)"


def conclusion(images: int, errors: int, findings: Findings) -> Iterator[str]:
    for script, count in findings.pending.items():
        yield f"fixed: {count} {_images(count)} without a file are pending again: run {script}"
    if findings.gone and not findings.by_kind.keys() & OF_TAKEDOWNS:
        yield f"{findings.gone} {_images(findings.gone)} taken down: nothing is left"
    checked = f"{images} images checked: "
    yield checked + (f"{errors} {'thing is' if errors == 1 else 'things are'} wrong" if errors else "all is well")


def _images(count: int) -> str:
    return "image" if count == 1 else "images"


def repair(reading: Reading, *, rebuild: bool) -> None:
    """Rebuild the tables from the journals, or accept them as they are."""
    if rebuild:
        reading.extra = {"rows": reading.ledger.rebuild()}
        show(f"{SCHEMAS[name].path}: {rows} rows" for name, rows in reading.extra["rows"].items())
        return
    reading.ledger.accept()
    show(["The tables are accepted as they are."])


def build_parser() -> argparse.ArgumentParser:
    parser = reading_parser(__doc__)
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--fix",
        action="store_true",
        help="remove temporary files older than ten minutes, fill cells that were not merged, and mark missing derived "
        "files as pending",
    )
    way.add_argument(
        "--rebuild",
        action="store_true",
        help="rebuild the tables from their readable rows and the journals; the old files are kept as "
        "<name>.<time>.before-rebuild",
    )
    way.add_argument(
        "--accept-edits",
        action="store_true",
        help="accept the tables as they are, with rows or cells removed on purpose",
    )
    add_json_flag(parser)
    return parser


def open_unmerged(root: Path) -> Ledger:
    """Return the ledger without merging, because the checks report damage."""
    ledger = Ledger(root)
    ledger.require()
    return ledger


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    fix, details_only, rebuild = args.fix, args.json, args.rebuild

    def body(reading: Reading) -> None:
        if rebuild or args.accept_edits:
            repair(reading, rebuild=rebuild)
        else:
            show_findings(reading, fix, details_only)

    alone = fix or rebuild or args.accept_edits
    return run_reading("verify", args.root, body, alone=alone, open_ledger=open_unmerged)


if __name__ == "__main__":
    raise SystemExit(main())
