"""What the ledger costs: opening it, merging a run's results, replaying a journal; beside pandas and Polars.

    python benchmarks/ledger.py                            100,000 rows, three rounds
    python benchmarks/ledger.py --rows 10000 1000000 --rounds 1

Each measurement runs in a process of its own, so peak memory is its own too. Writes a Markdown table to stdout.
Run it in the environment of requirements/requirements_benchmarks.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

RESULTS_PER_MERGE = 5_000


def make_ledger(root: Path, rows: int) -> None:
    """Write an images.csv of `rows` rows, every declared column filled as a finished dataset has them."""
    import polars as pl

    from pokefa.columns import IMAGES
    from pokefa.table import Table

    chance = random.Random(7)
    samples = {
        "text": "https://images.example.org/2026/11/artist-name/a-fan-art-of-umbreon-0123456789.png",
        "int": "1234",
    }
    samples |= {"float": "0.123456789", "bool": "False"}
    ids = pl.Series([f"{chance.getrandbits(128):032x}" for _ in range(rows)])
    data = {column.name: pl.repeat(samples[column.kind], rows, eager=True) for column in IMAGES.columns}
    frame = pl.DataFrame(data).with_columns(ids.alias("image_id")).drop("phash64", "phash_run_id", "phash_error")
    Table(root, IMAGES).write(frame)


def open_ledger(root: Path) -> None:
    from pokefa.ledger import Ledger

    Ledger.open(root).images.read_keyed()


def merge_results(root: Path, results: int = RESULTS_PER_MERGE) -> None:
    """Journal and merge `results` results, as a stage does every so often."""
    journal_results(root, results)
    from pokefa.ledger import Ledger

    Ledger.open(root)


def journal_results(root: Path, results: int) -> None:
    from pokefa.ledger import Ledger
    from pokefa.options import Options
    from pokefa.run import StageRun
    from pokefa.selection import STEPS

    ledger = Ledger.open(root)
    ids = ledger.images.read()["image_id"].head(results).to_list()
    run = StageRun(STEPS["phash"], Options(root=root), ledger)
    run._next_merge = float("inf")
    for image_id in ids:
        run.record(image_id, {"phash64": "0123456789abcdef"}, reason="hashed")
    run._journal.close()


def replay_all(root: Path) -> None:
    """Merge a journal that has a result for every row: what a crash before the first merge leaves."""
    from pokefa.ledger import Ledger

    Ledger.open(root)


def pandas_read_write(root: Path) -> None:
    import pandas as pd

    path = root / "metadata/images.csv"
    pd.read_csv(path, dtype=str, keep_default_na=False).to_csv(path.with_suffix(".pandas"), index=False)


def polars_read_write(root: Path) -> None:
    import polars as pl

    path = root / "metadata/images.csv"
    pl.read_csv(path, infer_schema=False).write_csv(path.with_suffix(".polars"))


MEASURED: dict[str, Callable[[Path], None]] = {
    "pandas: read, write": pandas_read_write,
    "Polars: read, write": polars_read_write,
    "ledger: open": open_ledger,
    f"ledger: journal and merge {RESULTS_PER_MERGE:,} results": merge_results,
    "ledger: replay a result for every row": replay_all,
}


def measure(name: str, root: Path) -> None:
    """Run one measurement here and print seconds and peak memory as JSON."""
    began = time.perf_counter()
    MEASURED[name](root)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


def run_apart(arguments: Sequence[object]) -> str:
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    words = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(words, env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout


def bench(rows: int, rounds: int, folder: Path) -> None:
    """Measure everything on one size, rounds interleaved, and print a table."""
    original = folder / f"{rows}"
    run_apart(["--make", original, "--rows", rows])
    size = (original / "metadata/images.csv").stat().st_size
    times: dict[str, list[float]] = {name: [] for name in MEASURED}
    peaks: dict[str, float] = {}
    for _ in range(rounds):
        for name in MEASURED:
            root = folder / "copy"
            shutil.copytree(original, root)
            if "replay" in name:
                run_apart(["--journal", root, "--rows", rows])
            found = json.loads(run_apart(["--measure", name, "--root", root]))
            times[name].append(found["seconds"])
            peaks[name] = max(peaks.get(name, 0), found["peak"])
            shutil.rmtree(root)
    fastest = min(statistics.median(times[name]) for name in MEASURED if "read, write" in name)
    print(f"\n{rows:,} rows, {size / 2**20:,.0f} MiB\n")
    print("| what | seconds, median (least to most) | of the fastest read and write | peak memory | of the file |")
    print("| --- | --- | --- | --- | --- |")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(
            f"| {name} | {middle:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {middle / fastest:.2f} "
            f"| {peaks[name] / 2**20:,.0f} MiB | {peaks[name] / size:.1f} |"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000], help="sizes of the ledger")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--journal", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=list(MEASURED), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.make:
        make_ledger(args.make, args.rows[0])
    elif args.journal:
        journal_results(args.journal, args.rows[0])
    elif args.measure:
        measure(args.measure, args.root)
    else:
        import pandas
        import polars

        print(f"Python {platform.python_version()}, pandas {pandas.__version__}, Polars {polars.__version__}, ", end="")
        print(f"{os.cpu_count()} cores, {platform.machine()}; {args.rounds} rounds")
        with tempfile.TemporaryDirectory() as folder:
            for rows in args.rows:
                bench(rows, args.rounds, Path(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
