"""The search client against the stand-in: paging, storing, and every way in which a search can fail."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import tenacity

from demo.standins.serpapi_standin import HOUR_IS_FULL, NO_RESULTS, Address, Failure, serve
from pokefa.errors import BudgetReached, Interrupted, RunError
from scraping.serpapi_client import TRIES, KeyRefused, SearchClient, stored_name
from scraping.sources import searched
from scraping.utils import Species
from tests.scraping.conftest import Gallery, Route, Site

KEY = "key-for-the-tests-0123"
QUERY = "Mew Pokemon fanart"
MEW = Species("Mew", 40, "001-150", 10)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERPAPI_API_KEY", KEY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "searches"


def client(folder: Path, base_url: object, most: int | None = None) -> SearchClient:
    return SearchClient(folder, str(base_url), most=most, backoff=tenacity.wait_none())


@contextmanager
def standin(gallery: Gallery, count: int, *failures: Failure, **more: float) -> Iterator[Address]:
    gallery.fill(["Mew"], count)
    with serve(gallery.catalogue, failures=failures, key=KEY, **more) as address:  # type: ignore[arg-type]
        yield address


def test_pages(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 5, page_size=2) as address:
        search = client(folder, address)
        pages = [search.page(QUERY, number) for number in range(4)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert [result["position"] for page in pages for result in page] == [1, 2, 3, 4, 5]
    assert (search.paid, search.reused) == (4, 0)


def test_a_page_is_paid_for_once(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 3, page_size=2) as address:
        first = [client(folder, address).page(QUERY, number) for number in (0, 1, 2)]
    again = client(folder, address)  # the service is gone
    assert [again.page(QUERY, number) for number in (0, 1, 2)] == first
    assert (again.paid, again.reused) == (0, 3)
    assert len(address.searches) == 3


def test_stored_pages_need_no_key(gallery: Gallery, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with standin(gallery, 1) as address:
        client(folder, address).page(QUERY, 0)
    monkeypatch.delenv("SERPAPI_API_KEY")
    search = client(folder, address)
    assert len(search.page(QUERY, 0)) == 1
    with pytest.raises(KeyRefused) as refused:
        search.page(QUERY, 1)
    assert str(refused.value) == "SERPAPI_API_KEY is not set: export SERPAPI_API_KEY=your-key and run again"
    assert refused.value.exit_code == 2


def test_what_is_stored(site: Site, folder: Path) -> None:
    """The file holds the request and the answer, gives away no key, and is the same whenever it is written."""
    answer = {"search_metadata": {"json_endpoint": f"https://example.org/?api_key={KEY}"}, "images_results": [{}]}
    site.routes["/search.json?engine=google_images&ijn=0&q=Mew+Pokemon+fanart&api_key=" + KEY] = json_route(answer)
    client(folder, site.url("")).page(QUERY, 0)
    (path,) = folder.iterdir()
    assert path.name.startswith("mew_pokemon_fanart-00-") and path.name.endswith(".json.gz")
    text = gzip.decompress(path.read_bytes()).decode()
    assert KEY not in text
    assert json.loads(text) == {
        "request": {"engine": "google_images", "ijn": 0, "q": QUERY},
        "response": {
            "search_metadata": {"json_endpoint": "https://example.org/?api_key=[redacted]"},
            "images_results": [{}],
        },
    }
    assert path.read_bytes()[4:8] == bytes(4)  # no time in the gzip header


def test_parameters_make_another_search(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 1) as address:
        client(folder, address).page(QUERY, 0)
        for _ in range(2):
            SearchClient(folder, str(address), parameters={"gl": "jp", "tbs": "isz:l"}).page(QUERY, 0)
    asked = {"engine": "google_images", "ijn": "0", "q": QUERY}
    assert address.searches == [asked, asked | {"gl": "jp", "tbs": "isz:l"}]
    stored = [json.loads(gzip.decompress(path.read_bytes()))["request"] for path in folder.iterdir()]
    assert sorted(stored, key=len) == [
        {"engine": "google_images", "ijn": 0, "q": QUERY},
        {"engine": "google_images", "ijn": 0, "q": QUERY, "gl": "jp", "tbs": "isz:l"},
    ]


def json_route(answer: object, status: int = 200) -> Route:
    def route(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return route


def test_names_of_stored_pages_tell_queries_apart() -> None:
    names = {
        stored_name({"engine": "google_images", "ijn": number, "q": query})
        for number in (0, 1)
        for query in ("Mr. Mime art", "Mr Mime art", "フシギダネ", "ピカチュウ", "../../etc/passwd")
    }
    assert len(names) == 10
    assert not any("/" in name for name in names)


def test_damaged_store(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 1) as address:
        client(folder, address).page(QUERY, 0)
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(RunError) as refused:
        client(folder, address).page(QUERY, 0)
    assert str(refused.value).startswith(f"{path} is damaged (")
    assert str(refused.value).endswith("): remove it to search for the page again")


@pytest.mark.parametrize(
    "stored", ["[]", "7", "{}", '{"response": []}', '{"response": null}', "not json", "[" * 100_000]
)
def test_stored_pages_of_another_shape(gallery: Gallery, folder: Path, stored: str) -> None:
    with standin(gallery, 1) as address:
        client(folder, address).page(QUERY, 0)
    (path,) = folder.iterdir()
    path.write_bytes(gzip.compress(stored.encode()))
    with pytest.raises(RunError) as refused:
        client(folder, address).page(QUERY, 0)
    assert str(refused.value).startswith(f"{path} is damaged (")
    assert refused.value.exit_code == 2


def test_no_results_is_an_end_and_stored(gallery: Gallery, folder: Path) -> None:
    """An empty first page is asked for once more, past the service's own store, and then never again."""
    query = "a query that names nobody"
    with standin(gallery, 1) as address:
        search = client(folder, address)
        assert search.page(query, 0) == []
        assert (search.paid, search.reused) == (2, 0)
    assert client(folder, address).page(query, 0) == []
    first = {"engine": "google_images", "ijn": "0", "q": query}
    assert address.searches == [first, first | {"no_cache": "true"}]


