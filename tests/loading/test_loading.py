"""The shards as trainers load them: webdataset in a PyTorch DataLoader, and Hugging Face's datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loading.conftest import Pack

SUFFIXES = ("jpg", "png", "webp")


def facts_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return those facts of a row that the shard's JSON must hold as they are."""
    return {
        "image_id": row["image_id"],
        "split": row["split"],
        "source_url": row["source_url"],
        "ae_relevance": row["ae_relevance"],
        "ae_aesthetic": row["ae_aesthetic"] or None,
        "species_list": ["eevee"],
        "tags": json.loads(row["tags"]),
    }


def load(root: Path, folder: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(str(root / "webdataset"), cache_dir=str(folder))


def test_a_data_loader_with_two_workers_gets_every_sample_once(dataset: Any, pack: Pack) -> None:
    from torch.utils.data import DataLoader

    import webdataset

    rows = pack(24, 0, "--shard-size", 6)
    url = str(dataset.root / "webdataset/data/train-{00000..00003}.tar")
    shuffled = webdataset.WebDataset(url, shardshuffle=4, seed=1).shuffle(8)
    samples = list(
        DataLoader(shuffled.decode("pil").to_tuple("__key__", "jpg;png;webp", "txt", "json"), None, num_workers=2)
    )
    assert sorted(key for key, *_ in samples) == sorted(rows)
    for key, image, caption, facts in samples:
        row = rows[key]
        assert image.size == (facts["width"], facts["height"])
        assert caption == row["hybrid_caption"]
        assert facts | facts_of(row) == facts


def test_datasets_gives_every_sample_of_both_splits_one_image(dataset: Any, pack: Pack, tmp_path: Path) -> None:
    rows = pack(24, 5, "--shard-size", 6)
    loaded = load(dataset.root, tmp_path / "cache")
    assert {name: len(split) for name, split in loaded.items()} == {"train": 24, "validation": 5}
    samples = [sample for split in loaded.values() for sample in split]
    assert sorted(sample["__key__"] for sample in samples) == sorted(rows)
    for sample in samples:
        row = rows[sample["__key__"]]
        (suffix,) = (suffix for suffix in SUFFIXES if sample[suffix] is not None)
        assert row["path"].endswith(suffix)
        assert sample[suffix].size == (sample["json"]["width"], sample["json"]["height"])
        assert sample["txt"] == row["hybrid_caption"]
        assert sample["json"] | facts_of(row) == sample["json"]


def test_without_the_card_datasets_loses_images_or_refuses(dataset: Any, pack: Pack, tmp_path: Path) -> None:
    """The reason for the card; when this fails, the library has mended it, and the card may say less."""
    from datasets import load_dataset

    pack(24, 0, "--shard-size", 6)
    files = str(dataset.root / "webdataset/data/train-*.tar")
    with pytest.raises(ValueError):
        load_dataset("webdataset", data_files={"train": files}, cache_dir=str(tmp_path / "cache"))


def test_one_format_gives_one_image_column(dataset: Any, pack: Pack, tmp_path: Path) -> None:
    rows = pack(6, 3, "--image-format", "png", "--max-side", 20)
    loaded = load(dataset.root, tmp_path / "cache")
    assert loaded["train"].column_names == ["png", "txt", "json", "__key__", "__url__"]
    for split in loaded.values():
        for sample in split:
            assert max(sample["png"].size) == 20
    assert sum(map(len, loaded.values())) == len(rows)


def test_a_set_without_validation_images_loads(dataset: Any, pack: Pack, tmp_path: Path) -> None:
    pack(1, 0)
    loaded = load(dataset.root, tmp_path / "cache")
    assert {name: len(split) for name, split in loaded.items()} == {"train": 1}


def test_a_set_with_an_image_left_out_loads(dataset: Any, pack: Pack, tmp_path: Path) -> None:
    rows = pack(5, 2)
    first = next(iter(rows.values()))
    (dataset.root / first["path"]).write_bytes(b"broken")
    assert dataset.run("webdataset/webdataset.py", "--workers", 1).summary["counts"]["unreadable"] == 1
    loaded = load(dataset.root, tmp_path / "cache")
    assert {name: len(split) for name, split in loaded.items()} == {"train": 4, "validation": 2}


def test_the_full_card_still_loads_and_croissant_is_sound(dataset: Any, pack: Pack, tmp_path: Path) -> None:
    import mlcroissant

    rows = pack(7, 2, "--shard-size", 4)
    contact = "removals@example.net"
    finished = dataset.run("webdataset/card.py", "--contact", contact, "--url", "https://example.org/set")
    assert finished.code == 0, finished.stderr
    assert sum(map(len, load(dataset.root, tmp_path / "cache").values())) == len(rows)

    path = dataset.root / "webdataset/croissant.json"
    described = mlcroissant.Dataset(jsonld=path)
    issues = described.metadata.ctx.issues
    assert (set(issues.errors), set(issues.warnings)) == (set(), set())
    assert json.loads(path.read_text())["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    for name, field in (("captions", "caption"), ("facts", "facts"), ("images", "image")):
        records = list(described.records(name))
        ids = sorted(record[f"{name}/image_id"].decode() for record in records)
        assert ids == sorted(rows)
        assert all(record[f"{name}/{field}"] for record in records)
