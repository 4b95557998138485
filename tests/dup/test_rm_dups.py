"""Stage 6: every near pair is found, no stranger goes, the best stays, and a second run changes nothing."""

from __future__ import annotations

import csv
import itertools
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokefa.errors import InputError
from preprocess.dup.rm_dups import CRITERIA, DECIDED, FLAT_BITS, Candidate, Linkage, candidate, decide, near_pairs
from tests.conftest import Dataset, Finished

SCRIPT = "preprocess/dup/rm_dups.py"
BASE = 0xF0E1D2C3B4A59687  # 32 bits set


def flip(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def image(
    name: str, phash: int = BASE, aesthetic: int | None = 70, pixels: int = 100, ts: str | None = "2026-01-01",
    sha256: str | None = None,
) -> Candidate:  # fmt: skip
    return Candidate(name, phash, sha256 or f"sha of {name}", aesthetic, pixels, ts)


# -- pairs ------------------------------------------------------------------------------------------------------


def brute_force(hashes: Sequence[int], threshold: int) -> list[list[int]]:
    every = itertools.combinations(range(len(hashes)), 2)
    return [[i, j] for i, j in every if (hashes[i] ^ hashes[j]).bit_count() <= threshold]


words = st.integers(0, 2**64 - 1)
# A few hashes and others a few flipped bits away, so that neighbours at every distance are common.
related = st.builds(
    lambda centres, flips: [flip(centres[which % len(centres)], *bits) for which, bits in flips],
    st.lists(words, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 63), max_size=12, unique=True)), max_size=40),
)


@given(related, st.integers(0, 24))
def test_every_near_pair_is_found(hashes: list[int], threshold: int) -> None:
    assert near_pairs(np.array(hashes, np.uint64), threshold).tolist() == brute_force(hashes, threshold)


def test_pairs_across_blocks() -> None:
    # More than one block of comparisons: 3,000 hashes are compared 1,398 at a time.
    generator = random.Random(5)
    hashes = [generator.getrandbits(64) for _ in range(3000)]
    planted = []
    for first, second in zip(range(0, 3000, 300), range(2999, 0, -299), strict=False):
        hashes[second] = flip(hashes[first], *generator.sample(range(64), 6))
        planted.append(sorted((first, second)))
    assert near_pairs(np.array(hashes, np.uint64), 6).tolist() == sorted(planted)


@pytest.mark.parametrize("hashes", [[], [7]])
def test_no_pairs(hashes: list[int]) -> None:
    assert near_pairs(np.array(hashes, np.uint64), 6).shape == (0, 2)


# -- groups -----------------------------------------------------------------------------------------------------

candidates_strategy = st.builds(
    lambda hashes, facts: [
        Candidate(f"{place:032x}", phash, f"{phash:016x}", *fact)
        for place, (phash, fact) in enumerate(zip(hashes, facts, strict=False))
    ],
    related,
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 3), st.integers(0, 2), st.none() | st.sampled_from(["2026-01-01", "2026-01-02"])
        ),
        max_size=40,
    ),
)
linkages = st.sampled_from(["star", "single"])


@given(candidates_strategy, st.integers(0, 12))
def test_star_never_drifts_and_never_keeps_two_near_ones(candidates: list[Candidate], threshold: int) -> None:
    decisions = decide(candidates, threshold, "star")
    by_id = {each.image_id: each for each in candidates}
    for image_id, cells in decisions.items():
        if cells["dupe_removed"]:
            kept = by_id[str(cells["dupe_rep_image"])]
            distance = (by_id[image_id].phash ^ kept.phash).bit_count()
            assert distance == cells["dupe_distance"] <= threshold
            assert decisions[kept.image_id]["dupe_flag"] == "kept"
            assert kept.order < by_id[image_id].order
    stay = [by_id[image_id] for image_id, cells in decisions.items() if not cells["dupe_removed"]]
    for one, other in itertools.combinations([each for each in stay if not each.flat], 2):
        assert (one.phash ^ other.phash).bit_count() > threshold


@given(candidates_strategy, st.integers(0, 12))
def test_single_gives_connected_components_and_their_best(candidates: list[Candidate], threshold: int) -> None:
    decisions = decide(candidates, threshold, "single")
    component = {each.image_id: {each.image_id} for each in candidates}
    for one, other in itertools.combinations(candidates, 2):
        linked = one.sha256 == other.sha256 if one.flat and other.flat else not (one.flat or other.flat)
        if linked and (one.phash ^ other.phash).bit_count() <= threshold:
            merged = component[one.image_id] | component[other.image_id]
            component.update(dict.fromkeys(merged, merged))
    order = {each.image_id: each.order for each in candidates}
    for image_id, cells in decisions.items():
        best = min(component[image_id], key=order.__getitem__)
        assert cells["dupe_group"] == (best if len(component[image_id]) > 1 else None)
        assert cells["dupe_removed"] == (image_id != best)


