"""What the NSFW stage's worker costs: images per second, from file to score, beside the bare model on ready arrays.

    python benchmarks/nsfw.py                              batches of 1, 8 and 32: five minutes on two cores
    python benchmarks/nsfw.py --batch 8 --rounds 3

The model is a DeepDanbooru project with the real v3 layers, 9,176 tags and random weights, which cost what trained ones
do; the pictures are drawn JPEGs of about a megapixel. Every measurement runs in a process of its own, in the nsfw
stage's environment, and leaves its start-up out. The bare model is left out where memory does not suffice for it: it
needs more than a gigabyte for every image of a batch. Writes Markdown to stdout. Run it in the environment of
requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless that holds the project.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from benchmarks.findings import Findings
from benchmarks.measuring import (
    Sample,
    bench_parser,
    interleaved,
    machine,
    mebibytes,
    peak_of,
    run_apart,
    spread,
    stage_python,
    table,
    tell,
)
from pokefa.machine import available_cores
from pokefa.setup.environments import environment

BARE = "bare `model(x)` on ready arrays"
COMPILED = "the same in tf.function"
WORKER = "the stage's worker, from files"
PROGRAMS = {BARE: "eager", COMPILED: "compiled", WORKER: "worker"}
WANTED = 0.9
BATCHES = (1, 8, 32)
LEAST = 8

# What `model(x)` held at batches of 1 and 8, and a little more, for each image.
BARE_BYTES = 3 * 2**29


def measure(python: str, project: Path, program: str, batch: int, images: int) -> Sample:
    """Run one program; the result is its images per second."""
    words = [python, "-m", "benchmarks.nsfw_programs", program, project, "--batch", batch, "--images", images]
    sample = run_apart(words)
    return replace(sample, result=images / sample.result["seconds"])


def print_batch(
    batch: int, images: Mapping[str, int], samples: Mapping[str, Sequence[Sample]], findings: Findings
) -> None:
    rates = {name: statistics.median(sample.result for sample in these) for name, these in samples.items()}
    rows = [
        [
            name,
            images[name],
            spread((sample.result for sample in these), 3),
            f"{rates[WORKER] / rates[name]:.2f}" if name != WORKER else "",
            mebibytes(peak_of(these)),
        ]
        for name, these in samples.items()
    ]
    print(f"\n### Batches of {batch}")
    heads = ["what", "images", "images per second", f"the worker's over that (wanted: {WANTED:g})", "peak memory"]
    print(table(heads, rows), end="", flush=True)
    if BARE not in samples:
        print(f"\n{BARE}: not measured, memory would not suffice.")
    for name, rate in rates.items():
        if name != WORKER:
            findings.compare(f"NSFW screening, batches of {batch}", name, rates[WORKER] / rate, wanted=WANTED)
    peak = peak_of(samples[WORKER])
    findings.rate(f"nsfw_filter.py --batch-size {batch}", rates[WORKER], available_cores(), peak)


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=1)
    parser.add_argument(
        "--batch", type=int, nargs="+", default=BATCHES, metavar="N", help="images in one call (default: 1 8 32)"
    )
    args = parser.parse_args(argv)
    python = stage_python("nsfw")
    pinned = {line.partition("==")[0]: line for line in environment("nsfw").packages}
    print("## NSFW screening\n")
    print(
        "`python benchmarks/nsfw.py`: DeepDanbooru v3's layers with random weights, JPEGs of 1152 × 896; one worker on"
    )
    print("all cores. Model and process are warm when the clock starts.\n")
    print(f"{machine()}; {pinned['tensorflow-cpu']}, {pinned['keras']}; rounds: {args.rounds}")
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "v3"
        run_apart([python, "-m", "benchmarks.nsfw_programs", "build", project])
        for batch in [args.batch[0]] if args.quick else args.batch:
            tell(f"batches of {batch}")
            images = dict.fromkeys((BARE, COMPILED), max(batch, LEAST)) | {WORKER: max(2 * batch, LEAST)}
            runs = {
                name: partial(measure, python, project, program, batch, images[name])
                for name, program in PROGRAMS.items()
                if name != BARE or batch * BARE_BYTES < psutil.virtual_memory().available
            }
            print_batch(batch, images, interleaved(args.rounds, runs), findings)
    findings.close(args.findings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
