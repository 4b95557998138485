"""The demo as a user runs it: every planted picture ends where it should, and killing it changes nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pokefa.setup.environments import CHECKOUT, ensure, environment
from pokefa.setup.runner import checkout_variables
from tests.pipeline.conftest import finish, start_demo

# POKEFA_ALL_CRASHES=1 kills it more often.
KILLS = 6 if os.environ.get("POKEFA_ALL_CRASHES") else 2

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def rows(finished: Path) -> dict[str, dict[str, str]]:
    with (finished / "metadata/images.csv").open(newline="", encoding="utf-8") as stream:
        return {row["image_id"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def pictures(finished: Path) -> list[dict[str, Any]]:
    return json.loads((finished / "demo/art/catalogue.json").read_text())["pictures"]


@pytest.fixture(scope="module")
def candidates(finished: Path) -> dict[str, dict[str, Any]]:
    """The scraper's line for each file of the catalogue."""
    lines = [json.loads(line) for path in finished.rglob("urls.jsonl") for line in path.read_text().splitlines()]
    return {line["url"].rsplit("/", 1)[-1]: line for line in lines}


@pytest.fixture(scope="module")
def samples(finished: Path) -> list[dict[str, Any]]:
    """Every sample of the shards, read by the webdataset library in its own environment."""
    script = """
import io, json, sys, webdataset
from pathlib import Path
from PIL import Image
for shard in sorted(Path(sys.argv[1]).glob("*.tar")):
    for sample in webdataset.WebDataset(str(shard), shardshuffle=False):
        kind = next(kind for kind in ("jpg", "png", "webp") if kind in sample)
        image = Image.open(io.BytesIO(sample[kind]))
        image.load()
        print(json.dumps({"shard": shard.name, "key": sample["__key__"], "size": image.size,
                          "text": sample["txt"].decode(), "json": json.loads(sample["json"])}))
"""
    done = subprocess.run(
        [ensure(environment("webdataset")), "-c", script, finished / "webdataset/data"],
        cwd=CHECKOUT,
        env=checkout_variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_kind(pictures: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    found = [picture for picture in pictures if picture["kind"] == kind]
    assert found, f"nothing of kind {kind} is drawn"
    return iter(found)


def test_there_are_about_sixty_pictures_of_a_dozen_species(pictures):
    assert 55 <= len(pictures) <= 80
    assert len({picture["species"] for picture in pictures}) == 12


@pytest.mark.parametrize(
    ("kind", "status"),
    [("tiny", "too_small"), ("truncated", "truncated"), ("text_file", "not_an_image"), ("opted_out", "opted_out")],
)
def test_what_must_not_come_in_is_refused_with_its_reason(pictures, rows, candidates, kind, status):
    for picture in of_kind(pictures, kind):
        assert picture["md5"] not in rows
        assert candidates[Path(picture["file"]).name]["status"] == status


@pytest.mark.parametrize("kind", ["plain", "text", "oversize", "cmyk", "exif_rotated", "sixteen_bit", "animated"])
def test_what_is_good_is_kept_and_packed(pictures, rows, samples, kind):
    packed = {sample["key"] for sample in samples}
    copied = {picture["copy_of"] for picture in of_kind(pictures, "near_duplicate")}
    for picture in of_kind(pictures, kind):
        if picture["file"] in copied:
            continue  # one of the group is kept, which one is the duplicates' test
        assert rows[picture["md5"]]["filter_decision"] == "kept", picture["file"]
        assert picture["md5"] in packed


@pytest.mark.parametrize(
    ("kind", "decision"),
    [
        ("nsfw", "nsfw"),
        ("off_topic", "below_relevance"),
        ("low_aesthetic", "below_aesthetic"),
        ("artifact_strong", "below_aesthetic"),
    ],
)
def test_what_is_dropped_says_why(pictures, rows, finished, samples, kind, decision):
    with (finished / "metadata/drops.csv").open(newline="", encoding="utf-8") as stream:
        drops = {(row["image_id"], row["reason"]) for row in csv.DictReader(stream)}
    packed = {sample["key"] for sample in samples}
    for picture in of_kind(pictures, kind):
        assert rows[picture["md5"]]["filter_decision"] == decision, picture["file"]
        assert (picture["md5"], decision) in drops
        assert picture["md5"] not in packed
        assert (finished / rows[picture["md5"]]["path_raw"]).exists()


def test_a_false_alarm_is_cleared_by_hand_and_kept(pictures, rows, samples):
    for picture in of_kind(pictures, "nsfw_false_alarm"):
        row = rows[picture["md5"]]
        assert (row["is_nsfw"], row["nsfw_override"], row["filter_decision"]) == ("True", "unflagged", "kept")
        assert picture["md5"] in {sample["key"] for sample in samples}


def test_text_is_found_and_painted_over_and_nothing_else_is(pictures, rows, finished):
    for picture in of_kind(pictures, "text"):
        row = rows[picture["md5"]]
        assert row["has_ocr"] == "True", picture["file"]
        assert (finished / row["ocr_inpainted_path"]).exists()
        assert row["resize_source"] == "inpainted"
    with_text = {picture["md5"] for picture in of_kind(pictures, "text")}
    flagged = {image_id for image_id, row in rows.items() if row["has_ocr"] == "True"}
    assert flagged == with_text


def test_exactly_one_of_each_group_of_near_duplicates_is_kept(pictures, rows):
    by_file = {picture["file"]: picture["md5"] for picture in pictures}
    groups: dict[str, set[str]] = {}
    for picture in of_kind(pictures, "near_duplicate"):
        groups.setdefault(by_file[picture["copy_of"]], {by_file[picture["copy_of"]]}).add(picture["md5"])
    for members in groups.values():
        decisions = Counter(rows[member]["filter_decision"] for member in members)
        assert decisions == {"kept": 1, "duplicate": len(members) - 1}
        (kept,) = [member for member in members if rows[member]["filter_decision"] == "kept"]
        assert {rows[member]["dupe_rep_image"] for member in members} == {kept}
    grouped = {member for members in groups.values() for member in members}
    assert {image_id for image_id, row in rows.items() if row["dupe_removed"] == "True"} <= grouped


def test_sizes_follow_the_policy(pictures, rows):
    for picture in of_kind(pictures, "oversize"):
        assert rows[picture["md5"]]["resize_action"] == "down"
    for picture in of_kind(pictures, "exif_rotated"):
        row = rows[picture["md5"]]
        assert (int(row["resized_w"]) < int(row["resized_h"])) == (int(row["w"]) < int(row["h"]))
    actions = {row["resize_action"] for row in rows.values() if row["resize_action"]}
    assert {"keep", "up", "down"} <= actions <= {"keep", "strip", "convert", "up", "down"}
    for row in rows.values():
        if row["path_resized"]:
            assert min(int(row["resized_w"]), int(row["resized_h"])) >= 1024


def test_strong_artifacts_cap_the_score(pictures, rows):
    for picture in of_kind(pictures, "artifact_strong"):
        row = rows[picture["md5"]]
        assert row["ae_artifact"] == "strong"
        assert int(row["ae_aesthetic"]) <= 15


def test_an_unknown_creature_is_dropped_by_species_with_a_reason(pictures, rows, samples):
    for picture in of_kind(pictures, "no_species"):
        row = rows[picture["md5"]]
        assert (row["filter_decision"], row["drop_reason"]) == ("kept", "species:no_known_species")
        assert picture["md5"] not in {sample["key"] for sample in samples}


def test_every_packed_sample_has_image_text_and_json(samples, finished):
    with (finished / "metadata/base.csv").open(newline="", encoding="utf-8") as stream:
        base = {row["image_id"]: row for row in csv.DictReader(stream)}
    packed = {row["image_id"] for row in base.values() if row["split"]}
    assert packed == {sample["key"] for sample in samples}
    assert len(samples) == len(packed) >= 35
    assert {base[sample["key"]]["split"] for sample in samples} == {"train", "val"}
    for sample in samples:
        row = base[sample["key"]]
        assert sample["shard"].startswith(row["split"])
        assert sample["text"] == row["hybrid_caption"]
        assert sample["json"]["image_id"] == sample["key"]
        assert sample["json"]["source_url"] == row["source_url"]
        assert [sample["json"]["width"], sample["json"]["height"]] == sample["size"]
        assert sample["json"]["species_list"] == row["species"].split(",")


def test_every_image_is_accounted_for(rows, pictures, finished):
    decisions = Counter(row["filter_decision"] for row in rows.values())
    assert sum(decisions.values()) == len(rows)
    assert "" not in decisions
    assert len(rows) == len(pictures) - 4  # tiny, truncated, opted out and the text file never became rows
    for image_id, row in rows.items():
        assert hashlib.md5((finished / row["path_raw"]).read_bytes()).hexdigest() == image_id


def test_verify_finds_nothing_wrong(finished):
    done = subprocess.run(
        [ensure(environment("metadata")), "metadata/verify.py", "--root", finished],
        cwd=CHECKOUT,
        env=checkout_variables(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def bytes_by_file(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_second_run_changes_no_file(finished):
    before = bytes_by_file(finished)
    finish(start_demo(finished))
    assert bytes_by_file(finished) == before


def results(root: Path) -> dict[str, str]:
    """The bytes of what a trainer gets: base.csv, the shards and their manifests."""
    return {
        name: digest
        for name, digest in bytes_by_file(root).items()
        if name == "metadata/base.csv" or name.startswith("webdataset/")
    }


def test_killed_anywhere_and_started_again_it_ends_with_the_same_bytes(finished, tmp_path):
    """Seeded moments, each with everything that runs killed at once."""
    root = tmp_path / "run"
    chance = random.Random("demo kills")
    for _ in range(KILLS):
        process = start_demo(root)
        time.sleep(chance.uniform(2, 25))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(start_demo(root))
    assert results(root) == results(finished)
    assert len(results(root)) > 5
