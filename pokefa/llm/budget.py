"""The cost of a run, and the user's hard limit on it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pokefa.errors import BudgetReached, Interrupted
from pokefa.llm.rate_limit import INTERRUPTED, LOOK_S


class Budget:
    """Dollars spent and promised, shared by all threads.

    A request is sent only if these together stay within the limit: the dollars spent, the maximum cost of the requests
    in flight, and its own maximum cost. If the requests in flight prevent that, it waits for their answers, which
    usually cost less. If a server has charged more than promised, later requests are expected to cost more, too.

    Args:
        most: dollars; None = no limit.
        should_stop: once it returns true, nothing waits.
    """

    def __init__(self, most: float | None, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.most = most
        self._should_stop = should_stop
        self._changed = threading.Condition()
        self._promised = 0.0
        self._overcharge = 1.0
        self.spent = 0.0
        self.lost = 0.0  # part of the dollars spent: maximum cost of the requests that got no answer

    def promise(self, dollars: float) -> float:
        """Reserve the maximum cost of a request and return it; `settle` releases it.

        Raises:
            BudgetReached: it would exceed the limit.
            Interrupted: the run is to stop.
        """
        with self._changed:
            while True:
                promised = dollars * self._overcharge
                if self.most is None or self.spent + self._promised + promised <= self.most:
                    self._promised += promised
                    return promised
                if self.spent + promised > self.most:
                    raise BudgetReached(self._message())
                if self._should_stop():
                    raise Interrupted(INTERRUPTED)
                self._changed.wait(LOOK_S)

    def settle(self, promised: float, dollars: float, *, lost: bool = False) -> None:
        """Replace a promise with the actual cost of the request."""
        with self._changed:
            self._promised -= promised
            self.spent += dollars
            self.lost += dollars if lost else 0.0
            if promised and dollars > promised:
                self._overcharge *= dollars / promised
            self._changed.notify_all()

    def _message(self) -> str:
        lost = f", ${self.lost:.4f} of it at most for answers that were lost" if self.lost else ""
        return (
            f"--max-cost {self.most:g} is reached (${self.spent:.4f} spent{lost}): finished work is saved; run "
            "again with more"
        )


class Attempts:
    """The requests of one question, including the SDK's retries: each is promised before it is sent.

    Args:
        most: maximum cost of one request in dollars.
    """

    def __init__(self, budget: Budget, most: float) -> None:
        self._budget = budget
        self._most = most
        self._promised: float | None = None
        self._sent = False

    def begin(self) -> None:
        """Promise the next request.

        Raises: as `Budget.promise`.
        """
        self.end()
        self._promised = self._budget.promise(self._most)
        self._sent = False

    def sent(self) -> None:
        """Record that the request was sent: it may be charged even without an answer."""
        self._sent = True

    def refused(self) -> None:
        """Record that the server answered with an error, which costs nothing."""
        self._sent = False

    def answered(self, dollars: float) -> None:
        """Record the cost of the answer."""
        if self._promised is not None:
            self._budget.settle(self._promised, dollars)
            self._promised = None

    def end(self) -> None:
        """Settle a request without an answer: it counts with the promised cost if it was sent."""
        if self._promised is not None:
            lost = self._promised if self._sent else 0.0
            self._budget.settle(self._promised, lost, lost=self._sent)
            self._promised = None
