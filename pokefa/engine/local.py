"""`run_batches`: the one map that every stage uses, over local processes or threads, or over a Ray cluster.

A stage passes a factory. Each worker calls it once, so that it loads its model once, and then calls the result with one
batch of items after another. The interface is that of an actor pool, so a cluster (`pokefa.engine.ray_map`) can replace
the local pools without a change in any stage.

A batch that fails is retried item by item, so a bad item fails alone. If a worker process dies (out of memory, a crash
in a model's library), the batches in flight are retried item by item in a separate process, and the item that kills it
becomes an error. Images are decoded in processes of their own (`pokefa.images.decoding`), so work that does little else
runs in threads.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, cast

from pokefa.engine.work import (
    WORKER_DIED,
    Item,
    Kind,
    Outcome,
    Pool,
    Result,
    Work,
    batched,
    check_deaths,
    set_up,
    try_batch,
)
from pokefa.errors import RunError, one_line
from pokefa.images.decoding import Limits, limits_in_use, use_limits
from pokefa.machine import available_cores

log = logging.getLogger("pokefa")


def run_batches(
    make_work: Callable[[], Work[Item, Result]],
    items: Iterable[Item],
    pool: Pool,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome[Item, Result]]:
    """Yield an outcome for each item as it is finished.

    Items are taken from `items` only as workers become free, so neither input nor results pile up. When `should_stop`
    returns True, no further batch starts, and those in flight get `pool.grace` seconds to finish. The same happens when
    the work raises a RunError, which then ends the map.

    Args:
        make_work: called once in each worker; must be picklable for processes.
    """
    if pool.cluster is not None:
        from pokefa.engine.ray_map import run_on_ray

        yield from run_on_ray(make_work, items, pool, pool.cluster, should_stop)
        return
    workers = pool.workers or available_cores()
    kind = pool.kind if pool.kind == "thread" or _processes_can_be_pooled() else "thread"
    batches = batched(items, pool.batch_size)
    suspects: deque[Item] = deque()
    deaths = 0
    executor = _executor(kind, workers, make_work)
    in_flight: dict[Future[list[Outcome[Item, Result]]], list[Item]] = {}
    try:
        while True:
            if not should_stop():
                for batch in itertools.islice(batches, max(0, workers * pool.queued - len(in_flight))):
                    try:
                        in_flight[_submit(executor, kind, make_work, batch)] = batch
                    except BrokenProcessPool:  # a worker died while idle
                        suspects.extend(batch)
                        break
            elif in_flight:
                yield from _finish_started(in_flight, pool.grace)
                return
            if not in_flight and not suspects:
                return
            finished, _ = wait(in_flight, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                batch = in_flight.pop(future)
                try:
                    yield from future.result()
                    deaths = 0
                except BrokenProcessPool:
                    suspects.extend(batch)
                except RunError:
                    yield from _finish_started(in_flight, pool.grace)  # their results may have been charged
                    raise
            if suspects:
                # A broken pool fails all its batches: every item is a suspect until tried alone.
                for batch in in_flight.values():
                    suspects.extend(batch)
                in_flight.clear()
                _end(executor)
                for outcome in _try_alone(make_work, suspects, should_stop):
                    deaths = deaths + 1 if outcome.error == WORKER_DIED else 0
                    check_deaths(deaths)
                    yield outcome
                executor = _executor(kind, workers, make_work)
    finally:
        _end(executor)


def _finish_started(
    in_flight: dict[Future[list[Outcome[Item, Result]]], list[Item]], grace: float
) -> Iterator[Outcome[Item, Result]]:
    """Yield the results of started batches that finish within `grace` seconds; cancel the others."""
    started = [future for future in in_flight if not future.cancel()]
    deadline = time.monotonic() + grace
    while started and (left := deadline - time.monotonic()) > 0:
        finished, rest = wait(started, timeout=left, return_when=FIRST_COMPLETED)
        for future in finished:
            if future.exception() is None:
                yield from future.result()
        started = list(rest)


def _try_alone(
    make_work: Callable[[], Work[Item, Result]], suspects: deque[Item], should_stop: Callable[[], bool]
) -> Iterator[Outcome[Item, Result]]:
    """Yield an outcome for each suspect, one at a time in a single process that is replaced whenever it dies."""
    executor = _executor("process", 1, make_work)
    try:
        while suspects and not should_stop():
            item = suspects.popleft()
            try:
                yield from _submit(executor, "process", make_work, [item]).result()
            except BrokenProcessPool:
                yield Outcome(item, error=WORKER_DIED)
                _end(executor)
                executor = _executor("process", 1, make_work)
    finally:
        suspects.clear()
        _end(executor)


def _executor(kind: Kind, workers: int, make_work: Callable[[], Work[Item, Result]]) -> Executor:
    if kind == "thread":
        return ThreadPoolExecutor(workers)
    # "spawn" starts clean processes: a fork would copy locks held by threads of TensorFlow, Torch and Polars.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _start_worker, (make_work, limits_in_use()))


def _processes_can_be_pooled() -> bool:
    """Tell whether the system has the semaphores of a process pool: on Linux they are files in /dev/shm."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:
        log.warning(
            "no semaphores (%s; is /dev/shm missing or read-only?): the work runs in threads of one process, so an "
            "image that crashes it ends the run",
            one_line(error),
        )
        return False
    return True


def _submit(
    executor: Executor, kind: Kind, make_work: Callable[[], Work[Item, Result]], batch: list[Item]
) -> Future[list[Outcome[Item, Result]]]:
    if kind == "thread":
        return executor.submit(_run_in_thread, make_work, batch)
    with _interrupts_blocked():
        return executor.submit(_run_in_process, batch)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hold Ctrl-C back while worker processes may start: they inherit that, and stop only when the driver says so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(executor: Executor) -> None:
    """End a pool now, without waiting for its work."""
    # Before Python 3.14, the pool has no public method to end its processes.
    processes = list((getattr(executor, "_processes", None) or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


# The work function of each worker: one per process, or one per thread.
_process_work: list[Any] = []
_thread_work = threading.local()


def _start_worker(make_work: Callable[[], Any], limits: Limits) -> None:
    """Prepare a worker process: the driver handles Ctrl-C, and a worker does not outlive it."""
    use_limits(limits)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _process_work.append(make_work)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_in_process(batch: list[Any]) -> list[Outcome[Any, Any]]:
    # The factory runs with the first batch: an error in the initializer would break the pool without a message.
    if len(_process_work) == 1:
        _process_work.append(set_up(_process_work[0]))
    return try_batch(_process_work[1], batch)


def _run_in_thread(make_work: Callable[[], Work[Item, Result]], batch: list[Item]) -> list[Outcome[Item, Result]]:
    if getattr(_thread_work, "factory", None) is not make_work:
        _thread_work.factory, _thread_work.work = make_work, set_up(make_work)
    return try_batch(cast("Work[Item, Result]", _thread_work.work), batch)
