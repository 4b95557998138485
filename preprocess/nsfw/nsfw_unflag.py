"""Stage 2, by hand: clear images that the NSFW screen flagged and a person found harmless.

Reads   images.csv: is_nsfw
Writes  images.csv: nsfw_override, and empties the columns of rm_dups and filter

The override outranks the model everywhere and survives every re-run of nsfw_filter.py; `is_nsfw` stays as the model
said. What rm_dups.py and filter.py decided about the image as a flagged one is emptied, and the later stages find it
pending: the summary's `run_again` names them. Ids may be shortened to what is unique. Ids that the ledger does not hold
change nothing and exit 2, unless --ignore-unknown.

    python preprocess/nsfw/nsfw_unflag.py --ids 0cc175b9 92eb5ffe --note "pink flowers"
    python preprocess/nsfw/nsfw_unflag.py --ids-file harmless.txt --dry-run
    python preprocess/nsfw/nsfw_unflag.py --ids 0cc175b9 --undo
"""

from __future__ import annotations

from collections.abc import Sequence

from pokefa.stage.overrides import Overrule, unflag_main

UNFLAG = Overrule(
    step="nsfw_unflag",
    flag="is_nsfw",
    override="nsfw_override",
    stale=("rm_dups", "filter"),  # they decide over all images at once; the others' results are as true as before
    again="ocr_detect",
    again_undone="rm_dups",
)


def main(argv: Sequence[str] | None = None) -> int:
    return unflag_main(__doc__, UNFLAG, argv)


if __name__ == "__main__":
    raise SystemExit(main())
