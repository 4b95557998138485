"""Stage 6: every near pair is found, no stranger goes, the best stays, and a second run changes nothing."""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pokefa.duplicates import grouping as decisions
from pokefa.duplicates.embeddings import Embeddings
from pokefa.duplicates.grouping import CRITERIA, Rules
from pokefa.duplicates.linkage import Linkage
from pokefa.errors import PokefaError
from pokefa.images.phash import FLAT_BITS, FLAT_CONTRAST, TURNS
from pokefa.ledger.cells import Value
from preprocess.dup.rm_dups import DECIDED
from tests.conftest import Dataset, Finished

SCRIPT = "preprocess/dup/rm_dups.py"
BASE = 0xF0E1D2C3B4A59687  # 32 bits set


@dataclass(frozen=True)
class Candidate:
    """An image as far as finding duplicates goes."""

    image_id: str
    phash: int
    sha256: str | None
    aesthetic: int | None
    pixels: int
    ts: str | None
    contrast: float | None = 40.0
    turned: tuple[int, ...] | None = None
    painted: bool = False

    @property
    def flat(self) -> bool:
        return self.phash.bit_count() <= FLAT_BITS

    @property
    def order(self) -> tuple[object, ...]:
        """Sort key, best first; missing values last."""
        aesthetic, ts = self.aesthetic, self.ts
        merits = (aesthetic is None, -(aesthetic or 0)), -self.pixels, (ts is None, ts or "")
        return (self.painted, *merits, self.image_id)

    def row(self) -> dict[str, Value]:
        return {
            "image_id": self.image_id,
            "phash64": f"{self.phash:016x}",
            "phash_contrast": self.contrast,
            "phash_variants": self.turned and " ".join(f"{turn:016x}" for turn in self.turned),
            "sha256": self.sha256,
            "resize_source": "inpainted" if self.painted else "raw",
            "ae_aesthetic": self.aesthetic,
            "w": self.pixels,
            "h": 1,
            "ts": self.ts,
        }


TYPES = dict.fromkeys(["image_id", "phash64", "phash_variants", "sha256", "ts", "resize_source"], pl.String)
TYPES |= dict.fromkeys(["ae_aesthetic", "w", "h"], pl.Int64) | {"phash_contrast": pl.Float64}


def decide(
    candidates: Iterable[Candidate], threshold: int, linkage: Linkage, **rules: object
) -> dict[str, dict[str, Value]]:
    """Return the decisions as {image_id: {column: value}}."""
    settings = Rules(threshold, linkage, **rules)  # type: ignore[arg-type]
    frame = pl.DataFrame([each.row() for each in candidates], schema=TYPES)
    frame = frame if settings.variants else frame.drop("phash_variants")
    return {row.pop("image_id"): row for row in decisions.decide(frame, settings)[0].iter_rows(named=True)}


def flip(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def image(
    name: str, phash: int = BASE, aesthetic: int | None = 70, pixels: int = 100, ts: str | None = "2026-01-01",
    sha256: str | None = None, contrast: float | None = 40.0, turned: tuple[int, ...] | None = None,
    painted: bool = False,
) -> Candidate:  # fmt: skip
    return Candidate(name, phash, sha256 or f"sha of {name}", aesthetic, pixels, ts, contrast, turned, painted)


words = st.integers(0, 2**64 - 1)
# A few hashes and others a few flipped bits away, so that neighbours at every distance are common.
related = st.builds(
    lambda centres, flips: [flip(centres[which % len(centres)], *bits) for which, bits in flips],
    st.lists(words, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 63), max_size=12, unique=True)), max_size=40),
)


# -- groups -----------------------------------------------------------------------------------------------------

candidates_strategy = st.builds(
    lambda hashes, facts: [
        Candidate(f"{place:032x}", phash, f"{phash:016x}", *fact)
        for place, (phash, fact) in enumerate(zip(hashes, facts, strict=False))
    ],
    related,
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 3),
            st.integers(0, 2),
            st.none() | st.sampled_from(["2026-01-01", "2026-01-02"]),
            st.just(40.0),
            st.none(),
            st.booleans(),
        ),
        max_size=40,
    ),
)
linkages = st.sampled_from(["star", "single"])


