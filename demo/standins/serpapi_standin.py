"""A local stand-in for SerpApi's image search and for the sites with the images.

It speaks the real protocol: `/search.json` for the engine google_images with `ijn` paging and SerpApi's error forms,
and `/account.json`, for an account with a limited number of searches, in total and per hour. It searches and serves a
catalogue of drawn images, each with the content type and headers in the catalogue, including wrong ones:

    {"pictures": [{"file": "umbreon/1.jpg", "species": "Umbreon", "kind": "plain", "title": "Umbreon at night",
                   "page": "/pages/umbreon-1.html", "content_type": "image/jpeg", "headers": {"X-Robots-Tag": "noai"}}]}

`file` is relative to the catalogue and is served as /images/<file>; one that does not exist is a 404. `content_type`
and `headers` are optional. A query finds the images of the species in it. Every answer says that it comes from a
stand-in.

    python -m demo.standins.serpapi_standin --catalogue demo-run/demo/art/catalogue.json --port 0
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import mimetypes
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from PIL import Image

NOTE = "stand-in: not SerpApi; a program draws the images"
PAGE_SIZE = 100
SEARCHES = 1000  # of a new account
HOUR_S = 3600.0

INVALID_KEY = "Invalid API key. Your API key should be here: https://serpapi.com/manage-api-key"
NO_RESULTS = "Google hasn't returned any results for this query."
NONE_LEFT = "Your account has run out of searches."
HOUR_IS_FULL = "You are exceeding the hourly throughput limit of your account."

JSON_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Failure:
    """An answer to one search instead of the right one."""

    status: int
    error: str = "stand-in: a requested failure"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Address:
    """The URLs of a running stand-in, and the requests so far; `str()` is the URL of the search service."""

    serpapi: str
    images: str
    searches: list[dict[str, str]] = field(default_factory=list, repr=False)
    fetched: list[str] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        return self.serpapi


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class StandIn:
    """The answers, without HTTP.

    Args:
        catalogue: the catalogue file.
        base: base URL in the answers.
        key: the only accepted key; None = any key.
        page_size: results per page.
        searches: number of searches of the account.
        per_hour: searches per hour; None = no limit.
        hour: length of an hour in seconds, from its first search on.
        failures: answers to the first searches, in order; they cost nothing.
        delay: seconds before sending each image.
    """

    catalogue: Path
    base: str
    key: str | None = None
    page_size: int = PAGE_SIZE
    searches: int = SEARCHES
    per_hour: int | None = None
    hour: float = HOUR_S
    failures: Iterable[Failure] = ()
    delay: float = 0.0

    def __post_init__(self) -> None:
        self.address = Address(self.base, f"{self.base}/images")
        self._folder = self.catalogue.parent
        self._pictures: list[dict[str, Any]] = json.loads(self.catalogue.read_text(encoding="utf-8"))["pictures"]
        self._by_file = {picture["file"]: picture for picture in self._pictures}
        self._by_page = {picture["page"]: picture for picture in self._pictures}
        self._used = self._used_this_hour = 0
        self._allowed = self.searches if self.per_hour is None else self.per_hour
        self._hour_began = time.monotonic()
        self._failures = deque(self.failures)
        self._lock = threading.Lock()

    def answer(self, target: str) -> Answer:
        """Return the answer to a GET request for `target`, a path with its query."""
        parts = urlsplit(target)
        path = unquote(parts.path)
        if path in ("/search.json", "/search", "/account.json", "/account"):
            asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            return self._account(asked) if path.startswith("/account") else self._search(asked)
        if path.startswith("/images/"):
            return self._image(path.removeprefix("/images/"))
        if path in self._by_page:
            return self._page(self._by_page[path])
        return Answer(404, "text/plain", f"{NOTE}\nnothing here".encode())

    def _search(self, asked: dict[str, str]) -> Answer:
        with self._lock:
            self.address.searches.append({name: value for name, value in asked.items() if name != "api_key"})
            if self._failures:
                failure = self._failures.popleft()
                return _json(failure.status, {"error": failure.error}, failure.headers)
            for refused, status, error in (
                (not self._accepts(asked), 401, INVALID_KEY),
                (
                    asked.get("engine") != "google_images",
                    400,
                    f"Unsupported `{asked.get('engine', '')}` search engine.",
                ),
                (not asked.get("q"), 400, "Missing query `q` parameter."),
                (self._used >= self.searches, 429, NONE_LEFT),
                (self._this_hour() >= self._allowed, 429, HOUR_IS_FULL),
            ):
                if refused:
                    return _json(status, {"error": error})
            if self._used_this_hour == 0:
                self._hour_began = time.monotonic()
            self._used += 1
            self._used_this_hour += 1
        first = int(asked.get("ijn", "0")) * self.page_size
        found = self._find(asked["q"])[first : first + self.page_size]
        results = [self._result(position, picture) for position, picture in enumerate(found, first + 1)]
        parameters = {name: value for name, value in sorted(asked.items()) if name != "api_key"}
        # The real service also gives times; without them the same search has the same answer.
        answer: dict[str, Any] = {
            "search_metadata": {
                "id": hashlib.sha256(json.dumps(parameters).encode()).hexdigest()[:24],
                "status": "Success",
                "status_note": NOTE,
            },
            "search_parameters": parameters,
            "search_information": {"image_results_state": "Results for exact spelling" if results else "Fully empty"},
        }
        return _json(200, answer | ({"images_results": results} if results else {"error": NO_RESULTS}))

    def _account(self, asked: dict[str, str]) -> Answer:
        if not self._accepts(asked):
            return _json(401, {"error": INVALID_KEY})
        with self._lock:
            left, this_hour = self.searches - self._used, self._this_hour()
        account = {
            "account_id": "stand-in",
            "account_email": "stand-in@example.org",
            "plan_id": "stand-in",
            "plan_name": NOTE,
            "searches_per_month": self.searches,
            "plan_searches_left": left,
            "extra_credits": 0,
            "total_searches_left": left,
            "this_month_usage": self._used,
            "this_hour_searches": this_hour,
            "last_hour_searches": 0,
            "account_rate_limit_per_hour": self._allowed,
        }
        return _json(200, account)

    def _this_hour(self) -> int:
        """Return how many searches this hour had; the lock is held."""
        if time.monotonic() - self._hour_began >= self.hour:
            self._used_this_hour = 0
        return self._used_this_hour

    def _accepts(self, asked: dict[str, str]) -> bool:
        given = asked.get("api_key", "")
        return given == self.key if self.key is not None else bool(given)

    def _find(self, query: str) -> list[dict[str, Any]]:
        """Return the images of the species in a query; of "Mew" and "Mewtwo" the longer name."""
        query = query.casefold()
        named = [name for name in {picture["species"] for picture in self._pictures} if name.casefold() in query]
        species = max(named, key=len, default=None)
        return [picture for picture in self._pictures if picture["species"] == species]

    def _result(self, position: int, picture: dict[str, Any]) -> dict[str, Any]:
        address = f"{self.address.images}/{quote(picture['file'])}"
        result = {
            "position": position,
            "thumbnail": address,
            "source": urlsplit(self.address.serpapi).hostname,
            "title": picture["title"],
            "link": self.address.serpapi + quote(picture["page"]),
            "original": address,
            "is_product": False,
        }
        try:
            with Image.open(self._folder / picture["file"]) as image:
                size = {"original_width": image.width, "original_height": image.height}
        except Exception:
            size = {}  # missing or not an image on purpose
        return result | size

    def _image(self, file: str) -> Answer:
        self.address.fetched.append(file)
        time.sleep(self.delay)
        picture = self._by_file.get(file)
        path = self._folder / file
        if picture is None or not path.is_file():
            return Answer(404, "text/plain", f"{NOTE}\nno such image".encode())
        content_type = picture.get("content_type") or mimetypes.guess_type(file)[0] or "application/octet-stream"
        return Answer(200, content_type, path.read_bytes(), picture.get("headers") or {})

    def _page(self, picture: dict[str, Any]) -> Answer:
        title, source = html.escape(picture["title"]), html.escape(f"/images/{quote(picture['file'])}")
        text = (
            f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1><p>{NOTE}<p><img src='{source}'>"
        )
        return Answer(200, "text/html; charset=utf-8", text.encode())


def _json(status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    named = {"stand_in": True} | dict(content)
    return Answer(status, JSON_TYPE, json.dumps(named, ensure_ascii=False).encode(), headers or {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "PokeFA-stand-in"
    sys_version = ""
    stand_in: StandIn  # set on each server's subclass

    def do_GET(self) -> None:
        answer = self.stand_in.answer(self.path)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("X-Stand-In", "PokeFA")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass  # keeps stdout and stderr clean


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # The scraper may open this many connections at once.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # tests kill clients while they read


@contextmanager
def serve(catalogue: Path, *, port: int = 0, **options: Any) -> Iterator[Address]:
    """Run the stand-in on 127.0.0.1 while the block lasts; port 0 takes any that is free. Options: see StandIn.

    Raises:
        OSError: the port is taken, or the catalogue cannot be read.
    """
    with _Server(("127.0.0.1", port), _Handler) as server:
        stand_in = StandIn(catalogue, f"http://127.0.0.1:{server.server_address[1]}", **options)
        server.RequestHandlerClass = type("Handler", (_Handler,), {"stand_in": stand_in})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield stand_in.address
        finally:
            server.shutdown()
            thread.join()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True, help="catalogue.json that demo.art.draw wrote")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 = any free port")
    parser.add_argument("--page-size", type=int, default=PAGE_SIZE, help="results per page (default: 100)")
    args = parser.parse_args(argv)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with serve(args.catalogue, port=args.port, page_size=args.page_size) as address:
        print(json.dumps({"stand-in": True, "serpapi": address.serpapi, "images": address.images}), flush=True)
        ended.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
