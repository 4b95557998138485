"""Stage 2, by hand: clear images that the NSFW screen flagged and a person found harmless.

Reads   images.csv: is_nsfw
Writes  images.csv: nsfw_override

The override outranks the model everywhere and survives every re-run of nsfw_filter.py; `is_nsfw` stays as the model
said. The later stages find the image pending: the summary's `run_again` names them. Ids may be shortened to what is
unique. Ids that the ledger does not hold change nothing and exit 2, unless --ignore-unknown.

    python preprocess/nsfw/nsfw_unflag.py --ids 0cc175b9 92eb5ffe --note "pink flowers"
    python preprocess/nsfw/nsfw_unflag.py --ids-file harmless.txt --dry-run
    python preprocess/nsfw/nsfw_unflag.py --ids 0cc175b9 --undo
"""

from __future__ import annotations

from collections.abc import Sequence

from pokefa.overrides import unflag_main


def main(argv: Sequence[str] | None = None) -> int:
    return unflag_main(__doc__, step="nsfw_unflag", flag="is_nsfw", override="nsfw_override", stale=[], argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
