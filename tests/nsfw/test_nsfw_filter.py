"""nsfw_filter.py as a user runs it, with the stand-in model, and its decisions by hand."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demo.run import TRUST
from pokefa.errors import InputError
from pokefa.files import sha256_of
from pokefa.ledger.columns import IMAGES
from pokefa.ledger.journal import read_header
from pokefa.ledger.table import Table, with_missing
from pokefa.setup.steps import STEPS
from pokefa.stage.rows import pending_rows
from preprocess.nsfw.deepdanbooru import V3
from preprocess.nsfw.nsfw_filter import (
    TAG_THRESHOLDS,
    describe_scores,
    known_thresholds,
    reached,
    read_table,
    redecide_row,
    threshold_of,
)
from tests.conftest import Dataset, Finished

SCRIPT = "preprocess/nsfw/nsfw_filter.py"

# The share of magenta in each picture, and the slug of each damaged file.
SHARES = {"plain": 0.0, "small": 0.03, "edge": 0.085, "balloon": 0.22, "half": 0.5}
DAMAGED = {"text": "not_an_image", "cut": "truncated", "gone": "missing_file", "empty": "empty_file"}


def id_of(name: str) -> str:
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


# -- decisions --------------------------------------------------------------------------------------------------------


def test_a_tag_is_reached_at_its_threshold() -> None:
    thresholds = {"a": 0.5, "b": 0.8, "c": 0.1, "unknown": None}
    assert reached({"a": 0.5, "b": 0.7999, "c": 0.9}, thresholds) == ["c", "a"]
    assert reached({}, thresholds) == []


def test_scores_become_cells() -> None:
    cells = describe_scores({"b": 0.049996, "a": 0.049994, "c": 0.05006}, {"c": 0.5, "a": 0.5, "b": 0.5, "d": None})
    assert cells == {
        "is_nsfw": False,
        "nsfw_score": 0.0501,
        "nsfw_tags": '{"c":0.0501}',
        "nsfw_threshold": '{"a":0.5,"b":0.5,"c":0.5,"d":null}',
    }


def test_the_rounded_score_decides_so_that_the_record_can_be_decided_again() -> None:
    assert describe_scores({"a": 0.49996}, {"a": 0.5})["is_nsfw"] is True
    assert describe_scores({"a": 0.49994}, {"a": 0.5})["is_nsfw"] is False


def test_tags_that_the_model_does_not_know_have_no_threshold() -> None:
    assert known_thresholds({"a": 0.5, "z": 0.6, "y": 0.7}, ["b", "a"]) == (
        {"a": 0.5, "z": None, "y": None},
        ["y", "z"],
    )
    with pytest.raises(InputError) as caught:
        known_thresholds({"z": 0.6, "y": 0.7}, ["b", "a"])
    assert str(caught.value) == "the model knows none of these tags (y, z): name others with --tags FILE"


def recorded(tags: str, threshold: str, score: float | None = None) -> dict[str, Any]:
    return {"image_id": "aa", "nsfw_score": score, "nsfw_tags": tags, "nsfw_threshold": threshold}


@pytest.mark.parametrize(
    ("table", "is_nsfw", "score", "threshold"),
    [
        ({"a": 0.4, "b": 0.5}, True, 0.45, '{"a":0.4,"b":0.5,"z":null}'),
        ({"a": 0.6, "b": 0.5}, False, 0.45, '{"a":0.6,"b":0.5,"z":null}'),
        ({"b": 0.1}, False, 0.05, '{"a":"unused","b":0.1,"z":null}'),
        ({"a": 0.1, "z": 0.1}, True, 0.45, '{"a":0.1,"b":"unused","z":null}'),
    ],
)
def test_a_record_is_decided_again(table: dict[str, float], is_nsfw: bool, score: float, threshold: str) -> None:
    row = recorded('{"a":0.45}', '{"a":0.5,"b":0.5,"z":null}', 0.45)
    assert redecide_row(row, table) == {"is_nsfw": is_nsfw, "nsfw_score": score, "nsfw_threshold": threshold}


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.0), (0.03, 0.03), (0.05, 0.05), (0.9, 0.05), (None, 0.05)])
def test_the_score_of_an_image_without_a_score_on_record_is_what_is_known_of_it(
    before: float | None, after: float
) -> None:
    cells = redecide_row(recorded("{}", '{"a":0.5,"b":0.5}', before), {"a": 0.4})
    assert cells is not None and cells["nsfw_score"] == after


scores = st.floats(0, 1) | st.floats(0, 0.1)
tables = st.dictionaries(st.sampled_from("abcz"), st.floats(0.051, 1), min_size=1)


@given(st.fixed_dictionaries(dict.fromkeys("abc", scores)), st.lists(tables, max_size=4))
def test_whatever_was_decided_in_between_the_first_table_decides_as_it_did_first(
    scores: dict[str, float], others: list[dict[str, float]]
) -> None:
    first: dict[str, float] = {"a": 0.5, "b": 0.8, "c": 0.3, "z": 0.5}
    cells = describe_scores(scores, known_thresholds(first, "abc")[0])
    row = {"image_id": "aa", **cells}
    for table in others:
        row |= redecide_row(row, table) or {}
        used = {tag: value for tag, value in table.items() if tag != "z"}
        if used:
            again = describe_scores({tag: scores[tag] for tag in used}, table)
            assert row["is_nsfw"] == again["is_nsfw"]
            assert row["nsfw_score"] == again["nsfw_score"] or again["nsfw_score"] <= row["nsfw_score"] <= 0.05
    assert row | (redecide_row(row, first) or {}) == {"image_id": "aa", **cells}


@pytest.mark.parametrize("table", [{"a": 0.4, "new": 0.5}, {"z": 0.5}])
def test_a_record_that_lacks_a_tag_is_not_decided_again(table: dict[str, float]) -> None:
    assert redecide_row(recorded('{"a":0.45}', '{"a":0.5,"z":null}'), table) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a":"0.5"}', '{"a":true}', '{"a":"unused"}'])
def test_a_damaged_record_names_its_image(text: str) -> None:
    with pytest.raises(InputError) as caught:
        redecide_row(recorded(text, '{"a":0.5}'), {"a": 0.5})
    assert str(caught.value) == "images.csv, image aa: nsfw_tags is damaged: screen it again with --redo --ids"


@pytest.mark.parametrize("text", ["", '{"a":"0.5"}', '{"a":[]}'])
def test_damaged_thresholds_name_their_image(text: str) -> None:
    with pytest.raises(InputError) as caught:
        redecide_row(recorded('{"a":0.5}', text), {"a": 0.5})
    assert str(caught.value) == "images.csv, image aa: nsfw_threshold is damaged: screen it again with --redo --ids"


def test_the_table_comes_from_the_script_or_from_a_file(tmp_path: Path) -> None:
    assert read_table(None, None) == TAG_THRESHOLDS
    assert read_table(None, 0.3) == dict.fromkeys(TAG_THRESHOLDS, 0.3)
    assert read_table(None, None, "opennsfw") == {"nsfw": 0.8}
    assert read_table(None, 0.3, "opennsfw") == {"nsfw": 0.3}
    (tmp_path / "tags.json").write_text('{"a": 1, "b": 0.06}')
    assert read_table(tmp_path / "tags.json", None) == {"a": 1.0, "b": 0.06}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", '--tags {path} is not a JSON object such as {{"rating:explicit": 0.5}}'),
        ("[0.5]", '--tags {path} is not a JSON object such as {{"rating:explicit": 0.5}}'),
        ('{"a": 0.05}', "--tags {path}: the threshold of a is 0.05, not a number over 0.05 and up to 1"),
        ('{"a": 1.01}', "--tags {path}: the threshold of a is 1.01, not a number over 0.05 and up to 1"),
        ('{"a": "0.5"}', "--tags {path}: the threshold of a is '0.5', not a number over 0.05 and up to 1"),
        ('{"a": true}', "--tags {path}: the threshold of a is True, not a number over 0.05 and up to 1"),
        ('{"a": NaN}', "--tags {path}: the threshold of a is nan, not a number over 0.05 and up to 1"),
        ("a=1", "--tags {path} cannot be read as JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tags.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_table(path, None)
    assert str(caught.value) == message.format(path=path)


def test_a_threshold_is_over_what_is_recorded() -> None:
    assert threshold_of("1") == 1.0 and threshold_of("0.051") == 0.051
    for text in ("0.05", "1.1", "-1", "nan", "high"):
        with pytest.raises(Exception, match=f"^'{text}' is not a number over 0.05 and up to 1$"):
            threshold_of(text)


# -- the script -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, draw_magenta_share: Callable[..., Image.Image]) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, (name, share) in enumerate(SHARES.items()):
        draw_magenta_share(share, (400 + 60 * number, 640)).save(folder / f"{name}.jpg", quality=90)
    (folder / "text.jpg").write_text("<html>this is no picture</html>")
    (folder / "cut.jpg").write_bytes((folder / "half.jpg").read_bytes()[:3000])
    (folder / "empty.jpg").write_bytes(b"")
    return folder


def fill(dataset: Dataset, pictures: Path) -> None:
    shutil.copytree(pictures, dataset.root / "data_raw")
    dataset.write_images(
        {"image_id": id_of(name), "path_raw": f"data_raw/{name}.jpg", "source_url": f"https://example.org/{name}"}
        for name in [*SHARES, *DAMAGED]
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, pictures: Path, model_dir: Path) -> tuple[Dataset, Finished]:
    """A dataset after the first run of the script, and what the run said. Tests change copies of it only."""
    dataset = Dataset(tmp_path_factory.mktemp("first"))
    fill(dataset, pictures)
    return dataset, dataset.run(SCRIPT, "--model-dir", model_dir, *TRUST, "--workers", 2, "--batch-size", 3)


@pytest.fixture
def screened(first: tuple[Dataset, Finished], tmp_path: Path) -> Dataset:
    """A copy of the screened dataset, the test's own."""
    shutil.copytree(first[0].root, tmp_path / "screened")
    return Dataset(tmp_path / "screened")


