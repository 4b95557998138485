"""The text of the dataset card: the set's contents, its history with models and thresholds, and its limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from pokefa.ledger.columns import SAME_AS
from pokefa.ledger.runs import Run
from pokefa.shards.card import marked
from pokefa.shards.card_history import stage_lines
from pokefa.shards.croissant import Publication
from pokefa.stage.funnel import Tables

# Columns of images.csv that name a model or its thresholds.
MODELS = {
    "NSFW screening": "nsfw_model",
    "NSFW thresholds": "nsfw_threshold",
    "text detection": "ocr_model",
    "text removal": "ocr_inpainter",
    "scores": "ae_model",
    "captions": "caption_model",
}
SHARED = f"{SAME_AS}a near-duplicate"
STEP_OF_SCORES = 10
TOP_SPECIES = 10

BIASES = """## Biases and limits

- The images come from an English-speaking image search: what it ranks high is what is here.
- Popular species were given more images on purpose; the table above says how uneven it is.
- Relevance and aesthetics are one model's taste, and the filter kept what it liked.
- Captions and species are a model's answers. They are wrong at times, above all for rare species and forms.
- Screening for NSFW content misses things. Look before you show the images to anyone.
- Text was painted over by a model, which leaves traces in places.
"""


def tell_story(
    about: Publication,
    stats: Mapping[str, Any],
    base: pl.DataFrame,
    images: pl.DataFrame,
    runs: Sequence[Run],
    whole: Tables,
) -> str:
    """Return the card's text.

    Args:
        stats: the content of split_stats.json.
        base, images: cell texts of the images in the shards.
        runs: of the whole dataset, the oldest first.
        whole: both tables with all their rows.
    """
    parts = [
        f"\n# {about.title}\n",
        f"The set has {marked('counts', stats)}. Each has a caption, tags, the species that it shows, scores, and the "
        "address that it came from.\n",
        f"## Loading\n\n{marked('loading', stats)}\n",
        "## How it was made\n",
        "Made with PokeFA. For stages that choose or change images, all settings are listed; for the others, only the "
        "flags that were given. Each image counts once for each stage, with the last settings applied.\n",
        table(("stage", "code", "settings", "what became of the images"), stage_lines(runs, whole, stats)),
        "### Models and thresholds\n",
        table(("for", "which", "images"), model_lines(images)),
        "## Scores\n",
        table(("score", "relevance", "aesthetics"), score_lines(base)),
        "## Species\n",
        species_text(base),
        BIASES,
        rights(about),
    ]
    return "\n".join(parts)


def model_lines(images: pl.DataFrame) -> Iterator[tuple[str, str, str]]:
    for what, column in MODELS.items():
        if column in images.columns:
            found = Counter(SHARED if name.startswith(SAME_AS) else name for name in images[column].drop_nulls())
            yield from ((what, f"`{name}`", str(count)) for name, count in sorted(found.items()))


def score_lines(base: pl.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Yield the number of images in each ten points of both scores, and the number without a score."""
    counts = [steps_of(base[name]) for name in ("ae_relevance", "ae_aesthetic")]
    for step in range(0, 100, STEP_OF_SCORES):
        name = f"{step} to {step + STEP_OF_SCORES - (step + STEP_OF_SCORES < 100)}"
        yield name, *(str(count[step]) for count in counts)  # type: ignore[misc]
    yield "none", *(str(count[None]) for count in counts)  # type: ignore[misc]


def steps_of(scores: pl.Series) -> Counter[int | None]:
    """Return how many scores of 0 to 100 are in each step; 100 is in the last one."""
    last = 100 - STEP_OF_SCORES
    return Counter(None if text is None else min(last, int(text) // STEP_OF_SCORES * STEP_OF_SCORES) for text in scores)


def species_text(base: pl.DataFrame) -> str:
    shown = Counter(name for names in base["species"].drop_nulls() for name in set(names.split(",")))
    ranked = sorted(shown.items(), key=lambda item: (-item[1], item[0]))[:TOP_SPECIES]
    lines = [(name, str(count), f"{count / len(base):.1%}") for name, count in ranked]
    once = sum(count == 1 for count in shown.values())
    return (
        f"{len(shown)} species, {once} of them in one image alone; all in `manifests/train_species.csv` and "
        f"`val_species.csv`. The most frequent:\n\n{table(('species', 'images', 'of all'), lines)}"
    )


def rights(about: Publication) -> str:
    return (
        "## Rights, and how to have an image removed\n\n"
        "Pokémon is a trademark of Nintendo, Creatures and Game Freak, who have no part in this. The images belong to "
        "the artists who made them; being in this set gives nobody a right to them. `source_url` names where each "
        f"came from.\n\nTo have an image removed write to {about.contact} and name its address or its image_id. "
        "It is taken out of the next version, and is not collected again.\n"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
