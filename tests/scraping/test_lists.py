"""The lists that a user names: odd file names, odd locales, and files that a spreadsheet has saved its own way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest

from scraping.scrape import main
from tests.conftest import Dataset
from tests.scraping.conftest import Site, picture

SCRIPT = "scraping/scrape.py"
QUOTAS = "rank,name,band,weight,quota\n1,Umbreon,001-150,1.0,60\n639,Flabébé,501-800,0.5,60\n"
# An interpreter whose file names are ASCII with escapes, as under an old 8-bit locale that Polars does not know.
OLD_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMES = ["urls[1]", "a*b", "what?", "{x,y}", "ü ポケモン"]


@pytest.fixture
def dataset(dataset: Dataset) -> Dataset:
    (dataset.root / "quotas").mkdir()
    (dataset.root / "quotas/quotas.csv").write_text(QUOTAS, encoding="utf-8")
    return dataset


@pytest.mark.parametrize("locale", [{}, OLD_LOCALE], ids=["utf-8", "ascii"])
def test_the_name_of_a_list_is_no_pattern(
    dataset: Dataset, site: Site, tmp_path: Path, locale: Mapping[str, str]
) -> None:
    for number, name in enumerate(NAMES):
        rows = {"source_url": [site.add(f"/{number}.png", picture(number))], "species": ["Flabébé"]}
        path = tmp_path / f"{name}.parquet"
        with path.open("wb") as stream:
            pl.DataFrame(rows).write_parquet(stream)
        excluded = tmp_path / f"{name}.txt"
        excluded.write_text("example.org\n")
        flags = ["--allow-private", "--from-urls", path, "--exclude-domains", excluded]
        finished = dataset.run(SCRIPT, *flags, env=locale)
        assert (finished.code, finished.summary["counts"]) == (0, {"saved": 1}), finished.stderr
    assert len(dataset.images()) == len(NAMES)


@pytest.mark.parametrize("locale", [{}, OLD_LOCALE], ids=["utf-8", "ascii"])
def test_labels_and_quotas_of_odd_names(dataset: Dataset, tmp_path: Path, locale: Mapping[str, str]) -> None:
    folder, labels, quotas = tmp_path / "pictures [1]", tmp_path / "ü{1}*.csv", tmp_path / "quotas?[ü].csv"
    folder.mkdir()
    (folder / "é.png").write_bytes(picture(1))
    labels.write_text("file,species\né.png,Flabébé\n", encoding="utf-8")
    (dataset.root / "quotas/quotas.csv").rename(quotas)
    flags = ["--from-folder", folder, "--labels", labels, "--quotas", quotas]
    finished = dataset.run(SCRIPT, *flags, env=locale)
    assert (finished.code, finished.summary["counts"]) == (0, {"saved": 1}), finished.stderr
    (row,) = dataset.images().values()
    assert row["source_url"].startswith("file:%C3%A9.png#")


@pytest.mark.parametrize("flag", ["--quotas", "--labels", "--from-urls"])
def test_a_list_that_a_spreadsheet_saved(
    dataset: Dataset, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("rank;file;source_url;species\n")
    flags = ["--from-folder", str(tmp_path)] if flag == "--labels" else []
    assert main(["--root", str(dataset.root), *flags, flag, str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {path} separates its cells with semicolons: save it as CSV with commas, in UTF-8\n"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("one,Mew,001-150,1,5", "rank and quota must be whole numbers"),
        ("1,Mew,001-150,1,-5", "rank and quota must be whole numbers"),
        ("1,Mew,001-150,1,٣", "rank and quota must be whole numbers"),
        ("1,Mew,../..,1,5", "the name 'Mew' or the band '../..' is malformed"),
        ("1,ピカチュウ,001-150,1,5", "the name 'ピカチュウ' or the band '001-150' is malformed"),
        ("2,UMBREON,001-150,1,5", "the species 'UMBREON' occurs twice: remove a row"),
    ],
)
def test_a_damaged_row_of_quotas(dataset: Dataset, row: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = dataset.root / "quotas/quotas.csv"
    path.write_text(f"{QUOTAS}{row}\n", encoding="utf-8")
    assert main(["--root", str(dataset.root), "--dry-run"]) == 2
    assert capsys.readouterr().err == f"error: {path} line 4: {message}\n"


def test_a_list_of_domains_in_another_encoding(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "domains [1].txt"
    path.write_bytes("example.org\n".encode("utf-16"))
    assert main(["--root", str(dataset.root), "--exclude-domains", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: --exclude-domains {path} is not UTF-8: save it as plain text in UTF-8\n"
    )
