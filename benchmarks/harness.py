"""The base of every benchmark script: its flags, rounds, tables, and findings for the combined page.

A script prints one Markdown section to stdout, and its progress to stderr. With --findings FILE it also writes its
findings as JSON, for `benchmarks/run.py` and `benchmarks/scaling.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.markdown import mebibytes, plain, spread, table
from benchmarks.measuring import Sample

EPILOG = """\
Writes Markdown to stdout. Run it in the environment of requirements/requirements_benchmarks.txt where nothing else is
said, with PYTHONPATH=. unless that holds the project, on a machine that does nothing else."""

Runs = Mapping[str, Callable[[], Sample]]
Samples = Mapping[str, Sequence[Sample]]
Columns = Mapping[str, Callable[[str, Sequence[Sample]], str]]


@dataclass(frozen=True)
class Comparison:
    """Ours compared with something else in the same run.

    Args:
        what: ours.
        beside: what a user would use instead, or an upper bound.
        ratio: ours is this many times as fast; with `of="memory"`, our memory divided by theirs.
        bound: whether it is an upper bound that nothing can exceed: a decoder, the disk, a latency.
        wanted: the goal for the ratio; None = no goal.
    """

    what: str
    beside: str
    ratio: float
    bound: bool = False
    wanted: float | None = None
    of: str = "speed"


@dataclass(frozen=True)
class Growth:
    """How the cost grows with size: the exponents k of the fits cost = c · size**k.

    Args:
        seconds: 1 is linear.
        memory: 0 is bounded.
    """

    what: str
    sizes: tuple[int, ...]
    seconds: float | None
    memory: float | None


@dataclass(frozen=True)
class Rate:
    """The measured speed of a stage, to estimate larger datasets.

    Args:
        stage: the stage's environment or command.
        per_second: images per second, without start-up.
        cores: the number used.
        peak: peak memory in bytes.
    """

    stage: str
    per_second: float
    cores: int
    peak: int


class Against(NamedTuple):
    """A comparison to make: see Comparison."""

    what: str
    beside: str
    wanted: float | None = None
    bound: bool = False


class Bench:
    """One run of a script: its flags, a temporary folder, and its findings."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.quick: bool = args.quick
        self.comparisons: list[Comparison] = []
        self.growths: list[Growth] = []
        self.rates: list[Rate] = []

    def run(self, runs: Runs, rounds: int | None = None) -> dict[str, list[Sample]]:
        """Run each once per round, so that a slow minute of the machine affects all of them."""
        samples: dict[str, list[Sample]] = {name: [] for name in runs}
        rounds = rounds or self.args.rounds
        for number in range(1, rounds + 1):
            for name, run in runs.items():
                samples[name].append(run())
                tell(f"round {number} of {rounds}: {name}: {samples[name][-1].seconds:.2f} s")
        return samples

    def show_rates(
        self, samples: Samples, counts: Mapping[str, int], unit: str, columns: Columns | None = None
    ) -> None:
        """Print the rate of each per second, with and without start-up, and the script's own columns."""
        shown: dict[str, Callable[[str, Sequence[Sample]], str]] = {
            unit: lambda name, _: f"{counts[name]:,}",
            f"{unit} per second, median (least to most)": lambda name, these: spread(
                counts[name] / sample.seconds for sample in these
            ),
        }
        if have_start_up(samples):
            shown["without start-up"] = lambda name, these: spread(counts[name] / sample.working for sample in these)
        shown |= {**(columns or {}), "peak memory": lambda _, these: mebibytes(peak_of(these))}
        rows = [[name, *(column(name, these) for column in shown.values())] for name, these in samples.items()]
        print(table(["what", *shown], rows), end="", flush=True)

    def compare(
        self, samples: Samples, counts: Mapping[str, int], pairs: Iterable[Against], start_up: bool = True
    ) -> None:
        """Print and record how many times as fast one is as another, by the medians of the rounds.

        Args:
            start_up: whether the recorded ratio includes start-up.
        """
        rows = []
        clocks = ("seconds", "working") if have_start_up(samples) else ("seconds",)
        for what, beside, wanted, bound in pairs:
            took = [
                [statistics.median(getattr(one, clock) for one in samples[name]) / counts[name] for clock in clocks]
                for name in (beside, what)
            ]
            ratios = [theirs / mine for theirs, mine in zip(*took, strict=True)]
            rows.append([what, beside, *(f"{ratio:.2f}" for ratio in ratios), plain(wanted)])
            self.note(what, beside, ratios[0 if start_up else -1], wanted, bound)
        heads = ["speed of", "over that of", "ratio", *["without start-up"][: len(clocks) - 1], "wanted at least"]
        print(table(heads, rows), end="")

    def note(
        self, what: str, beside: str, ratio: float, wanted: float | None = None, bound: bool = False, of: str = "speed"
    ) -> None:
        self.comparisons.append(Comparison(what, beside, ratio, bound, wanted, of))

    def rate(self, stage: str, count: int, samples: Sequence[Sample], cores: int | None = None) -> None:
        """Record a stage's images per second."""
        seconds = statistics.median(sample.working for sample in samples)
        self.rates.append(Rate(stage, count / seconds, cores or os.cpu_count() or 1, peak_of(samples)))

    def grow(self, what: str, samples: Mapping[int, Sequence[Sample]]) -> None:
        """Fit the exponents of seconds and memory to samples by size; needs at least two sizes."""
        sizes = tuple(samples)
        costs = [seconds_of(these) for these in samples.values()], [peak_of(these) for these in samples.values()]
        self.growths.append(Growth(what, sizes, *(exponent(sizes, cost) for cost in costs)))

    def measure_growth(self, what: str, sizes: Sequence[int], measure: Callable[[int], Sample]) -> None:
        """Measure once at each size, and fit both exponents."""
        samples = self.run({f"{what}: {size:,}": partial(measure, size) for size in sizes}, rounds=1)
        self.grow(what, dict(zip(sizes, samples.values(), strict=True)))

    def close(self) -> None:
        """Print the growth of cost, and write the findings to the file of --findings."""
        if self.growths:
            print(f"\n### Growth: cost = c · size^k\n{growth_table(self.growths)}", end="")
        if self.args.findings:
            lists = {name: [asdict(one) for one in getattr(self, name)] for name in ("comparisons", "growths", "rates")}
            self.args.findings.write_text(json.dumps(lists, indent=1) + "\n", encoding="utf-8")


