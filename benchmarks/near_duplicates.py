"""What finding all near-duplicates costs: rm_dups' search beside faiss, imagededup and pairwise loops.

    python benchmarks/near_duplicates.py                     up to a million hashes: about four minutes
    python benchmarks/near_duplicates.py --full              up to ten million: half an hour and more
    python benchmarks/near_duplicates.py --part search limits --full --thresholds 3 6

All of them search the same hashes: random ones, and among them a hundredth with a neighbour planted at 0 to 12 bits.
Each measurement runs in a process of its own on all cores; reading the hashes is not counted. Writes Markdown to
stdout. Run it in the environment of requirements/requirements_benchmarks_near_duplicates.txt, with PYTHONPATH=. unless
that holds the project.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from benchmarks.findings import Findings
from benchmarks.measuring import (
    Sample,
    bench_parser,
    call_apart,
    cores,
    interleaved,
    machine,
    mebibytes,
    peak_of,
    seconds_of,
    spread,
    table,
    tell,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from preprocess.dup.linkage import Linkage

    Pairs = NDArray[np.int64]

THRESHOLDS = (3, 6, 10)
LINKAGES: tuple[Linkage, ...] = ("star", "single")
PLANTED_DISTANCES = 13
PARTS = ("rivals", "search", "limits", "shapes", "decisions")

OURS = "rm_dups' search"
FAISS = "faiss IndexBinaryFlat.range_search"
FASTER_THAN_FAISS = 100  # times, at 300,000 hashes and threshold 3
TREE = "imagededup, bktree"
BRUTE = "imagededup, brute_force_cython"
ROWS = "NumPy, one hash with all others"
LOOP = "Python, each with each"


def make_hashes(folder: Path, count: int) -> Path:
    """Write `count` hashes (uint64) and the planted pairs (P, 3: two places and their distance) as .npy files."""
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
    """Group equal hashes and search the different ones, as rm_dups does."""
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
        ends, _, found = index.range_search(words, threshold + 1)  # a radius that is not reached
        first = np.repeat(np.arange(len(words)), np.diff(ends.astype(np.int64)))
        return np.column_stack((first, found))[first < found]

    return timed(search, path, threshold)


def imagededup(path: Path, threshold: int, method: str) -> tuple[float, float]:
    """Search with imagededup's classes, the queries spread over processes as its find_duplicates spreads them."""
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


def python_loop(path: Path, threshold: int) -> tuple[float, float]:
    import numpy as np

    def search(hashes: NDArray[np.uint64]) -> Pairs:
        values = hashes.tolist()
        found = []
        for place, one in enumerate(values):
            for other in range(place + 1, len(values)):
                if (one ^ values[other]).bit_count() <= threshold:
                    found.append((place, other))
        return np.array(found, np.int64)

    return timed(search, path, threshold)


def measured(function: Callable[..., tuple[float, float]], *arguments: object) -> Sample:
    """Measure a search in a process of its own: the seconds of the search alone, and its recall."""
    sample = call_apart(function, *arguments)
    seconds, recall = sample.result
    return replace(sample, seconds=seconds, result=recall)


def lowest_recall(samples: Sequence[Sample]) -> str:
    return f"{min(sample.result for sample in samples):.4f}"


