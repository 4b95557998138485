"""One normal form for addresses, whether a site writes them, a browser shows them or a person types them.

The form leaves out what does not change the page: the scheme, a `www.`, a fragment, a trailing slash. Hosts are decoded
from `xn--…`, and paths from `%…`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus, urlsplit


@dataclass(frozen=True)
class Address:
    """An address in normal form; the host of a file in a folder is empty.

    Args:
        port: None for the default of http or https.
        path: its parts; one that contained %2F is one part.
    """

    host: str
    port: int | None = None
    path: tuple[str, ...] = ()
    query: tuple[str, ...] = ()

    @property
    def is_host(self) -> bool:
        return bool(self.host) and not (self.path or self.query)

    def is_under(self, page: Address) -> bool:
        """Tell whether this is a page or below it: /someone/art/1 is under /someone, /someone-else is not."""
        if (self.host, self.port) != (page.host, page.port):
            return False
        return self == page or (bool(page.host) and not page.query and self.path[: len(page.path)] == page.path)


def read_address(text: str | None) -> Address | None:
    """Return the normal form of an address, or None if it is not an address."""
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
    """Return the normal form of an address that a person typed, perhaps without https://, as browsers show it."""
    text = text.strip()
    return read_address(text if re.match(r"file:|([a-z][a-z0-9+.-]*:)?//", text, re.IGNORECASE) else f"//{text}")


def plain_host(host: str) -> str:
    """Return a host in lower case, without `www.`, and with `xn--…` decoded.

    >>> plain_host("WWW.xn--pokmon-dva.Example.")
    'pokémon.example'
    """
    labels = _mapped(_letters(host)).strip(".").split(".")
    if labels[0] == "www" and len(labels) > 2:  # www.com is a host of its own
        labels = labels[1:]
    return ".".join(map(_decoded, labels))


def _mapped(host: str) -> str:
    """Return a host mapped by UTS 46: lower case, normalized, with full stops of other scripts as dots."""
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
    """Return a text normalized to composed characters: é may be typed as one code point or two."""
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Addresses:
    """A set of addresses that matches any spelling of its members."""

    plain: frozenset[Address]

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> Addresses:
        return cls(frozenset(address for address in map(read_address, texts) if address is not None))

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and read_address(text) in self.plain
