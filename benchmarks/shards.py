"""What packing shards costs: webdataset.py beside cp, tar, a loop of the library's ShardWriter, and only decoding.

    python benchmarks/shards.py                      2 GB of images, three rounds
    python benchmarks/shards.py --megabytes 200 --rounds 1

Of every ten images seven are JPEGs, two PNGs and one a WebP, of 1 to 2 megapixels. webdataset.py decodes every image to
see that it is whole, takes an MD5 and SHA-256 of each and a SHA-256 of each shard, and syncs shards to the disk; the
others do none of that. What copies ends with a sync of what it wrote. Writes Markdown to stdout. Run it in the
environment of requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless that holds the project.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

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
from benchmarks.phash import decode, make_dataset

OURS = "webdataset.py"
CP = "cp"
TAR = "tar"
WRITER = "a loop of ShardWriter"
DECODE = "only decode, all cores"
READ = "read back, one process"

SHARD_SIZE = 100  # cores take a shard at a time: with the default of 1,000 a set of this size would be three pieces
BATCH = 200  # images that are made to see how large one is

WRITER_PROGRAM = """
import json, os, pathlib, sys, time
import webdataset
began = time.perf_counter()
with webdataset.ShardWriter(sys.argv[2] + "/%05d.tar", maxcount=1000, verbose=0) as writer:
    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        suffix = {".jpeg": "jpg"}.get(path.suffix, path.suffix[1:])
        writer.write({"__key__": path.stem, suffix: path.read_bytes(), "txt": "a caption", "json": {"id": path.stem}})
os.sync()
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


def make_set(root: Path, megabytes: int) -> tuple[int, int]:
    """Write images of so many megabytes, and the tables that packing reads; return (images, bytes)."""
    first = root / "first"
    call_apart(make_dataset, first, BATCH)
    size = sum(path.stat().st_size for path in (first / "resized").iterdir()) / BATCH
    shutil.rmtree(first)
    count = max(BATCH // 4, int(megabytes * 1e6 / size))
    call_apart(make_dataset, root, count)
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


def pack(root: Path) -> Sample:
    for name in ("webdataset/data", "metadata/runs"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "webdataset/manifests/split_stats.json").unlink(missing_ok=True)
    flags = ["--root", root, "--quiet", "--shard-size", SHARD_SIZE]
    sample = run_apart([stage_python("webdataset"), "webdataset/webdataset.py", *flags])
    if sample.result["errors"]:
        raise RuntimeError(f"{sample.result['errors']} images were left out")
    return replace(sample, result=sample.result["seconds"])


def into_empty(target: Path, run: Callable[[], Sample]) -> Sample:
    """Run what writes to `target`, which is empty before and gone after."""
    target.mkdir()
    try:
        return run()
    finally:
        shutil.rmtree(target)


def copy(command: str) -> Sample:
    """Run a shell's command, and the sync that puts what it wrote on the disk."""
    sample = run_apart(["sh", "-c", f"{command} && sync"])
    return replace(sample, result=sample.seconds)


def library_loop(root: Path, target: Path) -> Sample:
    sample = run_apart([stage_python("webdataset"), "-c", WRITER_PROGRAM, root / "resized", target])
    return replace(sample, result=sample.result["seconds"])


def read_back(root: Path) -> Sample:
    sample = run_apart([stage_python("webdataset"), "-c", READ_PROGRAM, root / "webdataset/data"])
    return replace(sample, result=sample.result["seconds"])


def decode_all(root: Path) -> Sample:
    sample = call_apart(decode, root)
    return replace(sample, result=sample.seconds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=3)
    parser.add_argument("--megabytes", type=int, default=2000, metavar="N", help="of images (default: 2000)")
    args = parser.parse_args(argv)
    print("## Packing shards\n")
    print("`python benchmarks/shards.py`: webdataset.py decodes, hashes and syncs; what else writes only writes.\n")
    with tempfile.TemporaryDirectory() as folder:
        root, target = Path(folder) / "set", Path(folder) / "target"
        root.mkdir()
        count, size = make_set(root, 60 if args.quick else args.megabytes)
        print(f"{machine('pillow')}; {count:,} images, {mebibytes(size)}; rounds: {args.rounds}")
        source = root / "resized"
        runs = {
            DECODE: partial(decode_all, root),
            OURS: partial(pack, root),
            CP: partial(into_empty, target, partial(copy, f"cp -r {source} {target}")),
            TAR: partial(into_empty, target, partial(copy, f"tar -cf {target}/all.tar -C {root} resized")),
            WRITER: partial(into_empty, target, partial(library_loop, root, target)),
            READ: partial(read_back, root),
        }
        samples = interleaved(args.rounds, runs)
    rows = [
        [
            name,
            spread((size / 1e6 / sample.seconds for sample in these), 0),
            spread((size / 1e6 / sample.result for sample in these), 0),
            spread((count / sample.result for sample in these), 0),
            f"{seconds_of(these) / seconds_of(samples[OURS]):.2f}",
            mebibytes(peak_of(these)),
        ]
        for name, these in samples.items()
    ]
    heads = ["what", "MB/s", "without start-up", "images per second", "of webdataset.py's time", "peak memory"]
    print(table(heads, rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
