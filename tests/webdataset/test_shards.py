"""webdataset.py: conversions, --verify, --urls-only, the card, and what kills, full disks and takedowns do to a set."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pokefa.engine.work import Pool
from pokefa.errors import PokefaError
from pokefa.images.files import check_image
from pokefa.ledger.tables import Ledger
from pokefa.setup.steps import STEPS
from pokefa.shards.card_text import steps_of
from pokefa.shards.check import manifest_of, read_samples, read_shard, what_differs
from pokefa.shards.images import Encoding, encode
from pokefa.shards.layout import Sample, ShardSize, built_shard, make_sample
from pokefa.shards.pack import Packed, PackShards, Task, pack_tasks
from pokefa.stage.options import Options
from pokefa.stage.runner import StageRun
from tests.attack import images
from tests.conftest import Dataset
from tests.metadata.conftest import build
from tests.odd_places import check_odd_places
from tests.webdataset.test_webdataset import (
    CHECKOUT,
    FORMATS,
    SCRIPT,
    base_row,
    ids_in,
    image_id_of,
    picture,
    read_back,
    stats,
    write_id_lists,
    write_set,
    write_tables,
)

Snapshot = Callable[[Path], dict[str, tuple[int, bytes]]]


def encoded(size: tuple[int, int], suffix: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, (10, 200, 30, 0)[: len(mode)]).save(stream, FORMATS[suffix])
    return stream.getvalue()


def write_species(dataset: Any, train: int, val: int) -> None:
    """Write the species tables of `write_set`'s rows, each of which shows both species."""
    for split, count in (("train", train), ("val", val)):
        lines = [f"{name},{count},1.000000\n" for name in ("abra", "eevee") if count]
        path = dataset.root / f"webdataset/manifests/{split}_species.csv"
        path.write_text("pokemon,count,fraction\n" + "".join(lines))


# -- --image-format and --max-side -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_one_format_for_all(dataset: Any, suffix: str) -> None:
    rows = write_set(dataset, train=6)
    assert dataset.run(SCRIPT, "--image-format", suffix).code == 0
    by_id = {row["image_id"]: row for row in rows}
    for sample in read_back(dataset, "train"):
        exported = (dataset.root / by_id[sample["__key__"]]["path"]).read_bytes()
        facts = json.loads(sample["json"])
        assert check_image(sample[suffix]).format == FORMATS[suffix]
        assert facts["sha256"] == hashlib.sha256(sample[suffix]).hexdigest()
        assert facts["md5"] == hashlib.md5(exported).hexdigest()
        # A file that has the format already is packed as it is.
        assert (sample[suffix] == exported) == by_id[sample["__key__"]]["path"].endswith(suffix)
    assert stats(dataset)["settings"]["image_format"] == suffix


def test_converted_shards_have_the_same_bytes_again(dataset: Any, snapshot: Snapshot) -> None:
    write_set(dataset, train=6)
    flags = ("--image-format", "webp", "--max-side", 30, "--shard-size", 2)
    assert dataset.run(SCRIPT, *flags, "--workers", 1).summary["counts"] == {"packed": 6}
    first = snapshot(dataset.root / "webdataset")
    assert dataset.run(SCRIPT, *flags).summary["counts"] == {"unchanged": 6}
    assert snapshot(dataset.root / "webdataset") == first
    # Other settings are another set, and the first comes back with its own.
    assert dataset.run(SCRIPT, "--shard-size", 2).summary["counts"] == {"packed": 6}
    assert dataset.run(SCRIPT, *flags, "--workers", 2).summary["counts"] == {"packed": 6}
    again = snapshot(dataset.root / "webdataset")
    assert {name: data for name, (_, data) in again.items()} == {name: data for name, (_, data) in first.items()}


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    suffix=st.sampled_from(list(FORMATS)),
    wanted=st.sampled_from(["keep", *FORMATS]),
    max_side=st.none() | st.integers(1, 90),
)
def test_an_encoded_image_has_the_format_and_size_asked_for(
    width: int, height: int, suffix: str, wanted: str, max_side: int | None
) -> None:
    exported = encoded((width, height), suffix)
    result = encode(exported, check_image(exported), Encoding(wanted, max_side))
    seen = check_image(result)
    assert seen.format == FORMATS[suffix if wanted == "keep" else wanted]
    longer = max(width, height)
    side = min(longer, max_side or longer)
    assert max(seen.width, seen.height) == side
    assert abs(seen.width - width * side / longer) <= 1 and abs(seen.height - height * side / longer) <= 1
    assert (result == exported) == (seen.format == FORMATS[suffix] and side == longer)


