"""What text detection finds and costs: by text height and setting, and the stage beside bare calls and another engine.

    python benchmarks/text_detection.py                      on half of the labelled pictures: under five minutes
    python benchmarks/text_detection.py --pictures 200       on all of them
    python benchmarks/text_detection.py --part speed --rounds 5

Writes Markdown to stdout. Run it in the environment of requirements/requirements_benchmarks.txt, with PYTHONPATH=.
unless that holds the project; the work itself runs in that of the ocr stage, and the paddle engine in that of
requirements/requirements_benchmarks_paddle.txt.

A writing of demo/art/text_set.py is found when the mask covers at least half of its ink. Its height is the font's size
in pixels. A text-free picture is a false alarm when anything in it counts as text.

Speed is that of one worker on all cores, from files to boxes and masks. The bare calls get arrays that lie ready: the
same looks, cut and scaled, and where the stage reads, the same cuttings. What bounds the worker are bare calls for one
picture on each core, as the worker makes them. No start-up is counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.findings import Findings
from benchmarks.measuring import bench_parser, machine, mebibytes, run_apart, spread, stage_python, table, tell
from benchmarks.text_detection_speed import BARE, BARE_AND_READER, CORE_EACH, PADDLE, STAGE, UNREAD_STAGE
from pokefa.machine import available_cores

PICTURES = 100
SPEED_PICTURES = 24
PARTS = ("settings", "speed")
BANDS = ((10, 10), (12, 12), (14, 14), (16, 24), (32, 72), (100, 200))
LARGE = (16, 200)
WANTED = {LARGE: 0.95, (12, 12): 0.8}
MOST_FALSE_ALARMS = 0.03
LEAST_OF_BARE = 0.9
# What is compared with what, and what was wanted of it.
COMPARISONS = (
    (UNREAD_STAGE, BARE, LEAST_OF_BARE),
    (STAGE, BARE_AND_READER, LEAST_OF_BARE),
    (STAGE, BARE, None),
    (STAGE, PADDLE, None),
    (UNREAD_STAGE, CORE_EACH, None),
)


def share(found: Sequence[Sequence[Any]], band: tuple[int, int], kind: str = "") -> str:
    """Return the share of the writings of some heights, and of one kind, that were found, as text."""
    rows = [row for row in found if band[0] <= row[0] <= band[1] and row[1].startswith(kind)]
    hits, count = sum(row[3] for row in rows), sum(row[4] for row in rows)
    return f"{hits / count:.2f}" if count else ""


def print_settings(results: Mapping[str, Any]) -> None:
    """Show recall by height, false alarms and cost of each setting."""
    names = [f"{low} px" if low == high else f"{low} to {high} px" for low, high in BANDS]
    rows = []
    for name, result in results.items():
        alarms = sum(result["false_alarms"].values()) / result["without_text"]
        recalls = [share(result["found"], band) for band in BANDS]
        rows.append([name, *recalls, share(result["found"], LARGE), f"{alarms:.0%}", f"{result['seconds']:.2f}"])
    wanted = [f"{WANTED[band]:.2f}" if band in WANTED else "" for band in (*BANDS, LARGE)]
    rows.append(["*wanted at least, or at most*", *wanted, f"{MOST_FALSE_ALARMS:.0%}", ""])
    print("\n### Share of the writings found, by height")
    print(table(["setting", *names, "16 px and more", "false alarms", "processor seconds a picture"], rows), end="")


def print_kinds(results: Mapping[str, Any]) -> None:
    """Show what each setting finds of each kind of writing, and what it takes for text."""
    kinds = sorted({row[1] for result in results.values() for row in result["found"]})
    rows = []
    for name, result in results.items():
        alarms: dict[str, int] = defaultdict(int, result["false_alarms"])
        what = ", ".join(f"{ground} {count}" for ground, count in sorted(alarms.items())) or "none"
        rows.append([name, *(share(result["found"], (0, 1000), kind) for kind in kinds), what])
    print("\n### The same by kind, with what was taken for text")
    print(table(["setting", *kinds, "false alarms"], rows), end="")


def measure_speed(pictures: int, rounds: int) -> dict[str, Any]:
    """Return what the programs of text_detection_speed.py measured, in one."""
    python, paddle = stage_python("ocr"), stage_python("benchmarks_paddle")
    with TemporaryDirectory() as name:
        folder = Path(name)
        draw = [python, "-m", "benchmarks.text_detection_programs", "draw", "--pictures", pictures, "--folder", folder]
        run_apart(draw)
        words = ["-m", "benchmarks.text_detection_speed"]
        flags = ["--folder", folder, "--rounds", rounds]
        tell(f"speed of the stage, on {pictures} pictures")
        stage = run_apart([python, *words, "stage", *flags]).result
        tell("speed of the paddle engine")
        other = run_apart([paddle, *words, "paddle", *flags]).result
    return {"rounds": stage["rounds"] | other["rounds"], "peak": stage["peak"]}


def print_speed(measured: Mapping[str, Any], findings: Findings) -> None:
    """Show pictures per second, and each comparison round by round."""
    rounds: Mapping[str, Sequence[tuple[float, float]]] = measured["rounds"]
    rows = [
        [name, spread(1 / wall for wall, _ in these), spread(processor for _, processor in these)]
        for name, these in rounds.items()
    ]
    print("\n### Pictures per second")
    print(table(["what", "pictures per second", "processor seconds a picture"], rows), end="")
    print(f"\nThe worker held at most {mebibytes(measured['peak'])}.")
    compared: list[list[object]] = []
    for ours, beside, wanted in COMPARISONS:
        ratios = [theirs[0] / mine[0] for mine, theirs in zip(rounds[ours], rounds[beside], strict=True)]
        compared.append([ours, beside, spread(ratios), wanted or ""])
        findings.compare(f"detection: {ours}", beside, median(ratios), bound=beside == CORE_EACH, wanted=wanted)
    print(table(["pictures per second of", "over those of", "ratio", "wanted at least"], compared), end="")
    per_second = median(1 / wall for wall, _ in rounds[STAGE])
    findings.rate("ocr_pipeline.py detect", per_second, available_cores(), measured["peak"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=3)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be given again")
    parser.add_argument(
        "--pictures",
        type=int,
        default=PICTURES,
        metavar="N",
        help=f"labelled pictures, 200 at most (default: {PICTURES})",
    )
    args = parser.parse_args(argv)
    parts = args.part or PARTS
    print(f"## Text detection\n\n{machine()}; rounds: {args.rounds}")
    findings = Findings()
    if "settings" in parts:
        pictures = 8 if args.quick else args.pictures
        tell(f"settings, on {pictures} pictures")
        program = [stage_python("ocr"), "-m", "benchmarks.text_detection_programs", "settings"]
        result = run_apart([*program, "--pictures", pictures]).result
        print(f"\nThe first {pictures} of the 200 pictures of demo/art/text_set.py, every second one with text.")
        print_settings(result)
        print_kinds(result)
    if "speed" in parts:
        print_speed(measure_speed(4 if args.quick else SPEED_PICTURES, args.rounds), findings)
    findings.close(args.findings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
