"""What asking a model costs here: score.py against a stand-in of the server that takes one second for each answer.

    python benchmarks/asking.py                       about four minutes
    python benchmarks/asking.py --at 32 256 --seconds 20

The stand-in (not OpenAI: it gives every picture the same answer) runs in a process of its own on the same cores. Beside
score.py, which runs as a program with start-up included, stands a loop of single calls of the openai package. Pictures
are of 256 × 256 pixels, so that the call is measured and not the decoding. Writes Markdown to stdout. Run it in the
environment of requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless that holds the project.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.findings import Findings
from benchmarks.measuring import (
    Sample,
    bench_parser,
    call_apart,
    machine,
    mebibytes,
    run_apart,
    spread,
    stage_python,
    table,
    tell,
)
from pokefa.setup.runner import checkout_variables

LATENCY_S = 1.0
LOOPED = 10  # calls of the loop
SIDE = 256
PROCESSED = 200  # pictures of which the processor time is measured
GROWTH = (50, 500, 5_000)
WANTED = 0.9  # of concurrency ÷ latency
KEY = "key-of-the-benchmark"


def make_dataset(root: Path, count: int) -> None:
    """Write `count` different pictures and the ledger in which they wait for their scores."""
    import numpy as np
    import polars as pl
    from PIL import Image

    from pokefa.ledger.columns import IMAGES
    from pokefa.ledger.table import Table

    chance = np.random.default_rng(7)
    folder = root / "data_stage/resized"
    folder.mkdir(parents=True)
    ids = [f"{number:032x}" for number in range(count)]
    for image_id in ids:
        pixels = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(folder / f"{image_id}.jpg")
    rows = {column.name: pl.repeat(None, count, dtype=pl.String, eager=True) for column in IMAGES.columns}
    rows["image_id"] = pl.Series(ids)
    rows["is_nsfw"] = rows["has_ocr"] = pl.repeat("False", count, eager=True)
    rows["path_resized"] = pl.Series([f"data_stage/resized/{image_id}.jpg" for image_id in ids])
    Table(root, IMAGES).write(pl.DataFrame(rows))


@contextmanager
def stand_in(latency: float = LATENCY_S) -> Iterator[dict[str, str]]:
    """Run the stand-in; yield the environment that leads to it."""
    words = [stage_python("score"), "-m", "demo.standins.openai_standin", "--latency", str(latency), "--fixed"]
    with subprocess.Popen(words, env=checkout_variables(), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = json.loads(server.stdout.readline())["openai"]
            yield {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": KEY}
        finally:
            server.terminate()


def score(variables: dict[str, str], folder: Path, count: int, concurrency: int) -> Sample:
    """Score `count` new pictures."""
    root = folder / f"{count}-{concurrency}"
    call_apart(make_dataset, root, count)
    words = [
        stage_python("score"),
        "preprocess/score/score.py",
        "--root",
        root,
        "--concurrency",
        concurrency,
        "--quiet",
    ]
    sample = run_apart(words, variables)
    if sample.result["done"] != count:
        raise RuntimeError(f"{sample.result['done']} of {count} pictures were scored: a comparison would mean nothing")
    return sample


def loop(variables: dict[str, str], folder: Path, count: int) -> Sample:
    """Score as a plain loop does, one call after the other."""
    root = folder / "loop"
    call_apart(make_dataset, root, count)
    words = [stage_python("score"), "benchmarks/asking_rival.py", root / "data_stage/resized"]
    return run_apart(words, variables)


def print_throughput(folder: Path, at: Sequence[int], seconds: int, findings: Findings) -> None:
    rows: list[list[Any]] = []
    with stand_in() as variables:
        tell("the loop")
        looped = loop(variables, folder, LOOPED)
        alone = LOOPED / looped.result["seconds"]
        rows.append(["loop of single calls", LOOPED, f"{alone:.2f}", f"{alone * LATENCY_S:.2f}", "1.0", "", ""])
        for concurrency in at:
            tell(f"{concurrency} at once")
            count = concurrency * seconds
            sample = score(variables, folder, count, concurrency)
            rate = count / sample.result["seconds"]
            milliseconds = sample.processor / count * 1000
            ours = f"score.py --concurrency {concurrency}"
            findings.compare(ours, "loop of single calls", rate / alone)
            findings.compare(ours, "concurrency ÷ latency", rate * LATENCY_S / concurrency, bound=True, wanted=WANTED)
            rows.append(
                [
                    ours,
                    f"{count:,}",
                    f"{rate:.1f}",
                    f"{rate * LATENCY_S / concurrency:.2f}",
                    f"{rate / alone:.1f}",
                    f"{milliseconds:.1f} ms",
                    mebibytes(sample.peak),
                ]
            )
    heads = ["what", "pictures", "a second", "of concurrency ÷ latency", "of the loop", "processor a picture"]
    print(table([*heads, "peak memory"], rows), end="")


def print_growth(folder: Path, findings: Findings) -> None:
    rows, peaks, seconds = [], [], []
    with stand_in() as variables:
        for count in GROWTH:
            tell(f"{count} pictures")
            sample = score(variables, folder / "growth", count, 128)
            peaks.append(sample.peak)
            seconds.append(sample.seconds)
            rows.append([f"{count:,}", mebibytes(sample.peak), f"{sample.peak / peaks[0]:.2f}"])
    print("\n### Growth of score.py --concurrency 128\n")
    print(table(["pictures", "peak memory", "of the first"], rows), end="")
    findings.grow("score.py --concurrency 128, pictures", GROWTH, seconds=seconds, memory=peaks)


def print_processor(folder: Path, count: int, findings: Findings) -> None:
    """Compare the processor time of the client alone with that of a loop that does nothing but post and parse."""
    call_apart(make_dataset, folder / "processor", count)
    words = [stage_python("score"), "benchmarks/asking_rival.py", "--processor"]
    with stand_in(latency=0) as variables:
        tell("processor time of the client")
        times = run_apart([*words, folder / "processor/data_stage/resized"], variables).result
    each = {name: [seconds / count * 1000 for seconds in rounds] for name, rounds in times.items()}
    client, bare = (statistics.median(each[name]) for name in ("client", "httpx"))
    findings.compare("the client, processor time", "bare loop of httpx", bare / client, bound=True)
    rows = [
        ["client.py, one thread", spread(each["client"]), f"{client / bare:.2f}"],
        ["bare loop of httpx", spread(each["httpx"]), "1.00"],
    ]
    print("\n### Processor time of the client alone\n")
    print(table([f"{count} pictures at a time", "ms a picture", "of the loop"], rows), end="")


def print_tokens() -> None:
    """Compare what a question counts by the price list's rule: nothing is asked."""
    rows = []
    sample = run_apart([stage_python("score"), "benchmarks/asking_rival.py", "--tokens"])
    for row in sample.result["tokens"]:
        ours, examples, full = row["ours"], row["examples"], row["full"]
        rows.append([row["size"], f"{ours:,}", f"{full:,}", f"{examples:,}", f"{ours / examples:.2f}"])
    print("\n### Input tokens of a scored picture, by the rule of gpt-5-mini\n")
    heads = ["picture", "score.py", "score.py --max-side 4096", "the same prompt with three examples", "ratio"]
    print(table(heads, rows), end="")
    print("\nThe examples are sent as large as the model sees them, and their answers are left out.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=1)
    parser.add_argument("--at", type=int, nargs="+", default=[32, 128, 256], metavar="N", help="calls at once")
    parser.add_argument("--seconds", type=int, default=15, metavar="S", help="how long each would take at best")
    args = parser.parse_args(argv)
    print("## Asking a model\n")
    print(
        f"`python benchmarks/asking.py`: a stand-in that takes {LATENCY_S:g} s for every answer, on the same cores.\n"
    )
    print(f"{machine('psutil')}\n")
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        print_throughput(Path(folder), args.at, 3 if args.quick else args.seconds, findings)
        print_processor(Path(folder), 20 if args.quick else PROCESSED, findings)
        if not args.quick:
            print_growth(Path(folder), findings)
    print_tokens()
    findings.close(args.findings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