def test_alpha_is_laid_on_white_where_the_format_has_none() -> None:
    exported = encoded((8, 8), "png", "RGBA")
    jpeg = encode(exported, check_image(exported), Encoding("jpg"))
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.getpixel((4, 4)) == (255, 255, 255)
    webp = encode(exported, check_image(exported), Encoding("webp", 4))
    with Image.open(io.BytesIO(webp)) as image:
        assert (image.mode, image.size) == ("RGBA", (4, 4))


def test_shard_bytes_cannot_be_planned_for_files_that_change(dataset: Any) -> None:
    finished = dataset.run(SCRIPT, "--shard-bytes", 20480, "--max-side", 10)
    assert finished.code == 2
    assert finished.stderr.endswith(
        "error: --shard-bytes applies to unchanged files only: with --image-format or --max-side use --shard-size\n"
    )


# -- --check -----------------------------------------------------------------------------------------------------------


def test_without_decoding_damage_passes_until_a_full_check(dataset: Any, snapshot: Snapshot) -> None:
    rows = write_set(dataset, train=4)
    damaged = dataset.root / str(rows[1]["path"])
    damaged.write_bytes(picture(1, "png", (200, 200))[:-40])
    (dataset.root / str(rows[2]["path"])).write_bytes(b"no image")
    assert dataset.run(SCRIPT, "--check", "header").summary["counts"] == {"packed": 3, "unreadable": 1}
    assert damaged.read_bytes() in [sample.get("png") for sample in read_back(dataset, "train")]
    assert stats(dataset)["settings"]["check"] == "header"
    # Shards that were not decoded do not pass for decoded ones.
    assert dataset.run(SCRIPT).summary["counts"] == {"packed": 2, "unreadable": 2}
    damaged.write_bytes(picture(1, "png"))
    (dataset.root / str(rows[2]["path"])).write_bytes(picture(2, "webp"))
    dataset.run(SCRIPT)
    whole = {name: data for name, (_, data) in snapshot(dataset.root / "webdataset/data").items()}
    assert dataset.run(SCRIPT, "--check", "header").summary["counts"] == {"packed": 4}
    assert {name: data for name, (_, data) in snapshot(dataset.root / "webdataset/data").items()} == whole


# -- --verify ----------------------------------------------------------------------------------------------------------


def verify(dataset: Any) -> list[str]:
    """Return what --verify prints, found without its worker processes."""
    stats = manifest_of(dataset.root)
    found = [read_shard(dataset.root, name, told) for name, told in sorted(stats.shards.items())]
    return what_differs(dataset.root, stats, found)


def test_verify_finds_nothing_wrong_and_needs_no_ledger(dataset: Any) -> None:
    write_set(dataset, train=5, val=2)
    write_species(dataset, 5, 2)
    dataset.run(SCRIPT, "--shard-size", 3)
    for path in (dataset.root / "metadata").glob("*.csv"):
        path.unlink()
    finished = dataset.run(SCRIPT, "--verify")
    assert (finished.code, finished.stdout.count("\n")) == (0, 1)
    assert {name: finished.summary[name] for name in ("seen", "done", "errors", "samples")} == {
        "seen": 3,
        "done": 3,
        "errors": 0,
        "samples": 7,
    }


