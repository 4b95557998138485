"""metadata/verify.py: every kind of finding, planted and found, and nothing else with it."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metadata.command import Reading
from metadata.verify import MENDING, NOTES, check_temporaries, verify
from pokefa.ledger import Ledger

Ask = Callable[..., Any]


def raw_of(sample: Any, name: str) -> Path:
    return next(sample.root.glob(f"data_raw/*/*/{sample.ids[name]}.*"))


def rewrite(sample: Any, table: str, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    """Change a table as a person's own script would."""
    path = sample.root / "metadata" / f"{table}.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        columns, rows = list(reader.fieldnames or []), change(list(reader))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def edit(sample: Any, name: str, **cells: str) -> None:
    image_id = sample.ids[name]
    rewrite(sample, "images", lambda rows: [row | cells if row["image_id"] == image_id else row for row in rows])


def remove_row(sample: Any, name: str) -> None:
    image_id = sample.ids[name]
    rewrite(sample, "images", lambda rows: [row for row in rows if row["image_id"] != image_id])


def bad_cell(sample: Any) -> None:
    edit(sample, "good", ae_relevance="very")


def missing_raw(sample: Any) -> None:
    raw_of(sample, "good").unlink()


def missing_file(sample: Any) -> None:
    (sample.root / f"data_stage/resized/{sample.ids['dull']}.jpg").unlink()


def wrong_md5(sample: Any) -> None:
    path = raw_of(sample, "dull")
    path.write_bytes(path.read_bytes() + b"!")


def wrong_sha256(sample: Any) -> None:
    edit(sample, "dull", sha256="0" * 64)


def orphan_file(sample: Any) -> None:
    (sample.root / "data_stage/resized" / f"{'0' * 32}.jpg").write_bytes(b"x")


def temporary_file(sample: Any) -> None:
    (sample.root / "data_stage/resized" / f".{sample.ids['good']}.jpg.abc.tmp").write_bytes(b"x")


def taken_down_bytes(sample: Any) -> None:
    with sample.run("takedown") as run:
        run.record(sample.ids["dull"], {"drop_reason": "takedown:asked"}, drop="asked")


def base_not_in_images(sample: Any) -> None:
    remove_row(sample, "fakemon")
    raw_of(sample, "fakemon").unlink()
    (sample.root / f"data_stage/resized/{sample.ids['fakemon']}.jpg").unlink()


def base_not_kept(sample: Any) -> None:
    with sample.run("nsfw_filter") as run:
        run.record(sample.ids["fakemon"], {"is_nsfw": True})


def shard_damaged(sample: Any) -> None:
    shard = sample.root / "webdataset/data/val-00000.tar"
    shard.write_bytes(shard.read_bytes()[:700])


def shard_not_in_base(sample: Any) -> None:
    with sample.run("cap_filter") as run:
        run.record(sample.ids["text"], {"drop_reason": "cap_filter:refusal"}, drop="refusal", table="images")


def shard_lacks_image(sample: Any) -> None:
    shard = sample.root / "webdataset/data/val-00000.tar"
    shard.unlink()
    stats = sample.root / "webdataset/manifests/split_stats.json"
    facts = json.loads(stats.read_text())
    del facts["shards"]["val-00000.tar"]
    stats.write_text(json.dumps(facts))


def manifest_differs(sample: Any) -> None:
    shutil.copyfile(sample.root / "webdataset/data/val-00000.tar", sample.root / "webdataset/data/val-00001.tar")


