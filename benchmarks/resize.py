"""What resizing costs: resize.py beside plain loops, libvips, and a bare program; and what its encoders cost.

    python benchmarks/resize.py                     200 images, three rounds: about four minutes
    python benchmarks/resize.py --images 1000 --rounds 5

The files are drawn: six of ten are JPEGs, three PNGs and one a WebP; three of ten are too small, four are kept and
three too large. resize.py runs as a program, start-up included; programs that take several times as long run once.
Writes Markdown to stdout. Run it in the environment of requirements/requirements_benchmarks.txt, with PYTHONPATH=.
unless that holds the project.
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import resize_programs as programs
from benchmarks.findings import Findings
from benchmarks.measuring import (
    Sample,
    bench_parser,
    call_apart,
    cores,
    interleaved,
    machine,
    mebibytes,
    peak_of,
    run_apart,
    spread,
    stage_python,
    table,
)

DIFFERENT = 50  # pictures that are drawn; the others are copies
TRIED = 5  # of each format, for the encoders

OURS = "resize.py"
ONE = "resize.py --workers 1"
STRONGEST = "plain loop, strongest compression"
DEFAULTS = "plain loop, Pillow's default levels"
VIPS = "libvips, all cores, kept files decoded"
VIPS_TUNED = "the same, PNGs at level 3 with the Average filter"
VIPS_COPIES = "libvips, all cores, kept files linked unseen"
BARE = "bound: bare Pillow, all cores"

# What the ratio to each was to reach: ahead of the plain loops' best two processes, and of libvips.
WANTED = {STRONGEST: 6.9, VIPS: 1.0}
GROWTH = (10, 100, 1_000)


@dataclass(frozen=True)
class Work:
    """What one program did: how many images, in how many seconds by its own clock, and the bytes of the results."""

    images: int
    seconds: float
    written: int


def write_ledger(root: Path) -> None:
    """Write a ledger in which every file of raw/band/species waits to be resized."""
    (root / "metadata").mkdir()
    decided = {"is_nsfw": "False", "nsfw_override": "", "has_ocr": "False", "ocr_override": ""}
    decided["ocr_inpainted_path"] = ""
    with (root / "metadata/images.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["image_id", "path_raw", *decided])
        writer.writeheader()
        for path in sorted((root / "raw/band/species").iterdir()):
            writer.writerow({"image_id": f"{int(path.stem):032x}", "path_raw": path.relative_to(root)} | decided)


def resize(root: Path, *flags: object) -> Sample:
    """Run resize.py on a dataset of its own, with the same files."""
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        own = Path(folder)
        (own / "raw").symlink_to(root / "raw")
        write_ledger(own)
        sample = run_apart([stage_python("resize"), "preprocess/resize/resize.py", "--root", own, "--quiet", *flags])
        if sample.result["errors"]:
            raise RuntimeError(f"{sample.result['errors']} images could not be resized")
        return with_work(sample, own / "data_stage")


def run_other(name: str, root: Path) -> Sample:
    """Run one of the other programs with an empty folder for its results."""
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        source = root / "raw/band/species"
        return with_work(
            run_apart([sys.executable, "-m", "benchmarks.resize_programs", name, source, folder]), Path(folder)
        )


def with_work(sample: Sample, written: Path) -> Sample:
    """Return the sample with what its program did in place of the JSON that it printed."""
    return replace(sample, result=Work(sample.result["done"], sample.result["seconds"], size_of(written)))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def print_speed(samples: Mapping[str, Sequence[Sample]], findings: Findings) -> None:
    def rate(name: str) -> float:
        return statistics.median(sample.result.images / sample.seconds for sample in samples[name])

    rows = [
        [
            name,
            these[0].result.images,
            spread((sample.result.images / sample.seconds for sample in these), 1),
            f"{rate(name) / rate(STRONGEST):.1f}",
            spread((sample.result.images / sample.result.seconds for sample in these), 1),
            spread((1000 * sample.processor / sample.result.images for sample in these), 0),
            f"{these[0].result.written / these[0].result.images / 1000:,.0f}",
            mebibytes(peak_of(these)),
        ]
        for name, these in samples.items()
    ]
    heads = ["what", "images", "images per second, median (least to most)", "of the plain loop"]
    more = ["without start-up", "processor ms per image", "kB per image", "peak memory"]
    print(table([*heads, *more], rows), end="")
    others = (STRONGEST, DEFAULTS, VIPS, VIPS_TUNED, VIPS_COPIES, BARE)
    ratios = [[OURS, other, f"{rate(OURS) / rate(other):.2f}", WANTED.get(other, "")] for other in others]
    print(table(["images per second of", "over those of", "ratio", "wanted at least"], ratios), end="")
    for other in others:
        findings.compare(OURS, other, rate(OURS) / rate(other), bound=other == BARE, wanted=WANTED.get(other))
    work = statistics.median(sample.result.images / sample.result.seconds for sample in samples[OURS])
    findings.rate(OURS, work, cores(), peak_of(samples[OURS]))


def print_encoders(results: Mapping[str, tuple[float, int, int]]) -> None:
    rows = [
        [name, f"{1e9 * seconds / pixels:,.0f}", f"{8 * size / pixels:.2f}"]
        for name, (seconds, size, pixels) in results.items()
    ]
    print(f"\n### Encoders: {TRIED} pictures of each format at 1024 × 1280, one process; the first of each is used")
    print(table(["encoder", "processor ms per megapixel", "bits per pixel"], rows), end="")


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=3)
    parser.add_argument("--images", type=int, default=200, metavar="N", help="how many images (default: 200)")
    args = parser.parse_args(argv)
    count = 20 if args.quick else args.images
    print("## Resizing\n")
    print(
        "`python benchmarks/resize.py`: drawn files, six of ten JPEGs, three PNGs, one a WebP; three of ten too small,"
    )
    print(
        "four kept, three too large. All are whole programs, start-up included. The plain loops open, resize and save"
    )
    print(
        "every file in one process. The others use JPEG 95 4:4:4 and WebP 95 method 4 and write no metadata; resize.py"
    )
    print("alone writes files that survive a power cut, looks for orientations and profiles, and keeps the ledger.\n")
    print(f"{machine('pillow', 'pyvips-binary', 'zlib-ng')}; rounds: {args.rounds}, of the slow ones 1")
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        call_apart(programs.make_pictures, root / "raw/band/species", DIFFERENT, count)
        runs = {
            OURS: partial(resize, root),
            VIPS: partial(run_other, "vips", root),
            VIPS_TUNED: partial(run_other, "vips-tuned", root),
            VIPS_COPIES: partial(run_other, "vips-copying", root),
        }
        slow = {
            ONE: partial(resize, root, "--workers", 1, "--limit", max(1, count // 4)),
            BARE: partial(run_other, "bare", root),
            DEFAULTS: partial(run_other, "plain-defaults", root),
            STRONGEST: partial(run_other, "plain-strongest", root),
        }
        print_speed(interleaved(args.rounds, runs) | interleaved(1, slow), findings)
        encoders = call_apart(programs.try_encodings, root / "raw/band/species", 1 if args.quick else TRIED)
        print_encoders(encoders.result)
        if not args.quick:
            many = Path(folder) / "many"
            call_apart(programs.make_pictures, many / "raw/band/species", DIFFERENT, GROWTH[-1])
            findings.measure_growth(f"{OURS}, images", GROWTH, lambda count: resize(many, "--limit", count))
    findings.close(args.findings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