@given(candidates_strategy, linkages, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(candidates: list[Candidate], linkage: Linkage, rng: random.Random) -> None:
    shuffled = list(candidates)
    rng.shuffle(shuffled)
    assert decide(shuffled, 6, linkage) == decide(candidates, 6, linkage)


@given(candidates_strategy, linkages)
def test_cells_agree_with_each_other(candidates: list[Candidate], linkage: Linkage) -> None:
    decisions = decide(candidates, 6, linkage)
    assert decisions.keys() == {each.image_id for each in candidates}
    for image_id, cells in decisions.items():
        assert tuple(cells) == DECIDED
        group = [other for other, theirs in decisions.items() if theirs["dupe_group"] == cells["dupe_group"]]
        if cells["dupe_flag"] == "unique":
            assert list(cells.values()) == [None, None, None, "unique", False, None]
        else:
            assert len(group) > 1
            assert cells["dupe_group"] == cells["dupe_rep_image"] in group
            assert cells["dupe_keep_reason"] in CRITERIA
            assert (cells["dupe_flag"] == "kept") == (image_id == cells["dupe_group"]) == (not cells["dupe_removed"])
            assert (cells["dupe_flag"] == "near") == (cells["dupe_distance"] != 0)


def test_a_chain_drifts_only_with_single() -> None:
    chain = [image("a", BASE, 90), image("b", flip(BASE, 0, 1, 2, 3)), image("c", flip(BASE, *range(8)), 60)]
    removed = {
        linkage: [name for name, cells in decide(chain, 6, linkage).items() if cells["dupe_removed"]]
        for linkage in ("star", "single")
    }
    assert removed == {"star": ["b"], "single": ["b", "c"]}
    assert decide(chain, 6, "single")["c"]["dupe_distance"] == 8


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        (image("z", aesthetic=71, pixels=1, ts="2027"), image("a", aesthetic=70), "aesthetic"),
        (image("z", aesthetic=0, pixels=1, ts="2027"), image("a", aesthetic=None), "aesthetic"),
        (image("z", pixels=101, ts="2027"), image("a", pixels=100), "pixels"),
        (image("z", ts="2025-12-31T23:59:59Z"), image("a", ts="2026-01-01T00:00:00Z"), "ts"),
        (image("z", ts="2027"), image("a", ts=None), "ts"),
        (image("a"), image("b"), "image_id"),
    ],
)
def test_the_best_is_kept(better: Candidate, worse: Candidate, reason: str) -> None:
    for order in ([better, worse], [worse, better]):
        decisions = decide(order, 6, "star")
        name = better.image_id
        assert list(decisions[name].values()) == [name, name, 0, "kept", False, reason]
        assert list(decisions[worse.image_id].values()) == [name, name, 0, "identical", True, reason]


def test_the_reason_is_told_for_each_loser() -> None:
    decisions = decide([image("a"), image("b", pixels=50), image("c"), image("d", aesthetic=3)], 6, "star")
    assert {name: cells["dupe_keep_reason"] for name, cells in decisions.items()} == {
        "a": "image_id", "b": "pixels", "c": "image_id", "d": "aesthetic",
    }  # fmt: skip


@pytest.mark.parametrize(("distance", "removed"), [(0, True), (5, True), (6, True), (7, False)])
def test_the_threshold_counts_itself(distance: int, removed: bool) -> None:
    decisions = decide([image("a"), image("b", flip(BASE, *range(distance)))], 6, "star")
    assert decisions["b"]["dupe_removed"] is removed


def test_flat_images_are_compared_by_their_bytes() -> None:
    plain = 0x8000000000000000
    decisions = decide(
        [
            image("a", plain), image("b", plain), image("c", 0), image("d", plain, sha256="same"),
            image("e", plain, sha256="same", aesthetic=3),
        ],
        6, "star",
    )  # fmt: skip
    assert {name: cells["dupe_flag"] for name, cells in decisions.items()} == {
        "a": "unique", "b": "unique", "c": "unique", "d": "kept", "e": "identical",
    }  # fmt: skip


@pytest.mark.parametrize(("bits", "flag"), [(FLAT_BITS, "unique"), (FLAT_BITS + 1, "identical")])
def test_what_counts_as_flat(bits: int, flag: str) -> None:
    phash = (1 << bits) - 1
    assert decide([image("a", phash), image("b", phash)], 6, "star")["b"]["dupe_flag"] == flag


def test_images_without_a_hash_sum_are_never_the_same_bytes() -> None:
    flat = [Candidate(name, 0, None, 50, 1, None) for name in "ab"]
    assert {cells["dupe_flag"] for cells in decide(flat, 6, "star").values()} == {"unique"}