def files_of(dataset: Dataset) -> dict[str, bytes]:
    """Return the contents of all files but the empty ones that hold locks."""
    paths = (path for path in dataset.root.rglob("*") if path.is_file() and path.parent.name != ".locks")
    return {path.relative_to(dataset.root).as_posix(): path.read_bytes() for path in paths}


def cells_of(dataset: Dataset, name: str) -> dict[str, str]:
    row = dataset.images()[id_of(name)]
    return {column: text for column, text in row.items() if column.startswith(("is_nsfw", "nsfw_")) and text}


def test_the_run_is_summed_up_in_one_line_of_stdout(first: tuple[Dataset, Finished], model_dir: Path) -> None:
    _, finished = first
    sha256 = hashlib.sha256((model_dir / "model-resnet_custom_v3.h5").read_bytes()).hexdigest()
    assert finished.code == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 1
    summary = dict(finished.summary)
    assert summary.pop("seconds") > 0 and summary.pop("run_id").split("-")[1] == "nsfw_filter"
    assert summary == {
        "stage": "nsfw_filter",
        "seen": 9,
        "done": 5,
        "errors": 4,
        "counts": {"clean": 2, "nsfw": 3},
        "model": f"deepdanbooru:stand-in-magenta:sha256:{sha256[:12]}:unpinned",
        "unknown_tags": [],
    }


