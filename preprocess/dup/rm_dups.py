"""Stage 6, second half: keep the best image of each group of near-duplicates.

Two images are near-duplicates if their hashes differ in at most --threshold of 64 bits; every such pair is found. The
best of a group is kept: one that was not inpainted, then highest ae_aesthetic (a missing score is lowest), then most
pixels in the raw file, then earliest ts, then image_id. With --linkage star, an image is removed only if it is within
the threshold of the kept one. With single, near-duplicates of near-duplicates are removed too. The hash of a flat or
nearly flat image is not meaningful: such an image is a duplicate only of an identical file. No file is deleted, and
only changed rows are written.

--with-variants finds mirrored and rotated copies too. With --embeddings, vectors from your own model, images are also
near-duplicates if their vectors have a cosine of at least --min-cosine, for example crops.

Reads   images.csv: phash64, phash_contrast, phash_variants, sha256, resize_source, ae_aesthetic, w, h, ts
Writes  images.csv: dupe_group, dupe_rep_image, dupe_distance, dupe_flag, dupe_removed, dupe_keep_reason, dupe_run_id
        drops.csv: a row for each removed image; metadata/audit/dups-<run_id>.csv: a row for each member of a group

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

from pokefa.duplicates.rows import READ, typed_rows
from pokefa.files import replacing
from pokefa.images.phash import HIGHEST_THRESHOLD, THRESHOLD
from pokefa.ledger.cells import Value
from pokefa.ledger.columns import boolean_cells, is_true
from pokefa.ledger.table import KEY, guard_formulas
from pokefa.stage.options import number, stage_parser, whole_number
from pokefa.stage.rows import eligible_rows
from pokefa.stage.runner import StageRun, run_stage

if TYPE_CHECKING:
    from pokefa.duplicates.grouping import Rules

MIN_COSINE = 0.95


DECIDED = ("dupe_group", "dupe_rep_image", "dupe_distance", "dupe_flag", "dupe_removed", "dupe_keep_reason")
FACTS = (*READ, "path_resized", "source_url")


def remove_duplicates(run: StageRun, rules: Rules) -> None:
    """Decide over all eligible rows at once, and record what has changed."""
    from pokefa.duplicates.grouping import decide

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
        # Before the decisions: after a kill in between, the next run finds the same changes and writes its own audit.
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
    """Return (removed before, image_id and new values) of the changed rows, in table order.

    Rows that are no longer eligible have their decision emptied.
    """
    before = table.select(KEY, *DECIDED)
    after = before.select(KEY).join(as_texts(decided), on=KEY, how="left", maintain_order="left")
    differs = pl.any_horizontal(before[name].ne_missing(after[name]) for name in DECIDED)
    changed = before.filter(differs).select(KEY, is_true("dupe_removed").alias("before"))
    values = changed.join(decided, on=KEY, how="left", maintain_order="left")
    return [(row.pop("before"), row) for row in values.iter_rows(named=True)]


def describe(cells: Mapping[str, Value]) -> str:
    """Return why an image is removed, such as `near: 3 bits from <image_id>, which is kept for its aesthetic`."""
    flag, distance, kept = cells["dupe_flag"], cells["dupe_distance"], cells["dupe_rep_image"]
    reason = cells["dupe_keep_reason"]
    merit = "was not painted over" if reason == "unpainted" else f"is kept for its {reason}"
    return f"{flag}: {distance} bits from {kept}, which {merit}"


def write_audit(run: StageRun, table: pl.DataFrame, decided: pl.DataFrame, changed: Sequence[str]) -> None:
    """Write metadata/audit/dups-<run_id>.csv: all current groups, each with the kept image first."""
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
        help="largest Hamming distance of near-duplicates",
    )
    parser.add_argument("--linkage", choices=["star", "single"], default="star", help="how pairs form groups")
    parser.add_argument(
        "--with-variants",
        action="store_true",
        help="also find mirrored and rotated copies; run phash.py --with-variants first",
    )
    parser.add_argument(
        "--embeddings", type=Path, metavar="FILE.npy", help="an (N, D) array of floats, one row per image"
    )
    parser.add_argument("--embedding-ids", type=Path, metavar="FILE", help="the image_id of each row, one per line")
    parser.add_argument(
        "--min-cosine",
        type=number(0, 1),
        default=MIN_COSINE,
        metavar="X",
        help="smallest cosine of near-duplicates",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.embeddings is None) != (args.embedding_ids is None):
        parser.error("--embeddings and --embedding-ids go together: give both")
    min_cosine = args.min_cosine
    if args.embeddings is None:
        args.min_cosine = None  # unused, so not recorded as a setting

    def body(run: StageRun) -> None:
        from pokefa.duplicates.embeddings import read_embeddings
        from pokefa.duplicates.grouping import Rules

        embeddings = None
        if args.embeddings is not None:
            embeddings = read_embeddings(args.embeddings, args.embedding_ids)
        rules = Rules(args.threshold, args.linkage, args.with_variants, embeddings, min_cosine)
        remove_duplicates(run, rules)

    return run_stage("rm_dups", args, body)


if __name__ == "__main__":
    raise SystemExit(main())
