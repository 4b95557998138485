"""Write a page to review the images that a stage flagged, and to override wrong flags.

The page is one file and needs no server. It shows the flagged images, closest to the threshold first, with scores,
tags, boxes, duplicates or captions. Select images with the mouse or the keyboard. One button copies the command for
them, another saves their ids for --ids-file. The browser stores the selection, so it survives a reload and a new page.
NSFW images are blurred until you show them. Enter opens an image at full size, if the page is still in the dataset. A
page of 5,000 images has 15 to 30 MB, and keeps only those near the window in the document.

nsfw_unflag.py and ocr_unflag.py clear the selected images. dup and filter have no overrides, so the page computes
settings that would keep the images. For caption, the command captions them again.

Reads   images.csv, base.csv, the image files, boxes of text; metadata/recap.csv for --stage caption
Writes  metadata/review-<stage>.html

    python metadata/review.py --stage nsfw
    python metadata/review.py --stage ocr --root my-dataset
    python metadata/review.py --stage dup --root my-dataset --limit 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.files import write_text
from pokefa.reporting.pages import render
from pokefa.reporting.review_data import Dataset, Flagged
from pokefa.reporting.review_pictures import small_pictures
from pokefa.reporting.review_stages import STAGES, Action
from pokefa.setup.runner import command_line
from pokefa.stage.options import positive_int, reading_parser
from pokefa.stage.reader import Reading, run_reading

MOST_IMAGES = 5000


def page_data(stage: str, flagged: Sequence[Flagged], actions: Sequence[Action], root: Path) -> dict[str, Any]:
    """Return the data of the page's script; a file used by several images is in it once."""
    places: dict[str, int] = {}

    def place(path: str) -> int:
        return places.setdefault(path, len(places))

    items = [item_data(each, place) for each in flagged]
    return {
        "stage": stage,
        "items": items,
        "actions": [action_data(action, root) for action in actions],
        "paths": list(places),
        "pictures": small_pictures(root, list(places)),
    }


def item_data(each: Flagged, place: Any) -> dict[str, Any]:
    """Return one image for the page's script; `place` gives the number of a file."""
    data = {name: value for name, value in asdict(each).items() if name != "closeness" and value not in ([], "", {})}
    data["pictures"] = [
        {
            "caption": picture.caption,
            "place": place(picture.path),
            **({"boxes": picture.boxes, "size": picture.size} if picture.boxes else {}),
            **({"veiled": True} if picture.veiled else {}),
        }
        for picture in each.pictures
    ]
    data["mates"] = [
        {"id": mate.image_id, "place": place(mate.path), **({"veiled": True} if mate.veiled else {})}
        for mate in each.mates
    ]
    return data


def action_data(action: Action, root: Path) -> dict[str, Any]:
    """Return an action for the page's script, with its command as run from the repository root."""
    script, *flags = action.words
    by_ids = flags[-1:] == ["--ids"]
    start = command_line(script, root, flags[:-1] if by_ids else flags)
    return {
        "label": action.label,
        "note": action.note,
        "kind": action.kind,
        "start": f"{start} --ids" if by_ids else start,
        "file": f"{start} --ids-file" if by_ids else None,
        "settings": action.settings,
    }


def write_review(reading: Reading, name: str, limit: int) -> None:
    """Write the page of one stage, if its content has changed."""
    stage, data = STAGES[name], Dataset(reading.root, reading.ledger)
    flagged = sorted(stage.find(data), key=lambda each: (each.closeness, each.image_id))
    chosen = flagged[:limit]
    images = data.tables.images
    values = {
        "stage": stage,
        "total": len(flagged),
        "shown": len(chosen),
        "veils": any(each.veiled for each in chosen),
        "cleared": len(images.filter(pl.col(stage.cleared).is_not_null())) if stage.cleared else 0,
        "data": page_data(name, chosen, stage.actions(data), reading.root),
    }
    path = f"metadata/review-{name}.html"
    written = write_text(reading.root / path, render("review", images="data: file: 'self'", **values))
    reading.seen, reading.done = len(flagged), len(chosen)
    reading.extra = {"path": path, "written": written}


def build_parser() -> argparse.ArgumentParser:
    parser = reading_parser(__doc__)
    parser.add_argument("--stage", required=True, choices=list(STAGES), help="the stage whose flags to review")
    parser.add_argument(
        "--limit",
        type=positive_int,
        default=MOST_IMAGES,
        metavar="N",
        help=f"at most N images (default: {MOST_IMAGES})",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    stage, limit = args.stage, args.limit
    return run_reading("review", args.root, lambda reading: write_review(reading, stage, limit), alone=True)


if __name__ == "__main__":
    raise SystemExit(main())
