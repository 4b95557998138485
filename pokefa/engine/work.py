"""The types of the engine's maps (`local`, `ray_map`): work, pool, cluster and outcome, and how a batch is tried."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pokefa.errors import PokefaError, RunError, one_line

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Sequence[Item]], Sequence[Result]]
Kind = Literal["process", "thread"]

# After so many deaths in a row, each with another item, the work is broken and not the items.
MOST_DEATHS_IN_A_ROW = 5

WORKER_DIED = "worker_died: the process working on this image was killed (out of memory, or a crash in a library)"


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """The outcome of one item: a result, or a one-line error."""

    item: Item
    result: Result | None = None
    error: str | None = None


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that does the work instead of this machine's processes.

    Args:
        address: its head, as `HOST:PORT` or `auto`; None = start Ray on this machine for the duration of the map.
        requirements: the stage's file is requirements/requirements_<requirements>.txt; several are joined by `+`.
        install: the nodes install the stage's requirements first; otherwise they already have them.
        cpus: cores per worker.
        gpus: GPUs per worker; two workers with 0.5 share one.
        shared: folder that all nodes must share; None if the images are on object storage.
    """

    address: str | None
    requirements: str
    install: bool
    cpus: int = 1
    gpus: float = 0.0
    shared: Path | None = None


@dataclass(frozen=True)
class Pool:
    """How to distribute the work.

    Args:
        kind: processes for work in Python and C, threads for waiting on the network or on decoders.
        workers: number of workers; None = one per core, of the cluster if there is one.
        batch_size: items in one call of the work function.
        queued: batches queued per worker; bounds memory.
        grace: seconds that batches in flight get to finish after a stop is requested.
        cluster: the cluster of the workers; None = this machine.
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


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, taking no more than the next list needs."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


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
            return [Outcome(batch[0], error=one_line(error))]
        return [outcome for item in batch for outcome in try_batch(work, [item])]
    return [Outcome(item, result) for item, result in zip(batch, results, strict=True)]


def check_deaths(in_a_row: int) -> None:
    """End the map if too many workers died in a row.

    Raises:
        PokefaError: MOST_DEATHS_IN_A_ROW workers have died in a row.
    """
    if in_a_row >= MOST_DEATHS_IN_A_ROW:
        raise PokefaError(
            f"{in_a_row} worker processes died in a row: give them more memory, or reduce --workers, and run again"
        )


def set_up(make_work: Callable[[], Any]) -> Any:
    """Call the factory; its failure, such as a missing model, ends the run."""
    try:
        return make_work()
    except PokefaError:
        raise
    except Exception as error:
        raise PokefaError(f"a worker could not start: {one_line(error)}") from error
