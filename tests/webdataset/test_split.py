"""webdataset/split.py: who validates, without leaks, whatever the order of the rows."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pokefa.shards.sides import Picture, Shares, linked_groups, split_pictures

SCRIPT = "webdataset/split.py"

# Which of the images md5("0") … md5("19") of one species validate with seed 0.
GOLDEN_DRAW = ["1679091c5a880faf6fb5e6087eb1b2dc", "9bf31c7ff062936a96d3c8bd1f8f2ff3"]

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

names = st.sampled_from(["abra", "bulbasaur", "charizard", "ditto", "eevee"])
links = st.sampled_from(["group 1", "group 2", "page 1", "page 2", "page 3"])
picture_facts = st.tuples(
    st.lists(names, min_size=1, max_size=3, unique=True).map(tuple), st.lists(links, max_size=2, unique=True).map(tuple)
)


def pictures_from(facts: list[Any]) -> list[Any]:
    ids = (hashlib.md5(str(number).encode()).hexdigest() for number in itertools.count())
    return [Picture(image_id, species, marks) for image_id, (species, marks) in zip(ids, facts, strict=False)]


def singles(**counts: int) -> list[Any]:
    """Return so many unlinked pictures of each species."""
    facts = [((name,), ()) for name, count in counts.items() for _ in range(count)]
    return pictures_from(facts)


def validating(pictures: list[Any], sides: dict[str, str]) -> Counter[str]:
    return Counter(picture.species[0] for picture in pictures if sides[picture.image_id] == "val")


@relaxed
@given(
    facts=st.lists(picture_facts, max_size=40),
    head=st.integers(0, 4),
    head_images=st.integers(0, 4),
    middle=st.integers(0, 3),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_what_always_holds(facts: list[Any], head: int, head_images: int, middle: int, seed: int, order: Any) -> None:
    pictures = pictures_from(facts)
    shares = Shares(head, head_images, head + middle, 1)
    sides = split_pictures(pictures, shares, seed)
    assert set(sides) == {picture.image_id for picture in pictures}
    assert set(sides.values()) <= {"train", "val"}
    # No leak: whoever shares a link is on the same side.
    for one, other in itertools.combinations(pictures, 2):
        if set(one.links) & set(other.links):
            assert sides[one.image_id] == sides[other.image_id]
    # Every species keeps an image in train, and none gives more than its share.
    shown = Counter(name for picture in pictures for name in picture.species)
    in_train = {name for picture in pictures if sides[picture.image_id] == "train" for name in picture.species}
    assert in_train == set(shown)
    ranked = sorted(shown, key=lambda name: (-shown[name], name))
    share = {name: shares.of_rank(rank) for rank, name in enumerate(ranked, start=1)}
    assert all(count <= share[name] for name, count in validating(pictures, sides).items())
    # The order of rows does not matter.
    shuffled = list(pictures)
    order.shuffle(shuffled)
    assert split_pictures(shuffled, shares, seed) == sides


def test_each_rank_gives_its_share() -> None:
    pictures = singles(abra=9, bulbasaur=8, charizard=7, ditto=7, eevee=2)
    sides = split_pictures(pictures, Shares(2, 3, 4, 1), 0)
    assert validating(pictures, sides) == {"abra": 3, "bulbasaur": 3, "charizard": 1, "ditto": 1}


def test_the_default_shares_are_those_of_the_documentation() -> None:
    shares = Shares()
    ranks = (1, 100, 101, 301, 302)
    assert [shares.of_rank(rank) for rank in ranks] == [2, 2, 1, 1, 0]


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (2, 1), (3, 2), (4, 2)])
def test_a_species_with_few_images_keeps_one_in_train(count: int, expected: int) -> None:
    pictures = singles(abra=count)
    sides = split_pictures(pictures, Shares(), 0)
    assert list(sides.values()).count("val") == expected


def test_an_image_stands_for_its_first_species() -> None:
    facts = [(("abra", "ditto"), ()) for _ in range(6)] + [(("ditto",), ())]
    pictures = pictures_from(facts)
    sides = split_pictures(pictures, Shares(2, 1, 2, 1), 3)
    assert validating(pictures, sides) == {"abra": 1, "ditto": 1}


def test_pictures_linked_through_others_stay_together() -> None:
    facts = [(("abra",), marks) for marks in [("g1",), ("g1", "p1"), ("p1",), (), (), ()]]
    pictures = pictures_from(facts)
    groups = linked_groups(pictures)
    assert sorted(len(group) for group in groups) == [1, 1, 1, 3]


def test_the_draw_never_changes() -> None:
    pictures = singles(abra=20)
    sides = split_pictures(pictures, Shares(), 0)
    assert sorted(image_id for image_id, side in sides.items() if side == "val") == sorted(GOLDEN_DRAW)
    other = split_pictures(pictures, Shares(), 1)
    assert other != sides


def write_named(dataset: Any, species: dict[str, str], **facts: dict[str, str]) -> None:
    """Write both tables; `facts` are further columns of images.csv by image."""
    dataset.write_images(
        {"image_id": key} | {name: cells[key] for name, cells in facts.items() if key in cells} for key in species
    )
    dataset.write_base({"image_id": key, "species": text} for key, text in species.items())


def sides_of(dataset: Any) -> dict[str, str]:
    return {key: row["split"] for key, row in dataset.base().items()}


def test_the_split_and_its_manifests(dataset: Any, snapshot: Callable[[Path], Any]) -> None:
    species = {f"a{n}": "abra" for n in range(5)} | {f"b{n}": "bulbasaur,abra" for n in range(4)} | {"d": "ditto"}
    write_named(dataset, species)
    finished = dataset.run(SCRIPT, "--seed", 5)
    assert finished.code == 0
    sides = sides_of(dataset)
    val = sorted(key for key, side in sides.items() if side == "val")
    assert sorted(key[0] for key in val) == ["a", "a", "b", "b"]
    assert set(sides.values()) == {"train", "val"}
    assert finished.summary["counts"] == {"train": 6, "val": 4}
    assert (finished.summary["train"], finished.summary["val"]) == (6, 4)
    assert [finished.summary[name] for name in ("had_a_side", "parted_groups", "species_only_in_val")] == [0, 0, 0]
    assert (dataset.root / "metadata/audit/split.csv").read_text() == "problem,of,image_id,split,ts\n"
    manifests = dataset.root / "webdataset/manifests"
    assert dataset.text("webdataset/manifests/val_ids.txt").split("\n") == [*val, ""]
    assert dataset.text("webdataset/manifests/train_ids.txt").split() == sorted(set(sides) - set(val))
    assert (manifests / "val_species.csv").read_text() == (
        "pokemon,count,fraction\nabra,4,1.000000\nbulbasaur,2,0.500000\n"
    )
    assert (manifests / "train_species.csv").read_text() == (
        "pokemon,count,fraction\nabra,5,0.833333\nbulbasaur,2,0.333333\nditto,1,0.166667\n"
    )

    before = snapshot(dataset.root)
    assert dataset.run(SCRIPT, "--seed", 5).summary["done"] == 0
    assert snapshot(dataset.root) == before

    # Rows in another order: the same sides and manifests.
    dataset.write_base(reversed(dataset.rows("base")))
    assert dataset.run(SCRIPT, "--seed", 5).summary["done"] == 0
    assert sides_of(dataset) == sides


def test_duplicates_and_images_of_one_page_stay_together(dataset: Any) -> None:
    # Whole groups of two fill the room of two; a page with three images has no room and stays in train.
    species = {f"{group}{n}": "abra" for group in "abc" for n in range(2)} | {f"p{n}": "abra" for n in range(3)}
    write_named(
        dataset,
        species,
        dupe_group={key: key[0] for key in species if key[0] != "p"},
        source_page={key: "https://example.org/gallery" for key in species if key[0] == "p"},
    )
    for seed in range(3):
        assert dataset.run(SCRIPT, "--seed", seed, "--reassign").code == 0
        sides = sides_of(dataset)
        val = [key for key, side in sides.items() if side == "val"]
        assert len(val) == 2
        assert val[0][0] == val[1][0] != "p"


def test_a_dropped_image_and_one_without_species_get_no_split(dataset: Any) -> None:
    write_named(dataset, {"a": "abra", "b": "abra", "c": "abra"})
    dataset.run(SCRIPT)
    side = sides_of(dataset)["b"]
    rows = dataset.rows("base")
    rows[2]["species"] = ""
    dataset.write_base(rows)
    dataset.write_images([{"image_id": "a", "drop_reason": "species:no_known_species"}, {"image_id": "b"}])
    assert dataset.run(SCRIPT).summary["counts"]["emptied"] == 2
    assert sides_of(dataset) == {"a": "", "b": side, "c": ""}
    assert dataset.text(f"webdataset/manifests/{side}_ids.txt") == "b\n"


def test_an_empty_set_has_empty_manifests(dataset: Any) -> None:
    write_named(dataset, {"a": ""})
    finished = dataset.run(SCRIPT)
    assert (finished.code, finished.summary["train"], finished.summary["val"]) == (0, 0, 0)
    manifests = dataset.root / "webdataset/manifests"
    assert (manifests / "train_ids.txt").read_bytes() == b""
    assert (manifests / "val_species.csv").read_text() == "pokemon,count,fraction\n"


def test_a_dry_run_changes_nothing(dataset: Any, snapshot: Callable[[Path], Any]) -> None:
    write_named(dataset, {"a": "abra", "b": "abra"})
    before = snapshot(dataset.root)
    finished = dataset.run(SCRIPT, "--dry-run")
    assert "dry run: 1 train, 1 val" in finished.stderr
    assert "1 of 2 images are in val, which leaves few for training" in finished.stderr
    assert snapshot(dataset.root) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--head-rank", "5", "--middle-rank", "4"], "--middle-rank 4 is before --head-rank 5: give a later rank"),
        (["--head-images", "-1"], "argument --head-images: '-1' is not a whole number of 0 or more"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
    ],
)
def test_wrong_flags(dataset: Any, arguments: list[str], message: str) -> None:
    finished = dataset.run(SCRIPT, *arguments)
    assert finished.code == 2
    assert finished.stderr.endswith(f"split.py: error: {message}\n")


def test_without_species_the_message_names_the_script_to_run(dataset: Any) -> None:
    dataset.write_images([{"image_id": "a"}])
    dataset.write_base([{"image_id": "a"}])
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == "error: metadata/base.csv has no column species: run webdataset/species.py first\n"
