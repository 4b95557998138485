"""The cost of finding all near-duplicates: rm_dups' search compared with faiss, imagededup and a pairwise loop.

    python benchmarks/near_duplicates.py                     up to a million hashes: about four minutes
    python benchmarks/near_duplicates.py --full              up to ten million: half an hour and more
    python benchmarks/near_duplicates.py --part search limits --full --thresholds 3 6

All of them search the same random 64-bit hashes, a hundredth of which have a neighbour planted at 0 to 12 bits; recall
is that of the planted neighbours. Each measurement runs in its own process on all cores; reading the hashes is
excluded. The environment is that of requirements/requirements_benchmarks_near_duplicates.txt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from benchmarks.harness import Against, Bench, bench_main, seconds_of, tell
from benchmarks.markdown import table
from benchmarks.measuring import Sample, call_apart

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pokefa.duplicates.linkage import Linkage

    Pairs = NDArray[np.int64]

THRESHOLDS = (3, 6, 10)
LINKAGES: tuple[Linkage, ...] = ("star", "single")
PLANTED_DISTANCES = 13
PARTS = ("rivals", "search", "limits", "decisions")

OURS = "rm_dups' search"
FAISS = "faiss IndexBinaryFlat.range_search"
FASTER_THAN_FAISS = 100  # times, at 300,000 hashes and threshold 3
TREE = "imagededup, bktree"
BRUTE = "imagededup, brute_force_cython"
ROWS = "NumPy, one hash with all others"


def make_hashes(folder: Path, count: int) -> Path:
    """Write `count` hashes (uint64) and the planted pairs (P, 3: two indices and their distance) as .npy files."""
    import numpy as np

    generator = np.random.default_rng(count)
    hashes = generator.integers(0, 2**64, count, np.uint64)
    planted = np.arange(count // 100)
    distances = planted % PLANTED_DISTANCES
    flips = generator.random((len(planted), 64)).argsort(axis=1)[:, :PLANTED_DISTANCES]  # different bits
    wanted = np.arange(PLANTED_DISTANCES) < distances[:, None]
    masks = np.where(wanted, np.uint64(1) << flips.astype(np.uint64), np.uint64(0))
    others = count - 1 - planted
    hashes[others] = hashes[planted] ^ np.bitwise_or.reduce(masks, axis=1)
    path = folder / f"{count}.npy"
    np.save(path, hashes)
    np.save(path.with_suffix(".planted.npy"), np.column_stack((planted, others, distances)))
    return path


def timed(search: Callable[[NDArray[np.uint64]], Pairs], path: Path, threshold: int) -> tuple[float, float]:
    """Return the seconds of one search and the share of the planted pairs up to `threshold` that it found."""
    import numpy as np

    hashes = np.load(path)
    began = time.perf_counter()
    pairs = search(hashes)
    seconds = time.perf_counter() - began
    planted = np.load(path.with_suffix(".planted.npy"))
    planted = planted[planted[:, 2] <= threshold]
    codes = pairs.min(axis=1) * len(hashes) + pairs.max(axis=1)
    return seconds, float(np.isin(planted[:, 0] * len(hashes) + planted[:, 1], codes).mean())


def ours(path: Path, threshold: int, each_with_each: bool = False) -> tuple[float, float]:
    """Group equal hashes and search the distinct ones, as rm_dups does."""
    import numpy as np

    from pokefa.images.hamming import Cut, near_pairs

    def search(hashes: NDArray[np.uint64]) -> Pairs:
        distinct, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        near = first[near_pairs(distinct, threshold, cut=Cut(0, 0, 0.0) if each_with_each else None)]
        copies = np.flatnonzero(first[group] != np.arange(len(hashes)))
        return np.concatenate([near, np.column_stack((first[group][copies], copies))])

    return timed(search, path, threshold)


def faiss_flat(path: Path, threshold: int) -> tuple[float, float]:
    import faiss
    import numpy as np

    def search(hashes: NDArray[np.uint64]) -> Pairs:
        words = hashes.view(np.uint8).reshape(-1, 8)
        index = faiss.IndexBinaryFlat(64)
        index.add(words)
        ends, _, found = index.range_search(words, threshold + 1)  # the radius is exclusive
        first = np.repeat(np.arange(len(words)), np.diff(ends.astype(np.int64)))
        return np.column_stack((first, found))[first < found]

    return timed(search, path, threshold)


def imagededup(path: Path, threshold: int, method: str) -> tuple[float, float]:
    """Search with imagededup's classes, with the queries spread over processes as in its find_duplicates."""
    import multiprocessing

    import numpy as np
    from imagededup.handlers.search.bktree import BKTree
    from imagededup.handlers.search.brute_force_cython import BruteForceCython

    kind = {"bktree": BKTree, "brute_force_cython": BruteForceCython}[method]

    def search(hashes: NDArray[np.uint64]) -> Pairs:
        named = {str(place): f"{value:016x}" for place, value in enumerate(hashes.tolist())}
        query = partial(kind(named, hex_distance).search, tol=threshold)
        with multiprocessing.get_context("fork").Pool() as pool:
            answers = pool.map(query, named.values(), chunksize=100)
        found = zip(named, answers, strict=True)
        pairs = [(int(one), int(other)) for one, others in found for other, _ in others if one != other]
        return np.array(pairs, np.int64).reshape(-1, 2)

    return timed(search, path, threshold)


