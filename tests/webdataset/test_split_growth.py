"""The split of a set that grows and shrinks: an image never changes sides, and what that costs is named."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pokefa.shards.sides import Picture, Shares, linked_groups, parted_groups, room_in_validation, split_pictures

SCRIPT = "webdataset/split.py"
AUDIT = "metadata/audit/split.csv"

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

names = st.sampled_from(["abra", "bulbasaur", "charizard"])
links = st.sampled_from([f"page {number}" for number in range(6)])
new_pictures = st.tuples(
    st.lists(names, min_size=1, max_size=2, unique=True),
    st.lists(links, max_size=2, unique=True),
    st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]),
)
# One run after the other: the pictures that come, and which of those before leave until the next run.
growth = st.lists(st.tuples(st.lists(new_pictures, max_size=6), st.sets(st.integers(0, 20))), min_size=1, max_size=5)


def before_each_run(steps: list[Any]) -> Any:
    """Yield the pictures that each run finds; send it the sides that the run gave."""
    known: list[Any] = []
    given_sides: dict[str, str] = {}
    for coming, leaving in steps:
        for species, marks, ts in coming:
            image_id = hashlib.md5(str(len(known)).encode()).hexdigest()
            known.append(Picture(image_id, tuple(species), tuple(marks), ts=ts))
        found = [
            replace(picture, side=given_sides.get(picture.image_id), in_set=number not in leaving)
            for number, picture in enumerate(known)
        ]
        given_sides |= yield [picture for picture in found if picture.in_set or picture.side]


def check_run(pictures: list[Any], shares: Any, sides: dict[str, str]) -> None:
    """Check the sides that one run gave against what may never happen."""
    in_set = [picture for picture in pictures if picture.in_set]
    assert set(sides) == {picture.image_id for picture in in_set}
    assert all(sides[picture.image_id] == picture.side for picture in in_set if picture.side)
    free = []
    for group in linked_groups(in_set):
        given_before = [picture for picture in group if picture.side]
        new = [picture for picture in group if not picture.side]
        beside = [one for one in pictures if {*one.links} & {mark for picture in group for mark in picture.links}]
        if given_before:
            oldest = min(given_before, key=lambda each: (each.ts or "9", each.image_id))
            assert {sides[picture.image_id] for picture in new} <= {oldest.side}
        else:
            assert len({sides[picture.image_id] for picture in new}) == 1
            if all(picture in new for picture in beside):
                free.append(new)
    check_shares(in_set, free, shares, sides)


def check_shares(in_set: list[Any], free: list[Any], shares: Any, sides: dict[str, str]) -> None:
    """Check that groups of new pictures fill the room in validation, never more, and as far as their sizes allow."""
    room = room_in_validation(in_set, shares)
    drawn = {picture.image_id for group in free for picture in group}
    others = Counter(p.species[0] for p in in_set if sides[p.image_id] == "val" and p.image_id not in drawn)
    taken = Counter(p.species[0] for p in in_set if sides[p.image_id] == "val")
    assert all(taken[name] <= max(room[name], others[name]) for name in taken)
    in_train = Counter(name for p in in_set if sides[p.image_id] == "train" for name in p.species)
    for group in free:
        if sides[group[0].image_id] == "train":
            more = Counter(picture.species[0] for picture in group)
            leaving = Counter(name for picture in group for name in picture.species)
            too_many = any(taken[name] + count > room[name] for name, count in more.items())
            assert too_many or any(in_train[name] <= count for name, count in leaving.items())
        else:
            assert all(in_train[name] > 0 for picture in group for name in picture.species)


@relaxed
@given(
    steps=growth,
    head_images=st.integers(0, 3),
    middle_images=st.integers(0, 1),
    seed=st.integers(0, 3),
    order=st.randoms(use_true_random=False),
)
def test_no_picture_changes_sides_however_the_set_grows(
    steps: list[Any], head_images: int, middle_images: int, seed: int, order: Any
) -> None:
    shares = Shares(1, head_images, 2, middle_images)
    runs = before_each_run(steps)
    pictures = next(runs)
    while True:
        sides = split_pictures(pictures, shares, seed)
        check_run(pictures, shares, sides)
        shuffled = order.sample(pictures, len(pictures))
        assert split_pictures(shuffled, shares, seed) == sides
        # Who is parted from what it belongs to had a side before.
        for group in parted_groups(pictures, sides):
            assert {picture.side for picture in group} >= {"train", "val"}
        # A run that was killed has written some of the sides: the next one writes the others.
        some = [replace(p, side=sides[p.image_id]) if p.in_set and order.random() < 0.5 else p for p in pictures]
        if not parted_groups(pictures, sides) and all(picture.side is None for picture in pictures):
            assert split_pictures(some, shares, seed) == sides
        try:
            pictures = runs.send(sides)
        except StopIteration:
            return


class Growing:
    """A dataset that grows: each image has a species, a page, a time of download, and stays or leaves base.csv."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.images: list[dict[str, str]] = []

    def add(self, image_id: str, page: str, ts: str = "2026-01-01T00:00:00Z") -> None:
        self.images.append({"image_id": image_id, "source_page": page, "ts": ts})

    def run(self, *arguments: str, without: tuple[str, ...] = ()) -> tuple[dict[str, str], Any]:
        """Write the tables, base.csv with the sides that it has, run the script, and return the sides."""
        path = self.dataset.root / "metadata/base.csv"
        sides = {key: row.get("split", "") for key, row in self.dataset.base().items()} if path.exists() else {}
        self.dataset.write_images(self.images)
        rows = [{"image_id": image["image_id"], "species": "abra"} for image in self.images]
        kept = [row | {"split": sides.get(row["image_id"], "")} for row in rows if row["image_id"] not in without]
        self.dataset.write_base(kept)
        finished = self.dataset.run(SCRIPT, *arguments)
        assert finished.code == 0, finished.stderr
        return {key: row["split"] for key, row in self.dataset.base().items()}, finished

    def audit(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.dataset.text(AUDIT))))


