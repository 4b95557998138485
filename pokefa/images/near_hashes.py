"""Classes of images with equal hashes, and the pairs of classes that are near each other.

Images with equal hashes form a class, which the search sees once: a thousand copies cost no more than one. Images are
numbered by their rows; a class has the number of its first image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pokefa.errors import PokefaError
from pokefa.images.hamming import Numbers, Words, near_pair_chunks
from pokefa.images.phash import FLAT_BITS, FLAT_CONTRAST, TURNS
from pokefa.ledger.table import KEY

# 800 MB. More pairs mean that the threshold is far too high, or that half of the images are copies of one.
MOST_PAIRS = 50_000_000


@dataclass(frozen=True)
class Hashes:
    """The hashes of N images.

    Attributes:
        own: (N,) uint64.
        turned: (N, T) uint64, of the mirrored and rotated image; an image without any repeats its own.
    """

    own: Words
    turned: Words

    def distances(self, first: Numbers, second: Numbers) -> NDArray[np.int64]:
        """Return the smallest Hamming distance of each pair: the own hash of one to any hash of the other."""
        least = np.bitwise_count(self.own[first] ^ self.own[second])
        for column in range(self.turned.shape[1]):
            for one, other in ((first, second), (second, first)):
                np.minimum(least, np.bitwise_count(self.own[one] ^ self.turned[other, column]), out=least)
        return least.astype(np.int64)


def classes_of(images: pl.DataFrame) -> Numbers:
    """Return the class of each image; flat images are in a class only with identical files.

    Args:
        images: with image_id, flat, sha256, phash64, and phash_variants if they are used.
    """
    by_bytes = pl.format("bytes {}", pl.col("sha256").fill_null(pl.col(KEY)))
    names = [name for name in ("phash64", "phash_variants") if name in images.columns]
    by_hash = pl.concat_str(names, separator=" ", ignore_nulls=True)
    label = pl.when("flat").then(by_bytes).otherwise(by_hash)
    placed = images.select(label.alias("label")).with_row_index("place")
    return placed.select(pl.col("place").min().over("label"))["place"].to_numpy().astype(np.int64)


def near_classes(hashes: Hashes, searched: Numbers, threshold: int) -> Numbers:
    """Return (P, 2) int64: every pair of the classes `searched` whose distance is at most `threshold`.

    Raises:
        PokefaError: there are more than MOST_PAIRS.
    """
    if not hashes.turned.shape[1]:
        return searched[collect(near_pair_chunks(hashes.own[searched], threshold))]
    # Search all hashes, and keep pairs in which one of the two is the image's own hash.
    table = np.column_stack((hashes.own[searched], hashes.turned[searched]))
    values, of_entry = np.unique(table, return_inverse=True)
    entries = Groups(of_entry.ravel())
    width = table.shape[1]

    def own_pairs(pairs: Numbers) -> Numbers:
        owned = (pairs % width == 0).any(axis=1)
        classes = np.sort(pairs[owned] // width, axis=1)
        return classes[classes[:, 0] < classes[:, 1]]

    near = (entries.pairs_of_members(chunk) for chunk in near_pair_chunks(values, threshold))
    found = collect(own_pairs(pairs) for pairs in (entries.pairs_within(), *near))
    return searched[np.unique(found, axis=0)]


def collect(chunks: Iterable[Numbers]) -> Numbers:
    """Return arrays of (P, 2) concatenated.

    Raises:
        PokefaError: there are more than MOST_PAIRS pairs.
    """
    parts, count = [np.empty((0, 2), np.int64)], 0
    for chunk in chunks:
        parts.append(chunk)
        count += len(chunk)
        if count > MOST_PAIRS:
            raise PokefaError(
                f"over {MOST_PAIRS:,} pairs of images are near-duplicates: nothing was changed; lower --threshold, or "
                "raise --min-cosine"
            )
    return np.concatenate(parts)


def add_links(classes: Numbers, near: Numbers, links: Numbers) -> tuple[Numbers, Numbers]:
    """Return classes and near pairs that include `links` between single images.

    An image with a link to another class becomes a class of its own, near everything that its old class was near.

    Args:
        links: (Q, 2) int64, pairs of images that are near for another reason than their hash.
    """
    links = links[classes[links[:, 0]] != classes[links[:, 1]]]
    if not len(links):
        return classes, near
    split = np.arange(len(classes))
    rest = np.setdiff1d(split, links)
    _, first, number = np.unique(classes[rest], return_index=True, return_inverse=True)
    split[rest] = rest[first][number]
    parts = np.unique(split)
    groups = Groups(classes[parts])
    new = (groups.pairs_of_members(near), groups.pairs_within())
    return split, np.concatenate([links, *(parts[pairs] for pairs in new)])


class Groups:
    """Members of numbered groups: `of_member` (M,) int64 is each member's group."""

    def __init__(self, of_member: Numbers) -> None:
        self.members = np.argsort(of_member, kind="stable")
        self.sizes = np.bincount(of_member)
        self.starts = np.cumsum(self.sizes) - self.sizes

    def pairs_of_members(self, pairs: Numbers) -> Numbers:
        """Return (R, 2) int64: each member of a pair's first group with each of its second."""
        first, second = pairs[:, 0], pairs[:, 1]
        counts = self.sizes[first] * self.sizes[second]
        which = np.repeat(np.arange(len(pairs)), counts)
        number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        row, column = np.divmod(number, self.sizes[second][which])
        return np.column_stack(
            (self.members[self.starts[first][which] + row], self.members[self.starts[second][which] + column])
        )

    def pairs_within(self) -> Numbers:
        """Return (R, 2) int64: each pair of members of the same group, once."""
        several = np.flatnonzero(self.sizes > 1)
        pairs = self.pairs_of_members(np.column_stack((several, several)))
        return pairs[pairs[:, 0] < pairs[:, 1]]


