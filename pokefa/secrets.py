"""Keeping API keys out of logs, journals and stored files."""

from __future__ import annotations

import logging
import os

from pokefa.console import printable
from pokefa.errors import InputError

SECRET_VARIABLES = ("SERPAPI_API_KEY", "OPENAI_API_KEY")

# Services issue no shorter keys, and a shorter value could occur in ordinary text by chance.
_SHORTEST_SECRET = 8


def redact(text: str) -> str:
    """Return `text` with the value of every secret replaced."""
    for variable in SECRET_VARIABLES:
        secret = os.environ.get(variable, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "[redacted]")
    return text


def secret_from_environment(variable: str) -> str:
    """Return the secret in an environment variable.

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
