"""Images taken out of a packed set: the same bytes as packing without them, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest

from pokefa.errors import InputError
from pokefa.shards.check import check_and_report
from pokefa.shards.layout import BUILDING
from pokefa.shards.publish import MOVES, finish
from pokefa.takedown.shards import plan_withdrawal, withdraw
from tests.webdataset.test_shards import write_species
from tests.webdataset.test_webdataset import (
    SCRIPT,
    ids_in,
    read_back,
    stats,
    write_set,
    write_tables,
)

Snapshot = Callable[[Path], dict[str, tuple[int, bytes]]]


def take_out(root: Path, *image_ids: str) -> None:
    withdraw(root, plan_withdrawal(root, image_ids), {})


def packed(dataset: Any, train: int, val: int = 0, *flags: object) -> list[dict[str, Any]]:
    rows = write_set(dataset, train=train, val=val)
    write_species(dataset, train, val)
    assert dataset.run(SCRIPT, *flags).code == 0
    return rows


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("places", "flags"),
    [((0,), ()), ((6,), ()), ((1, 2, 5), ()), ((3,), ("--image-format", "webp", "--max-side", 30))],
)
def test_a_cut_shard_has_the_bytes_that_the_packer_gives_it(
    dataset: Any, places: tuple[int, ...], flags: tuple[object, ...]
) -> None:
    rows = packed(dataset, 7, 2, *flags)
    gone = [ids_in(dataset, "train")[place] for place in places]
    take_out(dataset.root, *gone)
    left = [row for row in rows if row["image_id"] not in gone]
    assert check_and_report(dataset.root, 1) == 0
    cut = contents(dataset.root / "webdataset")
    # Packing anew keeps the untouched shard, and gives every file the same bytes but for the marks of the plan.
    write_tables(dataset, left)
    write_species(dataset, 7 - len(gone), 2)
    assert dataset.run(SCRIPT, *flags).summary["counts"] == {"packed": 7 - len(gone), "unchanged": 2}
    again = contents(dataset.root / "webdataset")
    manifest = "manifests/split_stats.json"
    old, new = json.loads(cut.pop(manifest)), json.loads(again.pop(manifest))
    for told in (old, new):
        for mark in ("plan", "images"):
            del told["shards"]["train-00000.tar"][mark]
    assert old == new
    assert cut == again


def test_an_image_that_no_shard_holds_leaves_the_list_of_those(dataset: Any, snapshot: Snapshot) -> None:
    rows = write_set(dataset, train=3)
    gone = rows[2]["image_id"]
    write_tables(dataset, [*rows[:2], rows[2] | {"split": ""}])
    assert dataset.run(SCRIPT).code == 0
    assert stats(dataset)["left_out"] == {gone: "no_split: run webdataset/split.py first"}
    before = snapshot(dataset.root / "webdataset/data")
    assert plan_withdrawal(dataset.root, [str(gone)]).paths == ["webdataset/manifests/split_stats.json"]
    take_out(dataset.root, str(gone))
    assert stats(dataset)["left_out"] == {}
    assert not plan_withdrawal(dataset.root, [str(gone)]).paths
    assert snapshot(dataset.root / "webdataset/data") == before
    assert check_and_report(dataset.root, 1) == 0


def test_only_the_shards_that_held_an_image_are_written(dataset: Any, snapshot: Snapshot) -> None:
    packed(dataset, 7, 0, "--shard-size", 2)
    before = snapshot(dataset.root / "webdataset")
    third = ids_in(dataset, "train")[2]
    take_out(dataset.root, third)
    after = snapshot(dataset.root / "webdataset")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {
        "README.md",
        "data/train-00001.tar",
        "manifests/split_stats.json",
        "manifests/train_ids.txt",
        "manifests/train_species.csv",
    }
    assert (dataset.root / "webdataset/manifests/train_species.csv").read_text() == (
        "pokemon,count,fraction\nabra,6,1.000000\neevee,6,1.000000\n"
    )
    assert check_and_report(dataset.root, 1) == 0


def test_a_shard_without_samples_goes_and_the_next_ones_close_the_gap(dataset: Any) -> None:
    packed(dataset, 7, 1, "--shard-size", 2)
    before = ids_in(dataset, "train")
    samples = {
        sample["__key__"]: {name: sample[name] for name in ("txt", "json")} for sample in read_back(dataset, "train")
    }
    take_out(dataset.root, *before[2:4], before[6])
    assert ids_in(dataset, "train") == [*before[:2], *before[4:6]]
    assert sorted(stats(dataset)["shards"]) == ["train-00000.tar", "train-00001.tar", "val-00000.tar"]
    assert {path.name for path in (dataset.root / "webdataset/data").iterdir()} == set(stats(dataset)["shards"])
    for sample in read_back(dataset, "train"):
        assert {name: sample[name] for name in ("txt", "json")} == samples[sample["__key__"]]
    assert check_and_report(dataset.root, 1) == 0


def test_all_images_can_go(dataset: Any) -> None:
    rows = packed(dataset, 2, 1)
    take_out(dataset.root, *(row["image_id"] for row in rows))
    assert stats(dataset)["samples"] == {"train": 0, "val": 0}
    assert list((dataset.root / "webdataset/data").iterdir()) == []
    assert check_and_report(dataset.root, 1) == 0


def test_an_image_that_was_left_out_leaves_the_manifest_too(dataset: Any) -> None:
    rows = write_set(dataset, train=3)
    write_species(dataset, 3, 0)
    bad = str(rows[1]["image_id"])
    (dataset.root / str(rows[1]["path"])).write_bytes(b"no image")
    dataset.run(SCRIPT)
    assert list(stats(dataset)["left_out"]) == [bad]
    withdraw(dataset.root, plan_withdrawal(dataset.root, [bad]), {bad: ("eevee", "abra")})
    assert stats(dataset)["left_out"] == {}
    assert bad not in (dataset.root / "webdataset/manifests/train_ids.txt").read_text()
    assert check_and_report(dataset.root, 1) == 0


def test_the_card_the_croissant_document_and_the_addresses_follow(dataset: Any) -> None:
    packed(dataset, 5, 1)
    dataset.run(SCRIPT, "--urls-only")
    flags = ("--contact", "you@example.org", "--date", "2026-11-22")
    assert dataset.run("webdataset/card.py", *flags).code == 0
    gone = ids_in(dataset, "train")[1]
    take_out(dataset.root, gone)
    told = stats(dataset)
    card = (dataset.root / "webdataset/README.md").read_text()
    assert "The set has <!-- pokefa:counts -->4 images to train on and 1 to validate with<!-- /pokefa -->." in card
    assert "num_examples: 4\n" in card and f"num_bytes: {told['shards']['train-00000.tar']['bytes']}\n" in card
    document = json.loads((dataset.root / "webdataset/croissant.json").read_text(encoding="utf-8"))
    assert document["description"] == "Captioned Pokémon fan art: 4 images to train on, 1 to validate with."
    files = {part["name"]: part for part in document["distribution"] if part["@type"] == "cr:FileObject"}
    assert {name: part["sha256"] for name, part in files.items()} == {
        name: facts["sha256"] for name, facts in told["shards"].items()
    }
    urls = pl.read_parquet(dataset.root / "webdataset/urls.parquet")
    assert len(urls) == 5 and gone not in urls["image_id"]


def test_only_what_follows_from_the_shards_changes_in_a_card(dataset: Any) -> None:
    packed(dataset, 5, 1, "--shard-size", 2)
    assert dataset.run("webdataset/card.py", "--contact", "you@example.org").code == 0
    card = dataset.root / "webdataset/README.md"
    before = card.read_text(encoding="utf-8").split("---\n", 2)[2]
    assert before.count("5 images to train on") == 1 and "train-{00000..00002}.tar" in before
    card.write_text(
        card.read_text(encoding="utf-8") + "\nOnce it had 5 images to train on, 日本語.\n", encoding="utf-8"
    )
    take_out(dataset.root, *ids_in(dataset, "train")[:2])
    wanted = before.replace("5 images to train on", "3 images to train on").replace("{00000..00002}", "{00000..00001}")
    after = card.read_text(encoding="utf-8").split("---\n", 2)[2]
    assert after == wanted + "\nOnce it had 5 images to train on, 日本語.\n"


def test_a_card_of_an_earlier_version_has_the_new_counts(dataset: Any) -> None:
    packed(dataset, 5, 1)
    card = dataset.root / "webdataset/README.md"
    text = "\n5 images to train on and 1 to validate with, each with a caption.\n"
    card.write_text(f"---\nlicense: mit\n---\n{text}", encoding="utf-8")
    take_out(dataset.root, ids_in(dataset, "train")[0])
    assert card.read_text(encoding="utf-8").endswith(text.replace("5", "4"))


def test_what_a_killed_packing_left_goes(dataset: Any) -> None:
    packed(dataset, 3)
    left = dataset.root / BUILDING / f"{'0' * 64}.tar"
    left.parent.mkdir()
    left.write_bytes((dataset.root / "webdataset/data/train-00000.tar").read_bytes())
    take_out(dataset.root, ids_in(dataset, "train")[0])
    assert not left.exists()


def test_a_set_without_manifest_loses_the_image_all_the_same(dataset: Any) -> None:
    packed(dataset, 3)
    (dataset.root / "webdataset/manifests/split_stats.json").unlink()
    gone = ids_in(dataset, "train")[0]
    take_out(dataset.root, gone)
    assert gone not in ids_in(dataset, "train") and len(ids_in(dataset, "train")) == 2
    assert not (dataset.root / "webdataset/manifests/split_stats.json").exists()


def test_shards_on_another_disk_are_cut_there(dataset: Any) -> None:
    packed(dataset, 3)
    data, memory = dataset.root / "webdataset/data", Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == data.stat().st_dev:
        pytest.skip("no other disk")
    with TemporaryDirectory(dir=memory) as other:
        shutil.copytree(data, other, dirs_exist_ok=True)
        shutil.rmtree(data)
        data.symlink_to(other)
        take_out(dataset.root, ids_in(dataset, "train")[0])
        assert len(ids_in(dataset, "train")) == 2
        assert check_and_report(dataset.root, 1) == 0


def test_nothing_to_take_out_changes_nothing(dataset: Any, snapshot: Snapshot) -> None:
    packed(dataset, 3)
    before = snapshot(dataset.root / "webdataset")
    take_out(dataset.root, "0" * 32)
    assert snapshot(dataset.root / "webdataset") == before
    assert not plan_withdrawal(dataset.root, ["0" * 32]).paths


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data/train-00000.tar", "webdataset/data/train-00000.tar is not a complete tar ("),
        ("manifests/split_stats.json", "webdataset/manifests/split_stats.json is damaged ("),
        ("manifests/train_species.csv", "webdataset/manifests/train_species.csv is damaged: "),
        ("croissant.json", "webdataset/croissant.json is damaged ("),
        ("urls.parquet", "webdataset/urls.parquet cannot be read ("),
    ],
)
def test_damage_is_told_before_anything_changes(dataset: Any, path: str, message: str) -> None:
    packed(dataset, 3)
    dataset.run(SCRIPT, "--urls-only")
    gone = ids_in(dataset, "train")[0]
    damaged = dataset.root / "webdataset" / path
    damaged.write_bytes(damaged.read_bytes()[:700] if path.endswith(".tar") else b"{\n{")
    before = contents(dataset.root)
    with pytest.raises(InputError) as caught:
        take_out(dataset.root, gone)
    assert str(caught.value).startswith(message)
    assert {name: data for name, data in contents(dataset.root).items() if not name.startswith(BUILDING)} == before


# -- kills ------------------------------------------------------------------------------------------------------------


def killed_while_taking_out(root: Path, moment: int, gone: Sequence[str]) -> bool:
    """Take images out in a process that dies when it renames, removes, links or syncs a file for the nth time.

    Returns whether it died; one that has come to its end first has not.
    """
    child = os.fork()
    if child == 0:
        left = moment

        def counted(do: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return do(*arguments, **named)

            return call

        for holder, name in ((Path, "replace"), (Path, "unlink"), (os, "link"), (os, "fsync")):
            setattr(holder, name, counted(getattr(holder, name)))
        try:
            take_out(root, *gone)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def test_killed_at_any_moment_the_set_is_the_old_one_or_is_completed(dataset: Any, tmp_path: Path) -> None:
    packed(dataset, 7, 1, "--shard-size", 2)
    gone = [*ids_in(dataset, "train")[2:4], ids_in(dataset, "train")[4]]  # one shard goes, one is cut, one moves up
    before = contents(dataset.root)
    wanted = tmp_path / "wanted"
    shutil.copytree(dataset.root, wanted)
    take_out(wanted, *gone)
    expected = contents(wanted)
    moments = set()
    for moment in range(1000):
        root = tmp_path / f"killed-{moment}"
        shutil.copytree(dataset.root, root)
        if not killed_while_taking_out(root, moment, gone):
            break
        decided = (root / MOVES).exists()
        moments.add(decided)
        if decided:
            finish(root)
        left = {name: data for name, data in contents(root).items() if not name.startswith(BUILDING)}
        assert left in ((expected,) if decided else (before, expected))  # last of all the list goes
        take_out(root, *gone)
        assert contents(root) == expected
        shutil.rmtree(root)
    assert moments == {True, False}


def kill_once_it_is_decided(root: Path, gone: str) -> None:
    for moment in range(1000):
        assert killed_while_taking_out(root, moment, [gone])
        if (root / MOVES).exists():
            return


def test_packing_completes_what_a_killed_takedown_had_decided(dataset: Any) -> None:
    rows = packed(dataset, 5)
    gone = ids_in(dataset, "train")[1]
    kill_once_it_is_decided(dataset.root, gone)
    dataset.write_base([row for row in rows if row["image_id"] != gone])  # as the takedown has left it
    assert dataset.run(SCRIPT, "--dry-run").code == 2 and (dataset.root / MOVES).exists()
    assert dataset.run(SCRIPT).code == 0
    assert gone not in ids_in(dataset, "train") and len(ids_in(dataset, "train")) == 4
    assert not (dataset.root / BUILDING).exists()
    assert check_and_report(dataset.root, 1) == 0


@pytest.mark.parametrize("path", ["manifests/train_ids.txt", "data/train-00000.tar", "data/.building/moves.json"])
def test_a_change_that_no_longer_fits_is_forgotten(dataset: Any, path: str) -> None:
    """Since a takedown was killed somebody has changed a file: it must not bring its own."""
    packed(dataset, 5)
    kill_once_it_is_decided(dataset.root, ids_in(dataset, "train")[1])
    (dataset.root / "webdataset" / path).write_bytes(b"another")
    before = contents(dataset.root)
    finish(dataset.root)
    del before[MOVES]
    assert contents(dataset.root) == before
