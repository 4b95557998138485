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
from rapidfuzz.distance import OSA

from pokefa.species.matching import MIN_SCORE, Match, SpeciesMatcher
from pokefa.species.names import known_species
from tests.conftest import names_in

SCRIPT = "webdataset/species.py"
SPELLINGS = known_species().run_together

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

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
OTHER_ORDERS = {
    "nidoran_f": "nidoran_female",
    "female_nidoran": "nidoran_female",
    "shiny_male_nidoran": "nidoran_male",
    "megacharizard": "charizard",
    "shinyumbreon": "umbreon",
    "ash_greninja": "greninja",
    "mega_primal_thing_rayquaza": "rayquaza",
}
MISSPELLED = {
    "giraffarig": ("girafarig", 9 / 10),
    "coffagrigus": ("cofagrigus", 10 / 11),
    "lucairo": ("lucario", 6 / 7),
    "pikachus": ("pikachu", 7 / 8),
    "alolan_vulpixx": ("vulpix", 6 / 7),
    "mega_charzard_x": ("charizard", 8 / 9),
    "urshifuu_rapid_strike": None,
    "gyarrados_angry": ("gyarados", 8 / 9),
    "tranquilly": ("tranquill", 9 / 10),
}
UNKNOWN = [
    "ash", "cinnapup", "dragon_like_1", "fakemon", "shiny", "mega", "mega_ash", "nidoran", "", "?", "pokemon", "zebra",
    "pikachu_like", "eevee_fusion", "fire_fox", "haunted_doll", "golden_dragon", "porygon3", "eevee_umbreon", "pikablu",
]  # fmt: skip


@pytest.fixture(scope="module")
def matcher() -> SpeciesMatcher:
    return SpeciesMatcher(known_species())


@pytest.mark.parametrize(("name", "slug"), [*KNOWN.items(), *OTHER_ORDERS.items(), ("tapufini", "tapu_fini")])
def test_known_names(matcher: SpeciesMatcher, name: str, slug: str) -> None:
    match = matcher.match(name)
    assert match is not None
    assert (match.species, match.score) == (slug, 1.0)


@pytest.mark.parametrize(("name", "expected"), MISSPELLED.items())
def test_misspelled_names(matcher: SpeciesMatcher, name: str, expected: tuple[str, float] | None) -> None:
    match = matcher.match(name)
    if expected is None:  # one edit of 7 letters is too much beside words that are no known form
        assert match is None
        return
    assert match is not None
    assert match.species == expected[0]
    assert match.score == pytest.approx(expected[1])


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_names(matcher: SpeciesMatcher, name: str) -> None:
    assert matcher.match(name) is None


def test_a_form_is_what_stands_beside_the_species(matcher: SpeciesMatcher) -> None:
    assert matcher.match("Mega Charizard X") == Match("charizard", "mega_x", 1.0)
    assert matcher.match("mega_charzard_x") == Match("charizard", "mega_x", pytest.approx(8 / 9))


def test_every_species_is_found_as_itself_and_in_its_forms(matcher: SpeciesMatcher) -> None:
    slugs = known_species().slugs
    assert len(slugs) == 1025
    for slug in slugs:
        forms = (slug, slug.replace("_", ""), f"shiny_{slug}", f"alolan_{slug}", f"{slug}_form", f"mega_{slug}_x")
        for name in forms:
            match = matcher.match(name)
            assert match is not None, name
            assert (match.species, match.score) == (slug, 1.0)


def test_another_score_takes_more_or_fewer() -> None:
    names = ["eevie", "giraffarig", "umbreon"]
    taken = {
        score: [SpeciesMatcher(known_species(), score).match(name) is not None for name in names] for score in (0.8, 1)
    }
    assert taken == {0.8: [True, True, True], 1: [False, False, True]}


