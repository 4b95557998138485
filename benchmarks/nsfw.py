"""The cost of the NSFW stage's worker: images per second, from file to score, compared with the bare model on arrays.

    python benchmarks/nsfw.py                              batches of 1, 8 and 32: five minutes on two cores
    python benchmarks/nsfw.py --batch 8 --rounds 3

The model is a DeepDanbooru project with the real v3 layers, 9,176 tags and random weights, which cost as much as
trained ones. The images are drawn JPEGs of about a megapixel. Every measurement runs in its own process, in the nsfw
stage's environment, with one worker on all cores; start-up is excluded from the comparison. The bare model is skipped
if memory does not suffice: it needs more than a gigabyte for every image of a batch.
"""

from __future__ import annotations

from functools import partial

import psutil

from benchmarks.harness import Against, Bench, bench_main, tell
from benchmarks.measuring import call_in

BARE = "bare `model(x)` on ready arrays"
COMPILED = "the same in tf.function"
PROGRAMS: dict[str, tuple[object, ...]] = {BARE: ("time_model",), COMPILED: ("time_model", True)}
WANTED = 0.9
LEAST = 8  # images
# Per image: what `model(x)` used at batches of 1 and 8, and a little more.
BARE_BYTES = 3 * 2**29


def measure(bench: Bench) -> None:
    project = bench.folder / "v3"
    call_in("nsfw", "benchmarks.nsfw_programs.build", project)
    for batch in [bench.args.batch[0]] if bench.quick else bench.args.batch:
        tell(f"batches of {batch}")
        ours = f"NSFW screening, batches of {batch}"
        counts = dict.fromkeys(PROGRAMS, max(batch, LEAST)) | {ours: max(2 * batch, LEAST)}
        runs = {
            name: partial(call_in, "nsfw", f"benchmarks.nsfw_programs.{function}", project, batch, counts[name], *more)
            for name, (function, *more) in (PROGRAMS | {ours: ("time_worker",)}).items()
            if name != BARE or batch * BARE_BYTES < psutil.virtual_memory().available
        }
        samples = bench.run(runs)
        print(f"\n### Batches of {batch}")
        bench.show_rates(samples, counts, "images")
        bench.compare(samples, counts, [Against(ours, name, WANTED) for name in PROGRAMS if name in runs], False)
        bench.rate(f"nsfw_filter.py --batch-size {batch}", counts[ours], samples[ours])


if __name__ == "__main__":
    batches = {"type": int, "nargs": "+", "default": [1, 8, 32], "metavar": "N", "help": "images in one call"}
    raise SystemExit(bench_main(__doc__, "NSFW screening", measure, flags={"--batch": batches}))
