"""Stage 7: rank the images that pass the thresholds, keep the best, and export the final set.

Every row of the ledger gets one decision, the first that applies: taken_down, placeholder (the scraper set it aside),
nsfw, error, duplicate, not_scored (an earlier stage has not finished it), below_relevance, below_aesthetic. The rest
are ranked by aesthetic × (0.85 + 0.15 × clamp((relevance - 60) / 40, 0, 1)). The first --top-n are kept; the others are
beyond_top_n. Only exports of images that left the set are deleted. Run it again with other thresholds at any time:
images that stay in the set keep their captions.

Reads   images.csv: the results of all earlier stages; the files in path_resized
Writes  images.csv: filter_decision, filter_score, filter_rank, filter_run_id
        metadata/base.csv, best first; data_clean/base/<image_id>.<ext>; drops.csv

    python preprocess/filter/filter.py --dry-run
    python preprocess/filter/filter.py
    python preprocess/filter/filter.py --root my-dataset --min-aesthetic 70 --top-n 8000 --per-species-floor 4
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl

from pokefa.errors import InputError
from pokefa.files import locate, place_file, sync_folder
from pokefa.images.formats import KEPT_FORMATS, SUFFIXES
from pokefa.images.storage import copy_file, is_remote
from pokefa.ledger.cells import Value
from pokefa.ledger.columns import BASE, DECISIONS, IMAGES, PLACEHOLDER, TAKEN_DOWN, is_true
from pokefa.ledger.table import KEY
from pokefa.setup.steps import STEPS
from pokefa.stage.options import add_data_option, positive_int, stage_parser, whole_number
from pokefa.stage.rows import FLAGGED_NSFW, all_of, filled, leads_out
from pokefa.stage.runner import Row, StageRun, decode_rows, log, run_stage

FOLDER = "data_clean/base"

# Drops decided by this stage; the deciding stage writes the others to drops.csv.
OWN_DROPS = ("below_relevance", "below_aesthetic", "beyond_top_n")

# Matches exported files only, and no files that a person added.
EXPORTED = re.compile(rf"[0-9a-f]{{32}}\.({'|'.join(SUFFIXES[form] for form in KEPT_FORMATS)})")

# The earlier steps: name, error column, and the condition that a row is finished.
WAITS_FOR = [(step.owner, step.error, all_of(step.finished)) for step in STEPS.values() if step.finished]

READ = ("species", "source_url", "path_resized", "resized_w", "resized_h", "ae_relevance", "ae_aesthetic", "phash64")
DECIDED = ("filter_decision", "filter_score", "filter_rank")


@dataclass(frozen=True)
class Thresholds:
    """The scores that an image must reach, and how many images are kept."""

    min_relevance: int = 60
    min_aesthetic: int = 60
    top_n: int = 16000
    per_species_floor: int = 0


@dataclass(frozen=True)
class Decision:
    """The decision about one image; it has a score and a rank only if it passed the thresholds."""

    decision: str
    score: float | None = None
    rank: int | None = None

    @property
    def cells(self) -> dict[str, Value]:
        return dict(zip(DECIDED, (self.decision, self.score, self.rank), strict=True))


@dataclass(frozen=True)
class Scored:
    """An image finished by every earlier stage."""

    image_id: str
    species: str | None
    relevance: int
    aesthetic: int

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Sort key, best first: effective score, then aesthetic, relevance and image_id."""
        return -score_times_800(self.relevance, self.aesthetic), -self.aesthetic, -self.relevance, self.image_id


def score_times_800(relevance: int, aesthetic: int) -> int:
    """Return 800 times the effective score, which is an integer, so that ties are exact.

    aesthetic × (0.85 + 0.15 × c / 40) = aesthetic × (680 + 3 c) / 800, where c = clamp(relevance - 60, 0, 40).
    """
    return aesthetic * (680 + 3 * min(40, max(0, relevance - 60)))


