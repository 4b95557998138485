"""What the OpenAI stand-in charges for cached input, cache writes and tiers, according to OpenAI's price page.

It uses decimals and a price table of its own, to check a client's count independently.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from demo.standins.openai_requests import Asked

MILLION = Decimal(1_000_000)
SHORTEST_CACHED = 1024  # tokens
STEP = 128  # unit of a cache without breakpoints
HALF = ("flex", "batch")


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens; `cache_write` is None if cache writes are free."""

    input: str
    cached: str
    cache_write: str | None
    output: str


PRICES: Mapping[str, Price] = {
    "gpt-5-mini": Price("0.25", "0.025", None, "2.00"),
    "gpt-6.1-terra": Price("1.00", "0.05", "1.25", "5.00"),
    "gpt-6-luna": Price("0.10", "0.01", "0.125", "0.50"),
}


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer: input, the cached and the written part of it, and output."""

    given: int
    cached: int
    written: int
    made: int


class Bill:
    """Dollars charged so far, shared by all threads. A model without a price is free."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = Decimal(0)

    @property
    def usd(self) -> float:
        with self._lock:
            return float(self._total)

    def charge(self, model: str, tier: str, usage: Usage) -> None:
        price = PRICES.get(model)
        if price is None:
            return
        dollars = (
            (usage.given - usage.cached - usage.written) * Decimal(price.input)
            + usage.cached * Decimal(price.cached)
            + usage.written * Decimal(price.cache_write or price.input)
            + usage.made * Decimal(price.output)
        ) / MILLION
        with self._lock:
            self._total += dollars / 2 if tier in HALF else dollars


class Cache:
    """The beginnings of earlier prompts, shared by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[tuple[str, str]] = set()

    def use(self, asked: Asked, given: int) -> tuple[int, int]:
        """Return how many of the input tokens came from the cache, and how many were written to it.

        A model with a free cache caches the constant beginning automatically. The others write everything up to the
        newest message, which a new image makes new in full, or in explicit mode up to a breakpoint.
        """
        price = PRICES.get(asked.model)
        if price is None or price.cache_write is None:
            tokens = len(asked.constant) // 4 // STEP * STEP
            if tokens < SHORTEST_CACHED:
                return 0, 0
            return (tokens, 0) if self._was_seen(asked.model, asked.constant) else (0, 0)
        if not asked.explicit_cache:
            if given < SHORTEST_CACHED:
                return 0, 0
            whole = "\0".join((asked.constant, asked.notes, asked.picture))
            return (given, 0) if self._was_seen(asked.model, whole) else (0, given)
        tokens = len(asked.beginning or "") // 4
        if asked.beginning is None or tokens < SHORTEST_CACHED:
            return 0, 0
        return (tokens, 0) if self._was_seen(asked.model, asked.beginning) else (0, tokens)

    def _was_seen(self, model: str, beginning: str) -> bool:
        with self._lock:
            seen = (model, beginning) in self._seen
            self._seen.add((model, beginning))
            return seen
