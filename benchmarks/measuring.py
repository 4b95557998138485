"""One measurement in its own process: its seconds, its peak memory, and what it returned or printed.

This module imports no large library: the system counts the parent's memory as the child's initial memory.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from pokefa.setup.environments import CHECKOUT, ensure, environment
from pokefa.setup.runner import checkout_variables

MEMORY_LOOKS_S = 0.25  # interval; a measurement of a process of 500 MiB takes milliseconds


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Args:
        seconds: wall-clock time.
        peak: peak memory in bytes.
        result: the function's return value, or the JSON object on a program's last line.
        processor: seconds that a program used on all cores.
        working: seconds by the program's own clock, without its start-up; equal to `seconds` if it has none.
    """

    seconds: float
    peak: int
    result: Any = None
    processor: float = 0.0
    working: float = 0.0


def stage_python(name: str) -> str:
    """Return the interpreter of a project environment; build it first if needed."""
    return str(ensure(environment(name)))


def call_apart(function: Callable[..., object], *arguments: object) -> Sample:
    """Call a module's function in a new process; the clock starts when the process and the module are ready.

    Libraries that the function imports itself are part of the cost. Its return value must be picklable.

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
    return Sample(seconds, max(own_peak, sampled[0]), result, working=seconds)


def _clock(sender: Connection, function: Callable[..., object], arguments: Sequence[object]) -> None:
    began = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - began
    sender.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, result))


def run_stage(
    stage: str, script: str, root: Path, *flags: object, variables: Mapping[str, str] | None = None
) -> Sample:
    """Run a project script on a dataset, in its stage's environment.

    Raises:
        RuntimeError: it failed, or an image did.
    """
    sample = run_apart([stage_python(stage), script, "--root", root, "--quiet", *flags], variables)
    if sample.result["errors"]:
        raise RuntimeError(f"{script}: {sample.result['errors']} images failed: a comparison would mean nothing")
    return sample


CALL = """
import importlib, json, sys
module, function, arguments = sys.argv[1:]
print(json.dumps(getattr(importlib.import_module(module), function)(*json.loads(arguments))))
"""


def call_in(environment_name: str, function: str, *arguments: object) -> Sample:
    """Call a function that returns a dictionary, such as `benchmarks.nsfw_programs.build`, in another environment.

    Paths arrive as strings.

    Raises:
        RuntimeError: it failed.
    """
    words = [stage_python(environment_name), "-c", CALL, *function.rsplit(".", 1), json.dumps(arguments, default=str)]
    return run_apart(words)


def run_apart(words: Sequence[object], variables: Mapping[str, str] | None = None) -> Sample:
    """Run a program from the repository root, start-up included; its result is any JSON on its last stdout line.

    Raises:
        RuntimeError: its exit code was not 0; the message ends with its stderr.
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
    working = (result or {}).get("seconds", seconds)
    return Sample(seconds, max(usage.ru_maxrss * 1024, sampled[0]), result, usage.ru_utime + usage.ru_stime, working)


@contextmanager
def serving(words: Sequence[object]) -> Iterator[dict[str, Any]]:
    """Run a server in its own process; yield the JSON of its first line."""
    command = [str(word) for word in words]
    with subprocess.Popen(command, cwd=CHECKOUT, env=checkout_variables(), stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())
        finally:
            server.terminate()


@contextmanager
def _memory_of(pid: int) -> Iterator[list[int]]:
    """Yield a list whose one item becomes the peak memory of a process and its children together, in bytes.

    Shared pages count once. The memory is sampled a few times a second. The system's own high-water mark misses nothing
    but only covers one process, so callers take the larger of the two.
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
