"""Stage 8, third step: merges new captions into the final set.

Reads   metadata/recap_captions.csv: image_id, caption, tags, model, run_id, reasons, replaces; base.csv
Writes  base.csv: caption, tags; images.csv: caption_model, caption_run_id, caption_error

A new caption only replaces the caption that it was made for. If base.csv holds another one by now, from a person or a
later run, that stays. A manually written file only needs image_id, caption and tags; without `replaces` its captions
are merged whatever base.csv holds. The run's journal keeps the old caption. Run hybrid_captions.py and
webdataset/species.py afterwards to apply the changed captions.

    python caption/recap_merge.py --dry-run
    python caption/recap_merge.py
    python caption/recap_merge.py --root my-dataset --only-missing
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from caption.tags import clean_sentence, tags_from_cell, tags_to_cell
from pokefa.console import show
from pokefa.errors import InputError
from pokefa.ledger.table import KEY
from pokefa.llm.recaps import RECAP_CAPTIONS_FILE, RecapCaption, read_recap_captions
from pokefa.setup.steps import STEPS
from pokefa.stage.options import stage_parser
from pokefa.stage.rows import eligible_rows
from pokefa.stage.runner import Row, StageRun, decode_rows, run_stage


def verdict(old_caption: str | None, old_tags: str | None, new: RecapCaption, *, only_missing: bool) -> str:
    """Return what to do with a new caption, as a slug: `merged`, or why it is not merged."""
    if (old_caption, old_tags) == (new.caption, new.tags):
        return "already_merged"
    if old_caption and only_missing:
        return "has_caption"
    if old_caption and new.replaces and old_caption != new.replaces:
        return "changed_since"
    return "merged"


def cleaned(new: RecapCaption) -> RecapCaption:
    """Return a new caption with normalized cells; a person may have edited the file.

    Raises:
        InputError: the caption holds no sentence, or its tags are invalid.
    """
    sentence = clean_sentence(new.caption)
    if not sentence:
        raise InputError(f"{RECAP_CAPTIONS_FILE}, image {new.image_id}, caption: {new.caption!r} is no sentence")
    tags = tags_to_cell(tags_from_cell(new.image_id, new.tags, RECAP_CAPTIONS_FILE))
    return RecapCaption(**{**vars(new), "caption": sentence, "tags": tags})


def merge_captions(run: StageRun, *, only_missing: bool) -> None:
    """Merge every waiting caption that still fits."""
    waiting = {image_id: cleaned(new) for image_id, new in read_recap_captions(run.root).items()}
    # cap_filter.py may have dropped an image because of its old caption, and restores it itself.
    frame = eligible_rows(run.table(), STEPS["cap_filter"])
    rows = {str(row[KEY]): row for row in decode_rows(frame, ["caption", "tags"], run.step) if row[KEY] in waiting}
    run.seen = len(waiting)
    for image_id, new in waiting.items():
        row = rows.get(image_id)
        slug = "not_in_base" if row is None else verdict(*texts_of(row), new, only_missing=only_missing)
        if row is None or slug != "merged":
            run.counts[slug] += 1
        else:
            merge_one(run, row, new)


def merge_one(run: StageRun, row: Row, new: RecapCaption) -> None:
    """Record one new caption, and the old one with it."""
    caption, tags = texts_of(row)
    if run.options.dry_run:
        show([new.image_id, f"  - {caption or ''}", f"  + {new.caption}", f"  - {tags or ''}", f"  + {new.tags}"])
    run.note({KEY: new.image_id, "old_caption": caption, "old_tags": tags})
    made_by: Mapping[str, str | None] = {
        "caption_model": new.model or "by hand",
        "caption_run_id": new.run_id,
        "caption_error": None,
    }
    run.set_cells("images", new.image_id, made_by)
    run.record(new.image_id, {"caption": new.caption, "tags": new.tags}, reason="merged")


def texts_of(row: Row) -> tuple[str | None, str | None]:
    caption, tags = row["caption"], row["tags"]
    return (None if caption is None else str(caption)), (None if tags is None else str(tags))


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument("--only-missing", action="store_true", help="only where base.csv has no caption")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    only_missing = args.only_missing
    return run_stage(
        "recap_merge",
        args,
        lambda run: merge_captions(run, only_missing=only_missing),
    )


if __name__ == "__main__":
    raise SystemExit(main())
