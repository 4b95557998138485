"""The event loop beside the program: results, errors, and an end that nothing holds up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pokefa.errors import Interrupted
from scraping.event_loop import Threads, WorkLoop
from scraping.utils import Refused


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


def work_loop(work: Callable[[Any], Any], stop: threading.Event | None = None) -> WorkLoop[Any, Any]:
    return WorkLoop(work, nothing(), stop or threading.Event())


def test_results_and_errors() -> None:
    async def work(item: int) -> int:
        if item == 2:
            raise Refused("too_small", "a")
        if item == 3:
            raise TimeoutError("of the work itself")
        return item * 10

    with work_loop(work) as loop:
        futures = [loop.submit(item) for item in (1, 2, 3, 4)]
        assert [loop.result(futures[place]) for place in (0, 3)] == [10, 40]
        with pytest.raises(Refused, match=r"^too_small: a$"):
            loop.result(futures[1])
        with pytest.raises(TimeoutError, match=r"^of the work itself$"):
            loop.result(futures[2])


def test_all_items_are_under_way_at_once() -> None:
    async def work(barrier: asyncio.Barrier) -> int:
        return await barrier.wait()

    barrier = asyncio.Barrier(100)
    with work_loop(work) as loop:
        futures = [loop.submit(barrier) for _ in range(100)]
        assert sorted(map(loop.result, futures)) == list(range(100))


def test_what_is_under_way_at_the_end_is_cancelled_before_the_resources_go() -> None:
    log: list[str] = []
    begun = threading.Event()

    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        log.append("opened")
        yield
        log.append("closed")

    async def work(item: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    with WorkLoop(work, resources(), threading.Event()) as loop:
        future = loop.submit(1)
        begun.wait(20)
    assert log == ["opened", "cancelled", "closed"]
    assert future.cancelled()


def test_a_stop_ends_the_waiting_for_results() -> None:
    stop = threading.Event()

    async def work(item: int) -> int:
        if item == 0:
            return 0
        stop.set()
        await asyncio.Event().wait()
        return item

    with work_loop(work, stop) as loop:
        done, never = loop.submit(0), loop.submit(1)
        with pytest.raises(Interrupted, match=r"^interrupted during a download$"):
            loop.result(never)
        assert loop.result(done) == 0  # what has come is not lost


def test_resources_that_cannot_be_had() -> None:
    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        raise OSError("no certificates")
        yield

    async def work(item: int) -> int:
        return item

    with pytest.raises(OSError, match=r"^no certificates$"), WorkLoop(work, resources(), threading.Event()):
        pass


def in_loop(work: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await work()

    return asyncio.run(run())


def test_threads_return_and_raise() -> None:
    threads = Threads(2)

    def divide(one: int, by: int) -> float:
        return one / by

    assert in_loop(lambda: threads.run(divide, 1, by=4)) == 0.25
    with pytest.raises(ZeroDivisionError):
        in_loop(lambda: threads.run(divide, 1, 0))
    assert in_loop(lambda: threads.run(divide, 6, 3)) == 2  # an error ends no thread


def test_so_many_threads_and_no_more() -> None:
    threads, lock, here, most = Threads(3), threading.Lock(), 0, 0
    three = threading.Barrier(3)

    def work() -> None:
        nonlocal here, most
        with lock:
            here += 1
            most = max(most, here)
        three.wait(20)
        with lock:
            here -= 1

    async def all_nine() -> None:
        await asyncio.gather(*(threads.run(work) for _ in range(9)))

    asyncio.run(all_nine())
    assert most == 3


def test_a_thread_that_hangs_holds_nothing_up() -> None:
    """The wait for it is cancelled, and what was cancelled before it began does not begin."""
    threads, hang, log = Threads(1), threading.Event(), list[str]()

    async def work() -> None:
        first = asyncio.create_task(threads.run(hang.wait, 60))
        await asyncio.sleep(0)
        second = asyncio.create_task(threads.run(log.append, "begun"))
        await asyncio.sleep(0)
        for task in (first, second):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        hang.set()
        await threads.run(log.append, "next")

    asyncio.run(work())
    assert log == ["next"]
