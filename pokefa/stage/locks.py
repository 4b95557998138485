"""Locks between the runs on one dataset.

Different stages may run at the same time: the ledger supports that. Two runs of one stage would do and pay for the same
work twice. The builders of the final set would remove each other's files. An override must not be undone by a stage
that has read the old value. A takedown runs alone, so that no stage copies an image while it removes it. These are file
locks, which the system releases when the process ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pokefa.errors import InputError
from pokefa.setup.steps import STEPS

FOLDER = "metadata/.locks"
TAKEDOWN = "takedown"

# Each lock and its scripts; the takedown's first, so that a second takedown names the first in its message.
LOCKS = {
    lock: list(dict.fromkeys(step.script for step in STEPS.values() if step.lock == lock))
    for lock in (TAKEDOWN, *(step.lock for step in STEPS.values() if step.lock))
}


@contextmanager
def holding(root: Path, *names: str) -> Iterator[None]:
    """Lock out other runs of these steps for the duration of the block; a takedown locks out all runs.

    Args:
        names: names of steps.

    Raises:
        InputError: another run holds a lock.
    """
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for lock in LOCKS if TAKEDOWN in names else dict.fromkeys(STEPS[name].lock for name in names):
            try:
                held.enter_context(FileLock(root / FOLDER / f"{lock}.lock", timeout=0))
            except Timeout:
                raise InputError(
                    f"{' or '.join(holders(lock, names))} is running on {root.absolute()}: wait until it ends, or "
                    "stop it with Ctrl-C, which saves its finished work"
                ) from None
        yield


def holders(lock: str, refused: Collection[str]) -> list[str]:
    """Return the scripts that may hold a lock that a run of `refused` did not get."""
    scripts = [*LOCKS[lock], *([] if TAKEDOWN in refused else [STEPS[TAKEDOWN].script])]
    return list(dict.fromkeys(Path(script).name for script in scripts))
