"""Stage 2, manual: clear images that the NSFW screen flagged and a person found harmless.

Reads   images.csv: is_nsfw
Writes  images.csv: nsfw_override, and empties the columns of rm_dups and filter

The override takes precedence over the model and survives every run of nsfw_filter.py; `is_nsfw` is unchanged. The
decisions of rm_dups.py and filter.py about the flagged image are emptied, and the image is pending for the later
stages, which the summary lists as `run_again`. Unique prefixes of ids are enough. An unknown id stops the command with
exit code 2 and no change, unless --ignore-unknown is given.

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
    stale=("rm_dups", "filter"),  # they decide over all images at once; other results stay valid
    again="ocr_detect",
    again_restored="rm_dups",
)


def main(argv: Sequence[str] | None = None) -> int:
    return unflag_main(__doc__, UNFLAG, argv)


if __name__ == "__main__":
    raise SystemExit(main())
