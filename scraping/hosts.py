"""Which hosts may be contacted, with how many connections, and when they need a pause."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pokefa.errors import InputError
from scraping.utils import Busy, Refused

PER_HOST = 4
CONCURRENCY = 64
FIRST_REST_S = 2.0  # if a host does not say for how long; doubled with each try
MOST_REST_S = 60.0

# Letters, digits and hyphens, in parts of at most 63; a name in other scripts is compared in its ASCII form.
DOMAIN = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


def read_domains(path: Path) -> frozenset[str]:
    """Return the domains in a file, one per line, in lower-case ASCII; # starts a comment.

    Raises:
        InputError: the file cannot be read, or a line is not a domain.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"--exclude-domains {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"--exclude-domains {path} is not UTF-8: save it as plain text in UTF-8") from None
    found: set[str] = set()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        domain = plain_domain(text)
        if not DOMAIN.fullmatch(domain):
            raise InputError(f"{path} line {number}: {text!r} is not a domain: write one per line, such as example.org")
        found.add(domain)
    return frozenset(found)


def ascii_host(host: str) -> str:
    """Return a host name as DNS and HTTP use it: "☃.net" is `xn--n3h.net`, by UTS 46 like browsers.

    Raises:
        UnicodeError: it contains a forbidden character, or a label is too long.
    """
    import idna  # not needed for --help

    labels = idna.uts46_remap(host, std3_rules=False).split(".")
    encoded = [label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}" for label in labels]
    name = ".".join(encoded)
    if not host.isascii() and not DOMAIN.fullmatch(name.rstrip(".")):
        raise UnicodeError(f"{host!r} is not a host name")
    return name


def plain_domain(host: str) -> str:
    """Return a host name in lower-case ASCII, without a trailing dot."""
    try:
        return ascii_host(host).rstrip(".")
    except UnicodeError:
        return host.rstrip(".").lower()


def check_domain(host: str | None, excluded: frozenset[str]) -> None:
    """Check that a host is not in an excluded domain; a domain includes its sub-domains.

    Raises:
        Refused: it does.
    """
    if not host or not excluded:
        return
    parts = plain_domain(host).split(".")
    for start in range(len(parts)):
        domain = ".".join(parts[start:])
        if domain in excluded:
            raise Refused("excluded_domain", f"{host}: --exclude-domains names {domain}")


@dataclass
class _Host:
    """The state of a host: its turns, the number of tasks that have or want one, and the end of its pause."""

    turns: asyncio.Semaphore
    users: int = 0
    rests_until: float = 0.0  # on the monotonic clock


class Hosts:
    """Connection limits: at most `per_host` for each host, and `most` in total. Use with one event loop only.

    A host that answers 429 or 503 gets the pause that it asks for. If the pause is too long for a run, its files are
    refused as `host_busy`, and --retry-errors tries them later.
    """

    def __init__(self, per_host: int = PER_HOST, most: int = CONCURRENCY, *, most_rest: float = MOST_REST_S) -> None:
        self._per_host = per_host
        self._most_rest = most_rest
        self._turns = asyncio.Semaphore(most)
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn at a host, and hold it for the duration of the block.

        Raises:
            Refused: the host's pause is too long.
        """
        name = plain_domain(name)
        host = self._host(name)
        host.users += 1
        try:
            while True:
                async with host.turns:
                    rest = host.rests_until - time.monotonic()
                    if rest <= 0:
                        async with self._turns:  # after the host's turn, so that waiting for a host blocks no other
                            yield
                        return
                if rest > self._most_rest:
                    raise too_busy(name, rest)
                await asyncio.sleep(rest)
        finally:
            host.users -= 1
            if not host.users and host.rests_until <= time.monotonic():
                del self._hosts[name]  # a run contacts thousands of hosts

    async def rest(self, busy: Busy, tries: int, *, is_last: bool) -> None:
        """Pause requests to a busy host, and return when it may be contacted again.

        Args:
            tries: number of attempts for the same file.
            is_last: there are no more attempts.

        Raises:
            Refused: the requested pause is too long, or this was the last attempt.
        """
        name = plain_domain(busy.host)
        backoff = FIRST_REST_S * 2 ** (tries - 1) * random.uniform(1.0, 1.5)
        seconds = backoff if busy.after is None else busy.after
        host = self._host(name)
        host.rests_until = max(host.rests_until, time.monotonic() + seconds)
        if seconds > self._most_rest:
            raise too_busy(name, seconds)
        if is_last:
            raise busy
        await asyncio.sleep(seconds)

    def _host(self, name: str) -> _Host:
        return self._hosts.setdefault(name, _Host(asyncio.Semaphore(self._per_host)))


def too_busy(host: str, seconds: float) -> Refused:
    return Refused("host_busy", f"{host} asks for a pause of {seconds:.0f} seconds")
