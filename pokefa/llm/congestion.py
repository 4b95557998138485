"""How many requests may be in flight: fewer when answers are late.

A server that answers one request at a time makes each wait for all before it, and requests that time out are wasted
work. As in TCP, the number is halved when an answer is late and grows by one per round of timely answers (additive
increase, multiplicative decrease: RFC 5681). "Late" is relative to the time-out rather than to the fastest answer,
because a model's response times vary tenfold without any queue.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pokefa.errors import Interrupted
from pokefa.llm.rate_limit import INTERRUPTED, LOOK_S

LATE_SHARE = 0.25  # of the time-out

log = logging.getLogger("pokefa")


class CongestionWindow:
    """Shared by all threads that call one server; there is no limit until an answer is late.

    Args:
        timeout: seconds after which a request is given up.
    """

    def __init__(self, timeout: float) -> None:
        self._late = timeout * LATE_SHARE
        self._changed = threading.Condition()
        self._under_way = 0
        self._limit = float("inf")
        self._cut_at = float("-inf")

    def begin(self, should_stop: Callable[[], bool]) -> None:
        """Return when one more request may be sent.

        Raises:
            Interrupted: the run is to stop.
        """
        with self._changed:
            while self._under_way + 1 > self._limit:
                if should_stop():
                    raise Interrupted(INTERRUPTED)
                self._changed.wait(LOOK_S)
            self._under_way += 1

    def end(self, sent: float, now: float) -> None:
        """Record a request by its start and end times, whether it was answered or not."""
        with self._changed:
            if now - sent > self._late:
                # A request sent before the last reduction says nothing about later ones.
                if sent > self._cut_at:
                    self._limit = max(1, min(self._limit, self._under_way) // 2)
                    self._cut_at = now
                    log.info("an answer took %.0f s: at most %d requests at once from now on", now - sent, self._limit)
            else:
                self._limit += 1 / self._limit
            self._under_way -= 1
            self._changed.notify_all()