def print_rivals(folder: Path, rounds: int, sizes: tuple[int, int, int], findings: Findings) -> None:
    """Compare everything at sizes that it can finish."""
    small, middle, _ = sizes
    print("\n### Beside the others, threshold 3\n")
    print("imagededup and the loop in Python take minutes beyond the first size, faiss beyond the last.")
    rows = []
    for count in sizes:
        path = make_hashes(folder, count)
        runs = {OURS: partial(measured, ours, path, 3), FAISS: partial(measured, faiss_flat, path, 3)}
        if count <= middle:
            runs[ROWS] = partial(measured, numpy_rows, path, 3)
        if count <= small:
            runs[TREE] = partial(measured, imagededup, path, 3, "bktree")
            runs[BRUTE] = partial(measured, imagededup, path, 3, "brute_force_cython")
            runs[LOOP] = partial(measured, python_loop, path, 3)
        samples = interleaved(rounds, runs)
        fastest = seconds_of(samples[OURS])
        for name, these in samples.items():
            seconds = spread((sample.seconds for sample in these), 3)
            ratio = f"{seconds_of(these) / fastest:,.0f}"
            rows.append([f"{count:,}", name, seconds, ratio, mebibytes(peak_of(these)), lowest_recall(these)])
            if name != OURS:
                wanted = FASTER_THAN_FAISS if (name, count) == (FAISS, 300_000) else None
                findings.compare(f"{OURS}, {count:,} at 3", name, seconds_of(these) / fastest, wanted=wanted)
    heads = ["hashes", "what", "seconds, median (least to most)", "of ours", "peak memory", "recall"]
    print(table(heads, rows), end="")


def print_search(
    folder: Path, rounds: int, sizes: Sequence[int], thresholds: Sequence[int], findings: Findings
) -> None:
    """Show how the search grows."""
    print("\n### Growth of rm_dups' search")
    rows = []
    seconds: dict[int, list[float]] = {threshold: [] for threshold in thresholds}
    peaks: dict[int, list[float]] = {threshold: [] for threshold in thresholds}
    for count in sizes:
        path = make_hashes(folder, count)
        samples = interleaved(
            rounds, {f"{count:,}, {threshold}": partial(measured, ours, path, threshold) for threshold in thresholds}
        )
        for threshold, these in zip(thresholds, samples.values(), strict=True):
            seconds[threshold].append(seconds_of(these))
            peaks[threshold].append(peak_of(these))
            took = spread((sample.seconds for sample in these), 2)
            rows.append([f"{count:,}", threshold, took, mebibytes(peak_of(these)), lowest_recall(these)])
        path.unlink()
    heads = ["hashes", "threshold", "seconds, median (least to most)", "peak memory", "recall"]
    print(table(heads, rows), end="")
    for threshold in thresholds:
        what = f"{OURS} at {threshold}"
        findings.grow(f"{what}, hashes", sizes, seconds=seconds[threshold], memory=peaks[threshold])
        findings.rate(what, sizes[-1] / seconds[threshold][-1], cores(), int(peaks[threshold][-1]))


def print_limits(folder: Path, rounds: int, sizes: Sequence[int]) -> None:
    """Show where the method stops paying: beside its own comparison of each with each."""
    print("\n### Where it stops paying")
    rows = []
    for count in sizes:
        path = make_hashes(folder, count)
        whole = interleaved(rounds, {f"{count:,}, each with each": partial(measured, ours, path, 6, True)})
        plain = statistics.median(seconds_of(these) for these in whole.values())
        for threshold in (3, 6, 8, 10, 12, 14, 16):
            samples = interleaved(rounds, {f"{count:,}, {threshold}": partial(measured, ours, path, threshold)})
            took = statistics.median(seconds_of(these) for these in samples.values())
            rows.append([f"{count:,}", threshold, f"{took:.3f}", f"{plain:.3f}", f"{took / plain:.3f}"])
    heads = ["hashes", "threshold", "seconds", "each with each", "ratio"]
    print(table(heads, rows), end="")


