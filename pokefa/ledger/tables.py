"""The ledger: `metadata/images.csv` and `metadata/base.csv`, their run journals, and `metadata/drops.csv`.

Results are written to a run's journal first, and to the tables later in a merge: take the lock, re-read the tables, set
the journalled cells by image_id, write temporary files, fsync, rename, then record in `metadata/runs/merged.json` how
far each journal is merged and the state of the tables. After a crash at any step the next merge repairs the tables,
because setting the same cells again changes nothing. Several journals are merged in order of time, so overlapping runs
always give the same cells. Opening the ledger merges what an earlier run left.

A table that another program has written since the last merge is checked before it is used
(`pokefa/ledger/state.py`). A merge that would lose rows or cells without a journalled reason is refused.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock

from pokefa.errors import InputError
from pokefa.files import keep_beside, replacing, temporary_name
from pokefa.ledger.columns import BASE, DROPS, IMAGES, TAKEN_DOWN, BadCell
from pokefa.ledger.journal import RUNS_FOLDER, entries_by_time, read_header
from pokefa.ledger.merge import Cells, Changes
from pokefa.ledger.state import MERGED_FILE, REBUILD, WAYS_OUT, Merged, TableState, check_edits, read_merged, state_of
from pokefa.ledger.table import KEY, Table, with_missing

TAKEDOWNS_FOLDER = "metadata/takedowns"
LOCK_FILE = "metadata/.ledger.lock"

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Snapshot:
    """A consistent copy of the tables.

    Args:
        frames: cell texts of each table, by name.
        bad: invalid cells; in the frames they are empty.
        lengths: merged bytes of each journal.
        lost: merged journals that are now missing or shorter.
    """

    frames: dict[str, pl.DataFrame]
    bad: dict[str, list[BadCell]]
    lengths: dict[Path, int]
    lost: list[str]


class Ledger:
    """The tables under one root, and the only way to change them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = Table(root, IMAGES)
        self.base = Table(root, BASE)
        self.drops = Table(root, DROPS)
        self._lock = FileLock(root / LOCK_FILE)

    @classmethod
    def open(cls, root: Path, *, create: bool = False) -> Ledger:
        """Return the ledger under `root`, after merging what earlier runs left in their journals.

        Raises:
            InputError: there is no ledger under `root`, unless `create`; or a table or journal is damaged.
        """
        ledger = cls(root)
        ledger.require(create=create)
        ledger.merge()
        return ledger

    @classmethod
    def open_to_read(cls, root: Path) -> Ledger:
        """Return the ledger like `open`; under a read-only root, the merge is done in memory only.

        Raises:
            InputError: there is no ledger under `root`, or a table or journal is damaged.
        """
        ledger = cls(root)
        ledger.require()
        if ledger.is_writable():
            ledger.merge()
            return ledger
        merged = ledger._read_merged()
        ledger._check_tables(merged)
        _, frames = ledger._changed_tables(merged)
        for name, frame in frames.items():
            ledger.tables[name].held = frame
        return ledger

    def is_writable(self) -> bool:
        """Tell whether the tables can be written."""
        return os.access(self.images.path.parent, os.W_OK | os.X_OK)

    def require(self, *, create: bool = False) -> None:
        """Check that there is a ledger.

        Raises:
            InputError: there is none, unless `create`.
        """
        if not (create or self.images.exists() or (self.root / RUNS_FOLDER).is_dir()):
            raise InputError(
                f"no ledger at {self.images.path}: run scraping/scrape.py first, or name the dataset's folder with "
                "--root"
            )

    @property
    def tables(self) -> dict[str, Table]:
        return {"images": self.images, "base": self.base, "drops": self.drops}

    def table(self, name: str) -> Table:
        """Return the table called `images` or `base`."""
        return {"images": self.images, "base": self.base}[name]

    def begin(self) -> None:
        """Record the state of the tables before the first journal: later, a missing merged.json is an error."""
        (self.root / MERGED_FILE).parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if not (self.root / MERGED_FILE).exists() and not self.journal_lengths():
                self._write_merged(Merged(tables=self._states()))

    def merge(self) -> bool:
        """Merge every journalled result into the tables; return whether there was any.

        Raises:
            InputError: a journal or a table is damaged, or a table has lost rows.
            PokefaError: a table could not be written; nothing is lost, because the journals keep the results.
        """
        if not (self.root / RUNS_FOLDER).is_dir():
            self._check_tables(Merged())
            return False
        with self._lock:
            merged = self._read_merged()
            edited = self._check_tables(merged)
            offsets, frames = self._changed_tables(merged)
            if offsets:
                self._remove_leftovers()
                self._write_tables(frames, Merged(merged.journals | offsets, merged.tables), merged.journals)
            elif edited and merged.tables:
                self._write_merged(Merged(merged.journals, self._states()))
            return bool(offsets)

    def accept(self) -> None:
        """Accept the tables as they are now.

        Raises:
            InputError: a table cannot be read.
        """
        with self._lock:
            self._write_merged(Merged(self._read_merged().journals, self._states()))

    def rebuild(self) -> dict[str, int]:
        """Rebuild the tables from their readable rows and all journalled results; return the rows of each.

        The old files are kept beside the new ones, as `images.csv.<time>.before-rebuild`. If a journal and a cell
        disagree, the journal counts.

        Raises:
            InputError: a journal is damaged.
        """
        with self._lock:
            for table in self.tables.values():
                table.held = table.salvage()
            try:
                offsets, frames = self._changed_tables(Merged())
            finally:
                survivors = {name: table.held for name, table in self.tables.items()}
                for table in self.tables.values():
                    table.held = None
            for name, frame in survivors.items():
                if frame is not None and self.tables[name].exists():
                    keep_beside(self.tables[name].path)
                    frames.setdefault(name, frame)
            self._remove_leftovers()
            self._write_tables(frames, Merged(offsets), {})
            return {name: len(frame) for name, frame in frames.items()}

    def refill(self, name: str, cells: Mapping[str, Cells], lengths: Mapping[Path, int]) -> bool:
        """Set lost cells of the table `name`, by image_id; return whether they were set.

        Args:
            lengths: bytes of each journal when the loss was found. Nothing is set if one has grown, because a newer
                line may have emptied the cells.
        """
        with self._lock:
            if lengths != self.journal_lengths():
                return False
            merged = self._read_merged()
            changes = Changes(self.table(name))
            for image_id, texts in cells.items():
                changes.add({KEY: image_id, "set": texts})
            self._write_tables({name: changes.result()}, merged, merged.journals)
            return True

    def journal_lengths(self) -> dict[Path, int]:
        """Return the length of each journal in bytes, in order of the runs' start."""
        return {path: path.stat().st_size for path in sorted((self.root / RUNS_FOLDER).glob("*.jsonl"))}

    def snapshot(self) -> Snapshot:
        """Return a consistent copy of all tables, and how much of each journal they contain.

        Raises:
            InputError: a table is not CSV, or merged.json is damaged.
        """
        with self._lock if self.is_writable() else nullcontext():
            frames: dict[str, pl.DataFrame] = {}
            bad: dict[str, list[BadCell]] = {}
            for name, table in self.tables.items():
                frames[name], bad[name] = table.read_leniently()
            lengths, merged = self.journal_lengths(), self._read_merged().journals
            found = {path.stem: length for path, length in lengths.items()}
            lost = [run_id for run_id, length in merged.items() if found.get(run_id, 0) < length]
            if not any(table.held is not None for table in self.tables.values()):
                lengths = {path: merged.get(path.stem, 0) for path in lengths}
            return Snapshot(frames, bad, lengths, lost)

    def check(self) -> Iterator[str]:
        """Yield a line for each table that is damaged, or has lost rows or cells that no run removed."""
        with self._lock if self.is_writable() else nullcontext():
            try:
                merged = self._read_merged()
            except InputError as error:
                yield str(error)
                merged = Merged()
            for name in self.tables:
                try:
                    self._check_table(name, merged, lenient=True)
                except InputError as error:
                    yield str(error)

    # -- checking the files ----------------------------------------------------------------------------------------

    def _check_tables(self, merged: Merged) -> bool:
        """Check every table that changed since the last merge; return whether there is one.

        Raises:
            InputError: a table is damaged, or has lost rows or cells that no run removed.
        """
        edited = [name for name in self.tables if self._check_table(name, merged)]
        return bool(edited)

    def _check_table(self, name: str, merged: Merged, *, lenient: bool = False) -> bool:
        table, states = self.tables[name], merged.tables.get(name, [])
        path = table.schema.path
        if not table.exists():
            if any(state.rows for state in states):
                raise InputError(f"{path} is missing and held {states[0].rows} rows: {WAYS_OUT}")
            return False
        if any(state.is_file(table.path) for state in states):
            return False
        table.check_records()
        frame, bad = table.read_leniently()
        for cell in bad:
            if not lenient or cell.column == KEY:
                raise InputError(f"{path}, image {cell.image_id}, {cell.message}")
        if not table.schema.is_log:
            table.check_keys(frame)
        removed = _check_edits(path, frame, states)
        if name == "images":
            self._check_takedowns(frame)
        if removed:
            log.warning("%s: %d rows were removed since the last run; metadata/verify.py names them", path, removed)
        return True

    def _check_takedowns(self, images: pl.DataFrame) -> None:
        """Check that no edit restores an image that was taken down.

        Raises:
            InputError: a row's drop_reason was changed, or a record cannot be read.
        """
        for path in sorted((self.root / TAKEDOWNS_FOLDER).glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                gone = [str(image[KEY]) for image in record["images"]] if record["finished"] else []
            except (OSError, ValueError, KeyError, TypeError):
                raise InputError(f"{TAKEDOWNS_FOLDER}/{path.name} is damaged: restore it") from None
            unmarked = with_missing(images, ["drop_reason"]).filter(pl.col(KEY).is_in(gone) & ~TAKEN_DOWN)
            if len(unmarked):
                raise InputError(
                    f"{IMAGES.path}, image {unmarked[KEY][0]} was taken down, but its drop_reason was changed: "
                    "restore the cell to takedown:asked"
                )

    def _states(self) -> dict[str, list[TableState]]:
        return {
            name: [state_of(table.path, table.read(), table.schema.names)]
            for name, table in self.tables.items()
            if table.exists()
        }

    # -- merging --------------------------------------------------------------------------------------------------

    def _changed_tables(self, merged: Merged) -> tuple[dict[str, int], dict[str, pl.DataFrame]]:
        """Return how far each journal was read, by run_id, and the changed tables, by name."""
        offsets: dict[str, int] = {}
        changes: dict[str, Changes] = {}
        drops: list[Cells] = []
        for path, stage, end, entry in self._unmerged(merged):
            offsets[path.stem] = end
            if "table" not in entry:
                continue  # the header, or the closing summary
            if entry["table"] not in changes:
                changes[entry["table"]] = Changes(self.table(entry["table"]))
            changes[entry["table"]].add(entry)
            if "drop" in entry:
                facts = {"ts": entry["ts"], KEY: entry[KEY], "stage": stage, "run_id": path.stem}
                drops.append(facts | entry["drop"])
        frames = {name: change.result() for name, change in changes.items()}
        if drops:
            images = frames["images"] if "images" in frames else self.images.read_keyed()
            frames["drops"] = self._with_drops(drops, images)
        return offsets, frames

    def _unmerged(self, merged: Merged) -> Iterator[tuple[Path, str, int, dict[str, Any]]]:
        """Yield (journal, stage, offset after the line, entry) of every line that is not merged."""
        lengths = self.journal_lengths()
        begun = {path: merged.journals.get(path.stem, 0) for path in lengths}
        longer = {path: offset for path, offset in begun.items() if lengths[path] > offset}
        stages = {path: str(read_header(path).get("stage", "")) for path in longer}
        for path, end, entry in entries_by_time(longer):
            yield path, stages[path], end, entry

    def _with_drops(self, drops: Iterable[Cells], images: pl.DataFrame) -> pl.DataFrame:
        """Return drops.csv with new rows; rows that exist are not added again."""
        urls = with_missing(images, ["source_url"]).select(KEY, "source_url")
        new = pl.DataFrame(list(drops), schema=dict.fromkeys(DROPS.names, pl.String)).drop("source_url")
        new = new.join(urls, on=KEY, how="left", maintain_order="left").select(DROPS.names)
        old = with_missing(self.drops.read(), DROPS.names)
        rows = pl.concat([old, new], how="diagonal")
        return rows.unique([KEY, "stage", "reason", "run_id"], keep="first", maintain_order=True)

    def _write_tables(self, frames: Mapping[str, pl.DataFrame], after: Merged, before: Mapping[str, int]) -> None:
        """Replace tables atomically, and record it.

        A run that is killed between two renames leaves some tables old and some new; merged.json lists both states.

        Args:
            after: the journals merged into the new tables, and the states of the old tables.
            before: the journals merged into the old tables.
        """
        with ExitStack() as renames:
            new: dict[str, list[TableState]] = {}
            for name, frame in frames.items():
                table = self.tables[name]
                stream = renames.enter_context(replacing(table.path))
                table.write_to(stream, frame)
                stream.flush()
                new[name] = [state_of(Path(stream.name), frame, table.schema.names)]
            either = {name: after.tables.get(name, []) + new.get(name, []) for name in {*after.tables, *new}}
            self._write_merged(Merged(dict(before), either))
        self._write_merged(Merged(after.journals, after.tables | new))

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of killed merges; under the lock, no other merge is running."""
        for path in (*(table.path for table in self.tables.values()), self.root / MERGED_FILE):
            for leftover in path.parent.glob(temporary_name(path, "*")):
                leftover.unlink(missing_ok=True)

    def _read_merged(self) -> Merged:
        """Return the content of merged.json.

        Raises:
            InputError: it is damaged, or missing although tables were merged.
        """
        merged = read_merged(self.root / MERGED_FILE)
        if merged is None and self._names_a_journal():
            raise InputError(f"{MERGED_FILE} is missing: {REBUILD}")
        return merged or Merged()

    def _names_a_journal(self) -> bool:
        """Tell whether images.csv contains results of a journal, which shows that one was merged."""
        journals = [path.stem for path in self.journal_lengths()]
        if not journals or not self.images.exists():
            return False
        frame, _ = self.images.read_leniently()
        run_ids = [name for name in frame.columns if name.endswith("_run_id")]
        return any(frame[name].is_in(journals).any() for name in run_ids)

    def _write_merged(self, merged: Merged) -> None:
        with replacing(self.root / MERGED_FILE) as stream:
            stream.write(merged.to_text().encode())


def _check_edits(path: str, frame: pl.DataFrame, states: Iterable[TableState]) -> int:
    """Check that a table is a plausible edit of one of `states`; return the number of removed rows.

    Raises:
        InputError: it is not.
    """
    refusal: InputError | None = None
    for state in states:
        try:
            return check_edits(path, frame, state)
        except InputError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    return 0