def hex_distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def numpy_rows(path: Path, threshold: int) -> tuple[float, float]:
    import numpy as np

    def search(hashes: NDArray[np.uint64]) -> Pairs:
        found = []
        for place in range(len(hashes)):
            near = np.flatnonzero(np.bitwise_count(hashes[place + 1 :] ^ hashes[place]) <= threshold)
            found += [(place, place + 1 + other) for other in near.tolist()]
        return np.array(found, np.int64)

    return timed(search, path, threshold)


def measured(function: Callable[..., tuple[float, float]], *arguments: object) -> Sample:
    """Measure a search in its own process: the seconds of the search alone, and its recall."""
    sample = call_apart(function, *arguments)
    seconds, recall = sample.result
    return replace(sample, seconds=seconds, working=seconds, result=recall)


def lowest_recall(_: str, samples: Sequence[Sample]) -> str:
    return f"{min(sample.result for sample in samples):.4f}"


def measure_rivals(bench: Bench, sizes: tuple[int, int, int]) -> None:
    """Compare each at sizes that it finishes within minutes, from imagededup to faiss."""
    small, middle, _ = sizes
    for count in sizes:
        path = make_hashes(bench.folder, count)
        ours_here = f"{OURS}, {count:,} at 3"
        runs = {ours_here: partial(measured, ours, path, 3), FAISS: partial(measured, faiss_flat, path, 3)}
        if count <= middle:
            runs[ROWS] = partial(measured, numpy_rows, path, 3)
        if count <= small:
            runs[TREE] = partial(measured, imagededup, path, 3, "bktree")
            runs[BRUTE] = partial(measured, imagededup, path, 3, "brute_force_cython")
        samples, counts = bench.run(runs), dict.fromkeys(runs, count)
        print(f"\n### Beside the others: {count:,} hashes, threshold 3")
        bench.show_rates(samples, counts, "hashes", {"recall": lowest_recall})
        goals = {FAISS: FASTER_THAN_FAISS} if count == 300_000 else {}
        bench.compare(
            samples, counts, [Against(ours_here, name, goals.get(name)) for name in runs if name != ours_here]
        )


def measure_search(bench: Bench, sizes: Sequence[int]) -> None:
    """Show how the cost of the search grows."""
    found: dict[int, dict[int, list[Sample]]] = {threshold: {} for threshold in bench.args.thresholds}
    for count in sizes:
        path = make_hashes(bench.folder, count)
        for threshold, by_size in found.items():
            name = f"{count:,} at {threshold}"
            by_size[count] = bench.run({name: partial(measured, ours, path, threshold)})[name]
        path.unlink()
    print("\n### Growth of rm_dups' search")
    samples = {f"{size:,} at {threshold}": these for threshold, by in found.items() for size, these in by.items()}
    counts = {f"{size:,} at {threshold}": size for threshold, by in found.items() for size in by}
    columns = {"seconds": lambda _, these: f"{seconds_of(these):.2f}", "recall": lowest_recall}
    bench.show_rates(samples, counts, "hashes", columns)
    for threshold, by_size in found.items():
        bench.grow(f"{OURS} at {threshold}, hashes", by_size)
        bench.rate(f"{OURS} at {threshold}", sizes[-1], by_size[sizes[-1]])


