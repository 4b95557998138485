"""What packing shards costs: webdataset.py beside cp, tar, loops of the library's two writers, and only decoding.

    python benchmarks/shards.py                      2 GB of images, two rounds: under four minutes on two cores
    python benchmarks/shards.py --megabytes 500 --rounds 3
    python benchmarks/shards.py --quick              60 MB, to see that it works

Of every ten images seven are JPEGs, two PNGs and one a WebP, of 1 to 2 megapixels; all lie in the page cache.
webdataset.py takes an MD5 and a SHA-256 of each image and a SHA-256 of each shard, and syncs each shard to the disk.
The others do none of that, so what they wrote is synced afterwards, and each is shown with that and without. Writes
Markdown to stdout. Run it in the environment of requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless
that holds the project.
"""

from __future__ import annotations

import csv
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.findings import Findings
from benchmarks.measuring import (
    Sample,
    bench_parser,
    call_apart,
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
from benchmarks.phash import DIFFERENT, decode_file, make_dataset, on_all_cores

OURS = "webdataset.py"
HEADER = "webdataset.py --check header"
CP = "cp"
TAR = "tar"
SHARD_WRITER = "a loop of ShardWriter"
TAR_WRITER = "a loop of TarWriter"
DECODE = "bound: only decode, all cores"
READ = "read back, one process"

SHARD_SIZE = 100  # cores take a shard at a time: with the default of 1,000 a set of this size would be three pieces
BATCH = 200  # images that are made to see how large one is

WRITER_PROGRAM = """
import json, pathlib, subprocess, sys, time
import webdataset
source, target, name = sys.argv[1:]
began = time.perf_counter()
if name == "ShardWriter":
    writer = webdataset.ShardWriter(target + "/%05d.tar", maxcount=1000, verbose=0)
else:
    writer = webdataset.TarWriter(target + "/all.tar")
with writer:
    for path in sorted(pathlib.Path(source).iterdir()):
        suffix = {".jpeg": "jpg"}.get(path.suffix, path.suffix[1:])
        writer.write({"__key__": path.stem, suffix: path.read_bytes(), "txt": "a caption", "json": {"id": path.stem}})
print(json.dumps({"seconds": time.perf_counter() - began}))
"""
READ_PROGRAM = """
import json, pathlib, sys, time
import webdataset
began = time.perf_counter()
urls = sorted(map(str, pathlib.Path(sys.argv[1]).glob("*.tar")))
count = sum(1 for _ in webdataset.WebDataset(urls, shardshuffle=False))
print(json.dumps({"seconds": time.perf_counter() - began, "samples": count}))
"""


@dataclass(frozen=True)
class Times:
    """Seconds of one run: without its start-up, and without the sync after it; None where that cannot be told apart."""

    working: float | None = None
    unsynced: float | None = None


def make_set(root: Path, megabytes: int) -> tuple[int, int]:
    """Write images of so many megabytes, and the tables that packing reads; return (images, bytes)."""
    call_apart(make_dataset, root, BATCH)
    made = sorted((root / "resized").iterdir())
    count = max(BATCH, int(megabytes * 1e6 / (sum(path.stat().st_size for path in made) / BATCH)))
    for number in range(BATCH, count):
        drawn = made[number % DIFFERENT]
        shutil.copyfile(drawn, drawn.with_stem(f"{number:05}"))
    (root / "metadata/images.csv").unlink()
    paths = sorted((root / "resized").iterdir())
    rows = [row_of(path) for path in paths]
    for name, columns in (("images", ["image_id"]), ("base", list(rows[0]))):
        with (root / f"metadata/{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    manifests = root / "webdataset/manifests"
    manifests.mkdir(parents=True)
    (manifests / "train_ids.txt").write_text("".join(f"{row['image_id']}\n" for row in rows))
    (manifests / "val_ids.txt").write_text("")
    os.sync()  # so that nobody else's sync has to write them
    return count, sum(path.stat().st_size for path in paths)


def row_of(path: Path) -> dict[str, object]:
    return {
        "path": f"resized/{path.name}",
        "source_url": "https://example.org/",
        "image_size": "1024x1024",
        "ae_relevance": 90,
        "ae_aesthetic": 80,
        "image_id": f"{int(path.stem):032x}",
        "phash": "0" * 16,
        "caption": "A picture.",
        "tags": '{"pokemon": ["eevee"]}',
        "hybrid_caption": "A picture. | eevee",
        "species": "eevee",
        "split": "train",
    }


def pack(root: Path, *more: str) -> Sample:
    for name in ("webdataset/data", "metadata/runs"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "webdataset/manifests/split_stats.json").unlink(missing_ok=True)
    flags = ["--root", root, "--quiet", "--shard-size", SHARD_SIZE, *more]
    sample = run_apart([stage_python("webdataset"), "webdataset/webdataset.py", *flags])
    if sample.result["errors"]:
        raise RuntimeError(f"{sample.result['errors']} images were left out")
    return replace(sample, result=Times(working=sample.result["seconds"]))


def write_and_sync(target: Path, words: Sequence[object]) -> Sample:
    """Run what writes to `target`, which is empty before and gone after, and then a sync of that file system."""
    target.mkdir()
    try:
        sample = run_apart([*words])
        synced = run_apart(["sync", "-f", target])
    finally:
        shutil.rmtree(target)
    working = sample.result["seconds"] + synced.seconds if sample.result else None
    times = Times(working, sample.seconds)
    return replace(sample, seconds=sample.seconds + synced.seconds, result=times)


def read_back(root: Path) -> Sample:
    sample = run_apart([stage_python("webdataset"), "-c", READ_PROGRAM, root / "webdataset/data"])
    return replace(sample, result=Times(working=sample.result["seconds"]))


def decode_all(root: Path) -> Sample:
    sample = call_apart(on_all_cores, decode_file, root)
    return replace(sample, result=Times())


def median_of(samples: Sequence[Sample], name: str) -> float:
    """Return the median of one of the Times, or of all seconds where it is not told."""
    return statistics.median(getattr(sample.result, name) or sample.seconds for sample in samples)


def rates(size: float, samples: Sequence[Sample], name: str) -> str:
    """Return how much of a size went through in a second of one of the Times; "" where it is not told."""
    seconds = [getattr(sample.result, name) for sample in samples]
    return "" if None in seconds else spread((size / one for one in seconds), 0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=2)
    parser.add_argument("--megabytes", type=int, default=2000, metavar="N", help="of images (default: 2000)")
    args = parser.parse_args(argv)
    print("## Packing shards\n")
    print(
        "`python benchmarks/shards.py`: webdataset.py hashes every image twice and every shard, syncs the shards, and\n"
        "decodes the images unless told otherwise; the others only write, and are synced afterwards.\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root, target = Path(folder) / "set", Path(folder) / "target"
        root.mkdir()
        count, size = make_set(root, 60 if args.quick else args.megabytes)
        print(f"{machine('pillow')}; {count:,} images, {size / 1e6:,.0f} MB; rounds: {args.rounds}")
        source = root / "resized"
        loop = [stage_python("webdataset"), "-c", WRITER_PROGRAM, source, target]
        runs = {
            DECODE: partial(decode_all, root),
            OURS: partial(pack, root),
            HEADER: partial(pack, root, "--check", "header"),
            CP: partial(write_and_sync, target, ["cp", "-r", source, target]),
            TAR: partial(write_and_sync, target, ["tar", "-cf", target / "all.tar", "-C", root, "resized"]),
            SHARD_WRITER: partial(write_and_sync, target, [*loop, "ShardWriter"]),
            TAR_WRITER: partial(write_and_sync, target, [*loop, "TarWriter"]),
            READ: partial(read_back, root),
        }
        samples = interleaved(args.rounds, runs)
    rows = [
        [
            name,
            spread((size / 1e6 / sample.seconds for sample in these), 0),
            rates(size / 1e6, these, "working"),
            rates(size / 1e6, these, "unsynced"),
            f"{count / median_of(these, 'working'):,.0f}",
            mebibytes(peak_of(these)),
        ]
        for name, these in samples.items()
    ]
    heads = [
        "what",
        "MB/s",
        "without start-up",
        "without the sync",
        "images per second, without start-up",
        "peak memory",
    ]
    print(table(heads, rows), end="")
    findings = Findings()
    print(compare(samples, findings), end="")
    cores = os.cpu_count() or 1
    for name in (OURS, HEADER):
        findings.rate(name, count / median_of(samples[name], "working"), cores, peak_of(samples[name]))
    findings.rate(f"shards {READ}", count / median_of(samples[READ], "working"), 1, peak_of(samples[READ]))
    findings.close(args.findings)
    return 0


def compare(samples: Mapping[str, Sequence[Sample]], findings: Findings) -> str:
    """Return a table of the speeds of webdataset.py over those of the others, and note them."""
    rows = []
    for ours, other, wanted in (
        (OURS, DECODE, 0.9),
        (HEADER, CP, 0.8),
        (HEADER, TAR, None),
        (HEADER, SHARD_WRITER, None),
    ):
        whole = seconds_of(samples[other]) / seconds_of(samples[ours])
        working = median_of(samples[other], "working") / median_of(samples[ours], "working")
        unsynced = f"{median_of(samples[other], 'unsynced') / seconds_of(samples[ours]):.2f}" if other != DECODE else ""
        rows.append([ours, other, f"{whole:.2f}", f"{working:.2f}", unsynced, wanted or ""])
        findings.compare(ours, other, whole, bound=other in (DECODE, CP), wanted=wanted)
    heads = ["speed of", "over that of", "ratio", "without start-up", "the other without its sync", "wanted at least"]
    return table(heads, rows)


if __name__ == "__main__":
    sys.exit(main())
