"""The ledger: `metadata/images.csv` and `metadata/base.csv`, their run journals, and `metadata/drops.csv`.

Results reach a run's journal first and the tables later, in a merge: take the lock, re-read the tables, set the
journalled cells by image_id, write beside, fsync, rename, then note in `metadata/runs/merged.json` how far each
journal is merged and what the tables are now. A crash between any two of these steps is mended by the next merge,
because setting the same cells again changes nothing. Several journals are merged in the order of time, so that runs
which overlapped give the same cells whenever they are merged. Opening the ledger merges what an earlier run left.

A table that another program has written since the last merge is checked before anything is decided by it
(`pokefa/ledger/state.py`), and a merge that would lose rows or cells without a journalled reason is refused.
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
    """The tables at one moment.

    Args:
        frames: cell texts of each table, by its name.
        bad: cells that hold no value of their column's type; in the frames they are empty.
        lengths: bytes of each journal that the tables hold.
        lost: journals that were merged, and are gone or shorter than they were.
    """

    frames: dict[str, pl.DataFrame]
    bad: dict[str, list[BadCell]]
    lengths: dict[Path, int]
    lost: list[str]


class Ledger:
    """The tables under one root, and the one way to change them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = Table(root, IMAGES)
        self.base = Table(root, BASE)
        self.drops = Table(root, DROPS)
        self._lock = FileLock(root / LOCK_FILE)

    @classmethod
    def open(cls, root: Path, *, create: bool = False) -> Ledger:
        """Return the ledger under `root`, having merged what earlier runs left in their journals.

        Raises:
            InputError: there is no ledger under `root`, unless `create`; or a table or journal is damaged.
        """
        ledger = cls(root)
        ledger.require(create=create)
        ledger.merge()
        return ledger

    @classmethod
    def open_to_read(cls, root: Path) -> Ledger:
        """Return the ledger as `open` does; under a root that cannot be written, the merge is made in memory.

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
        """Tell whether merges can be made here."""
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
        """Write down what the tables are before the first journal is begun.

        From then on a missing merged.json is a lost one.
        """
        (self.root / MERGED_FILE).parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if not (self.root / MERGED_FILE).exists() and not self.journal_lengths():
                self._write_merged(Merged(tables=self._states()))

    def merge(self) -> bool:
        """Bring every journalled result into the tables; return whether there was anything to bring.

        Raises:
            InputError: a journal or a table is damaged, or a table has lost rows.
            PokefaError: a table could not be written; nothing is lost, the journals still hold it.
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
        """Take the tables as they are now for what they are meant to be.

        Raises:
            InputError: one cannot be read.
        """
        with self._lock:
            self._write_merged(Merged(self._read_merged().journals, self._states()))

    def rebuild(self) -> dict[str, int]:
        """Make the tables anew: what can still be read of them, with every journalled result set again.

        The old files are kept beside the new ones, as `images.csv.<time>.before-rebuild`. Where a journal and a cell
        disagree, the journal counts. Returns how many rows each table has now.

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
        """Set cells, by image_id, that the table called `name` has lost; return whether that was done.

        Args:
            lengths: bytes of each journal when the cells were found lost: what was journalled since may have emptied
                them, and then nothing is set.
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
        """Return the bytes of each journal, in the order in which the runs started."""
        return {path: path.stat().st_size for path in sorted((self.root / RUNS_FOLDER).glob("*.jsonl"))}

    def snapshot(self) -> Snapshot:
        """Return all tables as they are at one moment, and how much of each journal they hold.

        Raises:
            InputError: a table is no CSV table, or merged.json is damaged.
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

    # -- checking what lies there ---------------------------------------------------------------------------------

    def _check_tables(self, merged: Merged) -> bool:
        """Check every table that is not as the last merge left it; return whether there is one.

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
        """Check that no edit lets an image back in that was taken down.

        Raises:
            InputError: a row no longer says so, or a record cannot be read.
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
                    f"{IMAGES.path}, image {unmarked[KEY][0]} was taken down and its drop_reason no longer says so: "
                    "restore the cell, as takedown:asked"
                )

    def _states(self) -> dict[str, list[TableState]]:
        return {
            name: [state_of(table.path, table.read(), table.schema.names)]
            for name, table in self.tables.items()
            if table.exists()
        }

    # -- merging --------------------------------------------------------------------------------------------------

    def _changed_tables(self, merged: Merged) -> tuple[dict[str, int], dict[str, pl.DataFrame]]:
        """Return how far each journal was read, by run_id, and the tables that its lines change, by name."""
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
        """Yield (journal, stage, offset behind the line, entry) of every line that is not in the tables."""
        lengths = self.journal_lengths()
        begun = {path: merged.journals.get(path.stem, 0) for path in lengths}
        longer = {path: offset for path, offset in begun.items() if lengths[path] > offset}
        stages = {path: str(read_header(path).get("stage", "")) for path in longer}
        for path, end, entry in entries_by_time(longer):
            yield path, stages[path], end, entry

    def _with_drops(self, drops: Iterable[Cells], images: pl.DataFrame) -> pl.DataFrame:
        """Return drops.csv with more rows; a replay of rows that are there already adds none twice."""
        urls = with_missing(images, ["source_url"]).select(KEY, "source_url")
        new = pl.DataFrame(list(drops), schema=dict.fromkeys(DROPS.names, pl.String)).drop("source_url")
        new = new.join(urls, on=KEY, how="left", maintain_order="left").select(DROPS.names)
        old = with_missing(self.drops.read(), DROPS.names)
        rows = pl.concat([old, new], how="diagonal")
        return rows.unique([KEY, "stage", "reason", "run_id"], keep="first", maintain_order=True)

    def _write_tables(self, frames: Mapping[str, pl.DataFrame], after: Merged, before: Mapping[str, int]) -> None:
        """Replace tables, all of them whole, and note it.

        A run that is killed between two renames leaves some tables old and some new: merged.json knows both.

        Args:
            after: the journals that the new tables hold, and the states of the old ones.
            before: the journals that the old ones hold.
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
        """Remove the temporary files of merges that were killed: who holds the lock knows that nobody writes them."""
        for path in (*(table.path for table in self.tables.values()), self.root / MERGED_FILE):
            for leftover in path.parent.glob(temporary_name(path, "*")):
                leftover.unlink(missing_ok=True)

    def _read_merged(self) -> Merged:
        """Return what merged.json says.

        Raises:
            InputError: it is damaged, or missing although tables were merged.
        """
        merged = read_merged(self.root / MERGED_FILE)
        if merged is None and self._names_a_journal():
            raise InputError(f"{MERGED_FILE} is missing: {REBUILD}")
        return merged or Merged()

    def _names_a_journal(self) -> bool:
        """Tell whether images.csv holds results of a run whose journal is here, so that it was merged before."""
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
    """Check that a table may be an edited one of `states`; return how many rows were removed.

    Raises:
        InputError: it can be none of them.
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
