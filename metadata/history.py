"""Show the history of one image in order of time, and its current state.

It lists every journal entry about the image: the cells it set, the reason, the thresholds, and the run with its code
version and arguments. Then it shows the existing files, the row of base.csv, and the shard. --json adds the library
versions of the runs. A unique prefix of an id is enough.

Reads   images.csv, base.csv, the run journals, the data folders, webdataset/data
Writes  nothing

    python metadata/history.py 3f2a
    python metadata/history.py 3f2a9c0de1b24c55a0f1e2d3c4b5a697 --root my-dataset
    python metadata/history.py 3f2a --root my-dataset --json
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.console import show
from pokefa.errors import ImageError, InputError
from pokefa.files import locate
from pokefa.ledger.columns import BASE, IMAGES
from pokefa.ledger.runs import Run, entries_of_run, read_runs
from pokefa.ledger.table import KEY
from pokefa.setup.steps import first_step_of
from pokefa.shards.layout import DATA, read_members, shard_paths
from pokefa.stage.options import add_json_flag, reading_parser, result_settings
from pokefa.stage.reader import Reading, run_reading
from pokefa.stage.rows import find_ids

# Known keys of a journal entry; any others, such as the cost of an answer, are shown as they are.
USUAL_KEYS = ("table", KEY, "set", "add", "ts", "reason", "drop")


@dataclass(frozen=True)
class Event:
    """One event in the history of an image; `settings` are the numbers behind a decision."""

    ts: str
    stage: str
    run_id: str
    code: str
    what: str
    cells: dict[str, str | None] = field(default_factory=dict)
    detail: str | None = None
    settings: dict[str, float] = field(default_factory=dict)


def events_of(image_id: str, runs: Sequence[Run]) -> list[Event]:
    """Return the journal entries about an image, oldest first.

    Raises:
        InputError: a journal is damaged.
    """
    events: list[Event] = []
    in_base = False
    for run in runs:
        notes: list[Event] = []
        touched = False
        for entry in entries_of_run(run.path):
            happened: list[Event] = []
            if "note" in entry:
                note = dict(entry["note"])
                if image_id in note.pop("image_ids", [note.pop(KEY, image_id)]):
                    notes.append(_event(run, entry, "note", detail=_shown(note)))
            elif "rows" in entry:
                row = next((row for row in entry["rows"] if row.get(KEY) == image_id), None)
                if row is not None and not in_base:
                    happened.append(_event(run, entry, f"entered {entry['table']}.csv", row))
                elif row is None and in_base:
                    happened.append(_event(run, entry, f"left {entry['table']}.csv"))
                in_base = row is not None
            elif entry.get(KEY) == image_id:
                what = str(entry.get("reason", f"set in {entry['table']}.csv"))
                more = {name: value for name, value in entry.items() if name not in USUAL_KEYS}
                detail = (entry.get("drop") or {}).get("detail") or (_shown(more) if more else None)
                event = _event(run, entry, what, entry["set"], detail)
                happened.append(replace(event, settings=numbers_of(run)))
            touched = touched or bool(happened)
            events += happened
        events += notes if touched else []
    return sorted(events, key=lambda event: event.ts)


def numbers_of(run: Run) -> dict[str, float]:
    """Return the numeric settings of a run."""
    return {
        name: value
        for name, value in result_settings(run).items()
        if first_step_of(run.stage).settings_matter and isinstance(value, int | float) and value is not True
    }


def files_of(root: Path, cells: dict[str, str | None], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the files of a row, with their existence and size in bytes."""
    found = []
    for column in columns:
        if cells.get(column):
            try:
                path = locate(root, cells[column])
                size = path.stat().st_size if path.is_file() else None
            except (ImageError, OSError):
                size = None
            found.append({"column": column, "path": cells[column], "exists": size is not None, "bytes": size})
    return found


def find_in_shards(root: Path, image_id: str) -> list[dict[str, Any]]:
    """Return the image's files in the shards: shard, extension, offset and size in bytes.

    Raises:
        InputError: a shard is damaged.
    """
    return [
        {"shard": f"{DATA}/{shard.name}", **asdict(member)}
        for shard in shard_paths(root)
        for member in read_members(shard)
        if member.image_id == image_id
    ]


def row_of(frame: pl.DataFrame, image_id: str) -> dict[str, str | None]:
    """Return the cells of an image's row, or {} if it has none."""
    rows = frame.filter(pl.col(KEY) == image_id).to_dicts()
    return rows[0] if rows else {}


