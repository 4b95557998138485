"""The map over a Ray cluster: what the local engine does, and what becomes of dead workers, nodes and drivers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from pokefa.engine import ray_cluster
from pokefa.engine import ray_map as ray_engine
from pokefa.engine import work as engine
from pokefa.engine.local import run_batches
from pokefa.engine.work import WORKER_DIED, Cluster, Outcome, Pool, each
from pokefa.errors import InputError, PokefaError, RunError
from tests.ray.conftest import TwoNodes

Squares = Callable[[Sequence[int]], Sequence[int]]


def pool_on(cluster: TwoNodes, shared: Path | None = None, gpus: float = 0, **settings: Any) -> Pool:
    return Pool(**settings, cluster=Cluster(cluster.address, "dup", install=False, gpus=gpus, shared=shared))


def square(number: int, folder: Path) -> int:
    """Square, with numbers that stand for what can go wrong; leaves a file for each try of a deadly one."""
    if number == 13:
        raise ValueError("unlucky\nand more")
    if number == 14:
        raise InputError("one clear line")
    if number >= 900:
        (folder / f"{number}-{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@dataclass(frozen=True)
class MakeSquares:
    """A factory that leaves a file for each time it was called."""

    folder: Path

    def __call__(self) -> Squares:
        (self.folder / f"load-{os.getpid()}-{time.monotonic_ns()}").touch()
        return each(partial(square, folder=self.folder))


def test_every_item_has_an_outcome_and_a_model_loads_once_per_worker(cluster, tmp_path):
    found = {one.item: one for one in run_batches(MakeSquares(tmp_path), range(60), pool_on(cluster, batch_size=7))}
    assert sorted(found) == list(range(60))
    assert {item: one.error for item, one in found.items() if one.error} == {
        13: "ValueError: unlucky",
        14: "one clear line",
    }
    assert all(found[item].result == item * item for item in range(60) if item not in (13, 14))
    loaded_in = [path.name.split("-")[1] for path in tmp_path.glob("load-*")]
    assert 1 <= len(loaded_in) <= 2  # one may have done all before the other was up
    assert len(set(loaded_in)) == len(loaded_in)


def test_an_image_that_kills_its_worker_is_tried_so_often_and_no_more(cluster, tmp_path):
    items = [*range(20, 40), 900, *range(40, 60)]
    found = {one.item: one for one in run_batches(MakeSquares(tmp_path), items, pool_on(cluster, batch_size=4))}
    assert sorted(found) == sorted(items)
    assert [one for one in found.values() if one.error] == [Outcome(900, error=WORKER_DIED)]
    assert len(list(tmp_path.glob("900-*"))) == 1 + ray_engine.TRIES_ALONE


def test_workers_that_always_die_end_the_run(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "TRIES_ALONE", 1)
    monkeypatch.setattr(engine, "MOST_DEATHS_IN_A_ROW", 2)
    with pytest.raises(PokefaError, match=r"^2 worker processes died in a row: give them more memory"):
        list(run_batches(MakeSquares(tmp_path), range(900, 908), pool_on(cluster, batch_size=8)))


def where(number: int) -> tuple[int, str]:
    import ray

    time.sleep(0.02)
    return os.getpid(), ray.get_runtime_context().get_node_id()


def make_where() -> Callable[[Sequence[int]], Sequence[tuple[int, str]]]:
    return each(where)


def test_a_killed_worker_a_killed_node_and_a_new_node_cost_nothing(cluster):
    """Everything has a result, and those of the time after the new node has come are partly its own."""
    seen: set[str] = set()
    arrived = threading.Event()

    def items() -> Iterator[int]:
        number = 0
        while len(seen) < 3 and number < 20_000:  # until the third node has worked
            yield number
            number += 1
        yield from range(number, number + 20)

    taken, found = [], []
    for one in run_batches(make_where, items(), pool_on(cluster)):
        taken.append(one.item)
        assert one.error is None and one.result is not None
        pid, node = one.result
        seen.add(node)
        found.append(one)
        if len(found) == 20:
            os.kill(pid, signal.SIGKILL)
        if len(found) > 60 and len(seen) == 2 and not arrived.is_set():
            arrived.set()
            cluster.kill_node()
            cluster.add_node()
    assert len(seen) == 3
    assert sorted(taken) == list(range(len(taken)))


def test_actors_that_ray_starts_on_a_lost_node_do_not_count_as_dead_workers(cluster, monkeypatch):
    """Ray sees half a minute later that a node is silent, and what it wanted to start there dies with it."""
    monkeypatch.setattr(engine, "MOST_DEATHS_IN_A_ROW", 1)
    cluster.add_node(cpus=4)
    cluster.stop_node()

    def items() -> Iterator[int]:
        number = 0
        while cluster.alive() == 3 and number < 20_000:
            yield number
            number += 1
        yield from range(number, number + 20)

    found = list(run_batches(make_where, items(), pool_on(cluster)))
    assert cluster.alive() == 2
    assert sorted(one.item for one in found) == list(range(len(found)))
    assert not any(one.error for one in found)


def test_items_are_taken_only_as_workers_get_free(cluster, tmp_path):
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(20, 800):
            taken.append(number)
            yield number

    most = 0
    for done, _ in enumerate(run_batches(MakeSquares(tmp_path), source(), pool_on(cluster, batch_size=3, queued=2)), 1):
        most = max(most, len(taken) - done)
    assert done == 780
    # Two workers with two batches of three each, and the batches of which results came in at the same moment.
    assert most <= 2 * (2 * 2 * 3)


def refuse(number: int) -> int:
    time.sleep(0.05)
    if number == 5:
        raise RunError("the disk is full")
    return number


def test_an_error_that_ends_the_run_does_so_after_what_has_started_came_in(cluster):
    found = []
    with pytest.raises(RunError, match=r"^the disk is full$"):
        for one in run_batches(partial(each, refuse), range(500), pool_on(cluster)):
            found.append(one.item)
    assert 4 <= len(found) <= 12
    assert 5 not in found


def test_after_a_stop_what_has_started_comes_in_and_nothing_else_starts(cluster):
    stop = threading.Event()
    found = []
    for one in run_batches(make_where, range(500), pool_on(cluster, queued=3), stop.is_set):
        found.append(one.item)
        stop.set()
    assert 1 <= len(found) <= 12
    assert len(set(found)) == len(found)


def fail_to_load() -> Squares:
    raise FileNotFoundError("no model here")


def test_a_worker_that_cannot_start_ends_the_run_and_not_every_image(cluster):
    with pytest.raises(
        PokefaError, match=r"^a worker could not start: FileNotFoundError: no model here \(on node \S+\)$"
    ):
        list(run_batches(fail_to_load, range(5), pool_on(cluster)))


def test_a_folder_that_a_node_does_not_see_ends_the_run(cluster, tmp_path):
    missing = tmp_path / "elsewhere"
    with pytest.raises(PokefaError) as caught:
        list(run_batches(make_where, range(5), pool_on(cluster, shared=missing)))
    assert str(caught.value).startswith(
        f"{missing} does not exist: use storage that all nodes mount at the same path (on node "
    )


def count_gpus(number: int) -> str:
    time.sleep(0.1)
    return f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}"


def test_workers_share_a_gpu(cluster):
    """One node has four cores and a GPU: with half a GPU each there are two workers, both on it."""
    cluster.restore(1)
    cluster.add_node(cpus=4, gpus=1)
    try:
        found = run_batches(partial(each, count_gpus), range(30), pool_on(cluster, gpus=0.5))
        workers = Counter(str(one.result) for one in found)
    finally:
        cluster.restore(1)
    assert len(workers) == 2
    assert {worker.split()[1] for worker in workers} == {"0"}


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def pool_that_installs(cluster: TwoNodes, monkeypatch: pytest.MonkeyPatch, without_dependencies: str) -> Pool:
    cluster.restore(1)  # two nodes on one machine would build one environment at the same place
    for module in (ray_cluster, ray_engine):
        monkeypatch.setattr(module, "requirements_of", lambda name: (("tzlocal==5.3.1",), (without_dependencies,)))
    return Pool(cluster=Cluster(cluster.address, "dup", install=True))


def test_a_node_installs_packages_and_those_without_their_dependencies(cluster, monkeypatch):
    """tzlocal is installed whole; markdown-it-py, which asks for mdurl, without it."""
    pool = pool_that_installs(cluster, monkeypatch, "markdown-it-py==4.0.0")
    found = run_batches(partial(each, installed), ["tzlocal", "markdown-it-py", "mdurl"], pool)
    assert {one.item: one.result for one in found} == {
        "tzlocal": "5.3.1",
        "markdown-it-py": "4.0.0",
        "mdurl": None,
    }


def test_a_package_that_cannot_be_installed_ends_the_run(cluster, monkeypatch):
    pool = pool_that_installs(cluster, monkeypatch, "python-dateutil==0.0.0.1")
    with pytest.raises(
        PokefaError, match=r"^pip could not install python-dateutil==0\.0\.0\.1: ERROR: .* \(on node \S+\)$"
    ):
        list(run_batches(make_where, range(5), pool))


def tell_environment(number: int) -> dict[str, str]:
    return dict(os.environ)


def test_no_variable_of_the_driver_goes_along(cluster, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-the-driver")
    (told,) = run_batches(partial(each, tell_environment), [1], pool_on(cluster))
    assert told.result is not None and told.result["PATH"]
    assert "sk-a-key-of-the-driver" not in str(told.result)


def test_the_answer_to_sigterm_stays_the_stage_s_own(cluster):
    before = signal.getsignal(signal.SIGTERM)
    mine = lambda number, frame: None  # noqa: E731 -- a handler to be known again
    signal.signal(signal.SIGTERM, mine)
    try:
        for _ in run_batches(make_where, range(2), pool_on(cluster)):
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
