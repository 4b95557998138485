"""Write the dataset card and a Croissant document for the packed set.

The card describes the content of the shards, the stages, models and thresholds, the distribution of scores and species,
known limitations, and the contact for artists. Hugging Face's datasets loads the shards by its YAML head. Run this
after webdataset.py. The same ledger and flags give the same bytes.

Reads   webdataset/manifests/split_stats.json, base.csv, images.csv, the run journals
Writes  webdataset/README.md, webdataset/croissant.json

    python webdataset/card.py --contact you@example.org
    python webdataset/card.py --root my-dataset --contact you@example.org --url https://example.org/ --version 1.1.0
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence

import polars as pl

from pokefa.errors import InputError
from pokefa.files import write_text
from pokefa.ledger.runs import read_runs
from pokefa.ledger.table import KEY
from pokefa.shards.card import CARD, describe_set, join_card
from pokefa.shards.card_text import tell_story
from pokefa.shards.check import manifest_of
from pokefa.shards.croissant import CROISSANT, Publication, make_croissant
from pokefa.shards.layout import STATS, json_text, listed_ids
from pokefa.stage.funnel import read_tables
from pokefa.stage.options import reading_parser
from pokefa.stage.reader import Reading, run_reading

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

# The head without --license; the card's text says who owns the images.
NO_LICENSE = {"license": "other", "license_name": "rights-stay-with-the-artists"}


def describe(reading: Reading, about: Publication, language: str) -> None:
    """Write both files."""
    manifest_of(reading.root)  # raises one-line errors
    stats = json.loads((reading.root / STATS).read_text(encoding="utf-8"))
    packed = set().union(*listed_ids(reading.root).values()) - stats["left_out"].keys()
    chosen = pl.col(KEY).is_in(sorted(packed))
    everything = read_tables(reading.ledger)
    base, images = everything.base.filter(chosen), everything.images.filter(chosen)
    runs = read_runs(reading.root)
    if not about.date:
        packings = [run.started[:10] for run in runs if run.stage == "webdataset" and DATE.match(run.started)]
        if not packings:
            raise InputError("no journal has the date of packing: give the day with --date")
        about = Publication(**{**vars(about), "date": packings[-1]})
    head = {
        "pretty_name": about.title,
        "language": [language],
        **(NO_LICENSE if about.license == NO_LICENSE["license"] else {"license": about.license}),
        "task_categories": ["text-to-image", "image-to-text"],
        "source_datasets": ["original"],
        "annotations_creators": ["machine-generated"],
        "tags": ["pokemon", "fan-art", "webdataset"],
        **describe_set(stats),
    }
    write_text(reading.root / CARD, join_card(head, tell_story(about, stats, base, images, runs, everything)))
    write_text(reading.root / CROISSANT, json_text(make_croissant(about, stats)))
    reading.seen = reading.done = len(base)
    reading.extra["written"] = [CARD, CROISSANT]


def build_parser() -> argparse.ArgumentParser:
    parser = reading_parser(__doc__)
    ask = parser.add_argument
    ask("--contact", required=True, metavar="ADDRESS", help="contact for artists: an e-mail address or a URL")
    ask("--title", default="Captioned Pokémon fan art", help="name of the set (default: Captioned Pokémon fan art)")
    ask("--license", default="other", metavar="ID", help="Hugging Face's id of a license (default: other)")
    ask("--language", default="en", metavar="CODE", help="language of the captions (default: en)")
    ask("--url", default="https://example.org/", help="URL of the published set (default: https://example.org/)")
    ask("--version", default="1.0.0", help="version of the set (default: 1.0.0)")
    ask("--creator", default="the makers of this set", metavar="NAME", help="publisher of the set")
    ask("--date", default="", metavar="DAY", help="day of publication, such as 2026-11-22 (default: last packing)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.date and not DATE.fullmatch(args.date):
        parser.error(f"--date {args.date}: write it like 2026-11-22")
    if not re.fullmatch(r"\d+\.\d+\.\d+", args.version):
        parser.error(f"--version {args.version}: write three numbers, such as 1.0.0")
    about = Publication(args.title, args.license, args.contact, args.url, args.version, args.date, args.creator)
    language = args.language
    return run_reading("card", args.root, lambda reading: describe(reading, about, language))


if __name__ == "__main__":
    raise SystemExit(main())