@given(data=st.data())
def test_one_edit_of_a_long_name_means_that_species_or_none(matcher: SpeciesMatcher, data: st.DataObject) -> None:
    spelling = data.draw(st.sampled_from(sorted(spelling for spelling in SPELLINGS if len(spelling) >= 7)))
    place = data.draw(st.integers(0, len(spelling) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
    edited = data.draw(st.sampled_from([letter + spelling[place], "", letter]))
    name = spelling[:place] + edited + spelling[place + 1 :]
    match = matcher.match(name)
    if name in SPELLINGS:  # one edit makes another species of some: latios, latias
        assert match is not None
        assert match.species == SPELLINGS[name]
    elif match is not None:
        assert match.score >= MIN_SCORE
        assert match.species == SPELLINGS[spelling] or OSA.distance(name, match.species.replace("_", "")) <= 1


def test_species_keep_the_captions_order_without_repeats(species_script: ModuleType, matcher: SpeciesMatcher) -> None:
    names = species_script.name_species(["shiny_eevee", "a_dragon", "pikachu", "eevee", "pikachuu"], matcher)
    assert names.species == ("eevee", "pikachu")
    assert names.anomalies == ["a_dragon"]
    assert list(names.misspelled) == ["pikachuu"]
    assert list(names.unlike) == ["shiny_eevee", "a_dragon", "pikachuu"]


@relaxed
@given(names=st.lists(st.text(max_size=20) | st.sampled_from(sorted(KNOWN)), max_size=5))
def test_each_name_is_a_canonical_species_or_an_anomaly(
    species_script: ModuleType, matcher: SpeciesMatcher, names: list[str]
) -> None:
    found = species_script.name_species(names, matcher)
    slugs = known_species().slugs
    assert set(found.species) <= slugs
    for name in names:
        match = matcher.match(name)
        if match is None:
            assert name in found.anomalies
        else:
            assert match.species in found.species
            assert name in found.unlike or name == match.species
            assert MIN_SCORE <= match.score <= 1


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


@pytest.mark.parametrize("tags", ["not JSON", "[" * 100_000, "[1]", '{"pokemon": "pikachu"}', '{"pokemon": [1]}'])
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


def test_each_match_is_recorded_with_its_score(dataset: Any, read_csv: Callable[[Path], list[dict[str, str]]]) -> None:
    names = {"b": ["giraffarig", "rotom_wash", "ash"], "a": ["Mr. Mime", "eevee"], "c": ['x, "y"\nz \ud800']}
    write_captioned(dataset, names)
    finished = dataset.run(SCRIPT)
    assert (finished.summary["unknown_names"], finished.summary["misspelled_names"]) == (2, 1)
    assert dataset.text("metadata/audit/species.csv") == (
        "image_id,name,species,score,how\n"
        "a,Mr. Mime,mr_mime,1.0000,spelling\n"
        "b,giraffarig,girafarig,0.9000,misspelling\n"
        "b,rotom_wash,rotom,1.0000,form\n"
        "b,ash,,,anomaly\n"
        'c,"x, ""y"" z ?",,,anomaly\n'
    )
    (journal,) = (dataset.root / "metadata/runs").glob("*.jsonl")
    notes = [entry["note"] for entry in map(json.loads, names_in(journal.read_text()).splitlines()) if "note" in entry]
    assert notes == [{"image_id": "b", "name": "giraffarig", "species": "girafarig", "score": 0.9}]
    assert read_csv(dataset.root / "metadata/drops.csv")[0]["detail"] == 'names: x, "y" z ?'


def test_a_higher_score_leaves_a_misspelled_name_out(dataset: Any) -> None:
    write_captioned(dataset, {"a": ["giraffarig"], "b": ["eevee"]})
    dataset.run(SCRIPT)
    assert dataset.run(SCRIPT, "--min-score", 0.95).summary["counts"] == {"no_known_species": 1}
    assert dataset.run(SCRIPT).summary["counts"] == {"named": 1}
    assert dataset.run(SCRIPT, "--min-score", 2).stderr.endswith(
        "species.py: error: argument --min-score: '2' is not a number from 0.5 to 1\n"
    )


def write_quotas(root: Path, *lines: str) -> None:
    (root / "quotas").mkdir()
    (root / "quotas/quotas.csv").write_text("\n".join(["rank,name,band,weight,quota", *lines, ""]))


def test_coverage_stands_beside_the_quotas(dataset: Any, snapshot: Callable[[Path], Any]) -> None:
    write_captioned(dataset, {"a": ["eevee", "mr_mime"], "b": ["eevee"], "c": ["eevee"]})
    write_quotas(dataset.root, "1,Eevee,001-002,1,4", "2,Mr. Mime,001-002,0.5,2", "3,Abra,003-003,1,0")
    finished = dataset.run(SCRIPT, "--coverage")
    assert (dataset.root / "metadata/species_coverage.csv").read_text() == (
        "rank,pokemon,band,quota,count,fraction\n"
        "1,eevee,001-002,4,3,0.7500\n2,mr_mime,001-002,2,1,0.5000\n3,abra,003-003,0,0,\n"
    )
    assert finished.stdout.splitlines()[:-1] == [
        "band       species covered    quota   images    share",
        "001-002          2       2        6        4   66.7 %",
        "003-003          1       0        0        0        -",
        "all              3       2        6        4   66.7 %",
    ]
    before = snapshot(dataset.root)
    assert dataset.run(SCRIPT, "--coverage").summary["done"] == 0
    assert snapshot(dataset.root) == before


def test_coverage_takes_the_checkouts_quotas_where_there_are_no_others(dataset: Any) -> None:
    write_captioned(dataset, {"a": ["umbreon"]})
    finished = dataset.run(SCRIPT, "--coverage", "--dry-run")
    assert finished.stdout.splitlines()[-2].split()[:4] == ["all", "1025", "1", "30000"]
    assert not (dataset.root / "metadata/species_coverage.csv").exists()


@pytest.mark.parametrize("line", ["1,Eevee,001-002,1,many", "1,Eevee,001-002,1", "x,Eevee,001-002,1,4"])
def test_quotas_that_cannot_be_read_are_wrong_input(dataset: Any, line: str) -> None:
    write_captioned(dataset, {"a": ["eevee"]})
    write_quotas(dataset.root, line)
    finished = dataset.run(SCRIPT, "--coverage")
    assert finished.code == 2
    assert finished.stderr.splitlines()[-1].startswith(f"error: {dataset.root}/quotas/quotas.csv line 2")
    assert dataset.base()["a"]["species"] == "eevee"
