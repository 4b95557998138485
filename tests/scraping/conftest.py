"""Real servers on loopback: a site that misbehaves as told, and a gallery of small pictures behind the stand-in."""

from __future__ import annotations

import gzip
import io
import json
import random
import ssl
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import brotli
import pytest
from PIL import Image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Route = Callable[[BaseHTTPRequestHandler], None]

TLS_FILE = Path(__file__).parent / "localhost.pem"  # a key and a certificate for the name localhost, until 2126


def picture(seed: int, size: tuple[int, int] = (300, 280), form: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of a small picture; another seed gives another picture."""
    chance = random.Random(seed)
    image = Image.new("RGB", size, tuple(chance.randrange(256) for _ in range(3)))
    for _ in range(40):
        image.putpixel((chance.randrange(size[0]), chance.randrange(size[1])), (seed % 256, 0, 255))
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def packed(data: bytes, coding: str) -> bytes:
    """Return data as a server sends them under a Content-Encoding."""
    for name in coding.lower().split(","):
        match name.strip():
            case "gzip" | "x-gzip":
                data = gzip.compress(data)
            case "deflate":
                data = zlib.compress(data)
            case "br":
                data = brotli.compress(data)
            case "zstd":
                data = zstd.compress(data)
    return data


@dataclass
class Site:
    """A web server whose answers a test writes.

    `requests` holds the path and headers of all that came, `most_open` how many connections were open at once.
    """

    port: int
    scheme: str = "http"
    routes: dict[str, Route] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def add(self, path: str, body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> str:
        """Answer `path` with a body of its true length; return the path's address."""

        return self.add_route(path, lambda handler: send(handler, body, status, headers or {}))

    def add_route(self, path: str, route: Route) -> str:
        self.routes[path] = route
        return self.url(path)


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, headers: Mapping[str, str] = {}) -> None:
    """Answer with a body of its true length."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are the point of these tests


def serve_site(scheme: str) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with site.lock:
                site.open += 1
                site.most_open = max(site.most_open, site.open)

        def finish(self) -> None:
            with site.lock:
                site.open -= 1
            super().finish()

        def do_GET(self) -> None:
            site.requests.append((self.path, dict(self.headers.items())))
            route = site.routes.get(self.path)
            if route is None:
                self.send_error(404)
            else:
                route(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        if scheme == "https":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS_FILE)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        site = Site(server.server_address[1], scheme)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    yield from serve_site("http")


@pytest.fixture
def secure_site() -> Iterator[Site]:
    """The same over TLS, with a certificate for `localhost`."""
    yield from serve_site("https")


@dataclass(frozen=True)
class Gallery:
    """Pictures of some species on disk, with the catalogue that the stand-in reads."""

    catalogue: Path
    entries: list[dict[str, Any]] = field(default_factory=list)

    def add(self, species: str, file: str, content: bytes | None, **more: Any) -> None:
        """Add a picture; without content it is in the catalogue but not on disk, and so a 404."""
        path = self.catalogue.parent / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
        named = {
            "file": file,
            "species": species,
            "kind": "plain",
            "title": f"{species}, {file}",
            "page": f"/pages/{file}",
        }
        self.entries.append(named | more)
        self.catalogue.write_text(json.dumps({"pictures": self.entries}), encoding="utf-8")

    def fill(self, species: Sequence[str], count: int) -> None:
        """Add `count` pictures of each species."""
        for place, name in enumerate(species):
            for number in range(count):
                self.add(name, f"{name}/{number}.png", picture(1000 * place + number))


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    gallery = Gallery(tmp_path / "art" / "catalogue.json")
    gallery.catalogue.parent.mkdir()
    gallery.catalogue.write_text('{"pictures": []}')
    return gallery
