"""Running a script: errors become one line and an exit code, and stdout ends with a JSON line.

`run_reading` is for scripts that do not change the ledger; `pokefa.stage.runner` extends it for those that do.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.console import prepare_console, print_json, printable
from pokefa.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, PokefaError, one_line
from pokefa.ledger.tables import Ledger
from pokefa.machine import check_address_space, check_path
from pokefa.secrets import redact
from pokefa.stage.locks import holding

log = logging.getLogger("pokefa")


class Reading:
    """One run of a script on a dataset: its ledger, the counts of the summary, and the exit code."""

    run_id: str | None = None

    def __init__(self, stage: str, root: Path, ledger: Ledger) -> None:
        self.stage = stage
        self.root = root
        self.ledger = ledger
        self.seen = 0
        self.done = 0
        self.errors = 0
        self.extra: dict[str, Any] = {}
        self.code = EXIT_DONE
        self._started = time.monotonic()

    def summary(self, **more: Any) -> dict[str, Any]:
        """Return the JSON summary that ends the run's stdout, with `more` after the usual counts."""
        counts = {"seen": self.seen, "done": self.done, "errors": self.errors}
        seconds = round(time.monotonic() - self._started, 3)
        return {"stage": self.stage, "run_id": self.run_id, **counts, **more, **self.extra, "seconds": seconds}


def run_reading(
    stage: str,
    root: Path,
    body: Callable[[Reading], None],
    *,
    alone: bool = False,
    open_ledger: Callable[[Path], Ledger] = Ledger.open_to_read,
) -> int:
    """Open the ledger, run `body`, print the JSON summary, and return the process's exit code.

    Args:
        alone: the body writes files, so another run of it and a takedown are locked out.
    """

    def read() -> int:
        check_address_space()
        check_path("--root", root)
        reading = Reading(stage, root, open_ledger(root))
        with holding(root, stage) if alone and reading.ledger.is_writable() else nullcontext():
            body(reading)
        print_json(reading.summary())
        return reading.code

    return exit_code_of(read)


def exit_code_of(work: Callable[[], int]) -> int:
    """Return what `work` returns; an error becomes one line on stderr and its exit code."""
    prepare_console()
    try:
        return work()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (Exception, pl.exceptions.PanicException) as error:
        return report_error(error)


def report_error(error: BaseException) -> int:
    """Print an error as one line on stderr and return its exit code."""
    log.debug("traceback", exc_info=error)
    print(f"error: {printable(redact(' '.join(one_line(error).split())))}", file=sys.stderr)
    return error.exit_code if isinstance(error, PokefaError) else EXIT_FAILED
