"""A memory budget for large images.

Small images need no claim, because the number of decoders bounds their memory. A large image claims its share of the
budget first, and waits until there is room. All processes of a user share the budget. A share is a number of locked
files, which the system unlocks when their holder dies.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pokefa.errors import Interrupted

# The rest of the stage and the system need about as much as the images.
SHARE_OF_MEMORY = 0.5
# A claim is rounded up to a multiple of this.
SLOT_BYTES = 64 * 2**20
# An image that needs no more than this needs no claim.
SMALL_BYTES = 128 * 2**20
MOST_SLOTS = 512
WAIT_S = 0.05

# By the controllers in a line of /proc/self/cgroup; version 2 names none.
_CGROUP_LIMITS = {
    "": (Path("/sys/fs/cgroup"), "memory.max"),
    "memory": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
}

log = logging.getLogger("pokefa")


class NeedsMemory(BaseException):
    """An image needs more memory than its decoder may use.

    It is not an Exception, so that handlers of image errors do not catch it.
    """

    def __init__(self, needed: int) -> None:
        super().__init__(f"{needed} bytes")
        self.needed = needed


# Bytes that an image may use in this process; None = no limit. Decoders set it.
allowance: int | None = None


def admit(needed: int) -> None:
    """Check that an image may use so many bytes in this process.

    Raises:
        NeedsMemory: it has to claim them first.
    """
    if allowance is not None and needed > allowance:
        raise NeedsMemory(needed)


def memory_of_machine() -> int:
    """Return the bytes of memory available to this process: the machine's, or less if its cgroup has a limit."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []  # only Linux has them
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in _CGROUP_LIMITS:
            continue
        mount, name = _CGROUP_LIMITS[controllers]
        for folder in ((mount / path.lstrip("/")), *(mount / path.lstrip("/")).parents):
            try:
                found.append(int((folder / name).read_text(encoding="ascii")))
            except (OSError, ValueError):  # no limit here, or "max"
                continue
    return min(found)


class Budget:
    """Memory for large images, shared by all budgets with the same folder.

    Args:
        total: bytes for all of them together; None = SHARE_OF_MEMORY of the machine's memory.
        folder: folder of the locked files; None = this user's, for all runs on this machine.
    """

    def __init__(self, total: int | None = None, folder: Path | None = None) -> None:
        self.total = int(SHARE_OF_MEMORY * memory_of_machine()) if total is None else total
        self._slots = min(MOST_SLOTS, max(1, self.total // SLOT_BYTES))
        self._folder = folder or Path(tempfile.gettempdir()) / f"pokefa-{os.getuid()}"

    @contextmanager
    def claim(self, needed: int, should_stop: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """Claim `needed` bytes for the duration of the block, and yield the bytes granted.

        An image that needs more than the budget gets all of it. If no file can be locked, there is no limit.

        Raises:
            Interrupted: the run was stopped while waiting.
        """
        wanted = min(self._slots, -(-needed // SLOT_BYTES))
        with ExitStack() as held:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                # One process at a time claims slots: two with a part each would deadlock.
                with ExitStack() as turn:
                    self._lock(["turn"], 1, turn, should_stop)
                    self._lock([f"slot-{number}" for number in range(self._slots)], wanted, held, should_stop)
            except OSError as error:
                log.debug("%s: %s: large images share no memory budget", self._folder, error.strerror)
            yield self.total if wanted == self._slots else wanted * SLOT_BYTES

    def _lock(self, names: list[str], wanted: int, held: ExitStack, should_stop: Callable[[], bool]) -> None:
        """Lock `wanted` of the files, as they become free."""
        while True:
            for name in list(names):
                file = (self._folder / name).open("ab")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                    continue
                held.enter_context(file)
                names.remove(name)
                wanted -= 1
                if not wanted:
                    return
            if should_stop():
                raise Interrupted("interrupted while an image waited for memory")
            time.sleep(WAIT_S)
