"""What a run has spent, and the hard limit that a user can set."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pokefa.errors import BudgetReached, Interrupted
from pokefa.llm.rate_limit import INTERRUPTED, LOOK_S


class Budget:
    """Dollars spent and promised; threads share it.

    A request is sent only if what was spent, what the requests under way can cost at most, and what it can cost at
    most itself stay within the limit. Where those under way stand in its way it waits for their answers, which cost
    less as a rule. A server that has charged more than was promised is expected to do so again.

    Args:
        most: dollars; None = no limit.
        should_stop: when it answers true, nothing is waited for.
    """

    def __init__(self, most: float | None, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.most = most
        self._should_stop = should_stop
        self._changed = threading.Condition()
        self._promised = 0.0
        self._overcharge = 1.0
        self.spent = 0.0
        self.lost = 0.0  # of the dollars spent, those for answers that never came: the most that they can have cost

    def promise(self, dollars: float) -> float:
        """Hold back what a request can cost at most, and return it; `settle` gives it back.

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
        """Take what a request has cost in the place of what was promised for it."""
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
    """The requests that one question leads to, repetitions of the SDK included: each is promised before it is sent.

    Args:
        most: dollars that one request can cost.
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
        """Take note that the request is on its way: from now on it may be charged, though no answer comes."""
        self._sent = True

    def refused(self) -> None:
        """Take note that the server has answered with an error, which costs nothing."""
        self._sent = False

    def answered(self, dollars: float) -> None:
        """Take note of what the answer has cost."""
        if self._promised is not None:
            self._budget.settle(self._promised, dollars)
            self._promised = None

    def end(self) -> None:
        """Settle a request that got no answer: it counts with all that was promised if it had been sent."""
        if self._promised is not None:
            lost = self._promised if self._sent else 0.0
            self._budget.settle(self._promised, lost, lost=self._sent)
            self._promised = None
