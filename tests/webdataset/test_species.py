"""webdataset/species.py: names from captions become canonical species, or are dropped with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCRIPT = "webdataset/species.py"

KNOWN = {
    "pikachu": "pikachu",
    "Pikachu": "pikachu",
    "nidoran_female": "nidoran_female",
    "Nidoran♂": "nidoran_male",
    "mr_mime": "mr_mime",
    "Mr. Mime": "mr_mime",
    "type_null": "type_null",
    "porygon_z": "porygon_z",
    "porygon_2": "porygon2",
    "porygon": "porygon",
    "farfetchd": "farfetchd",
    "farfetch_d": "farfetchd",
    "ho_oh": "ho_oh",
    "hooh": "ho_oh",
    "flabebe": "flabebe",
    "flabébé": "flabebe",
    "mew_two": "mewtwo",
    "alolan_vulpix": "vulpix",
    "vulpix_alolan": "vulpix",
    "alolan_meowth": "meowth",
    "galarian_ponyta": "ponyta",
    "galarian_mr_mime": "mr_mime",
    "paldean_wooper": "wooper",
    "hisuian_arcanine": "arcanine",
    "mega_charizard_x": "charizard",
    "charizard_mega_x": "charizard",
    "shiny_mega_gardevoir": "gardevoir",
    "gigantamax_gengar": "gengar",
    "shiny_umbreon": "umbreon",
    "urshifu_rapid_strike": "urshifu",
    "hoopa_unbound": "hoopa",
    "deoxys_attack": "deoxys",
    "rotom_wash": "rotom",
    "porygon_z_shiny": "porygon_z",
    "meganium": "meganium",
}
UNKNOWN = ["ash", "cinnapup", "dragon_like_1", "fakemon", "shiny", "mega", "mega_ash", "pikachus", "nidoran", "", "?"]


@pytest.fixture
def catalogue(species_script: ModuleType) -> dict[str, str]:
    return species_script.read_catalogue()


@pytest.mark.parametrize(("token", "slug"), KNOWN.items())
def test_known_names(species_script: ModuleType, catalogue: dict[str, str], token: str, slug: str) -> None:
    assert species_script.species_of(token, catalogue) == slug


@pytest.mark.parametrize("token", UNKNOWN)
def test_unknown_names(species_script: ModuleType, catalogue: dict[str, str], token: str) -> None:
    assert species_script.species_of(token, catalogue) is None


def test_every_species_is_found_as_itself_and_in_its_forms(
    species_script: ModuleType, catalogue: dict[str, str]
) -> None:
    assert len(catalogue) == 1025
    for slug in catalogue.values():
        for token in (slug, f"shiny_{slug}", f"alolan_{slug}", f"{slug}_form", f"shiny_mega_{slug}_x"):
            assert species_script.species_of(token, catalogue) == slug


def test_species_keep_the_captions_order_without_repeats(species_script: ModuleType, catalogue: dict[str, str]) -> None:
    names = ["shiny_eevee", "a_dragon", "pikachu", "eevee", "alolan_raichu"]
    assert species_script.name_species(names, catalogue) == (["eevee", "pikachu", "raichu"], ["a_dragon"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tokens=st.lists(st.text(max_size=20), max_size=5))
def test_each_token_is_a_canonical_species_or_an_anomaly(
    species_script: ModuleType, catalogue: dict[str, str], tokens: list[str]
) -> None:
    species, anomalies = species_script.name_species(tokens, catalogue)
    assert set(species) <= set(catalogue.values())
    assert set(anomalies) <= set(tokens)
    assert len(species) + len(anomalies) <= len(tokens)


def write_captioned(dataset: Any, names: dict[str, object]) -> None:
    """Write both tables with images whose tags name these Pokémon; a text stands for the whole tags cell."""
    dataset.write_images({"image_id": image_id} for image_id in names)
    tags = {key: value if isinstance(value, str) else json.dumps({"pokemon": value}) for key, value in names.items()}
    dataset.write_base({"image_id": key, "path": f"{key}.png", "tags": text} for key, text in tags.items())


def test_species_are_written_and_counted(dataset: Any) -> None:
    write_captioned(dataset, {"a": ["pikachu", "shiny_eevee", "blob"], "b": ["eevee"], "c": ["type_null", "abra"]})
    finished = dataset.run(SCRIPT)
    assert (finished.code, finished.stderr.count("error")) == (0, 0)
    assert {key: row["species"] for key, row in dataset.base().items()} == {
        "a": "pikachu,eevee",
        "b": "eevee",
        "c": "type_null,abra",
    }
    text = (dataset.root / "metadata/species.csv").read_text()
    assert text == "pokemon,count\neevee,2\nabra,1\npikachu,1\ntype_null,1\n"
    assert not (dataset.root / "metadata/drops.csv").exists()
    summary = finished.summary
    assert (summary["seen"], summary["done"], summary["counts"]) == (3, 3, {"named": 3})
    assert (summary["images"], summary["species"], summary["dropped"], summary["unknown_names"]) == (3, 4, 0, 1)


def test_an_image_without_known_species_is_dropped_and_comes_back(
    dataset: Any, snapshot: Callable[[Path], Any], read_csv: Callable[[Path], list[dict[str, str]]]
) -> None:
    write_captioned(dataset, {"a": ["pikachu"], "b": ["ash", "dragon_like_1"], "c": []})
    assert dataset.run(SCRIPT).summary["counts"] == {"named": 1, "no_known_species": 2}
    assert {key: row["drop_reason"] for key, row in dataset.images().items()} == {
        "a": "",
        "b": "species:no_known_species",
        "c": "species:no_known_species",
    }
    assert [row["species"] for row in dataset.rows("base")] == ["pikachu", "", ""]
    drops = read_csv(dataset.root / "metadata/drops.csv")
    assert [(row["image_id"], row["stage"], row["reason"], row["detail"]) for row in drops] == [
        ("b", "species", "no_known_species", "names: ash, dragon_like_1"),
        ("c", "species", "no_known_species", "no names"),
    ]

    before = snapshot(dataset.root)
    assert dataset.run(SCRIPT).summary["done"] == 0
    assert snapshot(dataset.root) == before

    # Captions are merged anew: b is a Ditto after all, a is none of ours.
    rows = dataset.rows("base")
    rows[0]["tags"], rows[1]["tags"] = '{"pokemon": ["ash"]}', '{"pokemon": ["ditto"]}'
    dataset.write_base(rows)
    assert dataset.run(SCRIPT).summary["counts"] == {"named": 1, "no_known_species": 1}
    assert [row["species"] for row in dataset.rows("base")] == ["", "ditto", ""]
    reasons = [row["drop_reason"] for row in dataset.rows("images")]
    assert reasons == ["species:no_known_species", "", "species:no_known_species"]
    assert (dataset.root / "metadata/species.csv").read_text() == "pokemon,count\nditto,1\n"


def test_images_that_another_step_dropped_lose_their_species_and_keep_their_reason(dataset: Any) -> None:
    write_captioned(dataset, {"a": ["pikachu"], "b": ["eevee"], "c": ["abra"]})
    dataset.run(SCRIPT)
    reasons = {"a": "cap_filter:not_a_pokemon", "b": "takedown:request", "c": ""}
    dataset.write_images({"image_id": key, "drop_reason": reason} for key, reason in reasons.items())
    assert dataset.run(SCRIPT).summary["counts"] == {"emptied": 2}
    assert [row["species"] for row in dataset.rows("base")] == ["", "", "abra"]
    assert {key: row["drop_reason"] for key, row in dataset.images().items()} == reasons


@pytest.mark.parametrize("tags", ["not JSON", "[1]", '{"pokemon": "pikachu"}', '{"pokemon": [1]}'])
def test_bad_tags_fail_their_image_alone(dataset: Any, tags: str) -> None:
    write_captioned(dataset, {"a": tags, "b": ["eevee"]})
    finished = dataset.run(SCRIPT, "--strict")
    assert finished.code == 1
    assert finished.summary["errors"] == 1
    message = "a: bad_tags: the tags are not a JSON object with a list `pokemon`; caption the image again"
    assert message in finished.stderr
    assert [row["species"] for row in dataset.rows("base")] == ["", "eevee"]


def test_a_dry_run_changes_nothing(dataset: Any, snapshot: Callable[[Path], Any]) -> None:
    write_captioned(dataset, {"a": ["pikachu"], "b": ["ash"]})
    before = snapshot(dataset.root)
    finished = dataset.run(SCRIPT, "--dry-run")
    assert "dry run: 1 images of 1 species, 1 dropped as species:no_known_species" in finished.stderr
    assert snapshot(dataset.root) == before


def test_no_images_give_an_empty_count(dataset: Any) -> None:
    write_captioned(dataset, {})
    (dataset.root / "metadata/base.csv").write_text("image_id,path,tags\n")
    assert dataset.run(SCRIPT).code == 0
    assert (dataset.root / "metadata/species.csv").read_text() == "pokemon,count\n"


def test_without_captions_the_message_names_the_script_to_run(dataset: Any) -> None:
    dataset.write_images([{"image_id": "a"}])
    dataset.write_base([{"image_id": "a"}])
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == "error: metadata/base.csv has no column tags: run caption/sentence_tags.py first\n"
