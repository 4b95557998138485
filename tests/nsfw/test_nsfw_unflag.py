"""nsfw_unflag.py as a user runs it: what it sets, what it leaves, what becomes pending."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Dataset

SCRIPT = "preprocess/nsfw/nsfw_unflag.py"

FLAGGED, CLEAN, FAILED, OTHER = "aa11" + "0" * 28, "ab22" + "0" * 28, "bb33" + "0" * 28, "aa12" + "0" * 28

LATER = [
    "ocr_pipeline",
    "resize",
    "score",
    "phash",
    "rm_dups",
    "filter",
    "sentence_tags",
    "cap_filter",
    "recap_merge",
    "hybrid_captions",
    "species",
    "split",
    "webdataset",
]


@pytest.fixture
def flagged(dataset: Dataset) -> Dataset:
    decided = {"nsfw_score": "0.9", "nsfw_tags": '{"nude":0.9}', "nsfw_threshold": '{"nude":0.7}'}
    dataset.write_images(
        [
            {"image_id": FLAGGED, "path_raw": "a.png", "is_nsfw": "True", **decided, "my_column": "mine"},
            {"image_id": CLEAN, "path_raw": "b.png", "is_nsfw": "False"},
            {"image_id": FAILED, "path_raw": "c.png", "nsfw_error": "truncated: x"},
            {"image_id": OTHER, "path_raw": "d.png", "is_nsfw": "True", **decided},
        ]
    )
    return dataset


def test_an_unflagged_image_keeps_the_models_word_and_goes_on(flagged: Dataset) -> None:
    before = flagged.images()
    finished = flagged.run(SCRIPT, "--ids", FLAGGED)
    assert finished.code == 0
    assert finished.summary["counts"] == {"unflagged": 1}
    assert finished.summary["run_again"] == LATER
    after = flagged.images()
    assert after.pop(FLAGGED) == before.pop(FLAGGED) | {"nsfw_override": "unflagged"}
    assert after == before
    pending = flagged.run("preprocess/dup/phash.py", "--dry-run")
    assert pending.summary["seen"] == 0  # it waits for the stages between


def test_beginnings_of_ids_and_files_of_ids_will_do(flagged: Dataset) -> None:
    (flagged.root / "ids.txt").write_text(f"aa12\n{FLAGGED}\n")
    finished = flagged.run(SCRIPT, "--ids", "aa11", "--ids-file", flagged.root / "ids.txt")
    assert finished.summary["counts"] == {"unflagged": 2}
    assert finished.summary["seen"] == 2


def test_images_that_are_not_flagged_are_reported(flagged: Dataset) -> None:
    before = flagged.images()
    finished = flagged.run(SCRIPT, "--ids", CLEAN, FAILED)
    assert finished.code == 0
    assert finished.summary["counts"] == {"not_flagged": 2}
    assert finished.summary["run_again"] == []
    assert f"{CLEAN}: not_flagged" in finished.stderr and f"{FAILED}: not_flagged" in finished.stderr
    assert flagged.images() == before
    assert not (flagged.root / "metadata" / "runs").exists()


def test_unflagging_twice_changes_nothing(flagged: Dataset) -> None:
    flagged.run(SCRIPT, "--ids", FLAGGED)
    table = (flagged.root / "metadata" / "images.csv").read_bytes()
    finished = flagged.run(SCRIPT, "--ids", FLAGGED)
    assert finished.summary["counts"] == {"already_unflagged": 1}
    assert (flagged.root / "metadata" / "images.csv").read_bytes() == table


def test_undo_lets_the_model_count_again(flagged: Dataset) -> None:
    before = flagged.images()
    flagged.run(SCRIPT, "--ids", FLAGGED)
    finished = flagged.run(SCRIPT, "--undo", "--ids", FLAGGED, OTHER)
    assert finished.summary["counts"] == {"not_unflagged": 1, "undone": 1}
    assert flagged.images() == before


def test_what_was_decided_over_all_images_is_emptied_and_decided_anew(flagged: Dataset) -> None:
    rows = list(flagged.images().values())
    decided = {"filter_decision": "nsfw", "filter_score": "", "dupe_flag": "unique", "dupe_removed": "False"}
    kept = {"path_resized": "a.png", "ae_aesthetic": "70", "phash64": "0f" * 8}
    flagged.write_images([row | decided | kept for row in rows])
    before = flagged.images()
    finished = flagged.run(SCRIPT, "--ids", FLAGGED, "--dry-run")
    assert f"{FLAGGED}: unflagged, and emptied dupe_flag, dupe_removed, filter_decision\n" in finished.stderr
    assert "dry run: nothing was changed\n" in finished.stderr
    assert flagged.images() == before
    assert flagged.run(SCRIPT, "--ids", FLAGGED).summary["run_again"] == LATER
    after = flagged.images()
    assert after.pop(FLAGGED) == before[FLAGGED] | dict.fromkeys(decided, "") | {"nsfw_override": "unflagged"}
    assert all(after[image_id] == before[image_id] for image_id in after)
    undone = flagged.run(SCRIPT, "--ids", FLAGGED, "--undo")
    assert undone.summary["run_again"] == LATER[LATER.index("rm_dups") :]


def test_a_taken_down_image_stays_as_it_is(flagged: Dataset) -> None:
    rows = flagged.images()
    flagged.write_images([row | {"drop_reason": "takedown:asked"} for row in rows.values()])
    before = flagged.images()
    finished = flagged.run(SCRIPT, "--ids", FLAGGED)
    assert finished.summary["counts"] == {"taken_down": 1}
    assert finished.summary["run_again"] == []
    assert flagged.images() == before


def test_a_note_is_kept_with_the_images_it_is_about(flagged: Dataset) -> None:
    finished = flagged.run(SCRIPT, "--ids", FLAGGED, CLEAN, "--note", "pink flowers")
    journal = flagged.root / "metadata" / "runs" / f"{finished.summary['run_id']}.jsonl"
    notes = [entry["note"] for entry in map(json.loads, journal.read_text().splitlines()) if "note" in entry]
    assert notes == [{"text": "pink flowers", "image_ids": [FLAGGED]}]


def test_a_dry_run_says_what_it_would_do(flagged: Dataset) -> None:
    before = flagged.images()
    finished = flagged.run(SCRIPT, "--ids", FLAGGED, CLEAN, "--dry-run", "--note", "flowers")
    assert finished.summary["counts"] == {"not_flagged": 1, "unflagged": 1}
    assert finished.summary["dry_run"] is True
    assert f"{FLAGGED}: unflagged" in finished.stderr
    assert flagged.images() == before
    assert not (flagged.root / "metadata" / "runs").exists()


def test_unknown_ids_change_nothing(flagged: Dataset) -> None:
    before = flagged.images()
    finished = flagged.run(SCRIPT, "--ids", FLAGGED, "cc44", "dd55")
    assert finished.code == 2
    assert finished.stderr == (
        "error: not in metadata/images.csv: cc44, dd55; nothing was changed: correct the ids, or skip them with "
        "--ignore-unknown\n"
    )
    assert flagged.images() == before


def test_unknown_ids_can_be_passed_over(flagged: Dataset) -> None:
    finished = flagged.run(SCRIPT, "--ids", FLAGGED, "cc44", "--ignore-unknown")
    assert finished.code == 0
    assert finished.summary["counts"] == {"unflagged": 1, "unknown": 1}
    assert "cc44: not in the ledger" in finished.stderr


def test_a_beginning_of_several_ids_changes_nothing(flagged: Dataset) -> None:
    finished = flagged.run(SCRIPT, "--ids", "aa1", "--ignore-unknown")
    assert finished.code == 2
    assert (
        finished.stderr
        == f"error: aa1 is a prefix of several ids, such as {FLAGGED} and {OTHER}: use a longer prefix\n"
    )


def test_some_image_must_be_named(flagged: Dataset) -> None:
    finished = flagged.run(SCRIPT, "--undo")
    assert finished.code == 2
    assert finished.stderr.splitlines()[-1] == "nsfw_unflag.py: error: name the images with --ids or --ids-file"
    (flagged.root / "ids.txt").write_text("\n")
    finished = flagged.run(SCRIPT, "--ids-file", flagged.root / "ids.txt")
    assert finished.code == 2
    assert finished.stderr == "error: no image is named: give ids with --ids, or in the file of --ids-file\n"


def test_a_ledger_that_was_never_screened_is_one_line(flagged: Dataset) -> None:
    (flagged.root / "metadata" / "images.csv").write_text(f"image_id,path_raw\n{FLAGGED},a.png\n")
    finished = flagged.run(SCRIPT, "--ids", FLAGGED)
    assert finished.code == 2
    assert finished.stderr == (
        "error: metadata/images.csv has no column is_nsfw: run preprocess/nsfw/nsfw_filter.py first\n"
    )