def test_verify_names_what_differs(dataset: Any) -> None:
    rows = write_set(dataset, train=5, val=2)
    write_species(dataset, 5, 2)
    dataset.run(SCRIPT, "--shard-size", 2)
    data = dataset.root / "webdataset/data"
    whole = {path: path.read_bytes() for path in data.iterdir()}
    first, second, third = (data / f"train-0000{number}.tar" for number in range(3))

    flipped = bytearray(whole[first])
    start = flipped.index(read_back(dataset, "train")[0]["json"])
    place = flipped.index(b"example.org", start)
    flipped[place] ^= 1
    first.write_bytes(flipped)
    line = "webdataset/data/train-00000.tar has another SHA-256 than the manifest says"
    finished = dataset.run(SCRIPT, "--verify")
    assert (finished.code, finished.stdout.splitlines()[:-1]) == (1, [line])
    assert verify(dataset) == [line]

    key = read_back(dataset, "train")[0]["__key__"]
    path = next(dataset.root / str(row["path"]) for row in rows if row["image_id"] == key)
    flipped = bytearray(whole[first])
    place = flipped.index(path.read_bytes()) + len(path.read_bytes()) - 3
    flipped[place] ^= 1
    first.write_bytes(flipped)
    lines = verify(dataset)
    assert lines[0] == "webdataset/data/train-00000.tar has another SHA-256 than the manifest says"
    assert any(line.startswith(f"webdataset/data/train-00000.tar, {key}: sha256 is ") for line in lines)
    first.write_bytes(whole[first])

    second.write_bytes(whole[second][:1000])
    lines = verify(dataset)
    size = len(whole[second])
    assert lines[0] == f"webdataset/data/train-00001.tar has 1000 bytes, the manifest says {size}"
    assert lines[1].startswith("webdataset/data/train-00001.tar cannot be read to its end: ")
    assert lines[2] == "webdataset/data/train-00001.tar holds 0 samples, the manifest says 2"
    assert sum(line.endswith(" is in train_ids.txt and in no train shard") for line in lines) == 2
    second.write_bytes(whole[second])

    third.rename(data / "train-00007.tar")
    lines = verify(dataset)
    assert lines[:2] == [
        "webdataset/data/train-00002.tar is missing",
        "webdataset/data/train-00007.tar is not in the manifest",
    ]
    (data / "train-00007.tar").rename(third)

    write_id_lists(dataset, rows[1:])
    lines = verify(dataset)
    assert lines == [
        "webdataset/manifests/train_ids.txt has other bytes than when the shards were packed",
        f"{rows[0]['image_id']} is in a train shard and not in train_ids.txt",
    ]
    write_id_lists(dataset, rows)

    (dataset.root / "webdataset/manifests/val_species.csv").write_text(
        "pokemon,count,fraction\nabra,3,1.0\neevee,2,1.0\n"
    )
    assert verify(dataset) == ["webdataset/manifests/val_species.csv counts 3 of abra, the shards hold 2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            "error: no webdataset/manifests/split_stats.json, so the set is not complete: run ",
        ),
        ("{", "error: webdataset/manifests/split_stats.json is damaged (JSONDecodeError("),
        (
            '{"shards": {"a": {}}, "id_lists": {}, "left_out": {}}',
            "error: webdataset/manifests/split_stats.json is damaged (",
        ),
    ],
)
def test_verify_without_a_manifest(dataset: Any, text: str | None, message: str) -> None:
    write_set(dataset, train=1)
    if text is not None:
        (dataset.root / "webdataset/manifests/split_stats.json").write_text(text)
    finished = dataset.run(SCRIPT, "--verify")
    assert finished.code == 2
    assert finished.stderr.startswith(message)


# -- --urls-only -------------------------------------------------------------------------------------------------------


def test_the_set_without_images(dataset: Any, snapshot: Snapshot) -> None:
    from pokefa.ledger.columns import BASE

    rows = write_set(dataset, train=3, val=1)
    dataset.write_images(
        {"image_id": row["image_id"], "sha256": hashlib.sha256(str(row["image_id"]).encode()).hexdigest()}
        for row in rows
    )
    dataset.write_base([row | {"my_notes": "private"} for row in rows])
    finished = dataset.run(SCRIPT, "--urls-only")
    assert (finished.code, finished.summary["urls"]) == (0, 4)
    frame = pl.read_parquet(dataset.root / "webdataset/urls.parquet")
    assert frame.columns == [*BASE.names, "sha256"]
    assert frame["image_id"].to_list() == sorted(str(row["image_id"]) for row in rows)
    by_id = {row["image_id"]: row for row in rows}
    for line in frame.iter_rows(named=True):
        row = by_id[line["image_id"]]
        assert line["sha256"] == hashlib.sha256(str(row["image_id"]).encode()).hexdigest()
        assert line["ae_aesthetic"] == (row["ae_aesthetic"] or None)
        assert (line["source_url"], line["hybrid_caption"]) == (row["source_url"], row["hybrid_caption"])
    before = snapshot(dataset.root)
    assert not (dataset.root / "webdataset/data").exists()
    dataset.run(SCRIPT, "--urls-only")
    assert snapshot(dataset.root) == before


