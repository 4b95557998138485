"""What a run has spent, and the hard limit that a user can set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pokefa.errors import BudgetReached


class Budget:
    """Dollars spent and promised; threads share it.

    A call may begin only if what was spent, what the calls under way are expected to cost, and what it is expected to
    cost itself stay within the limit. The last calls can still cost more than expected; the expectation is high.

    Args:
        most: dollars; None = no limit.
    """

    def __init__(self, most: float | None) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._promised = 0.0
        self.spent = 0.0

    @contextmanager
    def promise(self, dollars: float) -> Iterator[None]:
        """Hold back so much while a call is under way.

        Raises:
            BudgetReached: it would exceed the limit.
        """
        with self._lock:
            if self._most is not None and self.spent + self._promised + dollars > self._most:
                raise BudgetReached(
                    f"--max-cost {self._most:g} is reached (${self.spent:.4f} spent): what was finished is saved; run "
                    "again with more"
                )
            self._promised += dollars
        try:
            yield
        finally:
            with self._lock:
                self._promised -= dollars

    def spend(self, dollars: float) -> None:
        with self._lock:
            self.spent += dollars
