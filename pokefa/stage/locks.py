"""Locks between the runs on one dataset.

Different stages may run side by side: the ledger sees to that. Two runs of one stage would do the same work twice, and
pay twice where answers are paid for. Those that build the final set would each remove what the other has built. What a
person overrules must not be decided once more by a stage that has read the old word. And a takedown has to know that
nobody makes another copy of a picture while it removes them, so it runs alone. The system itself holds the locks: they
go with the process that took them, however it ends.
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

# Each lock and the scripts that take it; the takedown's first, so that a second takedown is told of the first.
LOCKS = {
    lock: list(dict.fromkeys(step.script for step in STEPS.values() if step.lock == lock))
    for lock in (TAKEDOWN, *(step.lock for step in STEPS.values() if step.lock))
}


@contextmanager
def holding(root: Path, *names: str) -> Iterator[None]:
    """Keep other runs of these stages away for as long as the block lasts; for a takedown, all other runs.

    Args:
        names: of steps.

    Raises:
        InputError: a run that is under way keeps this one away.
    """
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for lock in LOCKS if TAKEDOWN in names else dict.fromkeys(STEPS[name].lock for name in names):
            try:
                held.enter_context(FileLock(root / FOLDER / f"{lock}.lock", timeout=0))
            except Timeout:
                raise InputError(
                    f"{' or '.join(holders(lock, names))} is at work on {root.absolute()}: wait until it has ended, "
                    "or stop it with Ctrl-C, which saves what it has finished"
                ) from None
        yield


def holders(lock: str, refused: Collection[str]) -> list[str]:
    """Return the scripts that may hold a lock which a run of `refused` did not get."""
    scripts = [*LOCKS[lock], *([] if TAKEDOWN in refused else [STEPS[TAKEDOWN].script])]
    return list(dict.fromkeys(Path(script).name for script in scripts))
