"""The stand-in speaks SerpApi's protocol, and says that it is a stand-in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from demo.standins.serpapi_standin import HOUR_IS_FULL, NOTE, SEARCHES, Failure, serve
from tests.conftest import CHECKOUT
from tests.scraping.conftest import Gallery, picture

ASK = {"engine": "google_images", "q": "Mew fanart", "api_key": "k"}


def test_results(gallery: Gallery) -> None:
    gallery.add("Mew", "mew/a b.png", picture(1, (310, 290)), title="Mew & friends", page="/pages/a b")
    gallery.add("Mewtwo", "mewtwo/1.png", picture(2))
    with serve(gallery.catalogue) as address:
        answer = requests.get(f"{address}/search.json", params=ASK).json()
        (result,) = answer["images_results"]
        page = requests.get(result["link"])
        image = requests.get(result["original"])
    assert answer["stand_in"] is True
    assert answer["search_metadata"]["status"] == "Success"
    assert answer["search_metadata"]["status_note"] == NOTE
    assert answer["search_parameters"] == {"engine": "google_images", "q": "Mew fanart"}
    assert result == {
        "position": 1,
        "thumbnail": f"{address.images}/mew/a%20b.png",
        "source": "127.0.0.1",
        "title": "Mew & friends",
        "link": f"{address}/pages/a%20b",
        "original": f"{address.images}/mew/a%20b.png",
        "original_width": 310,
        "original_height": 290,
        "is_product": False,
    }
    assert "Mew &amp; friends" in page.text and NOTE in page.text
    assert image.content == picture(1, (310, 290))
    assert image.headers["Content-Type"] == "image/png"
    assert image.headers["X-Stand-In"] == "PokeFA"
    assert address.fetched == ["mew/a b.png"]


def test_the_longest_name_in_a_query_counts(gallery: Gallery) -> None:
    gallery.fill(["Mew", "Mewtwo"], 2)
    with serve(gallery.catalogue) as address:
        answer = requests.get(f"{address}/search.json", params=ASK | {"q": "mewtwo art"}).json()
    assert {result["title"].split(",")[0] for result in answer["images_results"]} == {"Mewtwo"}


def test_paging_and_the_end(gallery: Gallery) -> None:
    gallery.fill(["Mew"], 3)
    with serve(gallery.catalogue, page_size=2) as address:
        answers = [requests.get(f"{address}/search.json", params=ASK | {"ijn": page}) for page in ("0", "1", "2")]
        again = requests.get(f"{address}/search.json", params=ASK | {"ijn": "0"})
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert [len(answer.json().get("images_results", [])) for answer in answers] == [2, 1, 0]
    assert answers[2].json()["error"] == "Google hasn't returned any results for this query."
    assert again.content == answers[0].content


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        ({"api_key": ""}, 401, "Invalid API key. Your API key should be here: https://serpapi.com/manage-api-key"),
        ({"q": ""}, 400, "Missing query `q` parameter."),
        ({"engine": "bing"}, 400, "Unsupported `bing` search engine."),
    ],
)
def test_error_forms(gallery: Gallery, asked: dict[str, str], status: int, error: str) -> None:
    with serve(gallery.catalogue) as address:
        answer = requests.get(f"{address}/search.json", params=ASK | asked)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_account(gallery: Gallery) -> None:
    gallery.fill(["Mew"], 1)
    with serve(gallery.catalogue, searches=2, key="right") as address:
        asked = ASK | {"api_key": "right"}
        for left in (2, 1, 0):
            account = requests.get(f"{address}/account.json", params={"api_key": "right"}).json()
            assert account["total_searches_left"] == account["plan_searches_left"] == left
            assert (account["this_hour_searches"], account["account_rate_limit_per_hour"]) == (2 - left, 2)
            answer = requests.get(f"{address}/search.json", params=asked)
        wrong = requests.get(f"{address}/account.json", params={"api_key": "wrong"})
    assert (answer.status_code, answer.json()["error"]) == (429, "Your account has run out of searches.")
    assert wrong.status_code == 401


def test_searches_of_an_hour(gallery: Gallery) -> None:
    gallery.fill(["Mew"], 1)
    with serve(gallery.catalogue, searches=5, per_hour=1) as address:
        assert requests.get(f"{address}/search.json", params=ASK).status_code == 200
        answer = requests.get(f"{address}/search.json", params=ASK)
        account = requests.get(f"{address}/account.json", params=ASK).json()
    assert (answer.status_code, answer.json()["error"]) == (429, HOUR_IS_FULL)
    assert account["total_searches_left"] == 4
    assert account["this_hour_searches"] == account["account_rate_limit_per_hour"] == 1


def test_a_new_hour(gallery: Gallery) -> None:
    gallery.fill(["Mew"], 1)
    with serve(gallery.catalogue, per_hour=1, hour=0.0) as address:
        for _ in range(2):
            assert requests.get(f"{address}/search.json", params=ASK).status_code == 200
        account = requests.get(f"{address}/account.json", params=ASK).json()
    assert (account["this_hour_searches"], account["total_searches_left"]) == (0, SEARCHES - 2)


def test_failures_come_first(gallery: Gallery) -> None:
    gallery.fill(["Mew"], 1)
    failures = [Failure(503, "down"), Failure(429, "slow down", {"Retry-After": "7"})]
    with serve(gallery.catalogue, failures=failures) as address:
        answers = [requests.get(f"{address}/search.json", params=ASK) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 429, 200]
    assert answers[0].json()["error"] == "down"
    assert answers[1].headers["Retry-After"] == "7"


def test_image_host(gallery: Gallery) -> None:
    gallery.add("Mew", "lie.jpg", b"text", content_type="image/webp", headers={"X-Robots-Tag": "noai"})
    gallery.add("Mew", "gone.jpg", None)
    (gallery.catalogue.parent / "secret.txt").write_text("not in the catalogue")
    with serve(gallery.catalogue) as address:
        lie = requests.get(f"{address.images}/lie.jpg")
        codes = [
            requests.get(f"{address.images}/{name}").status_code
            for name in ("gone.jpg", "secret.txt", "%2e%2e/%2e%2e/etc/passwd", "catalogue.json")
        ]
    assert (lie.text, lie.headers["Content-Type"], lie.headers["X-Robots-Tag"]) == ("text", "image/webp", "noai")
    assert codes == [404, 404, 404, 404]


def test_command(gallery: Gallery) -> None:
    gallery.fill(["Mew"], 1)
    command = [
        sys.executable,
        "-m",
        "demo.standins.serpapi_standin",
        "--catalogue",
        str(gallery.catalogue),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())
        assert address["stand-in"] is True
        assert address["images"] == f"{address['serpapi']}/images"
        answer = requests.get(f"{address['serpapi']}/search.json", params=ASK)
        assert len(answer.json()["images_results"]) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_port_that_is_taken(gallery: Gallery, tmp_path: Path) -> None:
    with serve(gallery.catalogue) as address:
        port = int(str(address).rpartition(":")[2])
        with pytest.raises(OSError, match="Address already in use"), serve(gallery.catalogue, port=port):
            pass
