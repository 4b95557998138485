"""The settings of scrape.py, and their flags."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pokefa.images.files import MAX_BYTES, MAX_PIXELS
from pokefa.images.phash import THRESHOLD
from pokefa.stage.options import StageParser, add_decoding_options, number, positive_int, whole_number
from scraping.hosts import CONCURRENCY, PER_HOST
from scraping.utils import DEADLINE_S, MAX_ASPECT, MIN_SIDE, Limits

QUERY = "{name} Pokemon fanart"
MAX_PAGES = 10
WORKERS = 16  # species at once

HIGHEST_TAKEDOWN_THRESHOLD = 24

# Flags passed to the search under the same names.
SEARCH_FLAGS = ("hl", "gl", "safe", "tbs")


@dataclass(frozen=True)
class Settings:
    """The settings of a run, without the shared options."""

    quotas: Path | None = None
    species: tuple[str, ...] = ()
    folder: Path | None = None
    labels: Path | None = None
    urls: Path | None = None
    keep_placeholders: tuple[str, ...] = ()
    queries: tuple[str, ...] = (QUERY,)
    search_parameters: Mapping[str, str] = field(default_factory=dict)
    max_searches: int | None = None
    max_pages: int = MAX_PAGES
    limits: Limits = field(default_factory=Limits)
    excluded: Path | None = None
    workers: int = WORKERS
    concurrency: int = CONCURRENCY
    per_host: int = PER_HOST
    allow_private: bool = False
    contact: str | None = None
    takedown_threshold: int = THRESHOLD

    @property
    def searches(self) -> bool:
        return self.folder is None and self.urls is None


def add_arguments(parser: StageParser) -> None:
    """Add the flags of scrape.py."""
    parser.for_one_run("keep_placeholder")
    what = parser.add_argument_group("what to get")
    what.add_argument("--quotas", type=Path, metavar="FILE", help="quotas (default: quotas/quotas.csv under --root)")
    what.add_argument("--species", nargs="+", default=[], metavar="NAME", help="only these species")
    what.add_argument("--limit", type=positive_int, metavar="N", help="at most N images, most popular species first")
    what.add_argument("--retry-errors", action="store_true", help="also URLs that were tried and not saved")
    what.add_argument("--workers", type=positive_int, default=WORKERS, metavar="N", help="parallel species")
    source = what.add_mutually_exclusive_group()
    source.add_argument("--from-folder", type=Path, metavar="DIR", help="import files; sub-folders name the species")
    source.add_argument(
        "--from-urls", type=Path, metavar="FILE", help="CSV or .parquet: source_url, species, optionally image_id"
    )
    source.add_argument(
        "--keep-placeholder",
        nargs="+",
        default=[],
        metavar="ID",
        help="restore these images, which were set aside as placeholders, and do nothing else",
    )
    what.add_argument("--labels", type=Path, metavar="FILE", help="CSV for --from-folder: file, species")
    search = parser.add_argument_group("search")
    search.add_argument(
        "--query",
        type=query_template,
        nargs="+",
        metavar="TEXT",
        help=f"search; {{name}} is the species (default: {QUERY})",
    )
    search.add_argument(
        "--max-searches", type=positive_int, metavar="N", help="pay for at most N searches, then exit with code 3"
    )
    search.add_argument("--max-pages", type=positive_int, default=MAX_PAGES, metavar="N", help="result pages per query")
    search.add_argument("--hl", type=language, metavar="LANGUAGE", help="language of the search, such as en or pt-br")
    search.add_argument("--gl", type=country, metavar="COUNTRY", help="country of the search, such as us or jp")
    search.add_argument("--safe", choices=["active", "off"], help="the search's filter for adult images")
    search.add_argument(
        "--tbs",
        type=search_filter,
        metavar="TEXT",
        help="Google's filters, such as itp:photo or isz:l",
    )
    download = parser.add_argument_group("download")
    download.add_argument("--min-side", type=positive_int, default=MIN_SIDE, metavar="PX", help="smallest side")
    download.add_argument(
        "--max-aspect",
        type=number(1),
        default=MAX_ASPECT,
        metavar="RATIO",
        help="longest side over shortest, at most",
    )
    download.add_argument("--max-bytes", type=positive_int, default=MAX_BYTES, metavar="N", help="largest file")
    download.add_argument("--max-pixels", type=positive_int, default=MAX_PIXELS, metavar="N", help="largest image")
    download.add_argument(
        "--deadline",
        type=positive_seconds,
        default=DEADLINE_S,
        metavar="S",
        help="seconds per file, with redirects",
    )
    download.add_argument(
        "--concurrency", type=positive_int, default=CONCURRENCY, metavar="N", help="parallel downloads in total"
    )
    download.add_argument(
        "--per-host", type=positive_int, default=PER_HOST, metavar="N", help="parallel connections to one host"
    )
    download.add_argument(
        "--check",
        choices=["full", "header"],
        default="full",
        help="decode every image completely, or read only its header, which is faster but misses damage",
    )
    download.add_argument("--contact", type=header_text, metavar="TEXT", help="contact for site owners, in User-Agent")
    download.add_argument("--ignore-opt-out", action="store_true", help="also take images marked noai or noindex")
    download.add_argument(
        "--exclude-domains", type=Path, metavar="FILE", help="take nothing from these domains, one per line"
    )
    download.add_argument(
        "--takedown-threshold",
        type=whole_number(0, HIGHEST_TAKEDOWN_THRESHOLD),
        default=THRESHOLD,
        metavar="BITS",
        help="refuse images whose hash is within BITS of that of an image that was taken down",
    )
    add_decoding_options(parser)
    download.add_argument("--allow-private", action="store_true", help="allow private networks and any port")


def query_template(text: str) -> str:
    """Parse a query with {name} in it, for argparse."""
    if "{name}" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} does not contain {{name}}, the place of the species' name")
    return text


def matching(pattern: str, wanted: str) -> Callable[[str], str]:
    """Return an argparse type for texts that match a pattern; `wanted` describes them."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return text

    return parse


language = matching(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?", "a language code, such as en or pt-br")
country = matching(r"[A-Za-z]{2}", "a two-letter country code, such as us or jp")
search_filter = matching(r"[!-~]+", "a filter of printable ASCII characters without spaces, such as isz:l")


def positive_seconds(text: str) -> float:
    """Parse a time of more than 0 and at most a day, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds over 0")
    return seconds


def header_text(text: str) -> str:
    """Parse the value of an HTTP header, for argparse."""
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError(f"{text!r} contains characters that are not allowed in an HTTP header")
    return text
