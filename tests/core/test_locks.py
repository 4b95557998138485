"""Which runs on one dataset keep each other away, and that a killed one keeps nobody away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager

import pytest

from pokefa.errors import InputError
from pokefa.setup.steps import STEPS
from pokefa.stage.locks import holding
from pokefa.stage.options import Options
from pokefa.stage.runner import StageRun, run_stage
from tests.conftest import CHECKOUT

WAY_OUT = "wait until it ends, or stop it with Ctrl-C, which saves its finished work"

HOLD = """
import sys, time
from pathlib import Path
from pokefa.stage.locks import holding
with holding(Path(sys.argv[1]), "score"):
    print("held", flush=True)
    time.sleep(60)
"""


def hash_all(run: StageRun) -> None:
    for row in run.rows([]):
        run.record(str(row["image_id"]), {"phash64": "0" * 16})


def run_phash(dataset, *, reads_only=False, **options):
    return run_stage("phash", Options(root=dataset.root, **options), hash_all, reads_only=reads_only)


@pytest.fixture
def ready(dataset):
    dataset.write_images([{"image_id": "a" * 32, "is_nsfw": False, "has_ocr": False, "path_resized": "x.png"}])
    return dataset


def test_a_second_run_of_a_stage_is_refused_and_changes_nothing(ready, capsys):
    with holding(ready.root, "phash"):
        assert run_phash(ready) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: phash.py or takedown.py is running on {ready.root}: {WAY_OUT}\n"
    assert captured.out == ""
    assert not ready.images()["a" * 32].get("phash64")
    assert run_phash(ready) == 0
    assert ready.images()["a" * 32]["phash64"] == "0" * 16


@pytest.mark.parametrize("options", [{"dry_run": True}, {"reads_only": True, "limit": 1}])
def test_a_run_that_changes_nothing_is_let_in(ready, options):
    with holding(ready.root, "phash"):
        assert run_phash(ready, **options) == 0


def test_other_stages_and_other_datasets_are_let_in(ready, tmp_path):
    (tmp_path / "other").mkdir()
    with holding(ready.root, "resize"), holding(tmp_path / "other", "phash"):
        assert run_phash(ready) == 0


def test_the_scripts_that_build_the_final_set_keep_one_another_away(dataset):
    first, second = (holding(dataset.root, name) for name in ("filter", "webdataset"))
    with first, pytest.raises(InputError) as refused, second:
        pass
    assert str(refused.value).startswith("filter.py or split.py or webdataset.py or takedown.py is running on ")


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if step.lock])
def test_a_takedown_and_any_other_run_keep_each_other_away(dataset, name):
    def takedown() -> AbstractContextManager[None]:
        return holding(dataset.root, "takedown")

    def other() -> AbstractContextManager[None]:
        return holding(dataset.root, name)

    with other(), pytest.raises(InputError, match=r"\.py is running on "), takedown():
        pass
    with takedown(), pytest.raises(InputError, match=r"takedown\.py is running on "), other():
        pass
    with takedown():
        pass  # whoever was refused has let go of what it had


def test_the_lock_goes_with_a_killed_process(ready, capsys):
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen([sys.executable, "-c", HOLD, ready.root], env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        refused = pytest.raises(InputError, match=r"^score\.py or takedown\.py is running on ")
        with refused, holding(ready.root, "score"):
            pass
        holder.send_signal(signal.SIGKILL)
    with holding(ready.root, "score"):
        pass


def test_the_summary_of_an_interrupted_run_says_so(ready, capsys):
    def interrupted(run: StageRun) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        run.check_stop()

    assert run_stage("phash", Options(root=ready.root), interrupted) == 130
    assert json.loads(capsys.readouterr().out)["interrupted"] is True