def make_shapes(folder: Path, count: int) -> dict[str, Path]:
    """Write hashes that are hard on the method, without planted pairs."""
    import numpy as np

    generator = np.random.default_rng(1)
    free = generator.integers(0, 2**64, count, np.uint64)
    halves = generator.integers(0, 2**32, count, np.uint64)
    ball = free.copy()
    ones = np.uint64(1) << generator.integers(0, 64, (count // 100, 3)).astype(np.uint64)
    ball[: count // 100] = free[0] ^ np.bitwise_xor.reduce(ones, axis=1)
    shapes = {
        "random": free,
        "all share 24 bits": free & np.uint64(0xFFFFFFFFFF),
        "half of them one of ten hashes": np.where(np.arange(count) % 2, free, free[np.arange(count) % 10]),
        "each bit stands twice": halves | halves << np.uint64(32),
        "a hundredth within 3 bits of one": ball,
    }
    for name, hashes in shapes.items():
        np.save(folder / f"{name}.npy", hashes)
    return {name: folder / f"{name}.npy" for name in shapes}


def search_shape(path: Path) -> tuple[float, float]:
    """Return the seconds of the search at threshold 6, and the number of pairs."""
    import numpy as np

    from pokefa.images.hamming import near_pairs

    hashes = np.load(path)
    began = time.perf_counter()
    pairs = near_pairs(np.unique(hashes), 6)
    return time.perf_counter() - began, len(pairs)


def print_shapes(folder: Path, rounds: int, count: int) -> None:
    """Show what hashes that are not random cost."""
    shapes = make_shapes(folder, count)
    samples = interleaved(rounds, {name: partial(measured, search_shape, path) for name, path in shapes.items()})
    print(f"\n### Hashes that are not random: {count:,}, threshold 6; equal ones are grouped first")
    rows = [
        [name, spread(sample.seconds for sample in these), f"{these[0].result:,}", mebibytes(peak_of(these))]
        for name, these in samples.items()
    ]
    print(table(["hashes", "seconds, median (least to most)", "near pairs", "peak memory"], rows), end="")


def decisions(path: Path, threshold: int, linkage: Linkage) -> tuple[float, float]:
    """Return the seconds of everything that rm_dups decides, and the share of them that is the search."""
    import numpy as np
    import polars as pl

    from pokefa.images.near_hashes import Hashes, near_classes
    from preprocess.dup import grouping

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


def print_decisions(folder: Path, rounds: int, count: int) -> None:
    """Show what ranking, grouping and choosing add to the search."""
    path = make_hashes(folder, count)
    runs = {
        f"{linkage}, threshold {threshold}": partial(measured, decisions, path, threshold, linkage)
        for linkage in LINKAGES
        for threshold in THRESHOLDS[:2]
    }
    samples = interleaved(rounds, runs)
    print(f"\n### Everything that rm_dups decides: {count:,} images, without reading and writing the ledger")
    rows = [
        [
            name,
            spread(sample.seconds for sample in these),
            f"{statistics.median(sample.result for sample in these):.0%}",
            mebibytes(peak_of(these)),
        ]
        for name, these in samples.items()
    ]
    print(table(["what", "seconds, median (least to most)", "of that the search", "peak memory"], rows), end="")


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=1)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="only these parts")
    parser.add_argument("--full", action="store_true", help="also ten million hashes")
    parser.add_argument(
        "--thresholds", nargs="+", type=int, default=THRESHOLDS, metavar="BITS", help="of the search (default: 3 6 10)"
    )
    args = parser.parse_args(argv)
    quick: bool = args.quick
    print("## Near-duplicates\n")
    print("`python benchmarks/near_duplicates.py`: 64-bit hashes; recall is that of the planted neighbours.\n")
    print(f"{machine('numpy', 'faiss-cpu', 'imagededup', 'scipy', 'polars')}; rounds: {args.rounds}")
    findings = Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in args.part:
            tell(f"part {part}")
            if part == "rivals":
                print_rivals(
                    folder, args.rounds, (1_000, 2_000, 3_000) if quick else (5_000, 30_000, 300_000), findings
                )
            elif part == "search":
                sizes = [1_000, 10_000] if quick else [10_000, 100_000, 1_000_000]
                print_search(
                    folder, args.rounds, [*sizes, *([10_000_000] if args.full else [])], args.thresholds, findings
                )
            elif part == "limits":
                print_limits(folder, args.rounds, [2_000] if quick else [30_000, 100_000])
            elif part == "shapes":
                print_shapes(folder, args.rounds, 3_000 if quick else 300_000)
            else:
                print_decisions(folder, args.rounds, 3_000 if quick else 1_000_000)
    findings.close(args.findings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
