"""One finished demo for all tests of this folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pokefa.environments import CHECKOUT

PORT = 18965


def start_demo(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, CHECKOUT / "pipeline.py", "demo", "--root", root, "--port", str(PORT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == 0, f"{stdout}\n{stderr}"
    return stdout


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--finished-demo", type=Path, metavar="DIR", help="use a demo that has run already")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A root on which the demo has run once. Tests that change something do so on a copy."""
    there = pytestconfig.getoption("--finished-demo")
    if there is not None:
        return Path(there)
    root = tmp_path_factory.mktemp("demo") / "run"
    stdout = finish(start_demo(root))
    assert "stand-ins" in stdout
    report = root / "metadata/report.html"
    assert stdout.rstrip().endswith(str(report))
    assert report.exists()
    return root
