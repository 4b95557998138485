"""The head of the dataset card, webdataset/README.md: what Hugging Face's `datasets` needs to load every image.

On shards that mix .jpg, .png and .webp the library takes the first samples' extensions for all there are: it refuses,
or gives no image for an extension that comes later. With the features declared in the card every image is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pokefa.files import write_text
from pokefa.shards.layout import IMAGE_SUFFIXES, SPLITS

CARD = "webdataset/README.md"
FENCE = "---\n"

# The library's name for what is called val here.
SPLIT_NAMES = {"train": "train", "val": "validation"}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "1M<n<10M"

FACTS = {
    "image_id": "string",
    "split": "string",
    "source_url": "string",
    "width": "int64",
    "height": "int64",
    "ae_relevance": "int64",
    "ae_aesthetic": "int64",
    "species": "string",
    "phash": "string",
    "md5": "string",
    "sha256": "string",
}

SHORT_BODY = "\n# Captioned Pokémon fan art\n\nRun `webdataset/card.py` for the rest of this card.\n"


def update_card(root: Path, stats: Mapping[str, Any], target: Path | None = None) -> None:
    """Write what the shards hold into the card's head; the rest of an existing card stays.

    Args:
        stats: what split_stats.json says.
        target: where the new card goes; by default it takes the place of the old one.
    """
    path = root / CARD
    head, body = read_card(path)
    write_card(target or path, head | {"configs": None, "dataset_info": None} | describe_set(stats), body or SHORT_BODY)


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """Return the YAML head and the text below it; nothing where there is no card, no head where that is no YAML."""
    import yaml

    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not text.startswith(FENCE):
        return {}, text
    head, _, body = text.removeprefix(FENCE).partition(f"\n{FENCE}")
    try:
        loaded = yaml.safe_load(head)
    except yaml.YAMLError:
        loaded = None
    return (loaded if isinstance(loaded, dict) else {}), body


def write_card(path: Path, head: Mapping[str, Any], body: str) -> None:
    """Write a card; keys of the head without a value are left out."""
    import yaml

    kept = {name: value for name, value in head.items() if value is not None}
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=1000)
    write_text(path, f"{FENCE}{text}{FENCE}{body}")


def describe_set(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card's keys about the shards: sizes, files and features. A split without shards is not named."""
    samples = sum(stats["samples"].values())
    sizes = {"size_categories": [next((name for limit, name in SIZES if samples < limit), LARGEST)]}
    present = [split for split in SPLITS if stats["samples"][split]]
    if not present:
        return sizes
    files = [{"split": SPLIT_NAMES[split], "path": f"data/{split}-*.tar"} for split in present]
    taken = {
        split: sum(shard["bytes"] for name, shard in stats["shards"].items() if name.startswith(f"{split}-"))
        for split in present
    }
    info = {
        "features": features(stats["settings"]["image_format"]),
        "splits": [
            {"name": SPLIT_NAMES[split], "num_bytes": taken[split], "num_examples": stats["samples"][split]}
            for split in present
        ],
        "download_size": sum(taken.values()),
        "dataset_size": sum(taken.values()),
    }
    return sizes | {"configs": [{"config_name": "default", "data_files": files}], "dataset_info": info}


def features(image_format: str) -> list[dict[str, Any]]:
    """Return the features as the card's YAML names them: an image column for each extension that may come."""
    suffixes = IMAGE_SUFFIXES if image_format == "keep" else (image_format,)
    facts: list[dict[str, Any]] = [{"name": name, "dtype": kind} for name, kind in FACTS.items()]
    facts += [{"name": "species_list", "list": "string"}, {"name": "tags", "dtype": "json"}]
    texts = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    images = [{"name": suffix, "dtype": "image"} for suffix in suffixes]
    return [*images, {"name": "txt", "dtype": "string"}, {"name": "json", "struct": facts}, *texts]
