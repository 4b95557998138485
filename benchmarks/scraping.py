"""The cost of downloading: scrape.py compared with img2dataset, simple loops, and a program that only decodes.

    python benchmarks/scraping.py                          everything, one round: about four minutes
    python benchmarks/scraping.py --part 500kB --rounds 3

All of them fetch the same images from 16 loopback hosts that wait 100 ms before each answer; client and server share
the cores. scrape.py and img2dataset run as programs, and times without start-up come from their own clocks. img2dataset
has its own environment, built on first use. Linux: the server listens on 127.0.0.2 to 127.0.0.17.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.harness import Against, Bench, bench_main, tell
from benchmarks.measuring import Sample, call_apart, run_apart, run_stage, serving, stage_python
from benchmarks.scraping_rivals import decode, event_loop, one_at_a_time, only_receive
from benchmarks.scraping_server import SIZES, addresses, make_pictures

LATENCY_S = 0.1
PROCESSES = 2  # of img2dataset
SPECIES = 20
KILOBYTES = {"500kB": "large", "30kB": "small"}
PARTS = (*KILOBYTES, "memory")

OURS = "scrape.py"
OURS_HEADER = "scrape.py --check header"
RIVAL = "img2dataset, which re-encodes"
RIVAL_PLAIN = "img2dataset --disable_all_reencoding"
EVENTS = "aiohttp, decoding in its one thread"
LOOP = "requests, one at a time"
DECODE = "bound: only decode every pixel, all cores"
RECEIVE = "bound: only receive"
SERVER = "bound: only receive, four times as many at once"
AGAINST = {
    "500kB": (Against(OURS, RIVAL, 1.0), Against(OURS_HEADER, RIVAL_PLAIN, 1.0), Against(OURS, DECODE, 0.9, True)),
    "30kB": (Against(OURS, LOOP, 20.0),),
}


@dataclass(frozen=True)
class Downloads:
    """The server's port, the folder for downloads, and the number of concurrent downloads."""

    port: int
    folder: Path
    concurrency: int

    def scrape(self, size: str, count: int, check: str = "full") -> Sample:
        """Run scrape.py as a user would."""
        with self.listed(size, count) as listed:
            flags: list[object] = ["--from-urls", listed, "--concurrency", self.concurrency, "--allow-private"]
            flags += ["--per-host", self.concurrency, "--check", check]
            sample = run_stage("scraping", "scraping/scrape.py", listed.parent, *flags)
            require(OURS, sample.result["done"], count)
            return sample

    def img2dataset(self, size: str, count: int, *flags: str) -> Sample:
        """Run img2dataset with as many threads as scrape.py, in two processes with half of the list each."""
        with self.listed(size, count) as listed:
            images = listed.with_name("images")
            words = [Path(stage_python("benchmarks_img2dataset")).with_name("img2dataset"), "--url_list", listed]
            words += ["--input_format", "csv", "--url_col", "source_url", "--output_folder", images]
            words += ["--output_format", "files", "--resize_mode", "no", "--processes_count", PROCESSES]
            words += ["--thread_count", self.concurrency // PROCESSES]
            words += ["--number_sample_per_shard", -(-count // PROCESSES), *flags]
            # albumentations would query PyPI for its newest version; wandb leaves temporary folders behind.
            sample = run_apart(words, {"NO_ALBUMENTATIONS_UPDATE": "1", "TMPDIR": str(listed.parent)})
            require("img2dataset", sum(1 for _ in images.glob("*/*.jpg")), count)
            shards = [json.loads(path.read_text()) for path in images.glob("*_stats.json")]
            began, ended = min(shard["start_time"] for shard in shards), max(shard["end_time"] for shard in shards)
            return replace(sample, working=ended - began)

    @contextmanager
    def listed(self, size: str, count: int) -> Iterator[Path]:
        """Write a list of addresses, and quotas.csv beside it, to a temporary folder."""
        names = [f"Species {number}" for number in range(1, SPECIES + 1)]
        quotas: Iterator[list[object]] = ([rank, name, "A", 1.0, count] for rank, name in enumerate(names, 1))
        found: Iterator[list[object]] = (
            [url, names[number % SPECIES]] for number, url in enumerate(addresses(self.port, size, count))
        )
        with tempfile.TemporaryDirectory(dir=self.folder) as root:
            Path(root, "quotas").mkdir()
            tables: dict[str, list[list[object]]] = {
                "quotas/quotas.csv": [["rank", "name", "band", "weight", "quota"], *quotas],
                "list.csv": [["source_url", "species"], *found],
            }
            for name, rows in tables.items():
                with Path(root, name).open("w", newline="") as stream:
                    csv.writer(stream).writerows(rows)
            yield Path(root, "list.csv")

    def simple(self, function: Callable[..., int], urls: Sequence[str], *arguments: object) -> Sample:
        """Call one of the simple downloaders with addresses and an empty folder."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            sample = call(function, len(urls), urls, Path(folder), *arguments)
            require(function.__name__, sum(1 for _ in Path(folder).iterdir()), len(urls))
            return sample


def call(function: Callable[..., int], count: int, *arguments: object) -> Sample:
    """Call a program of `scraping_rivals`; their start-up is negligible."""
    sample = call_apart(function, *arguments)
    require(function.__name__, sample.result, count)
    return sample


def require(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"{name} got {found} of {wanted} images: a comparison would mean nothing")


def measure_size(bench: Bench, downloads: Downloads, pictures: Path, part: str) -> None:
    """Compare everything on images of one size; the simple downloaders get fewer images."""
    size, count = KILOBYTES[part], 200 if bench.quick else bench.args.images
    urls = list(addresses(downloads.port, size, count))
    some, few, threads = urls[: count // 4], urls[: count // 20], downloads.concurrency
    runs: dict[str, Callable[[], Sample]] = {
        OURS: partial(downloads.scrape, size, count),
        OURS_HEADER: partial(downloads.scrape, size, count, "header"),
        RIVAL: partial(downloads.img2dataset, size, count),
        RIVAL_PLAIN: partial(downloads.img2dataset, size, count, "--disable_all_reencoding"),
        EVENTS: partial(downloads.simple, event_loop, some, threads),
        LOOP: partial(downloads.simple, one_at_a_time, few),
        DECODE: partial(call, decode, count, pictures, size, count),
        RECEIVE: partial(call, only_receive, count, urls, threads),
        SERVER: partial(call, only_receive, count, urls, 4 * threads),
    }
    samples = bench.run(runs)
    kilobytes = statistics.mean(path.stat().st_size for path in (pictures / size).iterdir()) / 1000
    width, height, _ = SIZES[size]
    print(f"\n### JPEGs of {width} × {height}, {kilobytes:,.0f} kB in the mean")
    counts = dict.fromkeys(runs, count) | {EVENTS: len(some), LOOP: len(few)}
    bench.show_rates(samples, counts, "images")
    bench.compare(samples, counts, AGAINST[part])
    bench.rate(f"scrape, {kilobytes:.0f} kB", count, samples[OURS])


def measure(bench: Bench) -> None:
    pictures = bench.folder / "pictures"
    call_apart(make_pictures, pictures)
    with serving([sys.executable, "-m", "benchmarks.scraping_server", pictures, "--latency", LATENCY_S]) as server:
        downloads = Downloads(server["port"], bench.folder, bench.args.concurrency)
        for part in bench.args.part:
            tell(f"part {part}")
            if part == "memory":
                sizes = (100, 1_000) if bench.quick else (100, 1_000, 10_000)
                bench.measure_growth(f"{OURS}, candidates", sizes, partial(downloads.scrape, "small"))
            else:
                measure_size(bench, downloads, pictures, part)


if __name__ == "__main__":
    flags = {
        "--part": {"nargs": "+", "choices": PARTS, "default": PARTS, "help": "only these parts"},
        "--images": {"type": int, "default": 2_000, "metavar": "N", "help": "images of each size"},
        "--concurrency": {"type": int, "default": 64, "metavar": "N", "help": "downloads at once"},
    }
    packages = ["aiohttp", "pillow", "requests"]
    raise SystemExit(bench_main(__doc__, "Scraping", measure, packages=packages, flags=flags))
