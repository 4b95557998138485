"""What the ledger costs: opening it, merging a run's results, replaying a journal; beside pandas and Polars.

    python benchmarks/ledger.py                            10,000 and 100,000 rows, three rounds
    python benchmarks/ledger.py --rows 10000 100000 1000000 --rounds 1

Each measurement runs in a process of its own, so peak memory is its own too. Writes Markdown to stdout.
Run it in the environment of requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless that holds the project.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

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
)

RESULTS_PER_MERGE = 5_000


def make_ledger(root: Path, rows: int) -> None:
    """Write an images.csv of `rows` rows, every declared column filled as a finished dataset has them."""
    import polars as pl

    from pokefa.ledger.columns import IMAGES
    from pokefa.ledger.table import Table
    from pokefa.ledger.tables import Ledger

    chance = random.Random(7)
    ids = pl.Series([f"{chance.getrandbits(128):032x}" for _ in range(rows)])
    address = "https://images.example.org/2026/11/artist-name/a-fan-art-of-umbreon-0123456789.png"
    texts = {column.name: column.type.example if column.type.canonical else address for column in IMAGES.columns}
    data = {name: pl.repeat(text, rows, eager=True) for name, text in texts.items()}
    frame = pl.DataFrame(data).with_columns(ids.alias("image_id")).drop("phash64", "phash_run_id", "phash_error")
    Table(root, IMAGES).write(frame)
    Ledger(root).begin()  # it is as a merge has left it


def open_ledger(root: Path) -> None:
    from pokefa.ledger.tables import Ledger

    Ledger.open(root).images.read_keyed()


def merge_results(root: Path, results: int = RESULTS_PER_MERGE) -> None:
    """Journal and merge `results` results, as a stage does every so often."""
    journal_results(root, results)
    from pokefa.ledger.tables import Ledger

    Ledger.open(root)


def journal_results(root: Path, results: int) -> None:
    from pokefa.ledger.tables import Ledger
    from pokefa.setup.steps import STEPS
    from pokefa.stage.options import Options
    from pokefa.stage.runner import StageRun

    ledger = Ledger.open(root)
    ids = ledger.images.read()["image_id"].head(results).to_list()
    run = StageRun(STEPS["phash"], Options(root=root), ledger)
    run._next_merge = float("inf")
    for image_id in ids:
        run.record(image_id, {"phash64": "0123456789abcdef"}, reason="hashed")
    run._journal.close()


def replay_all(root: Path) -> None:
    """Merge a journal that has a result for every row: what a crash before the first merge leaves."""
    from pokefa.ledger.tables import Ledger

    Ledger.open(root)


def pandas_read_write(root: Path) -> None:
    import pandas as pd

    path = root / "metadata/images.csv"
    pd.read_csv(path, dtype=str, keep_default_na=False).to_csv(path.with_suffix(".pandas"), index=False)


def polars_read_write(root: Path) -> None:
    import polars as pl

    path = root / "metadata/images.csv"
    pl.read_csv(path, infer_schema=False).write_csv(path.with_suffix(".polars"))


FASTEST = "Polars: read, write"
MERGE = f"ledger: journal and merge {RESULTS_PER_MERGE:,} results"
RIVALS: dict[str, Callable[[Path], None]] = {"pandas: read, write": pandas_read_write, FASTEST: polars_read_write}
OURS: dict[str, Callable[[Path], None]] = {
    "ledger: open": open_ledger,
    MERGE: merge_results,
    "ledger: replay a result for every row": replay_all,
}
MEASURED = RIVALS | OURS

# A merge may take three times as long as reading and writing the table with the fastest of the libraries.
MERGE_AT_LEAST = 1 / 3


def measure(name: str, original: Path, rows: int) -> Sample:
    """Measure one of them on a fresh copy of a ledger."""
    root = original.with_name("copy")
    shutil.copytree(original, root)
    if MEASURED[name] is replay_all:
        call_apart(journal_results, root, rows)
    sample = call_apart(MEASURED[name], root)
    shutil.rmtree(root)
    return sample


def bench(rows: int, rounds: int, folder: Path) -> dict[str, list[Sample]]:
    """Measure everything on one size and print a table."""
    original = folder / f"{rows}"
    call_apart(make_ledger, original, rows)
    size = (original / "metadata/images.csv").stat().st_size
    samples = interleaved(rounds, {name: partial(measure, name, original, rows) for name in MEASURED})
    fastest = min(seconds_of(samples[name]) for name in RIVALS)
    print(f"\n### {rows:,} rows, {mebibytes(size)}")
    heads = ["what", "seconds, median (least to most)", "of the fastest read and write", "peak memory", "of the file"]
    found = [
        [
            name,
            spread(sample.seconds for sample in these),
            f"{seconds_of(these) / fastest:.2f}",
            mebibytes(peak_of(these)),
            f"{peak_of(these) / size:.1f}",
        ]
        for name, these in samples.items()
    ]
    print(table(heads, found), end="")
    shutil.rmtree(original)
    return samples


def note(samples: dict[int, dict[str, list[Sample]]], findings: Findings) -> None:
    """Compare at the largest size, and fit how seconds and memory grow with the rows."""
    sizes = sorted(samples)
    largest = samples[sizes[-1]]
    findings.rate("ledger: merge", sizes[-1] / seconds_of(largest[MERGE]), cores(), peak_of(largest[MERGE]))
    for name in OURS:
        for rival in RIVALS:
            wanted = MERGE_AT_LEAST if name == MERGE and rival == FASTEST else None
            ratio = seconds_of(largest[rival]) / seconds_of(largest[name])
            findings.compare(f"{name}, {sizes[-1]:,} rows", rival, ratio, wanted=wanted)
        memory = peak_of(largest[name]) / peak_of(largest[FASTEST])
        findings.compare(f"{name}, {sizes[-1]:,} rows", FASTEST, memory, of="memory")
        if len(sizes) > 1:
            seconds = [seconds_of(samples[rows][name]) for rows in sizes]
            findings.grow(name, sizes, seconds=seconds, memory=[peak_of(samples[rows][name]) for rows in sizes])


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=3)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 100_000], metavar="N", help="sizes of the ledger"
    )
    args = parser.parse_args(argv)
    print("## The ledger\n")
    print("`python benchmarks/ledger.py`: every declared column filled, each measurement in a process of its own.\n")
    print(f"{machine('pandas', 'polars')}; rounds: {args.rounds}")
    with tempfile.TemporaryDirectory() as folder:
        sizes = [1_000, 10_000] if args.quick else args.rows
        samples = {rows: bench(rows, args.rounds, Path(folder)) for rows in sizes}
    findings = Findings()
    note(samples, findings)
    findings.close(args.findings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
