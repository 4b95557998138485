"""An event loop in a thread of its own, and threads for what would hold it up.

All threads are daemons: neither a look-up of a name nor the decoding of an image can be broken off, and the end of the
run must not wait for them, as it would for those of an executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, ParamSpec, TypeVar

from pokefa.errors import Interrupted

LOOK_S = 0.2  # whoever waits for a result polls the stop flag this often
END_S = 5.0  # what is under way at the end gets this long to close its connections

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class WorkLoop(Generic[Item, Result]):
    """Works on all that is submitted at once, while its `with` block lasts; what is not done then is cancelled.

    Args:
        work: takes one item.
        resources: what the work needs, entered and left in the loop.
        stop: when it is set, nobody waits for a result any more.
    """

    def __init__(
        self,
        work: Callable[[Item], Coroutine[Any, Any, Result]],
        resources: AbstractAsyncContextManager[object],
        stop: threading.Event,
    ) -> None:
        self._work = work
        self._resources = resources
        self._stop = stop
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> WorkLoop[Item, Result]:
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._resources.__aenter__(), self._loop).result()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(END_S)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def submit(self, item: Item) -> Future[Result]:
        """Begin with an item."""
        return asyncio.run_coroutine_threadsafe(self._work(item), self._loop)

    def result(self, future: Future[Result]) -> Result:
        """Wait for a result, or raise what the work raised.

        Raises:
            Interrupted: the run is to stop, and the result has not come.
        """
        while not wait([future], 0 if self._stop.is_set() else LOOK_S).done:
            if self._stop.is_set():
                raise Interrupted("interrupted in the middle of a download")
        return future.result()

    async def _end(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._resources.__aexit__(None, None, None)


class Threads:
    """Threads that run functions for an event loop."""

    def __init__(self, number: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for _ in range(number):
            threading.Thread(target=self._work, daemon=True).start()

    async def run(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Return what a function returns in one of the threads, or raise what it raises."""
        future: Future[Result] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*arguments, **named))
            except BaseException as error:
                future.set_exception(error)

        self._jobs.put(job)
        try:
            return await asyncio.wrap_future(future)
        finally:
            future.cancel()  # at once, where this was cancelled: the loop would do it in its next round

    def _work(self) -> None:
        while True:
            self._jobs.get()()
