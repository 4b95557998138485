"""The cost of packing shards: webdataset.py compared with cp, tar, loops of the library's writers, and only decoding.

    python benchmarks/shards.py                      2 GB of images, two rounds: under four minutes on two cores
    python benchmarks/shards.py --megabytes 500 --rounds 3

Of every ten images seven are JPEGs, two PNGs and one WebP, of 1 to 2 megapixels; all are in the page cache.
webdataset.py hashes every image twice and every shard once, syncs each shard to disk, and decodes the images unless
told otherwise. The others only write, and their output is synced afterwards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.datasets import DIFFERENT, decode_file, make_images, on_all_cores, write_csv
from benchmarks.harness import Against, Bench, bench_main
from benchmarks.markdown import spread
from benchmarks.measuring import Sample, call_apart, run_apart, run_stage, stage_python

OURS = "webdataset.py"
HEADER = "webdataset.py --check header"
CP, TAR = "cp", "tar"
SHARD_WRITER, TAR_WRITER = "a loop of ShardWriter", "a loop of TarWriter"
DECODE = "bound: only decode, all cores"
READ = "read back, one process"
AGAINST = (
    Against(OURS, DECODE, 0.9, bound=True),
    Against(HEADER, CP, 0.8, bound=True),
    Against(HEADER, TAR),
    Against(HEADER, SHARD_WRITER),
)

SHARD_SIZE = 100  # cores take one shard at a time: with the default of 1,000 a set of this size would have three
BATCH = 200  # images made to find the mean size

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

ROW = {
    "source_url": "https://example.org/",
    "image_size": "1024x1024",
    "ae_relevance": 90,
    "ae_aesthetic": 80,
    "phash": "0" * 16,
    "caption": "A picture.",
    "tags": '{"pokemon": ["eevee"]}',
    "hybrid_caption": "A picture. | eevee",
    "species": "eevee",
    "split": "train",
}


def make_set(root: Path, megabytes: int) -> tuple[int, int]:
    """Write images of this many megabytes, and the tables that packing reads; return (images, bytes)."""
    images = root / "resized"
    call_apart(make_images, images, BATCH)
    made = sorted(images.iterdir())
    count = max(BATCH, int(megabytes * 1e6 / (sum(path.stat().st_size for path in made) / BATCH)))
    for number in range(BATCH, count):
        drawn = made[number % DIFFERENT]
        shutil.copyfile(drawn, drawn.with_stem(f"{number:05}"))
    paths = sorted(images.iterdir())
    rows = [{"path": f"resized/{path.name}", "image_id": f"{int(path.stem):032x}"} | ROW for path in paths]
    write_csv(root / "metadata/images.csv", rows, ["image_id"])
    write_csv(root / "metadata/base.csv", rows, rows[0])
    manifests = root / "webdataset/manifests"
    manifests.mkdir(parents=True)
    (manifests / "train_ids.txt").write_text("".join(f"{row['image_id']}\n" for row in rows))
    (manifests / "val_ids.txt").write_text("")
    os.sync()  # so that no later sync has to write them
    return count, sum(path.stat().st_size for path in paths)


def pack(root: Path, *flags: object) -> Sample:
    for name in ("webdataset/data", "metadata/runs"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "webdataset/manifests/split_stats.json").unlink(missing_ok=True)
    return run_stage("webdataset", "webdataset/webdataset.py", root, "--shard-size", SHARD_SIZE, *flags)


def write_and_sync(target: Path, words: Sequence[object]) -> Sample:
    """Run a program that writes to `target`, which is empty before and removed after, and sync that file system."""
    target.mkdir()
    try:
        sample, synced = run_apart(words), run_apart(["sync", "-f", target])
    finally:
        shutil.rmtree(target)
    return replace(sample, seconds=sample.seconds + synced.seconds, working=sample.working + synced.seconds)


def measure(bench: Bench) -> None:
    root, target = bench.folder / "set", bench.folder / "target"
    source, python = root / "resized", stage_python("webdataset")
    count, size = make_set(root, 60 if bench.quick else bench.args.megabytes)
    print(f"\n{count:,} images, {size / 1e6:,.0f} MB.")
    loop = [python, "-c", WRITER_PROGRAM, source, target]
    runs = {
        DECODE: partial(call_apart, on_all_cores, decode_file, source),
        OURS: partial(pack, root),
        HEADER: partial(pack, root, "--check", "header"),
        CP: partial(write_and_sync, target, ["cp", "-r", source, target]),
        TAR: partial(write_and_sync, target, ["tar", "-cf", target / "all.tar", "-C", root, "resized"]),
        SHARD_WRITER: partial(write_and_sync, target, [*loop, "ShardWriter"]),
        TAR_WRITER: partial(write_and_sync, target, [*loop, "TarWriter"]),
        READ: partial(run_apart, [python, "-c", READ_PROGRAM, root / "webdataset/data"]),
    }
    samples = bench.run(runs)
    counts = dict.fromkeys(runs, count)
    columns = {"MB per second": lambda _, these: spread(size / 1e6 / sample.seconds for sample in these)}
    bench.show_rates(samples, counts, "images", columns)
    bench.compare(samples, counts, AGAINST)
    for name in (OURS, HEADER):
        bench.rate(name, count, samples[name])
    bench.rate(f"shards {READ}", count, samples[READ], cores=1)


if __name__ == "__main__":
    flags = {"--megabytes": {"type": int, "default": 2000, "metavar": "N", "help": "of images"}}
    packages = ["pillow"]
    raise SystemExit(bench_main(__doc__, "Packing shards", measure, packages=packages, rounds=2, flags=flags))