# -- taken down, dropped -----------------------------------------------------------------------------------------------


def drop(dataset: Any, rows: list[dict[str, object]], gone: object, reason: str) -> None:
    dataset.write_images(
        {"image_id": row["image_id"], "drop_reason": reason if row["image_id"] == gone else ""} for row in rows
    )


@pytest.mark.parametrize("reason", ["takedown:the artist asked", "cap_filter:no_subject", "species:no_known_species"])
def test_a_dropped_image_is_packed_no_more(dataset: Any, reason: str) -> None:
    rows = write_set(dataset, train=4)
    drop(dataset, rows, rows[1]["image_id"], reason)
    finished = dataset.run(SCRIPT)
    assert finished.code == 2  # the split still lists it
    assert finished.stderr.endswith("run webdataset/split.py again\n")
    write_id_lists(dataset, rows[:1] + rows[2:])
    told = dataset.run(SCRIPT, "--dry-run").summary
    assert (told["seen"], told["counts"]) == (4, {"dropped": 1})


def test_dropped_images_leave_shards_and_addresses(dataset: Any) -> None:
    rows = write_set(dataset, train=4)
    dataset.run(SCRIPT)
    gone = rows[1]["image_id"]
    drop(dataset, rows, gone, "takedown:the artist asked")
    write_id_lists(dataset, [row for row in rows if row["image_id"] != gone])
    assert dataset.run(SCRIPT).code == dataset.run(SCRIPT, "--urls-only").code == 0
    assert sorted(ids_in(dataset, "train")) == sorted(row["image_id"] for row in rows if row["image_id"] != gone)
    shard = dataset.root / "webdataset/data/train-00000.tar"
    assert str(gone).encode() not in shard.read_bytes()
    assert gone not in pl.read_parquet(dataset.root / "webdataset/urls.parquet")["image_id"]


# -- faults ------------------------------------------------------------------------------------------------------------


def write_large(dataset: Any, count: int) -> None:
    """Write a set of noise, large enough that a run is still busy when something happens to it."""
    rows = write_set(dataset, train=count)
    for row in rows:
        path = dataset.root / str(row["path"])
        noise = hashlib.shake_256(path.name.encode()).digest(750_000)
        Image.frombytes("RGB", (500, 500), noise).save(path, FORMATS[path.suffix[1:]])


def start(dataset: Any, *flags: str, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SCRIPT, "--root", str(dataset.root), *flags],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a run; the one that keeps account of shared resources is none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_a_worker_that_dies_costs_the_retry_of_its_shard(dataset: Any) -> None:
    write_large(dataset, 16)
    building = dataset.root / "webdataset/data/.building"
    killed = False
    while not killed:  # the machine may let a run end before
        shutil.rmtree(dataset.root / "webdataset/data", ignore_errors=True)
        process = start(dataset, "--shard-size", "4", "--workers", "2")
        while process.poll() is None and not list(building.glob(".*")):  # a shard is being written
            time.sleep(0.001)
        for worker in workers_of(process.pid)[:1]:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                killed = True
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["counts"] == {"packed": 16}
    assert [path.name for path in (dataset.root / "webdataset/data").iterdir() if path.name.startswith(".")] == []
    assert verify(dataset) == []


@dataclass(frozen=True)
class DiesOver(PackShards):
    """A packer whose process is killed by some images, as by a crash in a decoder."""

    deadly: frozenset[str] = frozenset()

    def members_of(self, sample: Sample, *arguments: Any) -> dict[str, Any]:
        if sample.image_id in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().members_of(sample, *arguments)


@dataclass(frozen=True)
class DiesAlways(PackShards):
    def pack(self, task: Task) -> Packed:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().pack(task)


