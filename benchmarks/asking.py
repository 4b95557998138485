"""The cost of asking a model: score.py against a stand-in server that takes one second per answer.

    python benchmarks/asking.py                       about four minutes
    python benchmarks/asking.py --at 32 256 --seconds 20

The stand-in (not OpenAI: it gives the same answer for every image) runs in a separate process on the same cores.
score.py is compared with a loop of single calls of the openai package, and with concurrency ÷ latency. Images have 256
× 256 pixels, so that calls are measured rather than decoding. Start-up is excluded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.datasets import write_ledger
from benchmarks.harness import Against, Bench, bench_main, tell
from benchmarks.markdown import spread, table
from benchmarks.measuring import Sample, call_apart, run_apart, run_stage, serving, stage_python

LATENCY_S = 1.0
LOOPED = 10  # calls of the loop
LOOP = "loop of single calls"
BOUND = "concurrency ÷ latency"
SIDE = 256
PROCESSED = 200  # images for which the processor time is measured
CLIENT, HTTPX = "the client, processor time", "bare loop of httpx"
GROWTH = (50, 500, 5_000)
WANTED = 0.9  # of the bound


def make_dataset(root: Path, count: int) -> None:
    """Write `count` different images and a ledger in which they wait for scoring."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(7)
    folder = root / "data_stage/resized"
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(folder / f"{number:032x}.jpg")
    write_ledger(root, folder, "path_resized")


@contextmanager
def stand_in(latency: float = LATENCY_S) -> Iterator[dict[str, str]]:
    """Run the stand-in; yield the environment variables that select it."""
    words = [stage_python("score"), "-m", "demo.standins.openai_standin", "--latency", latency, "--fixed"]
    with serving(words) as server:
        yield {"OPENAI_BASE_URL": server["openai"], "OPENAI_API_KEY": "key-of-the-benchmark"}


def score(variables: dict[str, str], folder: Path, concurrency: int, count: int) -> Sample:
    """Score `count` new images."""
    root = folder / f"{count}-{concurrency}"
    call_apart(make_dataset, root, count)
    return run_stage("score", "preprocess/score/score.py", root, "--concurrency", concurrency, variables=variables)


def loop(variables: dict[str, str], folder: Path) -> Sample:
    """Score with a simple loop, one call after the other."""
    call_apart(make_dataset, folder / "loop", LOOPED)
    words = [stage_python("score"), "benchmarks/asking_rival.py", folder / "loop/data_stage/resized"]
    return run_apart(words, variables)


def measure_processor(bench: Bench, count: int) -> None:
    """Compare the processor time of the client with that of a minimal loop that only posts and parses."""
    root = bench.folder / "processor"
    call_apart(make_dataset, root, count)
    words = [stage_python("score"), "benchmarks/asking_rival.py", "--processor", root / "data_stage/resized"]
    with stand_in(latency=0) as variables:
        tell("processor time of the client")
        times = run_apart(words, variables).result
    names = {"client": CLIENT, "httpx": HTTPX}
    samples = {names[name]: [Sample(one, 0, working=one) for one in rounds] for name, rounds in times.items()}
    counts = dict.fromkeys(samples, count)
    print(f"\n### Processor time of the client alone: {count} pictures at a time, seconds of one thread")
    columns = {"ms a picture": lambda _, these: spread(1000 * sample.seconds / count for sample in these)}
    bench.show_rates(samples, counts, "pictures", columns)
    bench.compare(samples, counts, [Against(CLIENT, HTTPX, bound=True)])


def print_tokens() -> None:
    """Compare the tokens of questions, by the rule of the price list; nothing is sent."""
    rows = []
    for row in run_apart([stage_python("score"), "benchmarks/asking_rival.py", "--tokens"]).result["tokens"]:
        counts = [row[name] for name in ("ours", "full", "examples")]
        rows.append([row["size"], *(f"{count:,}" for count in counts), f"{counts[0] / counts[2]:.2f}"])
    print("\n### Input tokens of a scored picture, by the rule of gpt-5-mini; answers of the examples are left out")
    heads = ["picture", "score.py", "score.py --max-side 4096", "the same prompt with three examples", "ratio"]
    print(table(heads, rows), end="")


def measure(bench: Bench) -> None:
    seconds = 3 if bench.quick else bench.args.seconds
    ours = {f"score.py --concurrency {concurrency}": concurrency for concurrency in bench.args.at}
    counts = {name: concurrency * seconds for name, concurrency in ours.items()} | {LOOP: LOOPED}
    with stand_in() as variables:
        ask = partial(score, variables, bench.folder)
        runs = {LOOP: partial(loop, variables, bench.folder)}
        runs |= {name: partial(ask, concurrency, counts[name]) for name, concurrency in ours.items()}
        samples = bench.run(runs, rounds=1)
        reached = {
            name: counts[name] / samples[name][0].working * LATENCY_S / concurrency
            for name, concurrency in ours.items()
        }
        columns = {
            "processor ms a picture": lambda name, these: f"{1000 * these[0].processor / counts[name]:.1f}",
            f"of {BOUND}": lambda name, _: f"{reached[name]:.2f}" if name in reached else "",
        }
        bench.show_rates(samples, counts, "pictures", columns)
        bench.compare(samples, counts, [Against(name, LOOP) for name in ours], start_up=False)
        for name, share in reached.items():
            bench.note(name, BOUND, share, WANTED, bound=True)
        if not bench.quick:
            grown = bench.folder / "growth"
            bench.measure_growth("score.py --concurrency 128, pictures", GROWTH, partial(score, variables, grown, 128))
    measure_processor(bench, 20 if bench.quick else PROCESSED)
    print_tokens()


if __name__ == "__main__":
    flags = {
        "--at": {"type": int, "nargs": "+", "default": [32, 128, 256], "metavar": "N", "help": "calls at once"},
        "--seconds": {"type": int, "default": 15, "metavar": "S", "help": "how long each would take at best"},
    }
    raise SystemExit(bench_main(__doc__, "Asking a model", measure, flags=flags))
