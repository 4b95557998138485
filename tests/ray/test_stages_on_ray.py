"""Stages as a user runs them, on a cluster: every cell as on one machine, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pokefa.engine.ray_cluster import copy_code, runtime_environment
from pokefa.engine.work import Cluster
from pokefa.setup.environments import requirements_of
from pokefa.stage.options import add_cluster_options, add_data_option, cluster_from, stage_parser
from tests.conftest import CHECKOUT, Dataset
from tests.ray.conftest import TwoNodes, decided, journal_lines, wait_for
from tests.storage.conftest import BUCKET, files
from tests.webdataset.test_webdataset import write_set

IMAGES = 2000
RESIZE = ("preprocess/resize/resize.py", "--min-side", 64)
PHASH = ("preprocess/dup/phash.py",)
EVERY = ("preprocess/nsfw/nsfw_filter.py", "preprocess/ocr/ocr_pipeline.py", "preprocess/resize/resize.py",
         "preprocess/dup/phash.py", "webdataset/webdataset.py")  # fmt: skip


def on(cluster: TwoNodes) -> tuple[str, ...]:
    return ("--engine", "ray", "--ray-address", cluster.address, "--ray-runtime-env", "code")


def start(dataset: Dataset, *command: object) -> subprocess.Popen[str]:
    """Start a script in a process group of its own, as a terminal does."""
    script, *arguments = map(str, command)
    return subprocess.Popen(
        [sys.executable, script, "--root", str(dataset.root), *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def two_datasets(tmp_path: Path) -> tuple[Dataset, Dataset]:
    for name in ("local", "ray"):
        (tmp_path / name).mkdir()
    return Dataset(tmp_path / "local"), Dataset(tmp_path / "ray")


def resized_files(root: Path) -> dict[Path, bytes]:
    """Return the files by their names; a killed worker leaves a hidden one, as it does without Ray."""
    files = (path for path in (root / "data_stage").rglob("*.*") if not path.name.startswith("."))
    return {path.relative_to(root): path.read_bytes() for path in files}


def test_a_killed_node_and_a_new_one_change_no_cell_and_no_file(cluster, tmp_path, fill):
    local, ray = two_datasets(tmp_path)
    fill(local, IMAGES, resized=False)
    fill(ray, IMAGES, resized=False)
    here = local.run(*RESIZE)
    assert (here.code, here.summary["done"], here.summary["errors"]) == (0, IMAGES - 40, 40)

    running = start(ray, *RESIZE, *on(cluster))
    wait_for(lambda: journal_lines(ray.root) > 300, "results")
    cluster.kill_node()
    killed_at = journal_lines(ray.root)
    wait_for(lambda: journal_lines(ray.root) > killed_at + 200, "results of the node that is left")
    cluster.add_node()
    stdout, stderr = running.communicate(timeout=200)
    assert running.returncode == 0, stderr
    assert killed_at < IMAGES // 2

    assert decided(ray) == decided(local)
    assert resized_files(ray.root) == resized_files(local.root)
    assert (
        json.loads(stdout)["counts"] == here.summary["counts"]
    )  # nothing but the summary, although Ray tells of nodes
    assert "Traceback" not in stderr


def test_ctrl_c_and_a_killed_driver_lose_nothing(cluster, tmp_path, fill):
    local, ray = two_datasets(tmp_path)
    fill(local, IMAGES)
    fill(ray, IMAGES)
    assert local.run(*PHASH).code == 0

    stopped = start(ray, *PHASH, *on(cluster))
    wait_for(lambda: journal_lines(ray.root) > 100, "results")
    os.killpg(stopped.pid, signal.SIGINT)
    _, stderr = stopped.communicate(timeout=100)
    assert stopped.returncode == 130, stderr
    assert "error: interrupted: finished work is saved; run the same command again to continue\n" in stderr
    saved = sum(bool(row["phash64"]) for row in ray.images().values())
    assert 100 < saved < IMAGES - 40

    killed = start(ray, *PHASH, *on(cluster))
    wait_for(lambda: len(list((ray.root / "metadata/runs").glob("*.jsonl"))) == 2, "the second run")
    wait_for(lambda: journal_lines(ray.root) > 100, "results")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()

    last = ray.run(*PHASH, *on(cluster), "--batch-size", 32)
    assert last.code == 0, last.stderr
    assert last.summary["seen"] < IMAGES - saved
    assert decided(ray) == decided(local)


def test_ray_on_this_machine_alone_leaves_no_process(dataset, fill):
    fill(dataset, 60)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # Ray's sockets need a short path
        done = dataset.run(*PHASH, "--engine", "ray", "--workers", 2, env={"RAY_TMPDIR": folder})
        assert (done.code, done.summary["done"], done.summary["errors"]) == (0, 58, 2), done.stderr
        assert list(Path(folder).iterdir())

        def left() -> list[str]:
            lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
            return [line for line in lines.splitlines() if folder in line]

        wait_for(lambda: not left(), "Ray's processes to end")


@pytest.mark.parametrize("name", ["nsfw", "ocr", "resize", "dup", "webdataset"])
def test_a_node_gets_the_stage_s_packages_and_the_code(name, tmp_path):
    given = runtime_environment(Cluster("auto", name, install=True), copy_code(tmp_path))
    packages = given["pip"]["packages"]
    assert packages == list(requirements_of(name)[0])
    assert all("==" in package for package in packages)
    assert {package.split("==")[0] for package in packages} >= {"pillow", "polars", "filelock"}
    assert not [package for package in packages if package.startswith(("pytest", "hypothesis", "ray=="))]
    assert set(given) == {"working_dir", "config", "pip"}
    assert (tmp_path / "pokefa/engine/local.py").read_bytes() == (CHECKOUT / "pokefa/engine/local.py").read_bytes()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".py"}
    assert not list(tmp_path.glob("webdataset/*"))  # it would hide the library of that name


def test_a_node_installs_what_the_stage_needs(cluster, dataset):
    """The library that packs shards is not installed here: the node that works gets it for the job."""
    assert find_spec("webdataset") is None or find_spec("webdataset").origin is None  # the folder of the scripts
    cluster.restore(1)  # two nodes on one machine would build one environment at the same place
    write_set(dataset, 6, 2)
    done = dataset.run(
        "webdataset/webdataset.py", "--shard-size", 4, "--engine", "ray", "--ray-address", cluster.address
    )
    assert (done.code, done.summary["done"], done.summary["errors"]) == (0, 8, 0), done.stderr
    checked = dataset.run("webdataset/webdataset.py", "--verify")
    assert (checked.code, checked.summary["samples"]) == (0, 8), checked.stdout


def test_images_on_object_storage_need_no_shared_folder(cluster, tmp_path, fill):
    local, ray = two_datasets(tmp_path)
    fill(local, 60, resized=False)
    fill(ray, 60, resized=False)
    files().put(str(ray.root / "data_raw"), f"{BUCKET}/ray/data_raw", recursive=True)
    shutil.rmtree(ray.root / "data_raw")
    local.run(*RESIZE)
    done = ray.run(*RESIZE, *on(cluster), "--data-root", f"s3://{BUCKET}/ray")
    assert (done.code, done.summary["done"], done.summary["errors"]) == (0, 58, 2), done.stderr
    assert decided(ray) == decided(local)
    assert not (ray.root / "data_stage").exists()
    for path, content in resized_files(local.root).items():
        assert files().cat_file(f"{BUCKET}/ray/{path.as_posix()}") == content


def test_nodes_get_what_object_storage_needs():
    parser = stage_parser("")
    add_data_option(parser)
    add_cluster_options(parser, "resize")
    words = ["--engine", "ray", "--ray-address", "10.0.0.1:6379", "--data-root"]
    cluster = cluster_from(parser.parse_args([*words, "s3://bucket/set"]))
    assert cluster == Cluster("10.0.0.1:6379", "resize+data_root", install=True)
    cluster = cluster_from(parser.parse_args([*words, "/share"]))
    assert cluster == Cluster("10.0.0.1:6379", "resize", install=True, shared=Path("/share"))


def test_nodes_that_have_the_packages_get_the_code_alone(tmp_path):
    given = runtime_environment(Cluster("auto", "nsfw", install=False), tmp_path)
    assert set(given) == {"working_dir", "config"}


@pytest.mark.parametrize("script", EVERY)
def test_wrong_use_is_one_line(script, dataset, fill):
    fill(dataset, 1)
    halves = ("run",) if "ocr" in script else ()
    wrong: list[tuple[tuple[Any, ...], str]] = [
        (("--ray-address", "x:1"), "--ray-address is for a Ray cluster: add --engine ray, or remove it"),
        (("--gpus-per-worker", 1), "--gpus-per-worker is for a Ray cluster: add --engine ray, or remove it"),
        (
            ("--engine", "ray", "--ray-address", "ray://x:1"),
            "--ray-address ray://x:1: give HOST:PORT, and run the script on a node of the cluster",
        ),
    ]
    for flags, message in wrong:
        done = dataset.run(script, *halves, *flags)
        assert (done.code, done.stderr) == (2, f"error: {message}\n")


def test_an_address_where_no_cluster_is_says_so_at_once(dataset, fill):
    fill(dataset, 1)
    done = dataset.run(*PHASH, "--engine", "ray", "--ray-address", "127.0.0.1:6")
    assert done.code == 2
    assert done.stderr.startswith("error: --ray-address 127.0.0.1:6: no Ray cluster answers there (")
    assert done.stderr.endswith("): start its head with `ray start --head`\n")
