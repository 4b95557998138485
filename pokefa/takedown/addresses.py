"""Addresses in one form, however they were typed: as a site writes them, as a browser shows them, as people say them.

The form leaves out what makes no other page: the scheme, a `www.`, a fragment, a slash at the end. It holds a host's
own letters in place of `xn--…`, and a path's in place of `%…`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus, urlsplit


@dataclass(frozen=True)
class Address:
    """An address in its one form; the host of a file in a folder is empty.

    Args:
        port: None for that of http or https.
        path: its parts; one that held %2F is one part.
    """

    host: str
    port: int | None = None
    path: tuple[str, ...] = ()
    query: tuple[str, ...] = ()

    @property
    def is_host(self) -> bool:
        return bool(self.host) and not (self.path or self.query)

    def is_under(self, page: Address) -> bool:
        """Tell whether this is a page or lies under it: /someone/art/1 is under /someone, /someone-else is not."""
        if (self.host, self.port) != (page.host, page.port):
            return False
        return self == page or (bool(page.host) and not page.query and self.path[: len(page.path)] == page.path)


def read_address(text: str | None) -> Address | None:
    """Return the one form of an address, None for what is no address."""
    try:
        parts = urlsplit((text or "").strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not parts.scheme and host is None:
        return None
    path = tuple(_letters(unquote(part, errors="surrogateescape")) for part in parts.path.rstrip("/").split("/"))
    query = tuple(_letters(unquote_plus(part, errors="surrogateescape")) for part in parts.query.split("&"))
    return Address(
        plain_host(host or ""),
        None if port in (80, 443) else port,
        path if path != ("",) else (),
        query if query != ("",) else (),
    )


def read_typed(text: str) -> Address | None:
    """Return the one form of an address that a person typed, perhaps without https:// as browsers show it."""
    text = text.strip()
    return read_address(text if re.match(r"file:|([a-z][a-z0-9+.-]*:)?//", text, re.IGNORECASE) else f"//{text}")


def plain_host(host: str) -> str:
    """Return a host without `www.`, in small letters, those of `xn--…` decoded.

    >>> plain_host("WWW.xn--pokmon-dva.Example.")
    'pokémon.example'
    """
    labels = _mapped(_letters(host)).strip(".").split(".")
    if labels[0] == "www" and len(labels) > 2:  # www.com is a host of its own
        labels = labels[1:]
    return ".".join(map(_decoded, labels))


def _mapped(host: str) -> str:
    """Return a host as UTS 46 maps it: small letters, one form of each, full stops of other scripts as dots."""
    if host.isascii():
        return host.lower()
    import idna

    try:
        return idna.uts46_remap(host, std3_rules=False)
    except idna.IDNAError:
        return host.lower()


def _decoded(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return _letters(label[4:].encode("ascii").decode("punycode"))
    except UnicodeError:
        return label


def _letters(text: str) -> str:
    """Return a text in which one letter is one code point: é is typed as one or as two."""
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Addresses:
    """A set of addresses, in which one is found by any of its forms."""

    plain: frozenset[Address]

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> Addresses:
        return cls(frozenset(address for address in map(read_address, texts) if address is not None))

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and read_address(text) in self.plain
