"""What a unit of work is: items, what became of each, how to spread them over workers, and how a failing batch is
tried.

Every map of the engine (`local`, `ray_map`) takes these and gives these.
"""

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

# So many deaths in a row, each with another item, mean that the work itself is broken and not the items.
MOST_DEATHS_IN_A_ROW = 5

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
    """End the map when workers do nothing but die.

    Raises:
        PokefaError: MOST_DEATHS_IN_A_ROW workers have died one after the other.
    """
    if in_a_row >= MOST_DEATHS_IN_A_ROW:
        raise PokefaError(
            f"{in_a_row} worker processes died one after the other: give them more memory, or fewer --workers, and run "
            "again"
        )


def set_up(make_work: Callable[[], Any]) -> Any:
    """Call the factory; its failure, a missing model say, ends the run: it is no fault of the images."""
    try:
        return make_work()
    except PokefaError:
        raise
    except Exception as error:
        raise PokefaError(f"a worker could not start: {one_line(error)}") from error
