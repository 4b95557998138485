"""Requests and tokens per minute: every thread waits here before it sends, as long as the server's limits require.

The limits are unknown until the server sends them in its x-ratelimit headers, and other programs may use the same
account. Each answer therefore corrects the buckets by the remaining amounts that it reports. No rate-limit library
supports such corrections. Source of the headers: OpenAI's guide to rate limits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from pokefa.errors import Interrupted

LOOK_S = 0.1  # how often a waiting thread polls the stop flag
MOST_REST_S = 600.0  # a server that asks for more counts as unreachable

INTERRUPTED = "interrupted: finished work is saved; run the same command again to continue"


class _Bucket:
    """A token bucket of `limit` per minute, refilled continuously up to one minute's worth."""

    def __init__(self, limit: float, level: float, now: float) -> None:
        self.limit = limit
        self.level = level
        self._filled = now

    def refill(self, now: float) -> None:
        self.level = min(self.limit, self.level + (now - self._filled) * self.limit / 60)
        self._filled = now

    def delay(self, amount: float) -> float:
        """Return the seconds until `amount` is available; more than one minute's worth waits for a full bucket."""
        return max(0.0, min(amount, self.limit) - self.level) * 60 / self.limit


class Pace:
    """Shared by all threads that call one server.

    Args:
        should_stop: once it returns true, nothing more is sent.
    """

    def __init__(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        self._should_stop = should_stop
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._rest_until = 0.0

    def wait(self, tokens: int) -> None:
        """Return once a request with `tokens` expected tokens may be sent.

        Raises:
            Interrupted: the run is to stop.
        """
        while True:
            if self._should_stop():
                raise Interrupted(INTERRUPTED)
            with self._lock:
                now = time.monotonic()
                delay = self._rest_until - now
                for name, amount in (("requests", 1), ("tokens", tokens)):
                    if name in self._buckets:
                        self._buckets[name].refill(now)
                        delay = max(delay, self._buckets[name].delay(amount))
                if delay <= 0:
                    for name, amount in (("requests", 1), ("tokens", tokens)):
                        if name in self._buckets:
                            self._buckets[name].level -= amount
                    return
            time.sleep(min(delay, LOOK_S))

    def learn(self, headers: Mapping[str, str]) -> None:
        """Read the limits and the remaining amounts from the headers of an answer; ignore other headers."""
        with self._lock:
            now = time.monotonic()
            for name in ("requests", "tokens"):
                limit = as_number(headers.get(f"x-ratelimit-limit-{name}"))
                left = as_number(headers.get(f"x-ratelimit-remaining-{name}"))
                if limit is None or left is None or limit <= 0:
                    continue
                bucket = self._buckets.get(name)
                if bucket is None or bucket.limit != limit:
                    self._buckets[name] = _Bucket(limit, min(limit, left), now)
                else:
                    # The level here includes requests in flight that the server has not counted, so use the lower one.
                    bucket.refill(now)
                    bucket.level = min(bucket.level, left)

    def settle(self, expected: int, used: int) -> None:
        """Correct the token bucket by the actual usage of a request."""
        with self._lock:
            bucket = self._buckets.get("tokens")
            if bucket is not None:
                bucket.level = min(bucket.limit, bucket.level + expected - used)

    def rest(self, seconds: float) -> None:
        """Send nothing for this long: the server asked for it."""
        with self._lock:
            self._rest_until = max(self._rest_until, time.monotonic() + seconds)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait according to the headers of an answer, or None."""
    milliseconds = as_number(headers.get("retry-after-ms"))
    return milliseconds / 1000 if milliseconds is not None else as_number(headers.get("retry-after"))


def as_number(text: str | None) -> float | None:
    """Return a header's number if it is 0 or more, else None."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
