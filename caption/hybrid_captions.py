"""Stage 8, last step: one training caption of each image, the sentence followed by the most important tags.

Reads   base.csv: caption, tags
Writes  base.csv: hybrid_caption

As `Umbreon sleeps on a stone under the moon. | umbreon, curled up, forest, night`. Tags stand in a fixed order of
importance, species first with shiny and form, none twice, and as many as fit into --max-tokens of CLIP's tokenizer.
The tokens are counted by a bound (see caption/tokens.py), so a caption may hold fewer tags than would just fit, and
none that is cut off. Every run computes all captions and writes those that differ, so it follows changed captions.

    python caption/hybrid_captions.py
    python caption/hybrid_captions.py --root my-dataset --max-tokens 150 --keep-underscores
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from caption.tags import Tags, tags_from_cell
from caption.tokens import CLIP_TOKENS, token_bound
from pokefa.options import options_from, positive_int, stage_parser
from pokefa.run import StageRun, decode_rows, run_stage
from pokefa.selection import not_dropped_before
from pokefa.table import KEY

SEPARATOR = " | "
TAG_SEPARATOR = ", "
SMALLEST_BUDGET = 16  # below, not even a short sentence fits

# After the species, in the order in which they matter to whoever asks for a picture.
ORDER = (
    "characteristics", "pose", "actions", "outfit", "props", "environment", "biome", "time_of_day", "weather",
    "background", "art_style", "composition",
)  # fmt: skip


def species_phrases(tags: Tags) -> list[str]:
    """Return each species as people say it, with shiny and form, in snake_case: `shiny_mega_charizard_x`.

    A form goes before the name; the X or Y of a Mega Evolution goes behind it.
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
    """Return all tags in snake_case in the order of importance, none twice."""
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


def hybrid_caption(sentence: str, tags: Tags, max_tokens: int, *, keep_underscores: bool = False) -> str:
    """Return sentence and tags within `max_tokens` tokens, the two that begin and end a text included.

    Tags are left out whole, from the first that does not fit. A sentence that does not fit by itself ends with the
    last word that does.
    """
    names = {word for phrase in species_phrases(tags) for word in phrase.split("_")}
    text = _fitting_words(sentence, names, max_tokens)
    if text != sentence:
        return text
    separator = SEPARATOR
    for tag in ordered_tags(tags):
        longer = text + separator + (tag if keep_underscores else tag.replace("_", " "))
        if token_bound(longer, names) > max_tokens:
            break
        text, separator = longer, TAG_SEPARATOR
    return text


def _fitting_words(sentence: str, names: set[str], max_tokens: int) -> str:
    while token_bound(sentence, names) > max_tokens:
        sentence, space, _ = sentence.rpartition(" ")
        if not space:
            return ""
    return sentence


def make_captions(run: StageRun, max_tokens: int, *, keep_underscores: bool) -> None:
    """Write every hybrid caption that is not as it should be."""
    frame = run.table().filter(not_dropped_before(run.step))
    columns = ["caption", "tags", *(["hybrid_caption"] if "hybrid_caption" in frame.columns else [])]
    rows = decode_rows(frame, columns, run.step)
    for row in rows:
        image_id, sentence, tags_text = str(row[KEY]), row["caption"], row["tags"]
        wanted: str | None = None
        if sentence is not None:
            run.seen += 1
            tags = tags_from_cell(image_id, str(tags_text or "{}"))
            wanted = hybrid_caption(str(sentence), tags, max_tokens, keep_underscores=keep_underscores)
        if wanted != row.get("hybrid_caption"):
            run.record(image_id, {"hybrid_caption": wanted}, reason="written" if wanted else "emptied")


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument(
        "--max-tokens",
        type=positive_int,
        default=CLIP_TOKENS,
        metavar="N",
        help="tokens of a caption, the two that begin and end it included",
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
        lambda: options_from(args),
        lambda run: make_captions(run, max_tokens, keep_underscores=keep_underscores),
        arguments=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
