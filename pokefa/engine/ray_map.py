"""The map of `pokefa.engine` over a Ray cluster.

Each worker is a Ray actor that loads its model once. The driver gives an actor at most `Pool.queued` batches at a time
and takes results as they arrive, so neither input nor results pile up. Ray restarts nothing: when an actor dies, with
its node or because of an image, this module starts another one and retries its batches.

Ray's own maps would need more code. `ray.util.ActorPool` reads all of its input, does not replace dead actors, and does
not grow with the cluster. Ray Data needs rows as Arrow blocks, and retries the block of a dead worker, so it has no
result for an image that kills every worker.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic

from pokefa.engine.ray_cluster import Worker, connected
from pokefa.engine.work import WORKER_DIED, Cluster, Item, Outcome, Pool, Result, Work, batched, check_deaths
from pokefa.errors import PokefaError, RunError, one_line
from pokefa.images.decoding import limits_in_use
from pokefa.setup.environments import requirements_of

# A worker may die with its node and not because of an item, so an item is tried alone this many times.
TRIES_ALONE = 3

# Seconds between counts of the nodes, after which a new node gets work.
COUNT_NODES_S = 2.0
WAIT_S = 0.2
# Nodes may install packages first. If no worker has started after this time, a warning says why.
PATIENCE_S = 60.0

log = logging.getLogger("pokefa")


def run_on_ray(
    make_work: Callable[[], Work[Item, Result]],
    items: Iterable[Item],
    pool: Pool,
    cluster: Cluster,
    should_stop: Callable[[], bool],
) -> Iterator[Outcome[Item, Result]]:
    """Yield an outcome for each item as it is finished; see `pokefa.engine.run_batches`.

    Raises:
        InputError: the cluster cannot be reached.
        PokefaError: a worker could not start, or too many died in a row.
        RunError: the work reports that no further item can succeed.
    """
    with connected(pool, cluster) as ray:
        yield from _Crew(ray, make_work, pool, cluster).map(items, should_stop)  # its actors end with the connection


@dataclass(eq=False)
class _Batch(Generic[Item]):
    """Items sent to a worker together; a suspect is one item that is tried alone."""

    items: list[Item]
    suspect: bool = False
    deaths: int = 0


@dataclass(eq=False)
class _Member(Generic[Item]):
    """An actor: `starting` until its model is loaded, then working on its batches in order; keys are Ray references."""

    actor: Any
    starting: Any
    nodes: frozenset[str]  # the nodes alive when it was started, including its own
    batches: dict[Any, _Batch[Item]] = field(default_factory=dict)

    def references(self) -> list[Any]:
        return [self.starting] if self.starting is not None else list(self.batches)


class _Crew(Generic[Item, Result]):
    """The actors of one map, and their batches."""

    def __init__(self, ray: Any, make_work: Callable[[], Work[Item, Result]], pool: Pool, cluster: Cluster) -> None:
        self._ray = ray
        self._pool = pool
        self._cluster = cluster
        self._make_work = ray.put(make_work)
        self._without = list(requirements_of(cluster.requirements)[1]) if cluster.install else []
        self._members: list[_Member[Item]] = []
        self._todo: deque[_Batch[Item]] = deque()
        self._suspects: deque[_Batch[Item]] = deque()
        self._deaths = 0
        self._size = 0
        self._cpus = cluster.cpus
        self._next_count = 0.0
        self._alive: dict[str, dict[str, float]] = {}
        self._patient_until = time.monotonic() + PATIENCE_S

    def map(self, items: Iterable[Item], should_stop: Callable[[], bool]) -> Iterator[Outcome[Item, Result]]:
        batches = batched(items, self._pool.batch_size)
        while not should_stop():
            self._count_nodes()
            free = self._size * self._pool.queued - self._outstanding()
            self._todo.extend(_Batch(batch) for batch in islice(batches, max(0, free)))
            if not self._outstanding():
                return
            self._start_members()
            self._hand_out()
            yield from self._collect(self._wait(WAIT_S))
        yield from self._finish_started(self._pool.grace)

    # -- members ------------------------------------------------------------------------------------------------------

    def _count_nodes(self) -> None:
        """Set the target number of workers: --workers, or as many as fit on the live nodes."""
        if time.monotonic() < self._next_count:
            return
        self._next_count = time.monotonic() + COUNT_NODES_S
        self._alive = self._nodes_alive()
        nodes = list(self._alive.values())
        # On nodes with fewer cores than requested, a worker takes all of them.
        largest = int(max((node.get("CPU", 0) for node in nodes), default=0))
        self._cpus = max(1, min(self._cluster.cpus, largest or self._cluster.cpus))
        self._size = self._pool.workers or max(1, sum(self._room(node) for node in nodes))

    def _nodes_alive(self) -> dict[str, dict[str, float]]:
        """Return the resources of each live node, by its id."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def _room(self, node: dict[str, float]) -> int:
        room = node.get("CPU", 0) / self._cpus
        if self._cluster.gpus:
            room = min(room, node.get("GPU", 0) / self._cluster.gpus)
        return int(room)

    def _start_members(self) -> None:
        """Start actors until there is one for each batch, or the target number."""
        while len(self._members) < min(self._size, self._outstanding()):
            options = {"num_cpus": self._cpus, "num_gpus": self._cluster.gpus, "max_restarts": 0}
            actor = self._ray.remote(Worker).options(scheduling_strategy="SPREAD", **options).remote()
            limits = limits_in_use()
            starting = actor.start.remote(self._make_work, str(Path.cwd()), self._cluster.shared, self._without, limits)
            self._members.append(_Member(actor, starting, frozenset(self._alive)))
        if time.monotonic() > self._patient_until and all(member.starting is not None for member in self._members):
            self._patient_until = time.monotonic() + 10 * PATIENCE_S
            gpus = f" and {self._cluster.gpus:g} GPUs" if self._cluster.gpus else ""
            log.warning(
                "no worker has started yet: the nodes are still installing packages, or none has %d cores%s free",
                self._cpus,
                gpus,
            )

    def _end(self, member: _Member[Item]) -> None:
        with suppress(Exception):  # it or the cluster may be dead
            self._ray.kill(member.actor)

    # -- batches ------------------------------------------------------------------------------------------------------

    def _outstanding(self) -> int:
        return len(self._todo) + len(self._suspects) + sum(len(member.batches) for member in self._members)

    def _hand_out(self) -> None:
        """Give batches to members with free slots. A suspect waits for an idle member."""
        ready = [member for member in self._members if member.starting is None]
        ready.sort(key=lambda member: len(member.batches))
        kept = len(self._suspects)  # these members get no other batches, so that they become idle
        for member in ready[:kept]:
            if not member.batches:
                self._give(member, self._suspects.popleft())
        open_to_all = [member for member in ready[kept:] if not any(one.suspect for one in member.batches.values())]
        for held in range(self._pool.queued):
            for member in open_to_all:
                if self._todo and len(member.batches) <= held:
                    self._give(member, self._todo.popleft())

    def _give(self, member: _Member[Item], batch: _Batch[Item]) -> None:
        member.batches[member.actor.run.remote(batch.items)] = batch

    def _wait(self, seconds: float) -> list[Any]:
        """Wait briefly for the first reference, and return all that are ready."""
        references = [reference for member in self._members for reference in member.references()]
        ready, _ = self._ray.wait(references, timeout=min(seconds, WAIT_S))
        if ready:
            ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return list(ready)

    def _collect(self, ready: Sequence[Any]) -> Iterator[Outcome[Item, Result]]:
        """Yield the outcomes of finished batches, and remove dead members.

        Raises:
            PokefaError: a worker could not start, or too many died in a row.
            RunError: the work reports that no further item can succeed.
        """
        owners = {reference: member for member in self._members for reference in member.references()}
        errors = self._ray.exceptions
        for reference in ready:
            member = owners[reference]
            if member not in self._members:
                continue  # already removed through another of its references
            try:
                answer = self._ray.get(reference)
            except errors.RayActorError:
                yield from self._remove(member)
                continue
            except errors.ObjectLostError:  # its node went down after the batch was finished
                self._todo.appendleft(member.batches.pop(reference))
                continue
            except errors.RayTaskError as error:
                what = "could not start" if reference == member.starting else "failed"
                raise PokefaError(f"a worker {what}: {one_line(error.cause)}") from None
            except errors.RayError as error:
                raise PokefaError(f"the Ray cluster failed: {_one_line(error)}") from None
            if reference == member.starting:
                if answer is not None:
                    raise answer
                member.starting = None
                continue
            batch = member.batches.pop(reference)
            if isinstance(answer, RunError):
                yield from self._finish_started(self._pool.grace)
                raise answer
            self._deaths = 0
            for item, (result, failure) in zip(batch.items, answer, strict=True):
                yield Outcome(item, result, failure)

    def _remove(self, member: _Member[Item]) -> Iterator[Outcome[Item, Result]]:
        """Remove a dead member; each of its items is tried alone, and becomes an error after TRIES_ALONE."""
        self._members.remove(member)
        self._end(member)
        # Ray notices a lost node after seconds, and starts actors on it until then; these deaths do not count.
        if member.starting is not None and member.nodes <= self._nodes_alive().keys():
            self._deaths += 1
            check_deaths(self._deaths)
        for batch in member.batches.values():
            batch.deaths += batch.suspect
            if batch.deaths < TRIES_ALONE:
                self._suspects.extend(_Batch([item], True, batch.deaths) for item in batch.items)
                continue
            self._deaths += 1
            check_deaths(self._deaths)
            yield Outcome(batch.items[0], error=WORKER_DIED)

    def _finish_started(self, grace: float) -> Iterator[Outcome[Item, Result]]:
        """Yield the results of started batches that finish within `grace` seconds; cancel the others."""
        for member in self._members:
            for reference in list(member.batches)[1:]:
                self._ray.cancel(reference)
                del member.batches[reference]
        self._members = [member for member in self._members if member.batches]
        deadline = time.monotonic() + grace
        while self._members and (left := deadline - time.monotonic()) > 0:
            for reference in self._wait(left):
                member = next(one for one in self._members if reference in one.batches)
                batch = member.batches.pop(reference)
                with suppress(self._ray.exceptions.RayError):
                    answer = self._ray.get(reference)
                    if not isinstance(answer, RunError):
                        for item, (result, failure) in zip(batch.items, answer, strict=True):
                            yield Outcome(item, result, failure)
                self._end(member)
            self._members = [member for member in self._members if member.batches]


def _one_line(error: BaseException) -> str:
    """Return Ray's message as one short line, because its first line often says nothing."""
    text = " ".join(str(error).split())
    return text if len(text) <= 600 else f"{text[:300]} … {text[-300:]}"
