"""Every usable answer that was paid for, on disk before it counts: the same question is never paid for twice.

`metadata/answers.sqlite` holds one row for each request, under the SHA-256 of all that was asked. Identical pictures
share an answer, and so do runs, until the prompt, the schema or the model changes. SQLite commits are durable
(`synchronous=FULL`), in the rollback mode that shared folders bear too. Only the owner of the file may read it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pokefa.errors import InputError, RunError
from pokefa.files import close_to_others, make_private
from pokefa.ledger.journal import utc_now
from pokefa.llm.prompt import Answer, AnswerError, Question

ANSWERS_FILE = "metadata/answers.sqlite"
SIDECARS = ("-journal", "-wal", "-shm")
LOCK_WAIT_S = 60.0  # for another program that writes answers

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    request TEXT PRIMARY KEY, question TEXT, model TEXT, response TEXT, answer TEXT, usage TEXT, ts TEXT
) WITHOUT ROWID
"""


# What an answer costs whose question was paid for before.
FREE: Mapping[str, Any] = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "usd": 0.0, "reused": True}

T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """An answer as it was stored: the JSON object that the model gave, and what it cost then."""

    request: str
    question: str
    model: str
    response: str
    answer: Mapping[str, Any]
    usage: Mapping[str, Any]


class Answers:
    """The stored answers of a dataset; threads share it.

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
            make_private(self._path)  # SQLite gives its journal the rights of the file
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

    def put(self, stored: Stored) -> None:
        """Store an answer: it is on disk when this returns. What several threads bring at once is one commit."""
        with self._lock:
            self._waiting.append(stored)
        with self._writing:
            with self._lock:
                batch, self._waiting = self._waiting, []
            if self._failed is not None:
                raise self._failed
            if not batch:
                return  # the thread before this one has taken it along
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
    """Store a usable answer; one that is not may be asked for again."""
    if answer.raw is not None:
        usage = answer.usage
        answers.put(Stored(request, usage["question"], answer.model, usage["response"], answer.raw, usage))


def stored_answer(answers: Answers, request: str, question: Question[T]) -> Answer[T] | None:
    """Return what an earlier question has paid for, if it can still be read, at no cost."""
    stored = answers.get(request)
    if stored is None:
        return None
    try:
        value, _, _ = question.value_of(stored.answer)
    except AnswerError:
        return None
    return reused(Answer(value, None, stored.model, stored.usage, stored.answer))


def reused(answer: Answer[T]) -> Answer[T]:
    """Return an answer as one that cost nothing this time."""
    return replace(answer, usage={**answer.usage, **FREE})


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
