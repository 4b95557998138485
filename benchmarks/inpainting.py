"""What painting over text costs: crop by crop, as ocr_pipeline.py does it, beside the whole image in one call.

    python benchmarks/inpainting.py                          1024 and 2048 px: about four minutes
    python benchmarks/inpainting.py --sizes 1024 1536 2048 --blocks 18 --rounds 3
    python benchmarks/inpainting.py --part cases --picture cases.png

The trained weights of LaMa are not needed: the network has the layers and sizes of the paper, and random weights. It
takes as long and as much memory, and fills holes with noise. Every measurement is a process in the environment of the
stage, which is built on first use. Writes Markdown to stdout. Run it in the environment of
requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless that holds the project.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.findings import Findings
from benchmarks.measuring import (
    Sample,
    bench_parser,
    interleaved,
    machine,
    mebibytes,
    peak_of,
    run_apart,
    seconds_of,
    spread,
    stage_python,
    table,
    tell,
)

PARTS = ("speed", "png", "cases")
SHARES = (0.01, 0.05, 0.20)
WANTED = {0.01: 5.0}  # times as fast, at least, on pictures of 1024 to 2048 px
WANTED_FROM_PX = 1024


def run_task(task: str, **flags: object) -> Sample:
    """Run one piece of work in the stage's environment; its result is a dictionary."""
    words: list[object] = [stage_python("ocr"), "-m", "benchmarks.inpainting_task", task]
    for name, value in flags.items():
        words += [f"--{name}", value]
    return run_apart(words)


def paint(**flags: object) -> Sample:
    """Paint over the text of one picture; the seconds are without start-up, loading and drawing."""
    sample = run_task("paint", **flags)
    return replace(sample, seconds=sample.result["seconds"])


def print_speed(weights: Path, sizes: Sequence[int], threads: int, rounds: int, findings: Findings) -> None:
    common: Mapping[str, object] = {"weights": weights, "threads": threads}
    loaded = paint(way="load", size=sizes[0], share=SHARES[0], **common)
    print(f"A process that has loaded the network and paints nothing holds {mebibytes(loaded.peak)} at most.")
    heads = ["picture", "masked", "how", "crops", "megapixels computed", "seconds, median (least to most)"]
    heads += ["peak memory", "times as fast", "of the memory", "wanted"]
    for size in sizes:
        runs = {"whole": partial(paint, way="whole", size=size, share=SHARES[0], **common)}
        runs |= {f"{share}": partial(paint, way="crops", size=size, share=share, **common) for share in SHARES}
        samples = interleaved(rounds, runs)
        whole = samples.pop("whole")
        rows = [row_of(f"{size} × {size}", "any", "whole image", whole)]
        for share, these in zip(SHARES, samples.values(), strict=True):
            masked = f"{these[0].result['masked']:.0%}"
            faster, memory = seconds_of(whole) / seconds_of(these), peak_of(these) / peak_of(whole)
            wanted = WANTED.get(share) if size >= WANTED_FROM_PX else None
            row = row_of("", masked, "crops", these)[:-3]
            rows.append([*row, f"{faster:.1f}", f"{memory:.2f}", "" if wanted is None else f"{wanted:g}"])
            ours = f"inpainting by crops, {masked} of {size} px masked"
            findings.compare(ours, "the whole image in one call", faster, wanted=wanted)
            findings.compare(ours, "the whole image in one call", memory, of="memory")
            findings.rate(f"inpaint, {masked} of {size} px", 1 / seconds_of(these), threads, peak_of(these))
        print(table(heads, rows), end="", flush=True)


def row_of(picture: str, masked: str, how: str, samples: Sequence[Sample]) -> list[object]:
    """Return a row of the table, the last three cells of which are empty."""
    result: dict[str, Any] = samples[0].result
    seconds = spread(sample.seconds for sample in samples)
    megapixels = f"{result['computed'] / 1e6:.2f}"
    return [picture, masked, how, result["crops"], megapixels, seconds, mebibytes(peak_of(samples)), "", "", ""]


def print_levels(rounds: int) -> None:
    """Show what the levels of PNG's compression cost."""
    samples = interleaved(rounds, {"png": partial(run_task, "levels")})["png"]
    rows = []
    for level in samples[0].result:
        written, read, size = zip(*(sample.result[level] for sample in samples), strict=True)
        least = statistics.median(written) / statistics.median(sample.result["6"][0] for sample in samples)
        larger = size[0] / samples[0].result["6"][2]
        rows.append([level, spread(written), f"{least:.2f}", f"{size[0]:,}", f"{larger:.2f}", spread(read)])
    print("\n### PNG levels: a drawn picture with grain, 2048 × 1536; the stage writes level 3")
    heads = ["level", "seconds to write", "of level 6", "bytes", "of level 6", "seconds to read"]
    print(table(heads, rows), end="")


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=1)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=("speed", "png"), help="only these parts")
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[1024, 2048], metavar="PX", help="sides of the pictures"
    )
    parser.add_argument("--blocks", type=int, default=9, metavar="N", help="18: Big LaMa; 9: LaMa-Fourier (default)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads for the network (default: 1)")
    parser.add_argument("--picture", type=Path, default=Path("cases.png"), metavar="FILE", help="where `cases` goes")
    args = parser.parse_args(argv)
    print("## Inpainting\n")
    print("`python benchmarks/inpainting.py`: the same network paints over the same text, crop by crop and in one call")
    print("on the whole image. It has LaMa's layers and random weights: only time and memory mean anything.\n")
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "network.pt"
        blocks = 1 if args.quick else args.blocks
        weights = run_task("weights", weights=network, blocks=blocks).result["weights"]
        print(f"{machine()}; {blocks} blocks, {weights / 1e6:.1f} million weights; threads: {args.threads};")
        print(f"rounds: {args.rounds}.\n")
        for part in args.part:
            tell(f"part {part}")
            if part == "speed":
                print_speed(network, [512] if args.quick else args.sizes, args.threads, args.rounds, findings)
            elif part == "png":
                print_levels(args.rounds)
            else:
                run_task("cases", picture=args.picture.absolute())
                print("\n### Ten drawn cases: before, mask, after with the demo's stand-in for LaMa, after with OpenCV")
                print(f"\n{args.picture}")
    findings.close(args.findings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
