"""Why a row of base.csv that belongs to no split is in no shard: each gets a reason, which starts with a slug."""

from __future__ import annotations

import json

from shards.plan import tags_in

# Left out on purpose, or waiting for a stage that comes before; a row with another reason needs somebody's help.
HARMLESS = ("dropped", "no_caption", "no_species", "no_split")


def why_in_no_split(
    image_id: str, drop_reason: str | None, caption: str | None, tags: str | None, species: str | None, *, failed: bool
) -> str:
    """Return the first thing that keeps a row out of the split, in the order of the stages.

    Args:
        drop_reason, caption, tags, species: its cells; drop_reason is None where no earlier stage dropped it.
        failed: the last try to caption it ended in an error.
    """
    if drop_reason is not None:
        return f"dropped: {drop_reason}"
    try:
        if caption is None:
            script = "caption/sentence_tags.py"
            return f"caption_failed: run {script} --retry-errors" if failed else f"no_caption: run {script} first"
        tags_in(tags or "")
        pokemon_in(tags or "")
    except ValueError as error:
        return str(error)
    missing = "species" if species is None else "split"
    return f"no_{missing}: run webdataset/{missing}.py first"


def pokemon_in(tags: str) -> list[str]:
    """Return the names under `pokemon` in the text of a tags cell.

    Raises:
        ValueError: the text is not a JSON object whose `pokemon`, if any, is a list of texts.
    """
    try:
        found = json.loads(tags)
    except (ValueError, RecursionError):
        found = None
    names = found.get("pokemon", []) if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("bad_tags: the tags are not a JSON object with a list `pokemon`; caption the image again")
    return names
