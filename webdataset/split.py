"""Stage 9, second part: which images train, and which validate.

Species are ranked by the number of images that show them. Each species down to --head-rank gives --head-images to
validation, each one further down to --middle-rank gives --middle-images, and the rest none; an image is given by the
first species of its list. Nothing leaks: images of one duplicate group or one source page stay together, and so do
images whose perceptual hashes differ in at most --threshold bits (mirrored and turned copies too, if phash.py hashed
them), directly or through others. They go to a side that has room for all of them, and every species keeps at least
one image in train. Which images go is decided by a hash of --seed and image_id, so the order of rows does not matter
and new images move few old ones.

Reads   base.csv: species; images.csv: dupe_group, source_page, phash64, phash_contrast, phash_variants, drop_reason
Writes  base.csv: split; webdataset/manifests/: train_ids.txt, val_ids.txt, train_species.csv, val_species.csv

    python webdataset/split.py
    python webdataset/split.py --root my-dataset --seed 7 --head-rank 50 --middle-rank 50
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pokefa.options import options_from, stage_parser, whole_number
from pokefa.run import StageRun, run_stage
from pokefa.selection import eligible_rows
from pokefa.table import KEY, with_missing
from pokefa.text import write_text
from preprocess.dup.alike import HASHES, look_alikes
from preprocess.dup.rm_dups import HIGHEST_THRESHOLD, THRESHOLD

MANIFESTS = "webdataset/manifests"
LINKS = ("dupe_group", "source_page")

LARGE_SHARE = 0.2  # a validation set over this share of the images is worth a warning

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Shares:
    """How many images each species gives to validation, by its rank; rank 1 has the most images."""

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
    """One image, as far as the split goes.

    Args:
        species: the canonical slugs that it shows; the first one is the species that it stands for.
        links: marks that it shares with the images that it must not be parted from.
    """

    image_id: str
    species: tuple[str, ...]
    links: tuple[str, ...] = ()


def split_pictures(pictures: Iterable[Picture], shares: Shares, seed: int) -> dict[str, str]:
    """Return {image_id: "train" or "val"}.

    Groups of linked pictures come up in the order of their hashes. One goes to validation when each species that its
    pictures stand for still has room for them there, and each species that they show keeps a picture in train.
    """
    pictures = list(pictures)
    shown = count_species(pictures)
    room = room_in_validation(shown, shares)
    sides: dict[str, str] = {}
    for group in sorted(linked_groups(pictures), key=lambda group: min(draw(seed, each.image_id) for each in group)):
        given = Counter(picture.species[0] for picture in group)
        leaving = Counter(name for picture in group for name in picture.species)
        fits = all(room[name] >= count for name, count in given.items())
        side = "val" if fits and all(shown[name] > count for name, count in leaving.items()) else "train"
        if side == "val":
            room -= given
            shown -= leaving
        sides |= {picture.image_id: side for picture in group}
    return sides


def count_species(pictures: Iterable[Picture]) -> Counter[str]:
    """Return how many pictures show each species."""
    return Counter(name for picture in pictures for name in picture.species)


def room_in_validation(shown: Mapping[str, int], shares: Shares) -> Counter[str]:
    """Return how many pictures each species is to give; those shown most come first, equals by name."""
    ranked = sorted(shown, key=lambda name: (-shown[name], name))
    return Counter({name: shares.of_rank(rank) for rank, name in enumerate(ranked, start=1)})


def linked_groups(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Return the pictures in groups; two that share a link, directly or through others, are in the same group."""
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
    """Return the place of an image in the draw for validation: lower bytes come up earlier."""
    return hashlib.sha256(f"split {seed} {image_id}".encode()).digest()


def species_csv(species: Iterable[Sequence[str]]) -> str:
    """Return the text of a species manifest, given the species of each image of one side.

    `count` is the number of images that show the species, `fraction` that number divided by the side's images.
    """
    lists = list(species)
    counts = Counter(name for names in lists for name in names)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "pokemon,count,fraction\n" + "".join(f"{name},{n},{n / len(lists):.6f}\n" for name, n in ranked)


