"""`run_batches`: the one map that every stage uses, over local processes or threads, or over a Ray cluster.

A stage hands in a factory. Each worker calls it once, so a model is loaded once per worker, and then calls what it
returned with one batch of items after the other. The shape is that of an actor pool, so a cluster (`pokefa.ray_engine`)
takes the place of the local pools without a change in any stage.

A batch that fails is tried again item by item, so one bad item costs itself and no other. The same goes for a worker
process that dies (out of memory, a crash in a model's library): the batches that were in flight are tried again item by
item in a process apart, and the item that kills it becomes an error. Images are decoded in processes of their own, see
`pokefa.decoding`: work that does little else runs in threads.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from pokefa.decoding import Limits, limits_in_use, use_limits
from pokefa.errors import PokefaError, RunError
from pokefa.table import first_line

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Sequence[Item]], Sequence[Result]]
Kind = Literal["process", "thread"]

# So many deaths in a row, each with another item, mean that the work itself is broken and not the items.
MOST_DEATHS_IN_A_ROW = 5

log = logging.getLogger("pokefa")

WORKER_DIED = "worker_died: the process that worked on this image was killed (out of memory, or a crash in a decoder)"


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: a result, or the one-line reason why there is none."""

    item: Item
    result: Result | None = None
    error: str | None = None


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that does the work in the place of this machine's processes.

    Args:
        address: of its head, `HOST:PORT` or `auto`; None = Ray is started on this machine, and ended after the map.
        requirements: the stage's file is requirements/requirements_<requirements>.txt; several are joined by `+`.
        install: the nodes install the stage's requirements before they start; otherwise they have them.
        cpus: cores of a node that each worker takes.
        gpus: GPUs that each worker takes; two workers with 0.5 share one.
        shared: folder that every node must see; None where the images lie on object storage.
    """

    address: str | None
    requirements: str
    install: bool
    cpus: int = 1
    gpus: float = 0.0
    shared: Path | None = None


@dataclass(frozen=True)
class Pool:
    """How to spread the work.

    Args:
        kind: processes for work in Python and C, threads for waiting on the network or on decoders.
        workers: how many; None = one for each core, of the whole cluster where there is one.
        batch_size: items in one call of the work function.
        queued: batches that wait for each worker; bounds memory.
        grace: seconds that batches in flight get to finish after a stop was asked for.
        cluster: where the workers are; None = on this machine.
    """

    kind: Kind = "process"
    workers: int | None = None
    batch_size: int = 1
    queued: int = 2
    grace: float = 10.0
    cluster: Cluster | None = None


def each(function: Callable[[Item], Result]) -> Work[Item, Result]:
    """Turn a function of one item into a function of a batch."""
    return _Each(function)


class _Each(Generic[Item, Result]):
    """A picklable loop over one function."""

    def __init__(self, function: Callable[[Item], Result]) -> None:
        self._function = function

    def __call__(self, batch: Sequence[Item]) -> list[Result]:
        return [self._function(item) for item in batch]


def available_cores() -> int:
    """Return the cores that this process may use, which a container may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_batches(
    make_work: Callable[[], Work[Item, Result]],
    items: Iterable[Item],
    pool: Pool,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome[Item, Result]]:
    """Yield an outcome for each item, as they come in.

    Items are taken from `items` only as workers get free, so neither the input nor the results pile up. When
    `should_stop` turns true no further batch starts, and those in flight get `pool.grace` seconds. The same happens
    when the work raises a RunError, which then ends the map.

    Args:
        make_work: called once in each worker; must be picklable for processes.
    """
    if pool.cluster is not None:
        from pokefa.ray_engine import run_on_ray

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
                    except BrokenProcessPool:  # a worker died while none of its results was awaited
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
                    yield from _finish_started(in_flight, pool.grace)  # they may be paid for
                    raise
            if suspects:
                # A broken pool fails every batch that it held: all of them are suspects until tried alone.
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


