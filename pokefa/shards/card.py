"""The parts of the dataset card, webdataset/README.md, that follow from the shards: its head, and parts of its text.

The head is what Hugging Face's `datasets` needs to load every image.

If shards mix .jpg, .png and .webp, the library assumes that the first samples' extensions are all there are. It then
fails, or returns no image for an extension that comes later. With features declared in the card it decodes every image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pokefa.shards.layout import IMAGE_SUFFIXES, SPLITS

CARD = "webdataset/README.md"
FENCE = "---\n"

# The library's name for the split val.
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

LOADING = """
```python
from datasets import load_dataset

dataset = load_dataset("path/to/this/folder")  # splits: train, validation; of jpg, png and webp one holds the image
```

```python
import webdataset

shards = "path/to/this/folder/data/train-{00000..%05d}.tar"
dataset = webdataset.WebDataset(shards, shardshuffle=100).shuffle(1000)
dataset = dataset.decode("pil").to_tuple("jpg;png;webp", "txt", "json")
```
"""


# -- the text that follows from split_stats.json -----------------------------------------------------------------------


def count_images(stats: Mapping[str, Any]) -> str:
    return "{train} images to train on and {val} to validate with".format(**stats["samples"])


def show_loading(stats: Mapping[str, Any]) -> str:
    return LOADING % max((int(name[-9:-4]) for name in stats["shards"] if name.startswith("train-")), default=0)


PARTS: dict[str, Callable[[Mapping[str, Any]], str]] = {"counts": count_images, "loading": show_loading}
MARKED = re.compile(rf"(<!-- pokefa:({'|'.join(PARTS)}) -->).*?(<!-- /pokefa -->)", re.DOTALL)
UNMARKED = re.compile(r"^\d+ images to train on and \d+ to validate with", re.MULTILINE)  # earlier versions' text


def marked(part: str, stats: Mapping[str, Any]) -> str:
    """Return a part of the text between invisible comments, by which it is found again."""
    return f"<!-- pokefa:{part} -->{PARTS[part](stats)}<!-- /pokefa -->"


def refresh_card(root: Path, stats: Mapping[str, Any]) -> str:
    """Return the card with the parts that follow from the shards renewed: its head and the marked parts of its text.

    Args:
        stats: the content of split_stats.json.
    """
    head, body = read_card(root / CARD)
    body = MARKED.sub(lambda found: marked(found[2], stats), body or SHORT_BODY)
    return join_card(
        head | {"configs": None, "dataset_info": None} | describe_set(stats), UNMARKED.sub(count_images(stats), body)
    )


# -- the head ----------------------------------------------------------------------------------------------------------


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """Return the YAML head and the text below it: nothing without a card, and no head if it is not valid YAML."""
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


def join_card(head: Mapping[str, Any], body: str) -> str:
    """Return a card; keys of the head without a value are omitted."""
    import yaml

    kept = {name: value for name, value in head.items() if value is not None}
    return f"{FENCE}{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=1000)}{FENCE}{body}"


def describe_set(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card's keys about the shards: sizes, files and features. A split without shards is omitted."""
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
    """Return the features in the card's YAML form: an image column for each possible extension."""
    suffixes = IMAGE_SUFFIXES if image_format == "keep" else (image_format,)
    facts: list[dict[str, Any]] = [{"name": name, "dtype": kind} for name, kind in FACTS.items()]
    facts += [{"name": "species_list", "list": "string"}, {"name": "tags", "dtype": "json"}]
    texts = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    images = [{"name": suffix, "dtype": "image"} for suffix in suffixes]
    return [*images, {"name": "txt", "dtype": "string"}, {"name": "json", "struct": facts}, *texts]
