"""The cost of painting over text: in crops, as ocr_pipeline.py does it, compared with the entire image in one call.

    python benchmarks/inpainting.py                          1024 and 2048 px: about four minutes
    python benchmarks/inpainting.py --sizes 1024 1536 2048 --blocks 18 --rounds 3

The trained weights of LaMa are not needed: the network has the layers and sizes of the paper, with random weights. It
takes the same time and memory, and fills holes with noise. Every measurement is a process in the environment of the
stage, which is built on first use. The seconds exclude start-up, loading and drawing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.harness import Against, Bench, bench_main, peak_of
from benchmarks.measuring import Sample, call_in

SHARES = (0.01, 0.05, 0.20)
WANTED = {0.01: 5.0}  # minimum speed-up on images of 1024 to 2048 px
WANTED_FROM_PX = 1024
WHOLE = "the whole image in one call"


def call(function: str, *arguments: object) -> Sample:
    """Call a function in the stage's environment; the seconds only cover the work itself."""
    sample = call_in("ocr", f"benchmarks.inpainting_task.{function}", *arguments)
    return replace(sample, seconds=sample.working)


def measure(bench: Bench) -> None:
    args, network = bench.args, bench.folder / "network.pt"
    blocks = 1 if bench.quick else args.blocks
    weights = call("write_weights", network, blocks).result["weights"]
    print(f"\n{blocks} blocks, {weights / 1e6:.1f} million weights; threads: {args.threads}.")
    for size in [512] if bench.quick else args.sizes:
        paint = partial(call, "paint", network, args.threads)
        names = {share: f"inpainting by crops, {share:.0%} of {size} px masked" for share in SHARES}
        runs = {WHOLE: partial(paint, "whole", size, SHARES[0])}
        runs |= {name: partial(paint, "crops", size, share) for share, name in names.items()}
        samples = bench.run(runs)
        counts = dict.fromkeys(runs, 1)
        print(f"\n### {size} × {size}")
        columns = {
            "crops": lambda _, these: str(these[0].result["crops"]),
            "megapixels computed": lambda _, these: f"{these[0].result['computed'] / 1e6:.2f}",
        }
        bench.show_rates(samples, counts, "pictures", columns)
        goals = WANTED if size >= WANTED_FROM_PX else {}
        bench.compare(samples, counts, [Against(name, WHOLE, goals.get(share)) for share, name in names.items()])
        for share, name in names.items():
            bench.note(name, WHOLE, peak_of(samples[name]) / peak_of(samples[WHOLE]), of="memory")
            bench.rate(f"inpaint, {share:.0%} of {size} px", 1, samples[name], args.threads)


if __name__ == "__main__":
    flags = {
        "--sizes": {
            "nargs": "+",
            "type": int,
            "default": [1024, 2048],
            "metavar": "PX",
            "help": "sides of the pictures",
        },
        "--blocks": {"type": int, "default": 9, "metavar": "N", "help": "18: Big LaMa; 9: LaMa-Fourier"},
        "--threads": {"type": int, "default": 1, "metavar": "N", "help": "threads for the network"},
    }
    raise SystemExit(bench_main(__doc__, "Inpainting", measure, flags=flags))
