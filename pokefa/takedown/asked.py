"""What was asked about an image: stored answers, and questions that wait in a batch.

metadata/answers.sqlite keeps answers by a hash of the request, which names no image; the journals and the records of
the batches say which request was about which image.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokefa.errors import InputError, RunError, first_line
from pokefa.files import close_to_others, replacing_privately
from pokefa.ledger.runs import entries_of_run, journal_paths
from pokefa.ledger.table import KEY
from pokefa.llm.batch_api import BATCHES_FOLDER
from pokefa.llm.store import ANSWERS_FILE, LOCK_WAIT_S

UNREADABLE = "SELECT request FROM answers WHERE NOT (json_valid(answer) AND json_valid(usage)) LIMIT 5"
AT_ONCE = 500  # SQLite takes so many values in one statement in any of its versions


@dataclass(frozen=True)
class Waiting:
    """A file of questions that names images and whose answers are not collected.

    Args:
        state: `written` while the pictures lie in the file beside the record; after that a service has them.
        at_service: what the service calls the file, the batch, or both.
    """

    path: Path
    state: str
    image_ids: frozenset[str]
    at_service: str | None


def requests_about(root: Path, image_ids: Collection[str]) -> set[str]:
    """Return the requests that were made about images.

    Raises:
        InputError: a journal or a record is damaged.
    """
    if not image_ids:
        return set()
    found = {
        str(entry["usage"]["request"])
        for path in journal_paths(root)
        for entry in entries_of_run(path)
        if entry.get(KEY) in image_ids and "request" in (entry.get("usage") or {})
    }
    for _, record in _records(root):
        found |= {request for image_id, request in record["requests"].items() if image_id in image_ids}
    return found


def stored_answers(root: Path, requests: Collection[str]) -> int:
    """Return how many answers to requests are stored.

    Raises:
        RunError: the file cannot be read.
    """
    return sum(count for (count,) in _execute(root, "SELECT COUNT(*) FROM answers WHERE request IN", requests))


def forget_answers(root: Path, requests: Collection[str]) -> None:
    """Remove stored answers, and overwrite the place where they stood.

    Raises:
        RunError: the file cannot be written.
    """
    close_to_others(root / ANSWERS_FILE)
    _execute(root, "DELETE FROM answers WHERE request IN", requests)


def questions_about(root: Path, image_ids: Collection[str]) -> list[Waiting]:
    """Return the files of questions that name one of the images and are not done.

    Raises:
        InputError: a record is damaged.
    """
    found = []
    for path, record in _records(root):
        named = frozenset(image_ids) & (record["requests"].keys() | _asked_in(path.with_suffix(".jsonl")))
        if named and record["state"] != "done":
            at_service = ", ".join(str(record[name]) for name in ("file_id", "batch_id") if record.get(name))
            found.append(Waiting(path, str(record["state"]), named, at_service or None))
    return found


def withdraw_questions(waiting: Waiting) -> None:
    """Take the images out of a file of questions and its record: their answers will not be collected.

    Raises:
        PokefaError: a file cannot be written.
    """
    questions = waiting.path.with_suffix(".jsonl")
    if questions.is_file():
        with questions.open("rb") as stream:
            kept = [line for line in stream if json.loads(line)["custom_id"] not in waiting.image_ids]
        with replacing_privately(questions) as stream:
            stream.writelines(kept)
    record = json.loads(waiting.path.read_bytes())
    record["requests"] = {name: text for name, text in record["requests"].items() if name not in waiting.image_ids}
    if not record["requests"] and waiting.state == "written":
        waiting.path.unlink()
        questions.unlink(missing_ok=True)
        return
    with replacing_privately(waiting.path) as stream:
        stream.write(json.dumps(record, sort_keys=True, indent=1).encode() + b"\n")


def check_answers(root: Path) -> Iterator[tuple[str, str]]:
    """Yield ("answers_damaged", why) where the stored answers cannot be relied on; nothing where there are none."""
    path = root / ANSWERS_FILE
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as connection:
            told = [line for (line,) in connection.execute("PRAGMA integrity_check(5)")]
            if told == ["ok"]:
                told = [f"request {request}" for (request,) in connection.execute(UNREADABLE)]
    except sqlite3.Error as error:
        told = [str(error)]
    yield from (("answers_damaged", f"{ANSWERS_FILE}: {line}") for line in told if line != "ok")


def _asked_in(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    with path.open("rb") as stream:
        return {str(json.loads(line)["custom_id"]) for line in stream}


def _records(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((root / BATCHES_FOLDER).glob("*.json")):
        try:
            record = json.loads(path.read_bytes())
            yield path, {**record, "requests": dict(record["requests"]), "state": record["state"]}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{BATCHES_FOLDER}/{path.name} is damaged ({first_line(error)}): restore or remove it"
            ) from None


def _execute(root: Path, statement: str, requests: Collection[str]) -> list[tuple[Any, ...]]:
    """Execute a statement for all requests; nothing where no answer was ever stored."""
    path = root / ANSWERS_FILE
    if not (path.is_file() and requests):
        return []
    rows: list[tuple[Any, ...]] = []
    try:
        connection = sqlite3.connect(path, timeout=LOCK_WAIT_S)
        try:
            connection.execute("PRAGMA secure_delete=ON")
            with connection:
                ordered = sorted(requests)
                for start in range(0, len(ordered), AT_ONCE):
                    some = ordered[start : start + AT_ONCE]
                    marks = ", ".join("?" * len(some))
                    rows += connection.execute(f"{statement} ({marks})", some).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise RunError(f"{ANSWERS_FILE} cannot be used ({error}): end what is using it, or restore the file") from None
    return rows
