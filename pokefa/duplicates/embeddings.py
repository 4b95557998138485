"""Near pairs by the cosine of embeddings from another program, for crops, overlays and other cases that pHash misses.

faiss finds them with an exact index, which compares every pair: the time grows with the square of the images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pokefa.errors import InputError
from pokefa.stage.rows import name_some

ROWS_AT_ONCE = 2048
# faiss multiplies single-precision numbers in its own order. So its threshold is lowered by this, and every pair is
# computed again in double precision: the result does not depend on the order of the file.
SLACK = 1e-4


@dataclass(frozen=True)
class Embeddings:
    """`vectors` (N, D) float32 of length 1; `ids`: the image_id of each row."""

    ids: list[str]
    vectors: NDArray[np.float32]


def read_embeddings(vectors_path: Path, ids_path: Path) -> Embeddings:
    """Return the embeddings of an .npy file, an (N, D) array of floats, and of a text file with one image_id per line.

    Raises:
        InputError: a file cannot be read, the two do not match, or a vector is zero or not finite.
    """
    try:
        array = np.load(vectors_path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"--embeddings {vectors_path} cannot be read as .npy: {error}") from None
    try:
        ids = ids_path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--embedding-ids {ids_path} cannot be read: {error}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        what = f"{array.dtype}, {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise InputError(f"--embeddings {vectors_path} must contain one (N, D) array of floats, not {what}")
    if len(ids) != len(array):
        raise InputError(f"--embeddings has {len(array)} rows and --embedding-ids {len(ids)} ids: they must match")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(f"--embedding-ids {ids_path} names images twice: {name_some(twice)}")
    lengths = np.sqrt(np.einsum("ij,ij->i", array, array, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(bad):
        raise InputError(f"--embeddings: the row of {ids[bad[0]]} is zero or not finite: remove such images")
    return Embeddings(ids, (array / lengths[:, None]).astype(np.float32))


def cosine_pairs(vectors: NDArray[np.float32], min_cosine: float) -> Iterator[NDArray[np.int64]]:
    """Yield arrays of (P, 2) int64 with every pair of rows i < j whose cosine is at least `min_cosine`.

    Args:
        vectors: (N, D) float32, each of length 1.
    """
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        queries = np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE])
        ends, _, found = index.range_search(queries, min_cosine - SLACK)
        first = np.repeat(np.arange(start, start + len(queries)), np.diff(ends.astype(np.int64)))
        pairs = np.column_stack((first, found))[found > first]
        yield pairs[_cosines(vectors, pairs) >= min_cosine]


def _cosines(vectors: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    cosines = np.empty(len(pairs))
    for start in range(0, len(pairs), ROWS_AT_ONCE):
        some = pairs[start : start + ROWS_AT_ONCE]
        one, other = (vectors[some[:, side]].astype(np.float64) for side in (0, 1))
        cosines[start : start + ROWS_AT_ONCE] = (one * other).sum(axis=1)
    return cosines
