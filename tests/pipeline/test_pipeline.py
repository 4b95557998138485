"""pipeline.py: plans, configuration, and how test results are counted."""

from __future__ import annotations

import codecs
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pokefa.errors import InputError, InputErrors
from pokefa.setup.config import refused_flags
from pokefa.setup.environments import CHECKOUT
from pokefa.setup.runner import choose_steps
from pokefa.setup.steps import steps_in_run


def run_pipeline(*arguments: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKOUT / "pipeline.py", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def test_the_plan_lists_every_stage_in_order_and_runs_nothing(tmp_path):
    done = run_pipeline("run", "--root", tmp_path / "data", "--plan")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    scripts = [next(word for word in shlex.split(line) if word.endswith(".py")) for line in lines]
    assert scripts == [step.script for step in steps_in_run()]
    assert all(f"--root {tmp_path / 'data'}" in line for line in lines)
    assert not (tmp_path / "data").exists()
    assert all((CHECKOUT / script).exists() for script in scripts)


def test_a_script_runs_by_its_name_in_the_readers_folder(tmp_path):
    done = run_pipeline("status", "--root", "data", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no ledger at data/metadata/images.csv")
    done = run_pipeline("stauts")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown command 'stauts' (did you mean status?); the commands are demo, ")


def test_from_and_to_take_names_and_numbers():
    assert [step.name for step in choose_steps("6", "7")] == ["phash", "rm_dups", "filter"]
    assert [step.name for step in choose_steps("rm_dups", "filter")] == ["rm_dups", "filter"]
    assert choose_steps(None, None) == steps_in_run()
    with pytest.raises(InputErrors) as unknown:
        choose_steps("sieve", "sclpe")
    first, second = unknown.value.problems
    assert first.startswith("--from: unknown step 'sieve'; the steps are quotas, scrape, ")
    assert first.endswith(", webdataset, or the stage numbers 0 to 9")
    assert second.startswith("--to: unknown step 'sclpe' (did you mean scrape or score?); the steps are ")
    with pytest.raises(InputError, match=r"^--from 7 comes after --to 6: swap them$"):
        choose_steps("7", "6")


def test_the_users_own_flags_reach_their_stage(tmp_path):
    config = tmp_path / "pipeline.toml"
    config.write_text('resize = ["--min-side", "768"]\n')
    done = run_pipeline("run", "--root", tmp_path, "--from", "4", "--to", "4", "--config", config, "--plan")
    assert done.stdout.rstrip().endswith(f"preprocess/resize/resize.py --root {tmp_path} --min-side 768")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resize = 3", 'resize must be a list of strings, such as ["--limit", "100"]'),
        ("resize = [1]", 'resize must be a list of strings, such as ["--limit", "100"]'),
        ("resize.min-side = 768", 'resize must be a list of strings, such as ["--limit", "100"]'),
        ("sieve = []", "unknown step 'sieve'; the steps are quotas, scrape, "),
        ("scor = []", "unknown step 'scor' (did you mean score or scrape?); the steps are "),
        ("resize = [", "is not TOML: "),
        ("resize = " + "[" * 100_000, "is nested too deeply: "),
        ('scrape = ["--root", "elsewhere"]', "scrape: --root means --root: all steps share one --root"),
        ('scrape = ["--root=elsewhere"]', "scrape: --root=elsewhere means --root: "),
        ('scrape = ["--ro", "elsewhere"]', "scrape: --ro means --root: "),
        ('scrape = ["--help"]', "scrape: --help means --help: the step would print its help and do nothing"),
        ('scrape = ["--he"]', "scrape: --he means --help: "),
        ('scrape = ["-h"]', "scrape: -h means --help: "),
        (codecs.BOM_UTF8 + b"scrape = []", "is UTF-8 with a byte order mark: save it as plain UTF-8"),
        ("scrape = []".encode("utf-16"), "is UTF-16: save it as plain UTF-8"),
        (
            "scrape = []".encode("utf-16-be"),
            "is UTF-16 or a binary file, because it contains NUL bytes: save it as plain UTF-8",
        ),
        ("scrape = []".encode("utf-32"), "is UTF-32: save it as plain UTF-8"),
        ("# ok\n# Pokémon".encode("latin-1"), "is not UTF-8: line 2 has the byte 0xe9; save it as UTF-8"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_code_2(tmp_path, text, message):
    config = tmp_path / "pipeline.toml"
    if text is not None:
        config.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = run_pipeline("run", "--root", tmp_path, "--config", config, "--plan")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --config ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_all_that_is_wrong_is_named_at_once(tmp_path):
    config = tmp_path / "pipeline.toml"
    config.write_text('resiz = []\nscrape = ["--hl", "de", "--ro=x"]\nscore = 3\nnsfw = ["--redo"]\n')
    done = run_pipeline("run", "--root", tmp_path, "--config", config, "--from", "10", "--to", "wds", "--plan")
    assert done.returncode == 2
    assert [line.partition(": unknown")[0] for line in done.stderr.splitlines()[:2]] == ["error: --from", "error: --to"]
    rest = [line.removeprefix(f"error: --config {config}: ") for line in done.stderr.splitlines()[2:]]
    assert [line.split()[0] for line in rest] == ["unknown", "scrape:", "score"]


def test_flags_that_only_look_like_others_are_taken():
    assert (
        refused_flags(["--hl", "de", "--head-rank", "5", "--redo", "--retry-errors", "-5", "--", "root", "help"]) == []
    )


def test_a_stage_that_fails_stops_the_run_with_its_exit_code(tmp_path):
    words = ("run", "--root", tmp_path / "data", "--from", "resize", "--to", "filter")
    done = run_pipeline(*words, OPENAI_API_KEY="a key")
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
    assert done.stderr.startswith("error: unknown test folder 'sieve': choose from lint, ")


def test_a_test_folder_with_a_missing_library_fails(tmp_path):
    """An import error in a test module must count as a failure, not as nothing."""
    (tmp_path / "test_missing.py").write_text("import a_library_that_is_not_there\n")
    report = tmp_path / "report.xml"
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", tmp_path, f"--junitxml={report}"], capture_output=True)
    counts = pipeline.count_results(report, done.returncode)
    assert counts["failed"] == 1
