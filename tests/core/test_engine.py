"""The engine with real processes and threads: one bad item costs itself, and a dead worker costs its own images."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from pokefa.engine.local import run_batches
from pokefa.engine.work import WORKER_DIED, Outcome, Pool, each
from pokefa.errors import InputError, PokefaError
from tests.conftest import CHECKOUT, Finished


def square(number: int) -> int:
    """Square, with numbers that stand for what can go wrong in a decoder."""
    if number == 13:
        raise ValueError("unlucky\nand more")
    if number == 14:
        raise InputError("one clear line")
    if number == 99:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 98:
        os._exit(1)
    return number * number


def make_squares() -> Callable[[Sequence[int]], Sequence[int]]:
    return each(square)


def outcomes(items: Sequence[int], pool: Pool) -> dict[int, Outcome[int, int]]:
    found = list(run_batches(make_squares, items, pool))
    assert len(found) == len(items)
    return {outcome.item: outcome for outcome in found}


@pytest.mark.parametrize("kind", ["process", "thread"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_every_item_has_an_outcome_and_a_bad_one_costs_itself(kind, batch_size):
    found = outcomes(range(40), Pool(kind, workers=2, batch_size=batch_size))
    assert {item for item, outcome in found.items() if outcome.error} == {13, 14}
    assert found[13].error == "ValueError: unlucky"
    assert found[14].error == "one clear line"
    assert all(found[item].result == item * item for item in range(40) if item not in (13, 14))


@pytest.mark.parametrize("killer", [98, 99])
def test_a_worker_that_dies_costs_its_own_item(killer):
    found = outcomes([*range(20, 60), killer, *range(60, 90)], Pool(workers=2, batch_size=4))
    assert {item for item, outcome in found.items() if outcome.error} == {killer}
    assert found[killer].error == WORKER_DIED


def pid_of_worker(number: int) -> int:
    return os.getpid()


def make_pids() -> Callable[[Sequence[int]], Sequence[int]]:
    return each(pid_of_worker)


def test_a_worker_that_dies_between_two_batches_costs_nothing():
    """The out-of-memory killer may strike while the driver is busy with results: the next submit finds it out."""
    results = run_batches(make_pids, range(30), Pool(workers=2))
    found = [next(results)]
    assert found[0].result is not None
    os.kill(found[0].result, signal.SIGKILL)
    time.sleep(1)
    found += list(results)
    assert sorted(outcome.item for outcome in found) == list(range(30))
    assert [outcome.error for outcome in found if outcome.error] == []


def test_workers_that_always_die_end_the_run():
    with pytest.raises(PokefaError, match=r"^5 worker processes died in a row: give them more memory"):
        list(run_batches(make_squares, [99] * 8, Pool(workers=1)))


def refuse() -> Callable[[Sequence[int]], Sequence[int]]:
    raise FileNotFoundError("no model here")


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_worker_that_cannot_start_ends_the_run_and_not_every_image(kind):
    with pytest.raises(PokefaError, match=r"^a worker could not start: FileNotFoundError: no model here$"):
        list(run_batches(refuse, range(5), Pool(kind, workers=2)))


def lack_a_library() -> Callable[[Sequence[int]], Sequence[int]]:
    import a_library_that_is_not_there  # noqa: F401 -- that it cannot be imported is the point

    return each(square)


def test_a_missing_library_is_named_with_the_way_out():
    with pytest.raises(PokefaError) as caught:
        list(run_batches(lack_a_library, range(5), Pool(workers=1)))
    assert str(caught.value) == (
        "a worker could not start: the library a_library_that_is_not_there is not installed here: install the stage's "
        "file in requirements/, or run the script through pipeline.py"
    )


@dataclass(frozen=True)
class CountLoads:
    """A factory that leaves a file for each time it was called."""

    folder: Path

    def __call__(self) -> Callable[[Sequence[int]], Sequence[int]]:
        (self.folder / f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}").touch()
        return each(square)


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_factory_is_called_once_in_each_worker(tmp_path, kind):
    list(run_batches(CountLoads(tmp_path), range(20, 60), Pool(kind, workers=2)))
    workers = [path.name.rsplit("-", 1)[0] for path in tmp_path.iterdir()]
    assert 1 <= len(workers) <= 2
    assert len(set(workers)) == len(workers)


def wrong_number(batch: Sequence[int]) -> list[int]:
    return [1] if len(batch) == 1 else [1, 2, 3]


def test_results_that_do_not_match_the_batch_are_not_paired_at_random():
    found = list(run_batches(lambda: wrong_number, [5, 6], Pool("thread", workers=1, batch_size=2)))
    assert [(outcome.item, outcome.result, outcome.error) for outcome in found] == [(5, 1, None), (6, 1, None)]


def test_items_are_taken_only_as_workers_get_free():
    taken = []

    def source():
        for number in range(20, 1000):
            taken.append(number)
            yield number

    results = run_batches(make_squares, source(), Pool("thread", workers=2, batch_size=3, queued=2))
    next(results)
    assert len(taken) <= 2 * 2 * 3
    results.close()


def slow(number: int) -> int:
    time.sleep(0.3)
    return number


def test_after_a_stop_what_has_started_comes_in_and_nothing_else_starts():
    stop = threading.Event()
    found = []
    for outcome in run_batches(lambda: each(slow), range(100), Pool("thread", workers=2, queued=3), stop.is_set):
        found.append(outcome.item)
        stop.set()
    assert 1 <= len(found) <= 5
    assert len(set(found)) == len(found)


def test_without_ray_the_flag_names_its_requirements(dataset):
    dataset.write_images([{"image_id": "0" * 32, "path_resized": "there/is/none.png"}])
    done = dataset.run("preprocess/dup/phash.py", "--engine", "ray")
    assert (done.code, done.stderr) == (
        2,
        "error: --engine ray needs Ray, which is not installed here: pip install -r "
        "requirements/requirements_ray.txt\n",
    )


def test_without_semaphores_the_work_runs_in_threads(without_shared_memory: Callable[..., Finished]) -> None:
    code = (
        "from pokefa.engine.local import *; from pokefa.engine.work import *; from tests.core.test_engine import *;"
        "print(json.dumps({outcome.item: outcome.result for outcome in run_batches(make_squares, range(5), Pool())}))"
    )
    finished = without_shared_memory("-c", "import json;" + code)
    assert finished.summary == {"0": 0, "1": 1, "2": 4, "3": 9, "4": 16}, finished.stderr


def test_workers_do_not_outlive_a_killed_driver(tmp_path):
    script = (
        "import sys, time, os; from functools import partial; from pathlib import Path;"
        "from pokefa.engine.local import run_batches;"
        "from pokefa.engine.work import Pool; from tests.core.test_engine import leave_pid;"
        "list(run_batches(partial(leave_pid, Path(sys.argv[1])), range(100), Pool(workers=2)))"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
    )
    while len(list(tmp_path.iterdir())) < 2:
        assert driver.poll() is None
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "worker processes outlived their driver"
        time.sleep(0.05)


def test_ctrl_c_while_workers_start_leaves_no_traceback(tmp_path):
    """In a terminal Ctrl-C reaches every process of the group, those that are still importing too."""
    script = (
        "import signal, threading; from pokefa.engine.local import run_batches; from pokefa.engine.work import Pool;"
        "from tests.core.test_engine import make_squares;"
        "stop = threading.Event(); signal.signal(signal.SIGINT, lambda *_: stop.set());"
        "print('ready', flush=True); list(run_batches(make_squares, range(20, 9000), Pool(workers=4), stop.is_set))"
    )
    for delay in (0.05, 0.15, 0.3):
        driver = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert driver.stdout is not None
        driver.stdout.readline()
        time.sleep(delay)
        os.killpg(driver.pid, signal.SIGINT)
        _, errors = driver.communicate(timeout=60)
        assert (driver.returncode, errors) == (0, "")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]


def leave_pid(folder: Path) -> Callable[[Sequence[int]], Sequence[int]]:
    (folder / str(os.getpid())).touch()
    return partial(_sleep)


def _sleep(batch: Sequence[int]) -> list[int]:
    time.sleep(0.5)
    return list(batch)
