"""All pairs of 64-bit hashes within a Hamming distance, found without comparing every pair.

Cut the 64 bits into `threshold + k` blocks. Hashes that differ in at most `threshold` bits differ in at most
`threshold` blocks, so at least k blocks are equal. For each choice of k blocks, the hashes are sorted by these blocks
and compared only within runs where the blocks are equal. The search is exact. k has the lowest estimated cost: a
larger k gives shorter runs and more sorts. Only the first choice that finds a pair reports it.

The bits are distributed over the blocks by how much they vary, so that every block varies. A run that is much longer
than chance allows, because bits depend on each other, is searched by the same method on the bits that vary within it.
If the threshold is too high, or the hashes too few or too similar, for any cut to be faster, every pair is compared.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pokefa.machine import available_cores

Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]  # places of images, or pairs of them
Pairs = tuple[Words, Words]  # the two hashes of each pair

BITS = 64
WORDS_AT_ONCE = 2**15  # 256 KiB: the data of a step stays in the L2 cache
SAMPLE = 2**16  # hashes used for the estimates
RADIX_BITS = 16

# Measured costs in nanoseconds, one thread: sorting a hash by few bits and by many, comparing two within runs and in
# long rows, and the overhead of a choice of blocks and of a comparison step. Only the ratios matter.
COUNTING_COST = 35.0
ORDERING_COST = 75.0
COMPARING_COST = 3.0
COMPARING_ALL_COST = 1.0
CHOICE_COST = 150_000.0
STEP_COST = 8_000.0
# A run is searched separately if it is this much longer than the mean, and not short.
LONG_RUN = 8.0
LEAST_LONG_RUN = 4096
MOST_BLOCKS_EQUAL = 8


def near_pairs(
    hashes: Words, threshold: int, *, workers: int | None = None, cut: Cut | None = None
) -> NDArray[np.int64]:
    """Return all pairs of hashes that differ in at most `threshold` bits.

    Args:
        hashes: (N,) uint64, all distinct.
        workers: threads; None = one per core.
        cut: how to search; by default the cheapest.

    Returns:
        (P, 2) int64: positions i < j, sorted.

    Raises:
        ValueError: two hashes are equal.
    """
    found = np.concatenate([np.empty((0, 2), np.int64), *near_pair_chunks(hashes, threshold, workers=workers, cut=cut)])
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def near_pair_chunks(
    hashes: Words, threshold: int, *, workers: int | None = None, cut: Cut | None = None
) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs of `near_pairs` in arrays of (P, 2), i < j in each pair, in arbitrary order."""
    order = np.argsort(hashes)
    words = hashes[order]
    if (words[1:] == words[:-1]).any():
        raise ValueError("the hashes must all be different: group equal ones first")
    for first, second in _search(words, threshold, workers or available_cores(), cut):
        pairs = np.column_stack((order[np.searchsorted(words, first)], order[np.searchsorted(words, second)]))
        pairs.sort(axis=1)
        yield pairs


@dataclass(frozen=True)
class Cut:
    """A cut of the bits into blocks, `equal` blocks must agree; no blocks: compare every pair."""

    blocks: int
    equal: int
    run: float  # estimated mean number of hashes that one is compared with