@settings(max_examples=50, deadline=None)
@given(candidates_strategy, st.integers(0, 12))
def test_star_never_drifts_and_never_keeps_two_near_ones(candidates: list[Candidate], threshold: int) -> None:
    decided = decide(candidates, threshold, "star")
    by_id = {each.image_id: each for each in candidates}
    for image_id, cells in decided.items():
        if cells["dupe_removed"]:
            kept = by_id[str(cells["dupe_rep_image"])]
            distance = (by_id[image_id].phash ^ kept.phash).bit_count()
            assert distance == cells["dupe_distance"] <= threshold
            assert decided[kept.image_id]["dupe_flag"] == "kept"
            assert kept.order < by_id[image_id].order
    stay = [by_id[image_id] for image_id, cells in decided.items() if not cells["dupe_removed"]]
    for one, other in itertools.combinations([each for each in stay if not each.flat], 2):
        assert (one.phash ^ other.phash).bit_count() > threshold


@settings(max_examples=50, deadline=None)
@given(candidates_strategy, st.integers(0, 12))
def test_single_gives_connected_components_and_their_best(candidates: list[Candidate], threshold: int) -> None:
    decided = decide(candidates, threshold, "single")
    component = {each.image_id: {each.image_id} for each in candidates}
    for one, other in itertools.combinations(candidates, 2):
        linked = one.sha256 == other.sha256 if one.flat and other.flat else not (one.flat or other.flat)
        if linked and (one.phash ^ other.phash).bit_count() <= threshold:
            merged = component[one.image_id] | component[other.image_id]
            component.update(dict.fromkeys(merged, merged))
    order = {each.image_id: each.order for each in candidates}
    for image_id, cells in decided.items():
        best = min(component[image_id], key=order.__getitem__)
        assert cells["dupe_group"] == (best if len(component[image_id]) > 1 else None)
        assert cells["dupe_removed"] == (image_id != best)


