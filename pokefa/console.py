"""Printing untrusted text in any locale, so that it cannot send commands to the terminal."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from typing import Any


def prepare_console() -> None:
    """Print characters that the locale's encoding lacks as escapes instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Return a text with its control characters, including line ends, written as escapes."""
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)


def show(lines: Iterable[str]) -> None:
    """Print lines, with control characters as escapes: titles and URLs from the web may contain them."""
    for line in lines:
        print(printable(line))


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, in ASCII if the console's encoding requires it."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    print(text, flush=True)
