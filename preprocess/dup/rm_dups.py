"""Stage 6, second half: of images that look the same, keep the best one.

Two images are near-duplicates when their hashes differ in at most --threshold of 64 bits; every such pair is found.
The best of a group is kept: highest ae_aesthetic (a missing score is lowest), then most pixels in the raw file, then
earliest ts, then image_id. With --linkage star an image goes only if it lies within the threshold of the one kept
for it; with single, near-duplicates of near-duplicates go too. A flat image, whose hash says nothing, is a duplicate
only of the same bytes. Nothing is deleted, and a run changes only rows whose answer has changed.

Reads   images.csv: phash64, sha256, ae_aesthetic, w, h, ts
Writes  images.csv: dupe_group, dupe_rep_image, dupe_distance, dupe_flag, dupe_removed, dupe_keep_reason, dupe_run_id
        drops.csv: a row for each image that goes; metadata/audit/dups-<run_id>.csv: a row for each member of a group

    python preprocess/dup/rm_dups.py --dry-run
    python preprocess/dup/rm_dups.py
    python preprocess/dup/rm_dups.py --root my-dataset --threshold 4 --linkage single
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from pokefa.columns import IMAGES, Value
from pokefa.errors import InputError
from pokefa.options import options_from, stage_parser, whole_number
from pokefa.run import Row, StageRun, decode_rows, run_stage
from pokefa.selection import eligible_rows
from pokefa.table import KEY, replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Linkage = Literal["star", "single"]

THRESHOLD = 6

# Two strangers differ in about 32 of 64 bits; a threshold near that would make one group of everything.
HIGHEST_THRESHOLD = 24

# A hash bit tells whether a frequency lies over the median of all 64, so half the bits are set, unless most
# frequencies are absent and tie. A plain colour sets at most 1 bit, and a picture that varies in one direction only,
# such as a gradient or stripes, at most 8: one row or column of the 8 by 8 frequencies.
FLAT_BITS = 8

COMPARISONS_AT_ONCE = 2**22  # 32 MiB of 64-bit words

CRITERIA = ("aesthetic", "pixels", "ts", "image_id")

READ = ("phash64", "sha256", "ae_aesthetic", "w", "h", "ts")
DECIDED = ("dupe_group", "dupe_rep_image", "dupe_distance", "dupe_flag", "dupe_removed", "dupe_keep_reason")
AUDITED = (KEY, *DECIDED, *READ, "path_resized", "source_url")


@dataclass(frozen=True)
class Candidate:
    """An image as far as finding duplicates goes; `phash` is the 64-bit hash as a number."""

    image_id: str
    phash: int
    sha256: str | None
    aesthetic: int | None
    pixels: int
    ts: str | None

    @property
    def flat(self) -> bool:
        return self.phash.bit_count() <= FLAT_BITS

    @property
    def order(self) -> tuple[tuple[bool, int], int, tuple[bool, str], str]:
        """Sort key, best first: one part for each of CRITERIA, missing values last."""
        return (
            (self.aesthetic is None, -(self.aesthetic or 0)),
            -self.pixels,
            (self.ts is None, self.ts or ""),
            self.image_id,
        )


def candidate(row: Row) -> Candidate:
    """Return a ledger row as a candidate.

    Raises:
        InputError: phash64 is not 16 hex digits.
    """
    text, width, height, aesthetic = str(row["phash64"]), row["w"], row["h"], row["ae_aesthetic"]
    try:
        phash = int.from_bytes(bytes.fromhex(text), "big") if len(text) == 16 else None
    except ValueError:
        phash = None
    if phash is None:
        raise InputError(
            f"{IMAGES.path}, image {row[KEY]}, phash64: {text!r} is not 16 hex digits; empty the cell and run "
            "preprocess/dup/phash.py again"
        )
    pixels = width * height if isinstance(width, int) and isinstance(height, int) else 0
    sha256, ts = (None if row[name] is None else str(row[name]) for name in ("sha256", "ts"))
    return Candidate(str(row[KEY]), phash, sha256, aesthetic if isinstance(aesthetic, int) else None, pixels, ts)


def near_pairs(hashes: NDArray[np.uint64], threshold: int) -> NDArray[np.int64]:
    """Return every pair of hashes that differ in at most `threshold` bits, by comparing each with each.

    Args:
        hashes: (N,) uint64.

    Returns:
        (P, 2) int64: positions i < j, sorted.
    """
    import numpy as np

    found = [np.empty((0, 2), np.int64)]
    step = max(1, COMPARISONS_AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), step):
        distances = np.bitwise_count(hashes[start : start + step, None] ^ hashes[None, start:])
        first, second = np.nonzero(distances <= threshold)
        later = second > first
        found.append(np.column_stack((first[later], second[later])) + start)
    return np.concatenate(found)


def choose_kept(candidates: Sequence[Candidate], threshold: int, linkage: Linkage) -> dict[str, str]:
    """Return {image_id: image_id of the one kept for it}; whoever is kept stands for itself.

    Images with the same hash share their fate, so the search and the grouping see each hash once, at the place of
    its best image. `star` takes the hashes best first: one that is still free is kept and takes its free neighbours.
    """
    import numpy as np

    ranked = sorted(candidates, key=lambda each: each.order)
    same: defaultdict[object, list[Candidate]] = defaultdict(list)
    for each in ranked:
        same[(each.sha256 or each.image_id) if each.flat else each.phash].append(each)
    members = list(same.values())  # best first, and best first within
    searched = [place for place, group in enumerate(members) if not group[0].flat]
    hashes = np.array([members[place][0].phash for place in searched], np.uint64)
    neighbours: defaultdict[int, list[int]] = defaultdict(list)
    for first, second in near_pairs(hashes, threshold).tolist():
        neighbours[searched[first]].append(searched[second])
        neighbours[searched[second]].append(searched[first])
    keeper: dict[int, int] = {}
    for place in range(len(members)):
        if place in keeper:
            continue
        reached = [place]
        keeper[place] = place
        for other in reached:  # grows under `single`, which goes on from neighbour to neighbour
            new = [near for near in neighbours[other] if near not in keeper]
            keeper.update(dict.fromkeys(new, place))
            if linkage == "single":
                reached += new
    return {each.image_id: members[keeper[place]][0].image_id for place, group in enumerate(members) for each in group}


def decide(candidates: Sequence[Candidate], threshold: int, linkage: Linkage) -> dict[str, dict[str, Value]]:
    """Return the DECIDED columns of every candidate, by image_id, whatever the order of the candidates."""
    kept_for = choose_kept(candidates, threshold, linkage)
    groups: defaultdict[str, list[Candidate]] = defaultdict(list)
    for each in sorted(candidates, key=lambda each: each.order):
        groups[kept_for[each.image_id]].append(each)
    decisions: dict[str, dict[str, Value]] = {}
    for kept_id, (kept, *others) in groups.items():
        if not others:
            decisions[kept_id] = _cells("unique", removed=False)
            continue
        decisions[kept_id] = _cells("kept", kept_id, 0, keep_reason(kept, others[0]), removed=False)
        for other in others:
            distance = (kept.phash ^ other.phash).bit_count()
            flag = "near" if distance else "identical"
            decisions[other.image_id] = _cells(flag, kept_id, distance, keep_reason(kept, other), removed=True)
    return decisions


def keep_reason(kept: Candidate, other: Candidate) -> str:
    """Return the first of CRITERIA in which the two differ."""
    pairs = zip(CRITERIA, kept.order, other.order, strict=True)
    return next(name for name, mine, theirs in pairs if mine != theirs)


def _cells(
    flag: str, kept: str | None = None, distance: int | None = None, reason: str | None = None, *, removed: bool
) -> dict[str, Value]:
    return dict(zip(DECIDED, (kept, kept, distance, flag, removed, reason), strict=True))


def remove_duplicates(run: StageRun, threshold: int, linkage: Linkage) -> None:
    """Decide over all eligible rows at once, and record what has changed."""
    table = run.table()
    rows = decode_rows(eligible_rows(table, run.step), READ, run.step)
    run.seen = len(rows)
    candidates = [candidate(row) for row in rows]
    decisions = decide(candidates, threshold, linkage)
    flags = Counter(str(cells["dupe_flag"]) for cells in decisions.values())
    run.extra = {
        "flags": {name: flags[name] for name in ("unique", "kept", "identical", "near")},
        "flat": sum(each.flat for each in candidates),
        "without_score": sum(each.aesthetic is None for each in candidates),
    }
    changes = changed_rows(table, decisions)
    if run.options.dry_run:
        for image_id, removed_before, cells in changes:
            if cells["dupe_removed"] is True and not removed_before:
                print(f"remove {image_id} {describe(cells)}")
            elif removed_before and cells["dupe_removed"] is not True:
                print(f"restore {image_id}")
        return
    run.check_stop()
    if changes:
        # Before the decisions: killed in between, the next run finds the same changes and writes its own audit.
        write_audit(run, table, decisions, {image_id for image_id, _, _ in changes})
    for image_id, removed_before, cells in changes:
        if cells["dupe_flag"] is None:
            run.record(image_id, {**cells, "dupe_run_id": None}, reason="no_longer_eligible")
        elif cells["dupe_removed"] is True and not removed_before:
            run.record(image_id, cells, reason=str(cells["dupe_flag"]), drop="duplicate", detail=describe(cells))
        else:
            run.record(image_id, cells, reason=str(cells["dupe_flag"]))


def changed_rows(
    table: pl.DataFrame, decisions: Mapping[str, Mapping[str, Value]]
) -> list[tuple[str, bool, Mapping[str, Value]]]:
    """Return (image_id, was it removed before, new cells) of the rows whose cells differ, in table order.

    Rows without a decision, being eligible no longer, have theirs emptied.
    """
    empty: dict[str, Value] = dict.fromkeys(DECIDED)
    changes: list[tuple[str, bool, Mapping[str, Value]]] = []
    for before in table.select(KEY, *DECIDED).iter_rows(named=True):
        image_id = before.pop(KEY)
        cells = decisions.get(image_id, empty)
        if IMAGES.encode_cells("rm_dups", cells) != before:
            changes.append((image_id, before["dupe_removed"] == "True", cells))
    return changes


def describe(cells: Mapping[str, Value]) -> str:
    """Return why an image goes, as `near: 3 bits from <image_id>, which is kept for its aesthetic`."""
    flag, distance, kept = cells["dupe_flag"], cells["dupe_distance"], cells["dupe_rep_image"]
    return f"{flag}: {distance} bits from {kept}, which is kept for its {cells['dupe_keep_reason']}"


def write_audit(
    run: StageRun, table: pl.DataFrame, decisions: Mapping[str, Mapping[str, Value]], changed: set[str]
) -> None:
    """Write metadata/audit/dups-<run_id>.csv: all groups as they are now, each with the kept image first."""
    facts = {row[KEY]: row for row in table.select(KEY, *READ, "path_resized", "source_url").iter_rows(named=True)}
    rows = [
        facts[image_id] | IMAGES.encode_cells("rm_dups", cells) | {"changed": str(image_id in changed)}
        for image_id, cells in decisions.items()
        if cells["dupe_group"] is not None
    ]
    rows.sort(key=lambda row: (row["dupe_group"], row["dupe_removed"], row[KEY]))
    frame = pl.DataFrame(rows, schema=dict.fromkeys([*AUDITED, "changed"], pl.String))
    with replacing(run.root / "metadata/audit" / f"dups-{run.run_id}.csv") as stream:
        frame.write_csv(stream)


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument(
        "--threshold",
        type=whole_number(0, HIGHEST_THRESHOLD),
        default=THRESHOLD,
        metavar="BITS",
        help="most bits that near hashes differ in",
    )
    parser.add_argument("--linkage", choices=["star", "single"], default="star", help="how pairs become groups")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_stage(
        "rm_dups",
        lambda: options_from(args),
        lambda run: remove_duplicates(run, args.threshold, args.linkage),
        arguments=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