@settings(max_examples=50, deadline=None)
@given(candidates_strategy, linkages, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(candidates: list[Candidate], linkage: Linkage, rng: random.Random) -> None:
    shuffled = list(candidates)
    rng.shuffle(shuffled)
    assert decide(shuffled, 6, linkage) == decide(candidates, 6, linkage)


@settings(max_examples=50, deadline=None)
@given(candidates_strategy, linkages)
def test_cells_agree_with_each_other(candidates: list[Candidate], linkage: Linkage) -> None:
    decided = decide(candidates, 6, linkage)
    assert decided.keys() == {each.image_id for each in candidates}
    for image_id, cells in decided.items():
        assert tuple(cells) == DECIDED  # the order of the columns
        group = [other for other, theirs in decided.items() if theirs["dupe_group"] == cells["dupe_group"]]
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
        (image("z", aesthetic=1), image("a", aesthetic=99, painted=True), "unpainted"),
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
        decided = decide(order, 6, "star")
        name = better.image_id
        assert list(decided[name].values()) == [name, name, 0, "kept", False, reason]
        assert list(decided[worse.image_id].values()) == [name, name, 0, "identical", True, reason]


def test_the_reason_is_told_for_each_loser() -> None:
    decided = decide([image("a"), image("b", pixels=50), image("c"), image("d", aesthetic=3)], 6, "star")
    assert {name: cells["dupe_keep_reason"] for name, cells in decided.items()} == {
        "a": "image_id", "b": "pixels", "c": "image_id", "d": "aesthetic",
    }  # fmt: skip


@pytest.mark.parametrize(("distance", "removed"), [(0, True), (5, True), (6, True), (7, False)])
def test_the_threshold_counts_itself(distance: int, removed: bool) -> None:
    decided = decide([image("a"), image("b", flip(BASE, *range(distance)))], 6, "star")
    assert decided["b"]["dupe_removed"] is removed


def test_flat_images_are_compared_by_their_bytes() -> None:
    plain = 0x8000000000000000
    decided = decide(
        [
            image("a", plain), image("b", plain), image("c", 0), image("d", plain, sha256="same"),
            image("e", plain, sha256="same", aesthetic=3),
        ],
        6, "star",
    )  # fmt: skip
    assert {name: cells["dupe_flag"] for name, cells in decided.items()} == {
        "a": "unique", "b": "unique", "c": "unique", "d": "kept", "e": "identical",
    }  # fmt: skip


@pytest.mark.parametrize(("bits", "flag"), [(FLAT_BITS, "unique"), (FLAT_BITS + 1, "identical")])
def test_what_counts_as_flat(bits: int, flag: str) -> None:
    phash = (1 << bits) - 1
    assert decide([image("a", phash), image("b", phash)], 6, "star")["b"]["dupe_flag"] == flag


def test_images_without_a_hash_sum_are_never_the_same_bytes() -> None:
    flat = [Candidate(name, 0, None, 50, 1, None) for name in "ab"]
    assert {cells["dupe_flag"] for cells in decide(flat, 6, "star").values()} == {"unique"}


@pytest.mark.parametrize(("contrast", "flag"), [(FLAT_CONTRAST - 0.01, "unique"), (FLAT_CONTRAST, "identical")])
def test_nearly_flat_images_are_compared_by_their_bytes(contrast: float, flag: str) -> None:
    assert decide([image("a", contrast=contrast), image("b", contrast=contrast)], 6, "star")["b"]["dupe_flag"] == flag


def test_rows_hashed_before_there_was_a_contrast_are_judged_by_their_bits() -> None:
    assert decide([image("a", contrast=None), image("b", contrast=None)], 6, "star")["b"]["dupe_flag"] == "identical"
    assert decide([image("a", 3, contrast=None), image("b", 3, contrast=None)], 6, "star")["b"]["dupe_flag"] == "unique"


# -- mirrored and turned copies ---------------------------------------------------------------------------------

OTHERS = tuple(0x0123456789ABCDEF ^ (0xFFFF << shift) for shift in range(0, 42, 7))


def test_mirrored_copies_are_near_by_flag() -> None:
    mirrored = flip(BASE, *range(0, 64, 2))
    pair = [image("a", BASE, turned=(mirrored, *OTHERS)), image("b", flip(mirrored, 5), turned=(BASE, *OTHERS[::-1]))]
    assert decide(pair, 6, "star")["b"]["dupe_flag"] == "unique"
    found = decide(pair, 6, "star", variants=True)
    assert list(found["b"].values()) == ["a", "a", 0, "near", True, "image_id"]  # 1 bit one way, 0 the other
    # An image without variants is found by those of the other one.
    found = decide([pair[0], image("b", flip(mirrored, 5))], 6, "star", variants=True)
    assert list(found["b"].values()) == ["a", "a", 1, "near", True, "image_id"]
    assert decide([image("a"), image("b", flip(mirrored, 5))], 6, "star", variants=True)["b"]["dupe_flag"] == "unique"


turned_strategy = st.builds(
    lambda candidates, choices: [
        replace(each, turned=tuple(flip(candidates[which % len(candidates)].phash, bit) for which, bit in turns))
        if len(turns) == len(TURNS)
        else each
        for each, turns in zip(candidates, choices, strict=False)
    ],
    candidates_strategy,
    st.lists(
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 63)), max_size=7).map(lambda turns: turns * 7)
        .map(lambda turns: turns[:7]),
        min_size=40, max_size=40,
    ),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(turned_strategy, st.integers(0, 8))
def test_star_with_variants(candidates: list[Candidate], threshold: int) -> None:
    check_star(candidates, decide(candidates, threshold, "star", variants=True), threshold)


def least_distance(one: Candidate, other: Candidate) -> int:
    hashes = [(one.phash, turn) for turn in (other.phash, *(other.turned or ()))]
    hashes += [(turn, other.phash) for turn in one.turned or ()]
    return min((first ^ second).bit_count() for first, second in hashes)


