"""The results and cost of text detection: by text height and setting, and the stage compared with bare calls.

    python benchmarks/text_detection.py                      on half of the labelled pictures: under five minutes
    python benchmarks/text_detection.py --pictures 200       on all of them
    python benchmarks/text_detection.py --part speed --rounds 5

The work runs in the environment of the ocr stage.

A text of demo/art/text_set.py is found when the mask covers at least half of its ink. Its height is the font's size in
pixels. A text-free image is a false alarm when anything in it counts as text.

Speed is that of one worker on all cores, from files to boxes and masks. The bare calls get prepared arrays: the same
views, cut and scaled, and where the stage reads, the same crops. The worker's bound is bare calls for one image per
core, as the worker makes them. Start-up is excluded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import Against, Bench, bench_main, tell
from benchmarks.markdown import mebibytes, table
from benchmarks.measuring import Sample, call_in
from benchmarks.text_detection_speed import BARE, BARE_AND_READER, CORE_EACH, STAGE, UNREAD_STAGE

PICTURES = 100
SPEED_PICTURES = 24
PARTS = ("settings", "speed")
BANDS = ((10, 10), (12, 12), (14, 14), (16, 24), (32, 72), (100, 200))
LARGE = (16, 200)
WANTED = {LARGE: 0.95, (12, 12): 0.8}
MOST_FALSE_ALARMS = 0.03
LEAST_OF_BARE = 0.9
# What is compared, and the goals.
AGAINST = (
    Against(UNREAD_STAGE, BARE, LEAST_OF_BARE),
    Against(STAGE, BARE_AND_READER, LEAST_OF_BARE),
    Against(STAGE, BARE),
    Against(UNREAD_STAGE, CORE_EACH, bound=True),
)


def share(found: Sequence[Sequence[Any]], band: tuple[int, int], kind: str = "") -> str:
    """Return the share of texts found, for some heights and one kind, as text."""
    rows = [row for row in found if band[0] <= row[0] <= band[1] and row[1].startswith(kind)]
    hits, count = sum(row[3] for row in rows), sum(row[4] for row in rows)
    return f"{hits / count:.2f}" if count else ""


def print_settings(results: Mapping[str, Any]) -> None:
    """Show recall by height, false alarms and cost for each setting."""
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
    """Show what each setting finds of each kind of text, and its false alarms by kind."""
    kinds = sorted({row[1] for result in results.values() for row in result["found"]})
    rows = []
    for name, result in results.items():
        what = ", ".join(f"{ground} {count}" for ground, count in sorted(result["false_alarms"].items())) or "none"
        rows.append([name, *(share(result["found"], (0, 1000), kind) for kind in kinds), what])
    print("\n### The same by kind, with what was taken for text")
    print(table(["setting", *kinds, "false alarms"], rows), end="")


def measure_settings(bench: Bench) -> None:
    pictures = 8 if bench.quick else bench.args.pictures
    tell(f"settings, on {pictures} pictures")
    result = call_in("ocr", "benchmarks.text_detection_programs.try_settings", pictures).result
    print(f"\nThe first {pictures} of the 200 pictures of demo/art/text_set.py, every second one with text.")
    print_settings(result)
    print_kinds(result)


def measure_speed(bench: Bench) -> None:
    """Show images per second, and compare."""
    pictures = 4 if bench.quick else SPEED_PICTURES
    tell(f"speed of the stage, on {pictures} pictures")
    call_in("ocr", "benchmarks.text_detection_programs.draw", pictures, bench.folder)
    timed = call_in("ocr", "benchmarks.text_detection_speed.time_stage", bench.folder, bench.args.rounds)
    result = timed.result
    samples = {
        f"detection: {name}" if name in (STAGE, UNREAD_STAGE) else name: [
            Sample(wall, result["peak"], processor=processor, working=wall) for wall, processor in rounds
        ]
        for name, rounds in result["rounds"].items()
    }
    counts = dict.fromkeys(samples, 1)
    print(f"\n### Speed; the worker held at most {mebibytes(result['peak'])}, in a process with all of these")
    columns = {"processor seconds a picture": lambda _, these: f"{these[0].processor:.2f}"}
    bench.show_rates(samples, counts, "pictures", columns)
    bench.compare(samples, counts, (one._replace(what=f"detection: {one.what}") for one in AGAINST))
    bench.rate("ocr_pipeline.py detect", 1, samples[f"detection: {STAGE}"])


def measure(bench: Bench) -> None:
    for part in bench.args.part or PARTS:
        (measure_settings if part == "settings" else measure_speed)(bench)


if __name__ == "__main__":
    flags = {
        "--part": {"choices": PARTS, "action": "append", "help": "only this part; may be given again"},
        "--pictures": {"type": int, "default": PICTURES, "metavar": "N", "help": "labelled pictures, 200 at most"},
    }
    raise SystemExit(bench_main(__doc__, "Text detection", measure, rounds=3, flags=flags))
