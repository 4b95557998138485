"""Images that look alike are on one side of the split."""

from __future__ import annotations

import itertools
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pokefa.images.near_hashes import look_alikes
from pokefa.images.phash import HASH_COLUMNS
from pokefa.shards.sides import Picture, linked_groups

SCRIPT = "webdataset/split.py"

ONE = 0x9F3A6C51D2E847B0
OTHER = 0x60C593AE2D17B84F  # all 64 bits differ

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

# Hashes near two centres, so that some pairs lie within any threshold, some chains just within, and some just beyond.
flips = st.lists(st.integers(0, 63), max_size=5, unique=True)
near_centres = st.builds(
    lambda centre, bits: centre ^ sum(1 << bit for bit in bits), st.sampled_from([ONE, OTHER]), flips
)


def text(value: int) -> str:
    return f"{value:016x}"


def table(hashes: list[int], **columns: list[str | None]) -> pl.DataFrame:
    ids = [f"i{number}" for number in range(len(hashes))]
    cells = {
        "image_id": ids,
        **dict.fromkeys(HASH_COLUMNS, [None] * len(ids)),
        "phash64": list(map(text, hashes)),
        **columns,
    }
    return pl.DataFrame(cells, schema=dict.fromkeys(cells, pl.String))


def groups(count: int, pairs: list[tuple[str, str]]) -> set[frozenset[str]]:
    marks: dict[str, list[str]] = {f"i{number}": [] for number in range(count)}
    for one, other in pairs:
        for image_id in (one, other):
            marks[image_id].append(f"{one} {other}")
    pictures = [Picture(image_id, ("abra",), tuple(links)) for image_id, links in marks.items()]
    return {frozenset(picture.image_id for picture in group) for group in linked_groups(pictures)}


@relaxed
@given(hashes=st.lists(near_centres, max_size=12), threshold=st.integers(0, 8))
def test_the_groups_are_those_of_comparing_each_with_each(hashes: list[int], threshold: int) -> None:
    numbered = list(enumerate(hashes))
    near = [
        (f"i{one}", f"i{other}")
        for (one, first), (other, second) in itertools.combinations(numbered, 2)
        if (first ^ second).bit_count() <= threshold
    ]
    found = look_alikes(table(hashes), threshold)
    assert groups(len(hashes), found) == groups(len(hashes), near)


def test_flat_images_are_like_no_other() -> None:
    hashes = [0x8000000000000000] * 2 + [ONE] * 4
    contrast = [None, None, "0.2", "0.2", "30.0", "30.0"]
    assert look_alikes(table(hashes, phash_contrast=contrast), 6) == [("i5", "i4")]


def test_a_mirrored_copy_is_alike() -> None:
    mirrored = " ".join([text(OTHER ^ 3), *[text(ONE)] * 6])
    assert look_alikes(table([ONE, OTHER], phash_variants=[mirrored, None]), 6) == [("i0", "i1")]


def test_images_without_a_hash_are_like_no_other() -> None:
    assert look_alikes(table([ONE, ONE], phash64=[None, None]), 6) == []


def write_hashed(dataset: Any, hashes: dict[str, str]) -> None:
    dataset.write_images({"image_id": key, "phash64": value} for key, value in hashes.items())
    dataset.write_base({"image_id": key, "species": "abra"} for key in hashes)


def test_images_within_the_threshold_stay_together(dataset: Any) -> None:
    # A chain of four, each within 6 bits of the next and the ends 18 apart, has no room: one of the others goes.
    chain = {f"chain{number}": text(ONE ^ ((1 << 6 * number) - 1)) for number in range(4)}
    write_hashed(dataset, chain | {"x": text(OTHER), "y": text(OTHER ^ 0xFF)})
    for seed in range(2):
        finished = dataset.run(SCRIPT, "--seed", seed, "--reassign")
        sides = {key: row["split"] for key, row in dataset.base().items()}
        assert {key for key, side in sides.items() if side == "val"} == {"x", "y"}
        assert (finished.summary["look_alikes"], finished.summary["species_short"]) == (3, 0)
    finished = dataset.run(SCRIPT, "--seed", 0, "--threshold", 8, "--reassign")
    assert (finished.summary["look_alikes"], finished.summary["val"]) == (4, 2)


def test_a_species_whose_images_are_all_linked_gives_fewer(dataset: Any) -> None:
    write_hashed(dataset, {f"i{number}": text(ONE) for number in range(3)})
    finished = dataset.run(SCRIPT)
    assert (finished.summary["val"], finished.summary["species_short"]) == (0, 1)
    assert (
        "1 species give fewer images than their share: too few can leave train, or they already have a side"
        in finished.stderr
    )


def test_a_malformed_hash_is_wrong_input(dataset: Any) -> None:
    write_hashed(dataset, {"a": text(ONE), "b": "0xff"})
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == (
        "error: metadata/images.csv, image b, phash64: '0xff' is not 16 hex digits; correct the cell or empty it\n"
    )


@pytest.mark.parametrize("bits", ["25", "-1", "six"])
def test_a_threshold_out_of_range_is_wrong_usage(dataset: Any, bits: str) -> None:
    finished = dataset.run(SCRIPT, "--threshold", bits)
    assert finished.code == 2
    assert finished.stderr.endswith(
        f"split.py: error: argument --threshold: {bits!r} is not a whole number from 0 to 24\n"
    )
