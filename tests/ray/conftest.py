"""A Ray cluster of two nodes, each a raylet of its own with one core, and datasets of small pictures."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import CHECKOUT, Dataset
from tests.storage.conftest import serving_objects

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["PYTHONPATH"] = str(CHECKOUT)  # the nodes import the tests' own work, and have another working folder

STORE_BYTES = 100 * 2**20


class TwoNodes:
    """The cluster. The head runs no work, so that any node that works can be killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # Ray leaves gigabytes of installed packages behind. A short path: sockets lie under it.
        self._folder = tempfile.mkdtemp(prefix="ray-")
        os.environ["RAY_TMPDIR"] = self._folder
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False},
        )
        self._nodes: list[Any] = []
        self.restore()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self, cpus: int = 1, gpus: int = 0) -> Any:
        node = self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=STORE_BYTES)
        self._nodes.append(node)
        return node

    def stop_node(self) -> None:
        """Stop the newest raylet as a lost network would: the head notices by its silence, half a minute later."""
        self._signal_raylet(self._nodes[-1], signal.SIGSTOP)

    def kill_node(self) -> None:
        """Kill the newest raylet as a power cut would; its workers go with it."""
        node = self._nodes.pop()
        self._signal_raylet(node, signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)

    @staticmethod
    def _signal_raylet(node: Any, number: int) -> None:
        (raylet,) = node.all_processes["raylet"]
        os.kill(raylet.process.pid, number)

    def restore(self, nodes: int = 2) -> None:
        """Make it so many nodes again, and wait until the head has seen the others go."""
        while len(self._nodes) > nodes:
            self.kill_node()
        while len(self._nodes) < nodes:
            self.add_node()
        wait_for(lambda: self.alive() == nodes, f"{nodes} nodes")

    def alive(self) -> int:
        """Return how many nodes the head takes for alive, itself not counted."""
        return -1 + sum(node["Alive"] for node in self._cluster.global_state.node_table())

    def shut_down(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def storage() -> Iterator[None]:
    """Object storage that the nodes see, for they are started while the variables that lead to it are set."""
    with serving_objects():
        yield


@pytest.fixture(scope="session")
def started(storage: None) -> Iterator[TwoNodes]:
    cluster = TwoNodes()
    yield cluster
    cluster.shut_down()


@pytest.fixture
def cluster(started: TwoNodes) -> Iterator[TwoNodes]:
    """The cluster with its two nodes, whatever the test before has done to them."""
    started.restore()
    yield started


@pytest.fixture
def fill() -> Callable[..., None]:
    """Fill a dataset with so many small pictures, the same ones for each dataset; `resized` as they are, or not yet."""

    def fill_dataset(dataset: Dataset, count: int, *, resized: bool = True) -> None:
        noise = random.Random(0)
        rows: list[Mapping[str, object]] = []
        for number in range(count):
            stream = BytesIO()
            picture = Image.frombytes("RGB", (4, 4), noise.randbytes(48)).resize((48, 40), Image.Resampling.BICUBIC)
            picture.save(stream, "PNG" if number % 2 else "JPEG")
            image_id = md5(stream.getvalue()).hexdigest()
            path = f"data_raw/rare/0001_mew/{image_id}.{'png' if number % 2 else 'jpg'}"
            (dataset.root / path).parent.mkdir(parents=True, exist_ok=True)
            # One in fifty is damaged.
            (dataset.root / path).write_bytes(stream.getvalue()[: 100 if number % 50 == 7 else None])
            row = {"image_id": image_id, "is_nsfw": False, "has_ocr": False, "path_raw": path}
            rows.append(row | ({"path_resized": path} if resized else {}))
        dataset.write_images(rows)

    return fill_dataset


def decided(dataset: Dataset) -> dict[str, dict[str, str]]:
    """Return all cells but the run ids."""
    return {
        image_id: {name: cell for name, cell in row.items() if not name.endswith("run_id")}
        for image_id, row in dataset.images().items()
    }


def wait_for(happened: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def journal_lines(root: Path) -> int:
    """Return how many lines the newest journal has."""
    journals = sorted((root / "metadata/runs").glob("*.jsonl"))
    return journals[-1].read_bytes().count(b"\n") if journals else 0
