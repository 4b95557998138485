"""What text detection finds and costs: by text height and setting, and the stage beside bare PaddleOCR calls.

    python benchmarks/text_detection.py                      on half of the labelled pictures: under four minutes
    python benchmarks/text_detection.py --pictures 200       on all of them
    python benchmarks/text_detection.py --part speed --rounds 5

Writes Markdown to stdout. Run it in the environment of requirements/requirements_benchmarks.txt, with PYTHONPATH=.
unless that holds the project; the work itself runs in that of the ocr stage.

A writing of demo/text_set.py is found when the mask covers at least half of its ink. Its height is the font's size in
pixels. A text-free picture is a false alarm when anything in it counts as text. Seconds are those of the looks and of
what follows them, on all cores, without opening the picture and writing the mask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measuring import bench_parser, machine, run_apart, spread, stage_python, table, tell

PICTURES = 100
SPEED_PICTURES = 16
PARTS = ("settings", "speed")
BANDS = ((10, 10), (12, 12), (14, 14), (16, 24), (32, 72), (100, 200))
LARGE = (16, 200)
WANTED = {LARGE: 0.95, (12, 12): 0.8}
MOST_FALSE_ALARMS = 0.03
BARE = "bare PaddleOCR calls on ready arrays"
LEAST_OF_BARE = 0.9


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
    print(table(["setting", *names, "16 px and more", "false alarms", "seconds a picture"], rows), end="")


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


def print_speed(speeds: Mapping[str, Sequence[float]]) -> None:
    """Show images per second, and as a share of the bare calls in the same round."""
    rows = []
    for name, these in speeds.items():
        ratios = [ours / bare for ours, bare in zip(these, speeds[BARE], strict=True)]
        rows.append(
            [name, spread(these), spread(ratios) if name != BARE else "", "" if name == BARE else LEAST_OF_BARE]
        )
    print("\n### Images per second of the stage and of bare calls, one look at scale 1")
    print(table(["what", "images per second", "over bare calls", "wanted at least"], rows), end="")


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__, rounds=3)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be given again")
    parser.add_argument("--pictures", type=int, default=PICTURES, metavar="N", help="labelled pictures, 200 at most")
    args = parser.parse_args(argv)
    parts = args.part or PARTS
    python = stage_python("ocr")
    program = [python, "-m", "benchmarks.text_detection_programs"]
    print(f"## Text detection\n\n{machine('psutil')}")
    if "settings" in parts:
        pictures = 8 if args.quick else args.pictures
        tell(f"settings, on {pictures} pictures")
        sample = run_apart([*program, "settings", "--pictures", pictures])
        print_settings(sample.result)
        print_kinds(sample.result)
    if "speed" in parts:
        pictures = 2 if args.quick else SPEED_PICTURES
        tell(f"speed, on {pictures} pictures")
        sample = run_apart([*program, "speed", "--pictures", pictures, "--rounds", args.rounds])
        print_speed(sample.result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
