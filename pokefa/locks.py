"""Locks between the runs on one dataset.

Different stages may run side by side: the ledger sees to that. Two runs of one stage would do the same work twice, and
pay twice where answers are paid for. Those that build the final set would each remove what the other has built. And a
takedown has to know that nobody makes another copy of a picture while it removes them, so it runs alone. The system
itself holds the locks: they go with the process that took them, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pokefa.errors import InputError
from pokefa.selection import STEPS, Step

FOLDER = "metadata/.locks"
TAKEDOWN = "takedown"
FINAL_SET = ("filter", "split", "webdataset")


@contextmanager
def holding(root: Path, step: Step) -> Iterator[None]:
    """Keep other runs of a step's stage away for as long as the block lasts; for a takedown, all other runs.

    Raises:
        InputError: a run that is under way keeps this one away.
    """
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for name in lock_names() if step.name == TAKEDOWN else [lock_name(step)]:
            try:
                held.enter_context(FileLock(root / FOLDER / f"{name}.lock", timeout=0))
            except Timeout:
                raise InputError(
                    f"{' or '.join(holders(name, step))} is at work on {root.absolute()}: wait until it has ended, "
                    "or stop it with Ctrl-C, which saves what it has finished"
                ) from None
        yield


def lock_name(step: Step) -> str:
    return "final_set" if step.name in FINAL_SET else step.owner


def lock_names() -> list[str]:
    """Return all there are, a takedown's own first: a second takedown is told of the first."""
    return list(dict.fromkeys([TAKEDOWN, *map(lock_name, STEPS.values())]))


def holders(name: str, refused: Step) -> list[str]:
    """Return the scripts that may hold a lock which `refused` did not get."""
    steps = [step for step in STEPS.values() if lock_name(step) == name]
    if refused.name != TAKEDOWN:
        steps.append(STEPS[TAKEDOWN])
    return list(dict.fromkeys(Path(step.script).name for step in steps))
