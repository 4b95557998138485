"""scraping/scrape.py as a user runs it, against the stand-in: quotas, resuming, imports, kills."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from demo.standins.serpapi_standin import Address, Failure, serve
from pokefa.stage.locks import holding
from scraping.scrape import main
from tests.conftest import CHECKOUT, Dataset, Finished
from tests.scraping.conftest import Gallery, Route, Site, picture, send

SCRIPT = "scraping/scrape.py"
KEY = "key-for-the-tests-0123"
QUOTAS = [(1, "Umbreon", "001-150", 4), (40, "Mew", "001-150", 3), (639, "Flabébé", "501-800", 2)]


@pytest.fixture
def dataset(dataset: Dataset) -> Dataset:
    """A dataset with quotas for three species."""
    set_quotas(dataset, QUOTAS)
    return dataset


def set_quotas(dataset: Dataset, quotas: list[tuple[int, str, str, int]]) -> None:
    path = dataset.root / "quotas/quotas.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["rank", "name", "band", "weight", "quota"])
        writer.writerows((rank, name, band, 1, quota) for rank, name, band, quota in quotas)


def environment(address: object) -> dict[str, str]:
    return {"SERPAPI_BASE_URL": str(address), "SERPAPI_API_KEY": KEY}


def scrape(dataset: Dataset, address: object, *arguments: object) -> Finished:
    finished = dataset.run(SCRIPT, "--allow-private", *arguments, env=environment(address))
    assert sum(finished.summary.get("counts", {}).values()) == finished.summary.get("seen", 0)
    assert KEY not in finished.stdout + finished.stderr
    return finished


def run_here(dataset: Dataset, *arguments: str) -> int:
    """Run the script in this process and return its exit code: for usage errors, which need no process of their own."""
    try:
        return main(["--root", str(dataset.root), *arguments])
    except SystemExit as ended:  # argparse
        return int(ended.code or 0)


def saved(dataset: Dataset) -> Counter[str]:
    """Return how many images each species has, having checked that rows and files agree to the byte."""
    rows = dataset.images() if (dataset.root / "metadata/images.csv").exists() else {}
    files = {
        path.relative_to(dataset.root).as_posix(): path
        for path in (dataset.root / "data_raw").glob("*/*/*")
        if path.name != "urls.jsonl"
    }
    assert {row["path_raw"] for row in rows.values()} == set(files)
    for image_id, row in rows.items():
        data = files[row["path_raw"]].read_bytes()
        assert hashlib.md5(data).hexdigest() == image_id == Path(row["path_raw"]).stem
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert len(data) == int(row["bytes"])
    return Counter(row["species"] for row in rows.values())


def statuses(dataset: Dataset, folder: str) -> dict[str, str]:
    """Return {last part of the address: status} of a species' urls.jsonl, each address once."""
    text = (dataset.root / "data_raw" / folder / "urls.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len({line["url"] for line in lines}) == len(lines)
    return {line["url"].rpartition("/")[2]: line["status"] for line in lines}


def everything(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes and times of all files."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


# -- searching and saving -------------------------------------------------------------------------------------------


def test_stops_at_exactly_the_quota(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Umbreon", "Mew", "Flabébé"], 6)
    with serve(gallery.catalogue, page_size=3) as address:
        finished = scrape(dataset, address)
    assert finished.code == 0
    assert saved(dataset) == {"Umbreon": 4, "Mew": 3, "Flabébé": 2}
    summary = finished.summary
    assert (summary["stage"], summary["seen"], summary["done"], summary["errors"]) == ("scrape", 9, 9, 0)
    assert summary["counts"] == {"saved": 9}
    assert summary["searches"] == {"paid": 4, "reused": 0, "left": 996}  # Umbreon needs a second page
    assert summary["species_short"] == 0
    assert len(address.fetched) == 9  # not one more than needed
    assert (dataset.root / "data_raw/501-800/0639_flabebe").is_dir()


def test_a_row_says_where_the_image_came_from(dataset: Dataset, gallery: Gallery) -> None:
    gallery.add("Flabébé", "f/1.jpg", picture(1, (400, 300), "JPEG"), title="Flabébé, a\nflower", page="/pages/f1")
    with serve(gallery.catalogue) as address:
        finished = scrape(dataset, address, "--species", "flabebe")
    (row,) = dataset.images().values()
    assert {name: row[name] for name in list(row)[2:18] if name not in ("ts", "path_raw")} == {
        "species": "Flabébé",
        "rank": "639",
        "band": "501-800",
        "query": "Flabébé Pokemon fanart",
        "source_url": f"{address.images}/f/1.jpg",
        "source_page": f"{address}/pages/f1",
        "source_domain": "127.0.0.1",
        "title": "Flabébé, a flower",
        "fmt": "JPEG",
        "w": "400",
        "h": "300",
        "bytes": str(len(picture(1, (400, 300), "JPEG"))),
        "content_type": "image/jpeg",
        "scrape_run_id": finished.summary["run_id"],
    }
    assert row["path_raw"] == f"data_raw/501-800/0639_flabebe/{row['image_id']}.jpg"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["ts"])
    saved(dataset)


def test_every_candidate_ends_with_a_status(dataset: Dataset, gallery: Gallery) -> None:
    set_quotas(dataset, [(1, "Umbreon", "001-150", 50)])
    jpeg = picture(2, (500, 500), "JPEG")
    files: dict[str, tuple[bytes | None, dict[str, Any]]] = {
        "good.png": (picture(1), {"content_type": "text/html"}),
        "good.webp": (picture(3, form="WEBP"), {}),
        "gone.png": (None, {}),
        "small.png": (picture(4, (90, 90)), {}),
        "text.jpg": (b"this is no picture", {}),
        "broken.jpg": (jpeg[: len(jpeg) // 2], {}),
        "empty.png": (b"", {}),
        "moving.gif": (picture(5, form="GIF"), {}),
        "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="300"/>', {}),
        "optout.png": (picture(6), {"headers": {"X-Robots-Tag": "noai"}}),
        "noindex.png": (picture(8), {"headers": {"X-Robots-Tag": "noindex"}}),
        "strip.png": (picture(9, (300, 1300)), {}),
        "moved.png": (b"", {}),
        "twin.png": (picture(1), {}),
        "large.png": (picture(7, (1200, 1200)), {}),
    }
    for name, (content, more) in files.items():
        gallery.add("Umbreon", name, content, **more)
    with serve(gallery.catalogue) as address:
        finished = scrape(dataset, address, "--max-pixels", 1_000_000)
    expected = {
        "good.png": "saved",
        "good.webp": "saved",
        "gone.png": "http_404",
        "small.png": "too_small",
        "text.jpg": "not_an_image",
        "broken.jpg": "truncated",
        "empty.png": "empty_file",
        "moving.gif": "saved",
        "drawing.svg": "unsupported_format",
        "optout.png": "opted_out",
        "noindex.png": "opted_out",
        "strip.png": "bad_aspect",
        "moved.png": "empty_file",
        "twin.png": "duplicate_bytes",
        "large.png": "too_many_pixels",
    }
    assert statuses(dataset, "001-150/0001_umbreon") == expected
    assert finished.summary["counts"] == dict(sorted(Counter(expected.values()).items()))
    assert finished.summary["errors"] == 6  # 404, no image, unsupported, truncated, empty twice
    assert finished.summary["species_short"] == 1
    assert "Umbreon: 3 of 50 wanted images" in finished.stderr
    assert saved(dataset) == {"Umbreon": 3}


def test_refusals_follow_the_flags(dataset: Dataset, gallery: Gallery) -> None:
    gallery.add("Mew", "optout.png", picture(6), headers={"X-Robots-Tag": "noai"})
    gallery.add("Mew", "noindex.png", picture(7, (90, 450)), headers={"X-Robots-Tag": "noindex"})
    gallery.add("Mew", "small.png", picture(4, (90, 90)))
    flags = ["--ignore-opt-out", "--min-side", 90, "--max-aspect", 5]
    with serve(gallery.catalogue) as address:
        finished = scrape(dataset, address, "--species", "Mew", *flags)
    assert finished.summary["counts"] == {"saved": 3}


@pytest.mark.parametrize("excluded", ["127.0.0.1", "example.org"])
def test_excluded_domains(dataset: Dataset, site: Site, tmp_path: Path, excluded: str) -> None:
    """The image's host and the host of the page that shows it both count."""
    link = "http://gallery.example.org/mew"
    results = [{"original": site.add(f"/{number}.png", picture(number)), "link": link} for number in range(2)]
    path = f"/search.json?engine=google_images&ijn=0&q=Mew+Pokemon+fanart&api_key={KEY}"
    site.add(path, json.dumps({"images_results": results}).encode())
    domains = tmp_path / "domains.txt"
    domains.write_text(f"{excluded}\n")
    finished = scrape(dataset, site.url(""), "--species", "Mew", "--max-pages", 1, "--exclude-domains", domains)
    assert finished.code == 0
    assert (finished.summary["counts"], finished.summary["errors"]) == ({"excluded_domain": 2}, 0)
    assert {asked.partition("?")[0] for asked, _ in site.requests} == {"/search.json", "/account.json"}


@pytest.mark.parametrize(
    "line", ["https://example.org/", "*.example.org", "example..org", "a b", ".example.org", "example.org:80", "[::1]"]
)
def test_bad_line_of_excluded_domains(
    dataset: Dataset, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "domains.txt"
    path.write_text(f"# a list\nexample.org\n{line}\n")
    assert run_here(dataset, "--exclude-domains", str(path)) == 2
    assert capsys.readouterr().err == (
        f"error: {path} line 3: {line!r} is not a domain: write one per line, such as example.org\n"
    )


def test_private_addresses_are_refused_by_default(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Mew"], 2)
    with serve(gallery.catalogue) as address:
        finished = dataset.run(SCRIPT, env=environment(address))
    assert finished.code == 0
    assert finished.summary["counts"] == {"blocked_address": 2}
    assert finished.summary["errors"] == 0
    assert address.fetched == []
    assert not (dataset.root / "metadata/images.csv").exists()


def test_one_image_under_two_species_is_stored_once(dataset: Dataset, gallery: Gallery) -> None:
    for name in ("Umbreon", "Mew"):
        gallery.add(name, f"{name}.png", picture(1))
    with serve(gallery.catalogue) as address:
        finished = scrape(dataset, address)
    assert finished.summary["counts"] == {"duplicate_bytes": 1, "saved": 1}
    assert sum(saved(dataset).values()) == 1
    found = statuses(dataset, "001-150/0001_umbreon") | statuses(dataset, "001-150/0040_mew")
    assert sorted(found.values()) == ["duplicate_bytes", "saved"]


def test_a_decompression_bomb_is_refused_unopened(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    """A valid PNG of 3.6 gigapixels in a megabyte or so: its header is enough to refuse it."""
    rows = zlib.compress(bytes(10_000_000), 9) * 2
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    site.add("/bomb.png", bomb, headers={"Content-Type": "image/png"})
    path = tmp_path / "urls.csv"
    path.write_text(f"source_url,species\n{site.url('/bomb.png')},Mew\n")
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path)
    assert finished.summary["counts"] == {"too_many_pixels": 1}
    assert not (dataset.root / "metadata/images.csv").exists()


def test_addresses_never_name_files(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    """Names with ../ and absolute paths in addresses: what is saved is named by its hash, under data_raw."""
    path = tmp_path / "urls.csv"
    addresses = ["/a/..%2F..%2F..%2Fescaped.png", "/%2Fetc%2Fescaped.png", "/..%5C..%5Cescaped.png"]
    for number, address in enumerate(addresses):
        site.add(address, picture(number), headers={"Content-Disposition": 'attachment; filename="../../escaped.png"'})
    path.write_text("source_url,species\n" + "".join(f"{site.url(address)},Mew\n" for address in addresses))
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path)
    saved_ids = {hashlib.md5(picture(number)).hexdigest() for number in range(len(addresses))}
    assert finished.summary["counts"] == {"saved": len(addresses)}
    assert set(dataset.images()) == saved_ids
    for row in dataset.images().values():
        assert row["path_raw"] == f"data_raw/001-150/0040_mew/{row['image_id']}.png"
    assert list(tmp_path.rglob("*escaped*")) == []


def test_an_address_of_300_kilobytes(dataset: Dataset, site: Site) -> None:
    """As search engines give for thumbnails: it is stored in short, and known again in the next run."""
    long = "data:image/jpeg;base64," + "A" * 300_000
    results = [{"original": long}, {"original": long + "B"}, {"original": site.add("/1.png", picture(1)), "link": long}]
    path = f"/search.json?engine=google_images&ijn=0&q=Mew+Pokemon+fanart&api_key={KEY}"
    site.add(path, json.dumps({"images_results": results}).encode())
    flags = ["--species", "Mew", "--max-pages", 1]
    assert scrape(dataset, site.url(""), *flags).summary["counts"] == {"blocked_scheme": 2, "saved": 1}
    (row,) = dataset.images().values()
    assert len(row["source_page"]) < 300
    assert (dataset.root / "data_raw/001-150/0040_mew/urls.jsonl").stat().st_size < 5000
    assert scrape(dataset, site.url(""), *flags).summary["seen"] == 0


def test_connections_to_one_host(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    rows = [f"{site.add(f'/{name}-{n}.png', picture(n))},{name}" for n in range(3) for name in ("Umbreon", "Mew")]
    path = tmp_path / "urls.csv"
    path.write_text("\n".join(["source_url,species", *rows]))
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path, "--workers", 2, "--per-host", 1)
    assert finished.summary["counts"] == {"duplicate_bytes": 3, "saved": 3}
    assert (site.most_open, len(site.requests)) == (1, 6)


def list_of(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """Write a list of addresses and species for --from-urls."""
    path.write_text("\n".join(["source_url,species", *map(",".join, rows)]))
    return path


def test_many_downloads_of_one_species_at_once(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    """Six pictures of one species, and a server that answers none before all six are asked for."""
    all_six = threading.Barrier(6)

    def route(body: bytes) -> Route:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            all_six.wait(20)
            send(handler, body)

        return answer

    urls = [site.add_route(f"/{number}.png", route(picture(number))) for number in range(6)]
    path = list_of(tmp_path / "urls.csv", [(url, "Mew") for url in urls])
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path, "--per-host", 6, "--concurrency", 6)
    assert finished.summary["counts"] == {"saved": 6}


def test_concurrency_is_a_limit(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    rows = [(site.add(f"/{n}.png", picture(n)), ("Mew", "Umbreon")[n % 2]) for n in range(12)]
    path = list_of(tmp_path / "urls.csv", rows)
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path, "--per-host", 9, "--concurrency", 2)
    assert finished.summary["counts"] == {"saved": 12}
    assert site.most_open <= 2


def test_nothing_is_fetched_in_vain(dataset: Dataset, gallery: Gallery) -> None:
    """Many at once, and yet no more than the quota takes: every third of 40 is missing, so 14 are tried for 9."""
    for number in range(40):
        gallery.add("Mew", f"{number:02d}.png", picture(number) if number % 3 else None)
    set_quotas(dataset, [(40, "Mew", "001-150", 9)])
    with serve(gallery.catalogue, page_size=10, delay=0.02) as address:
        finished = scrape(dataset, address, "--per-host", 16)
    assert finished.summary["counts"] == {"http_404": 5, "saved": 9}
    assert sorted(address.fetched) == [f"{number:02d}.png" for number in range(14)]
    assert len(address.searches) == 2


def test_of_two_addresses_with_the_same_bytes_the_first_counts(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    second_came = threading.Event()

    def first(handler: BaseHTTPRequestHandler) -> None:
        second_came.wait(20)
        time.sleep(0.3)  # the second is long done when the first comes
        send(handler, picture(1))

    def second(handler: BaseHTTPRequestHandler) -> None:
        send(handler, picture(1))
        second_came.set()

    urls = [site.add_route("/first.png", first), site.add_route("/second.png", second)]
    path = list_of(tmp_path / "urls.csv", [(url, "Mew") for url in urls])
    assert dataset.run(SCRIPT, "--allow-private", "--from-urls", path).code == 0
    assert statuses(dataset, "001-150/0040_mew") == {"first.png": "saved", "second.png": "duplicate_bytes"}
    assert saved(dataset) == {"Mew": 1}


def test_a_busy_host_is_asked_again(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    def busy_once(handler: BaseHTTPRequestHandler) -> None:
        if sum(path == "/a.png" for path, _ in site.requests) == 1:
            handler.send_response(503)
            handler.send_header("Retry-After", "1")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            send(handler, picture(1))

    path = list_of(tmp_path / "urls.csv", [(site.add_route("/a.png", busy_once), "Mew")])
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path)
    assert finished.summary["counts"] == {"saved": 1}
    assert len(site.requests) == 2


def test_a_host_that_asks_to_be_left_alone(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    after = "Fri, 31 Dec 99999 23:59:59 GMT"
    urls = [site.add(f"/{n}.png", b"", 429, {"Retry-After": after}) for n in range(3)]
    path = list_of(tmp_path / "urls.csv", [(url, "Mew") for url in urls])
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path, "--per-host", 1)
    assert finished.summary["counts"] == {"host_busy": 3}
    assert len(site.requests) == 1


def test_check_of_the_header_alone(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    whole = picture(1, (400, 300), "JPEG", quality=95)
    half = site.add("/half.jpg", whole[: len(whole) // 2])
    text = site.add("/text.jpg", b"<html>")
    path = list_of(tmp_path / "urls.csv", [(half, "Mew"), (text, "Mew")])
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path)
    assert finished.summary["counts"] == {"not_an_image": 1, "truncated": 1}
    finished = dataset.run(
        SCRIPT, "--allow-private", "--from-urls", path, "--check", "header", "--retry-errors", "--min-side", 300
    )
    assert finished.summary["counts"] == {"not_an_image": 1, "saved": 1}
    assert saved(dataset) == {"Mew": 1}
    (row,) = dataset.images().values()
    assert (row["w"], row["h"], row["fmt"]) == ("400", "300", "JPEG")


def test_strict(dataset: Dataset, gallery: Gallery) -> None:
    gallery.add("Mew", "gone.png", None)
    with serve(gallery.catalogue) as address:
        assert scrape(dataset, address, "--strict").code == 1


def test_search_flags_reach_the_search(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Mew"], 3)
    flags = {"hl": "pt-br", "gl": "jp", "safe": "off", "tbs": "itp:clipart,isz:l"}
    given = [part for name, value in flags.items() for part in (f"--{name}", value)]
    with serve(gallery.catalogue) as address:
        assert scrape(dataset, address, "--species", "Mew", *given).summary["counts"] == {"saved": 3}
    assert address.searches == [{"engine": "google_images", "ijn": "0", "q": "Mew Pokemon fanart", **flags}]


def test_contact_is_sent(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    url = site.add("/a.png", picture(1))
    path = tmp_path / "urls.csv"
    path.write_text(f"source_url,species\n{url},Mew\n")
    dataset.run(SCRIPT, "--allow-private", "--from-urls", path, "--contact", "me@example.org")
    assert "contact: me@example.org" in site.requests[0][1]["User-Agent"]


# -- running again --------------------------------------------------------------------------------------------------


def test_second_run_changes_nothing_and_pays_nothing(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Umbreon", "Mew"], 2)
    gallery.add("Mew", "gone.png", None)
    with serve(gallery.catalogue) as address:
        scrape(dataset, address)
        before, searches, fetched = everything(dataset.root), len(address.searches), len(address.fetched)
        second = scrape(dataset, address)
        assert (len(address.searches), len(address.fetched)) == (searches, fetched)
    assert everything(dataset.root) == before
    assert second.code == 0
    assert (second.summary["seen"], second.summary["done"], second.summary["counts"]) == (0, 0, {})
    # A page and an end each, and of the third species an empty page and its second try.
    assert second.summary["searches"] == {"paid": 0, "reused": 6, "left": None}


def test_a_higher_quota_uses_the_stored_pages(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Mew"], 6)
    set_quotas(dataset, [(40, "Mew", "001-150", 2)])
    with serve(gallery.catalogue) as address:
        scrape(dataset, address)
        set_quotas(dataset, [(40, "Mew", "001-150", 5)])
        finished = scrape(dataset, address)
    assert finished.summary["counts"] == {"saved": 3}
    assert finished.summary["searches"] == {"paid": 0, "reused": 1, "left": None}
    assert saved(dataset) == {"Mew": 5}


def test_retry_errors(dataset: Dataset, gallery: Gallery) -> None:
    gallery.add("Mew", "late.png", None)
    gallery.add("Mew", "small.png", picture(4, (90, 90)))
    with serve(gallery.catalogue) as address:
        assert scrape(dataset, address).summary["counts"] == {"http_404": 1, "too_small": 1}
        (gallery.catalogue.parent / "late.png").write_bytes(picture(1))
        assert scrape(dataset, address).summary["counts"] == {}
        assert scrape(dataset, address, "--retry-errors").summary["counts"] == {"saved": 1, "too_small": 1}
        assert scrape(dataset, address).summary["counts"] == {}
    assert saved(dataset) == {"Mew": 1}


def test_a_row_that_was_not_written_is_adopted(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Mew"], 3)
    with serve(gallery.catalogue) as address:
        scrape(dataset, address)
        rows = dataset.images()
        shutil.rmtree(dataset.root / "metadata")
        finished = scrape(dataset, address, "--species", "Mew")
    assert finished.summary["counts"] == {"adopted": 3}
    assert finished.summary["searches"] == {"paid": 0, "reused": 0, "left": None}  # the quota is met
    assert dataset.images() == rows  # the run that saved them included


# -- limits ---------------------------------------------------------------------------------------------------------


def test_limit(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Umbreon", "Mew", "Flabébé"], 6)
    with serve(gallery.catalogue) as address:
        scrape(dataset, address, "--limit", 5)
        assert saved(dataset) == {"Umbreon": 4, "Mew": 1}
        scrape(dataset, address, "--limit", 3)
    assert saved(dataset) == {"Umbreon": 4, "Mew": 3, "Flabébé": 1}


def test_max_searches_is_exit_code_3(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Umbreon"], 6)
    with serve(gallery.catalogue, page_size=2) as address:
        stopped = scrape(dataset, address, "--species", "Umbreon", "--max-searches", 1)
        assert stopped.code == 3
        assert stopped.stderr.endswith(
            "error: --max-searches 1 is reached: raise it and run again, the pages so far are stored\n"
        )
        assert stopped.summary["searches"] == {"paid": 1, "reused": 0, "left": 999}
        assert saved(dataset) == {"Umbreon": 2}
        assert scrape(dataset, address, "--species", "Umbreon", "--max-searches", 1).code == 0
    assert saved(dataset) == {"Umbreon": 4}
    assert len(address.searches) == 2


def test_an_account_that_is_used_up_is_exit_code_3(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Umbreon"], 6)
    with serve(gallery.catalogue, page_size=2, searches=1) as address:
        stopped = scrape(dataset, address, "--species", "Umbreon")
    assert stopped.code == 3
    assert stopped.stderr.endswith(
        "error: the search account is used up (Your account has run out of searches.): the pages so far are stored\n"
    )
    assert stopped.summary["searches"] == {"paid": 1, "reused": 0, "left": 0}
    assert saved(dataset) == {"Umbreon": 2}


def test_an_account_that_cannot_be_asked_fails_no_run(dataset: Dataset, site: Site) -> None:
    image = site.add("/1.png", picture(1))
    answer = json.dumps({"images_results": [{"original": image}]}).encode()
    site.add(f"/search.json?engine=google_images&ijn=0&q=Mew+Pokemon+fanart&api_key={KEY}", answer)
    finished = scrape(dataset, site.url(""), "--species", "Mew", "--limit", 1)
    assert finished.code == 0
    assert finished.summary["searches"] == {"paid": 1, "reused": 0, "left": None}


def test_dry_run(dataset: Dataset, gallery: Gallery) -> None:
    before = everything(dataset.root)
    finished = dataset.run(SCRIPT, "--dry-run")
    assert finished.code == 0
    assert "dry run: would look for up to 9 images of 3 species" in finished.stderr
    assert (finished.summary["dry_run"], finished.summary["wanted"]) == (True, 9)
    assert everything(dataset.root) == before


# -- what ends a run ------------------------------------------------------------------------------------------------


def test_without_a_key(dataset: Dataset, gallery: Gallery) -> None:
    with serve(gallery.catalogue) as address:
        finished = dataset.run(SCRIPT, env={"SERPAPI_BASE_URL": str(address), "SERPAPI_API_KEY": ""})
    assert finished.code == 2
    assert finished.stderr == "error: SERPAPI_API_KEY is not set: export SERPAPI_API_KEY=your-key and run again\n"
    assert address.searches == []


def test_a_refused_key_stops_at_once(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Umbreon", "Mew", "Flabébé"], 3)
    with serve(gallery.catalogue, key="another-key") as address:
        finished = scrape(dataset, address, "--workers", 1)
    assert finished.code == 2
    assert finished.stderr == (
        "error: SERPAPI_API_KEY was refused (401: Invalid API key. Your API key should be here: "
        "https://serpapi.com/manage-api-key): export the right key and run again\n"
    )
    assert len(address.searches) == 1


def test_a_service_that_is_down(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill(["Mew"], 1)
    failures = [Failure(503, "down", {"Retry-After": "0"})] * 20
    with serve(gallery.catalogue, failures=failures) as address:
        finished = scrape(dataset, address, "--species", "Mew")
        assert finished.code == 1
        assert finished.stderr == (
            "error: the search service failed 6 times (503: down): run the same command again later\n"
        )
        assert len(address.searches) == 6


def test_no_quotas(run_script: Any, tmp_path: Path) -> None:
    finished = run_script(SCRIPT, "--root", tmp_path / "new")
    assert finished.code == 2
    path = tmp_path / "new/quotas/quotas.csv"
    assert finished.stderr == (
        f"error: {path} cannot be read (No such file or directory): run quotas/allocate.py first\n"
    )


def test_two_at_once(dataset: Dataset) -> None:
    with holding(dataset.root, "scrape"):
        finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr.startswith(f"error: scrape.py or takedown.py is running on {dataset.root}: wait until ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--species", "Umbron"], "unknown species 'Umbron' (did you mean Umbreon?): use a name from quotas.csv"),
        (["--species", "Missingno"], "error: --species: unknown species 'Missingno': use a name from quotas.csv"),
        (
            ["--from-folder", "no-such-folder"],
            "error: --from-folder no-such-folder is not a folder: name an existing one",
        ),
        (["--query", "fanart"], "argument --query: 'fanart' does not contain {name}, the place of the species' name"),
        (["--labels", "a.csv"], "error: --labels needs --from-folder"),
        (["--from-urls", "a", "--from-folder", "b"], "argument --from-folder: not allowed with argument --from-urls"),
        (
            ["--from-urls", "a", "--limit", "3"],
            "--limit applies to the search only: shorten the folder or the list instead",
        ),
        (["--min-side", "0"], "argument --min-side: '0' is not a whole number of 1 or more"),
        (["--per-host", "0"], "argument --per-host: '0' is not a whole number of 1 or more"),
        (["--max-aspect", "0.5"], "argument --max-aspect: '0.5' is not a number of 1 or more"),
        (
            ["--exclude-domains", "no-such-file"],
            "error: --exclude-domains no-such-file cannot be read: No such file or directory",
        ),
        (["--deadline", "-1"], "argument --deadline: '-1' is not a number of seconds over 0"),
        (["--hl", "English"], "--hl: 'English' is not a language code, such as en or pt-br"),
        (["--gl", "usa"], "--gl: 'usa' is not a two-letter country code, such as us or jp"),
        (["--safe", "on"], "argument --safe: invalid choice: 'on' (choose from 'active', 'off')"),
        (["--tbs", ""], "--tbs: '' is not a filter of printable ASCII characters without spaces, such as isz:l"),
        (["--contact", "é"], "argument --contact: 'é' contains characters that are not allowed in an HTTP header"),
    ],
)
def test_wrong_usage(dataset: Dataset, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(dataset, *arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


# -- images from elsewhere ------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name, content in {
        "Umbreon/1.png": picture(1),
        "Umbreon/deep/er/2.png": picture(2),
        "Umbreon/.hidden": b"",
        "umbreon/three & more.jpg": picture(3, form="JPEG"),
        "0639_flabebe/4.webp": picture(4, form="WEBP"),
        "Mew/notes.txt": b"not a picture",
        "Mew/small.png": picture(5, (90, 300)),
        "Mew/copy of 1.png": picture(1),
        "loose.png": picture(9),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_from_folder(dataset: Dataset, pictures: Path) -> None:
    # One worker, so that it is known which of two species with the same bytes comes first: the more popular.
    finished = dataset.run(SCRIPT, "--from-folder", pictures, "--workers", 1)
    assert finished.code == 0
    assert finished.summary["counts"] == {"duplicate_bytes": 1, "not_an_image": 1, "saved": 4, "too_small": 1}
    assert "searches" not in finished.summary
    assert f"{pictures}/loose.png is skipped, because it is not in a sub-folder" in finished.stderr
    assert saved(dataset) == {"Umbreon": 3, "Flabébé": 1}  # the quota is not asked
    rows = {row["source_url"]: row for row in dataset.images().values()}
    digest = hashlib.md5(picture(3, form="JPEG")).hexdigest()
    row = rows[f"file:umbreon/three%20%26%20more.jpg#{digest}"]
    assert (row["query"], row["title"], row["content_type"], row["source_domain"]) == ("from-folder", "", "", "")
    assert row["path_raw"] == f"data_raw/001-150/0001_umbreon/{digest}.jpg"

    before = everything(dataset.root)
    again = dataset.run(SCRIPT, "--from-folder", pictures)
    assert (again.summary["seen"], everything(dataset.root)) == (0, before)


def test_from_another_folder_with_the_same_names(dataset: Dataset, pictures: Path) -> None:
    dataset.run(SCRIPT, "--from-folder", pictures, "--species", "Umbreon")
    (pictures / "Umbreon/1.png").write_bytes(picture(11))
    finished = dataset.run(SCRIPT, "--from-folder", pictures, "--species", "Umbreon")
    assert finished.summary["counts"] == {"saved": 1}


def test_from_folder_with_labels(dataset: Dataset, pictures: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,species,more\nloose.png,Mew,x\nUmbreon/1.png,flabebe,\nnone.png,Mew,\n")
    finished = dataset.run(SCRIPT, "--from-folder", pictures, "--labels", labels)
    assert finished.summary["counts"] == {"missing_file": 1, "saved": 2}
    assert saved(dataset) == {"Mew": 1, "Flabébé": 1}


def test_folder_of_no_species(dataset: Dataset, pictures: Path) -> None:
    (pictures / "Missingno").mkdir()
    (pictures / "Missingno/1.png").write_bytes(picture(1))
    finished = dataset.run(SCRIPT, "--from-folder", pictures, "--quiet")
    assert finished.code == 2
    assert finished.stderr.endswith(": unknown species 'Missingno': use a name from quotas.csv\n")
    assert saved(dataset) == {}


def test_from_urls(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    for number in range(4):
        site.add(f"/{number}.png", picture(number), headers={"Content-Type": "image/png"})
    digest = hashlib.md5(picture(0)).hexdigest()
    path = tmp_path / "base.csv"
    path.write_text(
        "path,source_url,image_id,species\n"
        f"x,{site.url('/0.png')},{digest},umbreon\n"
        f'x,{site.url("/1.png")},{digest.upper()},"mew,umbreon"\n'
        f"x,{site.url('/2.png')},,Mew\n"
        f"x,{site.url('/2.png')},,Umbreon\n"
        f"x,{site.url('/gone.png')},,Mew\n"
        f"x,file:///etc/passwd,,Mew\n"
        f"x,{site.url('/3.png')},,\n"
    )
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path, "--workers", 1)
    assert finished.code == 0
    assert f"{path}: 1 rows without a species are skipped" in finished.stderr
    assert finished.summary["counts"] == {
        "blocked_scheme": 1,
        "duplicate_url": 1,
        "hash_mismatch": 1,
        "http_404": 1,
        "saved": 2,
    }
    assert saved(dataset) == {"Umbreon": 2}
    found = statuses(dataset, "001-150/0040_mew")
    assert found == {
        "1.png": "hash_mismatch",
        "2.png": "duplicate_url",
        "gone.png": "http_404",
        "passwd": "blocked_scheme",
    }
    row = dataset.images()[digest]
    assert (row["query"], row["source_domain"], row["content_type"]) == ("from-urls", "127.0.0.1", "image/png")
    again = dataset.run(SCRIPT, "--allow-private", "--from-urls", path)
    assert (again.summary["seen"], again.summary["done"]) == (0, 0)
    assert "3 URLs were tried before and not saved: use --retry-errors to try them again" in again.stderr


def test_from_urls_as_parquet(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    """What `webdataset.py --urls-only` publishes brings the same bytes back, and other bytes are refused."""
    import polars as pl

    for number in range(2):
        site.add(f"/{number}.png", picture(number), headers={"Content-Type": "image/png"})
    digest = hashlib.md5(picture(0)).hexdigest()
    path = tmp_path / "urls.parquet"
    pl.DataFrame(
        {
            "source_url": [site.url("/0.png"), site.url("/1.png"), site.url("/1.png")],
            "image_id": [digest, digest, None],
            "ae_aesthetic": [70, None, 80],
            "species": ["umbreon,mew", "mew", None],
        }
    ).write_parquet(path)
    finished = dataset.run(SCRIPT, "--allow-private", "--from-urls", path, "--workers", 1)
    assert (finished.code, finished.summary["counts"]) == (0, {"hash_mismatch": 1, "saved": 1})
    assert list(dataset.images()) == [digest]


def test_a_parquet_file_that_is_none(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "urls.parquet"
    path.write_text("source_url,species\n")
    assert run_here(dataset, "--from-urls", str(path)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} cannot be read (")
    assert error.endswith("): it needs the columns source_url and species\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url,species\n", "has no column source_url: it needs the columns source_url and species"),
        (
            "source_url,species\nhttp://a.example/,Missingno\n",
            "line 2: unknown species 'Missingno': use a name from quotas.csv",
        ),
        (
            "source_url,species,image_id\nhttp://a.example/,Mew,12\n",
            "line 2: image_id '12' is not an MD5 of 32 hex digits",
        ),
    ],
)
def test_wrong_list_of_urls(
    dataset: Dataset, tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "urls.csv"
    path.write_text(text)
    assert run_here(dataset, "--from-urls", str(path)) == 2
    assert capsys.readouterr().err == f"error: {path} {message}\n"


# -- many species, and kills ----------------------------------------------------------------------------------------

MANY = [(rank, name, "001-150", 6) for rank, name in enumerate(["Umbreon", "Mimikyu", "Sylveon", "Eevee", "Mew"], 1)]


def facts(dataset: Dataset) -> dict[str, dict[str, str]]:
    """Return the ledger apart from times and run ids."""
    return {
        image_id: {name: cell for name, cell in row.items() if name not in ("ts", "scrape_run_id")}
        for image_id, row in dataset.images().items()
    }


def test_workers_do_not_change_the_result(dataset: Dataset, gallery: Gallery, tmp_path: Path) -> None:
    gallery.fill([name for _, name, _, _ in MANY], 8)
    results = []
    with serve(gallery.catalogue, page_size=4) as address:
        for workers in (1, 8):
            other = Dataset(tmp_path / f"workers-{workers}")
            other.root.mkdir()
            set_quotas(other, MANY)
            assert scrape(other, address, "--workers", workers).code == 0
            assert set(saved(other).values()) == {6}
            results.append(facts(other))
    assert results[0] == results[1]


@contextmanager
def running(dataset: Dataset, address: Address, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the script; whatever happens, it is gone at the end."""
    command = [sys.executable, SCRIPT, "--root", str(dataset.root), "--allow-private", *arguments]
    process = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment(address)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.005)


def test_kill_and_resume(dataset: Dataset, gallery: Gallery) -> None:
    """Killed after a random number of downloads, over and over: nothing is lost, doubled or paid for again."""
    gallery.fill([name for _, name, _, _ in MANY], 8)
    set_quotas(dataset, MANY)
    chance = random.Random(3)
    kills = 0
    with serve(gallery.catalogue, page_size=4, delay=0.05) as address:
        for _ in range(7):
            stored = {path.name for path in (dataset.root / "data_raw/serpapi").glob("*.json.gz")}
            asked, goal = len(address.searches), len(address.fetched) + chance.randrange(1, 7)
            with running(dataset, address, "--workers", "3") as process:
                wait_for(lambda goal=goal: len(address.fetched) >= goal, process)
                time.sleep(chance.random() * 0.03)
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
            for search in address.searches[asked:]:
                name = f"{search['q'].split()[0].lower()}_pokemon_fanart-{int(search['ijn']):02d}"
                assert not any(one.startswith(name) for one in stored), "a page that was stored was paid for again"
        finished = scrape(dataset, address)
    assert kills
    assert finished.code == 0
    assert saved(dataset) == {name: 6 for _, name, _, _ in MANY}
    for rank, name, band, _ in MANY:
        found = statuses(dataset, f"{band}/{rank:04d}_{name.lower()}")
        assert found == {f"{number}.png": "saved" for number in range(6)}  # the first six, as without a kill


def test_interrupt_saves_what_is_finished(dataset: Dataset, gallery: Gallery) -> None:
    gallery.fill([name for _, name, _, _ in MANY], 8)
    set_quotas(dataset, MANY)
    with serve(gallery.catalogue, delay=0.2) as address:
        with running(dataset, address, "--workers", "2") as process:
            wait_for(lambda: len(address.fetched) >= 5, process)
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert stderr.endswith("error: interrupted: finished work is saved; run the same command again to continue\n")
        done = json.loads(stdout.splitlines()[-1])["done"]
        assert 0 < done < 30
        assert len(dataset.images()) == done
        finished = scrape(dataset, address)  # which removes what was not finished
    assert finished.summary["done"] == 30 - done
    assert set(saved(dataset).values()) == {6}


def test_a_signal_ends_a_download_that_never_would(dataset: Dataset, site: Site, tmp_path: Path) -> None:
    asked = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        asked.set()
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)

    urls = [site.add_route(f"/{number}.png", trickle) for number in range(40)]
    path = list_of(tmp_path / "urls.csv", [(url, "Mew") for url in urls])
    with running(dataset, Address(site.url(""), ""), "--from-urls", str(path), "--deadline", "80000") as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.endswith("error: interrupted: finished work is saved; run the same command again to continue\n")
