"""The cost of the ledger: opening, merging a run's results, replaying a journal; compared with pandas and Polars.

    python benchmarks/ledger.py                            10,000 and 100,000 rows, three rounds
    python benchmarks/ledger.py --rows 10000 100000 1000000 --rounds 1

Every declared column is filled. Each measurement runs in its own process, so its peak memory is its own too.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.harness import Against, Bench, bench_main, peak_of
from benchmarks.markdown import mebibytes
from benchmarks.measuring import Sample, call_apart

RESULTS_PER_MERGE = 5_000


def make_ledger(root: Path, rows: int) -> None:
    """Write an images.csv of `rows` rows, with every declared column filled as in a finished dataset."""
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
    Ledger(root).begin()  # as after a merge


def open_ledger(root: Path) -> None:
    from pokefa.ledger.tables import Ledger

    Ledger.open(root).images.read_keyed()


def merge_results(root: Path, results: int = RESULTS_PER_MERGE) -> None:
    """Journal and merge `results` results, as a stage does periodically."""
    journal_results(root, results)
    replay_all(root)


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
    """Merge a journal with a result for every row, as left by a crash before the first merge."""
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


PANDAS, POLARS = "pandas: read, write", "Polars: read, write"
OPEN, REPLAY = "ledger: open", "ledger: replay a result for every row"
MERGE = f"ledger: journal and merge {RESULTS_PER_MERGE:,} results"
RIVALS = {PANDAS: pandas_read_write, POLARS: polars_read_write}
OURS: dict[str, Callable[[Path], None]] = {OPEN: open_ledger, MERGE: merge_results, REPLAY: replay_all}

# A merge may take three times as long as reading and writing the table with the fastest library.
MERGE_AT_LEAST = 1 / 3


def measure_one(name: str, original: Path, rows: int) -> Sample:
    root = original.with_name("copy")
    shutil.copytree(original, root)
    if name == REPLAY:
        call_apart(journal_results, root, rows)
    sample = call_apart((RIVALS | OURS)[name], root)
    shutil.rmtree(root)
    return sample


def measure(bench: Bench) -> None:
    sizes = [1_000, 10_000] if bench.quick else sorted(bench.args.rows)
    found: dict[int, dict[str, list[Sample]]] = {}
    for rows in sizes:
        original = bench.folder / f"{rows}"
        call_apart(make_ledger, original, rows)
        size = (original / "metadata/images.csv").stat().st_size
        found[rows] = bench.run({name: partial(measure_one, name, original, rows) for name in RIVALS | OURS})
        shutil.rmtree(original)
        print(f"\n### {rows:,} rows, {mebibytes(size)}")
        columns = {"memory of the file": lambda _, these, size=size: f"{peak_of(these) / size:.1f}"}
        bench.show_rates(found[rows], dict.fromkeys(found[rows], rows), "rows", columns)
    last = found[sizes[-1]]
    named = {name: f"{name}, {sizes[-1]:,} rows" if name in OURS else name for name in last}
    samples = {named[name]: these for name, these in last.items()}
    against = [
        Against(named[ours], rival, MERGE_AT_LEAST if (ours, rival) == (MERGE, POLARS) else None)
        for ours in OURS
        for rival in RIVALS
    ]
    bench.compare(samples, dict.fromkeys(samples, 1), against)
    bench.rate("ledger: merge", sizes[-1], last[MERGE])
    for name in OURS:
        bench.note(named[name], POLARS, peak_of(last[name]) / peak_of(last[POLARS]), of="memory")
        if len(sizes) > 1:
            bench.grow(name, {rows: found[rows][name] for rows in sizes})


if __name__ == "__main__":
    sizes = {"type": int, "nargs": "+", "default": [10_000, 100_000], "metavar": "N", "help": "sizes of the ledger"}
    packages = ["pandas", "polars"]
    raise SystemExit(bench_main(__doc__, "The ledger", measure, packages=packages, rounds=3, flags={"--rows": sizes}))
