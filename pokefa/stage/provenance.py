"""The first line of a run's journal: stage, arguments, code version, libraries and host."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pokefa import __version__
from pokefa.ledger.journal import utc_now
from pokefa.secrets import redact
from pokefa.stage.options import CommandLine


def run_header(stage: str, run_id: str, line: CommandLine) -> dict[str, Any]:
    """Return the first line of a run's journal, with secrets redacted."""
    return {
        "run_id": run_id,
        "stage": stage,
        "started": utc_now(),
        "arguments": recorded(line.words),
        "settings": recorded(line.settings),
        "repeat": {name: value for name, value in recorded(line.repeat).items() if "[redacted]" not in str(value)},
        "once": list(line.once),
        "code": _code_version(),
        "python": platform.python_version(),
        "libraries": {found.name: found.version for found in importlib.metadata.distributions()},
        "host": platform.node(),
        "platform": platform.platform(),
        "pid": os.getpid(),
    }


def recorded(value: Any) -> Any:
    """Return a setting as a JSON value, with secrets redacted."""
    if isinstance(value, Mapping):
        return {str(name): recorded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [recorded(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def _code_version() -> str:
    """Return the version of the code, with the commit if it runs from a git checkout."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{commit}"