def test_an_image_that_kills_the_process_is_left_out(
    dataset: Any, load_script: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = write_set(dataset, train=5)
    deadly = frozenset([str(rows[1]["image_id"])])
    script = load_script(SCRIPT)
    flags = ["--root", str(dataset.root), "--shard-size", "3", "--workers", "1", "--strict"]
    with monkeypatch.context() as patch:
        patch.setattr(script, "PackShards", partial(DiesOver, deadly=deadly))
        assert script.main(flags) == 1
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (summary["counts"], summary["errors"]) == ({"packed": 4, "worker_died": 1}, 1)
    reason = "worker_died: the process working on this image was killed (out of memory, or a crash in a library)"
    assert stats(dataset)["left_out"] == dict.fromkeys(deadly, reason)
    assert set(ids_in(dataset, "train")) == {row["image_id"] for row in rows} - deadly
    assert verify(dataset) == []
    # The next run tries them again: a process may have died for want of memory.
    assert dataset.run(SCRIPT, *flags[2:]).code == 0
    assert set(ids_in(dataset, "train")) == {row["image_id"] for row in rows}


def test_an_image_that_takes_too_long_is_left_out_and_has_another_try(dataset: Any) -> None:
    rows = write_set(dataset, train=3)
    slow = rows[1]
    (dataset.root / str(slow["path"])).write_bytes(images.jpeg_with_scans(120, 6_000))
    flags = ("--shard-size", "3", "--workers", "1")
    done = dataset.run(SCRIPT, *flags, "--decode-seconds", "0.2")
    assert done.summary["counts"] == {"packed": 2, "unreadable": 1}, done.stderr
    reason = "unreadable: decode_timeout: not decoded within 0.2 seconds of CPU time"
    assert stats(dataset)["left_out"] == {slow["image_id"]: reason}
    assert dataset.run(SCRIPT, *flags).summary["counts"] == {"packed": 3}


def test_what_no_shard_holds_is_left_out_unless_it_is_converted(dataset: Any) -> None:
    rows = write_set(dataset, train=2)
    (dataset.root / str(rows[0]["path"])).write_bytes(images.encoded(images.picture(), "GIF"))
    assert dataset.run(SCRIPT).summary["counts"] == {"packed": 1, "unreadable": 1}
    assert "no shard holds GIF" in stats(dataset)["left_out"][rows[0]["image_id"]]
    assert dataset.run(SCRIPT, "--image-format", "png").summary["counts"] == {"packed": 2}


def test_a_shard_that_kills_the_process_without_any_image(dataset: Any) -> None:
    samples = tuple(make_sample(row) for row in write_set(dataset, train=2))
    packer = DiesAlways(dataset.root, Encoding())
    with pytest.raises(PokefaError) as raised:
        list(pack_tasks(packer, [Task("plan", samples)], Pool(workers=1), lambda: False))
    assert str(raised.value).startswith("a shard of 2 images cannot be packed: worker_died: ")


def test_a_full_disk_publishes_nothing(dataset: Any, snapshot: Snapshot) -> None:
    rows = write_set(dataset, train=4)
    dataset.run(SCRIPT, "--shard-size", 2)
    before = snapshot(dataset.root / "webdataset")
    for row in rows[:2]:  # noise, so that the new shards are over the limit
        path = dataset.root / str(row["path"])
        Image.frombytes("RGB", (300, 300), hashlib.shake_256(path.name.encode()).digest(270_000)).save(path, "PNG")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(dataset, "--shard-size", "2", "--workers", "1", preexec_fn=limit)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert "cannot be packed: cannot write " in stderr
    assert "Traceback" not in stderr
    after = {name: found for name, found in snapshot(dataset.root / "webdataset").items() if "/.building/" not in name}
    assert after == before
    assert verify(dataset) == []
    assert dataset.run(SCRIPT, "--shard-size", 2).code == 0  # with room again
    assert verify(dataset) == []


def test_a_run_killed_between_two_renames_is_finished_by_the_next(dataset: Any) -> None:
    """What is on disk after a kill in the middle of publishing: no manifest, and shards in both folders."""
    rows = write_set(dataset, train=6)
    dataset.run(SCRIPT, "--shard-size", 2)
    data = dataset.root / "webdataset/data"
    whole = {path.name: path.read_bytes() for path in data.iterdir()}
    (data / ".building").mkdir()
    plan = stats(dataset)["shards"]["train-00001.tar"]["plan"]
    (data / "train-00001.tar").rename(data / f".building/{plan}.tar")
    (dataset.root / "webdataset/manifests/split_stats.json").unlink()
    write_tables(dataset, rows)
    assert dataset.run(SCRIPT, "--shard-size", 2).code == 0
    assert {path.name: path.read_bytes() for path in data.iterdir()} == whole


# -- the card ----------------------------------------------------------------------------------------------------------


def test_packing_writes_the_head_and_keeps_the_text(dataset: Any) -> None:
    import yaml

    write_set(dataset, train=3)
    dataset.run(SCRIPT)
    card = dataset.root / "webdataset/README.md"
    _, head, body = card.read_text(encoding="utf-8").split("---\n", 2)
    loaded = yaml.safe_load(head)
    assert loaded["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.tar"}]
    assert [part["name"] for part in loaded["dataset_info"]["features"]][:3] == ["jpg", "png", "webp"]
    assert loaded["size_categories"] == ["n<1K"]
    card.write_text(f"---\nlicense: mit\n{head}---\n{body}\nMy own words, 日本語.\n", encoding="utf-8")
    rows = write_set(dataset, train=4, val=1)
    dataset.run(SCRIPT, "--image-format", "jpg")
    _, head, body = card.read_text(encoding="utf-8").split("---\n", 2)
    loaded = yaml.safe_load(head)
    assert loaded["license"] == "mit"
    assert [part["num_examples"] for part in loaded["dataset_info"]["splits"]] == [4, 1]
    assert [part["name"] for part in loaded["dataset_info"]["features"]] == ["jpg", "txt", "json", "__key__", "__url__"]
    assert body.endswith("\nMy own words, 日本語.\n")
    assert len(rows) == 5
    write_tables(dataset, [])
    dataset.run(SCRIPT)
    assert "configs" not in yaml.safe_load(card.read_text().split("---\n", 2)[1])


