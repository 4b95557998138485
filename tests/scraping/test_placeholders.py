"""The same bytes from many pages: set aside with a reason, and let in by a person."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Dataset, Finished
from tests.scraping.conftest import Site, picture

SCRIPT = "scraping/scrape.py"
QUOTAS = "rank,name,band,weight,quota\n1,Umbreon,001-150,1.0,6\n40,Mew,001-150,0.5,6\n"
REMOVED = hashlib.md5(picture(0)).hexdigest()


@pytest.fixture
def dataset(dataset: Dataset) -> Dataset:
    (dataset.root / "quotas").mkdir()
    (dataset.root / "quotas/quotas.csv").write_text(QUOTAS)
    return dataset


def scrape(dataset: Dataset, site: Site, names: list[str], *flags: object) -> Finished:
    """Scrape addresses, for both species in turn; all that begin with `gone` give the same image."""
    rows = []
    for number, name in enumerate(names):
        seed = 0 if name.startswith("gone") else sum(name.encode())
        rows.append(f"{site.add(f'/{name}', picture(seed))},{('Mew', 'Umbreon')[number % 2]}")
    path = dataset.root.parent / "urls.csv"
    path.write_text("\n".join(["source_url,species", *rows]))
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path, *flags)
    assert finished.code == 0, finished.stderr
    return finished


def lines(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for path in dataset.root.rglob("urls.jsonl") for line in path.read_text().splitlines()]


def test_set_aside_at_five_pages_over_species_and_runs(dataset: Dataset, site: Site) -> None:
    first = scrape(dataset, site, ["gone1", "gone2", "gone3", "gone4", "good1"])
    assert first.summary["counts"] == {"duplicate_bytes": 3, "saved": 2}
    assert dataset.images()[REMOVED]["drop_reason"] == ""
    second = scrape(dataset, site, ["gone5", "gone6", "good2"])
    assert second.summary["counts"] == {"placeholder": 2, "saved": 1, "set_aside": 1}
    assert second.summary["errors"] == 0
    assert (
        f"{REMOVED} is set aside: 6 pages show these bytes; restore it with --keep-placeholder {REMOVED}"
        in second.stderr
    )
    images = dataset.images()
    assert [row["drop_reason"] for row in images.values()] == ["scrape:placeholder", "", ""]
    assert (dataset.root / images[REMOVED]["path_raw"]).read_bytes() == picture(0)  # nothing is deleted
    (drop,) = dataset.rows("drops")
    found = (drop["image_id"], drop["stage"], drop["reason"], drop["detail"], drop["source_url"])
    detail = "6 pages show these bytes"
    assert found == (REMOVED, "scrape", "placeholder", detail, images[REMOVED]["source_url"])
    told = {line["url"].rpartition("/")[2]: line for line in lines(dataset)}
    assert told["gone6"]["status"] == "placeholder"
    assert told["gone6"]["detail"].startswith(f"{REMOVED} has come from ")
    third = scrape(dataset, site, ["gone5", "gone6", "gone7"], "--retry-errors")
    assert third.summary["counts"] == {"placeholder": 1}
    assert len(dataset.rows("drops")) == 1


def test_what_a_person_lets_in_stays_in(dataset: Dataset, site: Site) -> None:
    scrape(dataset, site, [f"gone{number}" for number in range(6)])
    kept = dataset.run(SCRIPT, "--keep-placeholder", REMOVED[:8])
    assert (kept.code, kept.summary["counts"]) == (0, {"let_in": 1})
    assert dataset.images()[REMOVED]["drop_reason"] == ""
    again = dataset.run(SCRIPT, "--keep-placeholder", REMOVED)
    assert (again.code, again.summary["counts"]) == (0, {"not_set_aside": 1})
    later = scrape(dataset, site, ["gone8"])
    assert "set_aside" not in later.summary["counts"]
    assert dataset.images()[REMOVED]["drop_reason"] == ""
    unknown = dataset.run(SCRIPT, "--keep-placeholder", "beef")
    assert (unknown.code, unknown.stderr) == (
        2,
        "error: not in metadata/images.csv: beef; nothing was done: correct the ids\n",
    )


def test_pages_count_and_not_addresses(dataset: Dataset, site: Site) -> None:
    """Six addresses that one page shows, as of one picture in six sizes: the bytes are from one page alone."""
    results = [{"original": site.add(f"/{n}", picture(0)), "link": "http://gallery.example/mew"} for n in range(6)]
    path = "/search.json?engine=google_images&ijn=0&q=Mew+Pokemon+fanart&api_key=k"
    site.add(path, json.dumps({"images_results": results}).encode())
    variables = {"SERPAPI_BASE_URL": site.url(""), "SERPAPI_API_KEY": "k"}
    flags = ["--allow-private", "--species", "Mew", "--max-pages", 1]
    finished = dataset.run(SCRIPT, *flags, env=variables)
    assert finished.summary["counts"] == {"duplicate_bytes": 5, "saved": 1}
    assert [line.get("page") for line in lines(dataset)][1:] == ["http://gallery.example/mew"] * 5


def test_a_users_own_copies_are_no_placeholder(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "pictures/Mew"
    folder.mkdir(parents=True)
    for number in range(7):
        (folder / f"{number}.png").write_bytes(picture(0))
    finished = dataset.run(SCRIPT, "--from-folder", folder.parent)
    assert finished.summary["counts"] == {"duplicate_bytes": 6, "saved": 1}


def test_what_is_set_aside_fills_no_quota(dataset: Dataset, site: Site) -> None:
    scrape(dataset, site, [f"gone{number}" for number in range(6)])
    wanted = dataset.run(SCRIPT, "--dry-run").summary["wanted"]
    dataset.run(SCRIPT, "--keep-placeholder", REMOVED)
    assert (wanted, dataset.run(SCRIPT, "--dry-run").summary["wanted"]) == (12, 11)
