"""Stage 9, second part: split the images into train and val.

An image with a side keeps it, even if it leaves base.csv and returns, so that results stay comparable as the set grows.
Only --reassign splits everything again. New images are assigned as follows.

Species are ranked by their number of images. Each species down to --head-rank gives --head-images to validation, each
further one down to --middle-rank gives --middle-images, and the rest none; an image counts for the first species in its
list. Groups prevent leaks: images of one duplicate group or one source page stay together, and so do images whose
perceptual hashes differ in at most --threshold bits (also mirrored and rotated copies, if phash.py hashed them),
directly or through others. A new group goes to a side with room for all of it; new images of an old group go to the
side of its oldest image. Every species keeps at least one image in train. A hash of --seed and image_id chooses the
images, so the order of rows does not matter.

If a new image connects images on both sides, all keep their side: `parted_groups` in the summary counts such groups,
and metadata/audit/split.csv lists their images. It also lists images of species that are only in val.

Reads   base.csv: species, split; images.csv: dupe_group, source_page, phash64, phash_contrast, phash_variants, ts,
        drop_reason; the journals of earlier runs
Writes  base.csv: split; webdataset/manifests/: train_ids.txt, val_ids.txt, train_species.csv, val_species.csv;
        metadata/audit/split.csv

    python webdataset/split.py
    python webdataset/split.py --root my-dataset --seed 7 --head-rank 50 --middle-rank 50 --reassign
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from pokefa.files import write_text
from pokefa.images.phash import HASH_COLUMNS, HIGHEST_THRESHOLD, THRESHOLD
from pokefa.ledger.table import KEY, with_missing
from pokefa.shards.layout import MANIFESTS
from pokefa.shards.sides import (
    REASSIGNED,
    Picture,
    Shares,
    parted_groups,
    remembered_sides,
    room_in_validation,
    species_without_train,
    split_pictures,
)
from pokefa.stage.options import stage_parser, whole_number
from pokefa.stage.rows import eligible_rows
from pokefa.stage.runner import StageRun, run_stage

AUDIT = "metadata/audit/split.csv"
LINKS = ("dupe_group", "source_page")

LARGE_SHARE = 0.2  # a validation set over this share of the images causes a warning

log = logging.getLogger("pokefa")


def species_csv(species: Iterable[Sequence[str]]) -> str:
    """Return the text of a species manifest, given the species of each image of one side.

    `count` is the number of images of the species, `fraction` that number divided by the side's images.
    """
    lists = list(species)
    counts = Counter(name for names in lists for name in names)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "pokemon,count,fraction\n" + "".join(f"{name},{n},{n / len(lists):.6f}\n" for name, n in ranked)


def read_pictures(run: StageRun, threshold: int, *, reassign: bool) -> tuple[list[Picture], dict[str, str | None]]:
    """Return the images to split, and {image_id: current split cell} of all rows of base.csv.

    Args:
        reassign: ignore the present sides.
    """
    facts = (*LINKS, *HASH_COLUMNS, "ts")
    images = with_missing(run.ledger.images.read_keyed(), facts).select(KEY, *facts)
    table = with_missing(run.table(), ["split"]).select(KEY, "species", "split", "drop_reason")
    before: dict[str, str | None] = dict(table.select(KEY, "split").iter_rows())
    species = {image_id: species_in(text) for image_id, text in
               eligible_rows(table, run.step).select(KEY, "species").iter_rows()}  # fmt: skip
    sides = {} if reassign else remembered_sides(run.root) | {name: side for name, side in before.items() if side}
    wanted = pl.DataFrame({KEY: list(dict.fromkeys([*species, *sides]))}, schema={KEY: pl.String})
    known = wanted.join(images, on=KEY, how="left", maintain_order="left")
    alike: dict[str, list[str]] = {}
    from pokefa.images.near_hashes import look_alikes  # imports NumPy, which --help does not need

    pairs = look_alikes(known, threshold)
    run.extra["look_alikes"] = len(pairs)
    for one, other in pairs:
        for image_id in (one, other):
            alike.setdefault(image_id, []).append(f"alike {one} {other}")
    pictures = []
    for image_id, ts, *marks in known.select(KEY, "ts", *LINKS).iter_rows():
        links = [f"{name} {mark}" for name, mark in zip(LINKS, marks, strict=True) if mark is not None]
        links += alike.get(image_id, ())
        names = species.get(image_id, ())
        pictures.append(Picture(image_id, names, tuple(links), sides.get(image_id), ts, in_set=bool(names)))
    return pictures, before


def species_in(text: str) -> tuple[str, ...]:
    """Return the slugs of a species cell, each once."""
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


def assign_sides(run: StageRun, shares: Shares, seed: int, threshold: int, *, reassign: bool) -> None:
    """Split the images that have species, record the changes, and write the manifests."""
    everything, before = read_pictures(run, threshold, reassign=reassign)
    pictures = [picture for picture in everything if picture.in_set]
    run.seen = len(pictures)
    sides = split_pictures(everything, shares, seed)
    if reassign and not run.options.dry_run:
        run.note({REASSIGNED: True})
    for image_id, side in before.items():
        after = sides.get(image_id)
        if after != side:
            run.record(image_id, {"split": after}, reason=after or "emptied")
    run.extra.update(train=0, val=0)
    run.extra.update(Counter(sides.values()))
    run.extra["had_a_side"] = sum(picture.side is not None for picture in pictures)
    report_shares(run, pictures, sides, shares)
    parted = parted_groups(pictures, sides)
    only_val = species_without_train(pictures, sides)
    run.extra |= {"parted_groups": len(parted), "species_only_in_val": len(only_val)}
    if parted or only_val:
        log.warning(
            "%d groups of images that belong together are on both sides, and %d species are only in val, because "
            "images keep their side: see %s, or split everything again with --reassign",
            len(parted),
            len(only_val),
            AUDIT,
        )
    if run.options.dry_run:
        log.info("dry run: %d train, %d val", run.extra["train"], run.extra["val"])
        return
    write_text(run.root / AUDIT, audit_csv(pictures, sides, parted, only_val))
    write_manifests(run.root / MANIFESTS, pictures, sides)


def report_shares(run: StageRun, pictures: Sequence[Picture], sides: Mapping[str, str], shares: Shares) -> None:
    """Count the species that give fewer images than their share, and warn if the validation set is large."""
    room = room_in_validation(pictures, shares)
    room -= Counter(picture.species[0] for picture in pictures if sides[picture.image_id] == "val")
    run.extra["species_short"] = len(room)
    if room:
        log.info(
            "%d species give fewer images than their share: too few can leave train, or they already have a side",
            len(room),
        )
    if run.extra["val"] > LARGE_SHARE * len(pictures):
        log.warning(
            "%d of %d images are in val, which leaves few for training: for a small set choose smaller --head-images "
            "and --middle-rank",
            run.extra["val"],
            len(pictures),
        )


def audit_csv(
    pictures: Iterable[Picture], sides: Mapping[str, str], parted: Iterable[Sequence[Picture]], only_val: Iterable[str]
) -> str:
    """Return the text of the audit, with one image per line.

    The problem is `on_both_sides`, of a group named after its oldest image, or `species_only_in_val`, of a species.
    """
    lines = [("on_both_sides", group[0].image_id, picture) for group in parted for picture in group]
    species = set(only_val)
    lines += [
        ("species_only_in_val", name, picture)
        for picture in sorted(pictures, key=lambda picture: picture.image_id)
        for name in picture.species
        if name in species
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["problem", "of", KEY, "split", "ts"])
    for problem, of, picture in lines:
        writer.writerow([problem, of, picture.image_id, sides[picture.image_id], picture.ts])
    return stream.getvalue()


def write_manifests(folder: Path, pictures: Sequence[Picture], sides: Mapping[str, str]) -> None:
    """Write the sorted id lists and the species counts of both sides, if they changed."""
    for side in ("train", "val"):
        chosen = [picture for picture in pictures if sides[picture.image_id] == side]
        ids = sorted(picture.image_id for picture in chosen)
        write_text(folder / f"{side}_ids.txt", "".join(f"{image_id}\n" for image_id in ids))
        write_text(folder / f"{side}_species.csv", species_csv(picture.species for picture in chosen))


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    shares = Shares()
    parser.for_one_run("reassign")
    ask = parser.add_argument
    ask(
        "--threshold",
        type=whole_number(0, HIGHEST_THRESHOLD),
        default=THRESHOLD,
        metavar="BITS",
        help="largest Hamming distance of images that stay together, as in rm_dups.py",
    )
    ask("--reassign", action="store_true", help="split all images again, even those that have a side")
    ask("--seed", type=int, default=0, metavar="N", help="another seed gives another validation set")
    ask("--head-rank", type=whole_number(0), default=shares.head_rank, metavar="RANK", help="last rank of the head")
    ask(
        "--head-images",
        type=whole_number(0),
        default=shares.head_images,
        metavar="N",
        help="of each head species",
    )
    ask(
        "--middle-rank",
        type=whole_number(0),
        default=shares.middle_rank,
        metavar="RANK",
        help="last to give any",
    )
    ask(
        "--middle-images",
        type=whole_number(0),
        default=shares.middle_images,
        metavar="N",
        help="of each further one",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.middle_rank < args.head_rank:
        parser.error(f"--middle-rank {args.middle_rank} is before --head-rank {args.head_rank}: give a later rank")
    shares = Shares(args.head_rank, args.head_images, args.middle_rank, args.middle_images)
    seed, threshold, reassign = args.seed, args.threshold, args.reassign
    return run_stage(
        "split",
        args,
        lambda run: assign_sides(run, shares, seed, threshold, reassign=reassign),
    )


if __name__ == "__main__":
    raise SystemExit(main())
