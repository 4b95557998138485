"""Runs all benchmarks, and writes the table of costs.

    python benchmarks/run.py                       all of them: under 30 minutes on two cores
    python benchmarks/run.py ledger resize         only these; the others keep what was found last
    python benchmarks/run.py --longer              larger sizes of three of them: ten minutes
    python benchmarks/run.py --quick --out /tmp/results

Writes benchmarks/results/RESULTS.md from benchmarks/results/results.json. docs/costs.md shows the rows with a goal.
--longer writes benchmarks/results/LONGER.md instead, with sizes that do not fit into half an hour. Each script runs in
the environment that it needs, which is built on first use. Run this one in that of
requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless that holds the project, on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, Growth, growth_table, tell
from benchmarks.markdown import fill_page, plain, table
from benchmarks.measuring import stage_python
from pokefa.errors import PokefaError
from pokefa.files import replacing
from pokefa.setup.environments import CHECKOUT
from pokefa.setup.runner import checkout_variables

RESULTS = CHECKOUT / "benchmarks/results"

HEAD = """\
# What things cost

Measured by the scripts of `benchmarks/`, each thing beside what a user would use instead, and beside what bounds it, in
one run. Compare the ratios, not the seconds. `benchmarks/run.py` writes this page: in the environment `benchmarks`,
with `PYTHONPATH=.`, on a machine that does nothing else. Larger sizes of some are in [LONGER.md](LONGER.md).
"""

LONGER_HEAD = """\
# What larger sizes cost

Ten million hashes, where the search for near-duplicates stops paying, text detection on the whole labelled set, and
inpainting of large pictures: `benchmarks/run.py --longer` writes this page, as RESULTS.md beside it in one run.
"""


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder, its flags for a run of a few minutes, and its environment."""

    name: str
    flags: tuple[str, ...] = ()
    environment: str = "benchmarks"


BENCHMARKS = (
    Benchmark("ledger", ("--rows", "10000", "100000", "1000000", "--rounds", "1")),
    Benchmark("scraping", ("--images", "1000")),
    Benchmark("nsfw"),
    Benchmark("text_detection", ("--pictures", "40", "--rounds", "2")),
    Benchmark("inpainting", ("--sizes", "1024")),
    Benchmark("resize"),
    Benchmark("asking", ("--seconds", "8")),
    Benchmark("phash"),
    Benchmark("near_duplicates", ("--part", "rivals", "search", "decisions"), "benchmarks_near_duplicates"),
    Benchmark("species_matching", ("--quick",), "benchmarks_species_matching"),
    Benchmark("shards"),
)


# Larger sizes than fit into the half hour of the full run; their figures are on a separate page.
LONGER = (
    Benchmark(
        "near_duplicates",
        ("--part", "search", "limits", "--full", "--thresholds", "3", "6"),
        "benchmarks_near_duplicates",
    ),
    Benchmark("text_detection", ("--pictures", "200", "--part", "settings")),
    Benchmark("inpainting", ("--sizes", "2048")),
)


