"""Stage 6, second half: of images that look the same, keep the best one.

Two images are near-duplicates when their hashes differ in at most --threshold of 64 bits; every such pair is found.
The best of a group is kept: one that was not painted over, then highest ae_aesthetic (a missing score is lowest), then
most pixels in the raw file, then earliest ts, then image_id. With --linkage star an image goes only if it lies within
the threshold of the one kept for it; with single, near-duplicates of near-duplicates go too. A flat or nearly flat
image, whose hash says nothing, is a duplicate only of the same bytes. Nothing is deleted, and a run changes only rows
whose answer has changed.

--with-variants finds mirrored and turned copies too. --embeddings takes vectors that you have made with a model of
yours, and also counts images as near whose vectors have a cosine of at least --min-cosine: crops, say.

Reads   images.csv: phash64, phash_contrast, phash_variants, sha256, resize_source, ae_aesthetic, w, h, ts
Writes  images.csv: dupe_group, dupe_rep_image, dupe_distance, dupe_flag, dupe_removed, dupe_keep_reason, dupe_run_id
        drops.csv: a row for each image that goes; metadata/audit/dups-<run_id>.csv: a row for each member of a group

    python preprocess/dup/rm_dups.py --dry-run
    python preprocess/dup/rm_dups.py
    python preprocess/dup/rm_dups.py --root my-dataset --threshold 4 --linkage single
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pokefa.errors import InputError
from pokefa.files import replacing
from pokefa.images.phash import HIGHEST_THRESHOLD, THRESHOLD
from pokefa.ledger.cells import Value
from pokefa.ledger.columns import IMAGES, boolean_cells, is_true
from pokefa.ledger.table import KEY, guard_formulas
from pokefa.stage.options import number, options_from, stage_parser, whole_number
from pokefa.stage.rows import eligible_rows
from pokefa.stage.runner import StageRun, run_stage

if TYPE_CHECKING:
    from preprocess.dup.grouping import Rules

MIN_COSINE = 0.95


READ = ("phash64", "phash_contrast", "sha256", "resize_source", "ae_aesthetic", "w", "h", "ts")
DECIDED = ("dupe_group", "dupe_rep_image", "dupe_distance", "dupe_flag", "dupe_removed", "dupe_keep_reason")
FACTS = (*READ, "path_resized", "source_url")


def typed_rows(frame: pl.DataFrame, *, variants: bool) -> pl.DataFrame:
    """Return the columns that decide, as typed values.

    Raises:
        InputError: no image has variants, and they are to count.
    """
    if variants and len(frame) and frame["phash_variants"].null_count() == len(frame):
        raise InputError("no image has phash_variants: run preprocess/dup/phash.py --with-variants first")
    kinds = {"int": pl.Int64, "float": pl.Float64}
    return frame.select(KEY, *READ, *(["phash_variants"] if variants else [])).with_columns(
        pl.col(column.name).cast(kinds[column.kind])
        for column in map(IMAGES.column, READ)
        if column is not None and column.kind in kinds
    )


def remove_duplicates(run: StageRun, rules: Rules) -> None:
    """Decide over all eligible rows at once, and record what has changed."""
    from preprocess.dup.grouping import decide

    table = run.table()
    rows = typed_rows(eligible_rows(table, run.step), variants=rules.variants)
    run.seen = len(rows)
    decided, counts = decide(rows, rules)
    flags = dict(decided["dupe_flag"].value_counts().iter_rows())
    run.extra = {
        "flags": {name: flags.get(name, 0) for name in ("unique", "kept", "identical", "near")},
        "without_score": rows["ae_aesthetic"].null_count(),
        **({"without_variants": rows["phash_variants"].null_count()} if rules.variants else {}),
        **counts,
    }
    if rules.embeddings is not None:
        run.extra["without_embedding"] = len(rows) - int(rows[KEY].is_in(rules.embeddings.ids).sum())
    changes = changed_rows(table, decided)
    if run.options.dry_run:
        for before, cells in changes:
            if cells["dupe_removed"] is True and not before:
                print(f"remove {cells[KEY]} {describe(cells)}")
            elif before and cells["dupe_removed"] is not True:
                print(f"restore {cells[KEY]}")
        return
    run.check_stop()
    if changes:
        # Before the decisions: killed in between, the next run finds the same changes and writes its own audit.
        write_audit(run, table, decided, [str(cells[KEY]) for _, cells in changes])
    for before, row in changes:
        image_id, flag = str(row[KEY]), row["dupe_flag"]
        cells = {name: row[name] for name in DECIDED}
        if flag is None:
            run.record(image_id, {**cells, "dupe_run_id": None}, reason="no_longer_eligible")
        elif row["dupe_removed"] is True and not before:
            run.record(image_id, cells, reason=str(flag), drop="duplicate", detail=describe(row))
        else:
            run.record(image_id, cells, reason=str(flag))


def as_texts(decided: pl.DataFrame) -> pl.DataFrame:
    """Return the decisions as cell texts."""
    return decided.with_columns(boolean_cells(pl.col("dupe_removed")), pl.col("dupe_distance").cast(pl.String))


def changed_rows(table: pl.DataFrame, decided: pl.DataFrame) -> list[tuple[bool, Mapping[str, Value]]]:
    """Return (was it removed before, image_id and new values) of the rows whose cells differ, in table order.

    Rows without a decision, being eligible no longer, have theirs emptied.
    """
    before = table.select(KEY, *DECIDED)
    after = before.select(KEY).join(as_texts(decided), on=KEY, how="left", maintain_order="left")
    differs = pl.any_horizontal(before[name].ne_missing(after[name]) for name in DECIDED)
    changed = before.filter(differs).select(KEY, is_true("dupe_removed").alias("before"))
    values = changed.join(decided, on=KEY, how="left", maintain_order="left")
    return [(row.pop("before"), row) for row in values.iter_rows(named=True)]


def describe(cells: Mapping[str, Value]) -> str:
    """Return why an image goes, as `near: 3 bits from <image_id>, which is kept for its aesthetic`."""
    flag, distance, kept = cells["dupe_flag"], cells["dupe_distance"], cells["dupe_rep_image"]
    reason = cells["dupe_keep_reason"]
    merit = "was not painted over" if reason == "unpainted" else f"is kept for its {reason}"
    return f"{flag}: {distance} bits from {kept}, which {merit}"


def write_audit(run: StageRun, table: pl.DataFrame, decided: pl.DataFrame, changed: Sequence[str]) -> None:
    """Write metadata/audit/dups-<run_id>.csv: all groups as they are now, each with the kept image first."""
    members = as_texts(decided.filter(pl.col("dupe_group").is_not_null()))
    members = members.join(table.select(KEY, *FACTS), on=KEY).sort("dupe_group", "dupe_removed", KEY)
    marked = boolean_cells(pl.col(KEY).is_in(list(changed)))
    with replacing(run.root / "metadata/audit" / f"dups-{run.run_id}.csv") as stream:
        guard_formulas(members.select(KEY, *DECIDED, *FACTS, marked.alias("changed")), FACTS).write_csv(stream)


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument(
        "--threshold",
        type=whole_number(0, HIGHEST_THRESHOLD),
        default=THRESHOLD,
        metavar="BITS",
        help="most bits that near hashes differ in",
    )
    parser.add_argument("--linkage", choices=["star", "single"], default="star", help="how pairs become groups")
    parser.add_argument(
        "--with-variants",
        action="store_true",
        help="count mirrored and turned copies as near; phash.py --with-variants writes what it takes",
    )
    parser.add_argument(
        "--embeddings", type=Path, metavar="FILE.npy", help="an (N, D) array of floats, one row an image"
    )
    parser.add_argument("--embedding-ids", type=Path, metavar="FILE", help="the image_id of each row, one a line")
    parser.add_argument(
        "--min-cosine",
        type=number(0, 1),
        default=MIN_COSINE,
        metavar="X",
        help="least cosine at which embeddings count as near",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.embeddings is None) != (args.embedding_ids is None):
        parser.error("--embeddings and --embedding-ids go together: give both")

    def body(run: StageRun) -> None:
        from preprocess.dup.embeddings import read_embeddings
        from preprocess.dup.grouping import Rules

        embeddings = None
        if args.embeddings is not None:
            embeddings = read_embeddings(args.embeddings, args.embedding_ids)
        rules = Rules(args.threshold, args.linkage, args.with_variants, embeddings, args.min_cosine)
        remove_duplicates(run, rules)

    return run_stage("rm_dups", lambda: options_from(args), body, arguments=argv)


if __name__ == "__main__":
    raise SystemExit(main())
