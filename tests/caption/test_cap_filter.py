"""Which captions need another try, and what happens to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption.cap_filter import MAX_WORDS, MIN_WORDS, Limits, find_faults, repeats_itself, same_sentences
from caption.sentence_tags import ADVICE, INSTRUCTIONS, QUESTION, model_name
from caption.tags import clean_answer, tags_to_cell
from pokefa.llm.recaps import RecapCaption, write_recap_captions
from pokefa.species.matching import SpeciesMatcher
from pokefa.species.names import known_species
from tests.caption.conftest import FACTS
from tests.conftest import Dataset

SCRIPT = "caption/cap_filter.py"
MATCHER = SpeciesMatcher(known_species())
ROOMY = Limits(8, 32)  # for sentences that are about something else than their length
GOOD = FACTS["caption"]
BAD = "A strange creature sleeps on a mossy stone under the full moon."

Ready = Callable[..., list[str]]


def tags(*pokemon: str) -> dict[str, Any]:
    return {**FACTS, "pokemon": list(pokemon), "form": [None] * len(pokemon)}


def faults(sentence: str, *pokemon: str) -> list[str]:
    return find_faults(sentence, tags(*pokemon), MATCHER, ROOMY)


def test_a_good_caption_has_no_faults() -> None:
    assert find_faults(GOOD, tags("umbreon"), MATCHER, Limits()) == []


def test_a_sentence_is_as_long_as_the_model_is_told() -> None:
    def found(words: int) -> list[str]:
        numbered = " ".join(f"word{number}" for number in range(words - 1))
        return find_faults(f"Umbreon {numbered}.", tags("umbreon"), MATCHER, Limits())

    assert [words for words in range(1, 40) if not found(words)] == list(range(MIN_WORDS, MAX_WORDS + 1))
    assert f"of {MIN_WORDS} to {MAX_WORDS} words" in INSTRUCTIONS
    assert f"write {MIN_WORDS} to {MAX_WORDS} words" in ADVICE["wrong_length"]
    assert f"of {MIN_WORDS} to {MAX_WORDS} words" in QUESTION.schema["properties"]["caption"]["description"]


@pytest.mark.parametrize(
    ("reason", "sentence", "pokemon"),
    [
        ("no_species", BAD, []),
        ("unknown_species", "Fakemon sleeps on a mossy stone under the full moon.", ["fakemon"]),
        ("placeholder", "Umbreon stands beside an unidentified figure under the full moon.", ["umbreon"]),
        ("placeholder", "Umbreon stands beside [name of the trainer] under the full moon.", ["umbreon"]),
        ("placeholder", "Umbreon stands beside some kind of creature under the full moon.", ["umbreon"]),
        ("placeholder", "Umbreon stands under the full moon at ??? near a dark forest.", ["umbreon"]),
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
        ("Flabébé floats past Tapu Koko on a warm wind over the sea.", ["flabebe", "tapu_koko"]),
        ("Two Vulpixes wait beside Jynx's frozen pond on a grey morning.", ["vulpix", "jynx"]),
        ("Three Eevee of one litter, Umbreon among them, doze by a fire.", ["eevee", "umbreon", "espeon"]),
    ],
)
def test_species_are_found_in_sentences(sentence: str, pokemon: list[str]) -> None:
    assert faults(sentence, *pokemon) == []


@given(st.text(alphabet=st.characters()), st.lists(st.text(max_size=20), max_size=4))
def test_whatever_a_caption_says_its_faults_can_be_told(text: str, pokemon: list[str]) -> None:
    caption = clean_answer({**FACTS, "caption": f"Umbreon {text}", "pokemon": pokemon})
    found = find_faults(caption.sentence, caption.tags, MATCHER, Limits())
    assert set(found) <= set(ADVICE)
    assert ("no_species" in found) == (not caption.tags["pokemon"])


@pytest.mark.parametrize(
    ("sentence", "pokemon", "found"),
    [
        ("Giraffarig grazes on a hill under a pale and cloudy sky.", ["giraffarig"], []),  # of Girafarig
        ("Two Giraffarigs graze on a hill under a pale cloudy sky.", ["giraffarig"], []),
        ("Girafarig grazes on a hill under a pale and cloudy sky.", ["giraffarig"], []),
        ("Tapufini drifts over a reef while small waves roll ashore.", ["tapufini"], []),
        ("Mega Charizzard breathes blue fire across a tower in the rain.", ["mega_charizzard"], []),
        ("Umbreon looks at Espeon across a pond under the full moon.", ["giraffarig"], ["sentence_tags_disagree"]),
        ("Umbreon rests beside Cinnapup on a stone under the moon.", ["umbreon", "cinnapup"], ["unknown_species"]),
        (BAD, ["umbreon", "cinnapup"], ["unknown_species", "sentence_tags_disagree"]),
    ],
)
def test_a_misspelled_species_is_one_and_others_are_unknown(
    sentence: str, pokemon: list[str], found: list[str]
) -> None:
    assert faults(sentence, *pokemon) == found


CHARIZARD = "{} breathes blue fire across a ruined tower in the rain."


@pytest.mark.parametrize(
    ("who", "form", "shiny", "disagree"),
    [
        ("Shiny Mega Charizard X", "mega_x", True, False),
        ("Mega Charizard X", "mega_x", True, False),  # a sentence need not say everything
        ("Charizard", "mega_x", True, False),
        ("Shiny Mega Charizard X", "mega_x", False, True),
        ("Mega Charizard X", None, False, True),
        ("Gigantamax Charizard", "mega_x", False, True),
        ("Shiny Charizard", None, True, False),
    ],
)
def test_form_and_colours_of_the_sentence_are_in_the_tags(
    who: str, form: str | None, shiny: bool, disagree: bool
) -> None:
    facts = {**FACTS, "pokemon": ["charizard"], "form": [form], "shiny_pokemon": ["charizard"] if shiny else []}
    found = find_faults(CHARIZARD.format(who), facts, MATCHER, ROOMY)
    assert found == (["sentence_tags_disagree"] if disagree else [])


def test_the_same_sentence_may_fit_two_pictures_but_not_three() -> None:
    sentences = ["Umbreon sleeps here.", "umbreon sleeps, here", "Umbreon runs.", "Umbreon runs."]
    assert same_sentences(sentences) == set()
    assert same_sentences([*sentences, "UMBREON sleeps here!"]) == {"umbreon sleeps here"}


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
    assert find_faults(short, tags("umbreon"), MATCHER, Limits(4, 4)) == []
    assert find_faults(short, tags("umbreon"), MATCHER, Limits(5, 9)) == ["wrong_length"]
    assert find_faults(short, tags("umbreon"), MATCHER, Limits(1, 3)) == ["wrong_length"]


UNKNOWN = "Fakemon sleeps soundly on a mossy stone under the full moon tonight."


@pytest.fixture
def captioned(ready: Ready) -> list[str]:
    """Four images: a good caption, one of an unknown species, one too short and at odds with its tags, and none."""
    return ready(4, [(GOOD, tags("umbreon")), (UNKNOWN, tags("fakemon")), ("A sleeping fox.", tags("umbreon"))])


def recap(dataset: Dataset) -> str:
    return (dataset.root / "metadata" / "recap.csv").read_text(encoding="utf-8")


def set_images(dataset: Dataset, **columns: dict[str, str]) -> None:
    """Set cells of images.csv: {column: {image_id: text}}."""
    rows = dataset.rows("images")
    for column, texts in columns.items():
        rows = [{**row, column: texts.get(row["image_id"], row[column])} for row in rows]
    dataset.write_images(rows)


def drop_reasons(dataset: Dataset) -> list[str]:
    return [row["drop_reason"] for row in dataset.images().values()]


def test_the_list_of_bad_captions(dataset: Dataset, captioned: list[str]) -> None:
    finished = dataset.run(SCRIPT)
    assert finished.code == 0, finished.stderr
    assert recap(dataset) == (
        f"image_id,reasons\n{captioned[1]},unknown_species\n{captioned[2]},wrong_length sentence_tags_disagree\n"
    )
    assert finished.summary["seen"] == 3  # the fourth image has no caption yet
    assert finished.summary["counts"] == {"sentence_tags_disagree": 1, "unknown_species": 1, "wrong_length": 1}
    assert finished.summary["to_caption_again"] == 2
    assert not any(drop_reasons(dataset))
    assert not (dataset.root / "metadata" / "runs").exists()  # nothing was decided


def test_the_same_sentence_of_many_images_is_listed(dataset: Dataset, ready: Ready) -> None:
    other = "Umbreon walks slowly along a quiet beach while the sun goes down."
    ids = ready(5, [(GOOD, tags("umbreon"))] * 3 + [(other, tags("umbreon"))] * 2)
    finished = dataset.run(SCRIPT, "--drop", "--untried")
    assert finished.summary["counts"] == {"same_sentence": 3}
    assert recap(dataset) == "image_id,reasons\n" + "".join(f"{image_id},same_sentence\n" for image_id in ids[:3])
    assert not any(drop_reasons(dataset))  # it is a poor caption, but a true one


def test_a_second_run_changes_nothing(dataset: Dataset, captioned: list[str]) -> None:
    dataset.run(SCRIPT)
    path = dataset.root / "metadata" / "recap.csv"
    before = path.stat()
    dataset.run(SCRIPT)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_dry_run_writes_nothing(dataset: Dataset, captioned: list[str]) -> None:
    finished = dataset.run(SCRIPT, "--dry-run", "--drop", "--untried")
    assert finished.summary["counts"]["dropped"] == 2
    assert not (dataset.root / "metadata" / "recap.csv").exists()
    assert not any(drop_reasons(dataset))


def test_what_had_no_other_try_is_not_hopeless(dataset: Dataset, captioned: list[str]) -> None:
    finished = dataset.run(SCRIPT, "--drop")
    assert (finished.summary["done"], finished.summary["to_caption_again"]) == (0, 2)
    assert not any(drop_reasons(dataset))


@pytest.mark.parametrize("sign", ["caption_model", "caption_error", "recap_captions"])
def test_what_another_try_has_not_mended_is_dropped(dataset: Dataset, captioned: list[str], sign: str) -> None:
    if sign == "caption_model":
        set_images(dataset, caption_model={captioned[1]: model_name("a-model", hinted=True, again=True)})
    elif sign == "caption_error":
        set_images(dataset, caption_error={captioned[1]: "refusal: no"})
    else:  # the other try has given the same sentence, so there was nothing to merge
        new = RecapCaption(captioned[1], UNKNOWN, tags_to_cell(tags("fakemon")), "a-model", "run-7", "unknown_species")
        write_recap_captions(dataset.root, [new])
    dataset.run(SCRIPT, "--drop")
    assert drop_reasons(dataset) == ["", "cap_filter:unknown_species", "", ""]
    assert recap(dataset) == f"image_id,reasons\n{captioned[2]},wrong_length sentence_tags_disagree\n"


MISSPELLED = "Giraffarig sleeps soundly on a mossy stone under the full moon tonight."


def test_what_stage_9_mends_is_not_dropped(dataset: Dataset, ready: Ready) -> None:
    mixed = "Umbreon sleeps beside a fakemon on a mossy stone under the full moon."
    ids = ready(3, [(MISSPELLED, tags("giraffarig")), (mixed, tags("umbreon", "fakemon")), (UNKNOWN, tags("fakemon"))])
    finished = dataset.run(SCRIPT, "--drop", "--untried")
    assert drop_reasons(dataset) == ["", "", "cap_filter:unknown_species"]
    assert recap(dataset) == f"image_id,reasons\n{ids[1]},unknown_species\n"
    assert finished.summary["misspelled_names"] == 1
    audit = dataset.root / "metadata/audit/misspelled.csv"
    assert audit.read_text() == f"image_id,name,species,score\n{ids[0]},giraffarig,girafarig,0.9000\n"
    before = audit.stat()
    assert dataset.run(SCRIPT).code == 0
    assert (audit.stat().st_mtime_ns, audit.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_true_sentence_of_the_wrong_length_is_not_dropped(dataset: Dataset, ready: Ready) -> None:
    (image_id,) = ready(1, [("Umbreon sleeps.", tags("umbreon"))])
    set_images(dataset, caption_model={image_id: model_name("a-model", hinted=False, again=True)})
    dataset.run(SCRIPT, "--drop")
    assert drop_reasons(dataset) == [""]
    assert recap(dataset) == f"image_id,reasons\n{image_id},wrong_length\n"


def test_images_without_another_try_can_be_dropped(dataset: Dataset, captioned: list[str]) -> None:
    finished = dataset.run(SCRIPT, "--drop", "--untried")
    assert drop_reasons(dataset) == ["", "cap_filter:unknown_species", "cap_filter:sentence_tags_disagree", ""]
    drops = [(row["image_id"], row["stage"], row["reason"], row["detail"]) for row in dataset.rows("drops")]
    assert drops == [
        (captioned[1], "cap_filter", "unknown_species", "unknown_species"),
        (captioned[2], "cap_filter", "sentence_tags_disagree", "wrong_length, sentence_tags_disagree"),
    ]
    assert recap(dataset) == "image_id,reasons\n"
    assert (finished.summary["done"], finished.summary["counts"]["dropped"]) == (2, 2)

    before = sorted((dataset.root / "metadata").rglob("*"))
    assert dataset.run(SCRIPT, "--drop").summary["done"] == 0
    assert dataset.run(SCRIPT).summary["to_caption_again"] == 0  # dropped images wait for nothing
    assert sorted((dataset.root / "metadata").rglob("*")) == before


def test_an_image_comes_back_when_its_caption_is_good(dataset: Dataset, captioned: list[str]) -> None:
    dataset.run(SCRIPT, "--drop", "--untried")
    path = dataset.root / "metadata" / "base.csv"
    path.write_text(path.read_text().replace("A sleeping fox.", GOOD))
    finished = dataset.run(SCRIPT, "--drop")
    assert finished.summary["counts"]["taken_back"] == 1
    assert dataset.images()[captioned[2]]["drop_reason"] == ""
    assert dataset.images()[captioned[1]]["drop_reason"] == "cap_filter:unknown_species"


def test_untried_alone_is_wrong_usage(dataset: Dataset, captioned: list[str]) -> None:
    finished = dataset.run(SCRIPT, "--untried")
    assert finished.code == 2
    assert "error: --untried says what --drop drops: give both" in finished.stderr


def test_what_another_stage_has_dropped_keeps_its_reason(dataset: Dataset, captioned: list[str]) -> None:
    set_images(dataset, drop_reason={captioned[1]: "species:no_known_species"})
    dataset.run(SCRIPT, "--drop", "--untried")
    assert dataset.images()[captioned[1]]["drop_reason"] == "species:no_known_species"


def test_tags_that_are_none_are_wrong_input(dataset: Dataset, ready: Ready) -> None:
    (image_id,) = ready(1, [(GOOD, tags("umbreon"))])
    rows = [{**row, "tags": "umbreon"} for row in dataset.rows("base")]
    dataset.write_base(rows)
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == (
        f'error: metadata/base.csv, image {image_id}, tags: the cell is "umbreon", not an object; correct the cell\n'
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
