"""The sections of the report that count images: each figure with its numbers in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import polars as pl

from pokefa.ledger.columns import is_true
from pokefa.reporting.figures import columns, coverage, histogram, stacked_bars
from pokefa.reporting.section_parts import (
    Figure,
    Section,
    Table,
    classes,
    count_by,
    count_sizes,
    counted,
    grouped_table,
    megapixels,
    number,
    ranked,
    short,
    size_names,
    spoken,
)
from pokefa.reporting.species_coverage import SpeciesCoverage, most_wanted, sum_bands
from pokefa.stage.funnel import KEPT, count_levels, left_out
from pokefa.stage.rows import DOUBTFUL, HAS_TEXT, MASKED, filled

SCORES = {"relevance": "ae_relevance", "aesthetic": "ae_aesthetic"}
SCORE_EDGES = list(range(0, 105, 5))
TEXT_EDGES = [share / 100 for share in range(0, 105, 5)]

# Lower bounds of the size classes, fine around the one megapixel that most trainers want.
MEGAPIXEL_CLASSES = (0, 0.5, 1, 1.5, 2, 4, 8)
CLUSTER_CLASSES = (2, 3, 4, 5, 6, 11, 21)

MOST_DOMAINS = 15


def funnel_section(images: pl.DataFrame) -> Section:
    figures = [counted("funnel", "Images that reached each level", "level", count_levels(images), len(images))]
    decisions = ranked(count_by(images, "filter_decision"))
    if decisions:
        figures.append(counted("decisions", "What the filter decided", "decision", decisions, len(images)))
    return Section("funnel", "Funnel and filter", "Each level holds part of the one above it.", figures)


def drops_section(fates: Sequence[tuple[str, str, int]], images: int) -> Section:
    out = [(f"{stage}: {fate}", count) for stage, fate, count in left_out(fates)]
    says = "Each image is counted once, under the step that decided." if out else "No image has been left out."
    title = "Images left out, by step and reason"
    figures = [counted("out", title, "step and reason", out, images, wide=True)] if out else []
    return Section("left-out", "Left out", says, figures)


def score_section(images: pl.DataFrame, thresholds: Mapping[str, float]) -> Section:
    """Return the distribution of both scores, kept and left out apart, with the known thresholds."""
    figures = []
    for name, column in SCORES.items():
        scored = images.select("fate", number(column).alias("score")).drop_nulls("score")
        if scored.is_empty():
            continue
        groups = {
            "kept": classes(scored.filter(pl.col("fate") == KEPT)["score"].to_list(), SCORE_EDGES),
            "not kept": classes(scored.filter(pl.col("fate") != KEPT)["score"].to_list(), SCORE_EDGES),
        }
        threshold = thresholds.get(name)
        alt = f"Histogram of {name}: {len(scored)} scored images"
        if threshold is not None:
            alt += f", {int((scored['score'] >= threshold).sum())} at the threshold of {threshold:g} or above"
        svg = histogram(name, alt, groups, SCORE_EDGES, label=f"{name}, 0 to 100", threshold=threshold)
        # The last class includes its upper edge.
        names = [f"{low} to {high - 1}" for low, high in pairwise(SCORE_EDGES[:-1])] + ["95 to 100"]
        figures.append(Figure(name.capitalize(), svg, grouped_table(name, names, groups)))
    says = "The thresholds are those of the last run of the filter." if figures else "No image has been scored yet."
    return Section("scores", "Scores", says, figures)


def text_section(images: pl.DataFrame) -> Section:
    """Return how many images had text and what was done about it, and how much of them it covers."""
    answered = images.filter(filled("has_ocr"))
    if answered.is_empty():
        return Section("text", "Text", "No image has been looked through for text yet.", [])
    states = (
        ("no text", ~is_true("has_ocr")),
        ("painted over", MASKED & filled("ocr_inpainted_path")),
        ("not painted over yet", MASKED & ~DOUBTFUL & ~filled("ocr_inpainted_path")),
        ("doubtful, waiting for a person", DOUBTFUL & ~filled("ocr_inpainted_path")),
        ("mostly text, left as it is", HAS_TEXT & is_true("ocr_text_dominated")),
        ("left as it is by a person", is_true("has_ocr") & ~HAS_TEXT),
    )
    counts = [(name, count) for name, state in states if (count := len(answered.filter(state)))]
    figures = [counted("text", "Text in the images", "what was found", counts, len(answered))]
    shares = answered.filter(is_true("has_ocr")).select(number("ocr_area_frac")).to_series().drop_nulls().to_list()
    if shares:
        groups = {"images with text": classes(shares, TEXT_EDGES)}
        alt = f"Histogram of the share of the picture that text covers, of {len(shares)} images with text"
        svg = histogram("text-share", alt, groups, TEXT_EDGES, label="share of the picture that text covers")
        names = [f"{low:.0%} to {high:.0%}" for low, high in pairwise(TEXT_EDGES)]
        figures.append(Figure("How much of the picture is text", svg, grouped_table("share", names, groups)))
    return Section("text", "Text", f"{len(answered)} images were looked through.", figures)


def duplicate_section(images: pl.DataFrame) -> Section:
    """Return the sizes of the duplicate groups: a kept image, and the removed ones."""
    flags = count_by(images, "dupe_flag")
    if not flags:
        return Section("duplicates", "Duplicates", "No image has been looked at for duplicates yet.", [])
    groups = images.filter(filled("dupe_group")).group_by("dupe_group").len()["len"].to_list()
    groups = [size for size in groups if size > 1]
    removed = len(images.filter(is_true("dupe_removed")))
    says = f"{len(groups)} groups with {sum(groups)} images; {removed} of these were removed."
    names = size_names(CLUSTER_CLASSES, whole=True)
    counts = count_sizes(groups, CLUSTER_CLASSES)
    alt = spoken("Groups by their number of images", list(zip(names, counts, strict=True)))
    svg = columns("clusters", alt, {"groups": counts}, names, label="images in the group", count="groups")
    sizes = Figure("Sizes of the groups", svg, grouped_table("images in the group", names, {"groups": counts}))
    flag_counts = ranked(flags)
    compared = counted("flags", "What was found of each image", "found", flag_counts, sum(flags.values()))
    return Section("duplicates", "Duplicates", says, [sizes, compared] if groups else [compared])


def species_section(species: list[SpeciesCoverage]) -> Section:
    if not species:
        return Section("species", "Species against their quotas", "There is no quotas/quotas.csv to compare with.", [])
    bands = sum_bands(species)
    with_any = sum(band.with_any for band in bands)
    met = sum(band.met for band in bands)
    names = [f"{band.band} ({band.part})" for band in bands]
    groups = {
        "kept": [band.kept for band in bands],
        "downloaded, not kept": [band.downloaded - band.kept for band in bands],
        "lacking": [max(0, band.quota - band.downloaded) for band in bands],
    }
    alt = spoken("Kept images by band of popularity", list(zip(names, groups["kept"], strict=True)))
    headings = ("band", "species", "with a kept image", "quota met", "quota", "downloaded", "kept")
    rows: list[tuple[object, ...]] = [
        (name, band.species, band.with_any, band.met, band.quota, band.downloaded, band.kept)
        for name, band in zip(names, bands, strict=True)
    ]
    figures = [
        Figure("Bands of popularity", stacked_bars("bands", alt, names, groups), Table(headings, rows), wide=True)
    ]
    alt = f"Quota and kept images over the rank of the species: {with_any} of {len(species)} species have a kept image"
    drawn = coverage(
        "coverage", alt, [one.rank for one in species], [one.quota for one in species], [one.kept for one in species]
    )
    wanted: list[tuple[object, ...]] = [
        (one.name, one.rank, one.quota, one.downloaded, one.kept) for one in most_wanted(species)
    ]
    table = Table(("species", "rank", "quota", "downloaded", "kept"), wanted, name="the species that lack the most")
    figures.append(Figure("Species by rank", drawn, table, True))
    says = (
        f"{with_any} of {len(species)} species have a kept image and {met} have met their quota, "
        "by the species that was searched for."
    )
    return Section("species", "Species against their quotas", says, figures)


def size_section(images: pl.DataFrame) -> Section:
    """Return megapixels and formats before and after resizing, and the shapes of the final images."""
    figures = []
    before, after = megapixels(images, "w", "h"), megapixels(images, "resized_w", "resized_h")
    if before:
        alt = f"Megapixels of {len(before)} downloaded and {len(after)} resized images"
        names = size_names(MEGAPIXEL_CLASSES)
        sizes = {
            "downloaded": count_sizes(before, MEGAPIXEL_CLASSES),
            "resized": count_sizes(after, MEGAPIXEL_CLASSES),
        }
        svg = columns("sizes", alt, sizes, names, label="megapixels")
        figures.append(Figure("Sizes", svg, grouped_table("megapixels", names, sizes)))
    formats = count_by(images, "fmt")
    suffix = pl.col("path_resized").str.extract(r"\.(\w+)$").str.to_uppercase().replace({"JPG": "JPEG"})
    resized = count_by(images.select(suffix.alias("fmt")), "fmt")
    if formats:
        names = [name for name, _ in ranked(formats + resized)]
        both = {"downloaded": [formats[name] for name in names], "resized": [resized[name] for name in names]}
        alt = spoken("Formats of the downloaded images", ranked(formats))
        alt += "; " + spoken("of the resized images", ranked(resized)) if resized else ""
        svg = columns("formats", alt, both, names, label="format")
        figures.append(Figure("Formats", svg, grouped_table("format", names, both)))
    return Section("sizes", "Sizes and formats", "" if figures else "No image has been downloaded yet.", figures)


def domain_section(images: pl.DataFrame) -> Section:
    """Return the hosts of the images: the most frequent ones by name, the rest together."""
    downloaded = count_by(images, "source_domain")
    if not downloaded:
        return Section("domains", "Source domains", "No image has a source domain yet.", [])
    kept = count_by(images.filter(pl.col("fate") == KEPT), "source_domain")
    shown = [name for name, _ in ranked(downloaded)[:MOST_DOMAINS]]
    groups = {"kept": [kept[name] for name in shown], "not kept": [downloaded[name] - kept[name] for name in shown]}
    alt = spoken("Downloaded images by domain", [(name, downloaded[name]) for name in shown])
    lines = [(name, downloaded[name], kept[name]) for name in shown]
    if len(downloaded) > len(shown):
        found, have = (counts.total() - sum(counts[name] for name in shown) for counts in (downloaded, kept))
        lines.append((f"{len(downloaded) - len(shown)} others", found, have))
    rows: list[tuple[object, ...]] = [(name, found, have, f"{have / found:.0%}") for name, found, have in lines]
    table = Table(("domain", "downloaded", "kept", "share kept"), rows)
    names = [short(name) for name in shown]
    says = "The hosts of the pages that showed the images, or of the images where no page is known."
    figure = Figure("Images by domain", stacked_bars("domains", alt, names, groups), table, wide=True)
    return Section("domains", "Source domains", says, [figure])
