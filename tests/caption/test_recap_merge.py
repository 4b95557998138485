"""New captions on their way into the final set."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from caption.recap_merge import verdict
from caption.tags import clean_tags, tags_to_cell
from pokefa.llm.recaps import RecapCaption, write_recap_captions
from tests.caption.conftest import FACTS
from tests.conftest import Dataset

SCRIPT = "caption/recap_merge.py"
OLD = "A fox-like creature sleeps somewhere under the full moon tonight."
NEW = "Umbreon sleeps on a mossy stone under the full moon tonight."
TAGS = tags_to_cell(clean_tags(FACTS))

Ready = Callable[..., list[str]]


@pytest.fixture
def waiting(dataset: Dataset, ready: Ready) -> list[str]:
    """Two captioned images and one without a caption; a new caption waits for the first and for the last."""
    ids = ready(3, [(OLD, clean_tags({**FACTS, "pokemon": []})), (OLD, FACTS)])
    images = dataset.rows("images")
    dataset.write_images([{**row, "caption_error": "refusal: no"} for row in images[:1]] + images[1:])
    wait_for(dataset, ids[0], replaces=OLD)
    return ids


def wait_for(dataset: Dataset, *ids: str, replaces: str | None) -> None:
    captions = [RecapCaption(one, NEW, TAGS, "a-model caption-1+recap", "run-7", "no_species", replaces) for one in ids]
    write_recap_captions(dataset.root, captions)


def journals(dataset: Dataset) -> list[dict[str, Any]]:
    paths = sorted((dataset.root / "metadata" / "runs").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_a_new_caption_takes_the_place_of_the_old(dataset: Dataset, waiting: list[str]) -> None:
    old_tags = dataset.base()[waiting[0]]["tags"]
    finished = dataset.run(SCRIPT)
    assert finished.code == 0, finished.stderr
    base, images = dataset.base(), dataset.images()
    assert (base[waiting[0]]["caption"], base[waiting[0]]["tags"]) == (NEW, TAGS)
    assert (base[waiting[1]]["caption"], base[waiting[2]]["caption"]) == (OLD, "")
    row = images[waiting[0]]
    assert (row["caption_model"], row["caption_run_id"], row["caption_error"]) == (
        "a-model caption-1+recap",
        "run-7",
        "",
    )
    assert finished.summary["counts"] == {"merged": 1}
    (note,) = [entry["note"] for entry in journals(dataset) if "note" in entry]
    assert note == {"image_id": waiting[0], "old_caption": OLD, "old_tags": old_tags}


def test_a_second_run_changes_nothing(dataset: Dataset, waiting: list[str]) -> None:
    dataset.run(SCRIPT)
    before = {path: path.read_bytes() for path in dataset.root.rglob("*") if path.is_file()}
    finished = dataset.run(SCRIPT)
    assert finished.summary["counts"] == {"already_merged": 1}
    assert {path: path.read_bytes() for path in dataset.root.rglob("*") if path.is_file()} == before


def test_a_dry_run_shows_before_and_after(dataset: Dataset, waiting: list[str]) -> None:
    before = {path: path.read_bytes() for path in dataset.root.rglob("*") if path.is_file()}
    old_tags = dataset.base()[waiting[0]]["tags"]
    finished = dataset.run(SCRIPT, "--dry-run")
    assert finished.stdout.splitlines()[:-1] == [
        waiting[0],
        f"  - {OLD}",
        f"  + {NEW}",
        f"  - {old_tags}",
        f"  + {TAGS}",
    ]
    assert finished.summary["dry_run"] is True
    assert {path: path.read_bytes() for path in dataset.root.rglob("*") if path.is_file()} == before


def test_what_a_person_wrote_since_stays(dataset: Dataset, waiting: list[str]) -> None:
    path = dataset.root / "metadata" / "base.csv"
    mine = "My own Umbreon sleeps soundly under the full moon tonight."
    path.write_text(path.read_text().replace(OLD, mine, 1))
    finished = dataset.run(SCRIPT)
    assert finished.summary["counts"] == {"changed_since": 1}
    assert dataset.base()[waiting[0]]["caption"] == mine


def test_only_missing_leaves_captions_alone(dataset: Dataset, waiting: list[str]) -> None:
    wait_for(dataset, waiting[0], waiting[2], replaces=None)
    finished = dataset.run(SCRIPT, "--only-missing")
    assert finished.summary["counts"] == {"has_caption": 1, "merged": 1}
    assert [row["caption"] for row in dataset.base().values()] == [OLD, OLD, NEW]


def test_a_file_made_by_hand_is_merged_and_cleaned(dataset: Dataset, waiting: list[str]) -> None:
    path = dataset.root / "metadata" / "recap_captions.csv"
    path.write_text(
        f'image_id,caption,tags\n{waiting[1]},"umbreon naps. Really",'
        f'"{{""pokemon"": [""Umbreon""]}}"\n{"f" * 32},x,{{}}\n'
    )
    finished = dataset.run(SCRIPT)
    assert finished.code == 0, finished.stderr
    assert finished.summary["counts"] == {"merged": 1, "not_in_base": 1}
    row = dataset.base()[waiting[1]]
    assert (row["caption"], json.loads(row["tags"])["pokemon"]) == ("Umbreon naps.", ["umbreon"])
    assert dataset.images()[waiting[1]]["caption_model"] == "by hand"


def test_an_image_that_was_dropped_for_its_caption_gets_the_new_one(dataset: Dataset, waiting: list[str]) -> None:
    """cap_filter.py --drop takes it back then; what another stage has dropped stays as it is."""
    wait_for(dataset, *waiting[:2], replaces=OLD)
    reasons = dict(zip(waiting, ["cap_filter:no_species", "takedown:asked", ""], strict=True))
    dataset.write_images([{**row, "drop_reason": reasons[row["image_id"]]} for row in dataset.rows("images")])
    finished = dataset.run(SCRIPT)
    assert finished.summary["counts"] == {"merged": 1, "not_in_base": 1}
    assert [row["caption"] for row in dataset.base().values()] == [NEW, OLD, ""]
    assert dataset.images()[waiting[0]]["drop_reason"] == "cap_filter:no_species"


def test_without_new_captions_there_is_nothing_to_do(dataset: Dataset, ready: Ready) -> None:
    ready(1, [(OLD, FACTS)])
    finished = dataset.run(SCRIPT)
    assert (finished.code, finished.summary["seen"], finished.summary["done"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("{id},,{{}}", "{path} line 2 lacks image_id, caption or tags: complete or remove it"),
        ("{id},...,{{}}", "metadata/recap_captions.csv, image {id}, caption: '...' is no sentence"),
        (
            "{id},Umbreon naps.,naps",
            'metadata/recap_captions.csv, image {id}, tags: the cell is "naps", not an object; correct the cell',
        ),
    ],
)
def test_a_row_that_is_no_caption_is_wrong_input(dataset: Dataset, waiting: list[str], row: str, error: str) -> None:
    path = dataset.root / "metadata" / "recap_captions.csv"
    path.write_text("image_id,caption,tags\n" + row.format(id=waiting[0]) + "\n")
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == f"error: {error.format(id=waiting[0], path=path)}\n"
    assert dataset.base()[waiting[0]]["caption"] == OLD


@pytest.mark.parametrize(
    ("old", "replaces", "only_missing", "expected"),
    [
        (OLD, OLD, False, "merged"),
        (OLD, None, False, "merged"),
        (None, OLD, False, "merged"),
        (None, None, True, "merged"),
        (OLD, "another", False, "changed_since"),
        (OLD, OLD, True, "has_caption"),
        (NEW, OLD, False, "already_merged"),
    ],
)
def test_the_verdict(old: str | None, replaces: str | None, only_missing: bool, expected: str) -> None:
    new = RecapCaption("an_id", NEW, TAGS, replaces=replaces)
    assert verdict(old, TAGS if old == NEW else "{}", new, only_missing=only_missing) == expected
