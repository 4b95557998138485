"""The flex tier: half the price, when the server has capacity. A refusal for lack of capacity costs nothing."""

from __future__ import annotations

import logging
import threading
import time
from typing import Literal

from pokefa.errors import BudgetReached
from pokefa.llm.rate_limit import Pace

TIMEOUT_S = 900.0  # OpenAI's advice, because an answer can take that long
SHORTEST_REST_S = 2.0
LONGEST_REST_S = 60.0
NO_ROOM = "resource_unavailable"

Then = Literal["stop", "standard"]
THENS: tuple[Then, ...] = ("stop", "standard")

log = logging.getLogger("pokefa")


class Patience:
    """How long the flex tier has had no capacity, shared by all threads.

    Args:
        seconds: without an answer for this long, the flex tier is given up.
        then: stop, or continue at the standard tier.
    """

    def __init__(self, seconds: float, then: Then, pace: Pace) -> None:
        self._seconds = seconds
        self._then = then
        self._pace = pace
        self._lock = threading.Lock()
        self._since: float | None = None

    def answered(self) -> None:
        with self._lock:
            self._since = None

    def refused(self) -> bool:
        """Pause all threads, longer each time; return whether to continue at the standard tier from now on.

        Raises:
            BudgetReached: there was no capacity for too long, and the run is to stop then.
        """
        now = time.monotonic()
        with self._lock:
            self._since = now if self._since is None else self._since
            waited = now - self._since
        if waited < self._seconds:
            self._pace.rest(min(max(waited, SHORTEST_REST_S), LONGEST_REST_S))
            return False
        if self._then == "standard":
            return True
        raise BudgetReached(
            f"the flex tier has had no room for {waited:.0f} s: finished work is saved; run the same command again "
            "later, or give --flex-then standard"
        )


def has_no_room(status: int, error: object) -> bool:
    """Tell whether an error says that the flex tier has no capacity."""
    if status != 429 or not isinstance(error, dict):
        return False
    told = f"{error.get('code')} {error.get('type')} {error.get('message')}".lower().replace(" ", "_")
    return NO_ROOM in told