@pytest.mark.parametrize("text", ["123", "f0e1d2c3b4a5968g", "f0e1d2c3b4a596877", " f0e1d2c3b4a5968"])
def test_a_bad_hash_is_named(text: str) -> None:
    row = {"image_id": "x", "phash64": text, "sha256": None, "ae_aesthetic": 1, "w": 1, "h": 1, "ts": None}
    with pytest.raises(InputError) as caught:
        candidate(row)
    assert str(caught.value) == (
        f"metadata/images.csv, image x, phash64: {text!r} is not 16 hex digits; empty the cell and run "
        "preprocess/dup/phash.py again"
    )


# -- the script -------------------------------------------------------------------------------------------------


def row(name: str, phash: int, aesthetic: object = 70, **cells: object) -> dict[str, object]:
    return {
        "image_id": name * 32,
        "sha256": name * 64,
        "source_url": f"http://host/{name}.png",
        "w": 10,
        "h": 10,
        "ts": "2026-01-01T00:00:00.000Z",
        "is_nsfw": "False",
        "has_ocr": "False",
        "path_resized": f"data_stage/resized/x/{name}.png",
        "phash64": f"{phash:016x}",
        "ae_aesthetic": aesthetic,
        **cells,
    }


def some_rows() -> list[dict[str, object]]:
    return [
        row("a", BASE, 60),
        row("b", flip(BASE, 1, 2), 80),
        row("c", flip(BASE, 1, 2), 70),
        row("d", ~BASE & (2**64 - 1), ""),
        row("e", 0x8000000000000000),
        row("f", BASE, 99, is_nsfw="True"),
    ]


def flags(dataset: Dataset) -> dict[str, str]:
    return {name[0]: cells["dupe_flag"] for name, cells in dataset.images().items()}


def audits(dataset: Dataset) -> list[Path]:
    return sorted((dataset.root / "metadata").glob("audit/dups-*.csv"))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def run(dataset: Dataset, *flags: object) -> Finished:
    finished = dataset.run(SCRIPT, *flags)
    assert finished.code == 0, finished.stderr
    return finished


def test_the_script(dataset: Dataset) -> None:
    dataset.write_images(some_rows())
    finished = run(dataset)
    images = dataset.images()
    assert flags(dataset) == {"a": "near", "b": "kept", "c": "identical", "d": "unique", "e": "unique", "f": ""}
    assert [images["a" * 32][name] for name in (*DECIDED, "dupe_run_id")] == [
        "b" * 32, "b" * 32, "2", "near", "True", "aesthetic", finished.summary["run_id"],
    ]  # fmt: skip
    assert [images["d" * 32][name] for name in DECIDED] == ["", "", "", "unique", "False", ""]
    assert finished.summary["seen"] == finished.summary["done"] == 5
    assert finished.summary["counts"] == {"identical": 1, "kept": 1, "near": 1, "unique": 2}
    assert finished.summary["flags"] == {"unique": 2, "kept": 1, "identical": 1, "near": 1}
    assert (finished.summary["flat"], finished.summary["without_score"]) == (1, 1)


def test_drops_and_audit(dataset: Dataset) -> None:
    dataset.write_images(some_rows())
    finished = run(dataset)
    drops = [(drop["image_id"][0], drop["stage"], drop["reason"], drop["detail"]) for drop in dataset.rows("drops")]
    kept = "b" * 32
    assert drops == [
        ("a", "rm_dups", "duplicate", f"near: 2 bits from {kept}, which is kept for its aesthetic"),
        ("c", "rm_dups", "duplicate", f"identical: 0 bits from {kept}, which is kept for its aesthetic"),
    ]
    assert {drop["source_url"] for drop in dataset.rows("drops")} == {"http://host/a.png", "http://host/c.png"}
    assert [path.name for path in audits(dataset)] == [f"dups-{finished.summary['run_id']}.csv"]
    with audits(dataset)[0].open(newline="") as stream:
        members = list(csv.DictReader(stream))
    assert [(each["image_id"][0], each["dupe_flag"], each["ae_aesthetic"]) for each in members] == [
        ("b", "kept", "80"), ("a", "near", "60"), ("c", "identical", "70"),
    ]  # fmt: skip
    assert {each["changed"] for each in members} == {"True"}


def test_a_second_run_changes_no_byte(dataset: Dataset) -> None:
    dataset.write_images(some_rows())
    run(dataset)
    before = contents(dataset.root)
    assert run(dataset).summary["done"] == 0
    assert contents(dataset.root) == before


