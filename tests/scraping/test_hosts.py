"""Turns at hosts, and hosts that ask for patience."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from scraping.hosts import Hosts
from scraping.utils import Busy, Refused

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a test's coroutine; one that waits for ever fails."""

    async def in_time() -> Result:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(in_time())


def busy(host: str, after: float | None) -> Busy:
    return Busy("http_429", "Too Many Requests", host, after)


async def settle() -> None:
    """Let every task go on until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


class Visitors:
    """Tasks that take turns and hold them until they are let go."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.here: Counter[str] = Counter()
        self.go = asyncio.Event()

    async def visit(self, host: str) -> None:
        async with self.hosts.turn(host):
            self.here[host] += 1
            await self.go.wait()
            self.here[host] -= 1


def test_a_host_has_so_many_at_once_and_holds_up_no_other() -> None:
    async def work() -> None:
        visitors = Visitors(Hosts(2))
        tasks = [asyncio.create_task(visitors.visit(host)) for host in ["slow.example"] * 8 + ["quick.example"]]
        await settle()
        assert visitors.here == {"slow.example": 2, "quick.example": 1}
        visitors.go.set()
        await asyncio.gather(*tasks)

    run(work())


def test_all_hosts_together_have_so_many_at_once() -> None:
    """Those who wait for a host take no place from the others."""

    async def work() -> None:
        visitors = Visitors(Hosts(1, 3))
        names = ["a.example"] * 5 + ["b.example", "c.example", "d.example"]
        tasks = [asyncio.create_task(visitors.visit(host)) for host in names]
        await settle()
        assert visitors.here == {"a.example": 1, "b.example": 1, "c.example": 1}
        visitors.go.set()
        await asyncio.gather(*tasks)

    run(work())


def test_names_of_one_host() -> None:
    """Case, a dot at the end and other letters make no other host."""

    async def work() -> None:
        visitors = Visitors(Hosts(1))
        names = ["pokémon.example", "POKÉMON.Example.", "xn--pokmon-dva.example"]
        tasks = [asyncio.create_task(visitors.visit(host)) for host in names]
        await settle()
        assert visitors.here.total() == 1
        visitors.go.set()
        await asyncio.gather(*tasks)

    run(work())


def test_a_cancelled_visitor_gives_its_turn_back() -> None:
    async def work() -> None:
        visitors = Visitors(Hosts(1))
        tasks = [asyncio.create_task(visitors.visit("a.example")) for _ in range(3)]
        await settle()
        tasks[0].cancel()
        tasks[1].cancel()
        await settle()
        assert visitors.here["a.example"] == 2  # the first was cancelled before it counted itself out
        visitors.go.set()
        await tasks[2]

    run(work())


def test_hosts_are_forgotten() -> None:
    async def work() -> None:
        hosts = Hosts()
        for number in range(100):
            async with hosts.turn(f"{number}.example"):
                assert len(hosts._hosts) == 1
        assert hosts._hosts == {}

    run(work())


def test_a_busy_host_rests_and_the_others_do_not() -> None:
    """Whoever asks the host meanwhile waits too, and only then is it asked again."""

    async def work() -> None:
        hosts, asked = Hosts(1), list[str]()

        async def ask(name: str) -> None:
            async with hosts.turn(name.partition("/")[2]):
                asked.append(name)

        rest = asyncio.create_task(hosts.rest(busy("a.example", 0.5), 1, is_last=False))
        await settle()
        others = [asyncio.create_task(ask(name)) for name in ("1/a.example", "2/A.example", "3/b.example")]
        await settle()
        assert asked == ["3/b.example"]
        await rest
        await asyncio.gather(*others)
        assert sorted(asked[1:]) == ["1/a.example", "2/A.example"]

    run(work())


def test_a_rest_that_is_too_long_ends_the_waiting_of_all() -> None:
    async def work() -> None:
        hosts = Hosts()

        async def ask() -> None:
            async with hosts.turn("a.example"):
                raise AssertionError("it was not left alone")

        for attempt in (hosts.rest(busy("a.example", 3600), 1, is_last=False), ask(), ask()):
            with pytest.raises(Refused, match=r"^host_busy: a\.example asks for a pause of \d+ seconds$"):
                await attempt

    run(work())


def test_the_last_try_ends_with_what_the_host_said() -> None:
    async def work() -> None:
        with pytest.raises(Refused, match=r"^http_429: Too Many Requests$"):
            await Hosts().rest(busy("a.example", 0.0), 3, is_last=True)

    run(work())


def test_a_host_that_does_not_say_for_how_long_rests_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def work() -> None:
        hosts = Hosts()
        monkeypatch.setattr("scraping.hosts.asyncio.sleep", sleep)
        for tries in (1, 2):
            await hosts.rest(busy("a.example", None), tries, is_last=False)
        monkeypatch.undo()

    run(work())
    assert 2 <= slept[0] <= 3 and 4 <= slept[1] <= 6
