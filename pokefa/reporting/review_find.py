"""The images that each stage flagged, why, and how close each is to the threshold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from pokefa.errors import ImageError, InputError
from pokefa.files import locate
from pokefa.ledger.columns import IMAGES, TAKEN_DOWN, is_true
from pokefa.ledger.runs import thresholds_of_filter
from pokefa.ledger.table import KEY
from pokefa.llm.recaps import RECAP_FILE, read_recap
from pokefa.reporting.review_data import (
    UNKNOWN,
    Cells,
    Dataset,
    Flagged,
    Mate,
    Picture,
    facts_of,
    known,
    number,
    scores,
    species_of,
)
from pokefa.stage.rows import FLAGGED_NSFW, HAS_TEXT, SCREENED, filled

# Number of other removed images that a page shows beside a duplicate; of a large group, the closest ones.
MOST_MATES = 6


def find_nsfw(data: Dataset) -> list[Flagged]:
    """Return the images flagged as NSFW, sorted by how far the highest tag is over its threshold."""
    return [flagged_nsfw(cells) for cells in data.rows(FLAGGED_NSFW)]


def flagged_nsfw(cells: Cells) -> Flagged:
    thresholds, found = scores(cells["nsfw_threshold"]), scores(cells["nsfw_tags"])
    over = max((score - thresholds[tag] for tag, score in found.items() if tag in thresholds), default=None)
    score = number(cells["nsfw_score"])
    return Flagged(
        cells[KEY],
        species_of(cells),
        "no score" if score is None else f"score {score:.3f}",
        score,
        (known(over), known(score)),
        [Picture("flagged", cells["path_raw"], veiled=True)] if cells["path_raw"] else [],
        tags=[
            (tag, f"{score:.2f}" + (f" (threshold {thresholds[tag]:.2f})" if tag in thresholds else ""))
            for tag, score in sorted(found.items(), key=lambda item: (-item[1], item[0]))
        ],
        facts=facts_of(cells, "path_raw", "nsfw_model"),
    )


def find_text(data: Dataset) -> list[Flagged]:
    """Return the images with text: doubtful ones first, then by the highest confidence of their polygons."""
    return [flagged_text(data.root, cells) for cells in data.rows(SCREENED & HAS_TEXT)]


def flagged_text(root: Path, cells: Cells) -> Flagged:
    area = number(cells["ocr_area_frac"])
    boxes, sizes, sure = read_boxes(root, cells["ocr_boxes_path"])
    says = [f"text covers {area:.2%}"] if area is not None else []
    says += [f"confidence {sure:.2f}"] if sure is not None else []
    pictures = [Picture("before", cells["path_raw"], boxes, sizes)] if cells["path_raw"] else []
    doubt = cells["ocr_doubt"] if cells["ocr_override"] is None else None
    if cells["ocr_inpainted_path"]:
        pictures.append(Picture("after", cells["ocr_inpainted_path"]))
    elif doubt and cells["ocr_mask_path"]:
        pictures.append(Picture("mask", cells["ocr_mask_path"]))
    tags = [(f"doubtful: {doubt.replace('_', ' ')}", "")] if doubt else []
    tags += [("mostly text, used as it is", "")] if IMAGES.value(cells, "ocr_text_dominated") else []
    return Flagged(
        cells[KEY],
        species_of(cells),
        ", ".join(says) or "text was found",
        sure,
        (not doubt, known(sure), known(area)),
        pictures,
        tags=tags,
        facts=facts_of(cells, "ocr_text", "path_raw", "ocr_model", "ocr_inpainter"),
    )


def read_boxes(root: Path, path: str | None) -> tuple[list[list[tuple[int, int]]], tuple[int, int], float | None]:
    """Return (polygons, size of their picture, highest confidence) of a file of boxes; nothing if it is invalid."""
    if path:
        try:
            found = json.loads(locate(root, path).read_text(encoding="utf-8"))
            polygons = [[(int(x), int(y)) for x, y in each["points"]] for each in found["polygons"]]
            sure = max((float(each["score"]) for each in found["polygons"]), default=None)
            return polygons, (int(found["width"]), int(found["height"])), sure
        except (OSError, ValueError, KeyError, TypeError, ImageError):
            pass  # the picture is shown without them
    return [], (1, 1), None


def find_duplicates(data: Dataset) -> list[Flagged]:
    """Return the removed duplicates, those that differ most from the kept image first.

    Screening again can flag an image after rm_dups.py has run: beside another image it is veiled.
    """
    groups: defaultdict[str, list[tuple[float, str, Mate]]] = defaultdict(list)
    shown = filled("dupe_group") & filled("path_resized") & ~TAKEN_DOWN
    columns = ("dupe_group", "dupe_distance", KEY, "path_resized", (~SCREENED).alias("veiled"))
    for group, distance, image_id, path, veiled in data.tables.images.filter(shown).select(columns).rows():
        groups[group].append((known(number(distance)), image_id, Mate(image_id, path, veiled)))
    for members in groups.values():
        members.sort(key=lambda member: member[:2])
    return [
        duplicate(cells, [mate for *_, mate in groups[cells["dupe_group"] or ""]])
        for cells in data.rows(SCREENED & is_true("dupe_removed"))
    ]


def duplicate(cells: Cells, group: Sequence[Mate]) -> Flagged:
    distance = number(cells["dupe_distance"])
    pictures = [Picture("removed", cells["path_resized"])] if cells["path_resized"] else []
    kept = [mate for mate in group if mate.image_id == cells["dupe_rep_image"]]
    pictures += [Picture("kept", mate.path, veiled=mate.veiled) for mate in kept]
    mates = [mate for mate in group if mate.image_id not in (cells[KEY], cells["dupe_rep_image"])]
    return Flagged(
        cells[KEY],
        species_of(cells),
        f"{cells['dupe_flag']}, distance {cells['dupe_distance']}, decided by {cells['dupe_keep_reason']}",
        distance,
        (-known(distance) if distance is not None else UNKNOWN,),
        pictures,
        tags=[(str(cells["dupe_flag"]), "")],
        mates=mates[:MOST_MATES],
        more_mates=len(mates[MOST_MATES:]),
        facts=[("kept", str(cells["dupe_rep_image"])), *facts_of(cells, "path_resized", "ae_aesthetic")],
        values={} if distance is None else {"distance": distance},
    )


def find_left_out(data: Dataset) -> list[Flagged]:
    """Return the images below the filter's thresholds, sorted by how many points are missing.

    Images flagged as NSFW since are excluded: no threshold would admit them.
    """
    thresholds = thresholds_of_filter(data.runs)
    kept = [number(text) for text in data.tables.images.filter(pl.col("filter_decision") == "kept")["filter_score"]]
    worst = min((score for score in kept if score is not None), default=None)
    wanted = pl.col("filter_decision").is_in(["below_relevance", "below_aesthetic", "beyond_top_n"])
    return [left_out(cells, thresholds, worst) for cells in data.rows(SCREENED & wanted)]


def left_out(cells: Cells, thresholds: Mapping[str, float], worst: float | None) -> Flagged:
    """Return one image for the page.

    Args:
        worst: lowest filter_score of a kept image, which an image beyond --top-n would have had to reach.
    """
    decision = str(cells["filter_decision"])
    names = {"relevance": "ae_relevance", "aesthetic": "ae_aesthetic", "rank": "filter_rank"}
    values = {name: value for name, column in names.items() if (value := number(cells[column])) is not None}
    if decision == "beyond_top_n":
        reached, needed, says = number(cells["filter_score"]), worst, f"rank {values.get('rank', 0):.0f}"
    else:
        name = decision.removeprefix("below_")
        reached, needed = values.get(name), thresholds.get(f"min_{name}")
        says = f"{name} {known(reached):g}" + (f" (needs {needed:g})" if needed is not None else "")
    missing = None if reached is None or needed is None else max(0.0, round(needed - reached, 3))
    artifact = cells["ae_artifact"] if cells["ae_artifact"] not in (None, "none") else None
    return Flagged(
        cells[KEY],
        species_of(cells),
        says,
        missing,
        (known(missing),),
        [Picture("left out", cells["path_resized"])] if cells["path_resized"] else [],
        tags=[(decision, ""), *([(f"artifact {artifact}", "")] if artifact else [])],
        facts=facts_of(cells, "path_resized", *names.values(), "ae_artifact", "filter_score", "ae_model"),
        values=values,
    )


def find_captions(data: Dataset) -> list[Flagged]:
    """Return the images whose captions cap_filter.py listed to redo, those with the fewest faults first.

    Images flagged as NSFW since are excluded, because the filter will leave them out.

    Raises:
        InputError: cap_filter.py has not run.
    """
    if not (data.root / RECAP_FILE).exists():
        raise InputError(f"{RECAP_FILE} is not there: run caption/cap_filter.py first")
    reasons = {image_id: tuple(slugs) for image_id, slugs in read_recap(data.root / RECAP_FILE).items()}
    named = pl.col(KEY).is_in(list(reasons))
    dropped = pl.col("drop_reason").str.starts_with("cap_filter:").fill_null(False)
    rows = {cells[KEY]: cells for cells in data.rows(SCREENED & (named | dropped))}
    base = data.tables.base.filter(pl.col(KEY).is_in(list(rows))).to_dicts()
    return [caption(cells, rows[cells[KEY]], reasons.get(cells[KEY], ())) for cells in base]


def caption(base: Cells, cells: Cells, reasons: tuple[str, ...]) -> Flagged:
    dropped_by, _, reason = str(cells["drop_reason"] or "").partition(":")
    faults = reasons or (reason,)  # cap_filter.py no longer lists what it has dropped
    sentence = base["caption"] or ""
    words = len(sentence.split())
    return Flagged(
        cells[KEY],
        species_of(cells),
        (f"dropped by {dropped_by}: " if dropped_by else "") + ", ".join(fault.replace("_", " ") for fault in faults),
        words,
        (len(faults), words),
        [Picture("captioned", base["path"])] if base["path"] else [],
        tags=[(fault, "") for fault in faults] + ([(f"dropped by {dropped_by}", "")] if dropped_by else []),
        text=sentence,
        facts=[*tag_facts(base["tags"]), *facts_of(cells, "caption_model")],
    )


def tag_facts(text: str | None) -> list[tuple[str, str]]:
    """Return the nonempty tags of a caption as (field, words)."""
    try:
        parsed = json.loads(text or "{}")
    except ValueError:
        return []
    if not isinstance(parsed, dict):
        return []
    words = {
        name: ", ".join(str(each) for each in value if each) if isinstance(value, list) else str(value or "")
        for name, value in parsed.items()
    }
    return [(name, value) for name, value in words.items() if value]
