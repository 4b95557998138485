"""What a confined process may load in a test: functions that answer, fail, die or lie."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pokefa.errors import PokefaError

Loaded = tuple[Callable[[list[Any]], list[Any]], dict[str, Any]]


def doubling(**facts: object) -> Loaded:
    """Doubles every array; dies at one that begins with 13, and fails at one that begins with 7."""

    def double(arrays: list[Any]) -> list[Any]:
        if arrays[0].flat[0] == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        if arrays[0].flat[0] == 7:
            raise PokefaError("seven: it\x1b[31m fails\nin two lines")
        print("a model may print what it likes")
        return [2 * array for array in arrays]

    return double, facts


def trying(folder: str, parent: int, port: int) -> Loaded:
    """Tries everything that it may not do when it is loaded, and tells of each attempt what came of it."""
    old = Path(folder) / "old"
    attempts: dict[str, Callable[[], object]] = {
        "create": lambda: (Path(folder) / "new").write_text("x"),
        "change": lambda: old.write_text("x"),
        "append": lambda: old.open("a"),
        "truncate": lambda: os.truncate(old, 0),
        "remove": old.unlink,
        "rename": lambda: old.rename(Path(folder) / "other"),
        "link": lambda: os.link(old, Path(folder) / "link"),
        "symlink": lambda: (Path(folder) / "symlink").symlink_to(old),
        "folder": lambda: (Path(folder) / "folder").mkdir(),
        "read": old.read_text,
        "list": lambda: list(Path(folder).iterdir()),
        "shared memory": lambda: Path("/dev/shm/pokefa-test").write_text("x"),
        "environment of the parent": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "program": lambda: os.execv(sys.executable, [sys.executable, "--version"]),
        "connect": lambda: socket.create_connection(("127.0.0.1", port), timeout=5).close(),
        "signal": lambda: os.kill(parent, signal.SIGCONT),
    }
    came_of: dict[str, object] = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            came_of[name] = "done"
        except OSError as error:
            came_of[name] = error.errno
    came_of["variables"] = sorted(os.environ)
    came_of["null"] = os.open(os.devnull, os.O_RDWR) > 0
    return doubling()[0], came_of


def lying(header: str, rest: int) -> Loaded:
    """Answers, in the place of a frame, a header and so many zeros."""

    def lie(arrays: list[Any]) -> list[Any]:
        data = header.encode()
        with os.fdopen(4, "wb") as answers:  # stdin and stdout went to 3 and 4
            answers.write(len(data).to_bytes(8, "big") + data + bytes(rest))
        os._exit(0)

    return lie, {}


def missing() -> Loaded:
    raise PokefaError("no_model: there is none")
