"""What the text stage finds in images that the project did not draw, and what its masks touch.

    python benchmarks/text_finding.py --found found.json      of benchmarks/text_set_programs.py

Writes Markdown to stdout. A mark is found when the mask covers half of its ink. A text-free image is a false alarm when
anything in it is masked without asking a person first.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.markdown import table

FOUND = 0.5
HEIGHTS = (10, 12, 16, 30, 60, 120, 1000)
LARGE = 0.03
Mark = dict[str, Any]

GROUPS: dict[str, Callable[[Mark], bool]] = {
    "upright, opaque, 16 px and more": lambda mark: mark["opacity"] == 1 and mark["height"] >= 16,
    "upright, opaque, 12 px": lambda mark: mark["opacity"] == 1 and mark["height"] == 12,
    "upright, opaque, 10 px": lambda mark: mark["opacity"] == 1 and mark["height"] == 10,
    "watermarks: faint, most of them slanted": lambda mark: mark["opacity"] < 1,
}
SPLITS: dict[str, Callable[[Mark], Any]] = {
    "height": lambda mark: next(f"up to {limit} px" for limit in HEIGHTS if mark["height"] <= limit),
    "slant": lambda mark: abs(mark["angle"]) // 15 * 15,
    "opacity": lambda mark: mark["opacity"],
    "script": lambda mark: mark["script"],
    "kind": lambda mark: mark["kind"],
    "across a figure's edge": lambda mark: mark["edge"],
    "ground": lambda mark: mark["ground"],
}


def share(marks: Sequence[Mark]) -> str:
    found = sum(mark["covered"] >= FOUND for mark in marks)
    return f"{found / len(marks):.2f} ({found} of {len(marks)})" if marks else ""


def print_marks(marks: Sequence[Mark]) -> None:
    print("\n### Share of the marks found")
    print(table(["marks", "found"], [[name, share([*filter(of, marks)])] for name, of in GROUPS.items()]), end="")
    for name, value in SPLITS.items():
        values = sorted({value(mark) for mark in marks}, key=lambda each: (len(str(each)), each))
        print(table([name, *values], [["found", *(share([m for m in marks if value(m) == each]) for each in values)]]))
    print("What the others were:", ", ".join(f"{why} {n}" for why, n in Counter(m["why"] for m in marks).most_common()))


def print_pictures(pictures: Sequence[dict[str, Any]]) -> None:
    """Show false alarms, doubt, areas and cost."""
    free = [picture for picture in pictures if not picture["marks"]]
    alarms = [picture for picture in free if picture["masked"] and not picture["doubt"]]
    marked = [picture for picture in pictures if picture["marks"] and picture["masked"]]
    unasked = [picture for picture in marked if not picture["doubt"]]
    rows = [
        ["text-free pictures", len(free)],
        ["of them painted over", len(alarms)],
        [f"more than {LARGE:.0%} of them", sum(picture["masked"] > LARGE for picture in alarms)],
        ["left to a person", dict(Counter(picture["doubt"] for picture in free if picture["doubt"]))],
        ["pictures with text found", len(marked)],
        ["of them left to a person", dict(Counter(picture["doubt"] for picture in marked if picture["doubt"]))],
        [
            "mask of strokes over mask of boxes",
            f"{total(marked, 'masked') / max(1e-9, total(marked, 'boxes_masked')):.2f}",
        ],
        ["share of figures touched, unasked", f"{mean(picture['figure_touched'] for picture in unasked):.4f}"],
        ["processor seconds a picture, without decoding", f"{mean(picture['seconds'] for picture in pictures):.3f}"],
    ]
    print("\n### Pictures")
    print(table(["what", "value"], rows), end="")
    painted = [picture for picture in pictures if "strokes" in picture]
    rows = []
    for way in ("strokes", "boxes"):
        these = [picture[way] for picture in painted]
        left = [still for each in these for still in each["still_found"]]
        errors = [f"{mean(each[name] for each in these):.2f}" for name in ("error_inside", "error_outside")]
        rows.append([way, *errors, f"{sum(left)} of {len(left)}"])
    if painted:
        print(f"\n### Painted over with OpenCV, {len(painted)} pictures, against the clean ones (levels of 255)")
        print(table(["mask", "error in the ink", "error beside it", "marks still found"], rows), end="")


def total(pictures: Sequence[dict[str, Any]], name: str) -> float:
    return sum(picture[name] for picture in pictures)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--found", type=Path, required=True, metavar="FILE", help="output of the program `find`")
    args = parser.parse_args(argv)
    pictures = json.loads(args.found.read_text(encoding="utf-8"))
    print(f"## Text on grounds that the project did not draw\n\n{len(pictures)} pictures.")
    print_marks([mark | {"ground": picture["ground"]} for picture in pictures for mark in picture["marks"]])
    print_pictures(pictures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
