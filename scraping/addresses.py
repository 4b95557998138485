"""Untrusted URLs: how they are stored, and the form in which they are requested."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote, urlsplit

from pokefa.text import clean_text
from scraping.hosts import ascii_host
from scraping.utils import Candidate, Refused, host_of

LONGEST = 8192  # longest URL that is requested, in characters; servers accept about this many (RFC 9110, section 4.1)
SHOWN = 120  # characters stored of a longer one

# C1 controls and direction marks can spoof the display in a terminal or a spreadsheet. C0 controls are refused.
_SPOOFING = re.compile("[\x80-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SAFE = "!#$%&'()*+,/:;=?@[]~"  # in addition to letters and digits: RFC 3986, and the percent sign
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def candidate_of(
    url: str, query: str, *, page: object = None, title: object = None, image_id: str | None = None
) -> Candidate:
    """Return the candidate of a URL; one over LONGEST characters is refused, and stored in short form."""
    url = _SPOOFING.sub(lambda mark: quote(mark.group()), url)
    refused = None
    if len(url) > LONGEST:
        try:
            web_address(url)
        except Refused as refusal:
            refused = refusal
        except ValueError as error:
            refused = Refused("invalid_url", str(error)[:200])
    shown_on = None if (text := clean_text(page)) is None else stored_address(text)
    domain = host_of(shown_on) or host_of(url)
    return Candidate(stored_address(url), query, shown_on, domain, clean_text(title), image_id, refused=refused)


def stored_address(url: str) -> str:
    """Return a URL as it is stored: a long one as its beginning, its length and its SHA-256.

    The same URL has the same form in every run, and is recognised by it.
    """
    if len(url) <= LONGEST:
        return url
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{url[:SHOWN]}…({len(url)} characters, SHA-256 {digest})"


def web_address(url: str) -> str:
    """Return a URL with its host in lower-case ASCII, after all checks that need no name resolution.

    Raises:
        Refused: `blocked_scheme` or `invalid_url`.
        ValueError: it is malformed in another way.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise Refused("blocked_scheme", f"{parts.scheme[:20] or 'no scheme'} is not http or https")
    if len(url) > LONGEST:
        raise Refused("invalid_url", f"{len(url)} characters are over {LONGEST}")
    if not parts.hostname or parts.username is not None or _FORBIDDEN.search(url):
        raise Refused("invalid_url", "it has no host, or contains a user name or a control character")
    if parts.netloc.isascii():
        plain = parts.netloc.lower()
    else:
        plain = ascii_host(parts.hostname) + ("" if parts.port is None else f":{parts.port}")
    return url if plain == parts.netloc else parts._replace(netloc=plain).geturl()


def quote_address(url: str) -> str:
    """Return a URL as it is sent: forbidden characters are escaped, and existing escapes are kept."""
    return _STRAY_PERCENT.sub("%25", quote(url, safe=_SAFE))


def redirected_to(location: bytes) -> str:
    """Return the text of a Location header.

    Most servers send non-ASCII bytes as UTF-8. Others are returned to the server byte for byte.
    """
    try:
        return location.decode("utf-8")
    except UnicodeDecodeError:
        return quote(location, safe=_SAFE)