def test_the_full_card(dataset: Any, snapshot: Snapshot) -> None:
    import yaml

    rows = write_set(dataset, train=5, val=1)
    dataset.write_images(
        {"image_id": row["image_id"], "ae_model": "scorer-1 rubric-2", "nsfw_threshold": '{"a": 0.3}'} for row in rows
    )
    dataset.run(SCRIPT, "--seed", 7)
    flags = ("--contact", "removals@example.net", "--title", "Drawn creatures", "--url", "https://example.net/set")
    finished = dataset.run("webdataset/card.py", *flags, "--license", "cc-by-4.0")
    assert finished.code == 0, finished.stderr
    _, head, body = (dataset.root / "webdataset/README.md").read_text().split("---\n", 2)
    loaded = yaml.safe_load(head)
    assert (loaded["license"], loaded["language"], loaded["pretty_name"]) == ("cc-by-4.0", ["en"], "Drawn creatures")
    assert {"task_categories", "source_datasets", "size_categories", "configs", "dataset_info"} <= loaded.keys()
    for text in (
        "# Drawn creatures",
        "5 images to train on and 1 to validate with",
        "| scores | `scorer-1 rubric-2` | 6 |",
        '| NSFW thresholds | `{"a": 0.3}` | 6 |',
        "| --seed 7 | packed 6 |",
        "| 50 to 59 | 0 | 5 |",
        "| 90 to 100 | 6 | 0 |",
        "| none | 0 | 1 |",
        "| abra | 6 | 100.0% |",
        "write to removals@example.net",
    ):
        assert text in body
    assert str(dataset.root) not in body
    document = json.loads((dataset.root / "webdataset/croissant.json").read_text())
    told = stats(dataset)["shards"]
    found = {part["name"]: part["sha256"] for part in document["distribution"] if part["@type"] == "cr:FileObject"}
    assert found == {name: facts["sha256"] for name, facts in told.items()}
    before = snapshot(dataset.root)
    dataset.run("webdataset/card.py", *flags, "--license", "cc-by-4.0")
    assert snapshot(dataset.root) == before
    dataset.run("webdataset/card.py", *flags)
    assert "license: other\nlicense_name: rights-stay" in (dataset.root / "webdataset/README.md").read_text()


