"""The side of the split of each image: it never changes, and images that belong together are never separated."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pokefa.ledger.journal import RUNS_FOLDER, read_entries
from pokefa.ledger.table import KEY
from pokefa.shards.layout import SPLITS

# Marks a run with --reassign in its journal: sides assigned before it no longer count.
REASSIGNED = "reassigned"


@dataclass(frozen=True)
class Shares:
    """How many images of each species go to validation, by rank; rank 1 has the most images."""

    head_rank: int = 100
    head_images: int = 2
    middle_rank: int = 301
    middle_images: int = 1

    def of_rank(self, rank: int) -> int:
        if rank <= self.head_rank:
            return self.head_images
        return self.middle_images if rank <= self.middle_rank else 0


@dataclass(frozen=True)
class Picture:
    """One image, with what the split depends on.

    Args:
        species: the canonical slugs that it shows; the first one is its main species.
        links: keys that it shares with the images on the same side.
        side: `train` or `val` if assigned before; None for a new image.
        ts: time of the download; the oldest member of a group decides for the others.
        in_set: False for an image that has a side and left the set: similar new ones go to its side.
    """

    image_id: str
    species: tuple[str, ...]
    links: tuple[str, ...] = ()
    side: str | None = None
    ts: str | None = None
    in_set: bool = True

    @property
    def age(self) -> tuple[bool, str, str]:
        """Sort key, the oldest first; images without a time are the youngest."""
        return self.ts is None, self.ts or "", self.image_id


def split_pictures(pictures: Iterable[Picture], shares: Shares, seed: int) -> dict[str, str]:
    """Return {image_id: "train" or "val"} of the images in the set.

    Images with a side keep it, and new ones of their group join the oldest of them. If no image of a group in the set
    has a side, the group joins the oldest one that left the set. All other groups are drawn in the order of their
    hashes. A group goes to validation if each main species of its images still has room there, and each species that
    they show keeps an image in train.
    """
    pictures = list(pictures)
    in_set = [picture for picture in pictures if picture.in_set]
    sides = {picture.image_id: picture.side for picture in in_set if picture.side is not None}
    with_gone = {picture.image_id: side_of(group) for group in linked_groups(pictures) for picture in group}
    free: list[list[Picture]] = []
    for group in linked_groups(in_set):
        new = [picture for picture in group if picture.side is None]
        side = side_of(group) or with_gone[group[0].image_id]
        if side is not None:
            sides |= {picture.image_id: side for picture in new}
        else:
            free.append(new)
    validating = [picture for picture in in_set if sides.get(picture.image_id) == "val"]
    room = room_in_validation(in_set, shares) - Counter(picture.species[0] for picture in validating)
    in_train = count_species(in_set) - count_species(validating)
    for group in sorted(free, key=lambda group: min(draw(seed, each.image_id) for each in group)):
        given_up = Counter(picture.species[0] for picture in group)
        leaving = count_species(group)
        fits = all(room[name] >= count for name, count in given_up.items())
        fits = fits and all(in_train[name] > count for name, count in leaving.items())
        if fits:
            room -= given_up
            in_train -= leaving
        sides |= {picture.image_id: "val" if fits else "train" for picture in group}
    return sides


def side_of(group: Iterable[Picture]) -> str | None:
    """Return the side of the oldest image that has one, or None."""
    given = [picture for picture in group if picture.side is not None]
    return min(given, key=lambda picture: picture.age).side if given else None


def count_species(pictures: Iterable[Picture]) -> Counter[str]:
    """Return how many images show each species."""
    return Counter(name for picture in pictures for name in picture.species)


def room_in_validation(pictures: Iterable[Picture], shares: Shares) -> Counter[str]:
    """Return how many images of each species go to validation; the most frequent species first, then by name."""
    shown = count_species(pictures)
    ranked = sorted(shown, key=lambda name: (-shown[name], name))
    return Counter({name: shares.of_rank(rank) for rank, name in enumerate(ranked, start=1)})


def linked_groups(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Return the images in groups; two that share a link, directly or through others, are in one group."""
    parent: dict[str, str] = {}

    def top(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for picture in pictures:
        for link in picture.links:
            parent[top(f"link {link}")] = top(f"image {picture.image_id}")
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(top(f"image {picture.image_id}"), []).append(picture)
    return list(groups.values())


def draw(seed: int, image_id: str) -> bytes:
    """Return the sort key of an image in the draw for validation: lower bytes come first."""
    return hashlib.sha256(f"split {seed} {image_id}".encode()).digest()


def parted_groups(pictures: Iterable[Picture], sides: Mapping[str, str]) -> list[list[Picture]]:
    """Return the groups with images on both sides, each sorted from the oldest image."""
    groups = linked_groups([picture for picture in pictures if picture.in_set])
    parted = [group for group in groups if len({sides[picture.image_id] for picture in group}) > 1]
    return sorted((sorted(group, key=lambda each: each.age) for group in parted), key=lambda group: group[0].age)


def species_without_train(pictures: Sequence[Picture], sides: Mapping[str, str]) -> list[str]:
    """Return the species that no image in train shows."""
    in_set = [picture for picture in pictures if picture.in_set]
    in_train = count_species(picture for picture in in_set if sides[picture.image_id] == "train")
    return sorted(count_species(in_set).keys() - in_train.keys())


def remembered_sides(root: Path) -> dict[str, str]:
    """Return the last side that split.py assigned to each image, from its journals, including images not in base.csv.

    Raises:
        InputError: a journal is damaged.
    """
    sides: dict[str, str] = {}
    for path in sorted((root / RUNS_FOLDER).glob("*-split-*.jsonl")):  # in the order of the runs' start times
        for _, entry in read_entries(path):
            if entry.get("note") == {REASSIGNED: True}:
                sides.clear()
            cells = entry.get("set")
            side = cells.get("split") if isinstance(cells, dict) else None
            if side in SPLITS:
                sides[str(entry[KEY])] = side
    return sides
