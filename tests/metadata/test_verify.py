"""metadata/verify.py: every kind of finding, planted and found, and nothing else with it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from metadata.verify import FIXES, NOTES, TAKE_DOWN_AGAIN, verify
from pokefa.ledger.tables import Ledger
from pokefa.llm.batch_records import BatchRecord, write_record
from pokefa.llm.store import Answers, Stored
from pokefa.reporting.check_files import check_temporaries
from pokefa.reporting.open_runs import UnderWay
from pokefa.setup.steps import STEPS
from pokefa.stage.options import Options
from pokefa.stage.rows import pending_rows
from pokefa.stage.runner import StageRun
from pokefa.takedown.records import Record
from tests.conftest import CHECKOUT

Ask = Callable[..., Any]

RUNNING: list[StageRun] = []  # their journals stay open


@pytest.fixture
def ask(ask_here: Ask) -> Ask:
    return ask_here


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


def table_damaged(sample: Any) -> None:
    path = sample.root / "metadata/images.csv"
    path.write_bytes(path.read_bytes()[:-40])


def bad_path(sample: Any) -> None:
    (sample.root.parent / "private.jpg").write_bytes(b"mine alone")
    edit(sample, "good", ocr_boxes_path="../private.jpg")


def answers_damaged(sample: Any) -> None:
    (sample.root / "metadata/answers.sqlite").write_bytes(os.urandom(9000))


def taken_down_unmarked(sample: Any) -> None:
    image = {"image_id": sample.ids["fakemon"]}
    Record("r1", "2026-11-23T00:00:00.000Z", "asked", {}, (image,), finished="2026-11-23T00:00:01.000Z").write(
        sample.root
    )


def under_way(sample: Any) -> None:
    """A run that has recorded a result, and not closed its journal."""
    run = StageRun(STEPS["phash"], Options(root=sample.root), Ledger.open(sample.root))
    run.record(sample.ids["good"], {"phash64": f"{len('good'):016x}"})
    RUNNING.append(run)


def journal_lost(sample: Any) -> None:
    max((sample.root / "metadata/runs").glob("*-hybrid_captions-*.jsonl")).unlink()


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


def take_down(sample: Any, name: str, finished: str | None = "2999-01-01T00:00:00Z", **hashed: object) -> None:
    """Mark an image and write the record, and remove nothing."""
    with sample.run("takedown") as run:
        run.record(sample.ids[name], {"drop_reason": "takedown:asked"}, drop="asked")
        told = ({"image_id": sample.ids[name], **hashed},)
        Record(run.run_id, "2026-11-23T00:00:00.000Z", "asked", {}, told, finished=finished).write(sample.root)


def remove_files(sample: Any, name: str) -> None:
    for folder in ("data_raw", "data_stage", "data_clean"):
        for path in (sample.root / folder).rglob(f"*{sample.ids[name]}*"):
            path.unlink()


def taken_down_bytes(sample: Any) -> None:
    take_down(sample, "dull")


def taken_down_named(sample: Any) -> None:
    take_down(sample, "dull")
    remove_files(sample, "dull")
    urls = {"image_id": [sample.ids["good"], sample.ids["dull"]]}
    pl.DataFrame(urls).write_parquet(sample.root / "webdataset/urls.parquet")


def taken_down_shown(sample: Any) -> None:
    take_down(sample, "dull")
    remove_files(sample, "dull")
    (sample.root / "metadata/review-filter.html").write_text(f"<p>{sample.ids['dull']}</p>")


def taken_down_asked(sample: Any) -> None:
    usage = {"request": "about dull"}
    with sample.run("score") as run:
        run.record(sample.ids["dull"], {"ae_relevance": 90}, usage=usage)
    Answers(sample.root).put(Stored("about dull", "score", "m", "r", {}, usage))
    take_down(sample, "dull")
    remove_files(sample, "dull")


def takedown_unfinished(sample: Any) -> None:
    take_down(sample, "dull", finished=None)
    remove_files(sample, "dull")


def looks_taken_down(sample: Any) -> None:
    with sample.run("phash") as run:
        run.record(sample.ids["cleared"], {"phash64": "0f0f0f0f0f0f0f0e", "phash_contrast": 30.0})
        run.record(sample.ids["text"], {"phash64": "f0f0f0f0f0f0f0f0", "phash_contrast": 30.0})
    take_down(sample, "dull", phash="0f0f0f0f0f0f0f0f", phash_contrast=31.0)
    remove_files(sample, "dull")


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
    "bad_path": {"edited_by_hand"},
    "journal_lost": {"edited_by_hand"},
    "wrong_sha256": {"edited_by_hand"},
    "base_not_in_images": {"removed_by_hand"},
    "shard_damaged": {"manifest_differs", "shard_lacks_image"},
}
PLANTED = (
    table_damaged, bad_cell, bad_path, answers_damaged, taken_down_unmarked, under_way, journal_lost,
    missing_raw, missing_file, wrong_md5, wrong_sha256, orphan_file, temporary_file, taken_down_bytes,
    taken_down_named, taken_down_shown, taken_down_asked, takedown_unfinished, looks_taken_down,
    base_not_in_images, base_not_kept, shard_damaged, shard_not_in_base, shard_lacks_image, manifest_differs,
    list_differs, journal_damaged, not_merged, edited_by_hand, removed_by_hand, row_without_journal,
)  # fmt: skip


def kinds_found(sample: Any, *, fix: bool = False) -> set[str]:
    return set(verify(Ledger(sample.root), fix).by_kind)


def test_every_kind_is_planted_below() -> None:
    assert {plant.__name__ for plant in PLANTED} == set(FIXES)


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
        "missing_file: 1. mark it pending with --fix and run its stage; for data_clean, run filter.py again",
        f"    data_stage/resized/{sample.ids['dull']}.jpg (path_resized of {sample.ids['dull']})",
        "wrong_sha256: 1. the file was changed or damaged: restore the original",
        f"    {raw_of(sample, 'dull').relative_to(sample.root)}",
        "note: edited_by_hand: 1. nothing to fix: not in any journal, so a person set this value",
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
    assert set(NOTES) <= set(FIXES)


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


def files(root: Path) -> set[Path]:
    """Return all files but the locks, which stay where they were taken."""
    return {path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_fix_removes_old_temporaries_and_nothing_else(ask: Ask, sample: Any) -> None:
    names = (".a.jpg.x1.tmp", ".b.jpg.part", ".c.jpg.link")
    for name in names:
        (sample.root / "data_stage/resized" / name).write_bytes(b"half")
    orphan_file(sample)
    before = files(sample.root)
    assert ask("verify").summary["counts"] == {"orphan_file": 1, "temporary_file": 3}
    finished = ask("verify", "--fix")  # they are young: a stage may be writing them
    assert finished.summary["counts"] == {"orphan_file": 1, "temporary_file": 3}
    assert "s ago: a stage may be writing it, so it was left)\n" in finished.stdout
    assert files(sample.root) == before
    assert list(check_temporaries(sample.root, True, time.time() + 601, UnderWay.of([]))) == []
    left = files(sample.root)
    assert {path.name for path in before - left} == set(names)


def overlap(sample: Any) -> None:
    """A person clears an image while it is resized, and the resizing takes it up again."""
    image_id = sample.ids["dull"]
    cells = {"path_resized": f"data_stage/resized/{image_id}.jpg", "resized_w": 640, "resized_h": 480}
    with sample.run("resize") as resizing:
        resizing.record(image_id, cells, reason="up")
        time.sleep(0.002)  # a journal's times are whole milliseconds
        with sample.run("nsfw_unflag") as unflagging:
            unflagging.clear(image_id, ["resize"], reason="unflagged")
        time.sleep(0.002)
        resizing.record(image_id, cells, reason="up")


def test_runs_that_overlapped_are_no_finding(sample: Any) -> None:
    overlap(sample)
    assert found_in(sample) == {}
    before = (sample.root / "metadata/images.csv").read_bytes()
    Ledger(sample.root).rebuild()
    assert (sample.root / "metadata/images.csv").read_bytes() == before


def test_what_was_not_merged_of_runs_that_overlapped_names_the_last_one(sample: Any) -> None:
    overlap(sample)
    run_id = max((sample.root / "metadata/runs").glob("*-resize-*.jsonl")).stem
    edit(sample, "dull", path_resized="", resized_w="", resized_h="", resize_run_id="")
    (found,) = found_in(sample)["not_merged"]
    assert found == (
        f"metadata/images.csv, image {sample.ids['dull']}: nothing of run {run_id} (path_resized, resized_w, "
        "resized_h, resize_run_id)"
    )


def test_fix_fills_what_was_not_merged_and_leaves_what_a_person_wrote(ask: Ask, sample: Any) -> None:
    path = sample.root / "metadata/images.csv"
    edit(sample, "dull", title="a better title")
    before = list(csv.DictReader(path.read_text().splitlines()))
    not_merged(sample)
    finished = ask("verify", "--fix")
    assert finished.summary["counts"] == {"edited_by_hand": 1}
    run_id = max((sample.root / "metadata/runs").glob("*-phash-*.jsonl")).stem
    cells = f"image {sample.ids['dull']}: nothing of run {run_id} (phash64, phash_run_id)"
    assert finished.stdout.splitlines()[0] == f"filled metadata/images.csv, {cells}"
    assert list(csv.DictReader(path.read_text().splitlines())) == before


def test_nothing_is_filled_that_was_journalled_meanwhile(sample: Any) -> None:
    ledger = Ledger.open(sample.root)
    lengths = ledger.journal_lengths()
    with sample.run("nsfw_unflag") as run:
        run.clear(sample.ids["dull"], ["phash"], reason="unflagged")
    assert not ledger.refill("images", {sample.ids["dull"]: {"phash64": "0" * 16}}, lengths)
    assert found_in(sample) == {}


def test_files_that_a_stage_finishes_meanwhile_are_no_findings(sample: Any) -> None:
    folder = sample.root / "data_stage/resized"
    for fix in (False, True):
        for name in (".a.jpg.x1.tmp", ".b.jpg.x2.tmp"):
            (folder / name).write_bytes(b"half")
        found = check_temporaries(sample.root, fix, time.time(), UnderWay.of([]))
        assert ".a.jpg.x1.tmp" in next(found)[1]  # the names in this folder are read, and the second one is next
        (folder / ".b.jpg.x2.tmp").rename(folder / "b.jpg")
        assert list(found) == []


# -- takedowns --------------------------------------------------------------------------------------------------------


def found_in(sample: Any) -> dict[str, list[str]]:
    return dict(verify(Ledger(sample.root), False).by_kind)


def test_what_is_left_of_an_image_is_told_and_a_takedown_mends_it(ask: Ask, sample: Any) -> None:
    """Somebody marks the row by hand: nothing else has gone."""
    image_id = sample.ids["good"]
    edit(sample, "good", drop_reason="takedown:asked")
    found = found_in(sample)
    assert found["takedown_unfinished"] == [f"{image_id} is in no record of metadata/takedowns"]
    assert f"{image_id} in webdataset/data/train-00000.tar" in found["taken_down_bytes"]
    assert f"data_clean/base/{image_id}.jpg" in found["taken_down_bytes"]
    assert found["taken_down_named"] == ["webdataset/manifests/train_ids.txt"]
    assert found["base_not_kept"] == [f"{image_id} (taken down)"]
    assert ask("takedown", "--id", image_id, "--reason", "asked", "--apply").code == 0
    assert set(found_in(sample)) == {"edited_by_hand"}


def test_only_what_looks_alike_is_named_and_is_no_error(ask: Ask, sample: Any) -> None:
    looks_taken_down(sample)
    assert found_in(sample) == {"looks_taken_down": [sample.ids["cleared"]]}
    assert ask("verify").code == 0


def test_a_record_that_was_not_finished_is_told(sample: Any) -> None:
    Record("r1", "2026-11-23T00:00:00.000Z", "asked", {}, ({"image_id": sample.ids["dull"]},)).write(sample.root)
    assert found_in(sample) == {"takedown_unfinished": ["metadata/takedowns/r1.json is not finished"]}


def test_a_damaged_record_is_told(sample: Any) -> None:
    (sample.root / "metadata/takedowns").mkdir()
    (sample.root / "metadata/takedowns/r1.json").write_text("[]")
    assert found_in(sample)["takedown_unfinished"][0].startswith("metadata/takedowns/r1.json is damaged (")


def test_a_waiting_question_about_the_image_is_told(ask: Ask, sample: Any) -> None:
    ask("takedown", "--id", sample.ids["dull"], "--reason", "asked", "--apply")
    requests = {sample.ids["dull"]: "about dull"}
    record = BatchRecord("b-001", "score", "1", "m", "responses", "submitted", requests)
    write_record(sample.root, record)
    assert found_in(sample) == {"taken_down_asked": ["1 questions in metadata/batches/b-001.json"]}
    write_record(sample.root, replace(record, state="done"))
    assert found_in(sample) == {}
    record.path(sample.root).write_text("{")
    assert found_in(sample)["taken_down_asked"][0].startswith(
        "cannot be checked: metadata/batches/b-001.json is damaged"
    )


def test_a_page_made_after_the_takedown_cannot_show_the_image(ask: Ask, sample: Any) -> None:
    ask("takedown", "--id", sample.ids["dull"], "--reason", "asked", "--apply")
    page = sample.root / "metadata/report.html"
    page.write_text(f"<p>left out: {sample.ids['dull']}</p>")
    assert found_in(sample) == {}
    os.utime(page, (0, 0))
    assert found_in(sample) == {"taken_down_shown": ["metadata/report.html"]}


def test_what_a_broken_off_packing_left_is_looked_at(ask: Ask, sample: Any) -> None:
    shard = (sample.root / "webdataset/data/train-00000.tar").read_bytes()
    ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    building = sample.root / "webdataset/data/.building"
    building.mkdir()
    (building / "x.tar").write_bytes(shard)
    place = f"{sample.ids['good']} in webdataset/data/.building/x.tar"
    assert found_in(sample) == {"taken_down_bytes": [place]}
    finished = ask("verify")
    assert finished.stdout.splitlines()[:2] == [f"taken_down_bytes: 1. {TAKE_DOWN_AGAIN}", f"    {place}"]
    ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    assert found_in(sample) == {}


def test_species_tables_are_compared_with_base(sample: Any) -> None:
    table = sample.root / "webdataset/manifests/train_species.csv"
    table.write_text("pokemon,count,fraction\ngengar,2,1.000000\n")
    assert found_in(sample) == {}
    table.write_text("pokemon,count,fraction\ngengar,1,0.500000\nmew,1,0.500000\n")
    assert found_in(sample) == {
        "list_differs": [
            "train_species.csv counts 1 of gengar, base.csv has 2",
            "train_species.csv counts 1 of mew, base.csv has 0",
        ]
    }
    table.write_text("pokemon,count,fraction\ngengar\n")
    assert found_in(sample) == {"list_differs": ["train_species.csv is damaged"]}


# -- what --fix mends -------------------------------------------------------------------------------------------------


def test_fix_marks_missing_derived_files_as_pending(ask: Ask, sample: Any) -> None:
    missing_file(sample)
    (sample.root / f"data_stage/OCR_inpainted/{sample.ids['text']}.png").unlink()
    (sample.root / f"data_clean/base/{sample.ids['good']}.jpg").unlink()
    before = sample.root / "metadata/images.csv"
    rows = {row["image_id"]: row for row in csv.DictReader(before.read_text().splitlines())}
    finished = ask("verify", "--fix")
    assert finished.summary["counts"] == {"missing_file": 1}  # the filter's, which decides over all rows at once
    assert finished.summary["pending"] == {
        "preprocess/ocr/ocr_pipeline.py": 1,
        "preprocess/resize/resize.py": 1,
    }
    assert "fixed: 1 image without a file are pending again: run preprocess/resize/resize.py\n" in finished.stdout
    after = {row["image_id"]: row for row in csv.DictReader(before.read_text().splitlines())}
    changed = {
        (image_id, column)
        for image_id, row in rows.items()
        for column, text in row.items()
        if after[image_id][column] != text
    }
    of_resize = {column for image_id, column in changed if image_id == sample.ids["dull"]}
    assert of_resize == {"path_resized", "resized_w", "resized_h", "resize_action", "resize_run_id"}
    of_text = {column for image_id, column in changed if image_id == sample.ids["text"]}
    assert of_text == {"has_ocr", "ocr_area_frac", "ocr_inpainted_path", "ocr_run_id"}
    table = Ledger.open(sample.root).images.read()
    assert sample.ids["dull"] in pending_rows(table, STEPS["resize"])["image_id"]
    assert sample.ids["text"] in pending_rows(table, STEPS["ocr_detect"])["image_id"]
    assert finished.code == 1
    life = ask("history", sample.ids["dull"], "--json").summary
    assert (life["events"][-1]["stage"], life["events"][-1]["what"]) == ("verify", "file_missing")


def test_fix_leaves_what_cannot_be_made_again(ask: Ask, sample: Any) -> None:
    missing_raw(sample)
    (sample.root / f"data_stage/resized/{sample.ids['good']}.jpg").unlink()
    finished = ask("verify", "--fix")
    assert finished.summary["counts"] == {"missing_raw": 1, "missing_file": 1}
    assert finished.summary["pending"] == {}


def test_fix_of_a_well_dataset_changes_nothing(ask: Ask, sample: Any) -> None:
    before = {path: path.read_bytes() for path in files(sample.root)}
    assert ask("verify", "--fix").code == 0
    assert {path: path.read_bytes() for path in files(sample.root)} == before


# -- while stages run -------------------------------------------------------------------------------------------------


def test_a_stage_that_is_at_work_is_nobodys_edit(sample: Any) -> None:
    """Resizing anew: files have changed, some rows are merged, some only journalled, and a file has no row yet."""
    run = StageRun(STEPS["resize"], Options(root=sample.root, redo=True), Ledger.open(sample.root))
    ids = [sample.ids[name] for name in ("good", "text", "dull", "cleared")]
    for number, image_id in enumerate(ids):
        path = f"data_stage/resized/{image_id}.png"
        (sample.root / path).write_bytes(b"resized anew")
        (sample.root / f"data_stage/resized/{image_id}.jpg").unlink()
        if number < 3:
            run.record(image_id, {"path_resized": path, "resized_w": 900, "resized_h": 900}, reason="up")
        if number == 1:
            run.save()
    (sample.root / "data_stage/resized/.x.png.tmp").write_bytes(b"half")
    assert list(found_in(sample)) == ["under_way"]
    run.record(ids[3], {"path_resized": f"data_stage/resized/{ids[3]}.png", "resized_w": 900, "resized_h": 900})
    run.finish()
    assert list(found_in(sample)) == ["temporary_file"]


def test_verify_beside_a_stage_that_merges_all_the_time(sample: Any) -> None:
    """Whatever moment the tables are read at, the journals are replayed to the same moment."""
    script = (
        "import sys, itertools; from pathlib import Path; from pokefa.ledger.tables import Ledger;"
        "from pokefa.stage.options import Options; from pokefa.stage.runner import StageRun;"
        "from pokefa.setup.steps import STEPS;"
        "root, image_id = Path(sys.argv[1]), sys.argv[2];"
        "run = StageRun(STEPS['phash'], Options(root=root, redo=True), Ledger.open(root));"
        "[(run.record(image_id, {'phash64': f'{n:016x}'}), run.save(), print(n, flush=True))"
        " for n in itertools.count()]"
    )
    stage = subprocess.Popen(
        [sys.executable, "-c", script, sample.root, sample.ids["good"]],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
    )
    assert stage.stdout is not None
    try:
        assert stage.stdout.readline() == b"0\n"
        for _ in range(5):
            assert list(found_in(sample)) == ["under_way"]
    finally:
        stage.kill()
        stage.communicate()
