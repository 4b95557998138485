"""Stage 8, second step: finds the captions to redo and, on request, drops the images whose captions stay bad.

Reads   base.csv: caption, tags; images.csv: caption_model, caption_error; metadata/recap_captions.csv;
        quotas/popularity.csv of the checkout
Writes  metadata/recap.csv: image_id, reasons; with --drop images.csv: drop_reason, and drops.csv;
        metadata/audit/misspelled.csv: image_id, name, species, score of the misspelled species

The reasons: no_species, unknown_species, placeholder, refusal_language, wrong_length, repeated_text, same_sentence
(shared with other images), sentence_tags_disagree. recap.csv is the input of sentence_tags.py --only. A misspelled
species is not a fault: webdataset/species.py fixes it, and leaves out unknown names beside known ones. --drop drops
images whose captions are still bad after a second try, unless wrong_length and same_sentence are the only reasons:
drop_reason becomes `cap_filter:<first reason>`, and the image leaves recap.csv. --untried drops images without a second
try, too. A later --drop restores images whose captions are good by then.

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

from caption.tags import Tags, tags_from_cell
from pokefa.csv_files import csv_text
from pokefa.files import write_text
from pokefa.ledger.table import KEY, with_missing
from pokefa.llm.recaps import all_recap_captions, tried_again, write_recap
from pokefa.species.matching import Match, SpeciesMatcher
from pokefa.species.names import Mention, known_species, without_sex
from pokefa.stage.options import positive_int, stage_parser
from pokefa.stage.rows import eligible_rows
from pokefa.stage.runner import StageRun, decode_rows, run_stage

# The minimum that sentence_tags.py asks for.
MIN_WORDS = 12
MAX_WORDS = 25

REPEATED_WORDS = 4  # words in the same order twice ...
REPEATED_WORD = 3  # ... or one word this many times in a row

# Two images of one species may deserve the same sentence; more rarely do.
MOST_WITH_SAME_SENTENCE = 2

# A caption with one of these faults is still true: it may be redone, but the image is never dropped.
HARMLESS = frozenset({"wrong_length", "same_sentence"})

MISSPELLED = "metadata/audit/misspelled.csv"

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


def find_faults(sentence: str, tags: Tags, matcher: SpeciesMatcher, limits: Limits) -> list[str]:
    """Return the reason slugs of a caption's own faults, in a fixed order."""
    meant = species_meant(tags, matcher)
    faults = {
        "no_species": not tags["pokemon"],
        "unknown_species": None in meant.values(),
        "placeholder": bool(_PLACEHOLDER.search(sentence)),
        "refusal_language": bool(_REFUSAL.search(sentence)),
        "wrong_length": not limits.min_words <= len(sentence.split()) <= limits.max_words,
        "repeated_text": repeats_itself(sentence),
        "sentence_tags_disagree": any(meant.values()) and not agree(sentence, tags, matcher),
    }
    return [slug for slug, found in faults.items() if found]


def species_meant(tags: Tags, matcher: SpeciesMatcher) -> dict[str, Match | None]:
    """Return the match of each name under `pokemon`, as in webdataset/species.py; None for an unknown species."""
    return {name: matcher.match(name) for name in tags["pokemon"]}


def agree(sentence: str, tags: Tags, matcher: SpeciesMatcher) -> bool:
    """Tell whether a sentence and the tags can describe the same image.

    The sentence must name at least one tagged species and no other, and none as shiny or in a form unless its tags
    agree. It may leave out tags. A misspelled species may be misspelled in both.
    """
    words: dict[str, set[str]] = defaultdict(set)
    for name, form in zip(tags["pokemon"], tags["form"], strict=True):
        match = matcher.match(name)
        if match is None:
            continue
        own = words[without_sex(match.species)]
        own.update((form or "").split("_"), (match.form or "").split("_"))
        if name in tags["shiny_pokemon"]:
            own.add("shiny")
        if match.species != name:
            sentence = spelled(sentence, name, match)
    mentions: list[Mention] = matcher.species.mentions_in(sentence)
    return bool(mentions) and all(one.name in words and one.described <= words[one.name] for one in mentions)


def spelled(sentence: str, name: str, match: Match) -> str:
    """Return a sentence with a misspelled species corrected where it is spelled as in `name`."""
    right = " ".join([*(match.form or "").split("_"), *match.species.split("_")])
    written = r"[\W_]*".join(map(re.escape, name.split("_")))
    return re.sub(rf"\b{written}(?=(?:e?s)?\b)", right, sentence, flags=re.IGNORECASE)


