"""How near pairs form groups with one kept image each. Images are numbered from 0, best first."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pokefa.images.hamming import Numbers

Linkage = Literal["star", "single"]


def link(linkage: Linkage, count: int, pairs: Numbers) -> Numbers:
    """Return the number of the image kept for each of `count` images; for a kept image, its own.

    Args:
        pairs: (P, 2) int64, the near pairs, in any order.
    """
    return (star if linkage == "star" else single)(count, pairs)


def star(count: int, pairs: Numbers) -> Numbers:
    """Go through the images, best first: an unassigned one is kept, and its unassigned neighbours join its group."""
    keeper = np.arange(count)
    better, worse = pairs.min(axis=1), pairs.max(axis=1)
    order = np.lexsort((worse, better))
    better, worse = better[order], worse[order]
    firsts, starts = np.unique(better, return_index=True)
    ends = np.append(starts, len(pairs))[1:]
    for first, start, end in zip(firsts.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if keeper[first] == first:
            near = worse[start:end]
            keeper[near[keeper[near] == near]] = first
    return keeper


def single(count: int, pairs: Numbers) -> Numbers:
    """Make each connected component one group, and keep its best."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, groups = connected_components(graph, directed=False)
    _, best, group = np.unique(groups, return_index=True, return_inverse=True)
    return best[group]
