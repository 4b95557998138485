"""Stage 8, second step: finds the captions that need another try, and on request drops the hopeless images.

Reads   base.csv: caption, tags; images.csv: caption_model, caption_error; metadata/recap_captions.csv;
        quotas/popularity.csv of the checkout
Writes  metadata/recap.csv: image_id, reasons; with --drop images.csv: drop_reason, and drops.csv

The reasons: no_species, unknown_species, placeholder, refusal_language, wrong_length, repeated_text, same_sentence
(as other images have), sentence_tags_disagree. recap.csv is the input of sentence_tags.py --only. Hopeless is what
another try has not mended, unless it is only of the wrong length or said of other images too: --drop makes its
drop_reason `cap_filter:<first reason>` and takes it out of recap.csv; --untried drops images without another try as
well. A later --drop takes the images back whose captions have become good.

    python caption/cap_filter.py
    python caption/cap_filter.py --root my-dataset --min-words 8 --max-words 32 --dry-run
    python caption/cap_filter.py --drop
"""

from __future__ import annotations

import argparse
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from caption.recap import all_recap_captions, tried_again, write_recap
from caption.species_names import Mention, Species, known_species, without_sex
from caption.tags import Tags, tags_from_cell
from pokefa.options import options_from, positive_int, stage_parser
from pokefa.run import StageRun, decode_rows, run_stage
from pokefa.selection import eligible_rows
from pokefa.table import KEY, with_missing

# What sentence_tags.py asks for.
MIN_WORDS = 12
MAX_WORDS = 25

REPEATED_WORDS = 4  # as many words in the same order twice ...
REPEATED_WORD = 3  # ... or one word so many times in a row

# Two pictures of one species can truly deserve the same sentence; more hardly ever do.
MOST_WITH_SAME_SENTENCE = 2

# A caption with one of these says something true about its picture: it may be tried again, but is never dropped.
HARMLESS = frozenset({"wrong_length", "same_sentence"})

_PLACEHOLDER = re.compile(
    r"\b(?:unknown|unidentified|unnamed|unspecified|placeholder|lorem ipsum|n/a|tbd|todo|xxx+)\b"
    r"|\b(?:some|a) (?:kind|sort) of (?:pok[eé]mon|creature)\b|\[[^\]]*\]|<[^>]*>|\{[^}]*\}|_{2,}|\?{2,}",
    re.IGNORECASE,
)
_VERBS = r"(?:assist|help|identif\w+|describe|determine|tell|see|view|process|provide|comply)"
_REFUSAL = re.compile(
    r"\bi(?:['’]m| am)\b|\bsorry\b|\b(?:i|we) (?:can(?:not|['’]t)|could(?: not|n['’]t)|won['’]t|will not|see|think)\b"
    rf"|\b(?:unable|not able) to (?:be )?{_VERBS}\b|\b(?:cannot|can['’]t|could not|couldn['’]t) (?:be )?{_VERBS}\b"
    r"|\bas an? (?:ai|assistant|language model)\b",
    re.IGNORECASE,
)

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Limits:
    """How many words a sentence may have."""

    min_words: int = MIN_WORDS
    max_words: int = MAX_WORDS


def find_faults(sentence: str, tags: Tags, species: Species, limits: Limits) -> list[str]:
    """Return the reason slugs of all that is wrong with a caption by itself, in a fixed order."""
    tagged = set(tags["pokemon"])
    known = tagged <= species.slugs
    faults = {
        "no_species": not tagged,
        "unknown_species": not known,
        "placeholder": bool(_PLACEHOLDER.search(sentence)),
        "refusal_language": bool(_REFUSAL.search(sentence)),
        "wrong_length": not limits.min_words <= len(sentence.split()) <= limits.max_words,
        "repeated_text": repeats_itself(sentence),
        "sentence_tags_disagree": bool(tagged) and known and not agree(species.mentions_in(sentence), tags),
    }
    return [slug for slug, found in faults.items() if found]


def agree(mentions: Sequence[Mention], tags: Tags) -> bool:
    """Tell whether a sentence with these species and the tags can be about one picture.

    The sentence names one of the tagged species or more, none that is not tagged, and none as shiny or in a form that
    its tags do not have. It need not say all that the tags say.
    """
    words: dict[str, set[str]] = defaultdict(set)
    for name, form in zip(tags["pokemon"], tags["form"], strict=True):
        words[without_sex(name)].update((form or "").split("_"))
        if name in tags["shiny_pokemon"]:
            words[without_sex(name)].add("shiny")
    return bool(mentions) and all(one.name in words and one.described <= words[one.name] for one in mentions)


