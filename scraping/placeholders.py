"""Placeholders: images that a host sends instead of removed ones, such as an "image removed" notice.

The same bytes come from many pages. The first copy was saved like any other image, so it has a row. The row is set
aside with `drop_reason` `scrape:placeholder`, and a person can restore it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import polars as pl

from pokefa.errors import InputError
from pokefa.ledger import columns
from pokefa.ledger.columns import DROPS, SCHEMAS
from pokefa.ledger.table import KEY, with_missing
from pokefa.stage.rows import find_ids, name_some
from pokefa.stage.runner import StageRun
from scraping.records import Records

PLACEHOLDER = "placeholder"
SET_ASIDE = f"scrape:{PLACEHOLDER}"

log = logging.getLogger("pokefa")


def set_aside_placeholders(run: StageRun, records: Records) -> None:
    """Drop the images that came from many pages.

    An image is set aside once. If its drop_reason is empty afterwards, a person has restored it, and it stays.
    """
    found = records.placeholders()
    if not found:
        return
    run.save()  # merges the rows of this run
    drops = with_missing(run.ledger.drops.read(), DROPS.names)
    before = set(drops.filter((pl.col("stage") == "scrape") & (pl.col("reason") == PLACEHOLDER))[KEY])
    table = run.table()
    for image_id in table.filter(pl.col("drop_reason").is_null() & pl.col(KEY).is_in(list(found)))[KEY]:
        if image_id not in before:
            detail = f"{found[image_id]} pages show these bytes"
            log.warning("%s is set aside: %s; restore it with --keep-placeholder %s", image_id, detail, image_id)
            run.seen += 1
            run.record(image_id, {"drop_reason": SET_ASIDE}, reason="set_aside", drop=PLACEHOLDER, detail=detail)


def keep_placeholders(run: StageRun, named: Sequence[str]) -> None:
    """Restore images that were set aside; later stages process them, and later runs do not set them aside again.

    Raises:
        InputError: an id is unknown, or a prefix of several.
    """
    table = run.table()
    found, unknown = find_ids(named, table[KEY].to_list())
    if unknown:
        raise InputError(f"not in {SCHEMAS['images'].path}: {name_some(unknown)}; nothing was done: correct the ids")
    aside = set(table.filter(columns.PLACEHOLDER)[KEY])
    run.seen = len(found)
    for image_id in found:
        if image_id in aside:
            run.record(image_id, {"drop_reason": None}, reason="let_in")
        else:
            run.counts["not_set_aside"] += 1
            log.info("%s was not set aside as a placeholder", image_id)
