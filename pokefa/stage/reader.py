"""What the reading commands of metadata/ do alike: the parser, the ledger, one-line errors, the JSON line at the end.

They change nothing in the ledger, so they need no run of their own; the exit codes and the last line of stdout are
those of every other script.
"""

from __future__ import annotations

import argparse
import inspect
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.console import prepare_console, print_json
from pokefa.errors import EXIT_DONE, EXIT_INTERRUPTED, PokefaError
from pokefa.ledger.tables import Ledger
from pokefa.machine import check_address_space, check_path
from pokefa.stage.locks import holding
from pokefa.stage.runner import report_error


@dataclass
class Reading:
    """One reading of a dataset: its ledger, the counts of the summary, and the exit code."""

    stage: str
    root: Path
    ledger: Ledger
    seen: int = 0
    done: int = 0
    errors: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    code: int = EXIT_DONE

    def summary(self, seconds: float) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "run_id": None,
            "seen": self.seen,
            "done": self.done,
            "errors": self.errors,
            **self.extra,
            "seconds": round(seconds, 3),
        }


def reading_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with --root; `doc`, the script's docstring, is the text of --help."""
    parser = argparse.ArgumentParser(
        description=inspect.cleandoc(doc or ""), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the dataset (default: .)")
    return parser


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON line, with all the details")


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
        alone: the body writes files, of pictures even, so another run of it and a takedown are kept away.
    """
    started = time.monotonic()
    prepare_console()
    try:
        check_address_space()
        check_path("--root", root)
        reading = Reading(stage, root, open_ledger(root))
        with holding(root, stage) if alone and reading.ledger.is_writable() else nullcontext():
            body(reading)
    except PokefaError as error:
        return report_error(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (Exception, pl.exceptions.PanicException) as error:
        return report_error(error)
    print_json(reading.summary(time.monotonic() - started))
    return reading.code