def test_stderr_holds_the_log_and_nothing_of_tensorflows(first: tuple[Dataset, Finished]) -> None:
    lines = first[1].stderr.splitlines()
    assert "model-resnet_custom_v3.h5 is not the pinned model file (its SHA-256 is " in lines.pop(0)
    assert len(lines) == len(DAMAGED)
    assert all(re.match(r"\d\d:\d\d:\d\d WARNING [0-9a-f]{32}: \w+: ", line) for line in lines)


def test_pictures_are_flagged_by_their_share_of_magenta(first: tuple[Dataset, Finished]) -> None:
    dataset, finished = first
    flags = {name: cells_of(dataset, name)["is_nsfw"] for name in SHARES}
    assert flags == {"plain": "False", "small": "False", "edge": "True", "balloon": "True", "half": "True"}
    tags = {name: json.loads(cells_of(dataset, name)["nsfw_tags"]) for name in SHARES}
    assert {name: list(scores) for name, scores in tags.items()} == {
        "plain": [],
        "small": [],
        "edge": ["rating:explicit"],
        "balloon": ["rating:explicit"],
        "half": ["nude", "rating:explicit"],
    }
    assert 0.55 < tags["edge"]["rating:explicit"] < 0.88
    assert tags["half"]["nude"] > 0.999
    assert cells_of(dataset, "half") == {
        "is_nsfw": "True",
        "nsfw_score": "1.0",
        "nsfw_tags": f'{{"nude":{tags["half"]["nude"]},"rating:explicit":1.0}}',
        "nsfw_threshold": json.dumps(TAG_THRESHOLDS, sort_keys=True, separators=(",", ":")),
        "nsfw_model": finished.summary["model"],
        "nsfw_run_id": finished.summary["run_id"],
    }
    assert finished.summary["model"].endswith(":unpinned")


