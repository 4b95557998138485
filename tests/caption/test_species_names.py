"""Species and their forms, in tags and in sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokefa.errors import InputError
from pokefa.species.names import POPULARITY, Mention, Species, known_species, read_species

SPECIES = known_species()


@pytest.mark.parametrize(
    ("slug", "species", "form"),
    [
        ("charizard", "charizard", None),
        ("mega_charizard_x", "charizard", "mega_x"),
        ("alolan_vulpix", "vulpix", "alolan"),
        ("rotom_wash", "rotom", "wash"),
        ("shiny_galarian_mr_mime", "mr_mime", "shiny_galarian"),
        ("mew_two", "mewtwo", None),
        ("hooh", "ho_oh", None),
        ("porygon_2", "porygon2", None),
        ("porygon_z", "porygon_z", None),
        ("nidoran_female", "nidoran_female", None),
        ("eevee_and_umbreon", "eevee_and_umbreon", None),
        ("fakemon", "fakemon", None),
        ("", "", None),
    ],
)
def test_a_form_is_told_from_its_species(slug: str, species: str, form: str | None) -> None:
    assert SPECIES.split_form(slug) == (species, form)


def test_every_species_is_its_own_species() -> None:
    assert len(SPECIES.slugs) == 1025
    assert [slug for slug in SPECIES.slugs if SPECIES.split_form(slug) != (slug, None)] == []


def test_every_species_is_found_by_its_own_name() -> None:
    names = [line.split(",", 1)[1] for line in POPULARITY.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(names) == 1025
    for name in names:
        (found,) = SPECIES.mentions_in(f"Here {name} sleeps.")
        assert found.name in SPECIES.slugs or found.name == "nidoran"


def test_a_longer_name_is_not_also_the_shorter_one() -> None:
    named = [one.name for one in SPECIES.mentions_in("Porygon-Z meets Mewtwo and Mime Jr. near the old mill.")]
    assert named == ["porygon_z", "mewtwo", "mime_jr"]


@pytest.mark.parametrize(
    ("sentence", "described"),
    [
        ("A Shiny Mega Charizard X roars.", {"shiny", "mega"}),
        ("Two Alolan Vulpixes nap.", {"alolan"}),
        ("Two Gigantamax Pikachus wave.", {"gigantamax"}),
        ("A shiny apple lies before Charizard.", set()),
    ],
)
def test_what_is_said_of_a_species_stands_before_it(sentence: str, described: set[str]) -> None:
    assert [one.described for one in SPECIES.mentions_in(sentence)] == [described]


def test_a_list_of_ones_own() -> None:
    own = Species(["Umbreon", "Mr. Moon"])
    assert own.mentions_in("Umbreon and Shiny Mr. Moon.") == [
        Mention("umbreon", frozenset()),
        Mention("mr_moon", frozenset({"shiny"})),
    ]
    assert Species([]).mentions_in("Umbreon sleeps.") == []


def test_a_list_that_cannot_be_read_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_species(tmp_path / "none.csv")
    assert str(caught.value).startswith(f"{tmp_path}/none.csv cannot be read as a CSV with a column name: ")
    (tmp_path / "other.csv").write_text("species\nUmbreon\n")
    with pytest.raises(InputError) as caught:
        read_species(tmp_path / "other.csv")
    assert str(caught.value) == f"{tmp_path}/other.csv cannot be read as a CSV with a column name: 'name'"
