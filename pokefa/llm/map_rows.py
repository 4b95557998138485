"""`ask_rows`: asks about a stage's rows in parallel, within a budget, and about nothing twice."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Generic, TypeVar

from pokefa.engine.work import Pool, Work, each
from pokefa.errors import BudgetReached
from pokefa.ledger.table import KEY
from pokefa.llm import batch_api, model_choice
from pokefa.llm.batch_wait import wait
from pokefa.llm.budget import Budget
from pokefa.llm.client import Client
from pokefa.llm.estimate import EMPTY, estimate
from pokefa.llm.images import load_picture
from pokefa.llm.models import require_facts
from pokefa.llm.options import Settings
from pokefa.llm.prices import TOKENS, cost_of
from pokefa.llm.prompt import Answer, Question, Request, plain, request_hash
from pokefa.llm.store import Answers, keep, reused, stored_answer
from pokefa.machine import most_at_once
from pokefa.stage.runner import Row, StageRun

FILES_EACH = 2  # open files per call: its connection, and the image or the name lookup before

GRACE_S = 30.0  # for requests in flight when the run is asked to stop: they may be charged

T = TypeVar("T")

log = logging.getLogger("pokefa")


def ask_rows(
    run: StageRun,
    question: Question[T],
    rows: Sequence[Row],
    ask_of: Callable[[Row], Request],
    settings: Settings,
    check_model: Callable[[str], None] = lambda model: None,
) -> Iterator[tuple[Row, T, Answer[T]]]:
    """Yield (row, value, answer) for every usable answer as it arrives; record the others as the rows' errors.

    The summary counts the tokens and dollars of all answers. Without rows, neither key nor package is needed. With
    `estimate`, and with the `submit` and `status` steps of `batch`, little or nothing is yielded.

    Args:
        check_model: called with the model's name before the first request; may raise InputError.

    Raises:
        RunError: the server refuses the key, the model or the request, or cannot be reached.
        BudgetReached: the account's quota or --max-cost is exhausted.
        InputError: the model is shut down, or its prices are needed and unknown.
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
    if settings.batch not in ("status", "collect"):
        settings = replace(settings, model=model_of(settings))
        run.settings["model"] = plain(settings.model)  # for the journal, instead of None
        check_model(settings.model)
    tally = Tally(run, settings)
    for row, answer in choose_way(run, question, rows, ask_of, settings):
        tally.add(answer)
        if row is None:
            continue
        if answer.value is None:
            run.fail(str(row[KEY]), str(answer.problem), usage=answer.usage)
        else:
            yield row, answer.value, answer


def model_of(settings: Settings) -> str:
    """Return the model to use today; ask OpenAI's server once which models it has shut down."""
    form = settings.form()
    shutdown_of: model_choice.ShutdownOf = model_choice.table_shutdown if settings.defaults else model_choice.never
    if form.is_openai:
        shutdown_of = model_choice.say_server_first(Client(form).shutdown_of)
    return model_choice.choose_model(settings.model, settings.defaults, model_choice.today(), shutdown_of)


def choose_way(
    run: StageRun, question: Question[T], rows: Sequence[Row], ask_of: Callable[[Row], Request], settings: Settings
) -> Iterator[tuple[Row | None, Answer[T]]]:
    """Ask directly, or run a step of the Batch API."""
    if settings.batch == "status":
        batch_api.show_status(run, question, settings)
        return
    if settings.batch == "collect":
        yield from batch_api.collect(run, question, rows, settings)
        return
    if settings.batch == "wait":
        yield from wait(run, question, rows, ask_of, settings)
        return
    waiting = batch_api.waiting_ids(run.root, question)
    free = [row for row in rows if row[KEY] not in waiting]
    if len(free) < len(rows):
        log.warning("%d images wait in batches: --batch collect brings their answers", len(rows) - len(free))
    if settings.batch != "submit":
        yield from ask_directly(run, question, free, ask_of, settings)
        return
    submitted = yield from batch_api.submit(run, question, free, ask_of, settings, settings.max_cost)
    if submitted.full:
        raise BudgetReached(
            f"--max-cost {settings.max_cost:g} leaves no room for more: run again when this is collected"
        )


def ask_directly(
    run: StageRun, question: Question[T], rows: Sequence[Row], ask_of: Callable[[Row], Request], settings: Settings
) -> Iterator[tuple[Row, Answer[T]]]:
    """Yield an answer for each row, with many requests in flight."""
    if not rows:
        return
    ended = threading.Event()
    at_once = most_at_once(settings.concurrency, FILES_EACH)
    if at_once < settings.concurrency:
        wanted = settings.concurrency
        log.warning("%d calls at once and not %d: this process may open few files (ulimit -n)", at_once, wanted)
    model = connect(settings, lambda: ended.is_set() or run.stop_asked())
    asker = Asker(model, question, Answers(run.root), settings)

    def make_work() -> Work[Row, Answer[T]]:
        return each(lambda row: asker.answer(ask_of(row)))

    try:
        yield from run.map(make_work, rows, Pool(kind="thread", workers=at_once, grace=GRACE_S))
    finally:
        ended.set()
        if asker.budget.lost:
            run.extra["usd_lost_at_most"] = round(asker.budget.lost, 6)


def connect(settings: Settings, should_stop: Callable[[], bool]) -> Client:
    return Client(settings.form(), should_stop, patience=settings.flex_patience, then=settings.flex_then)


class Asker(Generic[T]):
    """Answers from the store or from the model, shared by all threads."""

    def __init__(self, model: Client, question: Question[T], answers: Answers, settings: Settings) -> None:
        self._model = model
        self._question = question
        self._answers = answers
        self._settings = settings
        self.budget = Budget(settings.max_cost, model.should_stop)
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[Answer[T]]] = {}
        self._answered: set[str] = set()  # in this run

    def answer(self, asked: Request) -> Answer[T]:
        """Return the answer about one image; of identical concurrent questions only one is sent.

        Raises: as `Client.ask`, and BudgetReached.
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
        answer = self._model.ask(self._question, jpeg, note, size, self.budget)
        keep(self._answers, request, answer)
        return answer


class Tally:
    """The cost of a run's answers, in its summary and its progress bar."""

    def __init__(self, run: StageRun, settings: Settings) -> None:
        self._run = run
        self._usd = 0.0
        self._known = cost_of(settings.model, {}) is not None
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
        self._usd += usage.get("usd", 0.0)
        extra["usd"] = round(self._usd, 6)  # round the sum, not each of many small prices
        self._run.show(usd=f"{extra['usd']:.4f}")