def decide_before_thresholds(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table with a column `decision`, which is null for rows that the thresholds decide."""
    failed = pl.any_horizontal(filled(error) & ~finished for _, error, finished in WAITS_FOR if error)
    failed |= leads_out("path_resized")
    unfinished = pl.any_horizontal(~finished for _, _, finished in WAITS_FOR)
    return table.with_columns(
        pl.when(TAKEN_DOWN)
        .then(pl.lit("taken_down"))
        .when(PLACEHOLDER)
        .then(pl.lit("placeholder"))
        .when(FLAGGED_NSFW)
        .then(pl.lit("nsfw"))
        .when(failed)
        .then(pl.lit("error"))
        .when(is_true("dupe_removed"))
        .then(pl.lit("duplicate"))
        .when(unfinished)
        .then(pl.lit("not_scored"))
        .alias("decision")
    )


def decide_by_thresholds(images: Sequence[Scored], thresholds: Thresholds) -> dict[str, Decision]:
    """Return the decision for every scored image, independent of their order.

    The best `per_species_floor` of each species are kept first; the remaining places are filled by rank.

    Raises:
        InputError: the floors alone need more than `top_n` places.
    """
    decisions: dict[str, Decision] = {}
    passing: list[Scored] = []
    for image in sorted(images, key=lambda image: image.order):
        if image.relevance < thresholds.min_relevance:
            decisions[image.image_id] = Decision("below_relevance")
        elif image.aesthetic < thresholds.min_aesthetic:
            decisions[image.image_id] = Decision("below_aesthetic")
        else:
            passing.append(image)
    kept = kept_of(passing, thresholds)
    for rank, image in enumerate(passing, start=1):
        decision = "kept" if image.image_id in kept else "beyond_top_n"
        score = score_times_800(image.relevance, image.aesthetic) / 800
        decisions[image.image_id] = Decision(decision, score, rank)
    return decisions


def kept_of(passing: Sequence[Scored], thresholds: Thresholds) -> set[str]:
    """Return the ids to keep, given images sorted best first."""
    seen: Counter[str] = Counter()
    kept: set[str] = set()
    for image in passing:
        if image.species is not None and seen[image.species] < thresholds.per_species_floor:
            seen[image.species] += 1
            kept.add(image.image_id)
    if len(kept) > thresholds.top_n:
        raise InputError(
            f"--per-species-floor {thresholds.per_species_floor} alone keeps {len(kept)} images, over --top-n "
            f"{thresholds.top_n}: lower the floor or raise --top-n"
        )
    free = thresholds.top_n - len(kept)
    rest = [image.image_id for image in passing if image.image_id not in kept]
    return kept | set(rest[:free])


def base_row(row: Row) -> dict[str, Value]:
    """Return the row of base.csv for a row of images.csv."""
    return {
        "path": f"{FOLDER}/{row[KEY]}{PurePosixPath(str(row['path_resized'])).suffix}",
        "source_url": row["source_url"],
        "image_size": f"{row['resized_w']}x{row['resized_h']}",
        "ae_relevance": row["ae_relevance"],
        "ae_aesthetic": row["ae_aesthetic"],
        KEY: row[KEY],
        "phash": row["phash64"],
    }


def describe(decision: Decision, row: Row, thresholds: Thresholds) -> str:
    """Return the values behind a decision, for drops.csv."""
    if decision.decision == "below_relevance":
        return f"ae_relevance {row['ae_relevance']} < {thresholds.min_relevance}"
    if decision.decision == "below_aesthetic":
        return f"ae_aesthetic {row['ae_aesthetic']} < {thresholds.min_aesthetic}"
    return f"rank {decision.rank}, score {decision.score}, of {thresholds.top_n} places"


def filter_images(run: StageRun, thresholds: Thresholds) -> None:
    """Decide over all rows at once, export the kept ones, and record the changes."""
    table = decide_before_thresholds(run.table())
    rows = {str(row[KEY]): row for row in decode_rows(table.filter(pl.col("decision").is_null()), READ, run.step)}
    by_thresholds = decide_by_thresholds([scored(row) for row in rows.values()], thresholds)
    before_thresholds = table.filter(pl.col("decision").is_not_null()).select(KEY, "decision").iter_rows()
    decisions = {image_id: Decision(slug) for image_id, slug in before_thresholds} | by_thresholds
    count(run, table, decisions)
    kept = [
        rows[name]
        for name, each in sorted(by_thresholds.items(), key=lambda item: item[1].rank or 0)
        if each.decision == "kept"
    ]
    base = [base_row(row) for row in kept]
    if run.options.dry_run:
        show_plan(run, base)
        return
    # First write files, so that base.csv never names a missing one. Then write the decisions and base.csv in one merge.
    # Last, remove files that left the set, so that the old base.csv stays valid until then. After a kill in between,
    # the next run finds the remaining differences.
    export(run, base, kept)
    record(run, table, decisions, rows, thresholds)
    if not base_is(run, base):
        run.replace_rows("base", base)
    run.save()
    run.extra["files_removed"] = remove_exports(run.data / FOLDER, {Path(str(row["path"])).name for row in base})


def scored(row: Row) -> Scored:
    """Return a finished ledger row as `Scored`."""
    relevance, aesthetic, species = row["ae_relevance"], row["ae_aesthetic"], row["species"]
    assert isinstance(relevance, int) and isinstance(aesthetic, int)
    return Scored(str(row[KEY]), None if species is None else str(species), relevance, aesthetic)


def count(run: StageRun, table: pl.DataFrame, decisions: Mapping[str, Decision]) -> None:
    """Put the counts of all decisions, which sum to the ledger's rows, into the summary."""
    counts = Counter(each.decision for each in decisions.values())
    run.seen = len(table)
    run.extra["decisions"] = {name: counts[name] for name in DECISIONS}
    waiting = table.filter(pl.col("decision") == "not_scored")
    if len(waiting):
        # Each stage waits for the one before, so the first unfinished one has to run.
        unfinished = pl.coalesce(pl.when(~finished).then(pl.lit(name)) for name, _, finished in WAITS_FOR)
        first = Counter(waiting.select(unfinished.alias("stage"))["stage"].to_list())
        run.extra["unfinished"] = {name: first[name] for name, _, _ in WAITS_FOR if first[name]}
        stages = ", ".join(f"{name} {number}" for name, number in run.extra["unfinished"].items())
        log.warning("%d images are not_scored, because earlier stages have not finished: %s", len(waiting), stages)


def show_plan(run: StageRun, base: Sequence[Mapping[str, Value]]) -> None:
    """Print the output of --dry-run: the counts, and how many images would join and leave the set."""
    for name, number in run.extra["decisions"].items():
        print(f"{name:>16} {number}")
    now = set(run.ledger.base.read_keyed()[KEY])
    then = {str(row[KEY]) for row in base}
    print(f"base.csv: {len(then)} images, {len(then - now)} join and {len(now - then)} leave")


def export(run: StageRun, base: Sequence[Mapping[str, Value]], kept: Sequence[Row]) -> None:
    """Export each kept image to data_clean/base.

    Raises:
        InputError: a resized file is missing; nothing was changed.
    """
    sources = [locate(run.data, row["path_resized"]) for row in kept]
    missing = [str(row[KEY]) for row, source in zip(kept, sources, strict=True) if not source.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of the images to keep have no resized file (first: {missing[0]}): restore the files, or "
            f"run preprocess/resize/resize.py --redo --ids {missing[0]}"
        )
    folder = run.data / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    place = copy_file if is_remote(folder) else place_file  # a local folder is synced once, at the end
    with run.progress(len(base)) as advance:
        for row, source in zip(base, sources, strict=True):
            written += place(source, run.data / str(row["path"]))
            run.check_stop()
            advance()
    if written and not is_remote(folder):
        sync_folder(folder)
    run.extra["files_written"] = written


def record(
    run: StageRun,
    table: pl.DataFrame,
    decisions: Mapping[str, Decision],
    rows: Mapping[str, Row],
    thresholds: Thresholds,
) -> None:
    """Record the decisions that differ from the table's."""
    for before in table.select(KEY, *DECIDED).iter_rows(named=True):
        image_id = before.pop(KEY)
        decision = decisions[image_id]
        if IMAGES.encode_cells("filter", decision.cells) == before:
            continue
        if decision.decision in OWN_DROPS and before["filter_decision"] != decision.decision:
            detail = describe(decision, rows[image_id], thresholds)
            run.record(image_id, decision.cells, drop=decision.decision, detail=detail)
        else:
            run.record(image_id, decision.cells, reason=decision.decision)


def base_is(run: StageRun, base: Sequence[Mapping[str, Value]]) -> bool:
    """Tell whether base.csv already has these rows in this order."""
    owned = BASE.owned_by("filter")
    frame = run.ledger.base.read_keyed()
    if not run.ledger.base.exists() or not set(owned) <= set(frame.columns):
        return False
    return frame.select(owned).rows(named=True) == [BASE.encode_cells("filter", row) for row in base]


def remove_exports(folder: Path, keep: set[str]) -> int:
    """Remove exported images that are no longer in the set; return how many."""
    stale = [path for path in folder.iterdir() if EXPORTED.fullmatch(path.name) and path.name not in keep]
    for path in stale:
        path.unlink()
    return len(stale)


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    add_data_option(parser)
    default = Thresholds()
    parser.add_argument(
        "--min-relevance",
        type=whole_number(0, 100),
        default=default.min_relevance,
        metavar="SCORE",
        help="lowest ae_relevance",
    )
    parser.add_argument(
        "--min-aesthetic",
        type=whole_number(0, 100),
        default=default.min_aesthetic,
        metavar="SCORE",
        help="lowest ae_aesthetic",
    )
    parser.add_argument("--top-n", type=positive_int, default=default.top_n, metavar="N", help="images to keep")
    parser.add_argument(
        "--per-species-floor", type=whole_number(0), default=default.per_species_floor, metavar="N",
        help="keep the best N of each species that pass the thresholds, regardless of rank; 0 = off",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    thresholds = Thresholds(args.min_relevance, args.min_aesthetic, args.top_n, args.per_species_floor)
    return run_stage("filter", args, lambda run: filter_images(run, thresholds))


if __name__ == "__main__":
    raise SystemExit(main())