@pytest.mark.parametrize(("name", "slug"), DAMAGED.items())
def test_a_picture_that_cannot_be_opened_is_an_error(first: tuple[Dataset, Finished], name: str, slug: str) -> None:
    cells = cells_of(first[0], name)
    assert set(cells) == {"nsfw_error", "nsfw_run_id"}
    assert cells["nsfw_error"].startswith(f"{slug}: ")


def test_a_flagged_picture_is_a_drop(first: tuple[Dataset, Finished]) -> None:
    dataset, finished = first
    drops = {row["image_id"]: row for row in dataset.rows("drops")}
    assert set(drops) == {id_of(name) for name in ("edge", "balloon", "half")}
    drop = drops[id_of("half")]
    nude = json.loads(cells_of(dataset, "half")["nsfw_tags"])["nude"]
    assert drop.pop("ts")
    assert drop == {
        "image_id": id_of("half"),
        "stage": "nsfw_filter",
        "reason": "nsfw",
        "detail": f"rating:explicit 1.0000 >= 0.5, nude {nude:.4f} >= 0.7",
        "source_url": "https://example.org/half",
        "run_id": finished.summary["run_id"],
    }


def test_a_second_run_changes_nothing_and_needs_no_model(screened: Dataset) -> None:
    before = files_of(screened)
    finished = screened.run(SCRIPT)
    assert (finished.code, finished.summary["seen"], finished.summary["done"]) == (0, 0, 0)
    assert files_of(screened) == before


def test_a_redo_with_other_batches_gives_the_same_cells_and_keeps_the_override(
    screened: Dataset, model_dir: Path
) -> None:
    assert screened.run("preprocess/nsfw/nsfw_unflag.py", "--ids", id_of("balloon")).code == 0
    before, drops = screened.images(), screened.rows("drops")
    assert before[id_of("balloon")]["nsfw_override"] == "unflagged"
    finished = screened.run(SCRIPT, "--model-dir", model_dir, *TRUST, "--redo", "--batch-size", 1, "--workers", 1)
    assert finished.code == 0, finished.stderr
    assert finished.summary["counts"] == {"clean": 2, "nsfw": 2, "unflagged": 1}
    after = screened.images()
    changed = {
        (image_id, column)
        for image_id, row in before.items()
        for column, text in row.items()
        if column != "nsfw_run_id" and text != after[image_id][column]
    }
    assert changed == set()
    new = screened.rows("drops")[len(drops) :]
    assert {row["image_id"] for row in new} == {id_of("edge"), id_of("half")}


def test_errors_are_tried_again_when_asked_for(screened: Dataset, pictures: Path, model_dir: Path) -> None:
    shutil.copy(pictures / "plain.jpg", screened.root / "data_raw" / "gone.jpg")
    finished = screened.run(SCRIPT, "--model-dir", model_dir, *TRUST, "--retry-errors")
    assert (finished.summary["done"], finished.summary["errors"]) == (1, 3)
    assert cells_of(screened, "gone") == cells_of(screened, "plain") | {"nsfw_run_id": finished.summary["run_id"]}


def test_tags_that_the_model_does_not_know_are_reported(dataset: Dataset, pictures: Path, model_dir: Path) -> None:
    fill(dataset, pictures)
    table = dataset.root / "tags.json"
    table.write_text('{"nude": 0.5, "no_such_tag": 0.5}')
    arguments = ["--model-dir", model_dir, *TRUST, "--tags", table, "--ids", id_of("half"), id_of("balloon")]
    finished = dataset.run(SCRIPT, *arguments)
    assert finished.code == 0
    assert finished.summary["unknown_tags"] == ["no_such_tag"]
    assert "the model does not know these tags: no_such_tag" in finished.stderr
    assert cells_of(dataset, "half")["nsfw_threshold"] == '{"no_such_tag":null,"nude":0.5}'
    assert list(json.loads(cells_of(dataset, "half")["nsfw_tags"])) == ["nude"]
    assert cells_of(dataset, "half")["is_nsfw"] == "True"
    assert cells_of(dataset, "balloon")["is_nsfw"] == "False"


