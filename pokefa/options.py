"""The command-line options that every script shares, and the parent parsers that offer them."""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pokefa.errors import InputError


@dataclass(frozen=True)
class Options:
    """What a user asked of the run itself, apart from the stage's own settings."""

    root: Path = Path()
    limit: int | None = None
    ids: tuple[str, ...] | None = None
    redo: bool = False
    retry_errors: bool = False
    dry_run: bool = False
    workers: int | None = None
    strict: bool = False
    quiet: bool = False
    log_level: str = "INFO"


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, [], ()):
            return action.help  # "(default: None)" tells nobody anything
        return super()._get_help_string(action)


def stage_parser(doc: str | None, *, rows: bool = True, workers: bool = False) -> argparse.ArgumentParser:
    """Return a parser with the shared options; `doc`, the script's docstring, is the text of --help.

    Args:
        rows: offer the choice of rows (--ids, --limit, --redo, --retry-errors).
        workers: offer --workers.
    """
    parser = argparse.ArgumentParser(description=inspect.cleandoc(doc or ""), formatter_class=_Formatter)
    shared = parser.add_argument_group("options that every script shares")
    shared.add_argument("--root", type=Path, default=Path(), help="folder of the dataset")
    if rows:
        shared.add_argument("--ids", nargs="+", metavar="ID", help="only these images; the beginning of an id will do")
        shared.add_argument("--ids-file", type=Path, metavar="FILE", help="only the images named in FILE, one a line")
        shared.add_argument("--limit", type=positive_int, metavar="N", help="at most N images")
        shared.add_argument("--redo", action="store_true", help="also images that are done; overrides stay")
        shared.add_argument("--retry-errors", action="store_true", help="also images that failed before")
    shared.add_argument("--dry-run", action="store_true", help="show what would be done and change nothing")
    if workers:
        shared.add_argument("--workers", type=positive_int, metavar="N", help="how many at once (default: all cores)")
    shared.add_argument("--strict", action="store_true", help="exit 1 when an image failed")
    shared.add_argument("--quiet", action="store_true", help="no progress bar, and warnings only")
    shared.add_argument(
        "--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], default="INFO", help="what is logged to stderr"
    )
    return parser


def options_from(args: argparse.Namespace) -> Options:
    """Unpack the shared options of a parsed command line.

    Raises:
        InputError: --ids-file cannot be read.
    """
    given = vars(args)
    return Options(
        root=args.root,
        limit=given.get("limit"),
        ids=read_ids(given.get("ids"), given.get("ids_file")),
        redo=given.get("redo", False),
        retry_errors=given.get("retry_errors", False),
        dry_run=args.dry_run,
        workers=given.get("workers"),
        strict=args.strict,
        quiet=args.quiet,
        log_level=args.log_level,
    )


def read_ids(ids: list[str] | None, ids_file: Path | None) -> tuple[str, ...] | None:
    """Return the ids named on the command line and in a file, without repeats; None when neither was given.

    Raises:
        InputError: the file cannot be read.
    """
    if ids is None and ids_file is None:
        return None
    named = list(ids or [])
    if ids_file is not None:
        try:
            named += ids_file.read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--ids-file {ids_file} cannot be read: {error}") from None
    return tuple(dict.fromkeys(named))


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range, both ends included, for argparse."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) < low or (high is not None and int(text) > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {_span(low, high)}")
        return int(text)

    return parse


def number(low: float, high: float | None = None) -> Callable[[str], float]:
    """Return a parser of numbers in a range, both ends included, for argparse."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= low and (high is None or value <= high)):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {_span(low, high)}")
        return value

    return parse


def _span(low: float, high: float | None) -> str:
    return f"of {low:g} or more" if high is None else f"from {low:g} to {high:g}"


positive_int = whole_number(1)
