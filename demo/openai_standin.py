"""A stand-in for the OpenAI API, on this machine only: POST /v1/responses with Structured Outputs, and its failures.

Answers have the shape of OpenAI's Responses API, and are refused in its ways: a missing key, a parameter that the
model does not take, a schema that is not strict. What they say comes from the pixels of the picture, by the rules of
demo/pixel_rules.py; no model is asked. A schema whose name holds `score` is answered by `judge`, one with `caption`
by `describe`. Every answer says that it is a stand-in's: in the header X-Stand-In, in `metadata`, and in `model`.

Tokens are counted by rule: a token for every 4 characters of text, 1.62 for every square of 32 pixels of a picture,
none for thinking. Instructions that came before count as cached, in steps of 128 from 1,024 on.

    python -m demo.openai_standin --port 0
    python -m demo.openai_standin --port 18766 --fail-every 7 --latency 0.5

Prints one JSON line with its address, and runs until it is stopped.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import io
import json
import math
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

NOTE = "stand-in: not OpenAI; answers come from the pixels by rule"
MODEL_SUFFIX = "-stand-in"
MOST_BYTES = 64 * 2**20

Rule = Callable[[Image.Image], Mapping[str, Any]]
Json = dict[str, Any]

# What an answer can be in place of the right one.
FAILURES = (
    "rate_limit",  # 429 with Retry-After
    "quota",  # 429 insufficient_quota
    "server_error",  # 500 with Retry-After
    "unauthorized",  # 401
    "bad_request",  # 400 about the picture
    "unknown_model",  # 404
    "cut",  # the connection ends without an answer
    "refusal",
    "incomplete",  # cut by length
    "failed",  # the model failed half-way
    "empty",
    "invalid_json",
    "missing_field",
)


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(
        self, status: int, message: str, code: str | None = None, kind: str = "invalid_request_error", **headers: str
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class ConnectionCut(Exception):
    """The request gets no answer at all."""


@dataclass
class StandIn:
    """The answers, apart from HTTP; one serves all connections.

    Args:
        judge, describe: rules that answer from a picture in RGB; those of demo.pixel_rules by default.
        key: the only key that is accepted; None = any that is not empty.
        failures: names out of FAILURES, played one after the other to the first requests.
        fail_every: every so many requests fail, by rate limit and server error in turn; 0 = none does.
        latency: seconds that each answer takes.
        retry_after: seconds that rate limits and server errors ask to wait.
        keep: keep the requests in `requests`.
    """

    judge: Rule | None = None
    describe: Rule | None = None
    key: str | None = None
    failures: Iterable[str] = ()
    fail_every: int = 0
    latency: float = 0.0
    retry_after: str = "1"
    keep: bool = False
    address: str = ""
    requests: list[Json] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    connections: int = 0

    def __post_init__(self) -> None:
        self._failures = deque(self.failures)
        self._lock = threading.Lock()
        self._instructions: set[str] = set()

    def answer(self, path: str, key: str, data: bytes) -> Json:
        """Return the answer to one request.

        Raises:
            Refused: it is answered with an error.
            ConnectionCut: it is not answered.
        """
        if path != "/v1/responses":
            raise Refused(404, f"Invalid URL (POST {path})")
        failure = self._next_failure()
        with self._lock:
            self.counts[failure or "answered"] += 1
        if self.latency:
            time.sleep(self.latency)
        if not key:
            raise Refused(401, "You didn't provide an API key. You need to provide it in an Authorization header.")
        if failure == "unauthorized" or (self.key is not None and key != self.key):
            raise Refused(401, f"Incorrect API key provided: {key[:3]}***{key[-4:]}.", "invalid_api_key")
        request = _parse(data)
        if self.keep:
            with self._lock:
                self.requests.append(request)
        check_request(request)
        if failure:
            _fail(failure, self.retry_after)
        image = picture_of(request)
        name = request["text"]["format"]["name"]
        facts = dict(self._rule(name)(image))
        return self._response(request, image, facts, failure)

    def connected(self) -> None:
        """Count a new connection."""
        with self._lock:
            self.connections += 1

    def _next_failure(self) -> str | None:
        with self._lock:
            if self._failures:
                return self._failures.popleft() or None
            number = sum(self.counts.values()) + 1
            if self.fail_every and number % self.fail_every == 0:
                return "server_error" if number // self.fail_every % 2 else "rate_limit"
        return None

    def _rule(self, schema_name: str) -> Rule:
        for word, rule, name in (("score", self.judge, "judge"), ("caption", self.describe, "describe")):
            if word in schema_name:
                if rule is not None:
                    return rule
                from demo import pixel_rules

                found: Rule = getattr(pixel_rules, name)
                return found
        raise Refused(400, f"stand-in: it has no rule for the schema {schema_name!r}", "unknown_schema")

    def _response(self, request: Json, image: Image.Image, facts: Json, failure: str | None) -> Json:
        """Return a Responses object that answers with `facts`, or fails after the model has begun."""
        whole = json.dumps(facts)
        text = {
            "incomplete": whole[: len(whole) // 2],
            "empty": "",
            "invalid_json": "Sure! Here is the JSON you asked for.",
            "missing_field": json.dumps(dict(list(facts.items())[1:])),
        }.get(failure or "", whole)
        part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        if failure == "refusal":
            part = {"type": "refusal", "refusal": "I'm sorry, but I can't help with that picture."}
        status = failure if failure in ("incomplete", "failed") else "completed"
        message = {
            "id": "msg_standin",
            "type": "message",
            "role": "assistant",
            "status": "incomplete" if failure == "incomplete" else "completed",
            "content": [part],
        }
        thinking = {"id": "rs_standin", "type": "reasoning", "summary": []}
        return {
            "id": "resp_standin_" + hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:24],
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "error": {"code": "server_error", "message": "The model failed."} if failure == "failed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if failure == "incomplete" else None,
            "instructions": request.get("instructions"),
            "max_output_tokens": None,
            "metadata": {"stand_in": NOTE},
            "model": request["model"] + MODEL_SUFFIX,
            "output": [thinking] if failure == "failed" else [thinking, message],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": request.get("reasoning", {}).get("effort"), "summary": None},
            "store": request.get("store", True),
            "temperature": 1.0,
            "text": request["text"],
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self._usage(request, image, text),
            "user": None,
        }

    def _usage(self, request: Json, image: Image.Image, text: str) -> Json:
        instructions = str(request.get("instructions") or "") + json.dumps(request["text"]["format"]["schema"])
        constant = len(instructions) // 4
        with self._lock:
            seen = instructions in self._instructions
            self._instructions.add(instructions)
        notes = sum(len(part["text"]) for part in _parts(request) if part.get("type") == "input_text")
        squares = math.ceil(image.width / 32) * math.ceil(image.height / 32)
        given = constant + notes // 4 + math.ceil(1.62 * squares)
        cached = 1024 + (constant - 1024) // 128 * 128 if seen and constant >= 1024 else 0
        made = max(1, len(text) // 4)
        return {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + made,
        }


def check_request(request: Json) -> None:
    """Check a request as OpenAI does for a model that reasons.

    Raises:
        Refused: it lacks a field, has one that the model does not take, or its schema is not strict.
    """
    if not isinstance(request.get("model"), str):
        raise Refused(400, "Missing required parameter: 'model'.", "missing_required_parameter")
    for name in ("temperature", "top_p", "max_tokens"):
        if name in request:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise Refused(400, message, "unsupported_parameter")
    form = request.get("text", {}).get("format", {})
    if form.get("type") != "json_schema" or not form.get("name") or not isinstance(form.get("schema"), dict):
        raise Refused(400, "stand-in: it answers only to text.format of type json_schema", "unsupported_value")
    if form.get("strict") is not True:
        raise Refused(400, "stand-in: it answers only to a strict schema", "unsupported_value")
    _check_strict(form["schema"], form["name"])


def _check_strict(schema: Json, name: str) -> None:
    """Check that every object of a schema requires all of its fields and allows no other, as strict ones must."""
    start = f"Invalid schema for response_format '{name}': In context=(), "
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            raise Refused(400, start + "'additionalProperties' is required to be false.", "invalid_json_schema")
        if sorted(schema.get("required", [])) != sorted(schema.get("properties", {})):
            message = start + "'required' must be an array of every key in properties."
            raise Refused(400, message, "invalid_json_schema")
        for part in schema["properties"].values():
            _check_strict(part, name)
    elif schema.get("type") == "array":
        _check_strict(schema.get("items", {}), name)


def picture_of(request: Json) -> Image.Image:
    """Return the one picture of a request in RGB.

    Raises:
        Refused: there is none, or several, or it is no image.
    """
    addresses = [part.get("image_url", "") for part in _parts(request) if part.get("type") == "input_image"]
    if len(addresses) != 1:
        raise Refused(400, f"stand-in: it answers about one picture and not about {len(addresses)}", "invalid_value")
    head, _, data = addresses[0].partition(";base64,")
    try:
        if not head.startswith("data:image/"):
            raise ValueError(head[:30])
        return Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB")
    except (ValueError, OSError, binascii.Error, Image.DecompressionBombError):
        message = "The image data you provided does not represent a valid image."
        raise Refused(400, message, "invalid_image", "image_parse_error") from None


def _parts(request: Json) -> list[Json]:
    messages = request.get("input")
    if not isinstance(messages, list):
        return []
    return [part for message in messages if isinstance(message.get("content"), list) for part in message["content"]]


def _parse(data: bytes) -> Json:
    try:
        request = json.loads(data)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise Refused(400, "We could not parse the JSON body of your request.")
    return request


def _fail(failure: str, retry_after: str) -> None:
    """Answer with a failure that comes before any model is asked; the others are made of the answer."""
    if failure == "cut":
        raise ConnectionCut
    refusals = {
        "rate_limit": Refused(
            429, "Rate limit reached for requests per min.", "rate_limit_exceeded", "requests", retry_after=retry_after
        ),
        "quota": Refused(
            429, "You exceeded your current quota, please check your plan.", "insufficient_quota", "insufficient_quota"
        ),
        "server_error": Refused(
            500, "The server had an error while processing your request.", None, "server_error", retry_after=retry_after
        ),
        "bad_request": Refused(400, "The image is too small to be read.", "invalid_image", "image_parse_error"),
        "unknown_model": Refused(404, "The requested model does not exist.", "model_not_found"),
    }
    if failure in refusals:
        raise refusals[failure]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        super().__init__(("127.0.0.1", port), _Handler)
        stand_in.address = f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # with connections that stay open
    server_version = "PokeFA-stand-in"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.stand_in.connected()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BYTES:
            self.close_connection = True
            self._send(413, {"error": {"message": "Request too large.", "type": "invalid_request_error"}})
            return
        data = self.rfile.read(length)
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        try:
            self._send(200, self.server.stand_in.answer(self.path, key if scheme == "Bearer" else "", data))
        except Refused as refused:
            self._send(refused.status, refused.body, refused.headers)
        except ConnectionCut:
            self.close_connection = True

    def do_GET(self) -> None:
        self._send(404, {"error": {"message": f"Invalid URL (GET {self.path})", "type": "invalid_request_error"}})

    def _send(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body, ensure_ascii=False).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Stand-In", NOTE)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Keep stderr for what went wrong."""


@contextmanager
def run_server(stand_in: StandIn, port: int = 0) -> Iterator[StandIn]:
    """Serve on a port of loopback, any free one by default, until the block ends.

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


@contextmanager
def serve(judge: Rule | None = None, describe: Rule | None = None, *, port: int = 0, **options: Any) -> Iterator[str]:
    """Serve as `run_server` does, and yield the address for OPENAI_BASE_URL; `options` are those of StandIn."""
    with run_server(StandIn(judge, describe, **options), port) as stand_in:
        yield stand_in.address


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 = any free one")
    parser.add_argument("--fail-every", type=int, default=0, metavar="N", help="every Nth request fails; 0 = none")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="how long each answer takes")
    args = parser.parse_args(argv)
    if args.fail_every < 0 or args.latency < 0 or not 0 <= args.port < 65536:
        parser.error("--port, --fail-every and --latency must not be negative, and a port is below 65536")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with serve(port=args.port, fail_every=args.fail_every, latency=args.latency) as address:
            print(json.dumps({"stand-in": True, "openai": address}), flush=True)
            stopped.wait()
    except OSError as error:
        parser.error(f"--port {args.port} cannot be taken: {error.strerror}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
