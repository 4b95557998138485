"""What downloading costs: scrape.py beside img2dataset, simple loops, and a program that only decodes.

    python benchmarks/scraping.py                          everything, one round: about four minutes
    python benchmarks/scraping.py --part 500kB --rounds 3

All of them fetch the same images from a server on this machine that waits 100 ms before each answer. scrape.py and
img2dataset run as programs, start-up included; img2dataset in an environment of its own, built on first use. Writes
Markdown to stdout. Run it in the environment of requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless that
holds the project. Linux: the server listens on 127.0.0.2 to 127.0.0.17.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

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
    tell,
)
from benchmarks.scraping_rivals import decode, event_loop, one_at_a_time, only_receive
from benchmarks.scraping_server import ADDRESSES, SIZES, addresses, make_pictures
from pokefa.setup.environments import environment
from pokefa.setup.runner import checkout_variables

LATENCY_S = 0.1
IMG2DATASET = "benchmarks_img2dataset"
IMG2DATASET_PROCESSES = 2
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
ALL = (OURS, OURS_HEADER, RIVAL, RIVAL_PLAIN, EVENTS, LOOP, DECODE, RECEIVE, SERVER)
# What, of what, and how often at least; by size.
WANTED = {
    "500kB": ((OURS, RIVAL, 1.0), (OURS_HEADER, RIVAL_PLAIN, 1.0), (OURS, DECODE, 0.9)),
    "30kB": ((OURS, LOOP, 20.0),),
}


@dataclass(frozen=True)
class Bench:
    """The server, where it reads, where downloads may be put, and how many are under way at once."""

    port: int
    pictures: Path
    folder: Path
    concurrency: int

    def fresh(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(dir=self.folder)

    def write_list(self, root: Path, size: str, count: int) -> Path:
        """Write quotas.csv and a list of addresses under `root`; return the list."""
        names = [f"Species {number}" for number in range(1, SPECIES + 1)]
        (root / "quotas").mkdir(parents=True)
        with (root / "quotas/quotas.csv").open("w", newline="") as stream:
            rows = ([rank, name, "A", 1.0, count] for rank, name in enumerate(names, 1))
            csv.writer(stream).writerows([["rank", "name", "band", "weight", "quota"], *rows])
        with (root / "list.csv").open("w", newline="") as stream:
            rows = ([url, names[number % SPECIES]] for number, url in enumerate(addresses(self.port, size, count)))
            csv.writer(stream).writerows([["source_url", "species"], *rows])
        return root / "list.csv"


@contextmanager
def serving(pictures: Path) -> Iterator[int]:
    """Run the server in a process of its own; yield its port."""
    script = Path(__file__).with_name("scraping_server.py")
    words = [sys.executable, str(script), str(pictures), "--latency", str(LATENCY_S)]
    with subprocess.Popen(words, env=checkout_variables(), stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["port"]
        finally:
            server.terminate()


def scrape(bench: Bench, size: str, count: int, check: str) -> Sample:
    """Run scrape.py as a user would."""
    with bench.fresh() as folder:
        listed = bench.write_list(Path(folder), size, count)
        words = [stage_python("scraping"), "scraping/scrape.py", "--root", folder, "--from-urls", listed, "--quiet"]
        words += ["--concurrency", bench.concurrency, "--per-host", bench.concurrency, "--check", check]
        sample = run_apart([*words, "--allow-private"])
        require(OURS, sample.result["done"], count)
        return replace(sample, result=sample.result["seconds"])


def img2dataset(bench: Bench, size: str, count: int, *flags: str) -> Sample:
    """Run img2dataset with as many threads as scrape.py, in two processes that get one half of the list each."""
    with bench.fresh() as folder:
        listed = bench.write_list(Path(folder), size, count)
        words = [Path(stage_python(IMG2DATASET)).with_name("img2dataset"), "--url_list", listed]
        words += ["--input_format", "csv", "--url_col", "source_url", "--output_folder", Path(folder) / "images"]
        words += ["--output_format", "files", "--resize_mode", "no", "--processes_count", IMG2DATASET_PROCESSES]
        words += ["--thread_count", bench.concurrency // IMG2DATASET_PROCESSES]
        words += ["--number_sample_per_shard", -(-count // IMG2DATASET_PROCESSES), *flags]
        # albumentations would ask PyPI for its newest version; wandb leaves temporary folders behind.
        sample = run_apart(words, {"NO_ALBUMENTATIONS_UPDATE": "1", "TMPDIR": folder})
        require("img2dataset", sum(1 for _ in Path(folder, "images").glob("*/*.jpg")), count)
        shards = [json.loads(path.read_text()) for path in Path(folder, "images").glob("*_stats.json")]
        began, ended = min(shard["start_time"] for shard in shards), max(shard["end_time"] for shard in shards)
        return replace(sample, result=ended - began)


def call(function: Callable[..., int], count: int, *arguments: object) -> Sample:
    """Call a program of `scraping_rivals`; none has a start-up to speak of."""
    sample = call_apart(function, *arguments)
    require(function.__name__, sample.result, count)
    return replace(sample, result=sample.seconds)


def call_with_folder(function: Callable[..., int], bench: Bench, urls: Sequence[str], *arguments: object) -> Sample:
    """Call one of the simple downloaders with addresses and an empty folder."""
    with bench.fresh() as folder:
        sample = call(function, len(urls), urls, Path(folder), *arguments)
        require(function.__name__, sum(1 for _ in Path(folder).iterdir()), len(urls))
        return sample


def require(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"{name} got {found} of {wanted} images: a comparison would mean nothing")


def print_speed(bench: Bench, label: str, count: int, rounds: int, findings: Findings) -> None:
    """Compare everything on `count` images of one size; the simple downloaders get fewer."""
    size = KILOBYTES[label]
    urls = list(addresses(bench.port, size, count))
    some, few = count // 4, count // 20
    counts = dict.fromkeys(ALL, count) | {EVENTS: some, LOOP: few}
    runs: dict[str, Callable[[], Sample]] = {
        OURS: partial(scrape, bench, size, count, "full"),
        OURS_HEADER: partial(scrape, bench, size, count, "header"),
        RIVAL: partial(img2dataset, bench, size, count),
        RIVAL_PLAIN: partial(img2dataset, bench, size, count, "--disable_all_reencoding"),
        EVENTS: partial(call_with_folder, event_loop, bench, urls[:some], bench.concurrency),
        LOOP: partial(call_with_folder, one_at_a_time, bench, urls[:few]),
        DECODE: partial(call, decode, count, bench.pictures, size, count),
        RECEIVE: partial(call, only_receive, count, urls, bench.concurrency),
        SERVER: partial(call, only_receive, count, urls, 4 * bench.concurrency),
    }
    samples = interleaved(rounds, runs)
    kilobytes = statistics.mean(path.stat().st_size for path in (bench.pictures / size).iterdir()) / 1000
    width, height, _ = SIZES[size]
    print(f"\n### JPEGs of {width} × {height}, {kilobytes:,.0f} kB in the mean")
    print_rates(samples, counts)
    print_ratios(samples, counts, WANTED[label], findings)
    rate = count / statistics.median(sample.result for sample in samples[OURS])
    findings.rate(f"scrape, {kilobytes:.0f} kB", rate, cores(), peak_of(samples[OURS]))


def print_rates(samples: Mapping[str, Sequence[Sample]], counts: Mapping[str, int]) -> None:
    heads = ["what", "images", "images per second, median (least to most)", "without start-up", "peak memory"]
    rows = []
    for name, these in samples.items():
        whole = spread((counts[name] / sample.seconds for sample in these), 1)
        work = spread((counts[name] / sample.result for sample in these), 1)
        rows.append([name, f"{counts[name]:,}", whole, work, mebibytes(peak_of(these))])
    print(table(heads, rows), end="")


def print_ratios(
    samples: Mapping[str, Sequence[Sample]],
    counts: Mapping[str, int],
    wanted: Sequence[tuple[str, str, float]],
    findings: Findings,
) -> None:
    whole = {name: counts[name] / seconds_of(these) for name, these in samples.items()}
    work = {
        name: counts[name] / statistics.median(sample.result for sample in these) for name, these in samples.items()
    }
    rows = [
        [what, of, f"{whole[what] / whole[of]:.2f}", f"{work[what] / work[of]:.2f}", f"{least:g}"]
        for what, of, least in wanted
    ]
    heads = ["images per second of", "over those of", "ratio", "without start-up", "wanted at least"]
    print(table(heads, rows), end="")
    for what, of, least in wanted:
        findings.compare(what, of, whole[what] / whole[of], bound=of == DECODE, wanted=least)


def print_memory(bench: Bench, counts: Sequence[int], rounds: int, findings: Findings) -> None:
    """Show how the memory of scrape.py grows with the length of the list."""
    runs = {f"{count:,}": partial(scrape, bench, "small", count, "full") for count in counts}
    samples = interleaved(rounds, runs)
    peaks = [peak_of(these) for these in samples.values()]
    times = [seconds_of(these) for these in samples.values()]
    rows = [
        [name, mebibytes(peak), f"{peak / before:.2f}", spread(sample.seconds for sample in samples[name])]
        for name, peak, before in zip(samples, peaks, [peaks[0], *peaks], strict=False)
    ]
    print(f"\n### Growth of {OURS}: JPEGs of about 30 kB")
    print(table(["candidates", "peak memory", "of the row above", "seconds, median (least to most)"], rows), end="")
    findings.grow(f"{OURS}, candidates", counts, seconds=times, memory=peaks)


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=1)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="only these parts")
    parser.add_argument("--images", type=int, default=2_000, metavar="N", help="images of each size (default: 2000)")
    parser.add_argument("--concurrency", type=int, default=64, metavar="N", help="downloads at once (default: 64)")
    args = parser.parse_args(argv)
    images = 200 if args.quick else args.images
    rival = next(line for line in environment(IMG2DATASET).packages if line.startswith("img2dataset=="))
    latency = f"{LATENCY_S * 1000:.0f} ms"
    print("## Scraping\n")
    print(
        f"`python benchmarks/scraping.py`: {args.concurrency} downloads at once from {len(ADDRESSES)} loopback hosts,"
    )
    print(f"{latency} before each answer; client and server share the cores. What is without start-up is by")
    print("the own clocks of scrape.py and img2dataset.\n")
    print(f"{machine('aiohttp', 'pillow', 'requests')}; {rival}; rounds: {args.rounds}")
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        call_apart(make_pictures, pictures)
        with serving(pictures) as port:
            bench = Bench(port, pictures, Path(folder), args.concurrency)
            for part in args.part:
                tell(f"part {part}")
                if part == "memory":
                    print_memory(bench, (100, 1_000) if args.quick else (100, 1_000, 10_000), args.rounds, findings)
                else:
                    print_speed(bench, part, images, args.rounds, findings)
    findings.close(args.findings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