def test_the_card_before_the_shards(dataset: Any) -> None:
    write_set(dataset, train=1)
    finished = dataset.run("webdataset/card.py", "--contact", "x")
    assert finished.code == 2
    assert finished.stderr == (
        "error: no webdataset/manifests/split_stats.json, so the set is not complete: run webdataset/webdataset.py\n"
    )


def test_a_score_of_100_is_in_the_last_step() -> None:
    assert steps_of(pl.Series(["0", "9", "10", "90", "100", None])) == {0: 2, 10: 1, 90: 2, None: 1}


# -- every row is accounted for ----------------------------------------------------------------------------------------


# What may be the matter with a row, as cells of base.csv and of images.csv; of a damaged image it is the file.
MATTERS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "none": ({}, {}),
    "unreadable": ({}, {}),
    "dropped": ({"split": ""}, {"drop_reason": "species:no_known_species"}),
    "dropped since the split": ({}, {"drop_reason": "takedown:asked"}),
    "no_caption": ({"split": "", "caption": "", "tags": "", "species": ""}, {}),
    "no_caption since the split": ({"hybrid_caption": ""}, {}),
    "caption_failed": ({"split": "", "caption": "", "tags": "", "species": ""}, {"caption_error": "refused"}),
    "bad_tags": ({"split": "", "tags": "not json"}, {}),
    "bad_tags since the split": ({"tags": "not json", "hybrid_caption": ""}, {}),
    "no_species": ({"split": "", "species": ""}, {}),
    "no_split": ({"split": ""}, {}),
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    matters=st.lists(st.sampled_from(list(MATTERS)), min_size=1, max_size=9),
    sides=st.lists(st.sampled_from(["train", "val"]), min_size=9, max_size=9),
    size=st.integers(1, 9),
    seed=st.integers(),
)
def test_every_row_of_base_is_in_one_shard_or_left_out(
    packing: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
    matters: list[str],
    sides: list[str],
    size: int,
    seed: int,
) -> None:
    """Whole tables go in, through what the script itself reads, plans and packs with."""
    dataset = Dataset(tmp_path_factory.mktemp("set"))
    base, images, split = [], [], []
    for number, (matter, side) in enumerate(zip(matters, sides, strict=False)):
        of_base, of_image = MATTERS[matter]
        base.append(base_row(number, side) | of_base)
        images.append({"image_id": image_id_of(number)} | of_image)
        if base[-1]["split"] and not of_image:
            split.append(base[-1])
        path = dataset.root / str(base[-1]["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number)[: 40 if matter == "unreadable" else None])
    dataset.write_images(images)
    dataset.write_base(base)
    write_id_lists(dataset, split)
    run = StageRun(STEPS["webdataset"], Options(root=dataset.root), Ledger.open(dataset.root))
    samples, left_out = packing.read_samples(run)
    packed: list[str] = []
    for side in ("train", "val"):
        for task in packing.plan_shards(run, samples[side], packing.Settings(ShardSize(size), Encoding(), seed)):
            done = PackShards(dataset.root, Encoding()).pack(task)
            keys = [key for key, _ in read_samples(built_shard(dataset.root, task.plan))]
            assert len(keys) == done.samples <= size
            packed += keys
            left_out |= done.left_out
    assert sorted([*packed, *left_out]) == sorted(image_id_of(number) for number in range(len(matters)))
    slugs = {image_id: reason.split(":")[0] for image_id, reason in left_out.items()}
    wrong = {image_id_of(number): matter.split()[0] for number, matter in enumerate(matters) if matter != "none"}
    assert slugs == wrong


def test_a_root_of_any_name_in_any_locale(tmp_path: Path) -> None:
    template = build(tmp_path / "template")
    scripts = ["species.py --coverage", "split.py", "webdataset.py --workers 1", "webdataset.py --urls-only"]
    check_odd_places(template.root, tmp_path, [f"webdataset/{line}" for line in scripts])
