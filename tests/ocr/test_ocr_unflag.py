"""Overruling the text detector: the original is used, and everything made from the inpainted image is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokefa.ledger.tables import Ledger
from pokefa.setup.steps import STEPS
from pokefa.stage.rows import HAS_TEXT, pending_rows
from tests.conftest import Dataset

SCRIPT = "preprocess/ocr/ocr_unflag.py"
TEXT, OTHER = "a" * 32, "b" * 32
DETECTED = {
    "has_ocr": "True",
    "ocr_boxes_path": "data_stage/OCR_detection/boxes/x.json",
    "ocr_mask_path": "data_stage/OCR_detection/masks/x.png",
    "ocr_area_frac": "0.1",
    "ocr_model": "PP-OCRv6_small_det 090f04abcd9d",
}
INPAINTED = {"ocr_inpainted_path": "data_stage/OCR_inpainted/x.png", "ocr_inpainter": "lama big-lama.pt 344c77bbcb15"}
LATER = {
    "path_resized": "data_stage/resized/x.png",
    "resized_w": "1024",
    "resize_source": "inpainted",
    "ae_aesthetic": "70",
    "phash64": "00ff00ff00ff00ff",
    "dupe_flag": "unique",
    "filter_decision": "kept",
}


@pytest.fixture
def flagged(dataset: Dataset) -> Dataset:
    """One image with text, through all stages up to the filter, and one that has no text."""
    raw = {"path_raw": "data_raw/x.png", "is_nsfw": "False"}
    dataset.write_images(
        [
            {"image_id": TEXT, **raw, **DETECTED, **INPAINTED, **LATER},
            {"image_id": OTHER, **raw, **LATER, "has_ocr": "False", "resize_source": "raw"},
        ]
    )
    return dataset


def pending(root: Path, step: str) -> list[str]:
    """Return the images that a step would work on."""
    return pending_rows(Ledger.open(root).images.read(), STEPS[step])["image_id"].to_list()


def test_an_unflagged_image_is_resized_from_its_original(flagged: Dataset) -> None:
    assert pending(flagged.root, "resize") == []
    other = flagged.images()[OTHER]
    done = flagged.run(SCRIPT, "--ids", TEXT)
    assert done.code == 0, done.stderr
    assert done.summary["counts"] == {"unflagged": 1}
    row = flagged.images()[TEXT]
    assert row["ocr_override"] == "unflagged"
    assert {column: row[column] for column in DETECTED} == DETECTED, "what the detector said stays"
    assert {column: row[column] for column in LATER} == dict.fromkeys(LATER, "")
    assert flagged.images()[OTHER] == other
    assert pending(flagged.root, "resize") == [TEXT]
    assert Ledger.open(flagged.root).images.read().filter(HAS_TEXT).is_empty(), "so resize takes the original"


def test_an_unflagged_image_is_not_painted_over(dataset: Dataset) -> None:
    dataset.write_images([{"image_id": TEXT, "path_raw": "x.png", "is_nsfw": "False", **DETECTED}])
    assert pending(dataset.root, "ocr_inpaint") == [TEXT]
    assert pending(dataset.root, "resize") == []
    dataset.run(SCRIPT, "--ids", TEXT[:6], "--note", "the letters are the picture")
    assert pending(dataset.root, "ocr_inpaint") == []
    assert pending(dataset.root, "resize") == [TEXT]


def test_undo_lets_the_detector_count_again(flagged: Dataset) -> None:
    flagged.run(SCRIPT, "--ids", TEXT)
    undone = flagged.run(SCRIPT, "--ids", TEXT, "--undo")
    assert undone.summary["counts"] == {"undone": 1}
    assert flagged.images()[TEXT]["ocr_override"] == ""
    assert pending(flagged.root, "resize") == [TEXT]


def test_an_image_cleared_before_it_was_painted_over_goes_back_to_the_inpainter(dataset: Dataset) -> None:
    dataset.write_images([{"image_id": TEXT, "path_raw": "x.png", "is_nsfw": "False", **DETECTED}])
    assert dataset.run(SCRIPT, "--ids", TEXT).summary["run_again"][:2] == ["resize", "score"]
    undone = dataset.run(SCRIPT, "--ids", TEXT, "--undo")
    assert undone.summary["run_again"][:3] == ["ocr_pipeline", "resize", "score"]
    assert pending(dataset.root, "ocr_inpaint") == [TEXT]


def test_a_dry_run_names_the_cells_that_would_be_emptied(flagged: Dataset) -> None:
    before = flagged.images()
    finished = flagged.run(SCRIPT, "--ids", TEXT[:5], "--dry-run", "--note", "x")
    assert (
        f"{TEXT}: unflagged, and emptied {', '.join(sorted(LATER, key=list(before[TEXT]).index))}\n" in finished.stderr
    )
    assert flagged.images() == before
    assert not (flagged.root / "metadata/runs").exists()


def test_ids_come_from_a_file_and_unknown_ones_change_nothing(flagged: Dataset) -> None:
    ids = flagged.root / "ids.txt"
    ids.write_text(f"{TEXT[:8]}\ncccc\n")
    before = flagged.images()
    refused = flagged.run(SCRIPT, "--ids-file", ids)
    assert refused.code == 2
    assert refused.stderr == (
        "error: not in metadata/images.csv: cccc; nothing was changed: correct the ids, or skip them with "
        "--ignore-unknown\n"
    )
    assert flagged.images() == before
    done = flagged.run(SCRIPT, "--ids-file", ids, "--ignore-unknown", "--note", "letters")
    assert done.summary["counts"] == {"unflagged": 1, "unknown": 1}
    journal = (flagged.root / "metadata/runs" / f"{done.summary['run_id']}.jsonl").read_text()
    assert f'"note":{{"text":"letters","image_ids":["{TEXT}"]}}' in journal
