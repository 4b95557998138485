"""Stage 8, last step: builds one training caption per image, the sentence followed by the most important tags.

Reads   base.csv: caption, tags
Writes  base.csv: hybrid_caption

Example: `Umbreon sleeps on a stone under the moon. | umbreon, curled up, forest, night`. Tags are in a fixed order of
importance, species first with shiny and form, without repeats, as many as fit into --max-tokens of CLIP's tokenizer
(see caption/tokens.py). Tags are never cut. A long sentence loses its last words before a species is left out. Every
run computes all captions and writes those that differ, so it picks up changes.

    python caption/hybrid_captions.py
    python caption/hybrid_captions.py --root my-dataset --max-tokens 150 --keep-underscores
"""

from __future__ import annotations

import argparse
import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from caption.tags import Tags, tags_from_cell
from caption.tokens import CLIP_TOKENS, TokenCounter, load_token_counter
from pokefa.ledger.table import KEY
from pokefa.stage.options import positive_int, stage_parser
from pokefa.stage.rows import not_dropped_before
from pokefa.stage.runner import StageRun, decode_rows, run_stage

SEPARATOR = " | "
TAG_SEPARATOR = ", "
SMALLEST_BUDGET = 16  # with less, a species with its form leaves no room for a sentence

# After the species, in the order in which they matter for image prompts.
ORDER = (
    "characteristics", "pose", "actions", "outfit", "props", "environment", "biome", "time_of_day", "weather",
    "background", "art_style", "composition",
)  # fmt: skip


def species_phrases(tags: Tags) -> list[str]:
    """Return each species in its common wording, with shiny and form, in snake_case: `shiny_mega_charizard_x`.

    A form precedes the name; the X or Y of a Mega Evolution follows it.
    """
    phrases = []
    for name, form in zip(tags["pokemon"], tags["form"], strict=True):
        before, _, letter = (form or "").rpartition("_")
        if not (before and letter in ("x", "y")):
            before, letter = form or "", ""
        shiny = "shiny" if name in tags["shiny_pokemon"] else ""
        phrases.append("_".join(part for part in (shiny, before, name, letter) if part))
    return phrases


def ordered_tags(tags: Tags) -> list[str]:
    """Return all tags in snake_case, by importance, without repeats."""
    return list(dict.fromkeys(_in_order(tags)))


def _in_order(tags: Tags) -> Iterator[str]:
    yield from species_phrases(tags)
    if tags["gijinka"]:
        yield "gijinka"
    if tags["trainer_presence"]:
        yield "trainer"
    for name in ORDER:
        value = tags[name]
        yield from value if isinstance(value, list) else [value] if value else []
    if tags["multi_panel"]:
        yield "multi_panel"
    if tags["subject_count"] == "multiple":
        yield "multiple_subjects"


@dataclass(frozen=True)
class Hybrid:
    """A training caption, and what was left out to fit the budget."""

    text: str
    sentence_cut: bool = False
    tags_left_out: int = 0


def hybrid_caption(
    sentence: str, tags: Tags, max_tokens: int, count: TokenCounter, *, keep_underscores: bool = False
) -> Hybrid:
    """Return sentence and tags within `max_tokens` tokens, as counted by `count`.

    Tags are left out from the first one that does not fit. The first species always stays. The other species stay while
    all of them take up at most half of the budget; a sentence that leaves no room for them is cut after a word.
    """
    values = [tag if keep_underscores else tag.replace("_", " ") for tag in ordered_tags(tags)]
    text = compose(sentence, values)
    if count(text) <= max_tokens:
        return Hybrid(text)

    species = len(set(species_phrases(tags)))
    kept = most_that_fit(species, max_tokens // 2, lambda number: count(compose("", values[:number])))
    kept = min(max(1, kept), most_that_fit(species, max_tokens, lambda number: count(compose("", values[:number]))))

    words = sentence.split(" ")
    room = most_that_fit(len(words), max_tokens, lambda number: count(compose(cut(words, number), values[:kept])))
    sentence = cut(words, room)
    if room == len(words):
        kept = most_that_fit(len(values), max_tokens, lambda number: count(compose(sentence, values[:number])))
    return Hybrid(compose(sentence, values[:kept]), room < len(words), len(values) - kept)


def compose(sentence: str, values: Sequence[str]) -> str:
    return SEPARATOR.join(part for part in (sentence, TAG_SEPARATOR.join(values)) if part)


def cut(words: Sequence[str], number: int) -> str:
    """Return the first `number` words of a sentence, without a trailing comma or dash."""
    text = " ".join(words[:number])
    return text if number == len(words) else text.rstrip(" ,;:-–—(\"'")


def most_that_fit(most: int, budget: int, tokens_of: Callable[[int], int]) -> int:
    """Return the largest number up to `most` for which the monotonic `tokens_of` is within the budget; else 0."""
    return bisect.bisect_right(range(1, most + 1), budget, key=tokens_of)


def make_captions(run: StageRun, max_tokens: int, *, keep_underscores: bool) -> None:
    """Write every hybrid caption that has changed."""
    count = load_token_counter()
    frame = run.table().filter(not_dropped_before(run.step))
    columns = ["caption", "tags", *(["hybrid_caption"] if "hybrid_caption" in frame.columns else [])]
    shortened = sentences_cut = 0
    for row in decode_rows(frame, columns, run.step):
        image_id, sentence, tags_text = str(row[KEY]), row["caption"], row["tags"]
        wanted: str | None = None
        if sentence is not None:
            run.seen += 1
            tags = tags_from_cell(image_id, str(tags_text or "{}"))
            hybrid = hybrid_caption(str(sentence), tags, max_tokens, count, keep_underscores=keep_underscores)
            wanted = hybrid.text or None
            shortened += hybrid.tags_left_out > 0
            sentences_cut += hybrid.sentence_cut
        if wanted != row.get("hybrid_caption"):
            run.record(image_id, {"hybrid_caption": wanted}, reason="written" if wanted else "emptied")
    run.extra.update(max_tokens=max_tokens, tags_left_out_of=shortened, sentences_cut=sentences_cut)


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument(
        "--max-tokens",
        type=positive_int,
        default=CLIP_TOKENS,
        metavar="N",
        help="maximum tokens of a caption, including its start and end tokens",
    )
    parser.add_argument("--keep-underscores", action="store_true", help="leave tags in snake_case")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.max_tokens < SMALLEST_BUDGET:
        parser.error(f"--max-tokens {args.max_tokens} is too few for a caption: give at least {SMALLEST_BUDGET}")
    max_tokens, keep_underscores = args.max_tokens, args.keep_underscores
    return run_stage(
        "hybrid_captions",
        args,
        lambda run: make_captions(run, max_tokens, keep_underscores=keep_underscores),
    )


if __name__ == "__main__":
    raise SystemExit(main())