def list_differs(sample: Any) -> None:
    path = sample.root / "webdataset/manifests/val_ids.txt"
    stats = sample.root / "webdataset/manifests/split_stats.json"
    path.write_text("")
    facts = json.loads(stats.read_text())
    facts["id_lists"]["val_ids.txt"] = {"bytes": 0, "samples": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    stats.write_text(json.dumps(facts))


def journal_damaged(sample: Any) -> None:
    journal = next((sample.root / "metadata/runs").glob("*-phash-*.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"#" * (len(lines[1]) - 1) + b"\n", *lines[2:]]))


def not_merged(sample: Any) -> None:
    edit(sample, "dull", phash64="", phash_run_id="")


def edited_by_hand(sample: Any) -> None:
    edit(sample, "dull", title="a better title")


def removed_by_hand(sample: Any) -> None:
    remove_row(sample, "broken")
    raw_of(sample, "broken").unlink()


def row_without_journal(sample: Any) -> None:
    rewrite(sample, "images", lambda rows: [*rows, {"image_id": "0" * 32}])


# Some damage cannot be done without another kind that follows from it.
ALSO = {
    "wrong_md5": {"wrong_sha256"},
    "bad_cell": {"edited_by_hand"},
    "wrong_sha256": {"edited_by_hand"},
    "base_not_in_images": {"removed_by_hand"},
    "shard_damaged": {"manifest_differs", "shard_lacks_image"},
}
PLANTED = (
    bad_cell, missing_raw, missing_file, wrong_md5, wrong_sha256, orphan_file, temporary_file, taken_down_bytes,
    base_not_in_images, base_not_kept, shard_damaged, shard_not_in_base, shard_lacks_image, manifest_differs,
    list_differs, journal_damaged, not_merged, edited_by_hand, removed_by_hand, row_without_journal,
)  # fmt: skip


def kinds_found(sample: Any, *, fix: bool = False) -> set[str]:
    return set(verify(Reading("verify", sample.root, Ledger.open(sample.root)), fix).by_kind)


def test_every_kind_is_planted_below() -> None:
    assert {plant.__name__ for plant in PLANTED} == set(MENDING)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_finds_what_is_planted(sample: Any, plant: Callable[[Any], None]) -> None:
    plant(sample)
    kind = plant.__name__
    assert kinds_found(sample) == {kind} | ALSO.get(kind, set())


def test_whole_dataset_is_well(ask: Ask) -> None:
    finished = ask("verify")
    assert finished.code == 0
    assert finished.stdout.splitlines()[0] == "9 images checked: all is well"
    assert (finished.summary["seen"], finished.summary["errors"], finished.summary["counts"]) == (9, 0, {})


def test_errors_are_listed_with_mending_and_exit_1(ask: Ask, sample: Any) -> None:
    right = hashlib.sha256(raw_of(sample, "dull").read_bytes()).hexdigest()
    wrong_sha256(sample)
    missing_file(sample)
    finished = ask("verify")
    assert finished.code == 1
    assert finished.stdout.splitlines()[:-1] == [
        "missing_file: 1. run the stage that writes it again with --redo --ids",
        f"    data_stage/resized/{sample.ids['dull']}.jpg (path_resized of {sample.ids['dull']})",
        "wrong_sha256: 1. the file was changed or damaged: put the original back",
        f"    {raw_of(sample, 'dull').relative_to(sample.root)}",
        "note: edited_by_hand: 1. nothing to mend: no journal set this value, so a person did",
        f"    metadata/images.csv, image {sample.ids['dull']}, sha256: {'0' * 64}, journals: {right}",
        "9 images checked: 2 things are wrong",
    ]


def test_notes_alone_leave_exit_0(ask: Ask, sample: Any) -> None:
    edited_by_hand(sample)
    finished = ask("verify", "--json")
    assert finished.code == 0
    assert finished.stdout.count("\n") == 1
    assert finished.summary["findings"]["edited_by_hand"]["found"] == [
        f"metadata/images.csv, image {sample.ids['dull']}, title: a better title, journals: Pikachu <b>fan art</b>"
    ]
    assert set(NOTES) <= set(MENDING)


def test_no_shards_yet_is_no_error(sample: Any) -> None:
    shutil.rmtree(sample.root / "webdataset/data")
    (sample.root / "webdataset/manifests/split_stats.json").unlink()
    assert kinds_found(sample) == set()


def test_shards_without_stats_are_not_a_whole_set(sample: Any) -> None:
    (sample.root / "webdataset/manifests/split_stats.json").unlink()
    assert kinds_found(sample) == {"manifest_differs"}


def test_image_that_could_not_be_packed_is_not_missed(sample: Any) -> None:
    shard_lacks_image(sample)
    stats = sample.root / "webdataset/manifests/split_stats.json"
    facts = json.loads(stats.read_text())
    facts["left_out"] = {sample.ids["cleared"]: "unreadable: truncated"}
    stats.write_text(json.dumps(facts))
    assert kinds_found(sample) == set()


def test_fix_removes_old_temporaries_and_nothing_else(ask: Ask, sample: Any) -> None:
    names = (".a.jpg.x1.tmp", ".b.jpg.part", ".c.jpg.link")
    for name in names:
        (sample.root / "data_stage/resized" / name).write_bytes(b"half")
    orphan_file(sample)
    before = {path for path in sample.root.rglob("*") if path.is_file()}
    assert ask("verify").summary["counts"] == {"orphan_file": 1, "temporary_file": 3}
    finished = ask("verify", "--fix")  # they are young: a stage may be writing them
    assert finished.summary["counts"] == {"orphan_file": 1, "temporary_file": 3}
    assert "s ago: a stage may be writing it, so it was left)\n" in finished.stdout
    assert {path for path in sample.root.rglob("*") if path.is_file()} == before
    assert list(check_temporaries(sample.root, True, time.time() + 601)) == []
    left = {path for path in sample.root.rglob("*") if path.is_file()}
    assert {path.name for path in before - left} == set(names)
