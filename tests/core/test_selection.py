"""Eligible and pending, defined once: which rows each step works on."""

from __future__ import annotations

import polars as pl
import pytest

from pokefa.errors import InputError
from pokefa.ledger.columns import IMAGES
from pokefa.ledger.table import with_missing
from pokefa.setup.steps import STEPS
from pokefa.stage.rows import choose_ids, eligible_rows, pending_rows, require_columns, stale_columns

CLEAN = {"path_raw": "x", "is_nsfw": "False"}
NO_TEXT = {**CLEAN, "has_ocr": "False"}
RESIZED = {**NO_TEXT, "path_resized": "y"}


def frame(*rows: dict[str, str]) -> pl.DataFrame:
    data = [{"image_id": str(number), **row} for number, row in enumerate(rows)]
    return with_missing(pl.DataFrame(data, schema_overrides=dict.fromkeys(IMAGES.names, pl.String)), IMAGES.names)


@pytest.mark.parametrize(
    ("step", "row", "eligible"),
    [
        ("nsfw_filter", {}, False),
        ("nsfw_filter", {"path_raw": "x"}, True),
        ("ocr_detect", {"path_raw": "x"}, False),
        ("ocr_detect", {"path_raw": "x", "is_nsfw": "True"}, False),
        ("ocr_detect", {"path_raw": "x", "is_nsfw": "True", "nsfw_override": "unflagged"}, True),
        ("ocr_detect", {"path_raw": "x", "nsfw_override": "unflagged"}, False),
        ("ocr_detect", CLEAN, True),
        ("ocr_inpaint", NO_TEXT, False),
        ("ocr_inpaint", {**CLEAN, "has_ocr": "True"}, True),
        ("ocr_inpaint", {**CLEAN, "has_ocr": "True", "ocr_override": "unflagged"}, False),
        ("ocr_inpaint", {**CLEAN, "has_ocr": "True", "ocr_text_dominated": "True"}, False),
        ("ocr_inpaint", {**CLEAN, "has_ocr": "True", "ocr_text_dominated": "False"}, True),
        ("resize", CLEAN, False),
        ("resize", NO_TEXT, True),
        ("resize", {**CLEAN, "has_ocr": "True"}, False),
        ("ocr_inpaint", {**CLEAN, "has_ocr": "True", "ocr_doubt": "unsure"}, False),
        ("ocr_inpaint", {**CLEAN, "has_ocr": "True", "ocr_doubt": "unsure", "ocr_override": "paint"}, True),
        ("resize", {**CLEAN, "has_ocr": "True", "ocr_doubt": "large_mask"}, False),
        ("resize", {**CLEAN, "has_ocr": "True", "ocr_doubt": "unsure", "ocr_override": "unflagged"}, True),
        ("resize", {**CLEAN, "has_ocr": "True", "ocr_override": "paint", "ocr_inpainted_path": "x.png"}, True),
        ("resize", {**CLEAN, "has_ocr": "True", "ocr_text_dominated": "False"}, False),
        ("resize", {**CLEAN, "has_ocr": "True", "ocr_text_dominated": "True"}, True),
        ("resize", {**CLEAN, "has_ocr": "True", "ocr_inpainted_path": "z"}, True),
        ("resize", {**CLEAN, "has_ocr": "True", "ocr_override": "unflagged"}, True),
        ("score", NO_TEXT, False),
        ("score", RESIZED, True),
        ("score", {**RESIZED, "is_nsfw": "True"}, False),
        ("phash", RESIZED, True),
        ("rm_dups", RESIZED, False),
        ("rm_dups", {**RESIZED, "phash64": "0" * 16}, True),
        ("filter", {}, True),
        ("phash", {**RESIZED, "drop_reason": "takedown:artist_asked"}, False),
        ("phash", {**RESIZED, "drop_reason": "species:no_known_species"}, True),
    ],
)
def test_eligible(step, row, eligible):
    assert len(eligible_rows(frame(row), STEPS[step])) == int(eligible)


def test_done_and_failed_rows_are_not_pending():
    rows = frame(RESIZED, {**RESIZED, "phash64": "a"}, {**RESIZED, "phash_error": "truncated: …"})
    step = STEPS["phash"]
    assert pending_rows(rows, step)["image_id"].to_list() == ["0"]
    assert pending_rows(rows, step, retry_errors=True)["image_id"].to_list() == ["0", "2"]
    assert pending_rows(rows, step, redo=True)["image_id"].to_list() == ["0", "1", "2"]


def test_later_drops_count_for_later_steps_only():
    base = {"path": "x", "caption": "c", "tags": "{}", "species": "eevee"}
    rows = pl.DataFrame(
        [
            {"image_id": "0", **base, "drop_reason": "cap_filter:placeholder"},
            {"image_id": "1", **base, "drop_reason": "species:no_known_species"},
            {"image_id": "2", **base, "drop_reason": "takedown:artist_asked"},
            {"image_id": "3", **base, "drop_reason": None},
        ]
    )
    assert eligible_rows(rows, STEPS["sentence_tags"])["image_id"].to_list() == ["0", "1", "3"]
    assert eligible_rows(rows, STEPS["species"])["image_id"].to_list() == ["1", "3"]
    assert eligible_rows(rows, STEPS["split"])["image_id"].to_list() == ["3"]


def test_choose_ids_and_limit():
    rows = frame({}, {}, {})
    assert choose_ids(rows, ["2", "0", "nobody"], None)["image_id"].to_list() == ["0", "2"]
    assert choose_ids(rows, None, 2)["image_id"].to_list() == ["0", "1"]


def test_a_missing_column_names_the_script_that_writes_it():
    with pytest.raises(InputError) as caught:
        require_columns(frame({}).drop("path_resized"), STEPS["phash"])
    assert str(caught.value) == "metadata/images.csv has no column path_resized: run preprocess/resize/resize.py first"
    with pytest.raises(InputError, match=r"^metadata/base.csv has no column tags: run caption/sentence_tags.py first$"):
        require_columns(pl.DataFrame({"image_id": []}), STEPS["species"])


def test_only_later_stages_can_become_stale():
    assert stale_columns("resize", after="ocr_unflag")[0] == "path_resized"
    assert "drop_reason" not in stale_columns("rm_dups", after="ocr_unflag")
    with pytest.raises(ValueError, match=r"nsfw_filter does not come after ocr_unflag"):
        stale_columns("nsfw_filter", after="ocr_unflag")


def test_the_order_is_that_of_the_design():
    automatic = [name for name, step in STEPS.items() if step.table and "unflag" not in name and name != "verify"]
    assert automatic == [
        "scrape", "nsfw_filter", "ocr_detect", "ocr_inpaint", "resize", "score", "phash", "rm_dups", "filter",
        "sentence_tags", "cap_filter", "recap_merge", "hybrid_captions", "species", "split", "webdataset", "takedown",
    ]  # fmt: skip
