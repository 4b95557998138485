"""A stand-in for the OpenAI API, on this machine only: both model APIs, rate limits, files and batches.

It serves POST /v1/responses and /v1/chat/completions with Structured Outputs, /v1/files and /v1/batches, in OpenAI's
shapes, and fails like OpenAI: for a missing key, a parameter that the model does not accept, a schema that is not
strict. Its answers follow from the pixels of the image, by the rules of demo/standins/pixel_rules.py. No model runs and
nothing is charged, but it counts what OpenAI would charge. `judge` answers schemas with `score` in their name, and
`describe` those with `caption`. Every answer is marked as a stand-in's: in the header X-Stand-In, in `metadata`, and in
`model`.

Token counts follow a rule: one token per 4 characters of text, 1.62 per square of 32 pixels of an image, none for
reasoning. Repeated instructions count as cached, in steps of 128 from 1,024 on. Models that charge for cache writes
write all of a new prompt, or in explicit mode the part that ends at a breakpoint.

With limits, every answer of a model carries x-ratelimit-* headers, and excess requests get 429 with Retry-After. A
batch is done at its first poll unless --batch-polls or --batch-seconds say how long it takes; its requests get the same
answers as direct ones. --fixed answers each schema with the same valid facts for every image, and decodes none. It is
for measuring clients: 256 answers a second by the rules would be too much for one core.

    python -m demo.standins.openai_standin --port 0
    python -m demo.standins.openai_standin --port 18766 --fail-every 7 --latency 0.5
    python -m demo.standins.openai_standin --latency 1 --fixed --requests-per-minute 500 --tokens-per-minute 500000

Prints one JSON line with its address, and runs until it is stopped.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from demo.standins.openai_answers import APIS, MODEL_SUFFIX, NOTE, count_given, count_made, text_of
from demo.standins.openai_batches import BATCH_FAILURES, LINE_FAILURES, Batches
from demo.standins.openai_bill import Bill, Cache, Usage
from demo.standins.openai_failures import (
    CALL_FAILURES,
    FAILURES,
    OPERATIONS,
    ConnectionCut,
    fail,
    queue,
    wrong_key,
)
from demo.standins.openai_files import Files
from demo.standins.openai_limits import MINUTE, Limits
from demo.standins.openai_requests import Asked, Json, Refused, open_picture, parse
from demo.standins.openai_rules import Rule, Rules
from demo.standins.openai_server import run_server

__all__ = [
    "BATCH_FAILURES",
    "CALL_FAILURES",
    "FAILURES",
    "LINE_FAILURES",
    "MODEL_SUFFIX",
    "NOTE",
    "OPERATIONS",
    "StandIn",
    "run_server",
    "serve",
]


@dataclass
class StandIn:
    """The answers, without HTTP, shared by all connections.

    Args:
        judge, describe: rules that answer from an RGB image; those of demo.standins.pixel_rules by default.
        key: the only accepted key; None = any that is not empty.
        failures: names from FAILURES, one for each of the first requests; "" = no failure.
        fail_every: every Nth request fails, by rate limit and server error in turn; 0 = none.
        latency: seconds that each answer of a model takes.
        retry_after: seconds in the Retry-After of rate limits and server errors from `failures`.
        stall_s: seconds that `stall` sends nothing.
        name_of_model: as given in answers; None = the requested name, marked as a stand-in's.
        shutdowns: the shutdown date of each model, or None, as returned by GET /v1/models/MODEL.
        keep: keep the requests in `requests`, and the lines of batches in `batched`.
        fixed: answer each schema with the same facts, and decode no image.
        requests_per_minute, tokens_per_minute: limits, refilled continuously; None = none.
        limit_window: seconds' worth of a limit that can be used at once.
        batch_polls, batch_seconds: how long a batch takes.
        batch_failures: names from BATCH_FAILURES, or "", one for each batch in the order of creation.
        batch_answered: share of the lines, from the first, that an expired or cancelled batch has answered.
        line_failures: names from LINE_FAILURES, or "", for the first lines of batches.
        call_failures: by operation (one of OPERATIONS), names from CALL_FAILURES, or "", for the first such calls.
        batch_requests, batch_bytes: maximum lines and bytes of a batch's input.

    Attributes:
        counts: model requests by result: `answered`, the name of a failure, or `over_limit`. Lines of batches are
            counted apart: `batched` got an answer, which is paid for, `batch_errors` an error.
        calls: calls about files, batches and models, by operation.
        bill: what OpenAI would have charged.
    """

    judge: Rule | None = None
    describe: Rule | None = None
    key: str | None = None
    failures: Iterable[str] = ()
    fail_every: int = 0
    latency: float = 0.0
    retry_after: str = "1"
    stall_s: float = 30.0
    name_of_model: str | None = None
    shutdowns: Mapping[str, str | None] = field(default_factory=dict)
    keep: bool = False
    fixed: bool = False
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    limit_window: float = MINUTE
    batch_polls: int = 0
    batch_seconds: float = 0.0
    batch_failures: Iterable[str] = ()
    batch_answered: float = 0.5
    line_failures: Iterable[str] = ()
    call_failures: Mapping[str, Iterable[str]] = field(default_factory=dict)
    batch_requests: int = 50_000
    batch_bytes: int = 200_000_000
    address: str = ""
    requests: list[Json] = field(default_factory=list)
    batched: list[Json] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    bill: Bill = field(default_factory=Bill)

    def __post_init__(self) -> None:
        self._failures = queue(self.failures, FAILURES)
        self._line_failures = queue(self.line_failures, LINE_FAILURES)
        batch_failures = queue(self.batch_failures, BATCH_FAILURES)
        self._call_failures = {name: queue(played, CALL_FAILURES) for name, played in self.call_failures.items()}
        if not set(self._call_failures) <= set(OPERATIONS):
            raise ValueError(f"call_failures knows {', '.join(OPERATIONS)}")
        self._lock = threading.Lock()
        self._asked = 0
        self._cache = Cache()
        self._rules = Rules(self.judge, self.describe, self.fixed)
        self._closing = threading.Event()
        self.limits = Limits(self.requests_per_minute, self.tokens_per_minute, self.limit_window)
        self.files = Files(self.batch_bytes)
        self.batches = Batches(
            self.files,
            self.answer_line,
            polls=self.batch_polls,
            seconds=self.batch_seconds,
            failures=batch_failures,
            answered=self.batch_answered,
            most_requests=self.batch_requests,
        )

    def answer(self, path: str, key: str, data: bytes) -> Json:
        """Return the answer to one request to a model.

        Raises:
            Refused: the answer is an error.
            ConnectionCut: there is no answer.
        """
        request: Json | None = None
        problem: Refused | None = None
        try:
            request = parse(data)
            asked, picture = self._read(path, request)
            self._limit(key, asked, picture)
        except Refused as refused:
            problem = refused
        if problem is not None and problem.status == 429:
            with self._lock:
                self.counts["over_limit"] += 1
            raise problem
        failure = self._next_failure()
        with self._lock:
            self.counts[failure or "answered"] += 1
        if self.latency:
            time.sleep(self.latency)
        if failure == "unauthorized":
            raise wrong_key(key)
        self.check_key(key)
        if self.keep and request is not None:
            with self._lock:
                self.requests.append(request)
        if problem is not None:
            raise problem
        assert request is not None
        found, usage = self._complete(path, request, asked, picture, failure)
        self.limits.charge(usage.made)
        if failure == "lost":
            raise ConnectionCut
        return found

    def play(self, failures: Iterable[str]) -> None:
        """Set the next failures, in place of those not used yet."""
        with self._lock:
            self._failures = queue(failures, FAILURES)

    def model(self, name: str) -> Json:
        """Return the object of a model.

        Raises:
            Refused: the model does not exist.
        """
        if name not in self.shutdowns:
            raise Refused(404, f"The model '{name}' does not exist.", "model_not_found")
        shown = {"id": name, "object": "model", "created": 1, "owned_by": NOTE}
        return {**shown, "shutdown_date": self.shutdowns[name]}

    def answer_line(self, path: str, line: Json) -> Json:
        """Return the answer to the request of a batch's line.

        Raises:
            Refused: the answer is an error.
            TimeoutError: the model takes too long.
        """
        with self._lock:
            failure = (self._line_failures.popleft() if self._line_failures else "") or None
            if self.keep:
                self.batched.append(line)
        paid = False
        try:
            if failure == "request_timeout":
                raise TimeoutError
            # The limits only apply to direct requests: batches have their own.
            found, _ = self._complete(path, line["body"], *self._read(path, line["body"]), failure, tier="batch")
            paid = True
            return found
        finally:
            with self._lock:
                self.counts["batched" if paid else "batch_errors"] += 1

    def check_key(self, key: str) -> None:
        """Check the key of a request.

        Raises:
            Refused: it is missing or wrong.
        """
        if not key:
            raise Refused(401, "You didn't provide an API key. You need to provide it in an Authorization header.")
        if self.key is not None and key != self.key:
            raise wrong_key(key)

    def begin_call(self, operation: str) -> str | None:
        """Count a call about files or batches, and return "cut" or "lost" if it is to fail so.

        Raises:
            Refused: it is to fail with an error.
        """
        with self._lock:
            self.calls[operation] += 1
            played = self._call_failures.get(operation)
            failure = played.popleft() if played else ""
        if failure in ("rate_limit", "server_error"):
            fail(failure, self.retry_after)
        return failure or None

    def connected(self) -> None:
        with self._lock:
            self.connections += 1

    def close(self) -> None:
        """Remove all files, and release waiting requests."""
        self._closing.set()
        self.files.close()

    def _read(self, path: str, request: Json) -> tuple[Asked, Image.Image]:
        asked = APIS[path].read(request)
        return asked, open_picture(asked.picture, only_head=self.fixed)

    def _limit(self, key: str, asked: Asked, picture: Image.Image) -> None:
        if key and self.key in (None, key):
            self.limits.admit(asked.model, count_given(asked, picture.size))

    def _next_failure(self) -> str | None:
        with self._lock:
            self._asked += 1
            if self._failures:
                return self._failures.popleft() or None
            if self.fail_every and self._asked % self.fail_every == 0:
                return "server_error" if self._asked // self.fail_every % 2 else "rate_limit"
        return None

    def _complete(
        self,
        path: str,
        request: Json,
        asked: Asked,
        picture: Image.Image,
        failure: str | None,
        tier: str | None = None,
    ) -> tuple[Json, Usage]:
        """Return the answer of the model and its usage, or fail instead."""
        if failure == "stall":
            self._closing.wait(self.stall_s)
        if failure:
            fail(failure, self.retry_after)
        text = text_of(self._rules.facts(asked.name, picture), failure)
        made = count_made(asked, text, failure)
        if not failure and made < len(text) // 4:
            failure, text = "incomplete", text[: made * 4]
        given = count_given(asked, picture.size)
        usage = Usage(given, *self._cache.use(asked, given), made)
        found = APIS[path].answer(request, asked, text, failure, usage)
        found["model"] = self.name_of_model or found["model"]
        self.bill.charge(asked.model, tier or asked.tier, usage)
        return found, usage


@contextmanager
def serve(judge: Rule | None = None, describe: Rule | None = None, *, port: int = 0, **options: Any) -> Iterator[str]:
    """Serve as `run_server` does, and yield the address for OPENAI_BASE_URL; `options` are those of StandIn."""
    with run_server(StandIn(judge, describe, **options), port) as stand_in:
        yield stand_in.address


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 = any free one")
    parser.add_argument("--fail-every", type=int, default=0, metavar="N", help="every Nth request fails; 0 = none")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="how long each answer takes")
    parser.add_argument("--fixed", action="store_true", help="answer with the same facts for every image")
    parser.add_argument("--requests-per-minute", type=int, metavar="N", help="limit on requests; none by default")
    parser.add_argument("--tokens-per-minute", type=int, metavar="N", help="limit on tokens; none by default")
    parser.add_argument(
        "--limit-window", type=float, default=MINUTE, metavar="SECONDS", help="seconds' worth of a limit usable at once"
    )
    parser.add_argument("--batch-polls", type=int, default=0, metavar="N", help="how many polls a batch takes")
    parser.add_argument("--batch-seconds", type=float, default=0.0, metavar="SECONDS", help="how long a batch takes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.fail_every < 0 or args.latency < 0 or not 0 <= args.port < 65536:
        parser.error("--port, --fail-every and --latency must not be negative, and a port is below 65536")
    if args.batch_polls < 0 or args.batch_seconds < 0:
        parser.error("--batch-polls and --batch-seconds must not be negative")
    if any(limit is not None and limit <= 0 for limit in (args.requests_per_minute, args.tokens_per_minute)):
        parser.error("--requests-per-minute and --tokens-per-minute must be above 0")
    if args.limit_window <= 0:
        parser.error("--limit-window must be above 0")
    options = {name: value for name, value in vars(args).items() if name != "port"}
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with serve(port=args.port, **options) as address:
            print(json.dumps({"stand-in": True, "openai": address}), flush=True)
            stopped.wait()
    except OSError as error:
        parser.error(f"--port {args.port} cannot be taken: {error.strerror}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
