"""Running one step of `pipeline.py` in its environment, with the user's flags.

Standard library only: `pipeline.py` uses this before any environment exists.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pokefa.errors import EXIT_INTERRUPTED, InputError, InputErrors, PokefaError
from pokefa.setup.config import unknown_name
from pokefa.setup.environments import CHECKOUT, Environment, ensure, environment, file_lock
from pokefa.setup.steps import Step, steps_in_run

# Requirements that a step's flags add to its environment.
ADDED_FOR = {r"--engine ray\b": "ray", r"--data-root \w+://": "data_root"}


class CommandFailed(PokefaError):
    """A step ended with an exit code other than 0; the pipeline ends with the same code."""

    def __init__(self, step: Step, code: int) -> None:
        name = " ".join(step.start)
        super().__init__(f"{name} ended with exit code {code}: see above, then run the same command again")
        self.exit_code = EXIT_INTERRUPTED if code < 0 else code


@dataclass
class Runner:
    """Runs steps on one root, and prints each as a command that can be copied.

    Args:
        root: the dataset's folder.
        flags: the user's flags by command name.
        variables: environment variables by command name.
    """

    root: Path
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    _inherited: list[int] = field(default_factory=list)

    def show(self, step: Step, *arguments: str) -> str:
        """Return a step as one line for a shell in the repository root."""
        variables = {"PYTHONPATH": ".", **self.variables.get(step.command, {})}
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
                         shlex.join(self.words(step, arguments))])  # fmt: skip

    def run(self, step: Step, *arguments: str) -> dict[str, Any]:
        """Run a step, print its result as one line, and return its JSON summary.

        Raises:
            CommandFailed: its exit code was not 0.
        """
        number = "" if step.number is None else f"{step.number} "
        print(f"\n[{number}{step.command}]\n  {self.show(step, *arguments)}", flush=True)
        ensure(self.environment(step))
        code, stdout = self._run_child(step, arguments)
        lines = stdout.strip().splitlines()
        summary: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        if "done" in summary:
            print(f"  {summarize(summary)}", flush=True)
        if code:
            raise CommandFailed(step, code)
        return summary

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the root, so that one pipeline runs at a time.

        The steps inherit the lock, so the next pipeline waits for a step that outlives a killed one.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with file_lock(self.root / ".pipeline.lock") as descriptor:
            self._inherited.append(descriptor)
            try:
                yield
            finally:
                self._inherited.remove(descriptor)

    def start(self, step: Step, *arguments: str) -> subprocess.Popen[str]:
        """Start a step in the background, with pipes as its stdin and stdout."""
        print(f"\n[{step.command}, in the background]\n  {self.show(step, *arguments)}", flush=True)
        ensure(self.environment(step))
        return subprocess.Popen(
            self.words(step, arguments),
            cwd=CHECKOUT,
            env=self._variables(step),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C must not stop it: the stages may need the services to finish
        )

    def flags_of(self, step: Step) -> Sequence[str]:
        """Return the user's flags for a step."""
        return self.flags.get(step.command, ())

    def environment(self, step: Step) -> Environment:
        """Return the environment that a step needs with its flags."""
        return environment_for(step, self.flags_of(step))

    def words(self, step: Step, arguments: Sequence[str] = ()) -> list[str]:
        """Return the command that starts a step, beginning with the interpreter."""
        root = ("--root", str(self.root)) if step.takes_root else ()
        return [str(self.environment(step).python), *step.start, *root, *self.flags_of(step), *arguments]

    def _variables(self, step: Step) -> dict[str, str]:
        return checkout_variables() | dict(self.variables.get(step.command, {}))

    def _run_child(self, step: Step, arguments: Sequence[str]) -> tuple[int, str]:
        """Run a step to its end; return (exit code, stdout).

        SIGTERM is passed on to the step, which then saves its finished work.
        """
        child = subprocess.Popen(
            self.words(step, arguments),
            cwd=CHECKOUT,
            env=self._variables(step),
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


def environment_for(step: Step, flags: Sequence[str]) -> Environment:
    """Return the environment that a step needs with these flags."""
    text = " ".join(flags).replace("=", " ")
    added = [name for words, name in ADDED_FOR.items() if re.search(words, text)]
    return environment("+".join([step.environment, *added]))


def run_by_name(step: Step, arguments: Sequence[str]) -> NoReturn:
    """Replace this process with the step's script, in its environment.

    Raises:
        PokefaError: the environment cannot be built.
    """
    python = str(ensure(environment_for(step, arguments)))
    subcommand = step.subcommands[:1] if not set(step.subcommands) & {*arguments, "-h", "--help"} else ()
    sys.stdout.flush()
    os.execve(python, [python, str(CHECKOUT / step.script), *subcommand, *arguments], checkout_variables())


def command_line(script: str, root: Path, flags: Sequence[str]) -> str:
    """Return a script's command line, to be run from the repository root."""
    if Path.cwd() != CHECKOUT:
        root = root.absolute()
    return shlex.join(["python", script, *(["--root", str(root)] if root != Path() else []), *flags])


def checkout_variables() -> dict[str, str]:
    """Return the environment variables with which a child process imports this checkout's code."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**clean, "PYTHONPATH": str(CHECKOUT)}


def summarize(summary: Mapping[str, Any]) -> str:
    """Return a stage's summary as one line."""
    counts = ", ".join(f"{reason} {count}" for reason, count in summary.get("counts", {}).items())
    line = f"done {summary.get('done', 0)}, errors {summary.get('errors', 0)}"
    return f"{line}{f' ({counts})' if counts else ''}, {summary.get('seconds', 0):.1f} s"


def choose_steps(first: str | None, last: str | None) -> list[Step]:
    """Return the steps of a run from `first` to `last`, each a command name or a stage number.

    Raises:
        InputErrors: a step does not exist, or the first comes after the last.
    """
    steps = steps_in_run()
    starts, ends = _positions(steps, first), _positions(steps, last)
    names = [step.command for step in steps]
    unknown = [(flag, name) for flag, name, found in (("--from", first, starts), ("--to", last, ends)) if not found]
    if unknown:
        raise InputErrors(
            [f"{flag}: {unknown_name('step', str(name), names)}, or the stage numbers 0 to 9" for flag, name in unknown]
        )
    if starts[0] > ends[-1]:
        raise InputError(f"--from {first} comes after --to {last}: swap them")
    return steps[starts[0] : ends[-1] + 1]


def _positions(steps: Sequence[Step], name: str | None) -> list[int]:
    return [place for place, step in enumerate(steps) if name in (None, step.command, str(step.number))]
