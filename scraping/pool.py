"""Downloads side by side: a free thread begins the first whose host has a turn free, so no host holds up another.

A host that answers 429 or 503 rests for as long as it asks, and then its files are tried again. Where it asks for more
time than a run should wait, they end as `host_busy`, and --retry-errors tries them another day.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pokefa.errors import Interrupted
from scraping.hosts import LOOK_S, plain_domain
from scraping.utils import Busy, Refused

TRIES = 3  # of a file whose host is busy
FIRST_REST_S = 2.0  # where a host does not say for how long; doubled with each try
MOST_REST_S = 60.0

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Task(Generic[Item, Result]):
    """An item that waits; `hosts` are where it comes from, and at the end of a redirect the one that was busy."""

    item: Item
    hosts: list[str]
    future: Future[Result] = field(default_factory=Future)
    tries: int = 0


class DownloadPool(Generic[Item, Result]):
    """Threads that work through what is submitted, while its `with` block lasts.

    Args:
        make_work: called once in each thread; what it returns takes one item, and may raise Busy.
        threads: how many items at once.
        per_host: how many of one host.
        stop: when it is set, nothing more is begun.
        most_rest: seconds that a host may ask to be left alone before its items are given up.
    """

    def __init__(
        self,
        make_work: Callable[[], Callable[[Item], Result]],
        *,
        threads: int,
        per_host: int,
        stop: threading.Event,
        most_rest: float = MOST_REST_S,
    ) -> None:
        self.threads = threads
        self._make_work = make_work
        self._per_host = per_host
        self._stop = stop
        self._most_rest = most_rest
        self._changed = threading.Condition()
        self._waiting: list[_Task[Item, Result]] = []
        self._begun: Counter[str] = Counter()
        self._rests: dict[str, float] = {}  # host: until when, on the monotonic clock
        self._closed = False

    def __enter__(self) -> DownloadPool[Item, Result]:
        for work in [self._make_work() for _ in range(self.threads)]:
            # Daemons, because looking up a host's name cannot be broken off, and the run's end must not wait for it.
            threading.Thread(target=self._work_through, args=[work], daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def submit(self, item: Item, host: str | None) -> Future[Result]:
        """Line an item up behind the others of its host; None is for what no host is asked for."""
        task: _Task[Item, Result] = _Task(item, [plain_domain(host)] if host else [])
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()
        return task.future

    def result(self, future: Future[Result]) -> Result:
        """Wait for a result, or raise what the work raised.

        Raises:
            Interrupted: the run is to stop, and the result has not come.
        """
        while True:
            try:
                return future.result(LOOK_S)
            except TimeoutError:
                if self._stop.is_set():
                    raise Interrupted("interrupted in the middle of a download") from None

    def _work_through(self, work: Callable[[Item], Result]) -> None:
        while (task := self._begin_next()) is not None:
            try:
                task.future.set_result(work(task.item))
            except Busy as busy:
                self._rest(task, busy)
            except BaseException as error:
                task.future.set_exception(error)
            finally:
                with self._changed:
                    self._begun.subtract(task.hosts[:1])
                    self._begun += Counter()  # forgets the hosts with none: a run meets thousands

    def _begin_next(self) -> _Task[Item, Result] | None:
        """Wait for a task that may begin; None when the pool has closed."""
        with self._changed:
            while not (self._closed or self._stop.is_set()):
                self._give_up_long_rests()
                for task in self._waiting:
                    if not self._rests.keys() & task.hosts and not self._is_full(task):
                        self._waiting.remove(task)
                        self._begun.update(task.hosts[:1])
                        self._changed.notify()  # there may be another one for another thread
                        return task
                self._changed.wait(LOOK_S if self._rests else None)
        return None

    def _is_full(self, task: _Task[Item, Result]) -> bool:
        return any(self._begun[host] >= self._per_host for host in task.hosts[:1])

    def _rest(self, task: _Task[Item, Result], busy: Busy) -> None:
        """Leave a busy host alone for a while, and line the task up again unless it has had its tries."""
        task.tries += 1
        backoff = FIRST_REST_S * 2 ** (task.tries - 1) * random.uniform(1.0, 1.5)
        seconds = backoff if busy.after is None else busy.after
        host = plain_domain(busy.host)
        with self._changed:
            self._rests[host] = max(self._rests.get(host, 0.0), time.monotonic() + seconds)
            if seconds > self._most_rest:
                task.future.set_exception(too_busy(host, seconds))
            elif task.tries == TRIES:
                task.future.set_exception(busy)
            else:
                task.hosts = [*task.hosts[:1], host]
                self._waiting.insert(0, task)

    def _give_up_long_rests(self) -> None:
        now = time.monotonic()
        self._rests = {host: end for host, end in self._rests.items() if end > now}
        too_long = {host for host, end in self._rests.items() if end - now > self._most_rest}
        for task in [task for task in self._waiting if too_long.intersection(task.hosts)]:
            self._waiting.remove(task)
            host = min(too_long.intersection(task.hosts))
            task.future.set_exception(too_busy(host, self._rests[host] - now))


def too_busy(host: str, seconds: float) -> Refused:
    return Refused("host_busy", f"{host} asks to be left alone for {seconds:.0f} seconds")
