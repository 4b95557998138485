"""The worker of the screen: what it returns, how far it looks ahead, and what happens when it fails or dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pokefa.engine.work import WORKER_DIED
from pokefa.errors import ImageError
from pokefa.machine import available_cores
from pokefa.setup.runner import checkout_variables
from preprocess.nsfw.screening import ScreenRows, map_ahead, spread_work
from tests.conftest import CHECKOUT, Dataset, Finished, numbered_id
from tests.nsfw.screens import RED, Blueness

SCRIPT = "tests/nsfw/screens.py"


# -- looking ahead ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(1, 8), st.integers(1, 4))
def test_results_come_in_order_and_only_so_many_items_are_begun(items: int, ahead: int, threads: int) -> None:
    begun: list[int] = []

    def double(item: int) -> int:
        begun.append(item)
        return 2 * item

    with ThreadPoolExecutor(threads) as executor:
        for number, result in enumerate(map_ahead(double, range(items), executor, ahead)):
            assert result == 2 * number
            assert max(begun) <= number + ahead
    assert sorted(begun) == list(range(items))


def test_the_next_items_are_begun_while_a_result_is_used() -> None:
    begun: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        results = map_ahead(begun.append, range(9), executor, 3)
        next(results)
        executor.submit(int).result()  # the one thread has come to what stood in line before this
        assert begun == [0, 1, 2, 3]


def test_an_error_comes_when_its_item_has_its_turn() -> None:
    with ThreadPoolExecutor(2) as executor:
        results = map_ahead(lambda item: 1 / item, [2, 1, 0, 4], executor, 4)
        assert [next(results), next(results)] == [0.5, 1.0]
        with pytest.raises(ZeroDivisionError):
            next(results)


# -- the worker -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched(Blueness):
    """Keeps the size of every batch."""

    sizes: list[int] = field(default_factory=list)

    def scores(self, batch: np.ndarray) -> np.ndarray:
        self.sizes.append(len(batch))
        return super().scores(batch)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    Image.new("RGB", (9, 5), (0, 0, 255)).save(folder / "blue.png")
    Image.new("RGB", (5, 9)).save(folder / "black.png")
    Image.new("RGB", (7, 7), RED).save(folder / "red.png")
    (folder / "broken.png").write_bytes((folder / "blue.png").read_bytes()[:50])
    return folder


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["blue", "black", "broken"]), max_size=12), st.integers(1, 5), st.integers(1, 3))
def test_every_row_gets_its_own_result(files: Path, names: list[str], batch_size: int, threads: int) -> None:
    screen = Watched()
    work = ScreenRows(files, screen, ("blue",), batch_size, threads)()
    results = work([{"path_raw": f"{name}.png"} for name in names])
    for name, result in zip(names, results, strict=True):
        if name == "broken":
            assert isinstance(result, ImageError) and result.slug == "truncated"
        else:
            assert result == {"blue": 1.0 if name == "blue" else 0.0}
    full, rest = divmod(len(names) - names.count("broken"), batch_size)
    assert screen.sizes == [batch_size] * full + [rest] * (rest > 0)


class NotFinite(Blueness):
    def scores(self, batch: np.ndarray) -> np.ndarray:
        return super().scores(batch) * np.nan


def test_scores_that_are_not_finite_are_an_error(files: Path) -> None:
    work = ScreenRows(files, NotFinite(), ("blue",), 4, 1)()
    with pytest.raises(ValueError, match=r"^the model's scores are not finite$"):
        work([{"path_raw": "blue.png"}])


@pytest.mark.parametrize("workers", [1, 2, 3, 1000])
def test_workers_times_threads_are_the_cores(workers: int) -> None:
    pool, threads = spread_work(8, workers)
    assert (pool.kind, pool.workers) == ("process", workers)
    assert threads == max(1, available_cores() // workers)


def test_tensorflow_keeps_to_its_threads(model_dir: Path, run_script: Callable[..., Finished]) -> None:
    code = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from preprocess.nsfw.deepdanbooru import import_tensorflow, open_project\n"
        "open_project(Path(sys.argv[1])).load(3)\n"
        "threading = import_tensorflow().config.threading\n"
        "print(json.dumps({'threads': [threading.get_intra_op_parallelism_threads(),"
        " threading.get_inter_op_parallelism_threads()]}))"
    )
    finished = run_script("-c", code, model_dir)
    assert finished.summary == {"threads": [3, 1]}
    assert finished.stderr == ""


# -- failing and dying ------------------------------------------------------------------------------------------------


def fill(dataset: Dataset, files: Path, names: list[str]) -> None:
    (dataset.root / "raw").symlink_to(files)
    dataset.write_images(
        {"image_id": numbered_id(number), "path_raw": f"raw/{name}.png"} for number, name in enumerate(names)
    )


NAMES = ["blue", "black", "red", "broken", "blue", "black", "blue"]


def outcomes(dataset: Dataset) -> list[tuple[str, str]]:
    return [(row["is_nsfw"], row["nsfw_error"]) for row in dataset.images().values()]


def test_a_picture_that_kills_its_worker_costs_itself_alone(dataset: Dataset, files: Path) -> None:
    fill(dataset, files, NAMES)
    finished = dataset.run(SCRIPT, "kills")
    assert finished.code == 0, finished.stderr
    assert (finished.summary["done"], finished.summary["errors"]) == (5, 2)
    found = outcomes(dataset)
    broken = found[3][1]
    assert broken.startswith("truncated: ")
    blue, black = ("True", ""), ("False", "")
    assert found == [blue, black, ("", WORKER_DIED), ("", broken), blue, black, blue]


def test_a_batch_that_does_not_fit_into_memory_is_tried_picture_by_picture(dataset: Dataset, files: Path) -> None:
    fill(dataset, files, NAMES)
    finished = dataset.run(SCRIPT, "exhausts")
    assert finished.code == 0, finished.stderr
    assert (finished.summary["done"], finished.summary["errors"]) == (5, 2)
    found = outcomes(dataset)
    assert [flag for flag, _ in found] == ["True", "False", "", "", "True", "False", "True"]
    assert "MemoryError: " in found[2][1]


def test_a_worker_that_is_killed_in_the_middle_of_a_run_costs_nothing(dataset: Dataset, files: Path) -> None:
    """Real weights, a real signal: the run begins another process and goes on with what the first was at."""
    names = ["blue", "black", "red"] * 24
    recorded = len(names)
    while recorded == len(names):  # the machine may let a run get that far before its worker is killed
        shutil.rmtree(dataset.root)
        dataset.root.mkdir()
        fill(dataset, files, names)
        run = subprocess.Popen(
            [sys.executable, "preprocess/nsfw/nsfw_filter.py", "--root", dataset.root, "--backend", "opennsfw"],
            cwd=CHECKOUT,
            env=checkout_variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while count_recorded(dataset) == 0 and run.poll() is None:
            time.sleep(0.005)
        with suppress(FileNotFoundError, ProcessLookupError):
            for pid in children_of(run.pid):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        recorded = count_recorded(dataset)
        stdout, stderr = run.communicate(timeout=250)
        assert run.returncode == 0, stderr
    summary = json.loads(stdout)
    assert (summary["done"], summary["errors"]) == (len(names), 0)
    scores = {(name, row["nsfw_score"]) for name, row in zip(names, dataset.images().values(), strict=True)}
    assert len(scores) == 3


def count_recorded(dataset: Dataset) -> int:
    journals = (dataset.root / "metadata" / "runs").glob("*.jsonl")
    return sum(path.read_bytes().count(b'"image_id"') for path in journals)


def children_of(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