def check_star(
    candidates: list[Candidate], decided: dict[str, dict[str, Value]], threshold: int,
    linked: frozenset[frozenset[str]] = frozenset(),
) -> None:  # fmt: skip
    """Nobody goes who is not near the one kept for it, and no two that are near both stay."""
    by_id = {each.image_id: each for each in candidates}

    def near(one: Candidate, other: Candidate) -> bool:
        if one.flat or other.flat:
            return one.flat and other.flat and one.sha256 == other.sha256
        return least_distance(one, other) <= threshold or frozenset((one.image_id, other.image_id)) in linked

    for image_id, cells in decided.items():
        if cells["dupe_removed"]:
            kept = by_id[str(cells["dupe_rep_image"])]
            assert near(by_id[image_id], kept)
            assert cells["dupe_distance"] == least_distance(by_id[image_id], kept)
            assert decided[kept.image_id]["dupe_flag"] == "kept"
            assert kept.order < by_id[image_id].order  # type: ignore[operator]
    stay = [by_id[image_id] for image_id, cells in decided.items() if not cells["dupe_removed"]]
    assert not any(near(one, other) for one, other in itertools.combinations(stay, 2))


# -- embeddings -------------------------------------------------------------------------------------------------

directions = st.lists(st.tuples(*[st.integers(-2, 2)] * 3).filter(any), min_size=40, max_size=40)


@settings(max_examples=30, deadline=None)
@given(candidates_strategy, directions, st.integers(0, 6), linkages)
def test_embeddings_add_neighbours(
    candidates: list[Candidate], directions: list[tuple[int, int, int]], threshold: int, linkage: Linkage
) -> None:
    """Every second image has a vector."""
    some = candidates[::2]
    vectors = np.array(directions[: len(some)], np.float64).reshape(-1, 3)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    linked = frozenset(
        frozenset((some[i].image_id, some[j].image_id))
        for i, j in itertools.combinations(range(len(some)), 2)
        if vectors[i] @ vectors[j] >= 0.9
    )
    embeddings = Embeddings([each.image_id for each in some], vectors.astype(np.float32))
    decided = decide(candidates, threshold, linkage, embeddings=embeddings, min_cosine=0.9)
    if linkage == "star":
        check_star(candidates, decided, threshold, linked)
        return
    flat = {each.image_id for each in candidates if each.flat}
    for one, other in (sorted(link) for link in linked if not link & flat):
        assert decided[one]["dupe_group"] == decided[other]["dupe_group"] is not None


def embedded(dataset: Dataset, names: str, vectors: object, *flags: object) -> Finished:
    np.save(dataset.root / "vectors.npy", np.asarray(vectors))
    (dataset.root / "ids.txt").write_text("".join(f"{name * 32}\n" for name in names))
    given = ("--embeddings", dataset.root / "vectors.npy", "--embedding-ids", dataset.root / "ids.txt")
    return dataset.run(SCRIPT, *given, *flags)


def test_the_script_with_embeddings(dataset: Dataset) -> None:
    dataset.write_images(some_rows())
    finished = embedded(dataset, "dxab", np.eye(3)[[0, 1, 2, 0]] * 7.0, "--min-cosine", 0.9)  # x is no image of ours
    assert finished.code == 0, finished.stderr
    assert flags(dataset) == {"a": "near", "b": "kept", "c": "identical", "d": "near", "e": "unique", "f": ""}
    images = dataset.images()
    assert [images["d" * 32][name] for name in DECIDED] == ["b" * 32, "b" * 32, "62", "near", "True", "aesthetic"]
    assert finished.summary["pairs_by_embedding"] == 1
    assert finished.summary["without_embedding"] == 2


@pytest.mark.parametrize(
    ("names", "vectors", "message"),
    [
        ("ab", [[1.0, 0.0]], "--embeddings has 1 rows and --embedding-ids 2 ids: they must match"),
        ("ab", [1.0, 0.0], "--embeddings {npy} must contain one (N, D) array of floats, not float64, (2,)"),
        ("ab", [[1, 0], [0, 1]], "--embeddings {npy} must contain one (N, D) array of floats, not int64, (2, 2)"),
        ("aa", [[1.0], [1.0]], "--embedding-ids {ids} names images twice: " + "a" * 32),
        (
            "ab",
            [[1.0], [0.0]],
            "--embeddings: the row of " + "b" * 32 + " is zero or not finite: remove such images",
        ),
        (
            "ab",
            [[np.nan], [1.0]],
            "--embeddings: the row of " + "a" * 32 + " is zero or not finite: remove such images",
        ),
    ],
)
def test_bad_embeddings(dataset: Dataset, names: str, vectors: object, message: str) -> None:
    dataset.write_images(some_rows())
    finished = embedded(dataset, names, vectors)
    paths = {"npy": dataset.root / "vectors.npy", "ids": dataset.root / "ids.txt"}
    assert (finished.code, finished.stderr) == (2, f"error: {message.format(**paths)}\n")


