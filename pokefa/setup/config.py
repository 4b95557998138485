"""Flags for each step of `pipeline.py run`, read from a TOML file. Standard library only."""

from __future__ import annotations

import codecs
import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pokefa.errors import InputError, InputErrors

# Byte order marks, longer ones first.
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF8, "UTF-8 with a byte order mark"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)

# Refused in any abbreviation that argparse accepts.
REFUSED = {
    "--root": "all steps share one --root, which belongs on the command line of pipeline.py",
    "--help": "the step would print its help and do nothing",
}


def read_config(path: Path, steps: Sequence[str]) -> dict[str, list[str]]:
    """Return the flags for each step, from lines such as `resize = ["--min-side", "768"]`.

    Args:
        steps: the valid step names.

    Raises:
        InputErrors: every problem of the file.
    """
    try:
        config = tomllib.loads(read_utf8(path))
    except tomllib.TOMLDecodeError as error:
        raise InputErrors([f"--config {path} is not TOML: {error}"]) from None
    except RecursionError:
        raise InputErrors([f"--config {path} is nested too deeply: give each step one list of strings"]) from None
    problems = []
    for name, flags in config.items():
        if name not in steps:
            problems.append(f"--config {path}: {unknown_name('step', name, steps)}")
        elif not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
            problems.append(f'--config {path}: {name} must be a list of strings, such as ["--limit", "100"]')
        else:
            problems += [f"--config {path}: {name}: {problem}" for problem in refused_flags(flags)]
    if problems:
        raise InputErrors(problems)
    return config


def read_utf8(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        InputError: it cannot be read, or is in another encoding, which the message names if it is known.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"--config {path} cannot be read: {error.strerror}") from None
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data:
        encoding = "UTF-16 or a binary file, because it contains NUL bytes"
    if encoding is not None:
        raise InputError(f"--config {path} is {encoding}: save it as plain UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"--config {path} is not UTF-8: line {line} has the byte 0x{data[error.start]:02x}; save it as UTF-8"
        ) from None


def refused_flags(flags: Iterable[str]) -> list[str]:
    """Return a problem for each flag that is refused here."""
    problems = []
    for flag in flags:
        name = flag.partition("=")[0]
        for refused, reason in REFUSED.items():
            if (len(name) > 2 and refused.startswith(name)) or (refused == "--help" and flag == "-h"):
                problems.append(f"{flag} means {refused}: {reason}; remove it")
    return problems


def unknown_name(kind: str, name: str, names: Iterable[str]) -> str:
    """Return a message about a step or a command that does not exist, with the names that are most like it."""
    names = list(names)
    like = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    meant = f" (did you mean {' or '.join(like)}?)" if like else ""
    return f"unknown {kind} {name!r}{meant}; the {kind}s are {', '.join(names)}"
