"""What images look like, as far as finding duplicates goes, and which looks are near each other.

Images with the same hashes have one look and share their fate, so the search sees each look once: a thousand copies
cost no more than one. Images are numbered by their rows; a look has the number of its first image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pokefa.errors import PokefaError
from pokefa.table import KEY
from preprocess.dup.linkage import Groups, Numbers
from preprocess.dup.neighbours import Words, near_pair_chunks

# A hash bit tells whether a frequency lies over the median of all 64, so half the bits are set, unless most
# frequencies are absent and tie. A plain colour sets at most 1 bit, and a picture that varies in one direction only,
# such as a gradient or stripes, at most 8: one row or column of the 8 by 8 frequencies.
FLAT_BITS = 8
# In grey levels of 255. Rounding to whole levels leaves about 0.1 in a plain picture, the blocks of a poor JPEG up to
# 0.5; the faintest pencil drawing has several. Bits made of less than this are noise.
FLAT_CONTRAST = 1.0

# 800 MB. So many near pairs mean that the threshold is far too high, or that half of all is one picture.
MOST_PAIRS = 50_000_000


@dataclass(frozen=True)
class Hashes:
    """The hashes of N images.

    Attributes:
        own: (N,) uint64.
        turned: (N, T) uint64, those of the image mirrored and turned; an image without any repeats its own.
    """

    own: Words
    turned: Words

    def distances(self, first: Numbers, second: Numbers) -> NDArray[np.int64]:
        """Return the least Hamming distances between the images' own hashes and any of the others'."""
        least = np.bitwise_count(self.own[first] ^ self.own[second])
        for column in range(self.turned.shape[1]):
            for one, other in ((first, second), (second, first)):
                np.minimum(least, np.bitwise_count(self.own[one] ^ self.turned[other, column]), out=least)
        return least.astype(np.int64)


def looks_of(images: pl.DataFrame) -> Numbers:
    """Return the number of each image's look: a flat image looks like the same bytes alone.

    Args:
        images: with image_id, flat, sha256, phash64, and phash_variants where they count.
    """
    by_bytes = pl.format("bytes {}", pl.col("sha256").fill_null(pl.col(KEY)))
    names = [name for name in ("phash64", "phash_variants") if name in images.columns]
    by_hash = pl.concat_str(names, separator=" ", ignore_nulls=True)
    look = pl.when("flat").then(by_bytes).otherwise(by_hash)
    placed = images.select(look.alias("look")).with_row_index("place")
    return placed.select(pl.col("place").min().over("look"))["place"].to_numpy().astype(np.int64)


def near_looks(hashes: Hashes, searched: Numbers, threshold: int) -> Numbers:
    """Return (P, 2) int64: every pair of the looks `searched` whose distance is at most `threshold`.

    Raises:
        PokefaError: there are more than MOST_PAIRS.
    """
    if not hashes.turned.shape[1]:
        return searched[collect(near_pair_chunks(hashes.own[searched], threshold))]
    # Search all hashes, and keep a pair of hashes where one of the two is the image's own.
    table = np.column_stack((hashes.own[searched], hashes.turned[searched]))
    values, of_entry = np.unique(table, return_inverse=True)
    entries = Groups(of_entry.ravel())
    width = table.shape[1]

    def own_pairs(pairs: Numbers) -> Numbers:
        owned = (pairs % width == 0).any(axis=1)
        looks = np.sort(pairs[owned] // width, axis=1)
        return looks[looks[:, 0] < looks[:, 1]]

    near = (entries.pairs_of_members(chunk) for chunk in near_pair_chunks(values, threshold))
    found = collect(own_pairs(pairs) for pairs in (entries.pairs_within(), *near))
    return searched[np.unique(found, axis=0)]


def collect(chunks: Iterable[Numbers]) -> Numbers:
    """Return arrays of (P, 2) as one.

    Raises:
        PokefaError: they hold more than MOST_PAIRS.
    """
    parts, count = [np.empty((0, 2), np.int64)], 0
    for chunk in chunks:
        parts.append(chunk)
        count += len(chunk)
        if count > MOST_PAIRS:
            raise PokefaError(
                f"over {MOST_PAIRS:,} pairs of images are near each other: nothing was changed; lower --threshold, or "
                "raise --min-cosine"
            )
    return np.concatenate(parts)


def add_links(looks: Numbers, near: Numbers, links: Numbers) -> tuple[Numbers, Numbers]:
    """Return looks and near looks that take in near pairs of single images.

    An image with a link to another look becomes a look of its own, near to all that its old one was near to.

    Args:
        links: (Q, 2) int64, pairs of images that are near for another reason than their hash.
    """
    links = links[looks[links[:, 0]] != looks[links[:, 1]]]
    if not len(links):
        return looks, near
    split = np.arange(len(looks))
    rest = np.setdiff1d(split, links)
    _, first, look = np.unique(looks[rest], return_index=True, return_inverse=True)
    split[rest] = rest[first][look]
    parts = np.unique(split)
    groups = Groups(looks[parts])
    new = (groups.pairs_of_members(near), groups.pairs_within())
    return split, np.concatenate([links, *(parts[pairs] for pairs in new)])