def measure_limits(bench: Bench, sizes: Sequence[int]) -> None:
    """Show where the method no longer pays, compared with its own exhaustive search."""
    print("\n### Where it stops paying")
    rows = []
    for count in sizes:
        path = make_hashes(bench.folder, count)
        runs = {str(threshold): partial(measured, ours, path, threshold) for threshold in (3, 6, 8, 10, 12, 14, 16)}
        samples = bench.run({"each with each": partial(measured, ours, path, 6, True), **runs})
        plain = seconds_of(samples.pop("each with each"))
        for threshold, these in samples.items():
            took = seconds_of(these)
            rows.append([f"{count:,}", threshold, f"{took:.3f}", f"{plain:.3f}", f"{took / plain:.3f}"])
    print(table(["hashes", "threshold", "seconds", "each with each", "ratio"], rows), end="")


def decisions(path: Path, threshold: int, linkage: Linkage) -> tuple[float, float]:
    """Return the seconds of all of rm_dups' decisions, and the share of the search in them."""
    import numpy as np
    import polars as pl

    from pokefa.duplicates import grouping
    from pokefa.images.near_hashes import Hashes, near_classes

    hashes = np.load(path)
    count = len(hashes)
    chance = np.random.default_rng(1)
    rows = pl.DataFrame(
        {
            "image_id": [f"{place:032x}" for place in chance.permutation(count).tolist()],
            "phash64": [f"{value:016x}" for value in hashes.tolist()],
            "phash_contrast": pl.repeat(40.0, count, eager=True),
            "sha256": [f"{place:064x}" for place in range(count)],
            "ae_aesthetic": chance.integers(0, 101, count),
            "w": chance.integers(500, 3000, count),
            "h": chance.integers(500, 3000, count),
            "ts": pl.repeat("2026-01-01T00:00:00.000Z", count, eager=True),
        }
    )
    searching = 0.0

    def clocked(hashes: Hashes, searched: Pairs, threshold: int) -> Pairs:
        nonlocal searching
        began = time.perf_counter()
        near = near_classes(hashes, searched, threshold)
        searching += time.perf_counter() - began
        return near

    with patch.object(grouping, "near_classes", clocked):
        began = time.perf_counter()
        grouping.decide(rows, grouping.Rules(threshold, linkage))
        seconds = time.perf_counter() - began
    return seconds, searching / seconds


def measure_decisions(bench: Bench, count: int) -> None:
    """Show the cost of ranking, grouping and choosing in addition to the search."""
    path = make_hashes(bench.folder, count)
    runs = {
        f"{linkage}, threshold {threshold}": partial(measured, decisions, path, threshold, linkage)
        for linkage in LINKAGES
        for threshold in THRESHOLDS[:2]
    }
    samples = bench.run(runs)
    print(f"\n### Everything that rm_dups decides: {count:,} images, without reading and writing the ledger")
    columns = {"of that the search": lambda _, these: f"{these[0].result:.0%}"}
    bench.show_rates(samples, dict.fromkeys(runs, count), "images", columns)


def measure(bench: Bench) -> None:
    quick = bench.quick
    for part in bench.args.part:
        tell(f"part {part}")
        if part == "rivals":
            measure_rivals(bench, (1_000, 2_000, 3_000) if quick else (5_000, 30_000, 300_000))
        elif part == "search":
            sizes = [1_000, 10_000] if quick else [10_000, 100_000, 1_000_000]
            measure_search(bench, [*sizes, *([10_000_000] if bench.args.full else [])])
        elif part == "limits":
            measure_limits(bench, [2_000] if quick else [30_000, 100_000])
        else:
            measure_decisions(bench, 3_000 if quick else 1_000_000)


if __name__ == "__main__":
    flags = {
        "--part": {"nargs": "+", "choices": PARTS, "default": PARTS, "help": "only these parts"},
        "--full": {"action": "store_true", "help": "also ten million hashes"},
        "--thresholds": {"nargs": "+", "type": int, "default": THRESHOLDS, "metavar": "BITS", "help": "of the search"},
    }
    packages = ["numpy", "faiss-cpu", "imagededup", "scipy", "polars"]
    raise SystemExit(bench_main(__doc__, "Near-duplicates", measure, packages=packages, flags=flags))