def same_sentences(sentences: Iterable[str]) -> set[str]:
    """Return the sentences, as `_bare` leaves them, that more than MOST_WITH_SAME_SENTENCE captions consist of."""
    counted = Counter(map(_bare, sentences))
    return {sentence for sentence, number in counted.items() if number > MOST_WITH_SAME_SENTENCE}


def _bare(sentence: str) -> str:
    """Return a sentence's words without capitals and punctuation."""
    return " ".join(word.strip(".,;:!?\"'") for word in sentence.lower().split())


def repeats_itself(sentence: str) -> bool:
    """Tell whether a word stands several times in a row, or the same words in the same order twice."""
    words = _bare(sentence).split()
    in_a_row = zip(*(words[start:] for start in range(REPEATED_WORD)), strict=False)
    if any(len(set(run)) == 1 for run in in_a_row):
        return True
    runs = list(zip(*(words[start:] for start in range(REPEATED_WORDS)), strict=False))
    return len(set(runs)) < len(runs)


def filter_captions(run: StageRun, limits: Limits, *, drop: bool, untried: bool) -> None:
    """List the captions that need another try; with `drop` mark the images of the hopeless."""
    species = known_species()
    frame = eligible_rows(run.table(), run.step)
    rows = [row for row in decode_rows(frame, ["caption", "tags", "drop_reason"], run.step) if row["caption"]]
    run.seen = len(rows)
    tried = images_tried_again(run, {str(row[KEY]): str(row["caption"]) for row in rows})
    same = same_sentences(str(row["caption"]) for row in rows)
    recap: dict[str, list[str]] = {}
    for row in rows:
        image_id, sentence, dropped = str(row[KEY]), str(row["caption"]), str(row["drop_reason"] or "")
        faults = find_faults(sentence, tags_from_cell(image_id, str(row["tags"] or "{}")), species, limits)
        if _bare(sentence) in same:
            faults.append("same_sentence")
        for slug in faults:
            run.counts[slug] += 1
        if faults:
            log.info("%s: %s: %s", image_id, ", ".join(faults), sentence)
        if drop:
            dropped = mark(run, image_id, dropped, faults, given_up=untried or image_id in tried)
        if faults and not dropped.startswith("cap_filter:"):
            recap[image_id] = faults
    run.extra["to_caption_again"] = len(recap)
    if not run.options.dry_run:
        write_recap(run.root, recap)


def images_tried_again(run: StageRun, captions: Mapping[str, str]) -> set[str]:
    """Return the images whose captions, by image_id, are those of another try, or for which the other try failed."""
    again = all_recap_captions(run.root, "sentence_tags")
    columns = [KEY, "caption_model", "caption_error"]
    images = with_missing(run.ledger.images.read(), columns).select(columns)
    return {
        image_id
        for image_id, model, error in images.iter_rows()
        if image_id in captions and tried_again(captions[image_id], model, error, again.get(image_id))
    }


def mark(run: StageRun, image_id: str, dropped: str, faults: Sequence[str], *, given_up: bool) -> str:
    """Drop an image, or take back one that this step has dropped; return its drop_reason as it is now.

    Args:
        dropped: its drop_reason so far; other stages' drops stay.
        given_up: it gets no other try. An image that was dropped before stays dropped until its caption is good.
    """
    if dropped and not dropped.startswith("cap_filter:"):
        return dropped
    grave = [slug for slug in faults if slug not in HARMLESS]
    wanted = f"cap_filter:{grave[0]}" if grave and (given_up or dropped) else ""
    if wanted == dropped:
        return dropped
    if wanted:
        values: Mapping[str, str] = {"drop_reason": wanted}
        run.record(image_id, values, table="images", reason="dropped", drop=grave[0], detail=", ".join(faults))
    else:
        run.record(image_id, {"drop_reason": None}, table="images", reason="taken_back")
    return wanted


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument("--drop", action="store_true", help="drop the images whose captions another try has not mended")
    parser.add_argument("--untried", action="store_true", help="with --drop: drop those that had no other try, too")
    parser.add_argument("--min-words", type=positive_int, default=MIN_WORDS, metavar="N", help="shortest sentence")
    parser.add_argument("--max-words", type=positive_int, default=MAX_WORDS, metavar="N", help="longest sentence")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.min_words > args.max_words:
        parser.error(f"--min-words {args.min_words} is over --max-words {args.max_words}")
    if args.untried and not args.drop:
        parser.error("--untried says what --drop drops: give both")
    limits, drop, untried = Limits(args.min_words, args.max_words), args.drop, args.untried
    return run_stage(
        "cap_filter",
        lambda: options_from(args),
        lambda run: filter_captions(run, limits, drop=drop, untried=untried),
        arguments=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