def test_embedding_files_that_cannot_be_read(dataset: Dataset) -> None:
    dataset.write_images(some_rows())
    (dataset.root / "text.npy").write_text("no array")
    given = ("--embeddings", dataset.root / "text.npy", "--embedding-ids", dataset.root / "ids.txt")
    finished = dataset.run(SCRIPT, *given)
    assert finished.code == 2
    assert finished.stderr.startswith(f"error: --embeddings {dataset.root / 'text.npy'} cannot be read as .npy: ")
    np.save(dataset.root / "text.npy", np.eye(2))
    finished = dataset.run(SCRIPT, *given)
    assert (finished.code, finished.stderr) == (
        2,
        f"error: --embedding-ids {dataset.root / 'ids.txt'} cannot be read: [Errno 2] No such file or directory: "
        f"'{dataset.root / 'ids.txt'}'\n",
    )
    finished = dataset.run(SCRIPT, *given[:2])
    assert finished.code == 2
    assert finished.stderr.strip().endswith("error: --embeddings and --embedding-ids go together: give both")


def test_too_many_pairs_end_the_run_before_the_memory(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pokefa.images.near_hashes.MOST_PAIRS", 2)
    with pytest.raises(PokefaError) as caught:
        decide([image(str(bit), flip(BASE, bit)) for bit in range(5)], 6, "star")
    assert str(caught.value) == (
        "over 2 pairs of images are near-duplicates: nothing was changed; lower --threshold, or raise --min-cosine"
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
        row("a", BASE, 99, resize_source="inpainted"),
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
        "b" * 32, "b" * 32, "2", "near", "True", "unpainted", finished.summary["run_id"],
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
        ("a", "rm_dups", "duplicate", f"near: 2 bits from {kept}, which was not painted over"),
        ("c", "rm_dups", "duplicate", f"identical: 0 bits from {kept}, which is kept for its aesthetic"),
    ]
    assert {drop["source_url"] for drop in dataset.rows("drops")} == {"http://host/a.png", "http://host/c.png"}
    assert [path.name for path in audits(dataset)] == [f"dups-{finished.summary['run_id']}.csv"]
    with audits(dataset)[0].open(newline="") as stream:
        members = list(csv.DictReader(stream))
    assert [(each["image_id"][0], each["dupe_flag"], each["ae_aesthetic"]) for each in members] == [
        ("b", "kept", "80"), ("a", "near", "99"), ("c", "identical", "70"),
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
        f"remove {'a' * 32} near: 2 bits from {kept}, which was not painted over",
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


@pytest.mark.parametrize("text", ["123", "f0e1d2c3b4a5968g", "f0e1d2c3b4a596877"])
def test_a_bad_hash_is_named(dataset: Dataset, text: str) -> None:
    dataset.write_images([row("a", BASE), row("b", BASE, phash64=text)])
    finished = dataset.run(SCRIPT)
    assert (finished.code, finished.stderr) == (
        2,
        f"error: metadata/images.csv, image {'b' * 32}, phash64: {text!r} is not 16 hex digits; correct the cell or "
        "empty it\n",
    )


def test_a_hash_in_capital_letters_is_the_same_hash(dataset: Dataset) -> None:
    dataset.write_images([row("a", BASE), row("b", BASE, phash64=f"{BASE:016X}")])
    run(dataset)
    assert flags(dataset) == {"a": "kept", "b": "identical"}


def test_a_byte_sum_in_capital_letters_is_the_same_sum(dataset: Dataset) -> None:
    dataset.write_images([row("a", 0, sha256="ab" * 32), row("b", 0, sha256="AB" * 32), row("c", 0, sha256="cd" * 32)])
    run(dataset)
    assert flags(dataset) == {"a": "kept", "b": "identical", "c": "unique"}


def test_a_bad_number_is_named(dataset: Dataset) -> None:
    dataset.write_images([row("a", BASE), row("b", BASE, "good")])
    finished = dataset.run(SCRIPT)
    assert (finished.code, finished.stderr) == (
        2,
        f"error: metadata/images.csv, image {'b' * 32}, ae_aesthetic: 'good' is not a whole number from 0 to "
        "100; correct the cell or empty it\n",
    )


def test_bad_variants_are_named(dataset: Dataset) -> None:
    dataset.write_images([row("a", BASE)])
    finished = dataset.run(SCRIPT, "--with-variants")
    assert (finished.code, finished.stderr) == (
        2, "error: no image has phash_variants: run preprocess/dup/phash.py --with-variants first\n",
    )  # fmt: skip
    dataset.write_images([row("a", BASE, phash_variants="12")])
    finished = dataset.run(SCRIPT, "--with-variants")
    assert (finished.code, finished.stderr) == (
        2,
        f"error: metadata/images.csv, image {'a' * 32}, phash_variants: '12' is not 7 times 16 hex digits; correct the "
        "cell or empty it\n",
    )


def test_a_mirrored_copy_is_found_from_the_files_on(dataset: Dataset) -> None:
    original = Image.effect_mandelbrot((300, 200), (-2.0, -1.1, 0.7, 0.5), 90).convert("RGB")
    original.save(dataset.root / "a.png")
    original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(dataset.root / "b.jpg", quality=80)
    original.transpose(Image.Transpose.ROTATE_90).save(dataset.root / "c.jpg", quality=80)
    files = {"a": "a.png", "b": "b.jpg", "c": "c.jpg"}
    dataset.write_images([row(name, 0, phash64="", path_resized=path) for name, path in files.items()])
    finished = dataset.run("preprocess/dup/phash.py", "--with-variants", "--workers", 1)
    assert finished.summary["done"] == 3, finished.stderr
    run(dataset)
    assert flags(dataset) == dict.fromkeys("abc", "unique")
    finished = run(dataset, "--with-variants")
    assert flags(dataset) == {"a": "kept", "b": "near", "c": "near"}
    assert finished.summary["without_variants"] == 0


def test_a_thousand_new_images_touch_only_the_groups_that_they_join(dataset: Dataset) -> None:
    generator = random.Random(8)
    hashes = [generator.getrandbits(64) for _ in range(3000)]
    hashes[1000:2000] = [flip(value, *generator.sample(range(64), 3)) for value in hashes[:1000]]

    def rows(prefix: str, values: Iterable[int]) -> list[dict[str, object]]:
        scores = (generator.randrange(100) for _ in itertools.count())
        numbered = enumerate(zip(values, scores, strict=False))
        return [row("0", value, score, image_id=f"{prefix}{place:031x}") for place, (value, score) in numbered]

    dataset.write_images(rows("a", hashes))
    first = run(dataset).summary
    joined = [flip(value, 0, 1) for value in hashes[:300]]
    dataset.write_images(
        [*dataset.rows("images"), *rows("b", joined + [generator.getrandbits(64) for _ in range(700)])]
    )
    before = dataset.images()
    second = run(dataset).summary
    after = dataset.images()
    journal = (dataset.root / f"metadata/runs/{second['run_id']}.jsonl").read_text().splitlines()
    journalled = {entry["image_id"] for entry in map(json.loads, journal) if "image_id" in entry}
    touched = {name for name, cells in after.items() if cells["dupe_run_id"] != first["run_id"]}
    groups = {after[name]["dupe_group"] for name in after if name.startswith("b")} - {""}
    assert journalled == touched
    assert {name for name in touched if name.startswith("b")} == {name for name in after if name.startswith("b")}
    for name in touched - {name for name in after if name.startswith("b")}:
        assert (
            int(name[1:], 16) % 1000 < 300 and int(name[1:], 16) < 2000
        )  # an image, or its neighbour, that was joined
        assert after[name]["dupe_group"] in groups or before[name]["dupe_group"] != after[name]["dupe_group"]
    assert after.keys() - touched == {name for name in before if before[name] == after[name]}
    assert len(touched) < 1000 + 2 * 300 + 1
    assert run(dataset).summary["done"] == 0
