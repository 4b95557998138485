"""pipeline.py: plans, configuration, and how test results are counted."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pokefa.commands import STEPS, choose_steps
from pokefa.environments import CHECKOUT
from pokefa.errors import InputError


def run_pipeline(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKOUT / "pipeline.py", *map(str, arguments)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def test_the_plan_lists_every_stage_in_order_and_runs_nothing(tmp_path):
    done = run_pipeline("run", "--root", tmp_path / "data", "--plan")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    scripts = [next(word for word in shlex.split(line) if word.endswith(".py")) for line in lines]
    assert scripts == [step.script[0] for step in STEPS]
    assert all(f"--root {tmp_path / 'data'}" in line for line in lines)
    assert not (tmp_path / "data").exists()
    assert all((CHECKOUT / script).exists() for script in scripts)


def test_from_and_to_take_names_and_numbers():
    assert [step.name for step in choose_steps("6", "7")] == ["phash", "rm_dups", "filter"]
    assert [step.name for step in choose_steps("rm_dups", "filter")] == ["rm_dups", "filter"]
    assert choose_steps(None, None) == list(STEPS)
    with pytest.raises(InputError, match=r"^there is no step 'sieve': choose a number from 0 to 9, or one of quotas, "):
        choose_steps("sieve", None)
    with pytest.raises(InputError, match=r"^--from 7 comes after --to 6$"):
        choose_steps("7", "6")


def test_the_users_own_flags_reach_their_stage(tmp_path):
    config = tmp_path / "pipeline.toml"
    config.write_text('resize = ["--min-side", "768"]\n')
    done = run_pipeline("run", "--root", tmp_path, "--from", "4", "--to", "4", "--config", config, "--plan")
    assert done.stdout.rstrip().endswith(f"preprocess/resize/resize.py --root {tmp_path} --min-side 768")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resize = 3", 'resize must be a list of strings, as ["--limit", "100"]'),
        ("sieve = []", "there is no step 'sieve'; choose from quotas, scrape, "),
        ("resize = [", "cannot be read: "),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_code_2(tmp_path, text, message):
    config = tmp_path / "pipeline.toml"
    config.write_text(text)
    done = run_pipeline("run", "--root", tmp_path, "--config", config, "--plan")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --config ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_stage_that_fails_stops_the_run_with_its_exit_code(tmp_path):
    done = run_pipeline("run", "--root", tmp_path / "data", "--from", "resize", "--to", "filter")
    assert done.returncode == 2
    error, ending = done.stderr.splitlines()[-2:]
    assert error.startswith("error: no ledger at ")
    assert ending.startswith("error: preprocess/resize/resize.py ended with exit code 2: ")
    assert "phash" not in done.stdout


SUITE = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'


@pytest.mark.parametrize(
    ("report", "code", "line"),
    [
        (SUITE.format(9, 2, 1, 1), 1, "5 passed, 3 failed, 1 skipped"),
        (SUITE.format(4, 0, 0, 0), 0, "4 passed, 0 failed, 0 skipped"),
        (SUITE.format(0, 0, 0, 0), 5, "0 passed, 1 failed, 0 skipped"),
        (None, -11, "0 passed, 1 failed, 0 skipped"),
    ],
)
def test_results_are_counted_from_the_report_and_the_exit_code(tmp_path, report, code, line):
    path = Path(tmp_path / "report.xml")
    if report:
        path.write_text(report)
    assert pipeline.closing_line(pipeline.count_results(path, code)) == line


def test_an_unknown_test_folder_names_the_known_ones():
    done = run_pipeline("test", "sieve")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there are no tests 'sieve': choose from lint, ")


def test_a_test_folder_with_a_missing_library_fails(tmp_path):
    """An import error in a test module must count as a failure, not as nothing."""
    (tmp_path / "test_missing.py").write_text("import a_library_that_is_not_there\n")
    report = tmp_path / "report.xml"
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", tmp_path, f"--junitxml={report}"], capture_output=True)
    counts = pipeline.count_results(report, done.returncode)
    assert counts["failed"] == 1
