"""The cost of hashing images: phash.py compared with programs that only do Pillow's part, and a simple imagehash loop.

    python benchmarks/phash.py                      1,000 images, two rounds: about two minutes
    python benchmarks/phash.py --images 4000 --rounds 1

The images have the sizes of resize.py's output; of every ten seven are JPEGs, two PNGs and one WebP. phash.py runs as a
program on all cores. So do two bounds: one only decodes, the other also computes the 32 by 32 grey pixels of the hash's
definition, without hashing.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.datasets import decode_file, make_images, on_all_cores, write_ledger
from benchmarks.harness import Against, Bench, bench_main
from benchmarks.measuring import Sample, call_apart, run_apart, run_stage, stage_python

OURS = "phash.py"
VARIANTS = "phash.py --with-variants"
DECODE = "bound: only decode, all cores"
SHRINK = "bound: only decode, make grey, make 32 by 32, all cores"
LOOP = "imagehash.phash(Image.open(path)), one process"
LOOP_PROGRAM = """
import json, pathlib, sys, time
import imagehash
from PIL import Image
began = time.perf_counter()
for path in pathlib.Path(sys.argv[1]).iterdir():
    imagehash.phash(Image.open(path))
print(json.dumps({"seconds": time.perf_counter() - began}))
"""
GROWTH = (10, 100, 1_000)


def hash_all(root: Path, *flags: object) -> Sample:
    """Run phash.py on all images; then remove the results from the ledger."""
    ledger = root / "metadata/images.csv"
    before = ledger.read_bytes()
    sample = run_stage("dup", "preprocess/dup/phash.py", root, *flags)
    shutil.rmtree(root / "metadata/runs")
    ledger.write_bytes(before)
    return sample


def shrink_file(path: Path) -> None:
    with Image.open(path) as image:
        image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)


def measure(bench: Bench) -> None:
    count = 40 if bench.quick else bench.args.images
    images = bench.folder / "resized"
    call_apart(make_images, images, count)
    write_ledger(bench.folder, images, "path_resized")
    runs = {
        DECODE: partial(call_apart, on_all_cores, decode_file, images),
        SHRINK: partial(call_apart, on_all_cores, shrink_file, images),
        OURS: partial(hash_all, bench.folder),
        VARIANTS: partial(hash_all, bench.folder, "--with-variants"),
        LOOP: partial(run_apart, [stage_python("dup"), "-c", LOOP_PROGRAM, images]),
    }
    samples = bench.run(runs)
    counts = dict.fromkeys(runs, count)
    bench.show_rates(samples, counts, "images")
    against = [Against(OURS, other, bound=other != LOOP) for other in (DECODE, SHRINK, LOOP)]
    bench.compare(samples, counts, against, start_up=False)
    bench.rate(OURS, count, samples[OURS])
    if not bench.quick:
        bench.measure_growth(f"{OURS}, images", GROWTH, lambda size: hash_all(bench.folder, "--limit", size))


if __name__ == "__main__":
    flags = {"--images": {"type": int, "default": 1000, "metavar": "N", "help": "how many images"}}
    raise SystemExit(bench_main(__doc__, "Hashing", measure, packages=["pillow"], rounds=2, flags=flags))
