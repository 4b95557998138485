"""Stage 6, first half: the perceptual hash of every resized image.

Reads   images.csv: path_resized
Writes  images.csv: phash64, phash_contrast, phash_variants, phash_run_id, phash_error

`phash64` is `imagehash.phash` of the opened image as 16 hex digits: near-duplicates differ in few of its 64 bits.
`phash_contrast` is the contrast of the image in the frequencies of the hash, in grey levels; rm_dups.py ignores the
hashes of nearly flat images. --with-variants adds the hashes of the mirrored and rotated image, also for images hashed
before, so that rm_dups.py --with-variants finds mirrored and rotated copies.

    python preprocess/dup/phash.py
    python preprocess/dup/phash.py --with-variants
    python preprocess/dup/phash.py --root my-dataset --workers 4
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pokefa.duplicates.hashing import hash_images
from pokefa.stage.options import add_cluster_options, add_data_option, add_decoding_options, stage_parser
from pokefa.stage.runner import run_stage


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, workers=True)
    parser.add_argument("--with-variants", action="store_true", help="also hash the mirrored and rotated image")
    add_data_option(parser)
    add_decoding_options(parser)
    add_cluster_options(parser, "dup", batches=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_stage(
        "phash",
        args,
        lambda run: hash_images(run, with_variants=args.with_variants),
    )


if __name__ == "__main__":
    raise SystemExit(main())
