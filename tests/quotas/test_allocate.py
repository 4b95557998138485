"""quotas/allocate.py: the documented numbers, what must hold for any bands, and what is refused."""

from __future__ import annotations

import csv
import math
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pokefa.errors import InputError
from quotas.allocate import BANDS, Band, allocate, apportion, parse_band, read_popularity, scale_budgets
from tests.conftest import Dataset

SCRIPT = "quotas/allocate.py"
CHECKOUT = Path(__file__).resolve().parents[2]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A popularity list of four species, not in order."""
    path = tmp_path / "popularity.csv"
    path.write_text("rank,name\n2,Type: Null\n1,Flabébé\n3,Mew\n4,Mewtwo\n", encoding="utf-8")
    return path


# -- the documented allocation --------------------------------------------------------------------------------------


def test_default_quotas_are_the_documented_ones(dataset: Dataset) -> None:
    finished = dataset.run(SCRIPT)
    rows = rows_of(dataset.root / "quotas/quotas.csv")
    quotas = {int(row["rank"]): int(row["quota"]) for row in rows}

    assert finished.code == 0
    assert list(rows[0]) == ["rank", "name", "band", "weight", "quota"]
    assert rows[0] == {"rank": "1", "name": "Umbreon", "band": "001-150", "weight": "1", "quota": "169"}
    assert (quotas[1], quotas[150], quotas[1025]) == (169, 66, 8)
    assert sum(quotas.values()) == 30_000
    budgets: dict[str, int] = {}
    for row in rows:
        budgets[row["band"]] = budgets.get(row["band"], 0) + int(row["quota"])
    assert budgets == {"001-150": 12_000, "151-500": 10_500, "501-800": 5_400, "801-1025": 2_100}
    for row, following in pairwise(rows):
        assert row["band"] != following["band"] or int(row["quota"]) >= int(following["quota"])


def test_committed_quotas_are_what_the_script_writes(dataset: Dataset) -> None:
    dataset.run(SCRIPT)
    assert (dataset.root / "quotas/quotas.csv").read_bytes() == (CHECKOUT / "quotas/quotas.csv").read_bytes()


def test_weight_is_the_power_law_of_the_rank_in_the_band(dataset: Dataset) -> None:
    dataset.run(SCRIPT)
    rows = {int(row["rank"]): float(row["weight"]) for row in rows_of(dataset.root / "quotas/quotas.csv")}
    assert rows[151] == 1.0
    assert rows[152] == pytest.approx(2**-0.19, rel=1e-5)
    assert rows[1025] == pytest.approx(225**-0.25, rel=1e-5)


def test_summary_and_second_run(dataset: Dataset) -> None:
    first = dataset.run(SCRIPT)
    path = dataset.root / "quotas/quotas.csv"
    before = path.stat()
    second = dataset.run(SCRIPT)

    assert {key: first.summary[key] for key in ("stage", "seen", "done", "errors", "counts", "images")} == {
        "stage": "allocate",
        "seen": 1025,
        "done": 1025,
        "errors": 0,
        "counts": {"written": 1025},
        "images": 30_000,
    }
    assert first.summary["run_id"] != second.summary["run_id"]
    assert first.summary["seconds"] >= 0
    assert (second.code, second.summary["done"], second.summary["counts"]) == (0, 0, {"unchanged": 1025})
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_names_survive_and_ranks_are_sorted(dataset: Dataset, small: Path) -> None:
    finished = dataset.run(SCRIPT, "--popularity", small, "--band", "1-4:40:1", "--floor", 1)
    assert finished.code == 0
    rows = rows_of(dataset.root / "quotas/quotas.csv")
    assert [row["name"] for row in rows] == ["Flabébé", "Type: Null", "Mew", "Mewtwo"]
    # 36 to share by 1, 1/2, 1/3, 1/4: 17.28, 8.64, 5.76, 4.32
    assert [int(row["quota"]) for row in rows] == [18, 10, 7, 5]
    assert {row["band"] for row in rows} == {"001-004"}


def test_budget_keeps_the_bands_proportions(dataset: Dataset) -> None:
    finished = dataset.run(SCRIPT, "--budget", 60_001)
    assert finished.summary["images"] == 60_001
    assert [band.budget for band in scale_budgets(BANDS, 60_001)] == [24_001, 21_000, 10_800, 4_200]


def test_dry_run_writes_nothing(dataset: Dataset) -> None:
    finished = dataset.run(SCRIPT, "--dry-run")
    assert finished.code == 0
    assert finished.summary["dry_run"] is True
    assert "dry run: would give 1025 species 30000 images" in finished.stderr
    assert not (dataset.root / "quotas").exists()


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plot(dataset: Dataset, ending: str, magic: bytes) -> None:
    path = dataset.root / f"plots/quotas.{ending}"
    assert dataset.run(SCRIPT, "--plot", path).code == 0
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    assert before[0].startswith(magic)
    assert dataset.run(SCRIPT, "--plot", path).code == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_plot_shows_every_band(dataset: Dataset) -> None:
    path = dataset.root / "quotas.png"
    dataset.run(SCRIPT, "--plot", path)
    with Image.open(path) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(2**24)}
    assert {(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40)} <= colours  # one line each


# -- what is refused ------------------------------------------------------------------------------------------------


def refusal(dataset: Dataset, *arguments: object) -> str:
    """Run the script, which must refuse; return its one line."""
    finished = dataset.run(SCRIPT, *arguments)
    assert finished.code == 2
    assert finished.summary["done"] == 0
    assert not (dataset.root / "quotas").exists()
    return finished.stderr


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (["1-3:30:0.2"], "bands end at rank 3, the popularity list at rank 4: make them agree"),
        (["1-5:50:0.2"], "bands end at rank 5, the popularity list at rank 4: make them agree"),
        (["1-2:20:0.2", "2-4:30:0.2"], "bands overlap: rank 2 is in more than one band: correct --band"),
        (["1-2:20:0.2", "4-4:30:0.2"], "bands leave a gap: no band has rank 3: correct --band"),
        (["2-4:30:0.2"], "bands leave a gap: no band has rank 1: correct --band"),
        (["3-1:30:0.2"], "band 3-1 ends before it begins: swap its ranks"),
        (["0-4:60:0.2"], "band 0-4 begins before rank 1: use ranks from 1"),
        (
            ["1-2:20:0.2", "3-4:11:0.2"],
            "band 3-4 has a budget of 11, less than the floor of 6 for each of 2 species (12): "
            "raise the budget or lower --floor",
        ),
    ],
)
def test_impossible_bands(bands: list[str], message: str) -> None:
    with pytest.raises(InputError) as refused:
        allocate(["Flabébé", "Type: Null", "Mew", "Mewtwo"], [parse_band(band) for band in bands], 6)
    assert str(refused.value) == message


def test_impossible_bands_are_wrong_usage(dataset: Dataset, small: Path) -> None:
    bands = ("--band", "1-2:20:0.2", "--band", "4-4:30:0.2")
    assert (
        refusal(dataset, "--popularity", small, *bands)
        == "error: bands leave a gap: no band has rank 3: correct --band\n"
    )


def test_floor_above_the_budget(dataset: Dataset) -> None:
    assert refusal(dataset, "--floor", 100) == (
        "error: band 1-150 has a budget of 12000, less than the floor of 100 for each of 150 species (15000): "
        "raise the budget or lower --floor\n"
    )


def test_budget_of_bands_without_budget(dataset: Dataset, small: Path) -> None:
    message = "error: --budget cannot be shared between bands whose budgets are all 0\n"
    assert refusal(dataset, "--popularity", small, "--band", "1-4:0:1", "--floor", 0, "--budget", 10) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank,name\n1,Mew\n1,Mewtwo\n", "rank 1 occurs twice: remove a row"),
        ("rank,name\n1,Mew\n2,Mew\n", "'Mew' occurs twice: remove a row"),
        ("rank,name\n1,Mew\n3,Mewtwo\n", "rank 2 is missing: add its row"),
        ("rank,name\n1,Mew\nx,Mewtwo\n", "rank 'x' with name 'Mewtwo' is not a whole number with a name"),
        ("rank,name\n1,\n", "rank '1' with name '' is not a whole number with a name"),
    ],
)
def test_damaged_popularity(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_popularity(path)
    assert str(refused.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column rank: name a CSV with rank and name"),
        ("rank\n1\n", "has no column name: name a CSV with rank and name"),
        ("rank,name\n", "has no rows: name a CSV with rank and name"),
        ("rank;name\n1;Mew\n", "separates its cells with semicolons: save it as CSV with commas, in UTF-8"),
    ],
)
def test_popularity_without_its_columns_or_rows(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_popularity(path)
    assert str(refused.value) == f"{path} {message}"


def test_missing_popularity(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    assert refusal(dataset, "--popularity", path) == (
        f"error: {path} cannot be read (No such file or directory): name a CSV with rank and name\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--band", "1-4"], "argument --band: '1-4' is not FIRST-LAST:BUDGET:EXPONENT, such as 1-150:12000:0.20"),
        (["--band", "1-4:40:-1"], "argument --band: '1-4:40:-1' is not FIRST-LAST:BUDGET:EXPONENT"),
        (["--floor", "-1"], "argument --floor: '-1' is not a whole number of 0 or more"),
        (["--budget", "0"], "argument --budget: '0' is not a whole number of 1 or more"),
        (["--plot", "quotas.txt"], "argument --plot: 'quotas.txt' does not end in .png, .svg or .pdf"),
    ],
)
def test_wrong_values(dataset: Dataset, arguments: list[str], message: str) -> None:
    finished = dataset.run(SCRIPT, *arguments)
    assert finished.code == 2
    assert message in finished.stderr.splitlines()[-1]


def test_unwritable_target(dataset: Dataset) -> None:
    (dataset.root / "quotas").write_text("a file where the folder should be")
    finished = dataset.run(SCRIPT)
    assert finished.code == 1
    assert finished.stderr.startswith("error: cannot write ")
    assert finished.stderr.count("\n") == 1


# -- what must always hold ------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=60))
def test_apportion_meets_the_total_and_keeps_the_order(total: int, weights: list[float]) -> None:
    weights = sorted([*weights, 1.0], reverse=True)
    counts = apportion(total, weights)
    assert sum(counts) == total
    assert counts == sorted(counts, reverse=True)
    whole = math.fsum(weights)
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / whole) < 1 + 1e-6 * (1 + total)


@st.composite
def possible_bands(draw: st.DrawFn) -> tuple[list[Band], int]:
    """Bands that fit together, in any order, and a floor that they can pay for."""
    floor = draw(st.integers(0, 12))
    bands: list[Band] = []
    for size in draw(st.lists(st.integers(1, 200), min_size=1, max_size=6)):
        first = bands[-1].last + 1 if bands else 1
        budget = size * floor + draw(st.integers(0, 20_000))
        bands.append(Band(first, first + size - 1, budget, draw(st.floats(0, 50))))
    return draw(st.permutations(bands)), floor


@given(possible_bands())
def test_any_possible_bands(case: tuple[list[Band], int]) -> None:
    bands, floor = case
    names = [f"species {rank}" for rank in range(1, max(band.last for band in bands) + 1)]
    quotas = allocate(names, bands, floor)

    assert [(quota.rank, quota.name) for quota in quotas] == list(enumerate(names, 1))
    for band in bands:
        members = [quota for quota in quotas if band.first <= quota.rank <= band.last]
        counts = [quota.quota for quota in members]
        assert {quota.band for quota in members} == {band.label}
        assert sum(counts) == band.budget
        assert min(counts) >= floor
        assert counts == sorted(counts, reverse=True)


@given(possible_bands(), st.integers(1, 10**6))
def test_scaled_budgets_meet_the_total(case: tuple[list[Band], int], total: int) -> None:
    bands, _ = case
    if sum(band.budget for band in bands) == 0:
        with pytest.raises(InputError):
            scale_budgets(bands, total)
        return
    assert sum(band.budget for band in scale_budgets(bands, total)) == total


@given(st.integers(1, 999), st.integers(1, 999), st.integers(0, 10**6), st.decimals(0, 9, places=2))
def test_band_flag_round_trip(first: int, last: int, budget: int, exponent: Decimal) -> None:
    assert parse_band(f"{first}-{last}:{budget}:{exponent}") == Band(first, last, budget, float(exponent))
