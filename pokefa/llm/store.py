"""Stores every usable paid answer on disk before it counts: the same question is never paid for twice.

`metadata/answers.sqlite` holds one row per request, keyed by the SHA-256 of the question. Identical images share an
answer, and so do runs, until the prompt, the schema or the model changes. SQLite commits are durable
(`synchronous=FULL`), in rollback mode, which also works on shared folders. Only the file's owner may read it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pokefa.errors import InputError, RunError
from pokefa.files import close_to_others, make_private
from pokefa.ledger.journal import utc_now
from pokefa.llm.prices import TOKENS
from pokefa.llm.prompt import Answer, AnswerError, Question

ANSWERS_FILE = "metadata/answers.sqlite"
SIDECARS = ("-journal", "-wal", "-shm")
LOCK_WAIT_S = 60.0  # for another program that writes answers
MOST_VALUES = 500  # the maximum per statement in any version of SQLite

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    request TEXT PRIMARY KEY, question TEXT, model TEXT, response TEXT, answer TEXT, usage TEXT, ts TEXT
) WITHOUT ROWID
"""
_UNREADABLE = "SELECT request FROM answers WHERE NOT (json_valid(answer) AND json_valid(usage)) LIMIT 5"


# The cost of an answer that an earlier question paid for.
FREE: Mapping[str, Any] = {**dict.fromkeys(TOKENS, 0), "usd": 0.0, "reused": True}

T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """A stored answer: the model's JSON object, and its cost."""

    request: str
    question: str
    model: str
    response: str
    answer: Mapping[str, Any]
    usage: Mapping[str, Any]


class Answers:
    """The stored answers of a dataset, shared by all threads.

    Raises:
        InputError: the file is damaged.
        RunError: the file cannot be read or written.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / ANSWERS_FILE
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: list[Stored] = []
        self._failed: RunError | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            make_private(self._path)  # SQLite gives its journal the permissions of the file
            for suffix in SIDECARS:
                close_to_others(self._path.with_name(self._path.name + suffix))
            self._file = sqlite3.connect(self._path, timeout=LOCK_WAIT_S, check_same_thread=False)
            self._file.execute("PRAGMA synchronous=FULL")
            with self._file:
                self._file.execute(_TABLE)
            told = [line for (line,) in self._file.execute("PRAGMA quick_check(1)")]
        except (OSError, sqlite3.OperationalError) as error:  # locked, or the disk is full
            raise self._unusable(error) from None
        except sqlite3.DatabaseError as error:
            told = [str(error)]
        if told != ["ok"]:
            raise InputError(
                f"{ANSWERS_FILE} is damaged ({told[0]}): restore it, or move it away, and what was paid for is paid "
                "for again"
            )

    def get(self, request: str) -> Stored | None:
        """Return the answer to a request, or None."""
        try:
            with self._writing:
                found = self._file.execute(
                    "SELECT question, model, response, answer, usage FROM answers WHERE request = ?", [request]
                ).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        if found is None:
            return None
        question, model, response, answer, usage = found
        return Stored(request, question, model, response, json.loads(answer), json.loads(usage))

    def names(self, question: str) -> frozenset[tuple[str, str]]:
        """Return (requested, reported) names of the models that answered a question."""
        asked = "json_extract(usage, '$.asked')"
        try:
            with self._writing:
                found = self._file.execute(
                    f"SELECT DISTINCT {asked}, model FROM answers WHERE question = ? AND {asked} IS NOT NULL",
                    [question],
                ).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        return frozenset((asked, model) for asked, model in found)

    def put(self, stored: Stored) -> None:
        """Store an answer durably. Answers from several threads at once share a commit."""
        with self._lock:
            self._waiting.append(stored)
        with self._writing:
            with self._lock:
                batch, self._waiting = self._waiting, []
            if self._failed is not None:
                raise self._failed
            if not batch:
                return  # the previous thread's commit included it
            rows = [
                (one.request, one.question, one.model, one.response, _text(one.answer), _text(one.usage), utc_now())
                for one in batch
            ]
            try:
                with self._file:
                    self._file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            except sqlite3.Error as error:
                self._failed = self._unusable(error)
                raise self._failed from None

    def _unusable(self, error: OSError | sqlite3.Error) -> RunError:
        return RunError(f"{self._path} cannot be used ({error}): nothing more is asked, since it could not be kept")


def keep(answers: Answers, request: str, answer: Answer[Any]) -> None:
    """Store a usable answer; an unusable one may be requested again."""
    if answer.raw is not None:
        usage = answer.usage
        answers.put(Stored(request, usage["question"], answer.model, usage["response"], answer.raw, usage))


def stored_answer(answers: Answers, request: str, question: Question[T]) -> Answer[T] | None:
    """Return the answer that an earlier question paid for, at no cost, if it is still readable."""
    stored = answers.get(request)
    if stored is None:
        return None
    try:
        value, _, _ = question.value_of(stored.answer)
    except AnswerError:
        return None
    return reused(Answer(value, None, stored.model, stored.usage, stored.answer))


def reused(answer: Answer[T]) -> Answer[T]:
    """Return an answer marked as free."""
    return replace(answer, usage={**answer.usage, **FREE})


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


# -- without asking anything ------------------------------------------------------------------------------------------


def count_answers(root: Path, requests: Collection[str]) -> int:
    """Return how many answers to these requests are stored.

    Raises:
        RunError: the file cannot be read.
    """
    return sum(count for (count,) in _execute(root, "SELECT COUNT(*) FROM answers WHERE request IN", requests))


def forget_answers(root: Path, requests: Collection[str]) -> None:
    """Remove the answers to these requests and overwrite their bytes on disk.

    Raises:
        RunError: the file cannot be written.
    """
    close_to_others(root / ANSWERS_FILE)
    _execute(root, "DELETE FROM answers WHERE request IN", requests)


def check_answers(root: Path) -> Iterator[tuple[str, str]]:
    """Yield ("answers_damaged", why) if the stored answers are damaged; nothing if there are none."""
    path = root / ANSWERS_FILE
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as file:
            told = [line for (line,) in file.execute("PRAGMA integrity_check(5)")]
            if told == ["ok"]:
                told = [f"request {request}" for (request,) in file.execute(_UNREADABLE)]
    except sqlite3.Error as error:
        told = [str(error)]
    yield from (("answers_damaged", f"{ANSWERS_FILE}: {line}") for line in told if line != "ok")


def _execute(root: Path, statement: str, requests: Collection[str]) -> list[tuple[Any, ...]]:
    """Execute a statement for all requests; do nothing if no answer was ever stored."""
    path, ordered = root / ANSWERS_FILE, sorted(requests)
    if not (path.is_file() and ordered):
        return []
    rows: list[tuple[Any, ...]] = []
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as file:
            file.execute("PRAGMA secure_delete=ON")
            with file:
                for start in range(0, len(ordered), MOST_VALUES):
                    some = ordered[start : start + MOST_VALUES]
                    rows += file.execute(f"{statement} ({', '.join('?' * len(some))})", some).fetchall()
    except sqlite3.Error as error:
        raise RunError(f"{ANSWERS_FILE} cannot be used ({error}): end what is using it, or restore the file") from None
    return rows