def test_a_table_of_unknown_tags_is_refused(dataset: Dataset, pictures: Path, model_dir: Path) -> None:
    fill(dataset, pictures)
    table = dataset.root / "tags.json"
    table.write_text('{"no_such_tag": 0.5}')
    before = files_of(dataset)
    finished = dataset.run(SCRIPT, "--model-dir", model_dir, *TRUST, "--tags", table)
    assert finished.code == 2
    assert finished.stderr.endswith(
        "\nerror: the model knows none of these tags (no_such_tag): name others with --tags FILE\n"
    )
    assert files_of(dataset) == before


def test_offline_without_a_cache_names_the_ways_out(dataset: Dataset, pictures: Path, tmp_path: Path) -> None:
    fill(dataset, pictures)
    # Nobody listens on the discard port: the address is out of reach, whatever this machine can reach.
    proxies = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9") | {"no_proxy": "", "NO_PROXY": ""}
    finished = dataset.run(SCRIPT, env={"POKEFA_CACHE": str(tmp_path / "cache"), **proxies})
    assert finished.code == 1
    assert finished.stderr.count("\n") == 1
    assert finished.stderr.startswith(
        "error: cannot download https://github.com/KichangKim/DeepDanbooru/releases/download/v3-20211112-sgd-e28/"
        "deepdanbooru-v3-20211112-sgd-e28.zip ("
    )
    assert finished.stderr.endswith(
        "); without a connection, download and unpack that zip elsewhere and name its folder with --model-dir, or copy "
        "the cache folder from a machine that has it and set POKEFA_CACHE to it\n"
    )


def test_a_model_that_is_not_pinned_needs_a_word_of_trust(dataset: Dataset, pictures: Path, model_dir: Path) -> None:
    fill(dataset, pictures)
    finished = dataset.run(SCRIPT, "--model-dir", model_dir)
    assert finished.code == 2
    assert finished.stderr == (
        f"error: {model_dir}/model-resnet_custom_v3.h5 is not the pinned model file (its SHA-256 is "
        f"{sha256_of(model_dir / 'model-resnet_custom_v3.h5')}, expected {V3.members[0].sha256}); a model file is a "
        "program: if you trust its author, add --trust-model-file to run it in a process that cannot write\n"
    )
    assert not any(row["is_nsfw"] for row in dataset.images().values())


def test_a_model_that_cannot_be_loaded_ends_the_run_in_one_line(
    dataset: Dataset, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    fill(dataset, pictures)
    folder = tmp_path / "project"
    shutil.copytree(model_dir, folder)
    (folder / "tags.txt").write_text("rating:explicit\n")
    finished = dataset.run(SCRIPT, "--model-dir", folder, *TRUST)
    assert finished.code == 2
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        f"error: {folder}/model-resnet_custom_v3.h5 has the input (None, 512, 512, 3) and the output (None, "
    )
    assert not any(row["nsfw_error"] for row in dataset.images().values())


def test_a_higher_threshold_is_applied_without_the_model(screened: Dataset) -> None:
    before, drops = screened.images(), screened.rows("drops")
    finished = screened.run(SCRIPT, "--redecide", "--threshold", 0.9)
    header = read_header(screened.root / f"metadata/runs/{finished.summary['run_id']}.jsonl")
    assert set(header["settings"]["thresholds"].values()) == {0.9} and "threshold" not in header["settings"]
    assert (header["repeat"], "redecide" in header["once"]) == ({"threshold": 0.9}, True)
    assert finished.code == 0, finished.stderr
    assert "tensorflow" not in finished.stderr.lower()
    assert (finished.summary["seen"], finished.summary["done"]) == (5, 5)
    assert finished.summary["counts"] == {"clean": 3, "nsfw": 2}
    after = screened.images()
    assert {name: after[id_of(name)]["is_nsfw"] for name in ("edge", "balloon")} == {"edge": "False", "balloon": "True"}
    for name in SHARES:
        old, new = before[id_of(name)], after[id_of(name)]
        changed = {column for column in new if new[column] != old[column]}
        assert changed == {"nsfw_threshold", "nsfw_run_id"} | ({"is_nsfw"} if name == "edge" else set())
    for name in DAMAGED:
        assert after[id_of(name)] == before[id_of(name)]
    assert {row["image_id"] for row in screened.rows("drops")[len(drops) :]} == {id_of("balloon"), id_of("half")}


