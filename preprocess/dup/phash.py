"""Stage 6, first half: the perceptual hash of every resized image.

Reads   images.csv: path_resized
Writes  images.csv: phash64, phash_run_id, phash_error

`phash64` is `imagehash.phash` of the opened image as 16 hex digits: near-duplicates differ in few of its 64 bits.

    python preprocess/dup/phash.py
    python preprocess/dup/phash.py --root my-dataset --workers 4
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pokefa.engine import Pool, Work, each
from pokefa.images import flatten, open_image
from pokefa.options import options_from, stage_parser
from pokefa.run import Row, StageRun, run_stage


def phash_of(path: Path) -> str:
    """Return the 64-bit perceptual hash of an image file as 16 hex digits.

    Raises:
        ImageError: the file cannot be opened.
    """
    import imagehash

    return str(imagehash.phash(flatten(open_image(path))))


@dataclass(frozen=True)
class HashRows:
    """The worker: hashes the files of a batch of rows."""

    root: Path

    def __call__(self) -> Work[Row, str]:
        return each(self.hash_row)

    def hash_row(self, row: Row) -> str:
        return phash_of(self.root / str(row["path_resized"]))


def hash_images(run: StageRun) -> None:
    """Hash every pending image."""
    rows = run.rows(["path_resized"])
    for row, phash in run.map(HashRows(run.root), rows, Pool(workers=run.options.workers, batch_size=8)):
        run.record(str(row["image_id"]), {"phash64": phash}, reason="hashed")


def build_parser() -> argparse.ArgumentParser:
    return stage_parser(__doc__, workers=True)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_stage("phash", lambda: options_from(args), hash_images, arguments=argv)


if __name__ == "__main__":
    raise SystemExit(main())
