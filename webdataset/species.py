"""Stage 9, first part: the species of every captioned image, under their canonical names.

Each name under `pokemon` in the tags becomes a slug of quotas/popularity.csv, such as `mr_mime`. A form counts as its
species: `alolan_vulpix`, `mega_charizard_x` and `rotom_wash` are vulpix, charizard and rotom. A misspelled name counts
if its similarity is at least --min-score, which is recorded. Other names are ignored, and an image without a known
species is dropped as `species:no_known_species`. Every run processes all images and writes only changed cells, so it
can be repeated after new captions. A dropped image returns once it has a species.

Reads   base.csv: tags; images.csv: drop_reason; quotas/popularity.csv of the repository; with --coverage
        quotas/quotas.csv under --root, else that of the repository
Writes  base.csv: species; images.csv: drop_reason; drops.csv; metadata/species.csv: images of each species;
        metadata/audit/species.csv: every name that is not a slug, and what it means;
        with --coverage metadata/species_coverage.csv, and its sums by popularity band on stdout

    python webdataset/species.py
    python webdataset/species.py --root my-dataset --coverage
    python webdataset/species.py --root my-dataset --min-score 0.9 --dry-run
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pokefa.csv_files import csv_text
from pokefa.files import write_text
from pokefa.ledger.table import KEY, with_missing
from pokefa.llm.prompt import plain
from pokefa.shards.layout import pokemon_in
from pokefa.species.coverage import QUOTAS_FILE, cover_quotas
from pokefa.species.matching import MIN_SCORE, Match, SpeciesMatcher
from pokefa.species.names import known_species
from pokefa.stage.options import number, stage_parser
from pokefa.stage.rows import eligible_rows
from pokefa.stage.runner import StageRun, run_stage

COUNTS = "metadata/species.csv"
COVERAGE = "metadata/species_coverage.csv"
AUDIT = "metadata/audit/species.csv"

UNKNOWN = "no_known_species"
DROPPED = f"species:{UNKNOWN}"

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Names:
    """The names of one image, and their meanings.

    Attributes:
        species: distinct slugs, in the caption's order.
        unlike: the names that are not slugs, and what each one means; None for an anomaly.
    """

    species: tuple[str, ...]
    unlike: Mapping[str, Match | None]

    @property
    def anomalies(self) -> list[str]:
        return [name for name, match in self.unlike.items() if match is None]

    @property
    def misspelled(self) -> dict[str, Match]:
        return {name: match for name, match in self.unlike.items() if match is not None and match.score < 1}


def name_species(names: Iterable[str], matcher: SpeciesMatcher) -> Names:
    """Return the meanings of one image's names."""
    found = {name: matcher.match(name) for name in names}
    species = dict.fromkeys(match.species for match in found.values() if match is not None)
    unlike = {name: match for name, match in found.items() if match is None or match.species != name}
    return Names(tuple(species), unlike)


def how(match: Match | None) -> str:
    """Return how a name was understood: `anomaly`, `misspelling`, `form`, or `spelling` for another spelling."""
    if match is None:
        return "anomaly"
    return "misspelling" if match.score < 1 else "form" if match.form else "spelling"


