"""--batch wait: submit, poll, collect and submit what is left, until nothing is pending.

All state is in the records of `batch_api`, so the run can be killed at any moment: the same command resumes with the
batches in progress.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from pokefa.errors import BudgetReached
from pokefa.ledger.table import KEY
from pokefa.llm import batch_api
from pokefa.llm.batch_api import CallFailed, collect, submit, waiting_ids
from pokefa.llm.batch_records import open_records
from pokefa.llm.options import Settings
from pokefa.llm.prompt import Answer, Question, Request
from pokefa.llm.rate_limit import LOOK_S
from pokefa.stage.runner import Row, StageRun

MOST_TRIES = 3  # batches without an answer for an image before it counts as failed
MOST_FAILED_CALLS = 60  # in a row, before the server counts as unreachable
TOO_MANY_TOKENS = "token_limit_exceeded"  # in all queued batches together: smaller ones still fit

T = TypeVar("T")
Result = TypeVar("Result")

log = logging.getLogger("pokefa")


def wait(
    run: StageRun, question: Question[T], rows: Sequence[Row], ask_of: Callable[[Row], Request], settings: Settings
) -> Iterator[tuple[Row | None, Answer[T]]]:
    """Yield the answers to all rows as their batches finish.

    Raises:
        BudgetReached: --max-cost excludes the rest; everything submitted is collected.
        CallFailed: the server was unreachable for too long.
    """
    pending = {str(row[KEY]): row for row in rows}
    tries: Counter[str] = Counter()
    spent = 0.0
    most_requests = batch_api.MOST_REQUESTS
    failed_calls = 0

    def note(row: Row | None, answer: Answer[T]) -> None:
        nonlocal spent
        spent += answer.usage.get("usd", 0.0)
        if row is not None:
            pending.pop(str(row[KEY]))

    while True:
        try:
            waiting = waiting_ids(run.root, question)
            free = [row for image_id, row in pending.items() if image_id not in waiting]
            room = None if settings.max_cost is None else settings.max_cost - spent - under_way_usd(run, question)
            submitted = yield from noting(submit(run, question, free, ask_of, settings, room, most_requests), note)
            for image_id in submitted.failed:
                del pending[image_id]
            if not open_records(run.root, question.name):
                if submitted.full:
                    limit = f"--max-cost {settings.max_cost:g}"
                    raise BudgetReached(f"{limit} leaves no room for more: run again with more")
                return
            ended = yield from noting(collect(run, question, list(pending.values()), settings), note)
        except CallFailed as error:
            failed_calls += 1
            if failed_calls >= MOST_FAILED_CALLS:
                raise
            log.warning("%s; trying again in %.0f s", error, settings.batch_poll)
            pause(run, settings.batch_poll)
            continue
        failed_calls = 0
        for batch in ended:
            if TOO_MANY_TOKENS in batch.errors:
                most_requests = max(1, len(batch.record.requests) // 2)
                continue
            tries.update(batch.unanswered)
            reason = "; ".join(batch.errors.values()) or "the server gave no reason"
            for image_id in batch.unanswered:
                if tries[image_id] >= MOST_TRIES and pending.pop(image_id, None) is not None:
                    run.fail(image_id, f"batch_unanswered: {MOST_TRIES} batches left it unanswered: {reason}")
        if not ended or any(TOO_MANY_TOKENS in batch.errors for batch in ended):
            pause(run, settings.batch_poll)


def under_way_usd(run: StageRun, question: Question[Any]) -> float:
    """Return the maximum cost of the batches in progress."""
    return sum(record.most_usd for record in open_records(run.root, question.name))


def noting(
    answers: Generator[tuple[Row | None, Answer[T]], None, Result], note: Callable[[Row | None, Answer[T]], None]
) -> Generator[tuple[Row | None, Answer[T]], None, Result]:
    """Yield what a step yields after noting it, and return the step's return value."""
    while True:
        try:
            row, answer = next(answers)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        note(row, answer)
        yield row, answer


def pause(run: StageRun, seconds: float) -> None:
    """Wait, unless the run was asked to stop.

    Raises:
        Interrupted: it was.
    """
    until = time.monotonic() + seconds
    while True:
        run.check_stop()
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, LOOK_S))