def test_results_of_the_second_try(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 2, Failure(200, NO_RESULTS)) as address:
        results = client(folder, address).page(QUERY, 0)
    assert len(results) == 2
    again = client(folder, address)
    assert again.page(QUERY, 0) == results
    assert (again.paid, again.reused) == (0, 2)
    assert ["no_cache" in search for search in address.searches] == [False, True]


def test_second_try_that_no_search_is_left_for(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 2, Failure(200, NO_RESULTS)) as address:
        with pytest.raises(BudgetReached):
            client(folder, address, most=1).page(QUERY, 0)
        search = client(folder, address, most=1)
        assert len(search.page(QUERY, 0)) == 2
    assert (search.paid, search.reused) == (1, 1)


def test_wrong_key(gallery: Gallery, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERPAPI_API_KEY", "some-other-key")
    with standin(gallery, 1) as address, pytest.raises(KeyRefused) as refused:
        client(folder, address).page(QUERY, 0)
    assert str(refused.value) == (
        "SERPAPI_API_KEY was refused (401: Invalid API key. Your API key should be here: "
        "https://serpapi.com/manage-api-key): export the right key and run again"
    )
    assert refused.value.exit_code == 2
    assert len(address.searches) == 1  # a refused key is not tried again
    assert not folder.exists()


def test_account_without_searches(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 3, searches=1, page_size=2) as address:
        search = client(folder, address)
        search.page(QUERY, 0)
        with pytest.raises(BudgetReached) as reached:
            search.page(QUERY, 1)
        with pytest.raises(BudgetReached):  # without asking again
            search.page(QUERY, 2)
        assert len(search.page(QUERY, 0)) == 2
    assert str(reached.value) == (
        "the search account is used up (Your account has run out of searches.): the pages so far are stored"
    )
    assert len(address.searches) == 2


def test_the_account_decides_what_429_means(gallery: Gallery, folder: Path) -> None:
    """Whatever the words and headers of the answer: here no search is left, and an hour of waiting would not help."""
    failure = Failure(429, "too many requests", {"Retry-After": "3000"})
    with standin(gallery, 1, failure, searches=0) as address, pytest.raises(BudgetReached) as reached:
        client(folder, address).page(QUERY, 0)
    assert str(reached.value) == "the search account is used up (too many requests): the pages so far are stored"
    assert len(address.searches) == 1


def test_waits_until_the_hour_has_searches_again(site: Site, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The account is asked until its hour has room, and only then the search is tried again."""
    log: list[str] = []

    def search(handler: BaseHTTPRequestHandler) -> None:
        log.append("search")
        full = log.count("search") == 1
        json_route({"error": HOUR_IS_FULL} if full else {"images_results": [{}]}, 429 if full else 200)(handler)

    def account(handler: BaseHTTPRequestHandler) -> None:
        log.append("account")
        used = 200 if log.count("account") < 4 else 0
        counts = {"total_searches_left": 9, "this_hour_searches": used, "account_rate_limit_per_hour": 200}
        json_route(counts)(handler)

    site.routes[f"/search.json?engine=google_images&ijn=0&q=Mew+Pokemon+fanart&api_key={KEY}"] = search
    site.routes[f"/account.json?api_key={KEY}"] = account
    assert client(folder, site.url("")).page(QUERY, 0) == [{}]
    assert log == ["search", *["account"] * 4, "search"]
    assert caplog.messages == ["the account's 200 searches per hour are used up: waiting"]


def test_an_hour_that_ends(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 3, page_size=1, per_hour=1, hour=0.2) as address:
        search = client(folder, address)
        assert [len(search.page(QUERY, number)) for number in range(3)] == [1, 1, 1]
    assert search.paid == 3


def test_waiting_for_the_hour_ends_with_the_run(gallery: Gallery, folder: Path) -> None:
    stop = threading.Event()
    with standin(gallery, 2, per_hour=0) as address:
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(Interrupted):
            SearchClient(folder, str(address), stop=stop).page(QUERY, 0)
    assert len(address.searches) == 1


@pytest.mark.parametrize(
    ("answer", "status", "left"),
    [
        ({"total_searches_left": 7, "plan_searches_left": 5}, 200, 7),
        ({"plan_searches_left": 5}, 200, 5),
        ({"total_searches_left": "many"}, 200, None),
        ({}, 200, None),
    ],
)
def test_account(site: Site, folder: Path, answer: object, status: int, left: int | None) -> None:
    site.routes[f"/account.json?api_key={KEY}"] = json_route(answer, status)
    account = client(folder, site.url("")).account()
    assert account is not None and account.left == left


@pytest.mark.parametrize(("answer", "status"), [([], 200), ("text", 200), ({"error": "Invalid API key."}, 401)])
def test_account_that_is_not_told(site: Site, folder: Path, answer: object, status: int) -> None:
    site.routes[f"/account.json?api_key={KEY}"] = json_route(answer, status)
    assert client(folder, site.url("")).account() is None
    assert client(folder, "http://127.0.0.1:9").account() is None


def test_passing_failures_are_tried_again(gallery: Gallery, folder: Path) -> None:
    failures = [
        Failure(500),
        Failure(503, "We couldn't get valid results for this search. Please try again later."),
        Failure(429, "You are sending too many requests", {"Retry-After": "0"}),
        Failure(200, "Google is not answering"),
    ]
    with standin(gallery, 1, *failures) as address:
        search = client(folder, address)
        assert len(search.page(QUERY, 0)) == 1
    assert len(address.searches) == 5
    assert (search.paid, search.reused) == (1, 0)


def test_lasting_failure_ends_the_run(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 1, *[Failure(503, "down")] * 10) as address, pytest.raises(RunError) as failed:
        client(folder, address).page(QUERY, 0)
    assert str(failed.value) == ("the search service failed 6 times (503: down): run the same command again later")
    assert len(address.searches) == TRIES == 6
    assert not folder.exists()


def test_refused_request_is_not_tried_again(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 1, Failure(400, "Unsupported value")) as address, pytest.raises(RunError) as failed:
        client(folder, address).page(QUERY, 0)
    assert str(failed.value) == "the search service refused the request (400: Unsupported value)"
    assert len(address.searches) == 1


def test_redirects_do_not_carry_the_key_away(site: Site, folder: Path) -> None:
    path = f"/search.json?engine=google_images&ijn=0&q=Mew+Pokemon+fanart&api_key={KEY}"
    site.add(path, status=302, headers={"Location": "/elsewhere"})
    with pytest.raises(RunError, match=r"refused the request \(302"):
        client(folder, site.url("")).page(QUERY, 0)
    assert [asked for asked, _ in site.requests] == [path]


def test_no_service(folder: Path) -> None:
    with pytest.raises(RunError) as failed:
        client(folder, "http://127.0.0.1:9").page(QUERY, 0)
    assert str(failed.value) == (
        "the search service failed 6 times (ConnectionError): run the same command again later"
    )


@pytest.mark.parametrize(
    "answer", ["", "[]", "<html>", "[" * 100_000, '{"images_results": null}', '{"images_results": [1, "x", null]}']
)
def test_answers_of_any_form(site: Site, folder: Path, answer: str) -> None:
    for more in ("", "&no_cache=true"):
        site.add(f"/search.json?engine=google_images&ijn=0&q=Mew+Pokemon+fanart{more}&api_key={KEY}", answer.encode())
    if answer.startswith("{"):
        assert client(folder, site.url("")).page(QUERY, 0) == []
    else:
        with pytest.raises(RunError, match="the answer is not a JSON object"):
            client(folder, site.url("")).page(QUERY, 0)


def test_max_searches(gallery: Gallery, folder: Path) -> None:
    with standin(gallery, 9, page_size=2) as address:
        search = client(folder, address, most=2)
        search.page(QUERY, 0)
        search.page(QUERY, 0)  # stored by now
        search.page(QUERY, 1)
        with pytest.raises(BudgetReached) as reached:
            search.page(QUERY, 2)
    assert str(reached.value) == "--max-searches 2 is reached: raise it and run again, the pages so far are stored"
    assert reached.value.exit_code == 3
    assert len(address.searches) == 2


@pytest.mark.parametrize("after", ["3000", "Fri, 31 Dec 99999 23:59:59 GMT"])
def test_waiting_ends_with_the_run(gallery: Gallery, folder: Path, after: str) -> None:
    stop = threading.Event()
    with standin(gallery, 1, Failure(429, "slow down", {"Retry-After": after})) as address:
        search = SearchClient(folder, str(address), stop=stop)
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(Interrupted):
            search.page(QUERY, 0)


# -- candidates -----------------------------------------------------------------------------------------------------


class Pages:
    """A search whose pages a test writes; every field of a result may be missing or wrong."""

    def __init__(self, *pages: list[dict[str, object]]) -> None:
        self.pages = pages
        self.asked: list[tuple[str, int]] = []

    def page(self, query: str, number: int) -> list[dict[str, object]]:
        self.asked.append((query, number))
        return self.pages[min(number, len(self.pages) - 1)]


def test_candidates_of_scant_results() -> None:
    results: list[dict[str, object]] = [
        {},
        {"original": None},
        {"original": 7},
        {"original": "http://a.example/1.png"},
        {"original": "http://a.example/1.png", "title": "again"},
        {"original": "http://a.example/2.png", "title": "two\n\0lines ", "link": "https://b.example/page", "source": 3},
        {"original": "http://a.example/3.png", "title": "\ud800", "link": ["no text"]},
    ]
    found = list(searched(MEW, Pages(results, []), ["{name} art"], 10))
    assert [(one.url, one.query, one.page, one.domain, one.title) for one in found] == [
        ("http://a.example/1.png", "Mew art", None, "a.example", "again"),
        ("http://a.example/2.png", "Mew art", "https://b.example/page", "b.example", "two lines"),
        ("http://a.example/3.png", "Mew art", None, "a.example", "?"),
    ]


def test_pages_are_asked_for_when_needed() -> None:
    pages = Pages(*([{"original": f"http://a.example/{number}.png"}] for number in range(5)), [])
    candidates = searched(MEW, pages, ["{name} art", "{name} drawing"], 3)
    next(candidates)
    assert pages.asked == [("Mew art", 0)]
    next(candidates)
    assert pages.asked == [("Mew art", 0), ("Mew art", 1)]
    list(candidates)
    assert pages.asked[3:] == [("Mew drawing", 0), ("Mew drawing", 1), ("Mew drawing", 2)]


def test_a_search_that_repeats_itself_ends() -> None:
    pages = Pages([{"original": "http://a.example/1.png"}])
    assert len(list(searched(MEW, pages, ["{name}"], 10))) == 1
    assert pages.asked == [("Mew", 0), ("Mew", 1)]
