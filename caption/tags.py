"""Defines a caption, one sentence and a set of tags, and cleans answers, whose schema is in caption/answer.py.

A model's answer is foreign text. `clean_answer` makes it a `Caption`, in which every value has the form and the length
given here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pokefa.errors import InputError
from pokefa.ledger.columns import BASE
from pokefa.llm.prompt import AnswerError, plain
from pokefa.species.names import known_species
from pokefa.text import species_slug

Tags = dict[str, Any]

SUBJECT_COUNTS = ("single", "multiple")

# Closed lists, from the vocabulary of illustration and photography.
COMPOSITION = (
    "close_up", "portrait", "bust", "cowboy_shot", "full_body", "wide_shot", "establishing_shot",
    "front_view", "side_view", "back_view", "three_quarter_view", "profile", "from_above", "from_below",
    "birds_eye_view", "dutch_angle", "dynamic_angle", "over_the_shoulder", "first_person", "foreshortening",
    "centered", "symmetrical", "rule_of_thirds", "diagonal", "framed", "negative_space", "silhouette",
    "group_shot", "split_screen", "comic_page", "character_sheet", "collage",
)  # fmt: skip
ART_STYLE = (
    "digital_painting", "digital_illustration", "concept_art", "storybook", "anime", "manga", "chibi", "cartoon",
    "comic", "cel_shaded", "flat_color", "vector", "pixel_art", "low_poly", "3d_render", "line_art", "sketch", "ink",
    "pencil", "colored_pencil", "charcoal", "marker", "pastel", "watercolor", "gouache", "acrylic", "oil_painting",
    "mixed_media", "papercraft", "sculpture", "embroidery", "stained_glass", "monochrome", "greyscale",
    "realistic", "semi_realistic", "painterly", "impressionistic", "minimalist", "abstract", "surreal",
    "art_nouveau", "ukiyo_e",
)  # fmt: skip
CLOSED_LISTS: Mapping[str, tuple[str, ...]] = {"composition": COMPOSITION, "art_style": ART_STYLE}

OPEN_LISTS = ("pose", "actions", "outfit", "props", "environment", "biome", "background", "characteristics")
FLAGS = ("trainer_presence", "gijinka", "multi_panel")
MOMENTS = ("time_of_day", "weather")
# The tags of an image that shows nothing, in the order in which a model is asked for them.
_EMPTY_TAGS: Tags = {
    "pokemon": [], "form": [], "shiny_pokemon": [],
    "trainer_presence": False, "gijinka": False, "subject_count": "single", "multi_panel": False,
    "pose": [], "actions": [], "outfit": [], "props": [], "environment": [], "biome": [],
    "time_of_day": None, "weather": None,
    "background": [], "characteristics": [], "composition": [], "art_style": [],
}  # fmt: skip
TAG_NAMES = tuple(_EMPTY_TAGS)

# Longer than any requested caption or word: the excess is noise.
LONGEST_SENTENCE = 400
LONGEST_WORD = 40
MOST_VALUES = 12

# What a model writes if there is nothing to say.
_NOTHING = frozenset({
    "none", "null", "nil", "na", "n_a", "nothing", "not_applicable", "other",
    "unknown", "unspecified", "unclear", "unsure", "undefined", "undetermined",
})  # fmt: skip
_BASE_FORMS = frozenset({"normal", "base", "default", "standard", "regular", "ordinary"})
# One name per form, however it is spelled; "" means no form.
_FORM_SPELLINGS = {
    "alola": "alolan", "galar": "galarian", "hisui": "hisuian", "paldea": "paldean", "gmax": "gigantamax",
    "form": "", "forme": "", "evolution": "",
}  # fmt: skip
_SHINY = "shiny"

# The end of a sentence, with closing marks, before the capital of the next one.
_SENTENCE_END = re.compile(r"[.!?…][\"')]*(?=\s+[\"'(]?[A-Z0-9])")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Jr|vs|No)\.$")
_ENDS = tuple(".!?…")
_CLOSING = "\"')"
_MARKDOWN = "`*_ "
# One spelling for each mark, as text encoders know it; "|" separates sentence and tags in a training caption.
_MARKS = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "|": "/"})


@dataclass(frozen=True)
class Caption:
    """A cleaned caption: one sentence, and the tags by the names of TAG_NAMES."""

    sentence: str
    tags: Tags


def clean_answer(answer: Mapping[str, Any]) -> Caption:
    """Return the cleaned caption of a CaptionAnswer.

    Raises:
        AnswerError: `empty_caption`: no sentence is left.
    """
    sentence = clean_sentence(answer["caption"])
    if not sentence:
        raise AnswerError("empty_caption", f"{answer['caption'][:80]!r} holds no sentence")
    return Caption(sentence, clean_tags(answer))


def clean_sentence(text: str) -> str:
    """Return the first sentence of a text on one line, with a capital and a full stop; "" if there is none.

    Quotation marks and apostrophes become straight. A sentence over LONGEST_SENTENCE characters is cut after the last
    word that fits.
    """
    text = _unquoted(plain(text, longest=10 * LONGEST_SENTENCE).translate(_MARKS))
    for end in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[: end.end()]):
            text = _unquoted(text[: end.end()])
            break
    if len(text) > LONGEST_SENTENCE:
        text = text[:LONGEST_SENTENCE].rsplit(" ", 1)[0].rstrip(",;:- ")
    if not any(mark.isalnum() for mark in text):
        return ""
    text = text[0].upper() + text[1:]
    return text if text.rstrip(_CLOSING)[-1:] in _ENDS else text.rstrip(",;:- ") + "."


def _unquoted(text: str) -> str:
    """Return a text without Markdown and without quotation marks around all of it."""
    text = text.strip(_MARKDOWN)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip(_MARKDOWN)
    return text


def clean_tags(answer: Mapping[str, Any]) -> Tags:
    """Return the tags of an answer that fits the schema: snake_case, without repeats, in the given order.

    `form` is as long as `pokemon`, `shiny_pokemon` only holds species of `pokemon`, and closed lists only hold their
    own words. A form or `shiny` inside a species name is moved to its own tag.
    """
    pokemon, form, shiny = _individuals(answer["pokemon"], answer["form"])
    shiny |= {_species_of(name) for name in answer["shiny_pokemon"]}
    tags: Tags = {
        "pokemon": pokemon,
        "form": form,
        "shiny_pokemon": [name for name in dict.fromkeys(pokemon) if name in shiny],
        # Two individuals are two subjects, whatever the model counted.
        "subject_count": "multiple" if len(pokemon) > 1 else answer["subject_count"],
    }
    tags |= {name: answer[name] for name in FLAGS}
    tags |= {name: _words(answer[name]) for name in OPEN_LISTS}
    tags |= {name: next(iter(_words([answer[name] or ""])), None) for name in MOMENTS}
    tags |= {name: [word for word in _words(answer[name]) if word in words] for name, words in CLOSED_LISTS.items()}
    return {name: tags[name] for name in TAG_NAMES}


def snake_case(text: str) -> str:
    """Return a foreign word or name as snake_case of at most LONGEST_WORD characters; "" if it says nothing."""
    word = species_slug(plain(text))
    if len(word) > LONGEST_WORD:
        word = word[: LONGEST_WORD + 1].rpartition("_")[0] or word[:LONGEST_WORD]
    return "" if word in _NOTHING else word


def tags_to_cell(tags: Mapping[str, Any]) -> str:
    """Return tags as the JSON text of a cell, with sorted keys, so that equal tags are equal texts."""
    return json.dumps(tags, ensure_ascii=False, sort_keys=True)


def tags_from_cell(image_id: str, text: str, table: str = BASE.path) -> Tags:
    """Return the tags of a cell.

    Raises:
        InputError: the cell holds something else, for example after a manual edit.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    wrong = f"the cell is {json.dumps(found)[:80]}, not an object"
    if isinstance(found, dict):
        tags = _EMPTY_TAGS | {name: found[name] for name in TAG_NAMES if name in found}
        misfits = (
            f"{name} cannot be {json.dumps(tags[name])[:80]}" for name in TAG_NAMES if not _fits(name, tags[name])
        )
        wrong = next(misfits, "")
    if wrong:
        raise InputError(f"{table}, image {image_id}, tags: {wrong}; correct the cell")
    return clean_tags(tags)