def life_of(reading: Reading, name: str) -> dict[str, Any]:
    """Return the history of the image whose id is or begins with `name`.

    Raises:
        InputError: no image or several images match.
    """
    images = reading.ledger.images.read_keyed()
    found, _ = find_ids([name], images[KEY].to_list())
    if not found:
        raise InputError(f"no image {name} in {reading.ledger.images.schema.path}: give an image_id or a prefix")
    image_id = found[0]
    row = row_of(images, image_id)
    base_row = row_of(reading.ledger.base.read_keyed(), image_id)
    runs = read_runs(reading.root)
    events = events_of(image_id, runs)
    named = {event.run_id for event in events}
    return {
        "image_id": image_id,
        "events": [asdict(event) for event in events],
        "taken_down": (row.get("drop_reason") or "").startswith("takedown:"),
        "files": files_of(reading.root, row, IMAGES.path_names) + files_of(reading.root, base_row, BASE.path_names),
        "base": {column: text for column, text in base_row.items() if text is not None},
        "shards": find_in_shards(reading.root, image_id),
        "runs": [run_facts(run) for run in runs if run.run_id in named],
    }


def run_facts(run: Run) -> dict[str, Any]:
    """Return the facts about a run."""
    facts = {"run_id": run.run_id, "stage": run.stage, "started": run.started, "code": run.code, "host": run.host}
    return {
        **facts,
        "arguments": list(run.arguments),
        "settings": dict(run.settings),
        "complete": run.complete,
        "libraries": run.libraries,
    }


def story(life: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of an image's history."""
    arguments = {run["run_id"]: run["arguments"] for run in life["runs"]}
    yield f"image {life['image_id']}"
    for event in life["events"]:
        yield ""
        yield f"{event['ts'][:19]}  {event['stage']}: {event['what']}"
        if event["detail"]:
            yield f"    {event['detail']}"
        for column, text in event["cells"].items():
            if column != KEY:
                yield f"    {column} = {'(emptied)' if text is None else text}"
        if event["settings"]:
            yield f"    at {', '.join(f'{name} {value:g}' for name, value in event['settings'].items())}"
        words = shlex.join(arguments[event["run_id"]])
        yield f"    run {event['run_id']}, code {event['code'] or 'unknown'}" + (f", with {words}" if words else "")
    yield ""
    yield "Now"
    for file in life["files"]:
        yield f"    {file['path']}  {_state(file, life['taken_down'])}"
    yield f"    {'in' if life['base'] else 'not in'} metadata/base.csv"
    for place in life["shards"]:
        yield f"    {place['shard']}  .{place['extension']} at byte {place['offset']}, {place['size']} bytes"
    if not life["shards"]:
        yield "    in no shard"


def show_history(reading: Reading, name: str, details_only: bool) -> None:
    """Print an image's history, or with `details_only` put all of it into the JSON line."""
    life = life_of(reading, name)
    reading.seen, reading.done = 1, 1
    if details_only:
        reading.extra = life
        return
    reading.extra = {"image_id": life["image_id"], "events": len(life["events"])}
    show([*story(life), ""])


def _state(file: dict[str, Any], taken_down: bool) -> str:
    """Return the size of a file, or why it is missing."""
    if file["exists"]:
        return f"{file['bytes']} bytes" + (", although the image was taken down" if taken_down else "")
    return "removed: taken down" if taken_down else "missing"


def _shown(values: dict[str, Any]) -> str:
    """Return a note's text, or values as JSON."""
    return str(values["text"]) if set(values) == {"text"} else json.dumps(values, ensure_ascii=False)


def _event(
    run: Run, entry: dict[str, Any], what: str, cells: dict[str, str | None] | None = None, detail: str | None = None
) -> Event:
    if "add" in entry or "rows" in entry:  # a new row: skip its empty cells
        cells = {column: text for column, text in (cells or {}).items() if text is not None}
    return Event(str(entry.get("ts", run.started)), run.stage, run.run_id, run.code, what, dict(cells or {}), detail)


def build_parser() -> argparse.ArgumentParser:
    parser = reading_parser(__doc__)
    parser.add_argument("id", metavar="ID", help="image_id, or a unique prefix of one")
    add_json_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    root, name, details_only = args.root, args.id, args.json
    return run_reading("history", root, lambda reading: show_history(reading, name, details_only))


if __name__ == "__main__":
    raise SystemExit(main())
