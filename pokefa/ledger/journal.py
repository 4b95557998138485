"""Run journals: `metadata/runs/<run_id>.jsonl`, one line per result, appended before the result counts as done.

The first line describes the run. Every other line is one change to one table:

    {"table": "images", "image_id": "…", "set": {"is_nsfw": "False", …}, "reason": "…", "ts": "…"}
    {"table": "images", "image_id": "…", "add": true, "set": {…}}               a new row
    {"table": "images", "image_id": "…", "set": {…}, "drop": {"reason": "…"}}   also a row of drops.csv
    {"table": "base", "columns": […], "rows": [{…}, …]}                         the table's new rows, in order

Values are cell texts, so a replay needs no types. A line counts once its newline is on disk.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pokefa.errors import InputError, PokefaError
from pokefa.files import sync_folder

RUNS_FOLDER = "metadata/runs"
TABLES = ("images", "base")
BLOCK_BYTES = 2**20


def utc_now() -> str:
    """Return the time as `2026-11-22T21:04:05.678Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run_id(stage: str) -> str:
    """Return an id that sorts by the start of the run, such as `20261122T210405678Z-resize-9f3a1c`."""
    stamp = utc_now().translate({ord(mark): None for mark in "-:."})
    return f"{stamp}-{stage}-{os.urandom(3).hex()}"


class Journal:
    """The journal of one run. The first line creates the file, so a run that did nothing leaves none."""

    def __init__(self, root: Path, run_id: str, header: Mapping[str, Any]) -> None:
        self.run_id = run_id
        self.path = root / RUNS_FOLDER / f"{run_id}.jsonl"
        self._header = dict(header)
        self._descriptor: int | None = None
        self._length = 0
        self._synced = True

    @property
    def started(self) -> bool:
        return self._descriptor is not None

    def append(self, entry: Mapping[str, Any], *, durable: bool = False) -> None:
        """Append one line; with `durable` it is on disk, not in a cache, when this returns.

        Raises:
            PokefaError: the line could not be written; the journal is unchanged.
        """
        if self._descriptor is None:
            self._open()
        self._write(entry)
        if durable:
            self.sync()

    def sync(self) -> None:
        """Force all lines to disk."""
        if self._descriptor is not None and not self._synced:
            os.fsync(self._descriptor)
            self._synced = True

    def close(self) -> None:
        if self._descriptor is not None:
            self.sync()
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise PokefaError(f"cannot create {self.path}: {error.strerror}") from None
        self._write(self._header)
        self.sync()
        sync_folder(self.path.parent)

    def _write(self, entry: Mapping[str, Any]) -> None:
        assert self._descriptor is not None
        # A path may contain bytes that are not UTF-8; written as `\udc83` they are valid JSON and can be read back.
        text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        data = text.encode("utf-8", "backslashreplace") + b"\n"
        self._synced = False
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            os.ftruncate(self._descriptor, self._length)
            raise PokefaError(
                f"cannot write {self.path}: {error.strerror}; free some space and run the same command again"
            ) from None
        self._length += len(data)


def read_entries(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (offset after the line, entry) for each complete line of a journal from byte `offset` on.

    A last line without a newline is left by a crash, never counted, and is skipped. The file is closed between blocks
    of lines, so any number of journals can be read in turns.

    Raises:
        InputError: a complete line is not JSON or not an entry; the message gives its number.
    """
    while lines := _read_lines(path, offset):
        for line in lines:
            if not line.endswith(b"\n"):
                return
            end = offset + len(line)
            try:
                entry = check_entry(json.loads(line))
            except (ValueError, RecursionError) as error:
                number = _line_number(path, offset)
                raise InputError(
                    f"{RUNS_FOLDER}/{path.name} line {number} is damaged ({error}): repair that line, or remove it "
                    "to continue without its result"
                ) from None
            yield end, entry
            offset = end


def _read_lines(path: Path, offset: int) -> list[bytes]:
    """Return about BLOCK_BYTES of lines from byte `offset` on; none at the end of the file."""
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.readlines(BLOCK_BYTES)


def check_entry(entry: Any) -> dict[str, Any]:
    """Return a journal entry after checking its shape.

    Raises:
        ValueError: a run does not write such an entry.
    """
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    if not isinstance(entry.get("ts", ""), str):
        raise ValueError("ts is not a text")
    if "table" not in entry:
        return entry
    if entry["table"] not in TABLES:
        raise ValueError(f"unknown table {entry['table']!r}")
    if "rows" in entry:
        columns, rows = entry.get("columns"), entry["rows"]
        if not (_is_list_of(columns, str) and _is_list_of(rows, dict) and all(map(_holds_texts, rows))):
            raise ValueError("rows or columns are not lists of texts")
        return entry
    if not isinstance(entry.get("image_id"), str):
        raise ValueError("image_id is missing")
    if not _holds_texts(entry.get("set")):
        raise ValueError("set is not an object of cells")
    if "drop" in entry and not (isinstance(entry["drop"], dict) and "ts" in entry):
        raise ValueError("drop is not an object, or has no ts")
    if not isinstance(entry.get("usage", {}), dict):
        raise ValueError("usage is not an object")
    return entry


def _is_list_of(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _holds_texts(cells: Any) -> bool:
    return isinstance(cells, dict) and all(text is None or isinstance(text, str) for text in cells.values())


def entries_by_time(offsets: Mapping[Path, int]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Yield (journal, offset after the line, entry) of several journals in order of time, each from its byte offset on.

    Only this order gives the cells that overlapping runs wrote. The lines of one journal keep their order. Lines of the
    same millisecond come in the order of the journals. Memory holds one block of lines for each overlapping journal.

    Raises:
        InputError: a complete line is not JSON; the message gives its number.
    """
    waiting: list[tuple[str, int, tuple[int, dict[str, Any]] | None, Path, Iterator[tuple[int, dict[str, Any]]]]] = []
    for number, (path, offset) in enumerate(offsets.items()):
        started = str(read_header(path).get("started", ""))
        waiting.append((started, number, None, path, read_entries(path, offset)))
    heapq.heapify(waiting)
    while waiting:
        time, number, line, path, lines = heapq.heappop(waiting)
        until = waiting[0][:2] if waiting else None
        while until is None or (time, number) < until:
            if line is not None:
                yield path, *line
            line = next(lines, None)
            if line is None:
                break
            time = line[1].get("ts", time)
        else:
            heapq.heappush(waiting, (time, number, line, path, lines))


def read_header(path: Path) -> dict[str, Any]:
    """Return the first line of a journal: stage, arguments, versions and host of the run."""
    for _, entry in read_entries(path):
        return entry
    return {}


def _line_number(path: Path, offset: int) -> int:
    with path.open("rb") as stream:
        return stream.read(offset).count(b"\n") + 1