def _fits(name: str, value: object) -> bool:
    """Tell whether a value has the type of its tag."""
    empty = _EMPTY_TAGS[name]
    if isinstance(empty, list):
        return isinstance(value, list) and all(
            isinstance(one, str) or (one is None and name == "form") for one in value
        )
    if isinstance(empty, str):
        return value in SUBJECT_COUNTS
    return isinstance(value, bool) if empty is False else value is None or isinstance(value, str)


def _words(values: Iterable[str]) -> list[str]:
    words = (snake_case(value) for value in values)
    return list(dict.fromkeys(word for word in words if word))[:MOST_VALUES]


def _individuals(names: Iterable[str], forms: Iterable[str | None]) -> tuple[list[str], list[str | None], set[str]]:
    """Return species and forms in parallel lists, and the species that are called shiny.

    A missing form becomes None, surplus forms are dropped, and the same species in the same form is listed once.
    """
    padded = list(forms)
    pairs: dict[tuple[str, str | None], None] = {}
    shiny: set[str] = set()
    for place, name in enumerate(names):
        slug, in_name = known_species().split_form(snake_case(name))
        given = snake_case(padded[place] or "") if place < len(padded) else ""
        words = {*given.split("_"), *(in_name or "").split("_")}
        if slug and _SHINY in words:
            shiny.add(slug)
        if slug:
            pairs[slug, _form(given, slug) or _form(in_name or "", slug)] = None
    kept = list(pairs)[:MOST_VALUES]
    return [name for name, _ in kept], [form for _, form in kept], shiny


def _species_of(name: str) -> str:
    return known_species().split_form(snake_case(name))[0]


def _form(text: str, species: str) -> str | None:
    """Return a form's usual name without its species: `mega_charizard_x` of `charizard` is `mega_x`."""
    before, form = "", text
    while form != before:
        before = form
        form = re.sub(rf"(?:^|_){re.escape(species)}(?=_|$)", "", form)
        words = (_FORM_SPELLINGS.get(word, word) for word in form.split("_") if word != _SHINY)
        form = snake_case("_".join(words))
    return None if not form or form in _BASE_FORMS else form