def test_dry_run_tells_and_changes_nothing(dataset: Dataset) -> None:
    dataset.write_images(some_rows())
    before = contents(dataset.root)
    finished = run(dataset, "--dry-run")
    kept = "b" * 32
    assert finished.stdout.splitlines()[:-1] == [
        f"remove {'a' * 32} near: 2 bits from {kept}, which is kept for its aesthetic",
        f"remove {'c' * 32} identical: 0 bits from {kept}, which is kept for its aesthetic",
    ]
    assert finished.summary["flags"]["near"] == 1
    assert contents(dataset.root) == before


def rewrite(dataset: Dataset, change: Iterable[tuple[str, dict[str, str]]], *more: dict[str, object]) -> None:
    """Edit cells of images.csv as a person, or another stage, might."""
    rows = dataset.rows("images")
    for name, cells in change:
        next(each for each in rows if each["image_id"] == name * 32).update(cells)
    dataset.write_images([*rows, *more])


def test_new_images_touch_only_the_groups_that_they_join(dataset: Dataset) -> None:
    far = 0x0123456789ABCDEF
    dataset.write_images([*some_rows(), row("1", far, 50), row("2", flip(far, 9), 40)])
    first = run(dataset).summary["run_id"]
    rewrite(dataset, [], row("3", flip(far, 9, 10), 90), row("4", 0xAAAA5555AAAA5555))
    finished = run(dataset)
    second = finished.summary["run_id"]
    images = dataset.images()
    assert {name[0]: cells["dupe_run_id"] for name, cells in images.items()} == {
        **dict.fromkeys("abcde", first), "f": "", **dict.fromkeys("1234", second),
    }  # fmt: skip
    assert flags(dataset) | {"1": "near", "2": "near", "3": "kept", "4": "unique"} == flags(dataset)
    # 2 had gone before and goes still: only what goes newly is a drop.
    assert [drop["image_id"][0] for drop in dataset.rows("drops") if drop["run_id"] == second] == ["1"]
    with audits(dataset)[1].open(newline="") as stream:
        changed = {each["image_id"][0]: each["changed"] for each in csv.DictReader(stream)}
    assert changed == {"b": "False", "a": "False", "c": "False", "3": "True", "1": "True", "2": "True"}


def test_rows_no_longer_eligible_are_emptied_and_their_group_decides_anew(dataset: Dataset) -> None:
    dataset.write_images(some_rows())
    run(dataset)
    rewrite(dataset, [("b", {"is_nsfw": "True"}), ("d", {"drop_reason": "takedown:artist"})])
    finished = run(dataset, "--dry-run")
    assert finished.stdout.splitlines()[:-1] == [f"restore {'c' * 32}"]
    finished = run(dataset)
    images = dataset.images()
    assert [images["b" * 32][name] for name in (*DECIDED, "dupe_run_id")] == [""] * 7
    assert flags(dataset) == {"a": "near", "b": "", "c": "kept", "d": "", "e": "unique", "f": ""}
    assert images["a" * 32]["dupe_rep_image"] == "c" * 32
    assert finished.summary["counts"] == {"kept": 1, "near": 1, "no_longer_eligible": 2}
    assert run(dataset).summary["done"] == 0


def test_other_settings_decide_anew(dataset: Dataset) -> None:
    dataset.write_images(some_rows())
    run(dataset)
    assert run(dataset, "--threshold", 1).summary["done"] == 1  # only for `a` is the answer another one
    assert flags(dataset) == {"a": "unique", "b": "kept", "c": "identical", "d": "unique", "e": "unique", "f": ""}


def test_images_without_a_score_lose_and_are_counted(dataset: Dataset) -> None:
    dataset.write_images([row("a", BASE, ""), row("b", BASE, 0)])
    finished = run(dataset)
    assert flags(dataset) == {"a": "identical", "b": "kept"}
    assert finished.summary["without_score"] == 1


def test_nothing_to_do(dataset: Dataset) -> None:
    dataset.write_images([])
    assert run(dataset).summary["done"] == 0
    assert audits(dataset) == []


@pytest.mark.parametrize("value", ["-1", "25", "six", "1.5"])
def test_the_threshold_is_checked(dataset: Dataset, value: str) -> None:
    finished = dataset.run(SCRIPT, f"--threshold={value}")
    assert finished.code == 2
    assert finished.stderr.strip().endswith(f"argument --threshold: {value!r} is not a whole number from 0 to 24")


def test_a_ledger_without_hashes_is_refused(dataset: Dataset) -> None:
    dataset.write_images([row("a", BASE)])
    path = dataset.root / "metadata/images.csv"
    path.write_text(path.read_text().replace("phash64", "my_hash"))
    finished = dataset.run(SCRIPT)
    assert (finished.code, finished.stderr) == (
        2,
        "error: metadata/images.csv has no column phash64: run preprocess/dup/phash.py first\n",
    )
