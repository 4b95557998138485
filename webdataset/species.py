"""Stage 9, first part: the species of every captioned image, under their canonical names.

Reads   base.csv: tags; images.csv: drop_reason; quotas/popularity.csv of the checkout
Writes  base.csv: species; images.csv: drop_reason; drops.csv; metadata/species.csv

Each entry of the tags' `pokemon` becomes a slug of quotas/popularity.csv, as `mr_mime`. A form counts as its species:
`alolan_vulpix`, `mega_charizard_x` and `rotom_wash` are vulpix, charizard and rotom. Other entries are left out, and
an image without any known species is dropped as `species:no_known_species`. All images are looked at in every run
and only cells that differ are written, so captions may be merged anew; a dropped image comes back once it has one.

    python webdataset/species.py
    python webdataset/species.py --root my-dataset --dry-run
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pokefa.options import options_from, stage_parser
from pokefa.run import StageRun, run_stage
from pokefa.selection import eligible_rows
from pokefa.table import KEY, with_missing
from pokefa.text import species_slug, write_text

POPULARITY = Path(__file__).resolve().parents[1] / "quotas/popularity.csv"
COUNTS = "metadata/species.csv"

UNKNOWN = "no_known_species"
DROPPED = f"species:{UNKNOWN}"

# Words before a species that name one of its forms; a form's name may also follow the species, as in rotom_wash.
FORM_WORDS = {"alolan", "galarian", "hisuian", "paldean", "alola", "galar", "hisui", "paldea"}
FORM_WORDS |= {"mega", "primal", "gigantamax", "gmax", "dynamax", "shiny"}

log = logging.getLogger("pokefa")


def read_catalogue(path: Path = POPULARITY) -> dict[str, str]:
    """Return {slug without underscores: slug} of every species, so that `mew_two` and `hooh` are found too."""
    with path.open(encoding="utf-8", newline="") as stream:
        slugs = [species_slug(row["name"]) for row in csv.DictReader(stream)]
    return {slug.replace("_", ""): slug for slug in slugs}


def species_of(token: str, catalogue: Mapping[str, str]) -> str | None:
    """Return the canonical slug of one name from a caption, or None when no species is known by it.

    The whole name is tried first, then without the form words before it, then its longest beginning that is a species
    and ends at an underscore.
    """
    words = species_slug(token).split("_")
    while words:
        if "".join(words) in catalogue:
            return catalogue["".join(words)]
        if words[0] not in FORM_WORDS:
            break
        del words[0]
    for end in range(len(words) - 1, 0, -1):
        if "".join(words[:end]) in catalogue:
            return catalogue["".join(words[:end])]
    return None


def name_species(tokens: Iterable[str], catalogue: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return (species, anomalies): slugs without repeats, and the names that are none, both in the given order."""
    species: dict[str, None] = {}
    anomalies: list[str] = []
    for token in tokens:
        slug = species_of(token, catalogue)
        if slug is None:
            anomalies.append(token)
        else:
            species[slug] = None
    return list(species), anomalies


def pokemon_in(tags: str) -> list[str]:
    """Return the names under `pokemon` in the text of a tags cell.

    Raises:
        ValueError: the text is not a JSON object whose `pokemon`, if any, is a list of texts.
    """
    try:
        found = json.loads(tags)
    except ValueError:
        found = None
    names = found.get("pokemon", []) if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("bad_tags: the tags are not a JSON object with a list `pokemon`; caption the image again")
    return names


def counts_csv(counts: Mapping[str, int]) -> str:
    """Return the text of metadata/species.csv: the most frequent first, equals by name."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "pokemon,count\n" + "".join(f"{name},{count}\n" for name, count in ranked)


def find_species(run: StageRun) -> None:
    """Name the species of every captioned image, and count them."""
    catalogue = read_catalogue()
    frame = with_missing(run.table(), ["species"])
    eligible = set(eligible_rows(frame, run.step)[KEY])
    run.seen = len(eligible)
    counts: Counter[str] = Counter()
    images = dropped = unknown_names = 0
    for image_id, tags, before, drop_reason in frame.select(KEY, "tags", "species", "drop_reason").iter_rows():
        if image_id not in eligible:
            if before is not None:  # dropped, or its tags emptied, since the species were found
                run.record(image_id, {"species": None}, reason="emptied")
            continue
        try:
            species, anomalies = name_species(pokemon_in(tags), catalogue)
        except ValueError as error:
            run.fail(image_id, str(error))
            if before is not None:
                run.record(image_id, {"species": None}, reason="emptied")
            continue
        unknown_names += len(anomalies)
        counts.update(species)
        images += bool(species)
        dropped += not species
        record_species(run, image_id, species, anomalies, before, drop_reason)
    run.extra.update(images=images, species=len(counts), dropped=dropped, unknown_names=unknown_names)
    if run.options.dry_run:
        log.info("dry run: %d images of %d species, %d dropped as %s", images, len(counts), dropped, DROPPED)
    elif write_text(run.root / COUNTS, counts_csv(counts)):
        log.info("%s: %d species", COUNTS, len(counts))


def record_species(
    run: StageRun,
    image_id: str,
    species: Sequence[str],
    anomalies: Sequence[str],
    before: str | None,
    drop_reason: str | None,
) -> None:
    """Record the species of one image, or its drop, where the tables say something else.

    Args:
        before: the image's species cell as it stands.
        drop_reason: its drop_reason as it stands; only this step's own can come here.
    """
    after = ",".join(species) or None
    if after is None and drop_reason != DROPPED:
        detail = f"names: {', '.join(anomalies)}" if anomalies else "no names"
        run.record(image_id, {"drop_reason": DROPPED}, table="images", drop=UNKNOWN, detail=detail)
        if before is not None:
            run.set_cells("base", image_id, {"species": None})
    elif after != before:
        run.record(image_id, {"species": after}, reason="named" if after else "emptied")
    if after is not None and drop_reason is not None:
        run.set_cells("images", image_id, {"drop_reason": None})


def build_parser() -> argparse.ArgumentParser:
    return stage_parser(__doc__, rows=False)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_stage("species", lambda: options_from(args), find_species, arguments=argv)


if __name__ == "__main__":
    raise SystemExit(main())
