"""Stage 8, second step: finds the captions that need another try, and on request drops their images.

Reads   base.csv: caption, tags; quotas/popularity.csv of the checkout
Writes  metadata/recap.csv: image_id, reasons; with --drop images.csv: drop_reason, and drops.csv

The reasons: no_species, unknown_species, placeholder, refusal_language, wrong_length, repeated_text,
sentence_tags_disagree. recap.csv is the input of sentence_tags.py --only. --drop is for what is still wrong after
that: drop_reason becomes `cap_filter:<first reason>`, and the images leave recap.csv. A later --drop takes the
images back whose captions have become good.

    python caption/cap_filter.py
    python caption/cap_filter.py --root my-dataset --dry-run
    python caption/cap_filter.py --drop
"""

from __future__ import annotations

import argparse
import csv
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caption.recap import write_recap
from caption.tags import Tags, tags_from_cell
from pokefa.errors import InputError
from pokefa.options import options_from, positive_int, stage_parser
from pokefa.run import StageRun, decode_rows, run_stage
from pokefa.selection import eligible_rows
from pokefa.table import KEY
from pokefa.text import species_slug

POPULARITY = Path(__file__).resolve().parents[1] / "quotas" / "popularity.csv"

# 12 to 25 words are asked for; a sentence that misses this by a few words is not worth another call.
MIN_WORDS = 8
MAX_WORDS = 32

REPEATED_WORDS = 4  # as many words in the same order twice ...
REPEATED_WORD = 3  # ... or one word so many times in a row

_PLACEHOLDER = re.compile(
    r"\b(?:unknown|unidentified|unnamed|unspecified|placeholder|lorem ipsum|n/a|tbd|todo)\b"
    r"|\[[^\]]*\]|<[^>]*>|\{[^}]*\}|_{2,}",
    re.IGNORECASE,
)
_VERBS = r"(?:assist|help|identif\w+|describe|determine|tell|see|view|process|provide|comply)"
_REFUSAL = re.compile(
    r"\bi(?:['’]m| am)\b|\bsorry\b|\b(?:i|we) (?:can(?:not|['’]t)|could(?: not|n['’]t)|won['’]t|will not|see|think)\b"
    rf"|\b(?:unable|not able) to (?:be )?{_VERBS}\b|\b(?:cannot|can['’]t|could not|couldn['’]t) (?:be )?{_VERBS}\b"
    r"|\bas an? (?:ai|assistant|language model)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[\w'’.♀♂-]+")

log = logging.getLogger("pokefa")


class Species:
    """The known species, found by slug and in sentences."""

    def __init__(self, names: Iterable[str]) -> None:
        self.slugs = {species_slug(name) for name in names}
        self._phrases = {tuple(_without_sex(slug).split("_")) for slug in self.slugs}
        self._longest = max(map(len, self._phrases), default=0)

    def named_in(self, sentence: str) -> set[str]:
        """Return the slugs of the species that a sentence names, also in the plural or the genitive.

        Of two names that begin with the same word the longer counts: "Porygon-Z" is not also Porygon. Nidoran is one
        name for two species, and comes without its sign.
        """
        words = [word for part in _WORD.findall(sentence) for word in _without_sex(species_slug(part)).split("_")]
        found: set[str] = set()
        place = 0
        while place < len(words):
            phrase = self._phrase_at(words, place)
            if phrase:
                found.add("_".join(phrase))
            place += len(phrase) or 1
        return found

    def _phrase_at(self, words: Sequence[str], place: int) -> tuple[str, ...]:
        """Return the longest name that begins with the word at `place`, or ()."""
        for length in range(min(self._longest, len(words) - place), 0, -1):
            phrase = tuple(words[place : place + length])
            for known in (phrase, (*phrase[:-1], phrase[-1].removesuffix("s"))):
                if known in self._phrases:
                    return known
        return ()


def _without_sex(slug: str) -> str:
    return slug.removesuffix("_female").removesuffix("_male")


@dataclass(frozen=True)
class Limits:
    """How many words a sentence may have."""

    min_words: int = MIN_WORDS
    max_words: int = MAX_WORDS


