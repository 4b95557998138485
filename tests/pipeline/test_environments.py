"""Environments: shared between checkouts, whole or not there, never another checkout's code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pokefa.errors import InputError
from pokefa.setup.environments import CHECKOUT, environment, environment_names, read_requirements
from pokefa.setup.runner import Runner
from pokefa.setup.steps import STEPS

SMALL = "# A comment.\n-e .\niniconfig==2.3.1  # small, and without dependencies\n"


def make_checkout(folder: Path, version: str, requirements: str = SMALL) -> Path:
    """Return a checkout with the real code of set-up, one small environment, and a version of its own."""
    folder.mkdir()
    for name in ("pokefa", "demo"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pipeline.py", folder)
    (folder / "pokefa/__init__.py").write_text(f'__version__ = "{version}"\n')
    (folder / "requirements").mkdir()
    (folder / "requirements/requirements_small.txt").write_text(requirements)
    (folder / "requirements/requirements_test.txt").write_text("")
    return folder


def set_up(checkout: Path, cache: Path, name: str = "small") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, checkout / "pipeline.py", "setup", name],
        env={**os.environ, "POKEFA_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return (the interpreter of the summary line, stderr) of a set-up that must succeed."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return json.loads(stdout.splitlines()[-1])["python"], stderr


def test_two_checkouts_share_an_environment_and_run_their_own_code(tmp_path):
    pythons = []
    for version in ("1.1", "2.2"):
        checkout = make_checkout(tmp_path / version, version)
        python, _ = finish(set_up(checkout, tmp_path / "cache"))
        script = (
            "from pathlib import Path; from pokefa.setup.runner import Runner; from pokefa.setup.steps import Step;"
            "Runner(Path('root')).run(Step('version', 'probe', 'small'))"
        )
        (checkout / "probe.py").write_text(
            "import iniconfig, pokefa\nprint('{\"done\": 1}')\nopen('said', 'w').write(pokefa.__version__)\n"
        )
        environ = {**os.environ, "POKEFA_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(checkout)}
        subprocess.run([sys.executable, "-c", script], cwd=checkout, env=environ, check=True, stdout=subprocess.PIPE)
        assert (checkout / "said").read_text() == version
        pythons.append(python)
    assert pythons[0] == pythons[1]
    site = subprocess.run(
        [pythons[0], "-I", "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    assert "iniconfig==2.3.1" in site.stdout
    assert "pokefa" not in site.stdout.lower()


def test_two_processes_at_once_build_one_environment(tmp_path):
    checkout = make_checkout(tmp_path / "checkout", "1")
    processes = [set_up(checkout, tmp_path / "cache") for _ in range(2)]
    results = [finish(process) for process in processes]
    assert results[0][0] == results[1][0]
    assert sum(stderr.count("building environment small") for _, stderr in results) == 1
    again, stderr = finish(set_up(checkout, tmp_path / "cache"))
    assert (again, stderr) == (results[0][0], "")


def test_an_environment_that_broke_off_is_built_anew(tmp_path):
    checkout = make_checkout(tmp_path / "checkout", "1")
    process = set_up(checkout, tmp_path / "cache")
    assert process.stderr is not None
    process.stderr.readline()  # it has begun
    while not list(tmp_path.glob("cache/envs/*/bin/python")):
        assert process.poll() is None
    process.kill()
    process.communicate()
    python, stderr = finish(set_up(checkout, tmp_path / "cache"))
    assert "building environment small" in stderr
    subprocess.run([python, "-c", "import iniconfig"], check=True)


def test_what_pip_cannot_install_is_one_line_and_not_taken_for_whole(tmp_path):
    checkout = make_checkout(tmp_path / "checkout", "1", "./missing-1.0-py3-none-any.whl\n")
    for _ in range(2):
        process = set_up(checkout, tmp_path / "cache")
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 1
        assert stdout == ""
        building, error = stderr.splitlines()
        assert building.startswith("building environment small")
        assert error.startswith("error: pip could not build environment small: ERROR: ")


def test_a_changed_requirement_is_another_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("POKEFA_CACHE", str(tmp_path / "cache"))
    one = make_checkout(tmp_path / "one", "1")
    two = make_checkout(tmp_path / "two", "1", SMALL.replace("2.3.1", "2.1.0"))
    same = make_checkout(tmp_path / "same", "1", SMALL.replace("# A comment.", "# Another comment."))
    folders = [environment("small", checkout).folder for checkout in (one, two, same)]
    assert folders[0] != folders[1]
    assert folders[0] == folders[2]


def test_a_name_of_two_parts_stands_for_the_requirements_of_both(tmp_path):
    checkout = make_checkout(tmp_path / "checkout", "1")
    (checkout / "requirements/requirements_ray.txt").write_text("ray==2.60.0\niniconfig==2.3.1\n")
    assert environment("small+ray", checkout).packages == ("iniconfig==2.3.1", "ray==2.60.0")
    assert environment_names(checkout) == ["small"]  # `setup all` does not download Ray
    with pytest.raises(InputError, match=r"^unknown environment 'ray': choose from small$"):
        environment("ray", checkout)


def test_a_step_on_ray_runs_in_an_environment_with_ray(tmp_path):
    step = STEPS["phash"]
    plain, ray = (str(environment(name).python) for name in ("dup", "dup+ray"))
    assert Runner(tmp_path).show(step).startswith(f"PYTHONPATH=. {plain} preprocess/dup/phash.py")
    for flags in (["--engine", "ray"], ["--workers", "2", "--engine=ray"]):
        assert Runner(tmp_path, {"phash": flags}).show(step).startswith(f"PYTHONPATH=. {ray} preprocess/dup/phash.py")
    on_objects = str(environment("dup+data_root").python)
    flags = ["--data-root", "s3://bucket/set"]
    assert Runner(tmp_path, {"phash": flags}).show(step).startswith(f"PYTHONPATH=. {on_objects} ")


def test_requirements_that_include_others_are_read_whole():
    lines = read_requirements(CHECKOUT / "requirements/requirements_dup.txt")
    assert [line for line in lines if line.startswith(("polars==", "imagehash=="))]
    assert not [line for line in lines if line.startswith(("-", "#"))]


@pytest.mark.parametrize(
    "path", sorted((CHECKOUT / "requirements").glob("requirements_*.txt")), ids=lambda path: path.stem
)
def test_every_requirement_is_pinned(path):
    for line in read_requirements(path):
        assert "==" in line, f"{path.name}: {line}"


def test_tensorflow_and_torch_never_meet():
    for path in (CHECKOUT / "requirements").glob("requirements_*.txt"):
        names = {line.split("==")[0].split("[")[0] for line in read_requirements(path)}
        assert not ({"tensorflow", "tensorflow-cpu"} & names and "torch" in names), path.name


def test_an_unknown_environment_names_the_known_ones(tmp_path):
    checkout = make_checkout(tmp_path / "checkout", "1")
    with pytest.raises(InputError, match=r"^unknown environment 'large': choose from small$"):
        environment("large", checkout)
