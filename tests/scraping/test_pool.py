"""The download pool: turns at hosts, and hosts that ask for patience."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from pokefa.errors import Interrupted
from scraping.pool import TRIES, DownloadPool
from scraping.utils import Busy, Refused

Item = tuple[str, int]


def pool(work: Callable[[Any], Any], *, threads: int = 4, per_host: int = 2, **more: Any) -> DownloadPool[Any, Any]:
    more.setdefault("stop", threading.Event())
    return DownloadPool(lambda: work, threads=threads, per_host=per_host, **more)


def busy(host: str, after: float | None) -> Busy:
    return Busy("http_429", "Too Many Requests", host, after)


def refusal(future: Future[Any]) -> str:
    error = future.exception(20)
    assert isinstance(error, Refused)
    return str(error)


def test_results_and_errors() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise Refused("too_small", "a")
        return item * 10

    with pool(work) as downloads:
        futures = [downloads.submit(item, "a.example") for item in (1, 2, 3)]
        assert [downloads.result(futures[place]) for place in (0, 2)] == [10, 30]
        with pytest.raises(Refused, match=r"^too_small: a$"):
            downloads.result(futures[1])


def test_a_host_has_so_many_at_once_and_holds_up_no_other() -> None:
    """Eight items of one host that wait for one of another host, which stands behind them all."""
    other, lock = threading.Event(), threading.Lock()
    here: Counter[str] = Counter()
    most: list[int] = []

    def work(item: Item) -> int:
        with lock:
            here[item[0]] += 1
            most.append(here["slow.example"])
        if item[0] == "slow.example":
            assert other.wait(20)
        else:
            other.set()
        with lock:
            here[item[0]] -= 1
        return item[1]

    with pool(work, threads=3, per_host=2) as downloads:
        items = [("slow.example", number) for number in range(8)] + [("quick.example", 8)]
        futures = [downloads.submit(item, item[0]) for item in items]
        assert [downloads.result(future) for future in futures] == list(range(9))
    assert max(most) == 2


def test_names_of_one_host() -> None:
    """Case and a dot at the end make no other host: with one turn each, the barrier of two would never open."""
    both = threading.Barrier(2)

    def work(item: int) -> bool:
        try:
            both.wait(0.5)
        except threading.BrokenBarrierError:
            return True
        return False

    with pool(work, threads=2, per_host=1) as downloads:
        futures = [downloads.submit(number, host) for number, host in enumerate(("a.example", "A.Example."))]
        assert [downloads.result(future) for future in futures] == [True, True]


def test_what_needs_no_host_has_no_limit() -> None:
    all_four = threading.Barrier(4)
    with pool(lambda item: all_four.wait(20), per_host=1) as downloads:
        futures = [downloads.submit(item, None) for item in range(4)]
        assert sorted(downloads.result(future) for future in futures) == [0, 1, 2, 3]


def test_a_busy_host_rests_and_is_asked_again() -> None:
    """The host is let alone by its other items too: the second begins only after the first was told to wait."""
    asked: list[tuple[str, int]] = []

    def work(item: Item) -> str:
        asked.append(item)
        if len(asked) == 1:
            raise busy("a.example", 0.4)
        return "ok"

    with pool(work, threads=1, per_host=1) as downloads:
        items = [("a.example", 1), ("a.example", 2), ("b.example", 3)]
        futures = [downloads.submit(item, item[0]) for item in items]
        assert [downloads.result(future) for future in futures] == ["ok"] * 3
    assert asked == [("a.example", 1), ("b.example", 3), ("a.example", 1), ("a.example", 2)]


def test_a_busy_host_behind_a_redirect() -> None:
    """What waits is the item and the host that was busy, not the host that led there."""
    asked: list[Item] = []

    def work(item: Item) -> str:
        asked.append(item)
        if len(asked) == 1:
            raise busy("images.example", 0.4)
        return "ok"

    with pool(work, threads=1) as downloads:
        items = [("a.example", 1), ("images.example", 2), ("a.example", 3)]
        futures = [downloads.submit(item, item[0]) for item in items]
        assert [downloads.result(future) for future in futures] == ["ok"] * 3
    assert asked == [("a.example", 1), ("a.example", 3), ("a.example", 1), ("images.example", 2)]


def test_a_host_that_stays_busy_is_given_up() -> None:
    asked: list[int] = []

    def work(item: int) -> str:
        asked.append(item)
        raise busy("a.example", 0.05)

    with pool(work) as downloads:
        assert refusal(downloads.submit(1, "a.example")) == "http_429: Too Many Requests"
    assert asked == [1] * TRIES


def test_a_host_that_asks_for_too_much_time() -> None:
    asked: list[Item] = []

    def work(item: Item) -> str:
        asked.append(item)
        if item[0] == "a.example":
            raise busy("a.example", 3600)
        return "ok"

    with pool(work, threads=1) as downloads:
        futures = [downloads.submit((host, 1), host) for host in ("a.example", "a.example", "b.example")]
        assert refusal(futures[0]) == "host_busy: a.example asks to be left alone for 3600 seconds"
        assert refusal(futures[1]).startswith("host_busy: a.example asks to be left alone for 3")
        assert downloads.result(futures[2]) == "ok"
    assert asked == [("a.example", 1), ("b.example", 1)]


def test_a_stop_ends_the_waiting_for_results() -> None:
    stop, go_on = threading.Event(), threading.Event()
    asked: list[int] = []

    def work(item: int) -> bool:
        asked.append(item)
        stop.set()
        return go_on.wait(20)

    with pool(work, threads=1, stop=stop) as downloads:
        futures = [downloads.submit(item, "a.example") for item in (1, 2)]
        for future in futures:
            with pytest.raises(Interrupted, match=r"^interrupted in the middle of a download$"):
                downloads.result(future)
        go_on.set()
        assert futures[0].result(20) is True
    assert asked == [1]  # the second was not begun


def test_a_worker_that_cannot_be_made() -> None:
    def make() -> Callable[[int], int]:
        raise OSError("no certificates")

    downloads = DownloadPool(make, threads=1, per_host=1, stop=threading.Event())
    with pytest.raises(OSError, match=r"^no certificates$"), downloads:
        pass
