"""The run journals read as runs: stage, time, settings, code version and summary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokefa.ledger.journal import RUNS_FOLDER, read_entries, read_header
from pokefa.setup.steps import first_step_of

# Enough of the file's end for its last line, which has a few hundred bytes.
TAIL_BYTES = 2**18

# Settings for one run only, in journals of versions that did not record them.
_ONCE = (
    "root", "ids", "ids_file", "limit", "redo", "retry_errors", "dry_run", "quiet", "log_level", "estimate", "batch",
    "ask_again", "redecide", "only", "urls_only", "keep_placeholder", "reassign",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run of one stage.

    Args:
        arguments: the command line as typed.
        settings: by name, after defaults; if not `complete`, only those typed, as text.
        repeat: the given settings that the stage's next run needs too.
        once: names of the settings given for this run only.
        complete: all settings are known; false for older journals.
        summary: None if the run was killed.
    """

    run_id: str
    stage: str
    started: str
    path: Path
    arguments: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    repeat: Mapping[str, Any] = field(default_factory=dict)
    once: tuple[str, ...] = ()
    complete: bool = True
    code: str = ""
    host: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    ended: str = ""

    @property
    def seconds(self) -> float:
        return float((self.summary or {}).get("seconds", 0.0))

    def setting(self, name: str) -> Any:
        """Return a setting; None if it is missing or unknown."""
        if self.complete:
            return self.settings.get(name)
        return next((value for typed, value in reversed(list(self.settings.items())) if name.startswith(typed)), None)


def journal_paths(root: Path) -> list[Path]:
    """Return the journals under `root` in the order in which the runs started."""
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
    stage, arguments = str(header.get("stage", "")), [str(argument) for argument in header.get("arguments", ())]
    typed = settings_from_words(stage, arguments)
    once = [name for name in typed if any(full.startswith(name) for full in _ONCE)]
    lasting = {name: value for name, value in typed.items() if name not in once and "[redacted]" not in str(value)}
    return Run(
        run_id=path.stem,
        stage=stage,
        started=str(header.get("started", "")),
        path=path,
        arguments=tuple(arguments),
        settings=header.get("settings", typed),
        repeat=header.get("repeat", lasting),
        once=tuple(header.get("once", once)),
        complete="settings" in header,
        code=str(header.get("code", "")),
        host=str(header.get("host", "")),
        libraries=dict(header.get("libraries", {})),
        summary=closing.get("summary"),
        ended=str(closing.get("ts", "")),
    )


def last_run_of_each_stage(runs: Sequence[Run]) -> list[Run]:
    """Return the latest run of each stage, in order of the stages' first runs."""
    latest = {run.stage: run for run in runs}
    return list(latest.values())


def setting_of_last(runs: Sequence[Run], name: str) -> Any:
    """Return a setting from the last run that has it; None if none has."""
    found = (run.setting(name) for run in reversed(runs))
    return next((value for value in found if value is not None), None)


def thresholds_of_filter(runs: Sequence[Run]) -> dict[str, float]:
    """Return the thresholds of the filter's last run, without unknown ones."""
    last = next((run for run in reversed(runs) if run.stage == "filter"), None)
    names = ("min_relevance", "min_aesthetic", "top_n", "per_species_floor") if last else ()
    return {name: float(value) for name in names if last and (value := last.setting(name)) is not None}


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as flags.

    >>> flags_of({"turns": True, "max_cost": 5.0, "scales": [0.5, 1.0]})
    ['--turns', '--max-cost', '5', '--scales', '0.5', '1']
    """
    words: list[str] = []
    for name, value in settings.items():
        if value is not None and value is not False:
            values = value if isinstance(value, list) else [] if value is True else [value]
            whole = (int(each) if isinstance(each, float) and each.is_integer() else each for each in values)
            words += [f"--{name.replace('_', '-')}", *map(str, whole)]
    return words


def settings_from_words(stage: str, words: Iterable[str]) -> dict[str, Any]:
    """Return the settings in a recorded command line, for journals without recorded settings.

    A name may be an abbreviation that argparse accepted.

    >>> settings_from_words("score", ["--root", "x", "--ids", "a", "b", "--min-rel=70", "--redo"])
    {'root': 'x', 'ids': ['a', 'b'], 'min_rel': '70', 'redo': True}
    """
    subcommands = first_step_of(stage).subcommands
    given: dict[str, list[str]] = {}
    values: list[str] = []  # of the preceding flag; any word before the first flag is a subcommand
    for word in words:
        flag, joined, value = word.partition("=")
        if flag.startswith("--"):
            values = [value] if joined else []
            name = flag[2:].replace("-", "_")
            given.pop(name, None)  # the last occurrence counts
            given[name] = values
        elif word not in subcommands:
            values.append(word)
    return {name: True if not values else values[0] if len(values) == 1 else values for name, values in given.items()}


def entries_of_run(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal after its header."""
    entries = read_entries(path)
    next(entries, None)
    for _, entry in entries:
        yield entry


def _last_entry(path: Path) -> dict[str, Any]:
    """Return the last line of a journal, or {} if it is incomplete because the run was killed."""
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
