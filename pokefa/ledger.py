"""The ledger: `metadata/images.csv` and `metadata/base.csv`, their run journals, and `metadata/drops.csv`.

Results reach a run's journal first and the tables later, in a merge: take the lock, re-read the tables, set the
journalled cells by image_id, write beside, fsync, rename, then note in `metadata/runs/merged.json` how far each
journal is merged. A crash between any two of these steps is mended by the next merge, because setting the same
cells again changes nothing. Several journals are merged in the order of time, so that runs which overlapped give the
same cells whenever they are merged. Opening the ledger merges what an earlier run left behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl
from filelock import FileLock

from pokefa.columns import BASE, DROPS, IMAGES
from pokefa.errors import InputError
from pokefa.journal import RUNS_FOLDER, entries_by_time, read_header
from pokefa.merging import Cells, Changes
from pokefa.table import KEY, Table, replacing, temporary_name, with_missing

LOCK_FILE = "metadata/.ledger.lock"
MERGED_FILE = f"{RUNS_FOLDER}/merged.json"


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
            InputError: there is no ledger under `root`, unless `create`.
        """
        ledger = cls(root)
        if not (create or ledger.images.exists() or (root / RUNS_FOLDER).is_dir()):
            raise InputError(
                f"no ledger at {ledger.images.path}: run scraping/scrape.py first, or name the dataset's folder "
                "with --root"
            )
        ledger.merge()
        return ledger

    def table(self, name: str) -> Table:
        """Return the table called `images` or `base`."""
        return {"images": self.images, "base": self.base}[name]

    def merge(self) -> bool:
        """Bring every journalled result into the tables; return whether there was anything to bring.

        Raises:
            InputError: a journal or a table is damaged.
            PokefaError: a table could not be written; nothing is lost, the journals still hold it.
        """
        if not (self.root / RUNS_FOLDER).is_dir():
            return False
        with self._lock:
            merged = self._read_merged()
            offsets: dict[str, int] = {}
            changes: dict[str, Changes] = {}
            drops: list[Cells] = []
            lengths = self.journal_lengths()
            begun = {path: merged.get(path.stem, 0) for path in lengths}
            longer = {path: offset for path, offset in begun.items() if lengths[path] > offset}
            stages = {path: read_header(path).get("stage", "") for path in longer}
            for path, end, entry in entries_by_time(longer):
                offsets[path.stem] = end
                if "table" not in entry:
                    continue  # the header, or the closing summary
                if entry["table"] not in changes:
                    changes[entry["table"]] = Changes(self.table(entry["table"]))
                changes[entry["table"]].add(entry)
                if "drop" in entry:
                    facts = {"ts": entry["ts"], KEY: entry[KEY], "stage": stages[path], "run_id": path.stem}
                    drops.append(facts | entry["drop"])
            if not offsets:
                return False
            self._remove_leftovers()
            for name, change in changes.items():
                self.table(name).write(change.result())
            if drops:
                self._append_drops(drops)
            self._write_merged(merged | offsets)
            return True

    def refill(self, name: str, cells: Mapping[str, Cells], lengths: Mapping[Path, int]) -> bool:
        """Set cells, by image_id, that the table called `name` has lost; return whether that was done.

        Args:
            lengths: bytes of each journal when the cells were found lost: what was journalled since may have emptied
                them, and then nothing is set.
        """
        with self._lock:
            if lengths != self.journal_lengths():
                return False
            changes = Changes(self.table(name))
            for image_id, texts in cells.items():
                changes.add({KEY: image_id, "set": texts})
            self.table(name).write(changes.result())
            return True

    def journal_lengths(self) -> dict[Path, int]:
        """Return the bytes of each journal, in the order in which the runs started."""
        return {path: path.stat().st_size for path in sorted((self.root / RUNS_FOLDER).glob("*.jsonl"))}

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of merges that were killed: who holds the lock knows that nobody writes them."""
        for path in (self.images.path, self.base.path, self.drops.path, self.root / MERGED_FILE):
            for leftover in path.parent.glob(temporary_name(path, "*")):
                leftover.unlink(missing_ok=True)

    def _append_drops(self, drops: Iterable[Cells]) -> None:
        """Append rows to drops.csv; a replay of rows that are there already adds none twice."""
        images = with_missing(self.images.read(), ["source_url"]).select(KEY, "source_url")
        new = pl.DataFrame(list(drops), schema=dict.fromkeys(DROPS.names, pl.String)).drop("source_url")
        new = new.join(images, on=KEY, how="left", maintain_order="left").select(DROPS.names)
        old = with_missing(self.drops.read(), DROPS.names)
        rows = pl.concat([old, new], how="diagonal")
        self.drops.write(rows.unique([KEY, "stage", "reason", "run_id"], keep="first", maintain_order=True))

    def _read_merged(self) -> dict[str, int]:
        try:
            merged = json.loads((self.root / MERGED_FILE).read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            raise InputError(
                f"{MERGED_FILE} is damaged: restore it, or remove it, and every journal is merged anew, over what was "
                "edited by hand in cells that stages set"
            ) from None
        return {str(run_id): int(offset) for run_id, offset in merged.items()}

    def _write_merged(self, merged: Mapping[str, int]) -> None:
        with replacing(self.root / MERGED_FILE) as stream:
            stream.write(json.dumps(merged, indent=0, sort_keys=True).encode())
