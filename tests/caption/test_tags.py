"""The schema of captions, and the cleaning of what a model answers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption.sentence_tags import QUESTION
from caption.tags import (
    ART_STYLE,
    COMPOSITION,
    LONGEST_SENTENCE,
    LONGEST_WORD,
    MOST_VALUES,
    OPEN_LISTS,
    TAG_NAMES,
    clean_answer,
    clean_sentence,
    clean_tags,
    snake_case,
    tags_from_cell,
    tags_to_cell,
)
from demo.standins.openai_sloppy import SLOPPY
from pokefa.errors import InputError
from pokefa.llm.prompt import AnswerError
from pokefa.llm.reading import read_text
from tests.caption.conftest import FACTS

TAGS = {name: FACTS[name] for name in TAG_NAMES}


def test_the_schema_knows_every_tag_and_has_not_changed() -> None:
    """It is part of what an answer is stored under: with another one, all stored answers would be paid for again."""
    schema = QUESTION.schema
    assert list(schema["properties"]) == schema["required"] == ["caption", *TAG_NAMES] == list(FACTS)
    digest = hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()
    assert digest == "a5ca03548ca142ed8d4349b2e0f600dec9ff194899e5d6939e808cef2ccf5ec2"


@pytest.mark.parametrize("name", SLOPPY)
def test_a_sloppy_answer_is_the_same_caption(name: str) -> None:
    value, _, deviations = read_text(SLOPPY[name](FACTS), QUESTION)
    assert value == clean_answer(FACTS)
    assert deviations == (set() if name in ("integer_as_float", "number_as_text") else {name})  # it holds no number


def test_words_that_are_not_on_the_list_are_dropped_and_the_others_kept() -> None:
    value, _, _ = read_text(json.dumps({**FACTS, "art_style": ["anime", "wonderful"], "weather": "None"}), QUESTION)
    assert (value.tags["art_style"], value.tags["weather"]) == (["anime"], None)


def test_a_good_answer_comes_through_unchanged() -> None:
    caption = clean_answer(FACTS)
    assert caption.sentence == FACTS["caption"]
    assert caption.tags == TAGS


def test_an_answer_without_a_sentence_has_a_reason() -> None:
    with pytest.raises(AnswerError) as caught:
        clean_answer({**FACTS, "caption": " ... "})
    assert str(caught.value) == "empty_caption: ' ... ' holds no sentence"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Umbreon sleeps.", "Umbreon sleeps."),
        ("umbreon sleeps", "Umbreon sleeps."),
        ("Umbreon\n  sleeps\tnow.", "Umbreon sleeps now."),
        ("Umbreon sleeps. It is night.", "Umbreon sleeps."),
        ("Does Umbreon sleep? Yes.", "Does Umbreon sleep?"),
        ('"Umbreon sleeps."', "Umbreon sleeps."),
        ("**Umbreon sleeps.**", "Umbreon sleeps."),
        ('Umbreon reads "The Moon."', 'Umbreon reads "The Moon."'),
        ("Mr. Mime juggles beside Mime Jr. on a stage.", "Mr. Mime juggles beside Mime Jr. on a stage."),
        ("Porygon2 measures 3.5 cubes.", "Porygon2 measures 3.5 cubes."),
        ("Umbreon sleeps,", "Umbreon sleeps."),
        ("\u201cUmbreon sleeps\u201d", "Umbreon sleeps."),
        ("Farfetch\u2019d reads \u201cThe Leek.\u201d Then it naps.", 'Farfetch\'d reads "The Leek."'),
        ("Umbreon | sleeps", "Umbreon / sleeps."),
        ("Umbreon\x00 sle\ud800eps.", "Umbreon sle?eps."),
        (
            "Umbreon \x1b[31m\u202egnp.\u2066 sle\u200beps 👨\u200d👩\u200d👧.",
            "Umbreon [31mgnp. sleeps 👨\u200d👩\u200d👧.",
        ),
        ("", ""),
        ("?!", ""),
    ],
)
def test_a_caption_is_one_sentence(text: str, sentence: str) -> None:
    assert clean_sentence(text) == sentence


def test_a_sentence_without_end_is_cut_between_words() -> None:
    sentence = clean_sentence("word " * 200)
    assert sentence == "Word" + " word" * (LONGEST_SENTENCE // 5 - 1) + "."


@given(st.text(alphabet=st.characters()))
def test_a_cleaned_sentence_is_clean(text: str) -> None:
    sentence = clean_sentence(text)
    sentence.encode("utf-8")
    assert len(sentence) <= LONGEST_SENTENCE + 1
    assert len(sentence.splitlines()) <= 1
    assert sentence == "" or any(end in sentence for end in ".!?…")
    assert " | " not in sentence
    assert clean_sentence(sentence) == sentence


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Poké Ball", "poke_ball"),
        ("looking-back", "looking_back"),
        ("Mr. Mime", "mr_mime"),
        ("Nidoran♀", "nidoran_female"),
        ("  rim   light ", "rim_light"),
        ("N/A", ""),
        ("unknown", ""),
        ("none", ""),
        ("月", ""),
        ("a_" * 40, "a_" * 19 + "a"),
        ("b" * 60, "b" * LONGEST_WORD),
    ],
)
def test_words_are_snake_case(text: str, word: str) -> None:
    assert snake_case(text) == word


def cleaned(**changes: Any) -> dict[str, Any]:
    return clean_tags({**FACTS, **changes})


@pytest.mark.parametrize("name", OPEN_LISTS)
def test_open_lists_are_cleaned(name: str) -> None:
    values = ["Poké Ball", "poke_ball", "", "none", "Red  Scarf!"]
    assert cleaned(**{name: values})[name] == ["poke_ball", "red_scarf"]
    assert len(cleaned(**{name: [f"thing {number}" for number in range(99)]})[name]) == MOST_VALUES


@pytest.mark.parametrize(("name", "words"), [("composition", COMPOSITION), ("art_style", ART_STYLE)])
def test_closed_lists_hold_their_own_words_only(name: str, words: tuple[str, ...]) -> None:
    assert cleaned(**{name: ["best_ever", words[3].replace("_", " ").title(), words[0], words[0]]})[name] == [
        words[3],
        words[0],
    ]
    assert len(set(words)) == len(words)
    assert all(snake_case(word) == word for word in words)


@pytest.mark.parametrize("name", ["time_of_day", "weather"])
def test_moments_are_a_word_or_nothing(name: str) -> None:
    assert cleaned(**{name: "Golden Hour"})[name] == "golden_hour"
    for nothing in (None, "", "unknown", "N/A"):
        assert cleaned(**{name: nothing})[name] is None


@pytest.mark.parametrize(
    ("species", "forms", "expected"),
    [
        (["Charizard"], ["Mega Charizard X"], (["charizard"], ["mega_x"])),
        (["vulpix"], ["alolan"], (["vulpix"], ["alolan"])),
        (["vulpix"], ["Alolan Vulpix"], (["vulpix"], ["alolan"])),
        (["vulpix"], ["normal"], (["vulpix"], [None])),
        (["vulpix", "eevee"], [None], (["vulpix", "eevee"], [None, None])),
        (["vulpix"], [None, "mega", "mega"], (["vulpix"], [None])),
        (["pikachu", "pikachu"], [None, "gigantamax"], (["pikachu", "pikachu"], [None, "gigantamax"])),
        (["pikachu", "Pikachu", "eevee"], [None, None, "x"], (["pikachu", "eevee"], [None, "x"])),
        (["unknown", "eevee"], ["mega", None], (["eevee"], [None])),
        (["mega_charizard_x"], [None], (["charizard"], ["mega_x"])),
        (["Alolan Vulpix"], ["Alola Form"], (["vulpix"], ["alolan"])),
        (["rotom_wash"], ["wash"], (["rotom"], ["wash"])),
        (["mew_two", "Ho Oh"], [None, None], (["mewtwo", "ho_oh"], [None, None])),
        (["shiny_umbreon"], ["shiny"], (["umbreon"], [None])),
        (["pikachu"], ["gmax"], (["pikachu"], ["gigantamax"])),
        (["absol"], ["mega evolution"], (["absol"], ["mega"])),
        (["eevee_and_umbreon"], [None], (["eevee_and_umbreon"], [None])),
        ([], ["mega"], ([], [])),
    ],
)
def test_forms_stand_beside_their_species(
    species: list[str], forms: list[str | None], expected: tuple[list[str], list[str | None]]
) -> None:
    tags = cleaned(pokemon=species, form=forms)
    assert (tags["pokemon"], tags["form"]) == expected


def test_only_what_is_there_can_be_shiny() -> None:
    assert cleaned(pokemon=["umbreon", "eevee"], shiny_pokemon=["Eevee", "mew", "eevee"])["shiny_pokemon"] == ["eevee"]


@pytest.mark.parametrize(
    ("pokemon", "form", "shiny"),
    [
        (["shiny_umbreon"], [None], []),
        (["umbreon"], ["shiny"], []),
        (["umbreon"], [None], ["Shiny Umbreon"]),
        (["alolan_vulpix", "umbreon"], ["shiny", None], ["mega_umbreon"]),
    ],
)
def test_shiny_may_stand_in_the_wrong_place(pokemon: list[str], form: list[str | None], shiny: list[str]) -> None:
    tags = cleaned(pokemon=pokemon, form=form, shiny_pokemon=shiny)
    assert tags["shiny_pokemon"] == tags["pokemon"]
    assert "shiny" not in str(tags["form"])


def test_two_species_are_more_than_one_subject() -> None:
    assert cleaned(pokemon=["umbreon", "eevee"], subject_count="single")["subject_count"] == "multiple"
    assert cleaned(pokemon=["umbreon"], subject_count="multiple")["subject_count"] == "multiple"
    assert cleaned(pokemon=["umbreon"], subject_count="single")["subject_count"] == "single"


STRINGS = st.lists(st.text(alphabet=st.characters(), max_size=60), max_size=20)
ANSWERS = st.fixed_dictionaries(
    {
        "caption": st.text(),
        "pokemon": STRINGS,
        "form": st.lists(st.none() | st.text(max_size=60), max_size=20),
        "shiny_pokemon": STRINGS,
        "subject_count": st.sampled_from(["single", "multiple"]),
        **dict.fromkeys(("trainer_presence", "gijinka", "multi_panel"), st.booleans()),
        **dict.fromkeys(("time_of_day", "weather"), st.none() | st.text(max_size=60)),
        **dict.fromkeys((*OPEN_LISTS, "composition", "art_style"), STRINGS),
    }
)


@given(ANSWERS)
def test_whatever_fits_the_schema_becomes_clean_tags(answer: dict[str, Any]) -> None:
    tags = clean_tags(answer)
    assert list(tags) == list(TAG_NAMES)
    assert len(tags["form"]) == len(tags["pokemon"])
    assert set(tags["shiny_pokemon"]) <= set(tags["pokemon"])
    words = [word for value in tags.values() if isinstance(value, list) for word in value if word is not None]
    assert all(word == snake_case(word) != "" for word in words)
    assert clean_tags({**answer, **tags}) == tags
    assert tags_from_cell("an_id", tags_to_cell(tags)) == tags


def test_the_cell_of_tags_has_sorted_keys() -> None:
    cell = tags_to_cell(TAGS)
    assert list(json.loads(cell)) == sorted(TAG_NAMES)
    assert tags_from_cell("an_id", cell) == TAGS


def test_tags_of_an_edited_cell_are_completed_and_cleaned() -> None:
    tags = tags_from_cell("an_id", '{"pokemon": ["Mr. Mime"], "mine": 1}')
    assert (tags["pokemon"], tags["form"], tags["pose"], tags["gijinka"]) == (["mr_mime"], [None], [], False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("umbreon", 'the cell is "umbreon", not an object'),
        ("3", "the cell is 3, not an object"),
        ('{"pokemon": "umbreon"}', 'pokemon cannot be "umbreon"'),
        ('{"pose": [null]}', "pose cannot be [null]"),
        ('{"gijinka": "yes"}', 'gijinka cannot be "yes"'),
        ('{"weather": 1}', "weather cannot be 1"),
        ('{"subject_count": "few"}', 'subject_count cannot be "few"'),
    ],
)
def test_a_cell_without_tags_is_wrong_input(text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        tags_from_cell("an_id", text)
    assert str(caught.value) == f"metadata/base.csv, image an_id, tags: {problem}; correct the cell"