@pytest.fixture
def growing(dataset: Any) -> Growing:
    growing = Growing(dataset)
    for number in range(6):
        growing.add(f"old{number}", page=f"page {number}")
    return growing


def test_new_images_move_no_old_one(growing: Growing) -> None:
    before, _ = growing.run()
    assert list(before.values()).count("val") == 2
    for number in range(40):
        growing.add(f"new{number}", page=f"other page {number}")
    after, finished = growing.run("--seed", "5")
    assert {key: after[key] for key in before} == before
    assert (finished.summary["done"], finished.summary["had_a_side"]) == (40, 6)
    assert list(after.values()).count("val") == 2
    # With more room, the new ones fill it.
    more, _ = growing.run("--head-images", "5")
    assert more == after
    for number in range(40, 50):
        growing.add(f"new{number}", page=f"other page {number}")
    more, finished = growing.run("--head-images", "5")
    assert list(more.values()).count("val") == 5
    assert {key: more[key] for key in after} == after


def test_a_new_image_goes_to_the_side_of_what_it_belongs_to(growing: Growing) -> None:
    before, _ = growing.run()
    for image_id in before:
        growing.add(f"copy_of_{image_id}", page=f"page {image_id[3:]}", ts="2026-03-01T00:00:00Z")
    after, finished = growing.run()
    assert all(after[f"copy_of_{image_id}"] == side for image_id, side in before.items())
    assert (finished.summary["val"], finished.summary["parted_groups"]) == (4, 0)


def test_images_on_both_sides_stay_and_are_named(growing: Growing) -> None:
    before, _ = growing.run()
    val = min(key for key, side in before.items() if side == "val")
    train = min(key for key, side in before.items() if side == "train")
    for image in growing.images:
        if image["image_id"] in (val, train):
            image["source_page"] = "one gallery"
        if image["image_id"] == val:
            image["ts"] = "2025-01-01T00:00:00Z"
    growing.add("between", page="one gallery", ts="2026-03-01T00:00:00Z")
    after, finished = growing.run()
    assert {key: after[key] for key in before} == before
    assert after["between"] == "val"
    assert finished.summary["parted_groups"] == 1
    assert "1 groups of images that belong together are on both sides" in finished.stderr
    assert [tuple(line.values()) for line in growing.audit()] == [
        ("on_both_sides", val, val, "val", "2025-01-01T00:00:00Z"),
        ("on_both_sides", val, train, "train", "2026-01-01T00:00:00Z"),
        ("on_both_sides", val, "between", "val", "2026-03-01T00:00:00Z"),
    ]
    # Anew, they are on one side again, and the audit is empty.
    anew, finished = growing.run("--reassign")
    assert len({anew[key] for key in (val, train, "between")}) == 1
    assert (finished.summary["parted_groups"], growing.audit()) == (0, [])


def test_an_image_that_left_and_came_back_has_its_old_side(growing: Growing) -> None:
    before, _ = growing.run()
    val = min(key for key, side in before.items() if side == "val")
    growing.add("copy", page=f"page {val[3:]}")
    without, finished = growing.run(without=(val,))
    assert without["copy"] == "val"  # who was trained on it would know the image that validated
    assert finished.summary["train"] == 4
    after, finished = growing.run()
    assert {key: after[key] for key in before} == before
    # After --reassign, what was out of the set meanwhile is as new.
    growing.run("--reassign", "--head-images", "0", "--middle-images", "0", without=(val,))
    anew, _ = growing.run("--head-images", "0", "--middle-images", "0")
    assert set(anew.values()) == {"train"}


def test_a_species_whose_last_image_in_train_leaves_is_named(growing: Growing) -> None:
    before, _ = growing.run()
    train = tuple(key for key, side in before.items() if side == "train")
    val = sorted(key for key, side in before.items() if side == "val")
    after, finished = growing.run(without=train)
    assert after == dict.fromkeys(val, "val")
    assert finished.summary["species_only_in_val"] == 1
    assert "only in val, because images keep their side" in finished.stderr
    assert [tuple(line.values())[:4] for line in growing.audit()] == [
        ("species_only_in_val", "abra", image_id, "val") for image_id in val
    ]