def run_benchmark(benchmark: Benchmark, *, quick: bool) -> dict[str, Any]:
    """Run a script; return its Markdown section, its findings, and the seconds it took.

    Raises:
        PokefaError: it failed; its stderr was passed on.
    """
    with tempfile.TemporaryDirectory() as folder:
        findings = Path(folder) / "findings.json"
        flags = ["--quick"] if quick else list(benchmark.flags)
        began = time.perf_counter()
        done = subprocess.run(
            [stage_python(benchmark.environment), f"benchmarks/{benchmark.name}.py", *flags, "--findings", findings],
            cwd=CHECKOUT,
            env=checkout_variables(),
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise PokefaError(f"benchmarks/{benchmark.name}.py ended with exit code {done.returncode}: see above")
        seconds = time.perf_counter() - began
        found: dict[str, Any] = json.loads(findings.read_text(encoding="utf-8"))
    return {"seconds": round(seconds), "section": done.stdout.strip(), **found}


def longer_page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return LONGER.md: each script's own section."""
    return "".join([LONGER_HEAD, *(f"\n{result['section']}\n" for result in results.values())])


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return RESULTS.md: the comparisons, the growth, then each script's own section."""
    parts = [HEAD, "\n## In short\n", comparison_table(comparisons(results))]
    growths = [Growth(**growth) for result in results.values() for growth in result["growths"]]
    parts += ["\n## How cost grows: cost = c · size^k\n", "\nFor seconds 1 is linear, for memory 0 is bounded.\n"]
    parts += [growth_table(growths)]
    parts += [f"\n{result['section']}\n" for result in results.values()]
    took = ", ".join(f"{name} {result['seconds']}" for name, result in results.items())
    total = sum(result["seconds"] for result in results.values())
    return "".join([*parts, f"\n## Seconds that each took\n\n{took}; together {total / 60:.0f} minutes.\n"])


def comparisons(results: Mapping[str, Mapping[str, Any]]) -> list[Comparison]:
    return [Comparison(**comparison) for result in results.values() for comparison in result["comparisons"]]


def comparison_table(found: Sequence[Comparison]) -> str:
    """Return the comparisons as a Markdown table: speed as theirs over ours in seconds, memory as ours over theirs."""
    rows = []
    for one in found:
        unit = "of its memory" if one.of == "memory" else "of the bound" if one.bound else "times as fast"
        rows.append(
            [
                one.what,
                one.beside,
                f"{one.ratio:,.2f}" if one.ratio < 10 else f"{one.ratio:,.0f}",
                unit,
                plain(one.wanted),
            ]
        )
    return table(["ours", "beside", "ratio", "", "wanted at least"], rows)


def write(path: Path, text: str) -> None:
    with replacing(path) as stream:
        stream.write(text.encode())


def measure(out: Path, chosen: Sequence[str], *, quick: bool) -> None:
    """Run the chosen benchmarks, or all; write RESULTS.md, and the table of docs/costs.md unless `out` is elsewhere.

    Raises:
        PokefaError: a benchmark failed; the earlier results are written.
        InputError: docs/costs.md has no place for its table.
    """
    names = [benchmark.name for benchmark in BENCHMARKS]
    stored = out / "results.json"
    results = json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
    for benchmark in BENCHMARKS:
        if chosen and benchmark.name not in chosen:
            continue
        tell(f"== {benchmark.name}")
        results[benchmark.name] = run_benchmark(benchmark, quick=quick)
        ordered = {name: results[name] for name in names if name in results}
        write(stored, json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")  # after each: the next may take long
        write(out / "RESULTS.md", page(ordered))
    if out == RESULTS:
        goals = [one for one in comparisons(results) if one.wanted is not None]
        fill_page(CHECKOUT / "docs/costs.md", "benchmarks/run.py", comparison_table(goals))


def measure_longer(out: Path, *, quick: bool) -> None:
    """Run the benchmarks with larger sizes, and write LONGER.md.

    Raises:
        PokefaError: a benchmark failed; the page holds the earlier ones.
    """
    found = {}
    for benchmark in LONGER:
        tell(f"== {benchmark.name}")
        found[benchmark.name] = run_benchmark(benchmark, quick=quick)
        write(out / "LONGER.md", longer_page(found))


def main(argv: Sequence[str] | None = None) -> int:
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(names)} (default: all)")
    parser.add_argument("--longer", action="store_true", help="larger sizes of some of them, for LONGER.md")
    parser.add_argument("--quick", action="store_true", help="small sizes, only to check that all of them work")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of RESULTS.md, results.json")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in names]:
        parser.error(f"there is no benchmark {unknown[0]!r}: choose from {', '.join(names)}")
    if args.quick and args.out == RESULTS:
        parser.error("--quick measures nothing worth keeping: give another folder with --out")
    if args.longer and args.names:
        parser.error("--longer runs all that it has: leave out the names")
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        if args.longer:
            measure_longer(args.out, quick=args.quick)
        else:
            measure(args.out, args.names, quick=args.quick)
    except PokefaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