def test_the_same_thresholds_change_nothing(screened: Dataset) -> None:
    before = files_of(screened)
    finished = screened.run(SCRIPT, "--redecide")
    assert finished.summary["counts"] == {"unchanged": 5}
    assert files_of(screened) == before


def test_a_narrower_table_keeps_what_another_can_be_decided_from(screened: Dataset, tmp_path: Path) -> None:
    first = {name: cells_of(screened, name) for name in SHARES}
    table = tmp_path / "tags.json"
    table.write_text('{"nude": 0.9}')
    finished = screened.run(SCRIPT, "--redecide", "--tags", table)
    assert finished.summary["counts"] == {"clean": 4, "nsfw": 1}, finished.stderr
    narrow = cells_of(screened, "balloon")
    assert (narrow["is_nsfw"], narrow["nsfw_score"]) == ("False", "0.05")
    assert narrow["nsfw_tags"] == first["balloon"]["nsfw_tags"]
    unused = dict.fromkeys(TAG_THRESHOLDS, "unused") | {"nude": 0.9}
    assert json.loads(narrow["nsfw_threshold"]) == unused
    finished = screened.run(SCRIPT, "--redecide", "--tags", table)
    assert finished.summary["counts"] == {"unchanged": 5}
    assert screened.run(SCRIPT, "--redecide", "--threshold", 0.3).summary["counts"] == {"clean": 2, "nsfw": 3}
    finished = screened.run(SCRIPT, "--redecide")
    assert finished.summary["counts"] == {"clean": 2, "nsfw": 3}
    run_id = {"nsfw_run_id": finished.summary["run_id"]}
    assert {name: cells_of(screened, name) for name in SHARES} == {name: first[name] | run_id for name in SHARES}


def test_a_dry_run_counts_and_changes_nothing(screened: Dataset) -> None:
    before = files_of(screened)
    finished = screened.run(SCRIPT, "--redecide", "--threshold", 0.9, "--dry-run")
    assert finished.summary["dry_run"] is True
    assert finished.summary["counts"] == {"clean": 3, "nsfw": 2}
    assert screened.run(SCRIPT, "--redo", "--dry-run").summary["seen"] == 9
    assert files_of(screened) == before


def test_tags_without_a_record_leave_the_images_as_they_are(screened: Dataset, tmp_path: Path) -> None:
    table = tmp_path / "tags.json"
    table.write_text('{"rating:explicit": 0.9, "solo": 0.5}')
    before = files_of(screened)
    finished = screened.run(SCRIPT, "--redecide", "--tags", table)
    assert finished.summary["counts"] == {"not_recorded": 5}
    assert "5 images are unchanged: not all of these tags are on record (rating:explicit, solo)" in finished.stderr
    assert files_of(screened) == before


def test_an_unflagged_image_stays_unflagged_when_decided_again(screened: Dataset) -> None:
    assert screened.run("preprocess/nsfw/nsfw_unflag.py", "--ids", id_of("half")).code == 0
    drops = screened.rows("drops")
    finished = screened.run(SCRIPT, "--redecide", "--threshold", 0.6, "--ids", id_of("half"))
    assert finished.summary["counts"] == {"unflagged": 1}
    assert cells_of(screened, "half")["nsfw_override"] == "unflagged"
    assert screened.rows("drops") == drops


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> tuple[Dataset, Finished]:
    """A dataset that the other model has screened."""
    dataset = Dataset(tmp_path_factory.mktemp("other"))
    fill(dataset, pictures)
    return dataset, dataset.run(SCRIPT, "--backend", "opennsfw", "--workers", 1, "--batch-size", 3)


def test_the_other_model_needs_no_folder_and_leaves_its_name(other: tuple[Dataset, Finished]) -> None:
    dataset, finished = other
    assert finished.code == 0, finished.stderr
    assert (finished.summary["done"], finished.summary["errors"]) == (5, 4)
    assert finished.summary["model"] == "opennsfw:open-nsfw:864bb37bf886"
    cells = cells_of(dataset, "plain")
    assert cells["nsfw_model"] == finished.summary["model"]
    assert cells["nsfw_threshold"] == '{"nsfw":0.8}'
    assert cells["is_nsfw"] == str(float(cells["nsfw_score"]) >= 0.8)
    recorded = {"nsfw": float(cells["nsfw_score"])} if float(cells["nsfw_score"]) > 0.05 else {}
    assert json.loads(cells["nsfw_tags"]) == recorded


