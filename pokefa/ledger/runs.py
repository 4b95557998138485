"""The run journals as runs: who ran what, when, with which code, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokefa.ledger.journal import RUNS_FOLDER, read_entries, read_header

# The closing line of a journal is a few hundred bytes; this much of the file's end holds it with room to spare.
TAIL_BYTES = 2**18

# Flags of one run, which choose its rows or say how it goes about them; the next run is not to repeat them.
ONE_TIME = (
    "--root", "--ids", "--ids-file", "--limit", "--redo", "--retry-errors", "--dry-run", "--quiet", "--log-level",
    "--estimate", "--batch", "--ask-again", "--redecide", "--only", "--urls-only",
    "--keep-placeholder", "--reassign",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run of one stage; `summary` is None where the run was killed before its closing line."""

    run_id: str
    stage: str
    started: str
    path: Path
    arguments: tuple[str, ...] = ()
    code: str = ""
    host: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    ended: str = ""

    @property
    def seconds(self) -> float:
        return float((self.summary or {}).get("seconds", 0.0))


def journal_paths(root: Path) -> list[Path]:
    """Return the journals under `root` in the order in which their runs started."""
    return sorted((root / RUNS_FOLDER).glob("*.jsonl"))


def read_runs(root: Path) -> list[Run]:
    """Return all runs, the oldest first.

    Raises:
        InputError: the first line of a journal is damaged.
    """
    return [read_run(path) for path in journal_paths(root)]


def read_run(path: Path) -> Run:
    header = read_header(path)
    closing = _last_entry(path)
    return Run(
        run_id=path.stem,
        stage=str(header.get("stage", "")),
        started=str(header.get("started", "")),
        path=path,
        arguments=tuple(str(argument) for argument in header.get("arguments", ())),
        code=str(header.get("code", "")),
        host=str(header.get("host", "")),
        libraries=dict(header.get("libraries", {})),
        summary=closing.get("summary"),
        ended=str(closing.get("ts", "")),
    )


def last_run_of_each_stage(runs: Sequence[Run]) -> list[Run]:
    """Return the latest run of each stage, in the order in which the stages first ran."""
    latest = {run.stage: run for run in runs}
    return list(latest.values())


def last_arguments(runs: Sequence[Run], stage: str) -> tuple[str, ...]:
    """Return the command line of the stage's last run; that of none is empty."""
    return next((run.arguments for run in reversed(runs) if run.stage == stage), ())


def gates_of(runs: Sequence[Run]) -> dict[str, float]:
    """Return the settings of the last filter run by the names of its `Gates`: its own flags, else the defaults."""
    from preprocess.filter.filter import Gates

    return _given(last_arguments(runs, "filter"), vars(Gates()))


def settings_of(run: Run) -> dict[str, float]:
    """Return the numbers that a run of the filter or of rm_dups.py decided by; any other stage has none here.

    What the command line leaves out is this code's default, which the code of that run need not share.
    """
    from pokefa.images.phash import THRESHOLD
    from preprocess.dup.rm_dups import MIN_COSINE
    from preprocess.filter.filter import Gates

    if run.stage == "filter":
        return _given(run.arguments, vars(Gates()))
    if run.stage == "rm_dups":
        compared = flag_value(run.arguments, "--embeddings") is not None
        return _given(run.arguments, {"threshold": THRESHOLD, **({"min_cosine": MIN_COSINE} if compared else {})})
    return {}


def _given(arguments: Sequence[str], defaults: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that a recorded command line gave to the flags of these names, else the defaults."""
    given = {name: flag_value(arguments, f"--{name.replace('_', '-')}") for name in defaults}
    return {name: default if (text := given[name]) is None else float(text) for name, default in defaults.items()}


def flag_value(arguments: Sequence[str], flag: str) -> str | None:
    """Return the value that a recorded command line gave to `flag`, or None.

    >>> flag_value(["--root", "x", "--min-rel=70"], "--min-relevance")
    '70'
    """
    value = None
    for place, argument in enumerate(arguments):
        name, joined, text = argument.partition("=")
        if not names_flag(name, flag):
            continue
        if joined:
            value = text
        elif place + 1 < len(arguments):
            value = arguments[place + 1]
    return value


def repeated_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the flags of a recorded command line that the stage's next run needs too, with their values.

    >>> repeated_arguments(["run", "--root", "x", "--ids", "a", "b", "--redo", "--model", "m", "--max-cost=5"])
    ['--model', 'm', '--max-cost=5']
    """
    flags: list[list[str]] = []  # each with its values; what stands before the first is a subcommand
    for argument in arguments:
        if argument.startswith("--"):
            flags.append([argument])
        elif flags:
            flags[-1].append(argument)
    return [word for flag in flags if is_lasting(flag) for word in flag]


def is_lasting(flag: Sequence[str]) -> bool:
    """Tell whether a flag with its values suits the next run."""
    name = flag[0].partition("=")[0]
    return not any(names_flag(name, one_time) for one_time in ONE_TIME) and "[redacted]" not in "".join(flag)


def names_flag(name: str, flag: str) -> bool:
    """Tell whether a word of a recorded command line is `flag` or the beginning that argparse took for it.

    The command line was accepted, so no other flag of its script begins with these letters.
    """
    return len(name) > len("--") and name.startswith("--") and flag.startswith(name)


def data_root_of(runs: Sequence[Run]) -> str | None:
    """Return where the last run with --data-root found the images, None where all of them lie under the root."""
    given = [flag_value(run.arguments, "--data-root") for run in runs]
    return next((address for address in reversed(given) if address is not None), None)


def entries_of_run(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal behind its header."""
    entries = read_entries(path)
    next(entries, None)
    for _, entry in entries:
        yield entry


def _last_entry(path: Path) -> dict[str, Any]:
    """Return the last line of a journal, or {} where it is broken off: then the run did not close it."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
        tail = stream.read()
    if not tail.endswith(b"\n"):
        return {}
    try:
        entry = json.loads(tail[:-1].rpartition(b"\n")[2])
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