def read_pictures(run: StageRun, threshold: int) -> tuple[list[Picture], dict[str, str | None]]:
    """Return the pictures to split, and {image_id: split cell} of all rows of base.csv as they stand."""
    images = with_missing(run.ledger.images.read_keyed(), (*LINKS, *HASHES)).select(KEY, *LINKS, *HASHES)
    frame = with_missing(run.table(), ["split"]).select(KEY, "species", "split", "drop_reason")
    eligible = eligible_rows(frame, run.step).join(images, on=KEY, how="left", maintain_order="left")
    alike: dict[str, list[str]] = {}
    pairs = look_alikes(eligible, threshold)
    run.extra["look_alikes"] = len(pairs)
    for one, other in pairs:
        for image_id in (one, other):
            alike.setdefault(image_id, []).append(f"alike {one} {other}")
    pictures = []
    for image_id, species, *marks in eligible.select(KEY, "species", *LINKS).iter_rows():
        names = tuple(dict.fromkeys(species.replace(",", " ").split()))
        links = [f"{name} {mark}" for name, mark in zip(LINKS, marks, strict=True) if mark is not None]
        if names:
            pictures.append(Picture(image_id, names, (*links, *alike.get(image_id, ()))))
    return pictures, dict(frame.select(KEY, "split").iter_rows())


def assign_sides(run: StageRun, shares: Shares, seed: int, threshold: int) -> None:
    """Split the images that have species, record what changed, and write the manifests."""
    pictures, before = read_pictures(run, threshold)
    run.seen = len(pictures)
    sides = split_pictures(pictures, shares, seed)
    for image_id, side in before.items():
        after = sides.get(image_id)
        if after != side:
            run.record(image_id, {"split": after}, reason=after or "emptied")
    run.extra.update(train=0, val=0)
    run.extra.update(Counter(sides.values()))
    room = room_in_validation(count_species(pictures), shares)
    room -= Counter(picture.species[0] for picture in pictures if sides[picture.image_id] == "val")
    run.extra["species_short"] = len(room)
    if room:
        log.info("%d species give fewer images than their share, having too few that can leave train", len(room))
    if run.extra["val"] > LARGE_SHARE * len(pictures):
        log.warning(
            "%d of %d images validate, which leaves few to train on: for a small set choose smaller --head-images and "
            "--middle-rank",
            run.extra["val"],
            len(pictures),
        )
    if run.options.dry_run:
        log.info("dry run: %d train, %d val", run.extra["train"], run.extra["val"])
        return
    write_manifests(run.root / MANIFESTS, pictures, sides)


def write_manifests(folder: Path, pictures: Sequence[Picture], sides: Mapping[str, str]) -> None:
    """Write the id lists, sorted, and the species counts of both sides, where they differ from what is there."""
    for side in ("train", "val"):
        chosen = [picture for picture in pictures if sides[picture.image_id] == side]
        ids = sorted(picture.image_id for picture in chosen)
        write_text(folder / f"{side}_ids.txt", "".join(f"{image_id}\n" for image_id in ids))
        write_text(folder / f"{side}_species.csv", species_csv(picture.species for picture in chosen))


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    shares = Shares()
    ask = parser.add_argument
    ask(
        "--threshold",
        type=whole_number(0, HIGHEST_THRESHOLD),
        default=THRESHOLD,
        metavar="BITS",
        help="most bits that the hashes of images which stay together differ in, as for rm_dups.py",
    )
    ask("--seed", type=int, default=0, metavar="N", help="another seed gives another validation set")
    ask("--head-rank", type=whole_number(0), default=shares.head_rank, metavar="RANK", help="last rank of the head")
    ask("--head-images", type=whole_number(0), default=shares.head_images, metavar="N", help="of each head species")
    ask("--middle-rank", type=whole_number(0), default=shares.middle_rank, metavar="RANK", help="last rank to give any")
    ask("--middle-images", type=whole_number(0), default=shares.middle_images, metavar="N", help="of each one between")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.middle_rank < args.head_rank:
        parser.error(f"--middle-rank {args.middle_rank} is before --head-rank {args.head_rank}: give a later rank")
    shares = Shares(args.head_rank, args.head_images, args.middle_rank, args.middle_images)
    seed, threshold = args.seed, args.threshold
    return run_stage(
        "split",
        lambda: options_from(args),
        lambda run: assign_sides(run, shares, seed, threshold),
        arguments=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
