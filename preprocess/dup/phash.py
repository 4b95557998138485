"""Stage 6, first half: the perceptual hash of every resized image.

Reads   images.csv: path_resized
Writes  images.csv: phash64, phash_contrast, phash_variants, phash_run_id, phash_error

`phash64` is `imagehash.phash` of the opened image as 16 hex digits: near-duplicates differ in few of its 64 bits.
`phash_contrast` tells by how many grey levels the picture varies as far as the hash sees it; rm_dups.py takes no notice
of hashes of nearly flat images. --with-variants adds the hashes of the image mirrored and turned, to images hashed
before as well: rm_dups.py --with-variants finds mirrored and turned copies by them.

    python preprocess/dup/phash.py
    python preprocess/dup/phash.py --with-variants
    python preprocess/dup/phash.py --root my-dataset --workers 4
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from pokefa.engine import Pool, Work, each
from pokefa.images import flatten, open_image
from pokefa.options import add_cluster_options, add_data_option, options_from, stage_parser
from pokefa.run import Row, StageRun, run_stage

# imagehash.phash makes the picture grey and this wide and high, and hashes its lowest 8 by 8 frequencies.
SIDE = 32
FREQUENCIES = 8

# Mirrored; turned by a quarter, a half and three quarters; and mirrored in the other three ways.
TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


@dataclass(frozen=True)
class Hashed:
    """What is recorded of an image: `variants` holds a hash for each of TURNS, joined by spaces, or None."""

    phash: str
    contrast: float
    variants: str | None


def shrink(source: Path | bytes) -> Image.Image:
    """Return all that the hash sees of an image: SIDE by SIDE grey pixels, upright, alpha laid on white.

    Args:
        source: the image file, or its bytes.

    Raises:
        ImageError: it cannot be opened.
    """
    return flatten(open_image(source)).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def phash_of(small: Image.Image) -> str:
    """Return the 64-bit perceptual hash of a shrunken image as 16 hex digits; that of the whole image is the same."""
    import imagehash

    return str(imagehash.phash(small))


def contrast_of(small: Image.Image) -> float:
    """Return by how many of 255 grey levels a shrunken image varies in the frequencies of the hash, to two decimals.

    That is the standard deviation of the picture made of these frequencies alone, which by Parseval's theorem is the
    root of the sum of their squares, but for the mean, divided by the side.
    """
    import numpy as np
    from scipy.fft import dctn

    lowest = dctn(np.asarray(small, np.float64), norm="ortho")[:FREQUENCIES, :FREQUENCIES]
    lowest[0, 0] = 0
    return round(float(np.sqrt((lowest**2).sum())) / SIDE, 2)


@dataclass(frozen=True)
class HashRows:
    """The worker: hashes the files of a batch of rows."""

    data: Path
    with_variants: bool

    def __call__(self) -> Work[Row, Hashed]:
        return each(self.hash_row)

    def hash_row(self, row: Row) -> Hashed:
        small = shrink(self.data / str(row["path_resized"]))
        turned = " ".join(phash_of(small.transpose(turn)) for turn in TURNS) if self.with_variants else None
        return Hashed(phash_of(small), contrast_of(small), turned)


def hash_images(run: StageRun, *, with_variants: bool) -> None:
    """Hash every pending image; with variants, one that has none yet is pending."""
    step = replace(run.step, done="phash_variants") if with_variants else run.step
    rows = run.rows(["path_resized"], step)
    pool = Pool(workers=run.options.workers, batch_size=8)
    for row, hashed in run.map(HashRows(run.data, with_variants), rows, pool):
        cells = {
            "phash64": hashed.phash,
            "phash_contrast": hashed.contrast,
            "phash_variants": hashed.variants,
        }
        run.record(str(row["image_id"]), cells, reason="hashed")


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, workers=True)
    parser.add_argument("--with-variants", action="store_true", help="also hash the image mirrored and turned")
    add_data_option(parser)
    add_cluster_options(parser, "dup", batches=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_stage(
        "phash",
        lambda: options_from(args),
        lambda run: hash_images(run, with_variants=args.with_variants),
        arguments=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