def check_deaths(in_a_row: int) -> None:
    """End the map when workers do nothing but die.

    Raises:
        PokefaError: MOST_DEATHS_IN_A_ROW workers have died one after the other.
    """
    if in_a_row >= MOST_DEATHS_IN_A_ROW:
        raise PokefaError(
            f"{in_a_row} worker processes died one after the other: give them more memory, or fewer --workers, and run "
            "again"
        )


def _finish_started(
    in_flight: dict[Future[list[Outcome[Item, Result]]], list[Item]], grace: float
) -> Iterator[Outcome[Item, Result]]:
    """Yield what batches that have started still bring within `grace` seconds; the others never ran."""
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
    """Yield an outcome for each suspect, one at a time in a single process that is renewed whenever it dies."""
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


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, taking no more than the next list needs."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _executor(kind: Kind, workers: int, make_work: Callable[[], Work[Item, Result]]) -> Executor:
    if kind == "thread":
        return ThreadPoolExecutor(workers)
    # "spawn" starts clean processes: a fork would copy the threads' locks of TensorFlow, Torch and Polars.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _start_worker, (make_work, limits_in_use()))


def _processes_can_be_pooled() -> bool:
    """Tell whether the system has the semaphores of a process pool: on Linux they are files in /dev/shm."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:
        log.warning(
            "no semaphores here (%s; is /dev/shm missing or read-only?): the work runs in threads of one process, so "
            "an image that crashes it ends the run",
            describe(error),
        )
        return False
    return True


def _submit(
    executor: Executor, kind: Kind, make_work: Callable[[], Work[Item, Result]], batch: list[Item]
) -> Future[list[Outcome[Item, Result]]]:
    if kind == "thread":
        return executor.submit(_run_in_thread, make_work, batch)
    with _interrupts_held_back():
        return executor.submit(_run_in_process, batch)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Hold Ctrl-C back while worker processes may start: they inherit that, and stop only when the driver says so."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(executor: Executor) -> None:
    """End a pool now, without waiting for work whose result nobody will read."""
    # The pool has no public way to end its processes before Python 3.14.
    processes = list((getattr(executor, "_processes", None) or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def try_batch(work: Work[Item, Result], batch: Sequence[Item]) -> list[Outcome[Item, Result]]:
    """Run one batch; if it fails, run its items one by one, so that only the bad ones become errors."""
    try:
        results = work(batch)
        if len(results) != len(batch):
            raise ValueError(f"{len(results)} results for {len(batch)} items")
    except RunError:
        raise
    except Exception as error:
        if len(batch) == 1:
            return [Outcome(batch[0], error=describe(error))]
        return [outcome for item in batch for outcome in try_batch(work, [item])]
    return [Outcome(item, result) for item, result in zip(batch, results, strict=True)]


def describe(error: BaseException) -> str:
    """Return an error as one line: our own errors by their message, others with their type."""
    if isinstance(error, PokefaError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"the library {error.name} is not installed here: install the stage's file of requirements/, or run it "
            "through pipeline.py"
        )
    return f"{type(error).__name__}: {first_line(error)}"


# What each worker made of the factory, once: one per process, or one per thread.
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


def set_up(make_work: Callable[[], Any]) -> Any:
    """Call the factory; its failure, a missing model say, ends the run: it is no fault of the images."""
    try:
        return make_work()
    except PokefaError:
        raise
    except Exception as error:
        raise PokefaError(f"a worker could not start: {describe(error)}") from error


def _run_in_process(batch: list[Any]) -> list[Outcome[Any, Any]]:
    # The factory runs with the first batch and not in the initializer, whose errors would break the pool unread.
    if len(_process_work) == 1:
        _process_work.append(set_up(_process_work[0]))
    return try_batch(_process_work[1], batch)


def _run_in_thread(make_work: Callable[[], Work[Item, Result]], batch: list[Item]) -> list[Outcome[Item, Result]]:
    if getattr(_thread_work, "factory", None) is not make_work:
        _thread_work.factory, _thread_work.work = make_work, set_up(make_work)
    return try_batch(cast("Work[Item, Result]", _thread_work.work), batch)
