"""An event loop in its own thread, and threads for blocking work.

All threads are daemons: name resolution and decoding cannot be interrupted, and the end of the run must not wait for
them, as it would for an executor's threads.
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

LOOK_S = 0.2  # interval for polling the stop flag while waiting for a result
END_S = 5.0  # time for tasks to close their connections at the end

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class WorkLoop(Generic[Item, Result]):
    """Works on all submitted items concurrently; unfinished ones are cancelled at the end of the `with` block.

    Args:
        work: takes one item.
        resources: a context manager that the work needs, entered and left in the loop.
        stop: when it is set, waiting for results ends.
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
        """Start work on an item."""
        return asyncio.run_coroutine_threadsafe(self._work(item), self._loop)

    def result(self, future: Future[Result]) -> Result:
        """Wait for a result, or raise what the work raised.

        Raises:
            Interrupted: the run was stopped before the result arrived.
        """
        while not wait([future], 0 if self._stop.is_set() else LOOK_S).done:
            if self._stop.is_set():
                raise Interrupted("interrupted during a download")
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
        """Run a function in one of the threads and return its result, or raise its error."""
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
            future.cancel()  # at once if this was cancelled, not in the loop's next iteration

    def _work(self) -> None:
        while True:
            self._jobs.get()()
