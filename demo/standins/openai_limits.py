"""Rate limits of the OpenAI stand-in: continuously refilled token buckets, and their headers."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from demo.standins.openai_requests import Refused

MINUTE = 60.0


@dataclass
class Bucket:
    """A limit per minute, of which up to `window` seconds' worth can be used at once.

    Args:
        a_minute: units per minute.
        window: capacity in seconds' worth; the bucket starts full.
        clock: returns the time in seconds.
    """

    a_minute: int
    window: float = MINUTE
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.capacity = max(1.0, self.a_minute * self.window / MINUTE)
        self._level = self.capacity
        self._at = self.clock()

    def level(self) -> float:
        """Return the units left now; below 0 after overuse."""
        now = self.clock()
        self._level = min(self.capacity, self._level + (now - self._at) * self.a_minute / MINUTE)
        self._at = now
        return self._level

    def take(self, units: float) -> None:
        """Use units, including future ones."""
        self._level = self.level() - units

    def wait_for(self, units: float) -> float:
        """Return the seconds until `units` are available; infinite if they exceed the capacity."""
        if units > self.capacity:
            return math.inf
        return max(0.0, units - self.level()) * MINUTE / self.a_minute

    def reset(self) -> float:
        """Return the seconds until the bucket is full."""
        return self.wait_for(self.capacity)


@dataclass
class Limits:
    """The limits of an account on requests and tokens per minute, shared by all threads; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    window: float = MINUTE
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[str, Bucket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        for name, limit in (("requests", self.requests_per_minute), ("tokens", self.tokens_per_minute)):
            if limit is not None:
                self._buckets[name] = Bucket(limit, self.window, self.clock)

    def admit(self, model: str, tokens: int) -> None:
        """Count a request with this many input tokens.

        Raises:
            Refused: it exceeds a limit (429) and is not counted.
        """
        with self._lock:
            wanted = {"requests": 1, "tokens": tokens}
            waits = {name: bucket.wait_for(wanted[name]) for name, bucket in self._buckets.items()}
            name = max(waits, key=lambda name: waits[name], default="")
            if name and waits[name] > 0:
                raise _over(self._buckets[name], name, model, wanted[name], waits[name])
            for name, bucket in self._buckets.items():
                bucket.take(wanted[name])

    def charge(self, tokens: int) -> None:
        """Count output tokens: they use up the limit but are never refused."""
        with self._lock:
            if "tokens" in self._buckets:
                self._buckets["tokens"].take(tokens)

    def headers(self) -> dict[str, str]:
        """Return the headers x-ratelimit-{limit,remaining,reset}-{requests,tokens} of the limits that are set."""
        found = {}
        with self._lock:
            for name, bucket in self._buckets.items():
                found[f"x-ratelimit-limit-{name}"] = str(bucket.a_minute)
                found[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.level())))
                found[f"x-ratelimit-reset-{name}"] = duration(bucket.reset())
        return found


def duration(seconds: float) -> str:
    """Return a duration in the form of OpenAI's headers: "0s", "120ms", "1s", "8.64s", "6m0s", "1h0m30s"."""
    thousandths = math.ceil(seconds * 1000 - 1e-6)
    if thousandths <= 0:
        return "0s"
    if thousandths < 1000:
        return f"{thousandths}ms"
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 1000}.{rest % 1000:03}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _over(bucket: Bucket, name: str, model: str, wanted: int, wait: float) -> Refused:
    what = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[name]
    whose = f"{model} in organization org-standin on {what}"
    if math.isinf(wait):
        message = f"Request too large for {whose}: Limit {bucket.a_minute}, Requested {wanted}."
        return Refused(429, message, "rate_limit_exceeded", name)
    used = math.ceil(bucket.capacity - bucket.level())
    message = (
        f"Rate limit reached for {whose}: Limit {bucket.a_minute}, Used {used}, Requested {wanted}. "
        f"Please try again in {duration(wait)}."
    )
    thousandths = max(1, math.ceil(wait * 1000))
    whole = str(math.ceil(wait))
    return Refused(429, message, "rate_limit_exceeded", name, retry_after=whole, retry_after_ms=str(thousandths))
