"""The pipeline's steps as commands: their order, the environment of each, and how one is run and reported.

Standard library only: `pipeline.py` uses this before any environment exists.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from pokefa.errors import EXIT_INTERRUPTED, InputError, InputErrors, PokefaError
from pokefa.setup.config import unknown_step
from pokefa.setup.environments import CHECKOUT, Environment, ensure, environment, file_lock


@dataclass(frozen=True)
class Command:
    """One command of the pipeline: a script or `-m module`, the environment it runs in, and its first arguments."""

    name: str
    stage: int | None
    environment: str
    script: tuple[str, ...]


def _step(name: str, stage: int, environment: str, *script: str) -> Command:
    return Command(name, stage, environment, script)


STEPS = (
    _step("quotas", 0, "quotas", "quotas/allocate.py"),
    _step("scrape", 1, "scraping", "scraping/scrape.py"),
    _step("nsfw", 2, "nsfw", "preprocess/nsfw/nsfw_filter.py"),
    _step("ocr", 3, "ocr", "preprocess/ocr/ocr_pipeline.py", "run"),
    _step("resize", 4, "resize", "preprocess/resize/resize.py"),
    _step("score", 5, "score", "preprocess/score/score.py"),
    _step("phash", 6, "dup", "preprocess/dup/phash.py"),
    _step("rm_dups", 6, "dup", "preprocess/dup/rm_dups.py"),
    _step("filter", 7, "filter", "preprocess/filter/filter.py"),
    _step("sentence_tags", 8, "caption", "caption/sentence_tags.py"),
    _step("cap_filter", 8, "caption", "caption/cap_filter.py"),
    _step("hybrid_captions", 8, "caption", "caption/hybrid_captions.py"),
    _step("species", 9, "webdataset", "webdataset/species.py"),
    _step("split", 9, "webdataset", "webdataset/split.py"),
    _step("webdataset", 9, "webdataset", "webdataset/webdataset.py"),
)


# What a step's flags add to its environment.
ADDED_FOR = {r"--engine ray\b": "ray", r"--data-root \w+://": "data_root"}


class CommandFailed(PokefaError):
    """A command ended with an exit code other than 0; the pipeline ends with the same."""

    def __init__(self, command: Command, code: int) -> None:
        name = " ".join(command.script)
        super().__init__(f"{name} ended with exit code {code}: see above, then run the same command again")
        self.exit_code = EXIT_INTERRUPTED if code < 0 else code


@dataclass
class Runner:
    """Runs commands on one root, each printed before it runs so that it can be copied.

    Args:
        root: the dataset's folder.
        flags: the user's own flags by step name.
        variables: environment variables by step name.
    """

    root: Path
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    _inherited: list[int] = field(default_factory=list)

    def show(self, command: Command, *arguments: str) -> str:
        """Return a command as one line for a shell at the checkout's top."""
        variables = {"PYTHONPATH": ".", **self.variables.get(command.name, {})}
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
                         shlex.join(self.words(command, arguments))])  # fmt: skip

    def run(self, command: Command, *arguments: str) -> dict[str, Any]:
        """Run a command, print its result as one line, and return its JSON summary.

        Raises:
            CommandFailed: it ended with another exit code than 0.
        """
        number = "" if command.stage is None else f"{command.stage} "
        print(f"\n[{number}{command.name}]\n  {self.show(command, *arguments)}", flush=True)
        ensure(self.environment(command))
        code, stdout = self._run_child(command, arguments)
        lines = stdout.strip().splitlines()
        summary: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        if "done" in summary:
            print(f"  {describe(summary)}", flush=True)
        if code:
            raise CommandFailed(command, code)
        return summary

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the root for one pipeline at a time.

        The commands inherit the lock, so one that outlives a killed pipeline is waited for by the next.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with file_lock(self.root / ".pipeline.lock") as descriptor:
            self._inherited.append(descriptor)
            try:
                yield
            finally:
                self._inherited.remove(descriptor)

    def start(self, command: Command, *arguments: str) -> subprocess.Popen[str]:
        """Start a command with its stdin and stdout as pipes, and leave it running."""
        print(f"\n[{command.name}, in the background]\n  {self.show(command, *arguments)}", flush=True)
        ensure(self.environment(command))
        return subprocess.Popen(
            self.words(command, arguments),
            cwd=CHECKOUT,
            env=self._variables(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the stages; they may still need the services to finish
        )

    def flags_of(self, command: Command) -> Sequence[str]:
        """Return the user's own flags for a command."""
        return self.flags.get(command.name, ())

    def environment(self, command: Command) -> Environment:
        """Return the environment that a command runs in, with what its flags add to it."""
        flags = " ".join(self.flags_of(command)).replace("=", " ")
        added = [name for words, name in ADDED_FOR.items() if re.search(words, flags)]
        return environment("+".join([command.environment, *added]))

    def words(self, command: Command, arguments: Sequence[str] = ()) -> list[str]:
        """Return a command as the words that start it, the interpreter first."""
        python = str(self.environment(command).python)
        root = () if command.script[0] == "-m" else ("--root", str(self.root))
        return [python, *command.script, *root, *self.flags_of(command), *arguments]

    def _variables(self, command: Command) -> dict[str, str]:
        return checkout_variables() | dict(self.variables.get(command.name, {}))

    def _run_child(self, command: Command, arguments: Sequence[str]) -> tuple[int, str]:
        """Run a command to its end; return (exit code, stdout).

        A signal that asks this process to stop is handed on, and the child saves what it has finished.
        """
        child = subprocess.Popen(
            self.words(command, arguments),
            cwd=CHECKOUT,
            env=self._variables(command),
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=self._inherited,
        )

        def hand_on(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGTERM:  # Ctrl-C in a terminal reaches the child by itself
                child.send_signal(number)

        before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            stdout, _ = child.communicate()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return child.returncode, stdout


def checkout_variables() -> dict[str, str]:
    """Return the variables for a child process: this checkout's code, whatever environment it runs in."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**clean, "PYTHONPATH": str(CHECKOUT)}


def describe(summary: Mapping[str, Any]) -> str:
    """Return a stage's summary as one line."""
    counts = ", ".join(f"{reason} {count}" for reason, count in summary.get("counts", {}).items())
    line = f"done {summary.get('done', 0)}, errors {summary.get('errors', 0)}"
    return f"{line}{f' ({counts})' if counts else ''}, {summary.get('seconds', 0):.1f} s"


def choose_steps(first: str | None, last: str | None) -> list[Command]:
    """Return the steps from `first` to `last`, each a step's name or a stage's number.

    Raises:
        InputErrors: there are no such steps, or the first comes after the last.
    """
    starts, ends = _positions(first), _positions(last)
    names = [step.name for step in STEPS]
    unknown = [(flag, name) for flag, name, found in (("--from", first, starts), ("--to", last, ends)) if not found]
    if unknown:
        raise InputErrors(
            [f"{flag}: {unknown_step(str(name), names)}, or their numbers 0 to 9" for flag, name in unknown]
        )
    if starts[0] > ends[-1]:
        raise InputError(f"--from {first} comes after --to {last}")
    return list(STEPS[starts[0] : ends[-1] + 1])


def _positions(name: str | None) -> list[int]:
    return [index for index, step in enumerate(STEPS) if name in (None, step.name, str(step.stage))]
