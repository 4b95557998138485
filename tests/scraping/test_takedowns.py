"""Images that were taken down do not come back: not by their address, their bytes, or their look."""

from __future__ import annotations

import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pokefa.errors import InputError
from pokefa.images.phash import Hash
from pokefa.ledger.tables import TAKEDOWNS_FOLDER
from pokefa.takedown.records import TakenDown, hash_picture, read_records, read_taken_down
from scraping.records import DECISIONS, FINAL
from tests.conftest import Dataset
from tests.scraping.conftest import Site

SCRIPT = "scraping/scrape.py"
QUOTAS = "rank,name,band,weight,quota\n1,Umbreon,001-150,1.0,60\n40,Mew,001-150,0.5,60\n"


def drawing(seed: int, form: str = "PNG", size: tuple[int, int] = (320, 300), **options: Any) -> bytes:
    """Return the bytes of a drawing with shapes, so that its hash says something."""
    chance = random.Random(seed)
    image = Image.new("RGB", (320, 300), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, side = chance.randrange(260), chance.randrange(240), chance.randrange(30, 110)
        pen.ellipse((x, y, x + side, y + side), fill=tuple(chance.randrange(256) for _ in range(3)))
    stream = io.BytesIO()
    image.resize(size).save(stream, form, **options)
    return stream.getvalue()


@pytest.fixture
def scraped(dataset: Dataset) -> Dataset:
    (dataset.root / "quotas").mkdir()
    (dataset.root / "quotas/quotas.csv").write_text(QUOTAS)
    return dataset


def scrape(dataset: Dataset, addresses: dict[str, str], *flags: object, **more: Any) -> Any:
    """Scrape {address: species}."""
    path = dataset.root.parent / "urls.csv"
    path.write_text("\n".join(["source_url,species", *(f"{url},{name}" for url, name in addresses.items())]))
    return dataset.run(SCRIPT, "--allow-private", "--from-urls", path, *flags, **more)


def take_down(dataset: Dataset, url: str) -> None:
    finished = dataset.run("metadata/takedown.py", "--url", url, "--reason", "asked", "--apply")
    assert (finished.code, finished.summary["done"]) == (0, 1)


def details(dataset: Dataset) -> dict[str, str]:
    lines = [json.loads(line) for path in dataset.root.rglob("urls.jsonl") for line in path.read_text().splitlines()]
    return {line["status"]: line["detail"] for line in lines}


def test_the_same_address_is_not_even_asked(scraped: Dataset, site: Site) -> None:
    url = site.add("/a.png", drawing(1))
    scrape(scraped, {url: "Mew"})
    take_down(scraped, url)
    shutil.rmtree(scraped.root / "data_raw")  # and with it what was told of each address
    site.requests.clear()
    finished = scrape(scraped, {url: "Umbreon"})
    assert (finished.code, finished.summary["errors"]) == (0, 0)
    assert finished.summary["counts"] == {"taken_down_address": 1}
    assert site.requests == []
    assert details(scraped) == {"taken_down_address": "the image at this URL was taken down"}


def test_the_same_bytes_from_elsewhere_are_refused(scraped: Dataset, site: Site) -> None:
    url = site.add("/a.png", drawing(1))
    scrape(scraped, {url: "Mew"})
    image_id = next(iter(scraped.images()))
    take_down(scraped, url)
    finished = scrape(scraped, {site.add("/b.png", drawing(1)): "Umbreon"}, "--retry-errors")
    assert finished.summary["counts"] == {"taken_down_bytes": 1}
    assert details(scraped)["taken_down_bytes"] == f"{image_id} was taken down"
    assert not [path for path in scraped.root.rglob("*") if path.suffix in (".png", ".tmp", ".part")]


def test_the_same_picture_with_other_bytes_is_refused(scraped: Dataset, site: Site) -> None:
    url = site.add("/a.png", drawing(1))
    scrape(scraped, {url: "Mew"})
    image_id = next(iter(scraped.images()))
    take_down(scraped, url)
    again = {
        site.add("/small.jpg", drawing(1, "JPEG", (290, 272), quality=70)): "Mew",
        site.add("/other.png", drawing(2)): "Mew",
    }
    finished = scrape(scraped, again)
    assert finished.summary["counts"] == {"saved": 1, "taken_down_picture": 1}
    told = details(scraped)["taken_down_picture"]
    assert told.startswith("its hash is ") and told.endswith(f" bits from that of {image_id}, which was taken down")
    assert {Path(row["source_url"]).name for row in scraped.images().values()} == {"a.png", "other.png"}


def test_the_threshold_is_the_users(scraped: Dataset, site: Site) -> None:
    url = site.add("/a.png", drawing(1))
    scrape(scraped, {url: "Mew"})
    take_down(scraped, url)
    changed = Image.open(io.BytesIO(drawing(1)))
    ImageDraw.Draw(changed).rectangle((0, 0, 110, 110), fill="black")
    stream = io.BytesIO()
    changed.save(stream, "PNG")
    one, other = hash_picture(drawing(1)), hash_picture(stream.getvalue())
    assert one is not None and other is not None
    distance = (int(one.phash, 16) ^ int(other.phash, 16)).bit_count()
    assert 0 < distance <= 24
    addresses = {site.add("/b.png", stream.getvalue()): "Mew"}
    flag = "--takedown-threshold"
    assert scrape(scraped, addresses, flag, distance).summary["counts"] == {"taken_down_picture": 1}
    finished = scrape(scraped, addresses, flag, distance - 1, "--retry-errors")
    assert finished.summary["counts"] == {"saved": 1}


def test_a_row_without_a_record_is_known_by_its_own_hash(scraped: Dataset, site: Site) -> None:
    hashed = hash_picture(drawing(1))
    assert hashed is not None
    row = {"image_id": "0" * 32, "species": "Mew", "drop_reason": "takedown:asked"}
    scraped.write_images([row | {"phash64": hashed.phash, "phash_contrast": hashed.contrast}])
    finished = scrape(scraped, {site.add("/a.webp", drawing(1, "WEBP")): "Mew"})
    assert finished.summary["counts"] == {"taken_down_picture": 1}


def test_the_hash_is_loaded_only_where_images_were_taken_down(scraped: Dataset, site: Site) -> None:
    url = site.add("/a.png", drawing(1))
    watched = {"PYTHONPROFILEIMPORTTIME": "1"}
    assert "imagehash" not in scrape(scraped, {url: "Mew"}, env=watched).stderr
    take_down(scraped, url)
    assert "imagehash" in scrape(scraped, {url: "Umbreon"}, env=watched).stderr


def test_what_a_rule_decided_is_no_error_and_only_a_look_may_be_tried_again() -> None:
    slugs = {"taken_down_address", "taken_down_bytes", "taken_down_picture"}
    assert slugs <= DECISIONS
    assert slugs & FINAL == slugs - {"taken_down_picture"}


def test_a_damaged_record_stops_the_scrape(scraped: Dataset, site: Site) -> None:
    folder = scraped.root / TAKEDOWNS_FOLDER
    folder.mkdir(parents=True)
    (folder / "x.json").write_text("{")
    finished = scrape(scraped, {site.add("/a.png", drawing(1)): "Mew"})
    assert finished.code == 2
    assert finished.stderr.startswith(f"error: {TAKEDOWNS_FOLDER}/x.json is damaged (")
    assert finished.stderr.endswith("restore it, since images of artists who asked are known by it\n")
    with pytest.raises(InputError):
        read_records(scraped.root)


def test_nothing_taken_down_is_nothing_to_check(scraped: Dataset) -> None:
    import polars as pl

    columns = ("image_id", "source_url", "drop_reason", "phash64", "phash_contrast")
    rows = pl.DataFrame([dict.fromkeys(columns, "x")], schema=dict.fromkeys(columns, pl.String))
    assert read_taken_down(scraped.root, rows, 6) is None


def test_plain_pictures_look_like_none() -> None:
    """All plain pictures have the same hash: one that was taken down must not keep out all others."""
    plain = io.BytesIO()
    Image.new("RGB", (300, 300), (200, 60, 60)).save(plain, "PNG")
    hashed = hash_picture(plain.getvalue())
    assert hashed is not None
    taken_down = TakenDown(frozenset(), frozenset(), ((int(hashed.phash, 16), "0" * 32),), 6)
    assert taken_down.nearest(hashed) is None
    assert hash_picture(b"no image") is None


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63)), st.integers(0, 24))
def test_near_is_within_the_threshold(own: int, flipped: set[int], threshold: int) -> None:
    other = own
    for bit in flipped:
        other ^= 1 << bit
    found = TakenDown(frozenset(), frozenset(), ((other, "a"),), threshold).nearest(Hash(f"{own:016x}", 30.0))
    near = len(flipped) <= threshold and own.bit_count() > 8  # fewer bits are those of a plain picture
    assert found == (("a", len(flipped)) if near else None)
