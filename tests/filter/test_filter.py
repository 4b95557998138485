"""Stage 7: one decision for every row, the best in base.csv, and their files, no others, in data_clean/base."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokefa.errors import InputError
from pokefa.ledger.columns import BASE, IMAGES
from preprocess.filter.filter import (
    DECISIONS,
    Scored,
    Thresholds,
    decide_before_thresholds,
    decide_by_thresholds,
    score_times_800,
)
from tests.conftest import CHECKOUT, Dataset, Finished

SCRIPT = "preprocess/filter/filter.py"

# -- score and rank ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relevance", "aesthetic", "score"),
    [(60, 80, 68.0), (100, 80, 80.0), (80, 80, 74.0), (40, 80, 68.0), (100, 0, 0.0), (61, 77, 65.73875)],
)
def test_effective_score(relevance: int, aesthetic: int, score: float) -> None:
    assert score_times_800(relevance, aesthetic) / 800 == score


percent = st.integers(0, 100)


@given(percent, percent)
def test_the_whole_number_is_the_formula_exactly(relevance: int, aesthetic: int) -> None:
    share = min(Fraction(1), max(Fraction(0), Fraction(relevance - 60, 40)))
    formula = aesthetic * (Fraction(85, 100) + Fraction(15, 100) * share)
    assert Fraction(score_times_800(relevance, aesthetic), 800) == formula


def scored(name: str, relevance: int = 80, aesthetic: int = 80, species: str | None = "Eevee") -> Scored:
    return Scored(name, species, relevance, aesthetic)


def ranking(*images: Scored, thresholds: Thresholds | None = None) -> list[str]:
    decisions = decide_by_thresholds(images, thresholds or Thresholds())
    ranks = {name: each.rank for name, each in decisions.items() if each.rank is not None}
    assert sorted(ranks.values()) == list(range(1, len(ranks) + 1))
    return sorted(ranks, key=lambda name: ranks[name])


def test_ties_go_by_aesthetic_then_relevance_then_id() -> None:
    # 100 × 0.85 = 85 × 1.00: the same score, and the higher aesthetic goes first.
    assert ranking(scored("a", 100, 85), scored("b", 60, 100)) == ["b", "a"]
    # No aesthetic, no score: relevance decides.
    assert ranking(scored("a", 60, 0), scored("b", 61, 0), thresholds=Thresholds(min_aesthetic=0)) == ["b", "a"]
    assert ranking(scored("b"), scored("a")) == ["a", "b"]


def test_gates_count_their_own_value() -> None:
    images = [scored("a", 60, 60), scored("b", 59, 90), scored("c", 90, 59), scored("d", 59, 59)]
    decisions = {name: each.decision for name, each in decide_by_thresholds(images, Thresholds()).items()}
    assert decisions == {"a": "kept", "b": "below_relevance", "c": "below_aesthetic", "d": "below_relevance"}


def test_score_and_rank_are_for_those_that_pass() -> None:
    decisions = decide_by_thresholds([scored("a"), scored("b", 10), scored("c", aesthetic=70)], Thresholds(top_n=1))
    assert decisions["a"].cells == {"filter_decision": "kept", "filter_score": 74.0, "filter_rank": 1}
    assert decisions["c"].cells == {"filter_decision": "beyond_top_n", "filter_score": 64.75, "filter_rank": 2}
    assert decisions["b"].cells == {"filter_decision": "below_relevance", "filter_score": None, "filter_rank": None}


def kept(images: list[Scored], thresholds: Thresholds) -> set[str]:
    return {name for name, each in decide_by_thresholds(images, thresholds).items() if each.decision == "kept"}


def test_per_species_floor() -> None:
    images = [
        *(scored(f"eevee{number}", 100, 90 - number) for number in range(4)),
        scored("stunky0", 70, 65, "Stunky"),
        scored("stunky1", 70, 64, "Stunky"),
        scored("stunky2", 70, 10, "Stunky"),
        scored("nobody", 70, 61, None),
    ]
    assert kept(images, Thresholds(top_n=3)) == {"eevee0", "eevee1", "eevee2"}
    assert kept(images, Thresholds(top_n=3, per_species_floor=1)) == {"eevee0", "eevee1", "stunky0"}
    assert kept(images, Thresholds(top_n=4, per_species_floor=2)) == {"eevee0", "eevee1", "stunky0", "stunky1"}
    assert kept(images, Thresholds(top_n=100, per_species_floor=9)) == {each.image_id for each in images} - {"stunky2"}


def test_floors_over_the_number_of_places_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        kept([scored("a", species="Eevee"), scored("b", species="Muk")], Thresholds(top_n=1, per_species_floor=3))
    assert str(caught.value) == (
        "--per-species-floor 3 alone keeps 2 images, over --top-n 1: lower the floor or raise --top-n"
    )


many = st.lists(st.tuples(percent, percent, st.sampled_from([None, "Eevee", "Muk"])), max_size=40).map(
    lambda facts: [Scored(f"{place:032x}", species, a, b) for place, (a, b, species) in enumerate(facts)]
)
# Room for the floors: two species with at most 3 each.
thresholds = st.builds(Thresholds, percent, percent, st.integers(6, 50), st.integers(0, 3))


@given(many, thresholds, st.randoms(use_true_random=False))
def test_properties_of_a_selection(images: list[Scored], thresholds: Thresholds, rng: random.Random) -> None:
    decisions = decide_by_thresholds(images, thresholds)
    assert decisions.keys() == {each.image_id for each in images}
    shuffled = list(images)
    rng.shuffle(shuffled)
    assert decide_by_thresholds(shuffled, thresholds) == decisions
    passing = [
        each
        for each in images
        if each.relevance >= thresholds.min_relevance and each.aesthetic >= thresholds.min_aesthetic
    ]
    chosen = kept(images, thresholds)
    assert len(chosen) == min(thresholds.top_n, len(passing))
    ranks = [decisions[each.image_id].rank for each in passing]
    assert sorted(rank for rank in ranks if rank) == list(range(1, len(passing) + 1))
    for species in ("Eevee", "Muk"):
        alive = [each for each in passing if each.species == species]
        best = sorted(alive, key=lambda each: decisions[each.image_id].rank or 0)[: thresholds.per_species_floor]
        assert {each.image_id for each in best} <= chosen
    if not thresholds.per_species_floor:
        assert all(decisions[name].rank <= thresholds.top_n for name in chosen)  # type: ignore[operator]


# -- decisions before the thresholds ---------------------------------------------------------------------------------

READY: dict[str, str] = {
    "species": "Eevee", "source_url": "http://host/x", "is_nsfw": "False", "has_ocr": "False",
    "resized_w": "1024", "resized_h": "1500", "ae_relevance": "80", "ae_aesthetic": "80",
    "phash64": "f0e1d2c3b4a59687", "dupe_removed": "False",
}  # fmt: skip
ERRORS = {
    "nsfw_error": {"is_nsfw": ""},
    "ocr_error": {"has_ocr": ""},
    "resize_error": {"path_resized": ""},
    "score_error": {"ae_aesthetic": ""},
    "phash_error": {"phash64": ""},
}


def row(number: int, suffix: str = "png", **cells: object) -> dict[str, object]:
    image_id = f"{number:032x}"
    path = f"data_stage/resized/001-150/0004_eevee/{image_id}.{suffix}"
    return {"image_id": image_id, "path_raw": f"data_raw/{image_id}", "path_resized": path, **READY, **cells}


def write(dataset: Dataset, *rows: dict[str, object]) -> None:
    """Write the ledger, and a file for every row that names one."""
    for each in rows:
        if each["path_resized"]:
            path = dataset.root / str(each["path_resized"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"pixels of {each['image_id']}")
    dataset.write_images(rows)


def run(dataset: Dataset, *flags: object) -> Finished:
    finished = dataset.run(SCRIPT, *flags)
    assert finished.code == 0, finished.stderr
    return finished


def decisions(dataset: Dataset) -> list[str]:
    return [each["filter_decision"] for each in dataset.rows("images")]


def test_every_decision(dataset: Dataset) -> None:
    write(
        dataset,
        row(0),
        row(1, is_nsfw="True"),
        row(2, dupe_removed="True"),
        row(3, ae_relevance="59"),
        row(4, ae_aesthetic="59"),
        row(5, ae_aesthetic="61"),
        row(6, ae_aesthetic=""),
        row(7, score_error="refused: by the model", ae_aesthetic=""),
        row(8, drop_reason="scrape:placeholder"),
        row(9, drop_reason="takedown:artist"),
    )
    finished = run(dataset, "--top-n", 1)
    assert decisions(dataset) == [
        "kept", "nsfw", "duplicate", "below_relevance", "below_aesthetic", "beyond_top_n", "not_scored", "error",
        "placeholder", "taken_down",
    ]  # fmt: skip
    assert finished.summary["decisions"] == dict.fromkeys(DECISIONS, 1)
    assert finished.summary["seen"] == finished.summary["done"] == 10
    assert finished.summary["unfinished"] == {"score": 1}
    assert {each["filter_run_id"] for each in dataset.rows("images")} == {finished.summary["run_id"]}
    assert "1 images are not_scored, because earlier stages have not finished: score 1" in finished.stderr


def decide(**cells: object) -> str | None:
    full = dict.fromkeys(IMAGES.names) | {name: str(value) or None for name, value in row(0, **cells).items()}
    return decide_before_thresholds(pl.DataFrame([full], schema=dict.fromkeys(full, pl.String)))["decision"][0]


@pytest.mark.parametrize(("column", "empty"), ERRORS.items())
def test_error_of_each_stage(column: str, empty: dict[str, str]) -> None:
    assert decide(**{column: "why"}, **empty) == "error"
    assert decide(**empty) == "not_scored"
    assert decide(**{column: "an old one, and the result came later"}) is None


def test_text_that_could_not_be_painted_over_is_an_error() -> None:
    assert decide(has_ocr="True", ocr_error="why") == "error"
    assert decide(has_ocr="True") == "not_scored"
    assert decide(has_ocr="True", ocr_inpainted_path="x.png", ocr_error="old") is None
    assert decide(has_ocr="True", ocr_override="unflagged", ocr_error="old") is None


@pytest.mark.parametrize("column", sorted({*READY, "path_resized"} - {"species", "source_url"}))
def test_anything_unfinished_is_not_scored(column: str) -> None:
    assert decide(**{column: ""}) == "not_scored"


def test_the_first_that_applies_decides() -> None:
    everything = {
        "drop_reason": "takedown:artist", "is_nsfw": "True", "score_error": "why", "ae_aesthetic": "",
        "dupe_removed": "True", "phash64": "",
    }  # fmt: skip
    assert decide(**everything) == "taken_down"
    assert decide(**everything | {"drop_reason": ""}) == "nsfw"
    assert decide(**everything | {"drop_reason": "", "is_nsfw": "False"}) == "error"
    assert decide(**everything | {"drop_reason": "", "nsfw_override": "unflagged"}) == "error"
    assert decide(**everything | {"drop_reason": "", "is_nsfw": "False", "score_error": ""}) == "duplicate"
    assert decide(drop_reason="", is_nsfw="False", phash64="") == "not_scored"


@pytest.mark.parametrize("reason", ["species:no_known_species", "cap_filter:gijinka", "someone:takedown:"])
def test_later_drops_do_not_count_here(reason: str) -> None:
    assert decide(drop_reason=reason) is None


cell = st.sampled_from([None, "True", "False"])
some_text = st.sampled_from([None, "x"])
ledger_rows = st.lists(
    st.fixed_dictionaries(
        {
            "is_nsfw": cell, "nsfw_override": some_text, "nsfw_error": some_text, "has_ocr": cell,
            "ocr_inpainted_path": some_text, "ocr_override": some_text, "ocr_error": some_text,
            "path_resized": some_text, "resized_w": some_text, "resized_h": some_text, "resize_error": some_text,
            "ae_relevance": some_text, "ae_aesthetic": some_text, "score_error": some_text, "phash64": some_text,
            "phash_error": some_text, "dupe_removed": cell,
            "drop_reason": st.sampled_from([None, "takedown:x", "species:x"]),
        }
    ),
    min_size=1,
    max_size=30,
)  # fmt: skip


@given(ledger_rows)
def test_every_row_has_one_decision_or_all_that_the_gates_need(rows: list[dict[str, str | None]]) -> None:
    full = [dict.fromkeys(IMAGES.names) | each for each in rows]
    frame = decide_before_thresholds(pl.DataFrame(full, schema=dict.fromkeys(IMAGES.names, pl.String)))
    assert len(frame) == len(rows)
    assert set(frame["decision"]) <= {None, "taken_down", "nsfw", "error", "duplicate", "not_scored"}
    passed = frame.filter(pl.col("decision").is_null())
    for name in ("is_nsfw", "has_ocr", "path_resized", "ae_relevance", "ae_aesthetic", "phash64", "dupe_removed"):
        assert passed[name].null_count() == 0


# -- base.csv and the exported files ----------------------------------------------------------------------------


def exported(dataset: Dataset) -> list[str]:
    return sorted(path.name for path in (dataset.root / "data_clean/base").iterdir())


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_base_and_files(dataset: Dataset) -> None:
    write(dataset, row(1, ae_aesthetic="70"), row(2, "jpg", source_url='http://host/a,"b'), row(3, ae_relevance="1"))
    finished = run(dataset)
    assert list(dataset.rows("base")[0]) == BASE.owned_by("filter") == [
        "path", "source_url", "image_size", "ae_relevance", "ae_aesthetic", "image_id", "phash",
    ]  # fmt: skip
    first, second = dataset.rows("base")
    assert first == {
        "path": f"data_clean/base/{2:032x}.jpg", "source_url": 'http://host/a,"b', "image_size": "1024x1500",
        "ae_relevance": "80", "ae_aesthetic": "80", "image_id": f"{2:032x}", "phash": "f0e1d2c3b4a59687",
    }  # fmt: skip
    assert second["image_id"] == f"{1:032x}"
    assert exported(dataset) == [f"{1:032x}.png", f"{2:032x}.jpg"]
    for each in (first, second):
        source = dataset.images()[each["image_id"]]["path_resized"]
        assert (dataset.root / each["path"]).samefile(dataset.root / source)
    assert (finished.summary["files_written"], finished.summary["files_removed"]) == (2, 0)


def test_counts_sum_to_the_rows_and_their_order_does_not_matter(dataset: Dataset, tmp_path: Path) -> None:
    rng = random.Random(7)
    rows = [
        row(
            number,
            species=rng.choice(["Eevee", "Muk", ""]),
            ae_relevance=rng.choice(["", "59", "60", "80", "100"]),
            ae_aesthetic=rng.choice(["59", "60", "70", "90"]),
            is_nsfw=rng.choice(["False", "False", "False", "True", ""]),
            dupe_removed=rng.choice(["False", "False", "False", "True"]),
            score_error=rng.choice(["", "", "refused: by the model"]),
            drop_reason=rng.choice(["", "", "", "takedown:artist", "species:no_known_species", "scrape:placeholder"]),
        )
        for number in range(200)
    ]
    other = Dataset(tmp_path / "other")
    flags = ["--top-n", 12, "--per-species-floor", 2]
    write(dataset, *rows)
    write(other, *rng.sample(rows, len(rows)))
    counts = [run(each, *flags).summary["decisions"] for each in (dataset, other)]
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) == 200
    assert all(counts[0][name] for name in DECISIONS)
    for each in (dataset, other):
        found = [line["filter_decision"] for line in each.rows("images")]
        assert {name: found.count(name) for name in DECISIONS} == counts[0]
    assert (dataset.root / "metadata/base.csv").read_bytes() == (other.root / "metadata/base.csv").read_bytes()
    assert exported(dataset) == exported(other)


def test_a_second_run_changes_no_byte(dataset: Dataset) -> None:
    write(dataset, *(row(number, ae_aesthetic=str(50 + 5 * number)) for number in range(8)))
    run(dataset, "--top-n", 3)
    before = contents(dataset.root)
    finished = run(dataset, "--top-n", 3)
    assert (finished.summary["done"], finished.summary["files_written"]) == (0, 0)
    assert contents(dataset.root) == before


def test_drops_are_told_once(dataset: Dataset) -> None:
    rows = [
        row(0),
        row(1, ae_relevance="7"),
        row(2, ae_aesthetic="8"),
        row(3, ae_aesthetic="61"),
        row(4, is_nsfw="True"),
    ]
    write(dataset, *rows)
    run(dataset, "--top-n", 1)
    drops = [(drop["image_id"][-1], drop["stage"], drop["reason"], drop["detail"]) for drop in dataset.rows("drops")]
    assert drops == [
        ("1", "filter", "below_relevance", "ae_relevance 7 < 60"),
        ("2", "filter", "below_aesthetic", "ae_aesthetic 8 < 60"),
        ("3", "filter", "beyond_top_n", "rank 2, score 56.425, of 1 places"),
    ]
    # The rank of 3 changes, the decision does not: no second drop.
    write(dataset, *dataset.rows("images"), row(5))
    finished = run(dataset, "--top-n", 2)
    assert finished.summary["counts"] == {"beyond_top_n": 1, "kept": 1}
    assert len(dataset.rows("drops")) == 3


def test_other_gates_keep_the_captions_of_images_that_stay(dataset: Dataset) -> None:
    write(dataset, row(1, ae_aesthetic="90"), row(2, ae_aesthetic="75"), row(3, ae_aesthetic="65"))
    run(dataset, "--min-aesthetic", 70)
    captioned = [
        {**each, "caption": f"Caption {each['image_id'][-1]}", "my_note": "x"} for each in dataset.rows("base")
    ]
    dataset.write_base(captioned)
    folder = dataset.root / "data_clean/base"
    others = ["notes.txt", f"{9:032x}.txt", "x.png", f"{9:031x}.png"]
    for name in others:
        (folder / name).write_text("mine")
    run(dataset, "--min-aesthetic", 60, "--top-n", 2)
    assert [(each["image_id"][-1], each["caption"]) for each in dataset.rows("base")] == [
        ("1", "Caption 1"), ("2", "Caption 2"),
    ]  # fmt: skip
    finished = run(dataset, "--min-aesthetic", 80)
    assert [(each["image_id"][-1], each["caption"], each["my_note"]) for each in dataset.rows("base")] == [
        ("1", "Caption 1", "x")
    ]
    assert exported(dataset) == sorted([f"{1:032x}.png", *others])
    assert finished.summary["files_removed"] == 1
    run(dataset, "--min-aesthetic", 60)
    assert [(each["image_id"][-1], each["caption"]) for each in dataset.rows("base")] == [
        ("1", "Caption 1"), ("2", ""), ("3", ""),
    ]  # fmt: skip
    assert (dataset.root / f"data_stage/resized/001-150/0004_eevee/{2:032x}.png").exists()


def test_later_drops_stay_in_the_set(dataset: Dataset) -> None:
    write(dataset, row(1), row(2))
    run(dataset)
    rows = dataset.rows("images")
    rows[0]["drop_reason"] = "species:no_known_species"
    dataset.write_images(rows)
    assert run(dataset).summary["done"] == 0
    rows[0]["drop_reason"] = "takedown:artist"
    dataset.write_images(rows)
    run(dataset)
    assert decisions(dataset) == ["taken_down", "kept"]
    assert [each["image_id"] for each in dataset.rows("base")] == [f"{2:032x}"]
    assert exported(dataset) == [f"{2:032x}.png"]


def test_a_new_resized_file_takes_the_place_of_the_old(dataset: Dataset) -> None:
    write(dataset, row(1), row(2))
    run(dataset)
    source = dataset.root / str(row(1)["path_resized"])
    source.unlink()
    source.write_text("other pixels")
    write(dataset, *[dataset.rows("images")[0], row(2, "jpg")])
    source.write_text("other pixels")
    run(dataset)
    assert exported(dataset) == [f"{1:032x}.png", f"{2:032x}.jpg"]
    assert (dataset.root / f"data_clean/base/{1:032x}.png").read_text() == "other pixels"


def test_dry_run_counts_and_changes_nothing(dataset: Dataset) -> None:
    write(dataset, row(1), row(2, ae_aesthetic="70"), row(3, is_nsfw="True"))
    run(dataset, "--min-aesthetic", 75)
    before = contents(dataset.root)
    finished = run(dataset, "--dry-run")
    lines = [line.split() for line in finished.stdout.splitlines()[:-1]]
    assert lines[0] == ["kept", "2"]
    assert sum(int(line[1]) for line in lines[: len(DECISIONS)]) == 3
    assert " ".join(lines[-1]) == "base.csv: 2 images, 1 join and 0 leave"
    assert finished.summary["decisions"]["kept"] == 2
    assert contents(dataset.root) == before


def test_an_empty_ledger_gives_an_empty_set(dataset: Dataset) -> None:
    write(dataset)
    finished = run(dataset)
    assert sum(finished.summary["decisions"].values()) == 0
    assert (dataset.root / "metadata/base.csv").read_text().strip() == ",".join(BASE.owned_by("filter"))
    before = contents(dataset.root)
    run(dataset)
    assert contents(dataset.root) == before


def test_a_missing_file_stops_before_anything_changes(dataset: Dataset) -> None:
    write(dataset, row(1), row(2))
    (dataset.root / str(row(2)["path_resized"])).unlink()
    before = contents(dataset.root)
    finished = dataset.run(SCRIPT)
    assert (finished.code, finished.stderr) == (
        2,
        f"error: 1 of the images to keep have no resized file (first: {2:032x}): restore the files, or run "
        f"preprocess/resize/resize.py --redo --ids {2:032x}\n",
    )
    assert contents(dataset.root) == before


def test_a_killed_run_is_finished_by_the_next(dataset: Dataset, tmp_path: Path) -> None:
    rows = [row(number, ae_aesthetic=str(60 + number % 40)) for number in range(300)]
    clean = Dataset(tmp_path / "clean")
    for each in (clean, dataset):
        write(each, *rows)
    run(clean, "--top-n", 200)
    run(dataset, "--top-n", 150, "--min-aesthetic", 80)  # a set to start from, another than the one to come
    generator = random.Random(11)
    command = [sys.executable, SCRIPT, "--root", str(dataset.root), "--top-n", "200"]
    for _ in range(6):
        killed = subprocess.Popen(
            command, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, stdout=subprocess.DEVNULL
        )
        time.sleep(generator.uniform(0.25, 0.7))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        for each in dataset.rows("base"):  # at no time does base.csv name a file that is not there
            assert (dataset.root / each["path"]).read_text() == f"pixels of {each['image_id']}"
    run(dataset, "--top-n", 200)
    assert (dataset.root / "metadata/base.csv").read_bytes() == (clean.root / "metadata/base.csv").read_bytes()
    assert exported(dataset) == exported(clean)
    assert decisions(dataset) == decisions(clean)


# -- wrong input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value", "range_text"),
    [
        ("--min-relevance", "101", "from 0 to 100"),
        ("--min-aesthetic", "-1", "from 0 to 100"),
        ("--min-aesthetic", "6.5", "from 0 to 100"),
        ("--top-n", "0", "of 1 or more"),
        ("--per-species-floor", "few", "of 0 or more"),
    ],
)
def test_flags_are_checked(dataset: Dataset, flag: str, value: str, range_text: str) -> None:
    finished = dataset.run(SCRIPT, f"{flag}={value}")
    assert finished.code == 2
    assert finished.stderr.strip().endswith(f"argument {flag}: {value!r} is not a whole number {range_text}")


def test_a_wrong_cell_is_named(dataset: Dataset) -> None:
    write(dataset, row(1, ae_aesthetic="good"))
    finished = dataset.run(SCRIPT)
    assert (finished.code, finished.stderr) == (
        2,
        f"error: metadata/images.csv, image {1:032x}, ae_aesthetic: 'good' is not a whole number from 0 to "
        "100; correct the cell or empty it\n",
    )
