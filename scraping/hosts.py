"""Which hosts may be asked for images, by how many at once, and when they are left alone."""

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
FIRST_REST_S = 2.0  # where a host does not say for how long; doubled with each try
MOST_REST_S = 60.0

# Letters, digits and hyphens, in parts of at most 63; a name in other scripts is compared in its ASCII form.
DOMAIN = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


def read_domains(path: Path) -> frozenset[str]:
    """Return the domains of a list, one a line, in lower-case ASCII; what follows a # is a comment.

    Raises:
        InputError: the file cannot be read, or a line is no domain.
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
            raise InputError(f"{path} line {number}: {text!r} is no domain: write one a line, such as example.org")
        found.add(domain)
    return frozenset(found)


def ascii_host(host: str) -> str:
    """Return a host's name as DNS and HTTP have it: "☃.net" is `xn--n3h.net`, by UTS 46 as browsers read it.

    Raises:
        UnicodeError: it holds a character that no host may have, or a part of it is too long.
    """
    import idna  # here, because --help must do without it

    labels = idna.uts46_remap(host, std3_rules=False).split(".")
    encoded = [label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}" for label in labels]
    name = ".".join(encoded)
    if not host.isascii() and not DOMAIN.fullmatch(name.rstrip(".")):
        raise UnicodeError(f"{host!r} is no name of a host")
    return name


def plain_domain(host: str) -> str:
    """Return a host's name in lower-case ASCII, without a dot at its end."""
    try:
        return ascii_host(host).rstrip(".")
    except UnicodeError:
        return host.rstrip(".").lower()


def check_domain(host: str | None, excluded: frozenset[str]) -> None:
    """Check that a host belongs to no excluded domain; a domain covers its sub-domains.

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
    """A host that is asked or rests: its turns, who waits for one or has it, and until when it is to be left alone."""

    turns: asyncio.Semaphore
    users: int = 0
    rests_until: float = 0.0  # on the monotonic clock


class Hosts:
    """Turns at hosts: at most `per_host` at once for each name, and `most` for all; not for several event loops.

    A host that answers 429 or 503 rests for as long as it asks. Where it asks for more time than a run should wait,
    its files are refused as `host_busy`, and --retry-errors tries them another day.
    """

    def __init__(self, per_host: int = PER_HOST, most: int = CONCURRENCY, *, most_rest: float = MOST_REST_S) -> None:
        self._per_host = per_host
        self._most_rest = most_rest
        self._turns = asyncio.Semaphore(most)
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn at a host that does not rest, and hold it while the block lasts.

        Raises:
            Refused: the host rests for too long.
        """
        name = plain_domain(name)
        host = self._host(name)
        host.users += 1
        try:
            while True:
                async with host.turns:
                    rest = host.rests_until - time.monotonic()
                    if rest <= 0:
                        async with self._turns:  # not before its host's: whoever waits for a host keeps nobody waiting
                            yield
                        return
                if rest > self._most_rest:
                    raise too_busy(name, rest)
                await asyncio.sleep(rest)
        finally:
            host.users -= 1
            if not host.users and host.rests_until <= time.monotonic():
                del self._hosts[name]  # a run meets thousands of hosts

    async def rest(self, busy: Busy, tries: int, *, is_last: bool) -> None:
        """Leave a busy host alone for a while, and return when it may be asked again.

        Args:
            tries: how often it was asked for the same file.
            is_last: it is not asked again.

        Raises:
            Refused: it asks for too long a rest, or was asked for the last time.
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
    return Refused("host_busy", f"{host} asks to be left alone for {seconds:.0f} seconds")
