"""The cost of resizing: resize.py compared with simple loops, libvips, and a minimal program; and that of its encoders.

    python benchmarks/resize.py                     200 images, three rounds: about four minutes
    python benchmarks/resize.py --images 1000 --rounds 5

The files are drawn: six of ten are JPEGs, three PNGs and one WebP; three of ten are too small, four are kept and three
too large. All are complete programs, start-up included; those that take several times as long run once. The simple
loops open, resize and save every file in one process. The others use JPEG 95 4:4:4 and WebP 95 method 4 and write no
metadata. Only resize.py writes files that survive a power cut, handles orientations and profiles, and keeps the ledger.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import resize_programs as programs
from benchmarks.datasets import write_ledger
from benchmarks.harness import Against, Bench, bench_main
from benchmarks.markdown import table
from benchmarks.measuring import Sample, call_apart, call_in, run_stage

DIFFERENT = 50  # images drawn; the others are copies
TRIED = 5  # of each format, for the encoders

OURS = "resize.py"
ONE = "resize.py --workers 1"
STRONGEST = "plain loop, strongest compression"
DEFAULTS = "plain loop, Pillow's default levels"
VIPS = "libvips, all cores, kept files decoded"
VIPS_TUNED = "the same, PNGs at level 3 with the Average filter"
VIPS_COPIES = "libvips, all cores, kept files linked unseen"
BARE = "bound: bare Pillow, all cores"
# Goals for the ratios: ahead of the simple loops on two processes, and of libvips.
AGAINST = (
    Against(OURS, STRONGEST, 6.9),
    Against(OURS, DEFAULTS),
    Against(OURS, VIPS, 1.0),
    Against(OURS, VIPS_TUNED),
    Against(OURS, VIPS_COPIES),
    Against(OURS, BARE, bound=True),
)
GROWTH = (10, 100, 1_000)


def resize(source: Path, *flags: object) -> Sample:
    """Run resize.py on a separate dataset with the same files."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        root = Path(folder)
        (root / "raw/band").mkdir(parents=True)
        shutil.copytree(
            source, root / "raw/band/species", copy_function=lambda one, other: Path(other).hardlink_to(one)
        )
        write_ledger(root, root / "raw/band/species", "path_raw")
        return with_size(run_stage("resize", "preprocess/resize/resize.py", root, *flags), root / "data_stage")


def run_other(name: str, source: Path) -> Sample:
    """Run one of the other programs with an empty output folder."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        return with_size(call_in("benchmarks", "benchmarks.resize_programs.run", name, source, folder), Path(folder))


def with_size(sample: Sample, written: Path) -> Sample:
    """Return the sample with its program's number of images and their bytes, instead of the JSON that it printed."""
    size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
    return replace(sample, result=(sample.result["done"], size))


def print_encoders(results: Mapping[str, tuple[float, int, int]]) -> None:
    rows = [
        [name, f"{1e9 * seconds / pixels:,.0f}", f"{8 * size / pixels:.2f}"]
        for name, (seconds, size, pixels) in results.items()
    ]
    print(f"\n### Encoders: {TRIED} pictures of each format at 1024 × 1280, one process; the first of each is used")
    print(table(["encoder", "processor ms per megapixel", "bits per pixel"], rows), end="")


def measure(bench: Bench) -> None:
    count = 20 if bench.quick else bench.args.images
    source = bench.folder / "source"
    call_apart(programs.make_pictures, source, DIFFERENT, count)
    others = {VIPS: "vips", VIPS_TUNED: "vips-tuned", VIPS_COPIES: "vips-copying"}
    slow_others = {BARE: "bare", DEFAULTS: "plain-defaults", STRONGEST: "plain-strongest"}
    runs: dict[str, Callable[[], Sample]] = {OURS: partial(resize, source)}
    runs |= {name: partial(run_other, program, source) for name, program in others.items()}
    slow: dict[str, Callable[[], Sample]] = {
        ONE: partial(resize, source, "--workers", 1, "--limit", max(1, count // 4))
    }
    slow |= {name: partial(run_other, program, source) for name, program in slow_others.items()}
    samples = bench.run(runs) | bench.run(slow, rounds=1)
    counts = {name: these[0].result[0] for name, these in samples.items()}
    columns = {
        "processor ms per image": lambda name, these: f"{1000 * these[0].processor / counts[name]:,.0f}",
        "kB per image": lambda name, these: f"{these[0].result[1] / counts[name] / 1000:,.0f}",
    }
    bench.show_rates(samples, counts, "images", columns)
    bench.compare(samples, counts, AGAINST)
    bench.rate(OURS, counts[OURS], samples[OURS])
    print_encoders(call_apart(programs.try_encodings, source, 1 if bench.quick else TRIED).result)
    if not bench.quick:
        many = bench.folder / "many"
        call_apart(programs.make_pictures, many, DIFFERENT, GROWTH[-1])
        bench.measure_growth(f"{OURS}, images", GROWTH, lambda size: resize(many, "--limit", size))


if __name__ == "__main__":
    packages = ["pillow", "pyvips-binary", "zlib-ng"]
    flags = {"--images": {"type": int, "default": 200, "metavar": "N", "help": "how many images"}}
    raise SystemExit(bench_main(__doc__, "Resizing", measure, packages=packages, rounds=3, flags=flags))
