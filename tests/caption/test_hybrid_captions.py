"""The training caption: the order of tags, and the budget of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption.hybrid_captions import hybrid_caption, ordered_tags, species_phrases
from caption.tags import Tags, clean_tags
from caption.tokens import token_bound
from tests.caption.conftest import FACTS
from tests.conftest import Dataset

SCRIPT = "caption/hybrid_captions.py"
SENTENCE = "Umbreon sleeps on a stone."
HYBRID = (
    "Umbreon sleeps on a mossy stone under the full moon in forest number 0. | umbreon, glowing rings, curled up, "
    "sleeping, stone, outdoors, forest, night, clear, full moon, digital painting"
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


def test_sentence_and_tags_become_one_caption() -> None:
    assert hybrid_caption(SENTENCE, tags(), 77).startswith(
        "Umbreon sleeps on a stone. | umbreon, glowing rings, curled"
    )
    assert ", glowing_rings, curled_up, " in hybrid_caption(SENTENCE, tags(), 77, keep_underscores=True)


def test_a_sentence_without_tags_stands_alone() -> None:
    bare = clean_tags({**FACTS, **{name: [] for name, value in FACTS.items() if isinstance(value, list)},
                       "time_of_day": None, "weather": None})  # fmt: skip
    assert hybrid_caption(SENTENCE, bare, 77) == SENTENCE


@pytest.mark.parametrize("budget", range(16, 90))
def test_no_tag_is_cut_in_half(budget: int) -> None:
    full = hybrid_caption(SENTENCE, tags(), 1000)
    caption = hybrid_caption(SENTENCE, tags(), budget)
    names = {"umbreon"}
    assert token_bound(caption, names) <= budget
    assert full == caption or full.startswith((caption + ", ", caption + " | "))
    if full != caption:
        following = full.removeprefix(caption).lstrip(",| ").split(",")[0]
        joint = ", " if " | " in caption else " | "
        assert token_bound(f"{caption}{joint}{following}", names) > budget  # one more would not have fitted


def test_a_sentence_over_the_budget_ends_with_a_word() -> None:
    sentence = "Umbreon sleeps on a mossy stone under the full moon while fireflies drift through the dark forest."
    caption = hybrid_caption(sentence, tags(), 20)
    assert sentence.startswith(caption + " ")
    assert " | " not in caption
    assert token_bound(caption, {"umbreon"}) <= 20
    assert hybrid_caption("", tags(), 16) != ""


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("", 2),
        ("a cat", 4),
        ("the moon", 5),
        ("under", 4),
        ("fireflies", 5),
        ("Moon, moon.", 8),
        ("2024", 6),
        ("|", 3),
        ("月", 5),
        ("flabébé", 2 + 2 + 2 + 1 + 2),
    ],
)
def test_the_bound_is_what_its_documentation_says(text: str, bound: int) -> None:
    assert token_bound(text) == bound


def test_names_count_for_more() -> None:
    assert token_bound("umbreon", {"umbreon"}) == 2 + 4
    assert token_bound("Umbreon") == 2 + 3
    assert token_bound("mew", {"mew"}) == 2 + 1


# True counts of CLIP's tokenizer, the two marks included, made once with the published vocabulary
# bpe_simple_vocab_16e6: hardest of the species names, and captions as the stage writes them.
@pytest.mark.parametrize(
    ("text", "names", "tokens"),
    [
        ("jynx", "jynx", 5),
        ("pyukumuku", "pyukumuku", 7),
        ("krookodile", "krookodile", 7),
        ("skorupi", "skorupi", 6),
        ("xurkitree", "xurkitree", 6),
        ("fezandipiti", "fezandipiti", 7),
        (HYBRID, "umbreon", 46),
        ("Shiny Mega Charizard X breathes blue fire across a ruined tower in the pouring rain.", "charizard", 21),
    ],
)
def test_the_bound_is_above_the_true_count(text: str, names: str, tokens: int) -> None:
    assert token_bound(text, {names}) >= tokens


@given(st.text(), st.text())
def test_the_bound_grows_with_the_text(first: str, second: str) -> None:
    assert token_bound(first) <= token_bound(f"{first} {second}")


def test_captions_are_written_and_then_left_alone(dataset: Dataset, ready: Ready) -> None:
    ids = ready(3, [(FACTS["caption"], FACTS), ("Umbreon runs.", tags(shiny_pokemon=["umbreon"]))])
    finished = dataset.run(SCRIPT)
    assert finished.code == 0, finished.stderr
    table = dataset.base()
    assert table[ids[0]]["hybrid_caption"] == HYBRID
    assert table[ids[1]]["hybrid_caption"].startswith("Umbreon runs. | shiny umbreon, glowing rings, ")
    assert table[ids[2]]["hybrid_caption"] == ""
    assert (finished.summary["seen"], finished.summary["done"], finished.summary["counts"]) == (2, 2, {"written": 2})

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
    dataset.run(SCRIPT, "--max-tokens", 16, "--keep-underscores")
    assert dataset.base()[image_id]["hybrid_caption"] == "Umbreon runs. | umbreon"
    dataset.run(SCRIPT, "--max-tokens", 24, "--keep-underscores")
    assert dataset.base()[image_id]["hybrid_caption"] == "Umbreon runs. | umbreon, glowing_rings"


def test_a_dry_run_writes_nothing(dataset: Dataset, ready: Ready) -> None:
    ready(1, [("Umbreon runs.", FACTS)])
    finished = dataset.run(SCRIPT, "--dry-run")
    assert finished.summary["counts"] == {"written": 1}
    assert "hybrid_caption" not in (dataset.root / "metadata" / "base.csv").read_text()


def test_a_budget_too_small_is_wrong_usage(run_script: Callable[..., Any]) -> None:
    finished = run_script(SCRIPT, "--max-tokens", "15")
    assert finished.code == 2
    assert "error: --max-tokens 15 is too few for a caption: give at least 16" in finished.stderr
