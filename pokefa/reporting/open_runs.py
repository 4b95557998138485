"""Runs without a closing line in their journal: still running, or killed."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pokefa.ledger.columns import BASE, IMAGES
from pokefa.ledger.journal import read_header
from pokefa.ledger.runs import Run, last_run_of_each_stage


@dataclass(frozen=True)
class OpenRun:
    """A run without a closing line.

    Args:
        running: True, False, or None if that cannot be determined from this machine.
    """

    run: Run
    pid: int
    running: bool | None

    @property
    def state(self) -> str:
        if self.running is None:
            return f"open on {self.run.host}: running there, or killed"
        return f"running, process {self.pid}" if self.running else "stopped before its end"


def open_runs(runs: Sequence[Run]) -> dict[str, OpenRun]:
    """Return, by stage, the running run, or else the last one if it was killed."""
    found: dict[str, OpenRun] = {}
    last = {run.run_id for run in last_run_of_each_stage(runs)}
    for run in runs:
        if run.summary is not None:
            continue
        pid = int(read_header(run.path).get("pid", 0))
        one = OpenRun(run, pid, is_running(run, pid))
        if one.running or (run.run_id in last and run.stage not in found):
            found[run.stage] = one
    return found


@dataclass(frozen=True)
class UnderWay:
    """The running stages, and what they may be changing at the moment.

    Args:
        since: when the first of them started, in seconds since the epoch; infinite if none is running.
    """

    runs: tuple[OpenRun, ...]
    since: float

    @classmethod
    def of(cls, runs: Sequence[Run]) -> UnderWay:
        running = tuple(one for one in open_runs(runs).values() if one.running)
        starts = [datetime.fromisoformat(one.run.started).timestamp() for one in running]
        return cls(running, min(starts, default=math.inf))

    def at_work(self, *stages: str) -> bool:
        return any(one.run.stage in stages for one in self.runs)

    @property
    def columns(self) -> set[str]:
        """The columns of both tables that are being written."""
        return {name for one in self.runs for schema in (IMAGES, BASE) for name in schema.owned_by(one.run.stage)}

    def may_have_made(self, path: Path) -> bool:
        """Tell whether a running stage may have just created this file, before its row names it."""
        try:
            return path.stat().st_ctime >= self.since  # a new link to an old file has the old file's mtime
        except OSError:
            return True  # deleted meanwhile


def is_running(run: Run, pid: int) -> bool | None:
    """Tell whether the process that writes a journal is alive; another process with the same id does not count."""
    if run.host != platform.node():
        return None
    descriptors = Path(f"/proc/{pid}/fd")
    try:
        return any(same_file(link, run.path) for link in descriptors.iterdir())
    except FileNotFoundError:
        return not Path("/proc").is_dir() and exists(pid)
    except PermissionError:
        return None  # another user's process, perhaps with the same id by chance


def same_file(link: Path, path: Path) -> bool:
    try:
        return link.samefile(path)
    except OSError:
        return False


def exists(pid: int) -> bool:
    """Tell whether a process with this id exists, on systems without /proc."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0
