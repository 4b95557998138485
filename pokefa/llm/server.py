"""The server: its address and key from the environment, and the openai package that talks to it."""

from __future__ import annotations

import importlib
import os
from typing import Any
from urllib.parse import urlsplit

from pokefa.errors import InputError, PokefaError
from pokefa.llm.prompt import NO_PACKAGE
from pokefa.outside import OPENAI_ADDRESS
from pokefa.secrets import secret_from_environment

KEY_VARIABLE = "OPENAI_API_KEY"
ADDRESS_VARIABLE = "OPENAI_BASE_URL"


def load_openai() -> Any:
    """Return the openai package.

    Raises:
        PokefaError: it is not installed.
    """
    try:
        return importlib.import_module("openai")
    except ImportError:
        raise PokefaError(NO_PACKAGE) from None


def server_address() -> str:
    """Return the server's address: OpenAI's unless the environment names another."""
    return os.environ.get(ADDRESS_VARIABLE, "").strip() or OPENAI_ADDRESS


def is_openai(host: str) -> bool:
    """Tell whether a host belongs to OpenAI."""
    name = host.partition(":")[0]
    return name == "openai.com" or name.endswith(".openai.com")


def host_of(address: str) -> str:
    """Return host and port of a server's address, without a name and password.

    Raises:
        InputError: the address is not http or https.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https"):
        raise InputError(f"{ADDRESS_VARIABLE} is not an address that starts with http:// or https://: correct it")
    return f"{host}:{port}" if port else host


def api_key() -> str:
    """Return the API key after checking that it is valid in a header: errors about headers would quote it."""
    key = secret_from_environment(KEY_VARIABLE)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(f"{KEY_VARIABLE} holds characters that no key has: set it again")
    return key
