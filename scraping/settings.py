"""What a user can ask of scrape.py, and the flags that say it."""

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

# Flags that go to the search as they are, under the search's own names.
SEARCH_FLAGS = ("hl", "gl", "safe", "tbs")


@dataclass(frozen=True)
class Settings:
    """What the user asked for, besides the shared options."""

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
    what.add_argument("--retry-errors", action="store_true", help="also addresses that were tried and not saved")
    what.add_argument("--workers", type=positive_int, default=WORKERS, metavar="N", help="how many species at once")
    source = what.add_mutually_exclusive_group()
    source.add_argument("--from-folder", type=Path, metavar="DIR", help="take files: sub-folders name the species")
    source.add_argument(
        "--from-urls", type=Path, metavar="FILE", help="CSV or .parquet: source_url, species, perhaps image_id"
    )
    source.add_argument(
        "--keep-placeholder",
        nargs="+",
        default=[],
        metavar="ID",
        help="let in these images, which were set aside as placeholders, and do nothing else",
    )
    what.add_argument("--labels", type=Path, metavar="FILE", help="CSV for --from-folder: file, species")
    search = parser.add_argument_group("search")
    search.add_argument(
        "--query", type=query_template, nargs="+", metavar="TEXT", help=f"{{name}} is the species (default: {QUERY})"
    )
    search.add_argument(
        "--max-searches", type=positive_int, metavar="N", help="pay for N searches at most, then exit 3"
    )
    search.add_argument("--max-pages", type=positive_int, default=MAX_PAGES, metavar="N", help="pages of each query")
    search.add_argument("--hl", type=language, metavar="LANGUAGE", help="language of the search, such as en or pt-br")
    search.add_argument("--gl", type=country, metavar="COUNTRY", help="country of the search, such as us or jp")
    search.add_argument("--safe", choices=["active", "off"], help="the search's own filter of adult images")
    search.add_argument(
        "--tbs", type=search_filter, metavar="TEXT", help="Google's filters, such as itp:photo or isz:l, as they are"
    )
    download = parser.add_argument_group("download")
    download.add_argument("--min-side", type=positive_int, default=MIN_SIDE, metavar="PX", help="smallest side")
    download.add_argument(
        "--max-aspect", type=number(1), default=MAX_ASPECT, metavar="RATIO", help="longest side over shortest, at most"
    )
    download.add_argument("--max-bytes", type=positive_int, default=MAX_BYTES, metavar="N", help="largest file")
    download.add_argument("--max-pixels", type=positive_int, default=MAX_PIXELS, metavar="N", help="largest image")
    download.add_argument(
        "--deadline", type=positive_seconds, default=DEADLINE_S, metavar="S", help="seconds for a file, with redirects"
    )
    download.add_argument(
        "--concurrency", type=positive_int, default=CONCURRENCY, metavar="N", help="downloads at once, of all species"
    )
    download.add_argument(
        "--per-host", type=positive_int, default=PER_HOST, metavar="N", help="connections to one host at once"
    )
    download.add_argument(
        "--check",
        choices=["full", "header"],
        default="full",
        help="decode every image to its end, or read no more than its header, which is faster and lets damage pass",
    )
    download.add_argument("--contact", type=header_text, metavar="TEXT", help="whom a site may write to; in User-Agent")
    download.add_argument("--ignore-opt-out", action="store_true", help="take images marked noai or noindex too")
    download.add_argument(
        "--exclude-domains", type=Path, metavar="FILE", help="take nothing from these domains, one a line"
    )
    download.add_argument(
        "--takedown-threshold",
        type=whole_number(0, HIGHEST_TAKEDOWN_THRESHOLD),
        default=THRESHOLD,
        metavar="BITS",
        help="refuse what differs in so many bits of its hash from an image that was taken down",
    )
    add_decoding_options(parser)
    download.add_argument("--allow-private", action="store_true", help="allow private networks and any port")


def query_template(text: str) -> str:
    """Parse a query with {name} in it, for argparse."""
    if "{name}" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} does not hold {{name}}, the place of the species' name")
    return text


def matching(pattern: str, wanted: str) -> Callable[[str], str]:
    """Return a parser of texts that are `wanted`, for argparse."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return text

    return parse


language = matching(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?", "the code of a language, such as en or pt-br")
country = matching(r"[A-Za-z]{2}", "the code of a country in two letters, such as us or jp")
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
    """Parse a text that an HTTP header can hold, for argparse."""
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError(f"{text!r} holds characters that an HTTP header cannot carry")
    return text