def with_flat(rows: pl.DataFrame) -> pl.DataFrame:
    """Return typed rows with the column `flat`: True if the hash is not meaningful."""
    bits = pl.col("phash64").str.to_integer(base=16, dtype=pl.UInt64).bitwise_count_ones()
    little = (pl.col("phash_contrast") < FLAT_CONTRAST).fill_null(False)
    return rows.with_columns(((bits <= FLAT_BITS) | little).alias("flat"))


def hashes_of(images: pl.DataFrame) -> Hashes:
    """Return the hashes of the images, in their order."""
    own = np.frombuffer(bytes.fromhex("".join(images["phash64"])), ">u8").astype(np.uint64)
    if "phash_variants" not in images.columns:
        return Hashes(own, np.empty((len(own), 0), np.uint64))
    repeated = pl.concat_str(["phash64"] * len(TURNS), separator=" ")
    texts = images.select(pl.col("phash_variants").fill_null(repeated))["phash_variants"]
    turned = np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64)
    return Hashes(own, turned.reshape(-1, len(TURNS)))


def look_alikes(images: pl.DataFrame, threshold: int) -> list[tuple[str, str]]:
    """Return pairs of image_ids that connect, directly or through others, all images within `threshold` bits.

    Args:
        images: cell texts of image_id and HASH_COLUMNS. Images without a hash and flat images, whose hash is not
            meaningful, match no other.

    Raises:
        PokefaError: the threshold is so high that too many pairs are near.
    """
    hashed = images.filter(pl.col("phash64").is_not_null())
    hashed = hashed.with_columns(pl.col("phash_contrast").cast(pl.Float64))
    if hashed["phash_variants"].null_count() == len(hashed):
        hashed = hashed.drop("phash_variants")
    hashed = with_flat(hashed)
    classes = classes_of(hashed)
    places = np.arange(len(classes))
    searched = np.flatnonzero((classes == places) & ~hashed["flat"].to_numpy())
    same = np.column_stack((places, classes))[classes != places]
    near = np.concatenate((same, near_classes(hashes_of(hashed), searched, threshold)))
    ids = hashed[KEY].to_list()
    return [(ids[one], ids[other]) for one, other in near.tolist()]
