"""Overrule the text detector: use the original of these images, whatever it found in them; or, with --paint, paint
over doubtful text.

The detector's result stays in has_ocr and ocr_doubt; `ocr_override` outranks it and survives every new detection. The
outputs made from the image's other version are cleared, so the stages from resize on redo it. An image that was kept
because it is mostly text keeps its outputs. A doubtful image waits for one of the two decisions.

Reads   images.csv: has_ocr
Writes  images.csv: ocr_override, and empties the columns of resize, score, phash, rm_dups and filter

    python preprocess/ocr/ocr_unflag.py --ids 0cc175b9c0f1b6a831c399e269772661 --note "the letters are the picture"
    python preprocess/ocr/ocr_unflag.py --ids-file cleared.txt
    python preprocess/ocr/ocr_unflag.py --paint --ids 0cc175b9
    python preprocess/ocr/ocr_unflag.py --ids 0cc175b9 --undo
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pokefa.ledger.columns import is_true
from pokefa.stage.overrides import Overrule, unflag_main

UNFLAG = Overrule(
    step="ocr_unflag",
    flag="has_ocr",
    override="ocr_override",
    # All outputs of the image itself; captions and splits follow from the filter's new base.csv.
    stale=("resize", "score", "phash", "rm_dups", "filter"),
    again_restored="ocr_inpaint",  # an image that was cleared before it was inpainted
    stale_where=pl.col("resize_source").ne_missing(pl.lit("raw")),
    stale_where_restored=pl.col("resize_source").ne_missing(pl.lit("inpainted")) & ~is_true("ocr_text_dominated"),
    upholding=("paint", "these images have text, although the detector doubts it: inpaint it"),
)


def main(argv: Sequence[str] | None = None) -> int:
    return unflag_main(__doc__, UNFLAG, argv)


if __name__ == "__main__":
    raise SystemExit(main())