def bench_main(
    doc: str | None,
    title: str,
    measure: Callable[[Bench], None],
    *,
    packages: Sequence[str] = (),
    rounds: int = 1,
    flags: Mapping[str, Any] | None = None,
) -> int:
    """Parse the flags, print the section's head, and measure.

    Args:
        doc: the script's docstring: its commands appear in --help, its other paragraphs also begin the section.
        packages: distributions whose versions the section names.
        rounds: the default of --rounds.
        flags: more flags, with the arguments of `add_argument` for each.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, epilog=EPILOG, formatter_class=raw)
    often = {"type": int, "default": rounds, "metavar": "N", "help": "how often each is measured"}
    for name, options in {"--rounds": often, **(flags or {})}.items():
        default = " (default: %(default)s)" if "default" in options else ""
        parser.add_argument(name, **{**options, "help": options["help"] + default})
    parser.add_argument("--quick", action="store_true", help="small sizes, only to check that it works")
    parser.add_argument("--findings", type=Path, metavar="FILE", help="also write the findings as JSON")
    args = parser.parse_args()
    paragraphs = [one for one in (doc or "").strip().split("\n\n") if not re.match(" +python", one)]
    about = "\n\n".join(paragraphs[1:] or paragraphs)
    print(f"## {title}\n\n`{' '.join(['python', *sys.argv[:1]])}`: {paragraphs[0]}\n")
    print(f"{about}\n\n{machine(*packages)}; rounds: {args.rounds}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        measure(bench)
    bench.close()
    return 0


def have_start_up(samples: Samples) -> bool:
    """Tell whether one of them has its own clock."""
    return any(sample.working != sample.seconds for these in samples.values() for sample in these)


def growth_table(growths: Iterable[Growth]) -> str:
    """Return a Markdown table of exponents."""
    rows = [
        [
            one.what,
            ", ".join(f"{size:,}" for size in one.sizes),
            *("" if k is None else f"{k:.2f}" for k in (one.seconds, one.memory)),
        ]
        for one in growths
    ]
    return table(["what", "sizes", "k of the seconds", "k of the peak memory"], rows)


def machine(*distributions: str) -> str:
    """Return one line about the machine: Python, the named packages, and the cores."""
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in distributions)]
    return f"{', '.join(versions)}; {os.cpu_count() or 1} cores, {platform.machine()}, {platform.system()}"


def tell(text: str) -> None:
    """Report progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def seconds_of(samples: Iterable[Sample]) -> float:
    return statistics.median(sample.seconds for sample in samples)


def peak_of(samples: Iterable[Sample]) -> int:
    """Return the largest peak, in bytes."""
    return max(sample.peak for sample in samples)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return k of the fit cost = c · size**k, least squares on logarithms: 1 is linear, 0 is flat."""
    slope, _ = statistics.linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs])
    return slope
