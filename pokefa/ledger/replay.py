"""The journals replayed from the start and compared with the tables.

A cell that differs was edited or lost. If a table contains none of the cells that a run recorded for an image, the run
was not merged. Any other difference is a manual edit.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import polars as pl

from pokefa.errors import InputError
from pokefa.ledger.columns import SCHEMAS
from pokefa.ledger.journal import RUNS_FOLDER, entries_by_time
from pokefa.ledger.merge import Cells
from pokefa.ledger.table import KEY, with_missing
from pokefa.ledger.tables import Ledger

Cell = tuple[str, str]  # image_id, column
Lengths = Mapping[Path, int]  # merged bytes of each journal


def compare_with_journals(
    ledger: Ledger, frames: Mapping[str, pl.DataFrame], lengths: Lengths, fix: bool
) -> Iterator[tuple[str, str]]:
    """Yield (kind, what) for each difference between the tables and their journals.

    With `fix`, cells that a merge lost are filled and not reported, unless a stage is writing a journal.

    Args:
        frames: the tables by name, read when `lengths` of the journals were merged.
    """
    with tempfile.TemporaryDirectory(prefix="pokefa-replay-") as folder:
        try:
            replayed = replay(lengths, Path(folder))
        except InputError as error:
            yield "journal_damaged", str(error)
            return
        for name in ("images", "base"):
            lost: dict[str, Cells] = defaultdict(dict)
            found = list(compare_tables(name, frames[name], replayed.table(name).read_keyed(), lengths, lost))
            filled = fix and lost and ledger.refill(name, lost, lengths)
            for kind, what in found:
                if filled and kind == "not_merged":
                    print(f"filled {what}")
                else:
                    yield kind, what


def replay(lengths: Lengths, folder: Path) -> Ledger:
    """Return a ledger in the empty `folder`, built from the first bytes of each journal.

    Raises:
        InputError: a journal is damaged.
    """
    runs = folder / RUNS_FOLDER
    runs.mkdir(parents=True)
    for path, length in lengths.items():
        with path.open("rb") as journal:
            (runs / path.name).write_bytes(journal.read(length))
    return Ledger.open(folder, create=True)


def compare_tables(
    name: str, actual: pl.DataFrame, expected: pl.DataFrame, lengths: Lengths, lost: dict[str, Cells]
) -> Iterator[tuple[str, str]]:
    """Yield (kind, what) for each row and declared cell that differs between a table and its replay.

    Args:
        lost: filled with the journalled texts of the cells that were not merged, by image_id and column.
    """
    schema = SCHEMAS[name]
    for image_id in expected.join(actual, on=KEY, how="anti")[KEY]:
        yield "removed_by_hand", f"{schema.path}, image {image_id}"
    for image_id in actual.join(expected, on=KEY, how="anti")[KEY]:
        yield "row_without_journal", f"{schema.path}, image {image_id}"
    different = dict(_different_cells(actual, expected, schema.names))
    if not different:
        return
    setters = last_setters(lengths, name, {image_id for image_id, _ in different})
    by_result: dict[tuple[str, str], list[str]] = defaultdict(list)
    for image_id, column in different:
        by_result[image_id, setters.get((image_id, column), "")].append(column)
    recorded: dict[tuple[str, str], int] = defaultdict(int)
    for (image_id, _), run_id in setters.items():
        recorded[image_id, run_id] += 1
    for (image_id, run_id), columns in by_result.items():
        texts = [different[image_id, column] for column in columns]
        nothing_there = all(text is None for text, _ in texts)
        if run_id and nothing_there and len(columns) == recorded[image_id, run_id] > 1:
            lost[image_id] |= {column: different[image_id, column][1] for column in columns}
            yield "not_merged", f"{schema.path}, image {image_id}: nothing of run {run_id} ({', '.join(columns)})"
            continue
        for column, (text, journalled) in zip(columns, texts, strict=True):
            yield (
                "edited_by_hand",
                f"{schema.path}, image {image_id}, {column}: {_shown(text)}, journals: {_shown(journalled)}",
            )


def last_setters(lengths: Lengths, table: str, image_ids: Collection[str]) -> Mapping[Cell, str]:
    """Return the last run that set each cell of these images, without cells that it emptied."""
    setters: dict[Cell, str] = {}
    for path, end, entry in entries_by_time(dict.fromkeys(lengths, 0)):
        if entry.get("table") != table or end > lengths[path]:
            continue
        rows = [(row.get(KEY), row) for row in entry["rows"]] if "rows" in entry else [(entry[KEY], entry["set"])]
        for image_id, cells in rows:
            for column, text in cells.items() if image_id in image_ids else ():
                if column == KEY:
                    continue
                setters.pop((image_id, column), None)
                if text is not None:
                    setters[image_id, column] = path.stem
    return setters


def _different_cells(
    actual: pl.DataFrame, expected: pl.DataFrame, columns: list[str]
) -> Iterator[tuple[Cell, tuple[str | None, str | None]]]:
    """Yield ((image_id, column), (text, journalled text)) for the rows in both frames."""
    actual, expected = with_missing(actual, columns), with_missing(expected, columns)
    both = actual.join(expected, on=KEY, how="inner", suffix=" journalled", maintain_order="left")
    for column in columns:
        if column == KEY:
            continue
        other = f"{column} journalled"
        differing = both.filter(pl.col(column).ne_missing(pl.col(other)))
        for image_id, text, journalled in differing.select(KEY, column, other).iter_rows():
            yield (image_id, column), (text, journalled)


def _shown(text: str | None) -> str:
    return "(empty)" if text is None else text
