"""What a codec may do to the process that it runs in, as functions for a decoder to call."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from pathlib import Path


def double(number: int) -> int:
    return 2 * number


def spin() -> None:
    while True:
        pass


def sleep() -> None:
    while True:
        time.sleep(60)


def hoard() -> None:
    taken = []
    while True:
        taken.append(bytearray(2**24))


def crash() -> None:
    os.abort()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(marker: Path) -> str:
    """Die as if killed from outside, and return at the next call."""
    if marker.exists():
        return "alive"
    marker.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it is dead")


def tell_pid_and_spin(file: Path) -> None:
    file.write_text(str(os.getpid()))
    spin()


def loads_polars(module: str) -> bool:
    """Tell whether a module loads Polars, which takes a decoder longer than all else."""
    importlib.import_module(module)
    return "polars" in sys.modules


def raise_what_cannot_travel() -> None:
    class Local(Exception):
        pass

    raise Local("of a library\nthat the caller lacks")
