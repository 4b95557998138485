"""Chooses the model of a run: the user's, or the first of the stage's defaults that is not shut down."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Sequence

from pokefa.errors import InputError
from pokefa.llm.models import facts_of

WARN_DAYS = 60

# Returns the shutdown date of a model, None if the server names none. Raises LookupError if the server does not say.
ShutdownOf = Callable[[str], datetime.date | None]

log = logging.getLogger("pokefa")


def today() -> datetime.date:
    return datetime.date.fromtimestamp(time.time())


def never(model: str) -> datetime.date | None:
    """Return None: a model of a server other than OpenAI's has no known shutdown date, whatever its name."""
    return None


def table_shutdown(model: str) -> datetime.date | None:
    """Return the shutdown date of a model from our table."""
    facts = facts_of(model)
    return facts.shutdown if facts else None


def first_alive(models: Sequence[str], day: datetime.date, shutdown_of: ShutdownOf = table_shutdown) -> str:
    """Return the first model that is available on that day, or the last model if none is."""
    return next((model for model in models if is_alive(shutdown_of(model), day)), models[-1])


def is_alive(shutdown: datetime.date | None, day: datetime.date) -> bool:
    return shutdown is None or day < shutdown


def check_alive(model: str, day: datetime.date, shutdown_of: ShutdownOf = table_shutdown) -> None:
    """Check that a model is not shut down.

    Raises:
        InputError: it is.
    """
    shutdown = shutdown_of(model)
    if not is_alive(shutdown, day):
        facts = facts_of(model)
        instead = f": use --model {facts.successor}" if facts and facts.successor else ": name another with --model"
        raise InputError(f"OpenAI has shut {model} down on {shutdown}{instead}")


def choose_model(model: str, defaults: Sequence[str], day: datetime.date, shutdown_of: ShutdownOf) -> str:
    """Return the model of a run, and log which one it is and why.

    Args:
        model: the user's, or the one from the table.
        defaults: empty if the user named the model.

    Raises:
        InputError: the user's model is shut down.
    """
    known: dict[str, datetime.date | None] = {}

    def noted(name: str) -> datetime.date | None:
        return known.setdefault(name, shutdown_of(name))

    if defaults:
        model = first_alive(defaults, day, noted)
        gone = [f"{name} is shut down since {known[name]}" for name in defaults[: defaults.index(model)]]
        log.info("model %s: %s", model, "; ".join(gone) or "the default of this stage")
    else:
        check_alive(model, day, noted)
        log.info("model %s: named by --model", model)
    shutdown = known[model]
    if shutdown is not None and (shutdown - day).days <= WARN_DAYS:
        facts = facts_of(model)
        successor = f"; its successor is {facts.successor}" if facts and facts.successor else ""
        log.warning("OpenAI shuts %s down on %s, in %d days%s", model, shutdown, (shutdown - day).days, successor)
    return model


def say_server_first(told_by_server: ShutdownOf) -> ShutdownOf:
    """Return a function that asks the server first, and the table if the server does not say."""

    def shutdown_of(model: str) -> datetime.date | None:
        try:
            return told_by_server(model)
        except LookupError:
            return table_shutdown(model)

    return shutdown_of
