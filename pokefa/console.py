"""What a script prints: lines that no stranger's text can turn into commands to the terminal, in any locale."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from typing import Any


def prepare_console() -> None:
    """Have characters that the locale's encoding lacks printed as escapes, where they would end the script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Return a text with its control characters, line ends too, written as escapes."""
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)


def show(lines: Iterable[str]) -> None:
    """Print lines; control characters, which strangers' titles and addresses may hold, are shown and not obeyed."""
    for line in lines:
        print(printable(line))


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, which is JSON in every encoding."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    print(text, flush=True)