def choose_cut(count: int, entropy: float, varying: int, threshold: int) -> Cut:
    """Return the cheapest cut for `count` hashes.

    Args:
        entropy: minus log2 of the probability that two hashes are equal, in bits.
        varying: bits that are not the same in all hashes.
    """
    best, least = Cut(0, 0, count), count * (STEP_COST + COMPARING_ALL_COST * count / 2)
    for equal in range(1, MOST_BLOCKS_EQUAL + 1):
        blocks = threshold + equal
        if blocks > varying:
            break
        run = count * 2 ** (-entropy * equal / blocks)
        order = COUNTING_COST if -(-varying // blocks) * equal <= RADIX_BITS else ORDERING_COST
        cost = math.comb(blocks, equal) * (CHOICE_COST + count * (order + COMPARING_COST * run / 2))
        if cost < least:
            best, least = Cut(blocks, equal, run), cost
    return best


def _search(words: Words, threshold: int, workers: int, cut: Cut | None = None) -> Iterator[Pairs]:
    """Yield the near pairs of distinct hashes, in arbitrary order."""
    if len(words) < 2:
        return
    varying = int(np.bitwise_or.reduce(words) ^ np.bitwise_and.reduce(words))
    bits = [bit for bit in range(BITS) if varying >> bit & 1]
    entropies = _entropies(words[:: -(-len(words) // SAMPLE)], bits)
    cut = cut or choose_cut(len(words), float(entropies.sum()), len(bits), threshold)
    if not 0 < cut.blocks <= len(bits):
        yield from _compare(words, threshold, 0)
        return
    dealt = _deal(bits, entropies, cut.blocks)
    constant = [bit for bit in range(BITS) if not varying >> bit & 1]
    places = [bit for block in dealt for bit in block] + constant  # from the highest place down
    layout = Layout([len(block) for block in dealt])
    arranged = _permute(words, {bit: BITS - 1 - place for place, bit in enumerate(places)})
    back = {BITS - 1 - place: bit for place, bit in enumerate(places)}
    choices = itertools.combinations(range(cut.blocks), cut.equal)
    jobs = (lambda chosen=chosen: _search_choice(arranged, layout, chosen, threshold, cut.run) for chosen in choices)
    for first, second in _in_threads(jobs, workers):
        if len(first):
            yield _permute(first, back), _permute(second, back)


def _entropies(sample: Words, bits: Sequence[int]) -> NDArray[np.float64]:
    """Return, for each bit, minus log2 of the probability that it is equal in two hashes."""
    ones = np.array([np.count_nonzero(sample & np.uint64(1 << bit)) for bit in bits]) / len(sample)
    return -np.log2(ones**2 + (1 - ones) ** 2)


def _deal(bits: Sequence[int], entropies: NDArray[np.float64], blocks: int) -> list[list[int]]:
    """Distribute the bits over the blocks, most varying first and in alternating direction, to balance the blocks."""
    dealt: list[list[int]] = [[] for _ in range(blocks)]
    there_and_back = itertools.cycle([*range(blocks), *reversed(range(blocks))])
    for place, block in zip(np.argsort(-entropies, kind="stable").tolist(), there_and_back, strict=False):
        dealt[block].append(bits[place])
    return dealt


class Layout:
    """The positions of the blocks in a word: from the highest bit down, then the rest."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.ends = [BITS - top for top in itertools.accumulate(sizes)]  # the lowest bit of each block
        self.masks = [((1 << size) - 1) << end for size, end in zip(sizes, self.ends, strict=True)]

    def moves_to_top(self, chosen: Sequence[int]) -> dict[int, int]:
        """Return {left shift: mask} that move the chosen blocks to the top, followed by the others."""
        moves: dict[int, int] = {}
        top = BITS
        for block in (*chosen, *(block for block in range(len(self.sizes)) if block not in chosen)):
            top -= self.sizes[block]
            shift = top - self.ends[block]
            moves[shift] = moves.get(shift, 0) | self.masks[block]
        moves[0] = moves.get(0, 0) | ((1 << top) - 1)  # bits outside all blocks
        return moves

    def first_to_find(self, differences: Words, chosen: Sequence[int]) -> NDArray[np.bool_]:
        """Tell for which pairs `chosen` is the first choice that finds them; `differences` in this layout."""
        first = np.ones(len(differences), bool)
        for block in range(chosen[-1] + 1):
            equal = differences & np.uint64(self.masks[block]) == 0
            first &= equal if block in chosen else ~equal
        return first


def _move(words: Words, moves: dict[int, int]) -> Words:
    """Return the words with the bits under each mask shifted left; a negative shift moves right."""
    result = np.empty_like(words)
    taken = np.empty(min(len(words), WORDS_AT_ONCE), np.uint64)
    for start in range(0, len(words), WORDS_AT_ONCE):
        part, into = words[start : start + WORDS_AT_ONCE], result[start : start + WORDS_AT_ONCE]
        bits = taken[: len(part)]
        into.fill(0)
        for shift, mask in moves.items():
            np.bitwise_and(part, np.uint64(mask), out=bits)
            if shift:
                (np.left_shift if shift > 0 else np.right_shift)(bits, np.uint64(abs(shift)), out=bits)
            np.bitwise_or(into, bits, out=into)
    return result


def _permute(words: Words, places: dict[int, int]) -> Words:
    """Return the words with each bit at its new place."""
    moves: dict[int, int] = {}
    for bit, place in places.items():
        moves[place - bit] = moves.get(place - bit, 0) | 1 << bit
    return _move(words, moves)


def _search_choice(arranged: Words, layout: Layout, chosen: Sequence[int], threshold: int, run: float) -> Pairs:
    """Return the near pairs for which `chosen` is the first choice of equal blocks."""
    words, same, back = _order(arranged, layout, chosen)
    near = list(_search_runs(words, threshold, same, max(LEAST_LONG_RUN, int(LONG_RUN * run))))
    if not near:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    first, second = (np.concatenate(side) for side in zip(*near, strict=True))
    found = layout.first_to_find(_move(first ^ second, back), chosen)
    return _move(first[found], back), _move(second[found], back)


def _order(arranged: Words, layout: Layout, chosen: Sequence[int]) -> tuple[Words, int, dict[int, int]]:
    """Return the words sorted by the chosen blocks, the mask of these, and the moves that restore the bits."""
    moves = layout.moves_to_top(chosen)
    bits = sum(layout.sizes[block] for block in chosen)
    if bits <= RADIX_BITS:  # NumPy sorts 16-bit numbers faster, by radix sort
        mask = sum(layout.masks[block] for block in chosen)
        top = _move(arranged, {shift: taken & mask for shift, taken in moves.items() if taken & mask})
        keys = (top >> np.uint64(BITS - RADIX_BITS)).astype(np.uint16)
        del top
        return arranged[np.argsort(keys, kind="stable")], mask, {0: (1 << BITS) - 1}
    words = _move(arranged, moves)
    words.sort()
    return words, (1 << BITS) - (1 << BITS - bits), {-shift: _shifted(mask, shift) for shift, mask in moves.items()}


def _shifted(mask: int, shift: int) -> int:
    return mask << shift if shift > 0 else mask >> -shift


def _search_runs(words: Words, threshold: int, same: int, long_run: int) -> Iterator[Pairs]:
    """Yield the near pairs of words within runs of equal bits `same`.

    Runs of more than `long_run` words are searched separately.
    """
    done = start = 0
    while start + long_run < len(words):
        begins = _first_true((words[start + long_run :] ^ words[start : len(words) - long_run]) & np.uint64(same) == 0)
        if begins is None:
            break
        begins += start
        after = begins + long_run
        length = _first_true((words[after:] ^ words[begins]) & np.uint64(same) != 0)
        ends = len(words) if length is None else after + length
        yield from _compare(words[done:begins], threshold, same)
        yield from _search(words[begins:ends], threshold, workers=1)
        done = start = ends
    yield from _compare(words[done:], threshold, same)


def _first_true(flags: NDArray[np.bool_]) -> int | None:
    place = int(flags.argmax()) if len(flags) else 0
    return place if len(flags) and flags[place] else None


def _compare(words: Words, threshold: int, same: int) -> Iterator[Pairs]:
    """Yield the near pairs of words; each word is compared with the following ones while the bits `same` are equal.

    The result may include pairs across runs.
    """
    size = min(len(words), WORDS_AT_ONCE)
    differences, distances, near = np.empty(size, np.uint64), np.empty(size, np.uint8), np.empty(size, bool)
    for start in range(0, len(words) - 1, WORDS_AT_ONCE):
        here = words[start : start + WORDS_AT_ONCE]
        places: NDArray[np.int64] | None = None  # once few are left: words whose run continues at this offset
        look = 1  # the offset of the next check of runs, which costs as much as comparing
        for ahead in range(1, len(words)):
            if places is None:
                there = words[start + ahead : start + ahead + len(here)]
            else:
                places = places[: np.searchsorted(places, len(words) - ahead)]
                there = words[places + ahead]
            count = len(there)
            if not count:
                break
            here = here[:count]
            np.bitwise_xor(here, there, out=differences[:count])
            np.bitwise_count(differences[:count], out=distances[:count])
            np.less_equal(distances[:count], threshold, out=near[:count])
            if near[:count].any():
                yield here[near[:count]], there[near[:count]]
            if not same or ahead < look:
                continue
            look += 1 + ahead // 8
            same_run = np.flatnonzero(differences[:count] & np.uint64(same) == 0)
            if not len(same_run):
                break
            if 2 * len(same_run) < count:
                places = start + same_run if places is None else places[same_run]
                here = here[same_run]


def _in_threads(jobs: Iterator[Callable[[], Pairs]], workers: int) -> Iterator[Pairs]:
    """Yield the results of the jobs in order, several at once, because NumPy releases the GIL."""
    if workers == 1:
        yield from (job() for job in jobs)
        return
    waiting: deque[Future[Pairs]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
