"""Overrides by hand: ids by their beginnings, and the later cells that an override makes stale."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokefa.errors import InputError
from pokefa.ledger.columns import IMAGES
from pokefa.stage.locks import holding
from pokefa.stage.overrides import Overrule, unflag_main
from pokefa.stage.rows import find_ids

AA, BB = "a" * 32, "b" * 32
IDS = st.text("0123456789abcdef", min_size=1, max_size=6)
STALE = ["resize", "score", "phash", "rm_dups", "filter"]


@given(st.sets(IDS), st.lists(IDS))
def test_a_name_stands_for_the_only_id_that_it_begins(known: set[str], named: list[str]) -> None:
    meant = {
        name: [name] if name in known else sorted(candidate for candidate in known if candidate.startswith(name))
        for name in named
    }
    if any(len(candidates) > 1 for candidates in meant.values()):
        with pytest.raises(InputError, match="is a prefix of several ids, such as "):
            find_ids(named, list(known))
        return
    found, unknown = find_ids(named, list(known))
    assert found == list(dict.fromkeys(candidates[0] for candidates in meant.values() if candidates))
    assert unknown == [name for name, candidates in meant.items() if not candidates]


def test_an_empty_name_stands_for_nothing() -> None:
    assert find_ids([""], ["aa"]) == ([], [""])


def test_many_unknown_ids_are_counted(dataset, capsys) -> None:
    dataset.write_images([{"image_id": AA, "has_ocr": "True"}])
    names = [f"x{number}" for number in range(12)]
    code = unflag_ocr(dataset, "--ids", *names)
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: not in metadata/images.csv: {', '.join(names[:10])} and 2 more; ")


def unflag_ocr(dataset, *arguments: str) -> int:
    order = Overrule("ocr_unflag", "has_ocr", "ocr_override", STALE)
    return unflag_main("Unflag text.", order, ["--root", str(dataset.root), *arguments])


def test_a_stage_whose_cells_would_be_emptied_must_not_run_meanwhile(dataset, capsys) -> None:
    """It has read the old word, and would record what it makes of it after the person has spoken."""
    dataset.write_images([{"image_id": AA, "has_ocr": "True"}])
    with holding(dataset.root, "resize"):
        assert unflag_ocr(dataset, "--ids", "aa", "--dry-run") == 0
        capsys.readouterr()
        assert unflag_ocr(dataset, "--ids", "aa") == 2
    assert capsys.readouterr().err.startswith(f"error: resize.py or takedown.py is running on {dataset.root}: ")
    assert not dataset.images()[AA].get("ocr_override")
    with holding(dataset.root, "nsfw_filter"):
        assert unflag_ocr(dataset, "--ids", "aa") == 0


def filled(row):
    return {name: cell for name, cell in row.items() if cell}


def test_an_image_that_went_on_as_it_was_keeps_what_was_made_of_it(dataset) -> None:
    """It is mostly text, so nothing was painted over: cleared or not, its file stays the same."""
    made = {"has_ocr": "True", "path_resized": "x.png", "ae_aesthetic": "70", "ocr_override": ""}
    dominated = made | {"image_id": AA, "ocr_text_dominated": "True", "resize_source": "raw"}
    painted = made | {"image_id": BB, "ocr_text_dominated": "False", "resize_source": "inpainted"}
    dataset.write_images([dominated, painted])
    done = dataset.run("preprocess/ocr/ocr_unflag.py", "--ids", "aa")
    assert (done.code, done.summary["run_again"]) == (0, [])
    assert filled(dataset.images()[AA]) == filled(dominated | {"ocr_override": "unflagged"})
    done = dataset.run("preprocess/ocr/ocr_unflag.py", "--ids", "aa", "--undo")
    assert (done.code, done.summary["run_again"]) == (0, [])
    assert filled(dataset.images()[AA]) == filled(dominated)
    for override, source, flags in (
        ("", "inpainted", []),
        ("unflagged", "raw", ["--undo"]),
        ("unflagged", "raw", ["--paint"]),
        ("paint", "inpainted", []),
    ):
        dataset.write_images([dominated, painted | {"ocr_override": override, "resize_source": source}])
        done = dataset.run("preprocess/ocr/ocr_unflag.py", "--ids", "bb", *flags)
        assert done.code == 0 and "score" in done.summary["run_again"]
        assert dataset.images()[BB]["ae_aesthetic"] == ""


def test_stale_cells_of_later_stages_are_emptied_and_others_kept(dataset, capsys) -> None:
    full = {column.name: column.type.example for column in IMAGES.columns}
    full |= {"ocr_override": "", "drop_reason": "", "has_ocr": "True", "my_column": "mine"}
    dataset.write_images([full | {"image_id": name} for name in (AA, BB)])
    before = dataset.images()
    assert unflag_ocr(dataset, "--ids", "a") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["run_again"][:5] == STALE and "ocr_pipeline" not in summary["run_again"]
    after = dataset.images()
    assert after[BB] == before[BB]
    emptied = {name for name in before[AA] if before[AA][name] and not after[AA][name]}
    assert emptied == {name for stage in STALE for name in IMAGES.owned_by(stage)}
    kept = set(before[AA]) - emptied - {"ocr_override"}
    assert after[AA]["ocr_override"] == "unflagged"
    assert {name: after[AA][name] for name in kept} == {name: before[AA][name] for name in kept}
    assert unflag_ocr(dataset, "--ids", "aa", "--undo") == 0
    assert dataset.images()[AA]["ocr_override"] == ""
