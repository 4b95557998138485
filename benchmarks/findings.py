"""What a benchmark found, for the table over all of them: how it compares, how it grows, and how fast it is.

Every script prints its own section; with --findings FILE it also leaves these as JSON, for `benchmarks/run.py` and
`docs/scaling.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.measuring import Sample, exponent, interleaved, peak_of, seconds_of, table


@dataclass(frozen=True)
class Comparison:
    """Ours beside something else in the same run.

    Args:
        what: ours.
        beside: what a user would use instead, or what nothing can go beyond.
        ratio: how many times as fast as that ours is; with `of="memory"`, ours over theirs.
        bound: it is what nothing of its kind can go beyond: a decoder, the disk, a latency.
        wanted: what the ratio was to reach, None = nothing was set.
    """

    what: str
    beside: str
    ratio: float
    bound: bool = False
    wanted: float | None = None
    of: str = "speed"


@dataclass(frozen=True)
class Growth:
    """How cost grows with the size of the work: the exponents of the fits cost = c · size**k.

    Args:
        seconds: 1 is linear; None where it was not measured.
        memory: 0 is bounded; None where it was not measured.
    """

    what: str
    sizes: tuple[int, ...]
    seconds: float | None
    memory: float | None


@dataclass(frozen=True)
class Rate:
    """What one machine does, for reckoning how long many images take.

    Args:
        stage: the stage's environment or command.
        per_second: images in a second, start-up left out.
        cores: how many worked on it.
        peak: bytes of memory at most.
    """

    stage: str
    per_second: float
    cores: int
    peak: int


def growth_table(growths: Iterable[Growth]) -> str:
    """Return a Markdown table of exponents."""
    rows = [
        [growth.what, ", ".join(f"{size:,}" for size in growth.sizes), _power(growth.seconds), _power(growth.memory)]
        for growth in growths
    ]
    return table(["what", "sizes", "k of the seconds", "k of the peak memory"], rows)


def _power(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


@dataclass
class Findings:
    """Collects what one script found."""

    comparisons: list[Comparison] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)

    def compare(
        self,
        what: str,
        beside: str,
        ratio: float,
        *,
        bound: bool = False,
        wanted: float | None = None,
        of: str = "speed",
    ) -> None:
        self.comparisons.append(Comparison(what, beside, ratio, bound, wanted, of))

    def grow(
        self,
        what: str,
        sizes: Sequence[int],
        *,
        seconds: Sequence[float] | None = None,
        memory: Sequence[float] | None = None,
    ) -> None:
        """Fit the exponents. Costs stand in the order of `sizes`, at least two of them."""
        self.growths.append(
            Growth(
                what,
                tuple(sizes),
                None if seconds is None else exponent(sizes, seconds),
                None if memory is None else exponent(sizes, memory),
            )
        )

    def measure_growth(self, what: str, sizes: Sequence[int], measure: Callable[[int], Sample]) -> None:
        """Measure once at each size, and fit both exponents."""
        samples = interleaved(1, {f"{what}: {size:,}": partial(measure, size) for size in sizes})
        seconds = [seconds_of(these) for these in samples.values()]
        self.grow(what, sizes, seconds=seconds, memory=[peak_of(these) for these in samples.values()])

    def rate(self, stage: str, per_second: float, cores: int, peak: int) -> None:
        self.rates.append(Rate(stage, per_second, cores, peak))

    def close(self, path: Path | None) -> None:
        """Print how cost grows, and write everything to `path`, if there is one."""
        if self.growths:
            print("\n### Growth: cost = c · size^k")
            print(growth_table(self.growths), end="")
        if path is not None:
            path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
