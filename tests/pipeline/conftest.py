"""One finished demo for all tests of this folder."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pokefa.setup.environments import CHECKOUT


def free_ports() -> int:
    """Return a port that is free on this machine, and the next one too: the stand-ins take two."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, suppress(OSError, OverflowError):
            port = int(first.getsockname()[1])
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


PORT = free_ports()


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
