"""What the tests of loading share: a packed set of images of three formats."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}

# Read when the libraries are imported: no network, and a cache that no other run has filled. mlcroissant knows unpacked
# archives by their relative path alone, and would take those of another set.
UNPACKED = tempfile.TemporaryDirectory(prefix="croissant-")  # removed when the tests end
os.environ |= {"HF_HUB_OFFLINE": "1", "CROISSANT_CACHE": UNPACKED.name}

Pack = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def pack(dataset: Any) -> Pack:
    """Write a set of pictures and pack it; return its rows by image_id, each with the `bytes` of its image."""

    def write(train: int, val: int, *flags: object) -> dict[str, dict[str, Any]]:
        rows = [row_of(number, "train" if number < train else "val") for number in range(train + val)]
        for row in rows:
            path = dataset.root / row["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(row["bytes"])
        dataset.write_images(
            {"image_id": row["image_id"], "ae_model": "model-1", "caption_model": "model-2"} for row in rows
        )
        dataset.write_base({name: cell for name, cell in row.items() if name != "bytes"} for row in rows)
        write_manifests(dataset.root / "webdataset/manifests", rows)
        finished = dataset.run("webdataset/webdataset.py", "--workers", 1, *flags)
        assert (finished.code, finished.summary["errors"]) == (0, 0), finished.stderr
        return {row["image_id"]: row for row in rows}

    return write


def row_of(number: int, split: str) -> dict[str, Any]:
    image_id = hashlib.md5(f"picture {number}".encode()).hexdigest()
    suffix = list(FORMATS)[number % 3]
    stream = io.BytesIO()
    Image.new("RGB", (40, 24 + number), (number * 37 % 256, 91, 120)).save(stream, FORMATS[suffix])
    return {
        "path": f"data_clean/base/{image_id}.{suffix}",
        "source_url": f"https://example.org/{number}",
        "ae_relevance": 90,
        "ae_aesthetic": "" if number == 0 else 50 + number % 50,
        "image_id": image_id,
        "phash": f"{number:016x}",
        "caption": "A picture.",
        "tags": json.dumps({"pokemon": ["eevee"], "form": [None], "mood": "calm 😴"}),
        "hybrid_caption": f"Picture {number} 🌙. | eevee",
        "species": "eevee",
        "split": split,
        "bytes": stream.getvalue(),
    }


def write_manifests(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        ids = sorted(row["image_id"] for row in rows if row["split"] == split)
        (folder / f"{split}_ids.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
        with (folder / f"{split}_species.csv").open("w", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(["pokemon", "count", "fraction"])
            table.writerows([["eevee", len(ids), "1.000000"]] if ids else [])