def test_one_models_record_is_not_decided_by_the_others_table(
    screened: Dataset, other: tuple[Dataset, Finished], tmp_path: Path
) -> None:
    shutil.copytree(other[0].root, tmp_path / "other")
    by_the_other = Dataset(tmp_path / "other")
    before, before_other = files_of(screened), by_the_other.images()
    # A tag of the same name on record makes no difference.
    table = tmp_path / "tags.json"
    table.write_text('{"rating:explicit": 0.3, "nsfw": 0.3}')
    finished = screened.run(SCRIPT, "--redecide", "--backend", "opennsfw", "--tags", table)
    assert finished.summary["counts"] == {"other_backend": 5}
    assert "5 images are unchanged: they were screened with another --backend than opennsfw" in finished.stderr
    assert files_of(screened) == before
    finished = by_the_other.run(SCRIPT, "--redecide", "--threshold", 0.3)
    assert finished.summary["counts"] == {"other_backend": 5}
    assert by_the_other.images() == before_other
    finished = by_the_other.run(SCRIPT, "--redecide", "--backend", "opennsfw", "--threshold", 0.3)
    assert sum(finished.summary["counts"].values()) == 5 and "other_backend" not in finished.summary["counts"]
    for name in SHARES:
        cells = cells_of(by_the_other, name)
        assert cells["nsfw_threshold"] == '{"nsfw":0.3}'
        assert cells["is_nsfw"] == str(float(cells["nsfw_score"]) >= 0.3)


def test_a_redo_with_the_other_model_keeps_the_override_and_what_follows_pending(screened: Dataset) -> None:
    assert screened.run("preprocess/nsfw/nsfw_unflag.py", "--ids", id_of("half")).code == 0
    assert id_of("half") in waiting_for_text_detection(screened)
    finished = screened.run(SCRIPT, "--backend", "opennsfw", "--threshold", 0.06, "--redo")
    assert finished.code == 0, finished.stderr
    row = screened.images()[id_of("half")]
    assert row["nsfw_override"] == "unflagged"
    assert row["nsfw_model"].startswith("opennsfw:")
    assert id_of("half") in waiting_for_text_detection(screened)


def waiting_for_text_detection(dataset: Dataset) -> list[str]:
    table = with_missing(Table(dataset.root, IMAGES).read_keyed(), IMAGES.names)
    return pending_rows(table, STEPS["ocr_detect"])["image_id"].to_list()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--backend", "opennsfw", "--model-dir", "x"],
            "--model-dir is for DeepDanbooru: remove it, or --backend opennsfw",
        ),
        (["--threshold", "0.05"], "argument --threshold: '0.05' is not a number over 0.05 and up to 1"),
        (["--threshold", "0.5", "--tags", "t.json"], "argument --tags: not allowed with argument --threshold"),
        (["--batch-size", "0"], "argument --batch-size: '0' is not a whole number of 1 or more"),
        (["--redecide", "--redo"], "--redecide runs no model: remove --redo, --retry-errors and --model-dir"),
        (
            ["--redecide", "--model-dir", "x"],
            "--redecide runs no model: remove --redo, --retry-errors and --model-dir",
        ),
    ],
)
def test_wrong_usage_is_one_line(dataset: Dataset, arguments: list[str], message: str) -> None:
    finished = dataset.run(SCRIPT, *arguments)
    assert finished.code == 2
    assert finished.stderr.splitlines()[-1] == f"nsfw_filter.py: error: {message}"


def test_a_missing_model_folder_is_one_line(dataset: Dataset, pictures: Path) -> None:
    fill(dataset, pictures)
    finished = dataset.run(SCRIPT, "--model-dir", "no/such/folder")
    assert finished.code == 2
    assert finished.stderr == (
        "error: model folder no/such/folder does not exist: name a DeepDanbooru project folder with --model-dir\n"
    )


def test_help_needs_no_heavy_library(run_script: Callable[..., Finished]) -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['nsfw_filter.py', '--help']\n"
        "try:\n    runpy.run_path('preprocess/nsfw/nsfw_filter.py', run_name='__main__')\n"
        "finally:\n    print({'numpy', 'tensorflow', 'keras'} & set(sys.modules))"
    )
    finished = run_script("-c", code)
    assert finished.code == 0
    assert "Stage 2: screen every raw image" in finished.stdout
    assert finished.stdout.endswith("set()\n")
