"""`ask_rows`: a stage's rows asked in parallel, on a budget, and nothing asked twice."""

from __future__ import annotations

import datetime
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from pokefa.engine.work import Pool, Work, each
from pokefa.ledger.table import KEY
from pokefa.llm import batch_api as batches
from pokefa.llm.budget import Budget
from pokefa.llm.client import Model
from pokefa.llm.estimate import EMPTY, estimate, most_usd
from pokefa.llm.images import load_picture
from pokefa.llm.options import Settings
from pokefa.llm.prices import TOKENS, check_shutdown, require_facts
from pokefa.llm.prompt import Answer, Ask, Question, request_hash
from pokefa.llm.store import Answers, keep, reused, stored_answer
from pokefa.machine import most_at_once
from pokefa.stage.runner import Row, StageRun

FILES_EACH = 2  # of one call: its connection, and the picture or the look-up of the server before

GRACE_S = 30.0  # for what is in flight when the run is to stop: it may be paid for

T = TypeVar("T")

log = logging.getLogger("pokefa")


def ask_rows(
    run: StageRun, question: Question[T], rows: Sequence[Row], ask_of: Callable[[Row], Ask], settings: Settings
) -> Iterator[tuple[Row, T, Answer[T]]]:
    """Yield (row, value, answer) for every usable answer, as they come; the others are recorded as the rows' errors.

    The summary counts the tokens and dollars of all answers. With no rows nothing is needed, neither key nor package.
    With `estimate`, and with every step of `batch` but the last, no question is asked and little or nothing yielded.

    Raises:
        RunError: the server refuses the key, the model or the request, or cannot be reached.
        BudgetReached: the account's quota or --max-cost is used up.
        InputError: the model is shut down, or its prices are needed and not known.
        Interrupted: a signal asked to stop.
    """
    run.extra.update(EMPTY)
    if settings.estimate:
        run.extra["estimate"] = estimate(question, rows, ask_of, settings)
        return
    if settings.max_cost is not None:
        require_facts(settings.model, "--max-cost")
    if run.options.dry_run or (not rows and settings.batch is None):
        return
    if settings.form().is_openai and (warning := check_shutdown(settings.model, datetime.date.today())):
        log.warning("%s", warning)
    tally = Tally(run, settings)
    for row, answer in choose_way(run, question, rows, ask_of, settings):
        tally.add(answer)
        if answer.value is None:
            run.fail(str(row[KEY]), str(answer.problem), usage=answer.usage)
        else:
            yield row, answer.value, answer


def choose_way(
    run: StageRun, question: Question[T], rows: Sequence[Row], ask_of: Callable[[Row], Ask], settings: Settings
) -> Iterator[tuple[Row, Answer[T]]]:
    """Ask directly, or take a step of the Batch API."""
    if settings.batch == "status":
        batches.show_status(run, question, settings)
        return iter(())
    if settings.batch == "collect":
        return batches.collect(run, question, rows, settings)
    waiting = batches.waiting_ids(run.root, question)
    free = [row for row in rows if row[KEY] not in waiting]
    if len(free) < len(rows):
        log.warning("%d images wait in batches: --batch collect brings their answers", len(rows) - len(free))
    if settings.batch == "submit":
        return batches.submit(run, question, free, ask_of, settings)
    return ask_directly(run, question, free, ask_of, settings)


def ask_directly(
    run: StageRun, question: Question[T], rows: Sequence[Row], ask_of: Callable[[Row], Ask], settings: Settings
) -> Iterator[tuple[Row, Answer[T]]]:
    """Yield an answer for each row, many asked at once."""
    if not rows:
        return
    ended = threading.Event()
    at_once = most_at_once(settings.concurrency, FILES_EACH)
    if at_once < settings.concurrency:
        wanted = settings.concurrency
        log.warning("%d calls at once and not %d: this process may open few files (ulimit -n)", at_once, wanted)
    model = Model(settings.form(), lambda: ended.is_set() or run.stop_asked())
    asker = Asker(model, question, Answers(run.root), settings)

    def make_work() -> Work[Row, Answer[T]]:
        return each(lambda row: asker.answer(ask_of(row)))

    try:
        yield from run.map(make_work, rows, Pool(kind="thread", workers=at_once, grace=GRACE_S))
    finally:
        ended.set()


class Asker(Generic[T]):
    """Answers from the store, or from the model; one serves all threads."""

    def __init__(self, model: Model, question: Question[T], answers: Answers, settings: Settings) -> None:
        self._model = model
        self._question = question
        self._answers = answers
        self._settings = settings
        self._budget = Budget(settings.max_cost)
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[Answer[T]]] = {}
        self._answered: set[str] = set()  # in this run

    def answer(self, asked: Ask) -> Answer[T]:
        """Return the answer about one picture; of identical questions at the same time one is paid for.

        Raises: as `Model.ask`, and BudgetReached.
        """
        jpeg, size = load_picture(asked.path, self._settings.view)
        request = request_hash(self._settings.model, self._question, jpeg, asked.note)
        mine: Future[Answer[T]] = Future()
        with self._lock:
            other = self._under_way.setdefault(request, mine)
            may_reuse = not self._settings.ask_again or request in self._answered
        if other is not mine:
            return reused(other.result())
        try:
            answer = self._reuse(request) if may_reuse else None
            answer = answer or self._pay(request, jpeg, asked.note, size)
            mine.set_result(answer)
            return answer
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                self._answered.add(request)
                del self._under_way[request]

    def _reuse(self, request: str) -> Answer[T] | None:
        return stored_answer(self._answers, request, self._question)

    def _pay(self, request: str, jpeg: bytes, note: str, size: tuple[int, int]) -> Answer[T]:
        expected = most_usd(self._question, note, size, self._settings.facts)
        with self._budget.promise(expected):
            answer = self._model.ask(self._question, jpeg, note, size)
            self._budget.spend(answer.usage.get("usd", 0.0))
        keep(self._answers, request, answer)
        return answer


class Tally:
    """What a run's answers cost, in its summary and beside its progress bar."""

    def __init__(self, run: StageRun, settings: Settings) -> None:
        self._run = run
        self._known = settings.facts is not None
        self._deviations: Counter[str] = Counter()

    def add(self, answer: Answer[Any]) -> None:
        extra, usage = self._run.extra, answer.usage
        for name in TOKENS:
            extra[name] += usage[name]
        extra["reused"] += bool(usage.get("reused"))
        if not usage.get("reused"):
            self._deviations.update(usage.get("deviations", ()))
        extra["deviations"] = dict(sorted(self._deviations.items()))
        if not self._known:
            self._run.show(tokens=extra["input_tokens"] + extra["output_tokens"])
            return
        extra["usd"] = round((extra["usd"] or 0.0) + usage.get("usd", 0.0), 6)
        self._run.show(usd=f"{extra['usd']:.4f}")
