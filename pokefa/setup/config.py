"""The user's own flags for each step of `pipeline.py run`, from a TOML file. Standard library only."""

from __future__ import annotations

import codecs
import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pokefa.errors import InputError, InputErrors

# What text editors put in front of a text, the longer ones first.
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF8, "UTF-8 with a byte order mark"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)

# The pipeline gives --root itself, and a step that prints its help has done nothing. argparse takes abbreviations.
REFUSED = {
    "--root": "one --root is for all steps, and belongs on the command line of pipeline.py",
    "--help": "it would end the step before it did anything",
}


def read_config(path: Path, steps: Sequence[str]) -> dict[str, list[str]]:
    """Return the user's own flags per step, as `resize = ["--min-side", "768"]`.

    Args:
        steps: the names that a step can have.

    Raises:
        InputErrors: all that is wrong with the file.
    """
    try:
        config = tomllib.loads(read_utf8(path))
    except tomllib.TOMLDecodeError as error:
        raise InputErrors([f"--config {path} is not TOML: {error}"]) from None
    except RecursionError:
        raise InputErrors([f"--config {path} is nested too deeply: each step is one list of strings"]) from None
    problems = []
    for name, flags in config.items():
        if name not in steps:
            problems.append(f"--config {path}: {unknown_name('step', name, steps)}")
        elif not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
            problems.append(f'--config {path}: {name} must be a list of strings, as ["--limit", "100"]')
        else:
            problems += [f"--config {path}: {name}: {problem}" for problem in refused_flags(flags)]
    if problems:
        raise InputErrors(problems)
    return config


def read_utf8(path: Path) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        InputError: it cannot be read, or is in another encoding, which the message names as far as it shows.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"--config {path} cannot be read: {error.strerror}") from None
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data:
        encoding = "UTF-16 or no text, for it holds NUL bytes"
    if encoding is not None:
        raise InputError(f"--config {path} is {encoding}: save it as plain UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"--config {path} is not UTF-8: line {line} holds the byte 0x{data[error.start]:02x}; save it as UTF-8"
        ) from None


def refused_flags(flags: Iterable[str]) -> list[str]:
    """Return what is wrong with flags that no step may be given here, in any spelling that argparse takes."""
    problems = []
    for flag in flags:
        name = flag.partition("=")[0]
        for refused, reason in REFUSED.items():
            if (len(name) > 2 and refused.startswith(name)) or (refused == "--help" and flag == "-h"):
                problems.append(f"{flag} stands for {refused}: {reason}; leave it out")
    return problems


def unknown_name(kind: str, name: str, names: Iterable[str]) -> str:
    """Return a message about a step or a command that does not exist, with the names that are most like it."""
    names = list(names)
    like = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    meant = f" (did you mean {' or '.join(like)}?)" if like else ""
    return f"there is no {kind} {name!r}{meant}; the {kind}s are {', '.join(names)}"
