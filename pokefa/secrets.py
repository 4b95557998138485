"""Keeping API keys and passwords out of logs, journals and stored files."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pokefa.console import printable
from pokefa.errors import InputError

SECRET_VARIABLES = ("SERPAPI_API_KEY", "OPENAI_API_KEY")
ADDRESS_VARIABLES = ("SERPAPI_BASE_URL", "OPENAI_BASE_URL")  # may hold a name and a password

# Services issue no shorter keys, and a shorter value could occur in ordinary text by chance.
_SHORTEST_SECRET = 8


def redact(text: str) -> str:
    """Return `text` with every secret replaced, also where it is escaped or encoded."""
    pattern = _pattern(
        tuple(os.environ.get(variable, "") for variable in SECRET_VARIABLES),
        tuple(os.environ.get(variable, "") for variable in ADDRESS_VARIABLES),
    )
    return pattern.sub("[redacted]", text) if pattern else text


@lru_cache(maxsize=4)
def _pattern(keys: tuple[str, ...], addresses: tuple[str, ...]) -> re.Pattern[str] | None:
    """Return what matches every form of every secret, the longest first."""
    secrets = {key.strip() for key in keys}
    for address in addresses:
        secrets |= set(_passwords(address.strip()))
    forms = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in _forms(secret)}
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None


def _passwords(address: str) -> Iterator[str]:
    """Yield the password of an address, and name and password as they are sent, encoded and not."""
    try:
        parts = urlsplit(address)
        user, password = parts.username or "", parts.password or ""
    except ValueError:
        return
    for name, word in ((user, password), (unquote(user), unquote(password))):
        if word or name:  # a token can stand in the place of the name
            yield from (word or name, f"{name}:{word}")


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as JSON, Python, addresses and headers write it."""
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]):
        yield from (form, json.dumps(form)[1:-1])  # JSON inside a string of JSON
    data = secret.encode("utf-8", "surrogateescape")
    for encoded in (quote(data), quote(data, safe=""), quote_plus(data)):
        yield from (encoded, re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), encoded))
    for token in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        yield token.decode("ascii").rstrip("=")


def secret_from_environment(variable: str) -> str:
    """Return a secret, without the blanks and line ends that a copied line brings along.

    Raises:
        InputError: the variable is not set.
    """
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise InputError(f"{variable} is not set: export {variable}=your-key and run again")
    return secret


class RedactingFormatter(logging.Formatter):
    """A log formatter that redacts secrets and escapes control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(redact(super().format(record)))