def find_faults(sentence: str, tags: Tags, species: Species, limits: Limits) -> list[str]:
    """Return the reason slugs of all that is wrong with a caption, in a fixed order; none where it is good."""
    tagged = set(tags["pokemon"])
    known = tagged <= species.slugs
    names = {_without_sex(slug) for slug in tagged}
    named = species.named_in(sentence)
    faults = {
        "no_species": not tagged,
        "unknown_species": not known,
        "placeholder": bool(_PLACEHOLDER.search(sentence)),
        "refusal_language": bool(_REFUSAL.search(sentence)),
        "wrong_length": not limits.min_words <= len(sentence.split()) <= limits.max_words,
        "repeated_text": repeats_itself(sentence),
        # Every name in the sentence is tagged, and the sentence names at least one of those that are.
        "sentence_tags_disagree": bool(tagged) and known and not (named and named <= names),
    }
    return [slug for slug, found in faults.items() if found]


def repeats_itself(sentence: str) -> bool:
    """Tell whether a word stands several times in a row, or the same words in the same order twice."""
    words = [word.strip(".,;:!?").lower() for word in sentence.split()]
    in_a_row = zip(*(words[start:] for start in range(REPEATED_WORD)), strict=False)
    if any(len(set(run)) == 1 for run in in_a_row):
        return True
    runs = list(zip(*(words[start:] for start in range(REPEATED_WORDS)), strict=False))
    return len(set(runs)) < len(runs)


def read_species(path: Path) -> Species:
    """Return the species of popularity.csv.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return Species(row["name"] for row in csv.DictReader(stream))
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a CSV with a column name: {error}") from None


def filter_captions(run: StageRun, limits: Limits, *, drop: bool) -> None:
    """List the captions that need another try; with `drop` mark their images instead."""
    species = read_species(POPULARITY)
    frame = eligible_rows(run.table(), run.step)
    rows = [row for row in decode_rows(frame, ["caption", "tags", "drop_reason"], run.step) if row["caption"]]
    run.seen = len(rows)
    recap: dict[str, list[str]] = {}
    for row in rows:
        image_id, dropped = str(row[KEY]), str(row["drop_reason"] or "")
        faults = find_faults(str(row["caption"]), tags_from_cell(image_id, str(row["tags"] or "{}")), species, limits)
        for slug in faults:
            run.counts[slug] += 1
        if faults:
            log.info("%s: %s: %s", image_id, ", ".join(faults), row["caption"])
        if drop:
            mark(run, image_id, dropped, faults)
        elif faults and not dropped.startswith("cap_filter:"):
            recap[image_id] = faults
    run.extra["to_caption_again"] = len(recap)
    if not run.options.dry_run:
        write_recap(run.root, recap)


def mark(run: StageRun, image_id: str, dropped: str, faults: Sequence[str]) -> None:
    """Drop an image with faults, and take one back that has none any more; other stages' drops stay."""
    if dropped and not dropped.startswith("cap_filter:"):
        return
    wanted = f"cap_filter:{faults[0]}" if faults else ""
    if wanted == dropped:
        return
    if faults:
        values: Mapping[str, str] = {"drop_reason": wanted}
        detail = ", ".join(faults)
        run.record(image_id, values, table="images", reason="dropped", drop=faults[0], detail=detail)
    else:
        run.record(image_id, {"drop_reason": None}, table="images", reason="taken_back")


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument("--drop", action="store_true", help="drop the images whose captions are not good enough")
    parser.add_argument("--min-words", type=positive_int, default=MIN_WORDS, metavar="N", help="shortest sentence")
    parser.add_argument("--max-words", type=positive_int, default=MAX_WORDS, metavar="N", help="longest sentence")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.min_words > args.max_words:
        parser.error(f"--min-words {args.min_words} is over --max-words {args.max_words}")
    limits, drop = Limits(args.min_words, args.max_words), args.drop
    return run_stage(
        "cap_filter", lambda: options_from(args), lambda run: filter_captions(run, limits, drop=drop), arguments=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
