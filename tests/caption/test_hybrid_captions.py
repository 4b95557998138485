"""The training caption: the order of tags, and the budget of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caption.hybrid_captions import (
    SMALLEST_BUDGET,
    Hybrid,
    compose,
    cut,
    hybrid_caption,
    ordered_tags,
    species_phrases,
)
from caption.tags import ART_STYLE, COMPOSITION, OPEN_LISTS, Tags, clean_sentence, clean_tags
from caption.tokens import load_token_counter
from pokefa.species.names import known_species
from tests.caption.conftest import FACTS
from tests.conftest import Dataset

SCRIPT = "caption/hybrid_captions.py"
count = load_token_counter()
SENTENCE = "Umbreon sleeps on a stone."
HYBRID = (
    "Umbreon sleeps on a mossy stone under the full moon in forest number 0. | umbreon, glowing rings, curled up, "
    "sleeping, stone, outdoors, forest, night, clear, full moon, digital painting, full body"
)

Ready = Callable[..., list[str]]


def tags(**changes: Any) -> Tags:
    return clean_tags({**FACTS, **changes})


@pytest.mark.parametrize(
    ("pokemon", "form", "shiny", "phrases"),
    [
        (["umbreon"], [None], [], ["umbreon"]),
        (["umbreon"], [None], ["umbreon"], ["shiny_umbreon"]),
        (["charizard"], ["mega_x"], ["charizard"], ["shiny_mega_charizard_x"]),
        (["absol"], ["mega"], [], ["mega_absol"]),
        (["vulpix", "mr_mime"], ["alolan", "galarian"], ["mr_mime"], ["alolan_vulpix", "shiny_galarian_mr_mime"]),
        (["gastrodon"], ["east_sea"], [], ["east_sea_gastrodon"]),
        (["unown"], ["x"], [], ["x_unown"]),
        (["mega_charizard_x"], [None], ["charizard"], ["shiny_mega_charizard_x"]),
        (["pikachu", "pikachu"], [None, "libre"], ["pikachu"], ["shiny_pikachu", "shiny_libre_pikachu"]),
        ([], [], [], []),
    ],
)
def test_species_are_written_as_people_say_them(
    pokemon: list[str], form: list[str | None], shiny: list[str], phrases: list[str]
) -> None:
    assert species_phrases(tags(pokemon=pokemon, form=form, shiny_pokemon=shiny)) == phrases


def test_tags_stand_in_order_and_once() -> None:
    everything = tags(
        pokemon=["umbreon", "eevee"], form=[None, None], gijinka=True, trainer_presence=True, multi_panel=True,
        characteristics=["red_eyes"], pose=["sitting"], actions=["reading"], outfit=["scarf"], props=["book"],
        environment=["forest"], biome=["forest"], background=["trees", "scarf"],
    )  # fmt: skip
    assert ordered_tags(everything) == [
        "umbreon", "eevee", "gijinka", "trainer", "red_eyes", "sitting", "reading", "scarf", "book", "forest", "night",
        "clear", "trees", "digital_painting", "full_body", "multi_panel", "multiple_subjects",
    ]  # fmt: skip


def make(sentence: str, tags: Tags, budget: int = 77, *, keep_underscores: bool = False) -> Hybrid:
    return hybrid_caption(sentence, tags, budget, count, keep_underscores=keep_underscores)


def test_sentence_and_tags_become_one_caption() -> None:
    assert make(FACTS["caption"], tags()) == Hybrid(HYBRID)
    assert ", glowing_rings, curled_up, " in make(SENTENCE, tags(), keep_underscores=True).text


def test_shiny_and_form_stand_with_the_species() -> None:
    sentence = "Shiny Mega Charizard X breathes blue fire across a ruined tower."
    text = make(sentence, tags(pokemon=["charizard"], form=["mega_x"], shiny_pokemon=["charizard"])).text
    assert text.startswith(f"{sentence} | shiny mega charizard x, glowing rings, ")


def test_a_sentence_without_tags_stands_alone() -> None:
    bare = clean_tags({**FACTS, **{name: [] for name, value in FACTS.items() if isinstance(value, list)},
                       "time_of_day": None, "weather": None})  # fmt: skip
    assert make(SENTENCE, bare) == Hybrid(SENTENCE)


@pytest.mark.parametrize("budget", range(SMALLEST_BUDGET, 52))
def test_no_tag_is_cut_in_half(budget: int) -> None:
    full = make(SENTENCE, tags(), 1000).text
    made = make(SENTENCE, tags(), budget)
    assert count(made.text) <= budget
    assert full == made.text or full.startswith((made.text + ", ", made.text + " | "))
    left_out = full.removeprefix(made.text).lstrip(",| ").split(", ")
    assert made.tags_left_out == len([tag for tag in left_out if tag])
    if full != made.text:
        assert count(f"{made.text}, {left_out[0]}") > budget  # one more would not have fitted


def test_a_long_sentence_makes_room_for_the_species() -> None:
    sentence = "Umbreon sleeps on a mossy stone under the full moon, while fireflies drift through the dark forest."
    made = make(sentence, tags(), 18)
    # There is room for the comma behind the moon, but not for the word after it.
    assert made == Hybrid("Umbreon sleeps on a mossy stone under the full moon | umbreon", True, 11)
    assert make(sentence, tags(pokemon=[], form=[]), 18) == Hybrid(
        "Umbreon sleeps on a mossy stone under the full moon, while fireflies", True, 11
    )


def test_many_species_take_half_of_the_budget() -> None:
    names = ["bulbasaur", "charmander", "squirtle", "caterpie", "weedle", "pidgey", "rattata", "spearow", "ekans"]
    many = tags(pokemon=names, form=[None] * len(names))
    sentence = "Nine small friends " + "of many kinds " * 12
    made = make(sentence.strip(), many, 60)
    cut, _, kept = made.text.partition(" | ")
    assert made.sentence_cut
    assert kept == "bulbasaur, charmander, squirtle, caterpie, weedle, pidgey, rattata, spearow"
    assert count(kept) <= 30 < count(f"{kept}, ekans")
    assert sentence.startswith(cut + " ")
    assert count(made.text) <= 60


SPECIES = sorted(known_species().slugs)
WORDS = st.text(st.sampled_from("abcdefghij  ',.-—é!?0123月"), max_size=30)
FORMS = st.none() | st.sampled_from(["mega", "mega_x", "alolan", "gigantamax"])
PAIRS = st.lists(st.tuples(st.sampled_from(SPECIES), FORMS), max_size=8)


@st.composite
def tag_sets(draw: st.DrawFn) -> Tags:
    pairs = draw(PAIRS)
    lists = {name: draw(st.lists(WORDS, max_size=5)) for name in OPEN_LISTS}
    lists |= {name: draw(st.lists(st.sampled_from(words), max_size=3))
              for name, words in (("composition", COMPOSITION), ("art_style", ART_STYLE))}  # fmt: skip
    named = [name for name, _ in pairs]
    shiny = draw(st.lists(st.sampled_from(named), max_size=3)) if named else []
    return tags(pokemon=named, form=[form for _, form in pairs], shiny_pokemon=shiny, **lists)


@settings(max_examples=60)
@given(st.lists(WORDS, max_size=25).map(" ".join), tag_sets(), st.integers(SMALLEST_BUDGET, 120), st.booleans())
def test_whatever_is_cut_fits_is_whole_and_names_the_species(
    text: str, drawn: Tags, budget: int, keep_underscores: bool
) -> None:
    sentence = clean_sentence(text)
    made = make(sentence, drawn, budget, keep_underscores=keep_underscores)
    assert count(made.text) <= budget

    values = [tag if keep_underscores else tag.replace("_", " ") for tag in ordered_tags(drawn)]
    kept = values[: len(values) - made.tags_left_out]
    words = sentence.split(" ")
    beginnings = [compose(cut(words, number), kept) for number in range(len(words) + 1)]
    assert made.text in beginnings  # whole words and whole tags, in order, from the first on
    assert made.sentence_cut == (made.text != beginnings[-1])
    assert len(set(kept)) == len(kept)

    names = values[: len(set(species_phrases(drawn)))]
    assert kept[:1] == names[:1] or not names  # the first species is never lost
    if count(", ".join(names)) <= budget // 2:
        assert kept[: len(names)] == names  # nor is any while they leave half of the budget


@settings(max_examples=60)
@given(st.lists(WORDS, max_size=25).map(" ".join), tag_sets(), st.integers(SMALLEST_BUDGET, 120))
def test_more_tokens_never_give_fewer_tags(text: str, drawn: Tags, budget: int) -> None:
    sentence = clean_sentence(text)
    assert make(sentence, drawn, budget + 1).tags_left_out <= make(sentence, drawn, budget).tags_left_out


def test_captions_are_written_and_then_left_alone(dataset: Dataset, ready: Ready) -> None:
    ids = ready(3, [(FACTS["caption"], FACTS), ("Umbreon runs.", tags(shiny_pokemon=["umbreon"]))])
    finished = dataset.run(SCRIPT)
    assert finished.code == 0, finished.stderr
    table = dataset.base()
    assert table[ids[0]]["hybrid_caption"] == HYBRID
    assert table[ids[1]]["hybrid_caption"].startswith("Umbreon runs. | shiny umbreon, glowing rings, ")
    assert table[ids[2]]["hybrid_caption"] == ""
    assert (finished.summary["seen"], finished.summary["done"], finished.summary["counts"]) == (2, 2, {"written": 2})
    facts = [finished.summary[name] for name in ("max_tokens", "tags_left_out_of", "sentences_cut")]
    assert facts == [77, 0, 0]

    before = {path: path.read_bytes() for path in dataset.root.rglob("*.csv")}
    journals = list((dataset.root / "metadata" / "runs").glob("*.jsonl"))
    again = dataset.run(SCRIPT)
    assert (again.summary["seen"], again.summary["done"]) == (2, 0)
    assert {path: path.read_bytes() for path in dataset.root.rglob("*.csv")} == before
    assert list((dataset.root / "metadata" / "runs").glob("*.jsonl")) == journals


def test_a_changed_caption_is_followed(dataset: Dataset, ready: Ready) -> None:
    ids = ready(2, [(FACTS["caption"], FACTS), ("Umbreon runs.", FACTS)])
    dataset.run(SCRIPT)
    path = dataset.root / "metadata" / "base.csv"
    path.write_text(path.read_text().replace("Umbreon runs.,", "Umbreon flies.,"))
    finished = dataset.run(SCRIPT)
    assert (finished.summary["done"], finished.summary["counts"]) == (1, {"written": 1})
    assert dataset.base()[ids[1]]["hybrid_caption"].startswith("Umbreon flies. | ")


def test_a_caption_that_was_taken_out_takes_its_hybrid_along(dataset: Dataset, ready: Ready) -> None:
    ids = ready(1, [("Umbreon runs.", FACTS)])
    dataset.run(SCRIPT)
    dataset.write_base([{**dataset.base()[ids[0]], "caption": ""}])
    assert dataset.run(SCRIPT).summary["counts"] == {"emptied": 1}
    assert dataset.base()[ids[0]]["hybrid_caption"] == ""


def test_dropped_images_get_none(dataset: Dataset, ready: Ready) -> None:
    ids = ready(2, [(FACTS["caption"], FACTS)] * 2)
    rows = [dict(row) for row in dataset.rows("images")]
    rows[0]["drop_reason"] = "cap_filter:no_species"
    dataset.write_images(rows)
    assert dataset.run(SCRIPT).summary["seen"] == 1
    assert dataset.base()[ids[0]]["hybrid_caption"] == ""


def test_budget_and_underscores_are_flags(dataset: Dataset, ready: Ready) -> None:
    (image_id,) = ready(1, [("Umbreon runs.", FACTS)])
    finished = dataset.run(SCRIPT, "--max-tokens", 16, "--keep-underscores")
    assert dataset.base()[image_id]["hybrid_caption"] == "Umbreon runs. | umbreon, glowing_rings"
    assert (finished.summary["max_tokens"], finished.summary["tags_left_out_of"]) == (16, 1)
    dataset.run(SCRIPT, "--max-tokens", 20)
    assert (
        dataset.base()[image_id]["hybrid_caption"]
        == "Umbreon runs. | umbreon, glowing rings, curled up, sleeping, stone"
    )


def test_a_dry_run_writes_nothing(dataset: Dataset, ready: Ready) -> None:
    ready(1, [("Umbreon runs.", FACTS)])
    finished = dataset.run(SCRIPT, "--dry-run")
    assert finished.summary["counts"] == {"written": 1}
    assert "hybrid_caption" not in (dataset.root / "metadata" / "base.csv").read_text()


def test_a_budget_too_small_is_wrong_usage(run_script: Callable[..., Any]) -> None:
    finished = run_script(SCRIPT, "--max-tokens", "15")
    assert finished.code == 2
    assert "error: --max-tokens 15 is too few for a caption: give at least 16" in finished.stderr
