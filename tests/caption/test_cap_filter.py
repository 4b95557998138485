"""Which captions need another try, and what happens to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caption.cap_filter import POPULARITY, Limits, find_faults, read_species, repeats_itself
from tests.caption.conftest import FACTS
from tests.conftest import Dataset

SCRIPT = "caption/cap_filter.py"
SPECIES = read_species(POPULARITY)
GOOD = FACTS["caption"]
BAD = "A strange creature sleeps on a mossy stone under the full moon."

Ready = Callable[..., list[str]]


def tags(*pokemon: str) -> dict[str, Any]:
    return {**FACTS, "pokemon": list(pokemon), "form": [None] * len(pokemon)}


def faults(sentence: str, *pokemon: str) -> list[str]:
    return find_faults(sentence, tags(*pokemon), SPECIES, Limits())


def test_a_good_caption_has_no_faults() -> None:
    assert faults(GOOD, "umbreon") == []


@pytest.mark.parametrize(
    ("reason", "sentence", "pokemon"),
    [
        ("no_species", BAD, []),
        ("unknown_species", "Fakemon sleeps on a mossy stone under the full moon.", ["fakemon"]),
        ("placeholder", "Umbreon stands beside an unidentified figure under the full moon.", ["umbreon"]),
        ("placeholder", "Umbreon stands beside [name of the trainer] under the full moon.", ["umbreon"]),
        ("refusal_language", "I cannot say what Umbreon does under the full moon tonight.", ["umbreon"]),
        ("refusal_language", "Sorry, but the Umbreon in this picture is hard to see.", ["umbreon"]),
        ("refusal_language", "Umbreon in a scene that it is not able to describe in full.", ["umbreon"]),
        ("refusal_language", "As an AI model there is only an Umbreon here to talk about.", ["umbreon"]),
        ("wrong_length", "Umbreon sleeps on a stone at night.", ["umbreon"]),
        ("wrong_length", "Umbreon sleeps " + "soundly while stars shine over hills " * 6, ["umbreon"]),
        ("repeated_text", "Umbreon sleeps very very very deeply on a mossy stone.", ["umbreon"]),
        ("repeated_text", "Umbreon sleeps under the full moon and dreams under the full moon.", ["umbreon"]),
        ("sentence_tags_disagree", BAD, ["umbreon"]),
        ("sentence_tags_disagree", GOOD, ["espeon"]),
        ("sentence_tags_disagree", "Umbreon and Espeon sleep on a stone under the moon.", ["umbreon"]),
    ],
)
def test_each_fault_is_found(reason: str, sentence: str, pokemon: list[str]) -> None:
    found = faults(sentence, *pokemon)
    assert reason in found
    if reason not in ("wrong_length",):
        assert found == [reason]


@pytest.mark.parametrize(
    ("sentence", "pokemon"),
    [
        ("Type: Null lifts its heavy mask and looks at the grey sky.", ["type_null"]),
        ("Mr. Mime juggles glass balls beside Mime Jr. on a round stage.", ["mr_mime", "mime_jr"]),
        ("Ho-Oh spreads its burning wings over a tower at first light.", ["ho_oh"]),
        ("Porygon-Z spins through a grid of pale lines in the dark.", ["porygon_z"]),
        ("Farfetch'd guards its leek while Nidoran naps in the tall grass.", ["farfetchd", "nidoran_female"]),
        ("Nidoran♂ charges through the tall grass with its horn held low.", ["nidoran_male"]),
        ("Two Pikachus chase Eevee's tail around the trunk of an old oak.", ["pikachu", "eevee"]),
        ("Shiny Mega Charizard X breathes blue fire across a ruined tower.", ["charizard"]),
        ("Flabébé floats past Tapu Koko on a warm wind over the sea.", ["flabebe", "tapu_koko"]),
        ("Three Eevee of one litter, Umbreon among them, doze by a fire.", ["eevee", "umbreon", "espeon"]),
    ],
)
def test_species_are_found_in_sentences(sentence: str, pokemon: list[str]) -> None:
    assert faults(sentence, *pokemon) == []


def test_a_longer_name_is_not_also_the_shorter_one() -> None:
    assert SPECIES.named_in("Porygon-Z meets Mewtwo and Mime Jr. near the old mill.") == {
        "porygon_z",
        "mewtwo",
        "mime_jr",
    }


def test_every_species_is_found_by_its_own_name() -> None:
    names = [line.split(",", 1)[1] for line in POPULARITY.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(names) == 1025
    for name in names:
        (found,) = SPECIES.named_in(f"Here {name} sleeps.")
        assert found in SPECIES.slugs or found == "nidoran"


@pytest.mark.parametrize(
    ("sentence", "repeats"),
    [
        ("One two three four five.", False),
        ("One one two three.", False),
        ("One one one two.", True),
        ("One two three four and one two three.", False),
        ("One two three four and one two three four.", True),
        ("One, two three four; ONE two three four!", True),
        ("", False),
    ],
)
def test_repetitions_are_told_from_refrains(sentence: str, repeats: bool) -> None:
    assert repeats_itself(sentence) is repeats


def test_limits_can_be_set() -> None:
    short = "Umbreon sleeps at night."
    assert find_faults(short, tags("umbreon"), SPECIES, Limits(4, 4)) == []
    assert find_faults(short, tags("umbreon"), SPECIES, Limits(5, 9)) == ["wrong_length"]
    assert find_faults(short, tags("umbreon"), SPECIES, Limits(1, 3)) == ["wrong_length"]


@pytest.fixture
def captioned(ready: Ready) -> list[str]:
    """Three images: a good caption, one of an unknown species, one that is too short and at odds with its tags."""
    unknown = "Fakemon sleeps on a mossy stone under the full moon."
    return ready(4, [(GOOD, tags("umbreon")), (unknown, tags("fakemon")), ("A sleeping fox.", tags("umbreon"))])


def recap(dataset: Dataset) -> str:
    return (dataset.root / "metadata" / "recap.csv").read_text(encoding="utf-8")


def test_the_list_of_bad_captions(dataset: Dataset, captioned: list[str]) -> None:
    finished = dataset.run(SCRIPT)
    assert finished.code == 0, finished.stderr
    assert recap(dataset) == (
        f"image_id,reasons\n{captioned[1]},unknown_species\n{captioned[2]},wrong_length sentence_tags_disagree\n"
    )
    assert finished.summary["seen"] == 3  # the fourth image has no caption yet
    assert finished.summary["counts"] == {"sentence_tags_disagree": 1, "unknown_species": 1, "wrong_length": 1}
    assert finished.summary["to_caption_again"] == 2
    assert not any(row["drop_reason"] for row in dataset.images().values())
    assert not (dataset.root / "metadata" / "runs").exists()  # nothing was decided


def test_a_second_run_changes_nothing(dataset: Dataset, captioned: list[str]) -> None:
    dataset.run(SCRIPT)
    path = dataset.root / "metadata" / "recap.csv"
    before = path.stat()
    dataset.run(SCRIPT)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_dry_run_writes_nothing(dataset: Dataset, captioned: list[str]) -> None:
    finished = dataset.run(SCRIPT, "--dry-run", "--drop")
    assert finished.summary["counts"]["dropped"] == 2
    assert not (dataset.root / "metadata" / "recap.csv").exists()
    assert not any(row["drop_reason"] for row in dataset.images().values())


def test_hopeless_images_are_dropped(dataset: Dataset, captioned: list[str]) -> None:
    finished = dataset.run(SCRIPT, "--drop")
    assert [row["drop_reason"] for row in dataset.images().values()] == [
        "",
        "cap_filter:unknown_species",
        "cap_filter:wrong_length",
        "",
    ]
    drops = [(row["image_id"], row["stage"], row["reason"], row["detail"]) for row in dataset.rows("drops")]
    assert drops == [
        (captioned[1], "cap_filter", "unknown_species", "unknown_species"),
        (captioned[2], "cap_filter", "wrong_length", "wrong_length, sentence_tags_disagree"),
    ]
    assert recap(dataset) == "image_id,reasons\n"
    assert (finished.summary["done"], finished.summary["counts"]["dropped"]) == (2, 2)

    before = sorted((dataset.root / "metadata").rglob("*"))
    assert dataset.run(SCRIPT, "--drop").summary["done"] == 0
    assert dataset.run(SCRIPT).summary["to_caption_again"] == 0  # dropped images wait for nothing
    assert sorted((dataset.root / "metadata").rglob("*")) == before


def test_an_image_comes_back_when_its_caption_is_good(dataset: Dataset, captioned: list[str]) -> None:
    dataset.run(SCRIPT, "--drop")
    path = dataset.root / "metadata" / "base.csv"
    path.write_text(path.read_text().replace("A sleeping fox.", GOOD))
    finished = dataset.run(SCRIPT, "--drop")
    assert finished.summary["counts"]["taken_back"] == 1
    assert dataset.images()[captioned[2]]["drop_reason"] == ""
    assert dataset.images()[captioned[1]]["drop_reason"] == "cap_filter:unknown_species"


def test_what_another_stage_has_dropped_keeps_its_reason(dataset: Dataset, captioned: list[str]) -> None:
    rows = [
        {**row, "drop_reason": "species:no_known_species" if row["image_id"] == captioned[1] else ""}
        for row in dataset.rows("images")
    ]
    dataset.write_images(rows)
    dataset.run(SCRIPT, "--drop")
    assert dataset.images()[captioned[1]]["drop_reason"] == "species:no_known_species"


def test_tags_that_are_none_are_wrong_input(dataset: Dataset, ready: Ready) -> None:
    (image_id,) = ready(1, [(GOOD, tags("umbreon"))])
    rows = [{**row, "tags": "umbreon"} for row in dataset.rows("base")]
    dataset.write_base(rows)
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == (
        f'error: metadata/base.csv, image {image_id}, tags: the cell is "umbreon", not of type object; '
        "correct the cell\n"
    )


def test_a_set_without_captions_is_wrong_input(dataset: Dataset, ready: Ready) -> None:
    ready(1)
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == "error: metadata/base.csv has no column caption: run the stage that writes it first\n"


def test_limits_that_exclude_each_other_are_wrong_usage(run_script: Callable[..., Any], tmp_path: Path) -> None:
    finished = run_script(SCRIPT, "--root", tmp_path, "--min-words", "9", "--max-words", "8")
    assert finished.code == 2
    assert "error: --min-words 9 is over --max-words 8" in finished.stderr
