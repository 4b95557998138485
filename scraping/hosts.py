"""Which hosts may be asked for images, and by how many at once."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pokefa.errors import InputError, Interrupted
from scraping.utils import Refused

PER_HOST = 4
LOOK_S = 0.2  # a thread that waits for its turn looks at the stop sign this often

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


class HostSlots:
    """Turns at hosts: at most `most` at once for each name, over all threads that share this."""

    def __init__(self, most: int = PER_HOST) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, host: str, stop: threading.Event) -> Iterator[None]:
        """Wait for a turn at a host and hold it while the block lasts.

        Raises:
            Interrupted: the run is to stop, and the turn has not come.
        """
        name = plain_domain(host)
        with self._changed:
            while self._taken[name] >= self._most:
                if stop.is_set():
                    raise Interrupted("interrupted while waiting for a host")
                self._changed.wait(LOOK_S)
            self._taken[name] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[name] -= 1
                if not self._taken[name]:
                    del self._taken[name]  # a run meets thousands of hosts
                self._changed.notify_all()
