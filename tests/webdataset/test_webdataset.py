"""webdataset/webdataset.py: whole shards that the real library reads, with the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pokefa.errors import PokefaError
from pokefa.shards.layout import Sample, ShardSize, fill_shards, make_sample, tar_bytes
from pokefa.shards.tar import import_tar_writer

SCRIPT = "webdataset/webdataset.py"
CHECKOUT = Path(__file__).resolve().parents[2]

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
EMOJI_CAPTION = (
    "Umbreon and a tiny Flabébé 🌙✨ nap on a roof beneath the full moon, while two children 👩‍👧 wave from the lane "
    "below 👋🏽. | umbreon, flabébé, night, “soft light”, fan art 🎨, watercolour, 日本の夏\nsecond line"
)

Snapshot = Callable[[Path], dict[str, tuple[int, bytes]]]


def picture(number: int, suffix: str = "png", size: tuple[int, int] = (40, 24)) -> bytes:
    """Return the bytes of a small picture that differs from all others."""
    stream = io.BytesIO()
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, 120))
    image.save(stream, FORMATS[suffix])
    return stream.getvalue()


def image_id_of(number: int) -> str:
    return hashlib.md5(f"picture {number}".encode()).hexdigest()


def base_row(number: int, split: str, suffix: str = "png") -> dict[str, object]:
    image_id = image_id_of(number)
    return {
        "path": f"data_clean/base/{image_id}.{suffix}",
        "source_url": f"https://example.org/{number}.png",
        "image_size": "40x24",
        "ae_relevance": 90,
        "ae_aesthetic": "" if number == 0 else 50 + number,
        "image_id": image_id,
        "phash": f"{number:016x}",
        "caption": f"Picture {number}.",
        "tags": json.dumps({"pokemon": ["eevee", "abra"], "form": [None, None]}),
        "hybrid_caption": f"Picture {number}. | eevee, abra",
        "species": "eevee,abra",
        "split": split,
    }


def write_set(dataset: Any, train: int, val: int = 0) -> list[dict[str, object]]:
    """Write images, tables and id lists; the first pictures are for training, suffixes take turns."""
    rows = []
    for number in range(train + val):
        suffix = list(FORMATS)[number % 3]
        rows.append(base_row(number, "train" if number < train else "val", suffix))
        path = dataset.root / str(rows[-1]["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, suffix))
    write_tables(dataset, rows)
    return rows


def write_tables(dataset: Any, rows: list[dict[str, object]]) -> None:
    dataset.write_images({"image_id": row["image_id"]} for row in rows)
    columns = list(base_row(0, "train"))
    dataset.write_base(rows or [])
    if not rows:
        (dataset.root / "metadata/base.csv").write_text(",".join(columns) + "\n")
    write_id_lists(dataset, rows)


def write_id_lists(dataset: Any, rows: list[dict[str, object]]) -> None:
    manifests = dataset.root / "webdataset/manifests"
    manifests.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        ids = sorted(str(row["image_id"]) for row in rows if row["split"] == split)
        (manifests / f"{split}_ids.txt").write_text("".join(f"{image_id}\n" for image_id in ids))


def shards(dataset: Any) -> list[str]:
    return sorted(path.name for path in (dataset.root / "webdataset/data").iterdir())


def stats(dataset: Any) -> dict[str, Any]:
    return json.loads((dataset.root / "webdataset/manifests/split_stats.json").read_text())


def journals(dataset: Any) -> int:
    return len(list((dataset.root / "metadata").glob("runs/*.jsonl")))


def read_back(dataset: Any, split: str) -> list[dict[str, Any]]:
    """Return the samples of a split as the real library gives them."""
    import webdataset

    urls = [str(path) for path in sorted((dataset.root / "webdataset/data").glob(f"{split}-*.tar"))]
    return list(webdataset.WebDataset(urls, shardshuffle=False)) if urls else []


def ids_in(dataset: Any, split: str) -> list[str]:
    return [sample["__key__"] for sample in read_back(dataset, split)]


def test_the_library_reads_every_sample_whole(dataset: Any) -> None:
    import webdataset

    rows = write_set(dataset, train=7, val=3)
    finished = dataset.run(SCRIPT, "--shard-size", 3)
    assert (finished.code, finished.summary["counts"], finished.summary["done"]) == (0, {"packed": 10}, 10)
    assert shards(dataset) == ["train-00000.tar", "train-00001.tar", "train-00002.tar", "val-00000.tar"]
    by_id = {str(row["image_id"]): row for row in rows}
    for split, count, pattern in (("train", 7, "train-{00000..00002}.tar"), ("val", 3, "val-00000.tar")):
        url = str(dataset.root / "webdataset/data" / pattern)
        samples = list(webdataset.WebDataset(url, shardshuffle=False).decode("pil"))
        assert len(samples) == len({sample["__key__"] for sample in samples}) == count
        for sample in samples:
            row = by_id[sample["__key__"]]
            suffix = str(row["path"]).rsplit(".", 1)[1]
            data = (dataset.root / str(row["path"])).read_bytes()
            assert {key for key in sample if not key.startswith("__")} == {suffix, "txt", "json"}
            assert sample[suffix].size == (40, 24)
            assert sample["txt"] == row["hybrid_caption"]
            assert sample["json"] == {
                "image_id": row["image_id"],
                "split": split,
                "source_url": row["source_url"],
                "width": 40,
                "height": 24,
                "ae_relevance": 90,
                "ae_aesthetic": row["ae_aesthetic"] or None,
                "species": "eevee,abra",
                "species_list": ["eevee", "abra"],
                "tags": {"pokemon": ["eevee", "abra"], "form": [None, None]},
                "phash": row["phash"],
                "md5": hashlib.md5(data).hexdigest(),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
    for sample in read_back(dataset, "train"):
        suffix = str(by_id[sample["__key__"]]["path"]).rsplit(".", 1)[1]
        assert sample[suffix] == (dataset.root / str(by_id[sample["__key__"]]["path"])).read_bytes()
        facts = json.loads(sample["json"])
        assert list(facts) == sorted(facts)


def test_the_manifest_tells_of_every_shard_and_id_list(dataset: Any) -> None:
    write_set(dataset, train=5, val=2)
    finished = dataset.run(SCRIPT, "--shard-size", 4, "--seed", 3)
    told = stats(dataset)
    assert set(told["shards"]) == set(shards(dataset)) == {"train-00000.tar", "train-00001.tar", "val-00000.tar"}
    for name, facts in told["shards"].items():
        data = (dataset.root / "webdataset/data" / name).read_bytes()
        assert facts["sha256"] == hashlib.sha256(data).hexdigest()
        assert facts["bytes"] == len(data)
    assert [told["shards"][name]["samples"] for name in sorted(told["shards"])] == [4, 1, 2]
    for name, facts in told["id_lists"].items():
        data = (dataset.root / "webdataset/manifests" / name).read_bytes()
        assert facts == {"bytes": len(data), "samples": len(data.split()), "sha256": hashlib.sha256(data).hexdigest()}
    assert told["samples"] == {"train": 5, "val": 2}
    assert told["settings"] == {
        "check": "full",
        "image_format": "keep",
        "max_side": None,
        "seed": 3,
        "shard_bytes": None,
        "shard_size": 4,
    }
    assert told["left_out"] == {}
    summary = finished.summary
    assert [summary[key] for key in ("train_shards", "train_samples", "val_shards", "val_samples")] == [2, 5, 1, 2]


def test_members_have_a_fixed_time_owner_and_order(dataset: Any) -> None:
    rows = write_set(dataset, train=1)
    dataset.run(SCRIPT)
    with tarfile.open(dataset.root / "webdataset/data/train-00000.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [f"{rows[0]['image_id']}.{part}" for part in ("jpg", "json", "txt")]
    assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}
    assert {(member.uname, member.gname) for member in members} == {("pokefa", "pokefa")}
    assert all(not member.pax_headers for member in members)


def test_same_bytes_with_any_number_of_workers_and_any_order_of_rows(
    dataset: Any, snapshot: Snapshot, tmp_path: Path
) -> None:
    rows = write_set(dataset, train=9, val=2)
    assert dataset.run(SCRIPT, "--shard-size", 2, "--workers", 1).code == 0
    first = {name: data for name, (_, data) in snapshot(dataset.root / "webdataset").items()}
    shutil.rmtree(dataset.root / "webdataset")
    write_tables(dataset, rows[::-1])
    assert dataset.run(SCRIPT, "--shard-size", 2, "--workers", 2).code == 0
    assert {name: data for name, (_, data) in snapshot(dataset.root / "webdataset").items()} == first
    assert len(first) == 5 + 1 + 3 + 1  # shards, manifest and lists, card
    # The seed sets the order of the samples.
    before = ids_in(dataset, "train")
    assert before != sorted(before)
    assert dataset.run(SCRIPT, "--shard-size", 2, "--seed", 1).code == 0
    assert ids_in(dataset, "train") != before
    assert sorted(ids_in(dataset, "train")) == sorted(before)


def test_an_unchanged_set_rewrites_nothing(dataset: Any, snapshot: Snapshot) -> None:
    write_set(dataset, train=4, val=1)
    dataset.run(SCRIPT, "--shard-size", 2)
    before = snapshot(dataset.root)
    finished = dataset.run(SCRIPT, "--shard-size", 2)
    assert (finished.code, finished.summary["counts"], finished.summary["done"]) == (0, {"unchanged": 5}, 0)
    assert snapshot(dataset.root) == before


def test_only_a_changed_shard_is_packed_anew(dataset: Any, snapshot: Snapshot) -> None:
    rows = write_set(dataset, train=6)
    dataset.run(SCRIPT, "--shard-size", 2)
    data = dataset.root / "webdataset/data"
    first = snapshot(data)
    # A flipped byte in a shard.
    damaged = bytearray(first["train-00001.tar"][1])
    damaged[700] ^= 1
    (data / "train-00001.tar").write_bytes(damaged)
    assert dataset.run(SCRIPT, "--shard-size", 2).summary["counts"] == {"packed": 2, "unchanged": 4}
    second = snapshot(data)
    assert {name: content for name, (_, content) in second.items()} == {name: c for name, (_, c) in first.items()}
    assert [second[name][0] == first[name][0] for name in sorted(first)] == [True, False, True]
    # A shard that somebody deleted.
    (data / "train-00002.tar").unlink()
    assert dataset.run(SCRIPT, "--shard-size", 2).summary["counts"] == {"packed": 2, "unchanged": 4}
    assert (data / "train-00002.tar").read_bytes() == first["train-00002.tar"][1]
    # Another image of the same length, then another caption.
    key = ids_in(dataset, "train")[0]
    path = next(dataset.root / str(row["path"]) for row in rows if row["image_id"] == key)
    image = bytearray(path.read_bytes())
    path.write_bytes(image + b"\0")
    assert dataset.run(SCRIPT, "--shard-size", 2).summary["counts"] == {"packed": 2, "unchanged": 4}
    rows[3]["hybrid_caption"] = "Another caption."
    dataset.write_base(rows)
    assert dataset.run(SCRIPT, "--shard-size", 2).summary["counts"] == {"packed": 2, "unchanged": 4}
    assert b"Another caption." in [sample["txt"] for sample in read_back(dataset, "train")]


def test_shards_of_an_older_set_do_not_stay(dataset: Any) -> None:
    rows = write_set(dataset, train=6, val=1)
    dataset.run(SCRIPT, "--shard-size", 2)
    data = dataset.root / "webdataset/data"
    (data / "notes.tar").write_bytes(b"the user's own")
    write_tables(dataset, rows[:3])
    assert dataset.run(SCRIPT, "--shard-size", 2).code == 0
    assert shards(dataset) == ["notes.tar", "train-00000.tar", "train-00001.tar"]
    assert sorted(ids_in(dataset, "train")) == sorted(str(row["image_id"]) for row in rows[:3])
    assert set(stats(dataset)["shards"]) == {"train-00000.tar", "train-00001.tar"}


def test_bad_images_are_left_out_counted_and_named(dataset: Any, snapshot: Snapshot) -> None:
    rows = write_set(dataset, train=6)
    paths = [dataset.root / str(row["path"]) for row in rows]
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[2].write_bytes(b"no image")
    paths[3].write_bytes(picture(3, "png", (200, 200))[:90])
    finished = dataset.run(SCRIPT, "--strict")
    assert finished.code == 1
    assert (finished.summary["counts"], finished.summary["errors"]) == ({"packed": 2, "unreadable": 4}, 4)
    reasons = [
        f"unreadable: missing_file: {rows[0]['path']}: No such file or directory",
        "unreadable: empty_file: 0 bytes",
        "unreadable: not_an_image: the bytes match no known image format",
        "unreadable: truncated: ",
    ]
    left_out = stats(dataset)["left_out"]
    assert set(left_out) == {row["image_id"] for row in rows[:4]}
    for row, reason in zip(rows, reasons, strict=False):
        assert left_out[str(row["image_id"])].startswith(reason)
        assert f"{row['image_id']}: left out: {reason}" in finished.stderr
    assert sorted(ids_in(dataset, "train")) == sorted(str(row["image_id"]) for row in rows[4:])
    # They are told again, not forgotten, while nothing has changed.
    before = snapshot(dataset.root)
    assert dataset.run(SCRIPT).summary["counts"] == {"unchanged": 2, "unreadable": 4}
    assert snapshot(dataset.root) == before
    # And they are packed once they are whole again.
    for number, path in enumerate(paths[:4]):
        path.write_bytes(picture(number, path.suffix[1:]))
    assert dataset.run(SCRIPT, "--strict").summary["counts"] == {"packed": 6}
    assert stats(dataset)["left_out"] == {}


def test_a_shard_without_one_good_image_leaves_no_gap(dataset: Any, snapshot: Snapshot) -> None:
    rows = write_set(dataset, train=3)
    dataset.run(SCRIPT, "--shard-size", 1)
    first = ids_in(dataset, "train")
    row = next(row for row in rows if row["image_id"] == first[1])
    (dataset.root / str(row["path"])).write_bytes(b"bad")
    kept = snapshot(dataset.root / "webdataset/data")
    finished = dataset.run(SCRIPT, "--shard-size", 1)
    assert finished.summary["counts"] == {"unchanged": 2, "unreadable": 1}
    after = snapshot(dataset.root / "webdataset/data")
    # The third shard is the second now: renamed, not packed again.
    assert after == {"train-00000.tar": kept["train-00000.tar"], "train-00001.tar": kept["train-00002.tar"]}
    before, count = snapshot(dataset.root), journals(dataset)
    assert dataset.run(SCRIPT, "--shard-size", 1).summary["counts"] == {"unchanged": 2, "unreadable": 1}
    assert (snapshot(dataset.root), journals(dataset)) == (before, count)


def test_the_suffix_follows_the_bytes(dataset: Any) -> None:
    rows = write_set(dataset, train=1)
    (dataset.root / str(rows[0]["path"])).write_bytes(picture(5, "webp"))
    dataset.run(SCRIPT)
    (sample,) = read_back(dataset, "train")
    assert sample["webp"] == picture(5, "webp")


def test_a_set_of_one_image_without_validation(dataset: Any) -> None:
    write_set(dataset, train=1)
    assert dataset.run(SCRIPT).code == 0
    assert shards(dataset) == ["train-00000.tar"]
    assert len(ids_in(dataset, "train")) == 1
    assert stats(dataset)["samples"] == {"train": 1, "val": 0}


def test_an_empty_set_has_no_shards(dataset: Any) -> None:
    write_set(dataset, train=2)
    dataset.run(SCRIPT)
    write_tables(dataset, [])
    finished = dataset.run(SCRIPT)
    assert (finished.code, finished.summary["seen"], finished.summary["counts"]) == (0, 0, {})
    assert shards(dataset) == []
    assert (stats(dataset)["shards"], stats(dataset)["samples"]) == ({}, {"train": 0, "val": 0})


def test_a_caption_with_emoji_comes_back_as_it_is(dataset: Any) -> None:
    assert len(EMOJI_CAPTION) == 200
    rows = write_set(dataset, train=1)
    rows[0] |= {
        "hybrid_caption": EMOJI_CAPTION,
        "tags": json.dumps({"actions": ["😴"]}),
        "source_url": "https://é.example/🌙",
    }
    dataset.write_base(rows)
    dataset.run(SCRIPT)
    (sample,) = read_back(dataset, "train")
    assert sample["txt"].decode() == EMOJI_CAPTION
    facts = json.loads(sample["json"])
    assert (facts["tags"], facts["source_url"]) == ({"actions": ["😴"]}, "https://é.example/🌙")


@pytest.mark.parametrize(
    ("cells", "reason", "errors"),
    [
        ({"hybrid_caption": ""}, "no_caption: run caption/hybrid_captions.py first", 0),
        ({"path": "../private.jpg"}, "unreadable: bad_path: '../private.jpg' contains ..", 1),
        ({"tags": "[]"}, "bad_tags: the tags are not a JSON object; caption the image again", 1),
    ],
)
def test_a_row_that_cannot_be_packed_is_left_out(
    dataset: Any, cells: dict[str, object], reason: str, errors: int
) -> None:
    rows = write_set(dataset, train=2)
    rows[0] |= cells
    write_tables(dataset, rows)
    finished = dataset.run(SCRIPT, "--strict")
    assert finished.code == errors
    assert (finished.summary["seen"], finished.summary["errors"]) == (2, errors)
    assert finished.summary["counts"] == {"packed": 1, reason.split(":")[0]: 1}
    assert stats(dataset)["left_out"] == {rows[0]["image_id"]: reason}
    assert ids_in(dataset, "train") == [rows[1]["image_id"]]


NOT_SPLIT = [
    ({}, {"drop_reason": "cap_filter:refusal_language"}, "dropped: cap_filter:refusal_language", 0),
    ({"caption": ""}, {}, "no_caption: run caption/sentence_tags.py first", 0),
    (
        {"caption": ""},
        {"caption_error": "refused: no words"},
        "caption_failed: run caption/sentence_tags.py --retry-errors",
        1,
    ),
    ({"tags": "not json"}, {}, "bad_tags: the tags are not a JSON object; caption the image again", 1),
    ({"tags": ""}, {}, "bad_tags: the tags are not a JSON object; caption the image again", 1),
    (
        {"tags": '{"pokemon": "eevee"}'},
        {},
        "bad_tags: the tags are not a JSON object with a list `pokemon`; caption the image again",
        1,
    ),
    ({"species": ""}, {}, "no_species: run webdataset/species.py first", 0),
    ({}, {}, "no_split: run webdataset/split.py first", 0),
]


@pytest.mark.parametrize(("cells", "of_image", "reason", "errors"), NOT_SPLIT)
def test_a_row_without_a_split_is_left_out_with_the_reason(
    dataset: Any, cells: dict[str, object], of_image: dict[str, object], reason: str, errors: int
) -> None:
    rows = write_set(dataset, train=2)
    rows[0] |= {"split": ""} | cells
    write_tables(dataset, rows)
    dataset.write_images({"image_id": row["image_id"]} | (of_image if row is rows[0] else {}) for row in rows)
    finished = dataset.run(SCRIPT, "--strict")
    assert finished.code == errors
    assert (finished.summary["seen"], finished.summary["errors"]) == (2, errors)
    assert finished.summary["counts"] == {"packed": 1, reason.split(":")[0]: 1}
    assert stats(dataset)["left_out"] == {rows[0]["image_id"]: reason}
    in_words = reason.replace("dropped: cap_filter:refusal_language", "dropped by cap_filter: refusal language")
    told = f"{rows[0]['image_id']}: left out: {reason}" if errors else f"1 image left out: {in_words}"
    assert told in finished.stderr


def test_what_is_left_out_counts_with_urls_only_and_is_no_fault_of_the_shards(dataset: Any) -> None:
    rows = write_set(dataset, train=2)
    rows[0] |= {"split": "", "tags": "not json"}
    write_tables(dataset, rows)
    assert dataset.run(SCRIPT).code == 0
    assert dataset.run(SCRIPT, "--urls-only", "--strict").code == 1
    assert dataset.run(SCRIPT, "--verify").code == 0


@pytest.mark.parametrize("tags", ["", "x", "7", '{"pose": NaN}', '{"pose": "\\ud800"}'])
def test_tags_that_the_shards_json_cannot_hold(tags: str) -> None:
    row = base_row(1, "train") | {"tags": tags}
    if not tags:
        assert make_sample(row).facts["tags"] == {}
        return
    with pytest.raises(ValueError, match=r"^bad_tags: the tags are not a JSON object; caption the image again$"):
        make_sample(row)


def test_the_three_scripts_in_order(dataset: Any) -> None:
    rows = write_set(dataset, train=8)
    for row in rows:
        del row["species"], row["split"]
    rows[6]["tags"] = json.dumps({"pokemon": ["fakemon"]})
    rows[7]["hybrid_caption"] = ""
    write_tables(dataset, [row | {"split": "train"} for row in rows])
    dataset.write_base(rows)
    codes = [dataset.run(f"webdataset/{name}.py").code for name in ("species", "split", "webdataset")]
    assert codes == [0, 0, 0]
    packed = ids_in(dataset, "train") + ids_in(dataset, "val")
    assert sorted(packed) == sorted(str(row["image_id"]) for row in rows[:6])
    assert stats(dataset)["left_out"] == {
        rows[6]["image_id"]: "dropped: species:no_known_species",
        rows[7]["image_id"]: "no_caption: run caption/hybrid_captions.py first",
    }
    assert dataset.images()[str(rows[6]["image_id"])]["drop_reason"] == "species:no_known_species"


def test_shard_bytes_limits_the_files(dataset: Any) -> None:
    write_set(dataset, train=8)
    assert dataset.run(SCRIPT, "--shard-bytes", 20480).code == 0
    told = stats(dataset)["shards"]
    assert {facts["bytes"] for facts in told.values()} <= {10240, 20480}
    assert [facts["samples"] for _, facts in sorted(told.items())] == [6, 2]
    assert dataset.run(SCRIPT, "--shard-bytes", 1).code == 0
    assert {facts["samples"] for facts in stats(dataset)["shards"].values()} == {1}


def test_a_dry_run_changes_nothing(dataset: Any, snapshot: Snapshot) -> None:
    write_set(dataset, train=5, val=1)
    before = snapshot(dataset.root)
    finished = dataset.run(SCRIPT, "--shard-size", 2, "--dry-run")
    assert "dry run: 5 train images in 3 shards, 1 val images in 1 shards" in finished.stderr
    assert (finished.code, finished.summary["seen"], finished.summary["done"]) == (0, 6, 0)
    assert snapshot(dataset.root) == before


def test_id_lists_of_another_split_are_refused(dataset: Any) -> None:
    rows = write_set(dataset, train=2, val=1)
    write_id_lists(dataset, rows[:2])
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == (
        "error: webdataset/manifests/val_ids.txt does not match the images in val of metadata/base.csv: "
        "run webdataset/split.py again\n"
    )
    assert not (dataset.root / "webdataset/data").exists()


def test_a_killed_run_is_finished_by_the_next(dataset: Any, snapshot: Snapshot) -> None:
    rows = write_set(dataset, train=20, val=1)
    for row in rows:  # large enough that the run is still busy when it is killed
        path = dataset.root / str(row["path"])
        image = Image.frombytes("RGB", (500, 500), hashlib.shake_256(path.name.encode()).digest(750_000))
        image.save(path, FORMATS[path.suffix[1:]])
    assert dataset.run(SCRIPT, "--shard-size", 1).code == 0
    whole = {name: data for name, (_, data) in snapshot(dataset.root / "webdataset").items()}
    stats = dataset.root / "webdataset/manifests/split_stats.json"
    building = dataset.root / "webdataset/data/.building"
    while stats.exists():  # until a kill was in time: the machine may let the run end before
        shutil.rmtree(dataset.root / "webdataset/data")
        stats.unlink()
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "--root", str(dataset.root), "--shard-size", "1", "--workers", "1"],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not list(building.glob("*.json")):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert shards(dataset) == [".building"]
    finished_before = {path.stem: path.with_suffix(".tar").stat().st_ino for path in building.glob("*.json")}

    assert dataset.run(SCRIPT, "--shard-size", 1).code == 0
    after = snapshot(dataset.root / "webdataset")
    assert {name: data for name, (_, data) in after.items()} == whole
    inodes = {inode for inode, _ in after.values()}
    assert finished_before and set(finished_before.values()) <= inodes


def test_the_real_library_wins_over_the_folder_of_its_name() -> None:
    command = "import webdataset; print(webdataset.__file__); webdataset.TarWriter"
    for path in (str(CHECKOUT), ""):
        finished = subprocess.run(
            [sys.executable, "-c", command],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert not Path(finished.stdout.strip()).is_relative_to(CHECKOUT / "webdataset")
    assert not (CHECKOUT / "webdataset/__init__.py").exists()


def test_the_script_runs_from_its_own_folder_and_with_it_on_the_path(dataset: Any) -> None:
    write_set(dataset, train=2)
    finished = subprocess.run(
        [sys.executable, "webdataset.py", "--root", str(dataset.root), "--shard-size", "1"],
        cwd=CHECKOUT / "webdataset",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "webdataset")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert shards(dataset) == ["train-00000.tar", "train-00001.tar"]


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    for name in [name for name in sys.modules if name.split(".")[0] == "webdataset"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(CHECKOUT)])
    message = "the webdataset library is missing: pip install -r requirements/requirements_webdataset.txt"
    with pytest.raises(PokefaError, match=f"^{re.escape(message)}$"):
        import_tar_writer()


def test_without_a_split_the_message_names_the_script_to_run(dataset: Any) -> None:
    dataset.write_images([{"image_id": "a"}])
    dataset.write_base([{"image_id": "a"}])
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == "error: metadata/base.csv has no column split: run webdataset/split.py first\n"


@given(count=st.integers(0, 30), size=st.integers(1, 7), limit=st.none() | st.integers(1, 40_000))
def test_every_sample_is_in_exactly_one_shard(count: int, size: int, limit: int | None) -> None:
    samples = [Sample(str(n), "missing", "caption " * (n % 9), {}) for n in range(count)]
    shard_size = ShardSize(size, limit)
    filled = list(fill_shards(samples, shard_size, Path("/nonexistent")))
    assert [sample for shard in filled for sample in shard] == samples
    for shard in filled:
        assert 1 <= len(shard) <= size
        weights = [tar_bytes(sample, Path("/nonexistent")) for sample in shard]
        assert limit is None or len(shard) == 1 or sum(weights) + 1024 <= limit
