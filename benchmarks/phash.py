"""What hashing images costs: phash.py beside programs that do but the work of Pillow, and a plain imagehash loop.

    python benchmarks/phash.py                      1,000 images, two rounds: about two minutes
    python benchmarks/phash.py --images 4000 --rounds 1

The images are of the sizes that resize.py leaves; of every ten seven are JPEGs, two PNGs and one a WebP. phash.py runs
as a program on all cores. So do two bounds: one only decodes, the other also makes the 32 by 32 grey pixels that the
definition of the hash asks for, and hashes nothing. Writes Markdown to stdout. Run it in the environment of
requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless that holds the project.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

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
    seconds_of,
    spread,
    stage_python,
    table,
)

FORMATS = ("JPEG",) * 7 + ("PNG",) * 2 + ("WEBP",)
SIZES = ((1024, 1024), (1024, 1536), (1600, 1200))
DIFFERENT = 30  # pictures that are drawn; the others are copies under other names

OURS = "phash.py"
VARIANTS = "phash.py --with-variants"
DECODE = "bound: only decode, all cores"
SHRINK = "bound: only decode, make grey, make 32 by 32, all cores"
GROWTH = (10, 100, 1_000)
LOOP_PROGRAM = """
import json, pathlib, sys, time
import imagehash
from PIL import Image
began = time.perf_counter()
for path in pathlib.Path(sys.argv[1]).iterdir():
    imagehash.phash(Image.open(path))
print(json.dumps({"seconds": time.perf_counter() - began}))
"""
LOOP = "imagehash.phash(Image.open(path)), one process"


def make_dataset(root: Path, count: int) -> None:
    """Write `count` image files and a ledger in which they wait for their hash."""
    import random
    import shutil

    from PIL import Image, ImageDraw, ImageFilter

    chance = random.Random(4)
    folder = root / "resized"
    folder.mkdir(parents=True)
    rows = []
    for number in range(count):
        form = FORMATS[number % len(FORMATS)]
        path = folder / f"{number:05}.{form.lower()}"
        if number >= DIFFERENT:
            shutil.copyfile(folder / f"{number % DIFFERENT:05}.{form.lower()}", path)
        else:
            image = Image.new("RGB", SIZES[number % len(SIZES)], "white")
            draw = ImageDraw.Draw(image)
            for _ in range(200):
                x, y, r = chance.randrange(image.width), chance.randrange(image.height), chance.randrange(10, 150)
                draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(chance.randrange(256) for _ in "rgb"))
            grain = Image.effect_noise(image.size, 20).convert("RGB")
            image = Image.blend(image.filter(ImageFilter.GaussianBlur(2)), grain, 0.15)
            image.save(path, form, quality=92)
        rows.append({"image_id": f"{number:032x}", "path_resized": str(path.relative_to(root))})
    (root / "metadata").mkdir()
    with (root / "metadata/images.csv").open("w", newline="") as stream:
        decided = {"is_nsfw": "False", "nsfw_override": "", "has_ocr": "False", "ocr_override": ""}
        decided["ocr_inpainted_path"] = ""
        writer = csv.DictWriter(stream, ["image_id", "path_resized", *decided])
        writer.writeheader()
        writer.writerows(row | decided for row in rows)


def hash_all(root: Path, *flags: object) -> Sample:
    """Run phash.py over all images; the ledger forgets it afterwards."""
    ledger = root / "metadata/images.csv"
    before = ledger.read_bytes()
    sample = run_apart([stage_python("dup"), "preprocess/dup/phash.py", "--root", root, "--quiet", *flags])
    if sample.result["errors"]:
        raise RuntimeError(f"{sample.result['errors']} images could not be hashed")
    for path in (root / "metadata/runs").iterdir():
        path.unlink()
    ledger.write_bytes(before)
    return replace(sample, result=sample.result["seconds"])


def bound(work: Callable[[Path], object], root: Path) -> Sample:
    sample = call_apart(on_all_cores, work, root)
    return replace(sample, result=sample.seconds)


def on_all_cores(work: Callable[[Path], object], root: Path) -> None:
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool() as pool:
        for _ in pool.imap_unordered(work, sorted((root / "resized").iterdir()), chunksize=8):
            pass


def decode_file(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def shrink_file(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)


def loop(root: Path) -> Sample:
    """Run the loop in the environment of the stage, which has imagehash."""
    sample = run_apart([stage_python("dup"), "-c", LOOP_PROGRAM, root / "resized"])
    return replace(sample, result=sample.result["seconds"])


def note(samples: Mapping[str, Sequence[Sample]], count: int, findings: Findings) -> None:
    """Compare phash.py with the bounds and the loop, without their start-up."""
    working = {name: median(sample.result for sample in these) for name, these in samples.items()}
    for other in (DECODE, SHRINK, LOOP):
        findings.compare(OURS, other, working[other] / working[OURS], bound=other != LOOP)
    findings.rate(OURS, count / working[OURS], cores(), peak_of(samples[OURS]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=2)
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="how many images (default: 1000)")
    args = parser.parse_args(argv)
    count = 40 if args.quick else args.images
    print("## Hashing\n")
    print(
        "`python benchmarks/phash.py`: seven of ten images are JPEGs, two PNGs and one a WebP, of 1 to 2 megapixels.\n"
    )
    print(f"{machine('pillow')}; rounds: {args.rounds}")
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        call_apart(make_dataset, root, count)
        runs = {
            DECODE: partial(bound, decode_file, root),
            SHRINK: partial(bound, shrink_file, root),
            OURS: partial(hash_all, root),
            VARIANTS: partial(hash_all, root, "--with-variants"),
            LOOP: partial(loop, root),
        }
        samples = interleaved(args.rounds, runs)
        note(samples, count, findings)
        if not args.quick:
            findings.measure_growth(f"{OURS}, images", GROWTH, lambda count: hash_all(root, "--limit", count))
    rows = [
        [
            name,
            spread((count / sample.seconds for sample in these), 1),
            *(f"{seconds_of(samples[other]) / seconds_of(these):.2f}" for other in (DECODE, SHRINK)),
            spread((count / sample.result for sample in these), 1),
            mebibytes(peak_of(these)),
        ]
        for name, these in samples.items()
    ]
    heads = ["what", "images per second, median (least to most)", "of only decoding", "of decoding and shrinking"]
    print(table([*heads, "without start-up", "peak memory"], rows), end="")
    findings.close(args.findings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
