"""Groups of numbered images, beside the plain loops that say what they should be."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pokefa.duplicates.linkage import single, star
from pokefa.images.near_hashes import Groups, add_links

COUNT = 12
numbers = st.integers(0, COUNT - 1)
pairs_strategy = st.lists(st.tuples(numbers, numbers).filter(lambda pair: pair[0] != pair[1]), max_size=30)


def as_array(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


@given(pairs_strategy)
def test_star_takes_the_free_neighbours_of_the_best(pairs: list[tuple[int, int]]) -> None:
    keeper: dict[int, int] = {}
    for image in range(COUNT):
        if image not in keeper:
            keeper[image] = image
            for one, other in [*pairs, *((other, one) for one, other in pairs)]:
                if one == image:
                    keeper.setdefault(other, image)
    assert star(COUNT, as_array(pairs)).tolist() == [keeper[image] for image in range(COUNT)]


@given(pairs_strategy)
def test_single_keeps_the_best_of_all_that_hang_together(pairs: list[tuple[int, int]]) -> None:
    best = list(range(COUNT))
    for _ in range(COUNT):
        for one, other in pairs:
            best[one] = best[other] = min(best[one], best[other])
    assert single(COUNT, as_array(pairs)).tolist() == best


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.lists(st.tuples(*[st.integers(0, 4)] * 2), max_size=5))
def test_pairs_of_members(group_of: list[int], pairs: list[tuple[int, int]]) -> None:
    pairs = [(one, other) for one, other in pairs if max(one, other) <= max(group_of)]
    groups = Groups(np.array(group_of))
    places = range(len(group_of))
    wanted = [(i, j) for pair in pairs for i in places for j in places if (group_of[i], group_of[j]) == pair]
    assert sorted(map(tuple, groups.pairs_of_members(as_array(pairs)).tolist())) == sorted(wanted)
    within = [pair for pair in itertools.combinations(places, 2) if group_of[pair[0]] == group_of[pair[1]]]
    assert sorted(map(tuple, groups.pairs_within().tolist())) == within


@given(st.lists(st.integers(0, 3), min_size=COUNT, max_size=COUNT), pairs_strategy, pairs_strategy)
def test_links_split_looks_and_lose_no_pair(
    look_of: list[int], near: list[tuple[int, int]], links: list[tuple[int, int]]
) -> None:
    """Whatever was near before is near after, as images, and nothing else but the links."""
    looks = np.array([look_of.index(look) for look in look_of])
    near = [(int(looks[one]), int(looks[other])) for one, other in near if looks[one] != looks[other]]

    def image_pairs(looks: np.ndarray, near: np.ndarray) -> set[frozenset[int]]:
        linked = {frozenset(pair) for pair in near.tolist()}
        every = itertools.combinations(range(COUNT), 2)
        return {
            frozenset((i, j))
            for i, j in every
            if looks[i] == looks[j] or frozenset((int(looks[i]), int(looks[j]))) in linked
        }

    split, pairs = add_links(looks, as_array(near), as_array(links))
    wanted = image_pairs(looks, as_array(near)) | {frozenset(link) for link in links}
    assert image_pairs(split, pairs) == wanted
    assert all(split[split[image]] == split[image] <= image for image in range(COUNT))