def counts_csv(counts: Mapping[str, int]) -> str:
    """Return the text of metadata/species.csv: most frequent first, ties by name."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return csv_text(["pokemon", "count"], ranked)


def audit_csv(named: Mapping[str, Names]) -> str:
    """Return the text of the audit, given {image_id: Names}: one line for each name that is not a slug, by image_id."""
    rows = [
        (image_id, plain(name), match.species, f"{match.score:.4f}", how(match))
        if match is not None
        else (image_id, plain(name), "", "", how(match))
        for image_id, names in sorted(named.items())
        for name, match in names.unlike.items()
    ]
    return csv_text(["image_id", "name", "species", "score", "how"], rows)


def find_species(run: StageRun, min_score: float, *, coverage: bool) -> None:
    """Name the species of every captioned image, and count them."""
    matcher = SpeciesMatcher(known_species(), min_score)
    frame = with_missing(run.table(), ["species"])
    eligible = set(eligible_rows(frame, run.step)[KEY])
    run.seen = len(eligible)
    named: dict[str, Names] = {}
    for image_id, tags, before, drop_reason in frame.select(KEY, "tags", "species", "drop_reason").iter_rows():
        if image_id not in eligible:
            if before is not None:  # dropped, or its tags emptied, since the species were found
                run.record(image_id, {"species": None}, reason="emptied")
            continue
        try:
            names = name_species(pokemon_in(tags), matcher)
        except ValueError as error:
            run.fail(image_id, str(error))
            if before is not None:
                run.record(image_id, {"species": None}, reason="emptied")
            continue
        named[image_id] = names
        record_species(run, image_id, names, before, drop_reason)
    counts = Counter(slug for names in named.values() for slug in names.species)
    images = sum(bool(names.species) for names in named.values())
    run.extra.update(
        images=images,
        species=len(counts),
        dropped=len(named) - images,
        unknown_names=sum(len(names.anomalies) for names in named.values()),
        misspelled_names=sum(len(names.misspelled) for names in named.values()),
    )
    write_tables(run, named, counts)
    if coverage:
        show_coverage(run, counts)


def record_species(run: StageRun, image_id: str, names: Names, before: str | None, drop_reason: str | None) -> None:
    """Record the species of one image, or its drop, if the tables differ.

    Args:
        before: the image's current species cell.
        drop_reason: its current drop_reason; here only that of this step is possible.
    """
    after = ",".join(names.species) or None
    if after is None and drop_reason != DROPPED:
        detail = f"names: {plain(', '.join(names.anomalies))}" if names.anomalies else "no names"
        run.record(image_id, {"drop_reason": DROPPED}, table="images", drop=UNKNOWN, detail=detail)
        if before is not None:
            run.set_cells("base", image_id, {"species": None})
    elif after != before:
        run.record(image_id, {"species": after}, reason="named" if after else "emptied")
        for name, match in names.misspelled.items():
            run.note({KEY: image_id, "name": plain(name), "species": match.species, "score": round(match.score, 4)})
    if after is not None and drop_reason is not None:
        run.set_cells("images", image_id, {"drop_reason": None})


def write_tables(run: StageRun, named: Mapping[str, Names], counts: Mapping[str, int]) -> None:
    """Write the counts and the audit, if they changed; in a dry run, only log."""
    if run.options.dry_run:
        images, dropped = run.extra["images"], run.extra["dropped"]
        log.info("dry run: %d images of %d species, %d dropped as %s", images, len(counts), dropped, DROPPED)
        return
    write_text(run.root / AUDIT, audit_csv(named))
    if write_text(run.root / COUNTS, counts_csv(counts)):
        log.info("%s: %d species; %s: other names and their meanings", COUNTS, len(counts), AUDIT)


def show_coverage(run: StageRun, counts: Mapping[str, int]) -> None:
    """Print the images and quotas of each band, and write those of each species."""
    own = run.root / QUOTAS_FILE
    covered = cover_quotas(own if own.exists() else Path(__file__).resolve().parents[1] / QUOTAS_FILE, counts)
    print(covered.table)
    if not run.options.dry_run and write_text(run.root / COVERAGE, covered.csv):
        log.info("%s: images and quota of every species", COVERAGE)


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False)
    parser.add_argument(
        "--min-score",
        type=number(0.5, 1),
        default=MIN_SCORE,
        metavar="X",
        help="smallest similarity of a misspelled species name; 1 accepts none",
    )
    parser.add_argument("--coverage", action="store_true", help="also compare the counts with the quotas")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    min_score, coverage = args.min_score, args.coverage
    return run_stage(
        "species",
        args,
        lambda run: find_species(run, min_score, coverage=coverage),
    )


if __name__ == "__main__":
    raise SystemExit(main())
