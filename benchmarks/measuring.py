"""What the benchmark scripts share: a measurement in a process of its own, rounds, medians, growth, and Markdown.

A script prints one Markdown section to stdout, and what it is doing to stderr. All of them take --rounds, --quick and
--findings. This module imports no large library itself: the system counts the memory of the process that starts another
as that one's first.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from pokefa.setup.environments import CHECKOUT, ensure, environment
from pokefa.setup.runner import checkout_variables

MEMORY_LOOKS_S = 0.25  # a look at a process of 500 MiB takes milliseconds


@dataclass(frozen=True)
class Sample:
    """One measurement: wall-clock seconds, peak memory in bytes, what came back, and a program's processor seconds."""

    seconds: float
    peak: int
    result: Any = None
    processor: float = 0.0


def stage_python(name: str) -> str:
    """Return the interpreter of an environment of the project, built first if need be."""
    return str(ensure(environment(name)))


def call_apart(function: Callable[..., object], *arguments: object) -> Sample:
    """Call a module's function in a new process; its clock starts when the process and the module stand ready.

    Libraries that the function imports itself are part of the cost. Whatever it returns must be picklable.

    Raises:
        RuntimeError: the function raised; its traceback is on stderr.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit this process's memory
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_clock, args=(sender, function, arguments))
    process.start()
    sender.close()
    assert process.pid is not None
    with _memory_of(process.pid) as sampled:
        try:
            seconds, own_peak, result = receiver.recv()
        except EOFError:
            raise RuntimeError(f"{function.__name__} failed") from None
        finally:
            process.join()
    return Sample(seconds, max(own_peak, sampled[0]), result)


def _clock(sender: Connection, function: Callable[..., object], arguments: Sequence[object]) -> None:
    began = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - began
    sender.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, result))


def run_apart(words: Sequence[object], variables: Mapping[str, str] | None = None) -> Sample:
    """Run a program from the checkout's top, start-up included; its result is the JSON on its last stdout line, if any.

    Raises:
        RuntimeError: it ended with another code than 0; the message ends with what it wrote to stderr.
    """
    command = [str(word) for word in words]
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=checkout_variables() | dict(variables or {}), stdout=stdout, stderr=stderr
        )
        with _memory_of(process.pid) as sampled:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{stderr.read()[-2000:]}")
        lines = stdout.read().splitlines()
    result = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
    return Sample(seconds, max(usage.ru_maxrss * 1024, sampled[0]), result, usage.ru_utime + usage.ru_stime)


@contextmanager
def _memory_of(pid: int) -> Iterator[list[int]]:
    """Yield a list whose one item becomes the most memory that a process and its children held together, in bytes.

    Pages that several of them share count once. Looked at a few times a second: the system's own high-water mark, which
    misses nothing, covers one process alone, so callers take the larger of the two.
    """
    most = [0]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(MEMORY_LOOKS_S):
            try:
                parent = psutil.Process(pid)
                held = [_memory(process) for process in (parent, *parent.children(recursive=True))]
            except psutil.NoSuchProcess:
                continue
            most[0] = max(most[0], sum(held))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def _memory(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return int(getattr(memory, "pss", memory.rss))


def interleaved(rounds: int, runs: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
    """Run everything once, then everything again, so that a slow minute of the machine hits all of them."""
    samples: dict[str, list[Sample]] = {name: [] for name in runs}
    for number in range(1, rounds + 1):
        for name, run in runs.items():
            sample = run()
            samples[name].append(sample)
            tell(f"round {number} of {rounds}: {name}: {sample.seconds:.2f} s")
    return samples


def tell(text: str) -> None:
    """Say on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def seconds_of(samples: Iterable[Sample]) -> float:
    """Return the median of the seconds."""
    return statistics.median(sample.seconds for sample in samples)


def peak_of(samples: Iterable[Sample]) -> int:
    """Return the largest peak, in bytes."""
    return max(sample.peak for sample in samples)


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Return "median (least to most)" as text, or the value alone where there is but one."""
    values = sorted(values)
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({values[0]:,.{digits}f} to {values[-1]:,.{digits}f})"


def mebibytes(size: float) -> str:
    """Return a number of bytes as text."""
    return f"{size / 2**20:,.0f} MiB"


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return k of the fit cost = c · size**k, least squares on logarithms: 1 is linear, 0 is flat."""
    slope, _ = statistics.linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs])
    return slope


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, with an empty line before and after it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n" + "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def cores() -> int:
    return os.cpu_count() or 1


def machine(*distributions: str) -> str:
    """Return one line on what this ran on: Python, the named packages, and the cores."""
    packages = [f"{name} {version(name)}" for name in distributions]
    versions = ", ".join([f"Python {platform.python_version()}", *packages])
    return f"{versions}; {cores()} cores, {platform.machine()}, {platform.system()}"


def bench_parser(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the flags that every benchmark takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=rounds, metavar="N", help=f"how often each is measured (default: {rounds})"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: only to see that it works")
    parser.add_argument("--findings", type=Path, metavar="FILE", help="also write what was found, as JSON")
    return parser
