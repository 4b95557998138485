"""Every near pair is found, once, whatever the bits and whichever way is taken."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokefa.images import hamming as neighbours
from pokefa.images.hamming import Cut, choose_cut, near_pair_chunks, near_pairs


def flip(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def brute_force(hashes: Sequence[int], threshold: int) -> list[list[int]]:
    every = itertools.combinations(range(len(hashes)), 2)
    return [[i, j] for i, j in every if (hashes[i] ^ hashes[j]).bit_count() <= threshold]


def searched(hashes: Sequence[int], threshold: int, cut: Cut | None = None) -> list[list[int]]:
    return near_pairs(np.array(hashes, np.uint64), threshold, workers=1, cut=cut).tolist()


words = st.integers(0, 2**64 - 1)
# A few hashes and others a few flipped bits away, so that neighbours at every distance are common.
related = st.builds(
    lambda centres, flips: list(dict.fromkeys(flip(centres[which % len(centres)], *bits) for which, bits in flips)),
    st.lists(words, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 63), max_size=18, unique=True)), max_size=40),
)
# Hashes that vary in few bits only.
cramped = st.lists(st.integers(0, 255).map(lambda value: value * 0x0101), unique=True, max_size=60)


@pytest.mark.parametrize("threshold", range(17))
@settings(max_examples=40, deadline=None)
@given(hashes=related | cramped, equal=st.integers(0, 3), radix_bits=st.sampled_from([0, neighbours.RADIX_BITS]))
def test_every_near_pair_is_found_once(threshold: int, hashes: list[int], equal: int, radix_bits: int) -> None:
    wanted = brute_force(hashes, threshold)
    assert searched(hashes, threshold) == wanted
    # So few hashes are compared each with each unless told otherwise.
    blocks = threshold + equal if equal and math.comb(threshold + equal, equal) < 130 else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "RADIX_BITS", radix_bits)  # 0: all by sorting
        assert searched(hashes, threshold, Cut(blocks, equal, 1.0)) == wanted


def planted(count: int, threshold: int, shared: int = 0) -> tuple[list[int], list[list[int]]]:
    """Return random hashes that agree in the bits `shared`, and the pairs among them that were made near."""
    generator = random.Random(5)
    free = [bit for bit in range(64) if not shared >> bit & 1]
    hashes = [generator.getrandbits(64) & ~shared for _ in range(count)]
    pairs = []
    for place in range(0, count // 2, 40):
        hashes[count - 1 - place] = flip(hashes[place], *generator.sample(free, 1 + place % threshold))
        pairs.append([place, count - 1 - place])
    return hashes, pairs


@pytest.mark.parametrize("threshold", [1, 3, 6])
@pytest.mark.parametrize("workers", [1, 3])
def test_many_hashes(threshold: int, workers: int) -> None:
    hashes, pairs = planted(60_000, threshold)
    assert choose_cut(len(hashes), 64, 64, threshold).blocks
    assert near_pairs(np.array(hashes, np.uint64), threshold, workers=workers).tolist() == pairs


def test_bits_that_all_share_spoil_nothing() -> None:
    hashes, pairs = planted(20_000, 6, shared=0xFF00FFFF00000000)
    found = searched(hashes, 6)
    assert found == brute_pairs(hashes, 6)
    assert len(found) > len(pairs)


def test_long_runs_are_searched_by_themselves() -> None:
    """Most hashes agree in the whole of any block that has the bits 0 to 15, and bits depend on each other."""
    hashes = planted(20_000, 6, shared=0xFFFF)[0]
    hashes += [flip(value, *range(16)) for value in planted(3_000, 6, shared=0xFFFF)[0]]
    hashes = list(dict.fromkeys(hashes))
    wanted = brute_pairs(hashes, 6)
    assert searched(hashes, 6) == wanted
    assert searched(hashes, 6, Cut(8, 2, 0.001)) == wanted


def brute_pairs(hashes: Sequence[int], threshold: int) -> list[list[int]]:
    """Return the near pairs of too many hashes for `brute_force`."""
    array = np.array(hashes, np.uint64)
    found = []
    for place in range(len(array)):
        near = np.flatnonzero(np.bitwise_count(array[place + 1 :] ^ array[place]) <= threshold)
        found += [[place, place + 1 + int(other)] for other in near]
    return found


@settings(max_examples=60, deadline=None)
@given(hashes=related | cramped, threshold=st.integers(0, 8))
def test_runs_within_runs(hashes: list[int], threshold: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "LEAST_LONG_RUN", 2)
        patch.setattr(neighbours, "CHOICE_COST", 0.001)  # so that a cut pays for a handful of hashes
        assert searched(hashes, threshold) == brute_force(hashes, threshold)
        assert searched(hashes, threshold, Cut(threshold + 2, 2, 0.1)) == brute_force(hashes, threshold)


def test_few_at_once_changes_nothing() -> None:
    hashes, pairs = planted(3_000, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "WORDS_AT_ONCE", 64)
        for cut in (Cut(0, 0, 0.0), Cut(7, 1, 1.0), Cut(9, 3, 1.0)):
            assert searched(hashes, 6, cut) == pairs


@pytest.mark.parametrize("hashes", [[], [7]])
def test_no_pairs(hashes: list[int]) -> None:
    assert near_pairs(np.array(hashes, np.uint64), 6).shape == (0, 2)


def test_equal_hashes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^the hashes must all be different: group equal ones first$"):
        list(near_pair_chunks(np.array([1, 2, 1], np.uint64), 6))


def test_the_cut_follows_count_entropy_and_threshold() -> None:
    assert choose_cut(50, 64, 64, 6).blocks == 0  # so few are compared each with each
    assert choose_cut(1_000_000, 64, 64, 24).blocks == 0  # no cut into so many blocks helps
    assert choose_cut(1_000_000, 64, 5, 6).blocks == 0  # there are not so many bits to cut
    few, many = (choose_cut(count, 64, 64, 3) for count in (100_000, 10_000_000))
    assert few.equal < many.equal
    assert few.blocks - few.equal == many.blocks - many.equal == 3
    assert choose_cut(1_000_000, 32, 64, 3).equal > choose_cut(1_000_000, 64, 64, 3).equal