def same_sentences(sentences: Iterable[str]) -> set[str]:
    """Return the sentences, as `_bare` returns them, that more than MOST_WITH_SAME_SENTENCE captions share."""
    counted = Counter(map(_bare, sentences))
    return {sentence for sentence, number in counted.items() if number > MOST_WITH_SAME_SENTENCE}


def _bare(sentence: str) -> str:
    """Return a sentence's words in lower case, without punctuation."""
    return " ".join(word.strip(".,;:!?\"'") for word in sentence.lower().split())


def repeats_itself(sentence: str) -> bool:
    """Tell whether a word occurs several times in a row, or the same words in the same order twice."""
    words = _bare(sentence).split()
    in_a_row = zip(*(words[start:] for start in range(REPEATED_WORD)), strict=False)
    if any(len(set(run)) == 1 for run in in_a_row):
        return True
    runs = list(zip(*(words[start:] for start in range(REPEATED_WORDS)), strict=False))
    return len(set(runs)) < len(runs)


def filter_captions(run: StageRun, limits: Limits, *, drop: bool, untried: bool) -> None:
    """List the captions to redo; with `drop` mark the images whose captions stay bad."""
    matcher = SpeciesMatcher(known_species())
    frame = eligible_rows(run.table(), run.step)
    rows = [row for row in decode_rows(frame, ["caption", "tags", "drop_reason"], run.step) if row["caption"]]
    run.seen = len(rows)
    tried = images_tried_again(run, {str(row[KEY]): str(row["caption"]) for row in rows})
    same = same_sentences(str(row["caption"]) for row in rows)
    recap: dict[str, list[str]] = {}
    misspelled: list[tuple[str, str, str, str]] = []
    for row in rows:
        image_id, sentence, dropped = str(row[KEY]), str(row["caption"]), str(row["drop_reason"] or "")
        tags = tags_from_cell(image_id, str(row["tags"] or "{}"))
        faults = find_faults(sentence, tags, matcher, limits)
        meant = species_meant(tags, matcher)
        misspelled += [
            (image_id, name, match.species, f"{match.score:.4f}")
            for name, match in meant.items()
            if match is not None and match.score < 1
        ]
        if _bare(sentence) in same:
            faults.append("same_sentence")
        for slug in faults:
            run.counts[slug] += 1
        if faults:
            log.info("%s: %s: %s", image_id, ", ".join(faults), sentence)
        if drop:
            grave = [slug for slug in faults if slug not in HARMLESS]
            if any(meant.values()):  # the unknown names are left out later, and the image is kept
                grave = [slug for slug in grave if slug != "unknown_species"]
            dropped = mark(run, image_id, dropped, grave, faults, given_up=untried or image_id in tried)
        if faults and not dropped.startswith("cap_filter:"):
            recap[image_id] = faults
    run.extra.update(to_caption_again=len(recap), misspelled_names=len(misspelled))
    if not run.options.dry_run:
        write_recap(run.root, recap)
        write_text(run.root / MISSPELLED, csv_text(["image_id", "name", "species", "score"], sorted(misspelled)))


def images_tried_again(run: StageRun, captions: Mapping[str, str]) -> set[str]:
    """Return the images, of {image_id: caption}, whose captions are from a second try or whose second try failed."""
    again = all_recap_captions(run.root, "sentence_tags")
    columns = [KEY, "caption_model", "caption_error"]
    images = with_missing(run.ledger.images.read(), columns).select(columns)
    return {
        image_id
        for image_id, model, error in images.iter_rows()
        if image_id in captions and tried_again(captions[image_id], model, error, again.get(image_id))
    }


def mark(
    run: StageRun, image_id: str, dropped: str, grave: Sequence[str], faults: Sequence[str], *, given_up: bool
) -> str:
    """Drop an image, or restore one that this step dropped; return its new drop_reason.

    Args:
        dropped: its current drop_reason; drops by other stages stay.
        grave: the faults for which it may be dropped.
        given_up: whether it gets no further try. A dropped image stays dropped until its caption is good.
    """
    if dropped and not dropped.startswith("cap_filter:"):
        return dropped
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
    parser.add_argument("--drop", action="store_true", help="drop images whose captions are still bad when redone")
    parser.add_argument(
        "--untried", action="store_true", help="with --drop: drop images whose captions were never redone, too"
    )
    parser.add_argument(
        "--min-words", type=positive_int, default=MIN_WORDS, metavar="N", help="minimum words of a sentence"
    )
    parser.add_argument(
        "--max-words", type=positive_int, default=MAX_WORDS, metavar="N", help="maximum words of a sentence"
    )
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
        args,
        lambda run: filter_captions(run, limits, drop=drop, untried=untried),
    )


if __name__ == "__main__":
    raise SystemExit(main())
