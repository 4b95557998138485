"""The HTTP side of the OpenAI stand-in: one thread per connection, on loopback only."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from demo.standins.openai_answers import APIS, NOTE
from demo.standins.openai_failures import ConnectionCut
from demo.standins.openai_files import BLOCK, page_of
from demo.standins.openai_requests import Json, Refused, parse

if TYPE_CHECKING:
    from demo.standins.openai_standin import StandIn

MOST_BYTES = 64 * 2**20
MOST_UPLOAD_BYTES = 512 * 2**20  # OpenAI's limit for a file of any purpose


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.numbers = itertools.count(1)
        super().__init__(("127.0.0.1", port), _Handler)
        stand_in.address = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect, for example because they were killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # for persistent connections
    server_version = "PokeFA-stand-in"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.stand_in.connected()

    def do_POST(self) -> None:
        self._answer("POST")

    def do_GET(self) -> None:
        self._answer("GET")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        address = urlsplit(self.path)
        steps = [unquote(step) for step in address.path.removeprefix("/v1/").split("/")]
        stand_in = self.server.stand_in
        limits: Mapping[str, str] = {}
        try:
            if method == "POST" and address.path in APIS:
                try:
                    found = stand_in.answer(address.path, self._key(), self._body())
                finally:
                    limits = stand_in.limits.headers()
                self._send(200, found, limits)
            elif method == "POST" and steps == ["files"]:
                self._upload()
            elif method == "GET" and steps[0] == "files" and steps[2:] == ["content"]:
                self._download(steps[1])
            else:
                self._send(200, self._manage(method, steps, dict(parse_qsl(address.query))))
        except Refused as refused:
            self._send(refused.status, refused.body, {**limits, **refused.headers})
        except ConnectionCut:
            self.close_connection = True

    def _manage(self, method: str, steps: list[str], query: Mapping[str, str]) -> Json:
        """Answer a request about files or batches that is neither an upload nor a download."""
        data = self._body()
        files, batches = self.server.stand_in.files, self.server.stand_in.batches
        match method, steps:
            case "GET", ["models", model]:
                return self._call("model", lambda: self.server.stand_in.model(model))
            case "GET", ["files"]:
                return self._call("list", lambda: page_of(files.newest_first(query.get("purpose")), query))
            case "GET", ["files", file_id]:
                return self._call("file", lambda: files.get(file_id))
            case "DELETE", ["files", file_id]:
                return self._call("delete", lambda: files.delete(file_id))
            case "POST", ["batches"]:
                return self._call("create", lambda: batches.create(parse(data)))
            case "GET", ["batches"]:
                return self._call("list", lambda: page_of(batches.newest_first(), query))
            case "GET", ["batches", batch_id]:
                return self._call("poll", lambda: batches.poll(batch_id))
            case "POST", ["batches", batch_id, "cancel"]:
                return self._call("cancel", lambda: batches.cancel(batch_id))
        raise Refused(404, f"Invalid URL ({method} {urlsplit(self.path).path})")

    def _call(self, operation: str, work: Callable[[], Json]) -> Json:
        """Do the work, or fail instead; `lost` does it but sends no answer."""
        self.server.stand_in.check_key(self._key())
        failure = self.server.stand_in.begin_call(operation)
        if failure == "cut":
            raise ConnectionCut
        found = work()
        if failure == "lost":
            raise ConnectionCut
        return found

    def _upload(self) -> None:
        length = self._length(MOST_UPLOAD_BYTES)
        with self.server.stand_in.files.new_upload() as body:
            try:
                self.server.stand_in.check_key(self._key())
                failure = self.server.stand_in.begin_call("upload")
            except Refused:
                self._copy(body, length)
                raise
            if failure == "cut":
                self._copy(body, length // 2)
                raise ConnectionCut
            if self._copy(body, length) < length:
                raise ConnectionCut  # by the client
            found = self.server.stand_in.files.upload(self.headers.get("Content-Type", ""), body)
        if failure == "lost":
            raise ConnectionCut
        self._send(200, found)

    def _download(self, file_id: str) -> None:
        self.server.stand_in.check_key(self._key())
        failure = self.server.stand_in.begin_call("download")
        files = self.server.stand_in.files
        size, path = files.get(file_id)["bytes"], files.path(file_id)
        if failure == "lost":
            raise ConnectionCut
        with path.open("rb") as file:
            self._head(200, "application/octet-stream", size, {})
            if failure == "cut":
                self.wfile.write(file.read(size // 2))
                raise ConnectionCut
            shutil.copyfileobj(file, self.wfile, BLOCK)

    def _copy(self, target: BinaryIO, count: int) -> int:
        """Copy up to `count` bytes of the request's body, and return how many there were."""
        left = count
        while left and (block := self.rfile.read(min(left, BLOCK))):
            target.write(block)
            left -= len(block)
        return count - left

    def _length(self, most: int) -> int:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.close_connection = True
            raise Refused(411, "stand-in: it takes bodies with a Content-Length only")
        length = int(self.headers.get("Content-Length") or 0)
        if length > most:
            self.close_connection = True
            raise Refused(413, "Request too large.")
        return length

    def _body(self) -> bytes:
        return self.rfile.read(self._length(MOST_BYTES))

    def _key(self) -> str:
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        return key if scheme == "Bearer" else ""

    def _send(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body, ensure_ascii=False).encode("utf-8")
        self._head(status, "application/json", len(data), headers or {})
        self.wfile.write(data)

    def _head(self, status: int, content_type: str, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        self.send_header("X-Stand-In", NOTE)
        self.send_header("x-request-id", f"req_standin_{next(self.server.numbers)}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Reserve stderr for errors."""


@contextmanager
def run_server(stand_in: StandIn, port: int = 0) -> Iterator[StandIn]:
    """Serve on a loopback port, by default any free one, until the block ends.

    Raises:
        OSError: the port is taken.
    """
    with _Server(port, stand_in) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()
            stand_in.close()
