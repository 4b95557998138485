"""One question, one call: the openai package against OpenAI's server, or any server with one of its APIs.

OPENAI_BASE_URL is the address, OPENAI_API_KEY the key. A failure of one image becomes that image's error. It starts
with a slug: `refusal`, `incomplete`, `server_error`, `rate_limited`, `timeout`, `connection_cut`, `bad_request`, or one
of reading.py and answer_model.py. A failure that would affect every image, such as a refused key or an exhausted
quota, ends the run. The SDK retries 5xx, 408, 409, 429 (after the wait that the server requests), time-outs and cut
connections, with backoff and jitter.
"""

from __future__ import annotations

import datetime
import importlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pokefa.errors import BudgetReached, Interrupted
from pokefa.llm import failures, flex
from pokefa.llm.budget import Attempts, Budget
from pokefa.llm.congestion import CongestionWindow
from pokefa.llm.failures import QUOTA_CODES, explain
from pokefa.llm.models import facts_of
from pokefa.llm.prices import BATCH, FLEX, STANDARD, TOKENS, cost_of
from pokefa.llm.prompt import Answer, AnswerError, Question, expected_tokens, plain, request_hash
from pokefa.llm.rate_limit import MOST_REST_S, Pace, retry_after
from pokefa.llm.reading import read_text
from pokefa.llm.request import most_usd, request_body
from pokefa.llm.server import api_key, host_of, load_openai, server_address
from pokefa.llm.wire import (
    PATHS,
    RequestOptions,
    as_mapping,
    has_loose_parts,
    parse_body,
    text_of,
    tokens_of,
    unpaid_error_of,
)

TIMEOUT_S = 300.0  # a queue of 32 requests at a server that answers one at a time, 9 s each
CONNECT_TIMEOUT_S = 10.0

# How often a paid but unusable answer is requested again at once. A model that refused refuses again; a truncated
# answer or invalid JSON usually comes out right the second time.
TRIES_AGAIN: Mapping[str, int] = {
    "refusal": 0,
    **dict.fromkeys(("incomplete", "server_error", "invalid_json", "truncated_json"), 1),
    **dict.fromkeys(("missing_key", "out_of_range", "two_objects"), 1),
}

# httpcore's event after which the server may have received a request.
SENT = "send_request_headers.started"

T = TypeVar("T")

log = logging.getLogger("pokefa")


class Client:
    """The connection to a model, shared by all threads.

    Args:
        patience, then: seconds to wait for a flex tier without capacity, and what to do afterwards.

    Raises:
        InputError: the key or the address in the environment is missing or malformed.
        PokefaError: the openai package is not installed.
    """

    def __init__(
        self,
        form: RequestOptions,
        should_stop: Callable[[], bool] = lambda: False,
        *,
        patience: float = 0.0,
        then: flex.Then = "stop",
    ) -> None:
        self.form = form
        self.facts = facts_of(form.model)
        self.should_stop = should_stop
        self._pace = Pace(should_stop)
        self._patience = flex.Patience(patience, then, self._pace)
        usual = max(TIMEOUT_S, flex.TIMEOUT_S) if form.flex else TIMEOUT_S
        self.timeout = form.timeout or usual
        self._window = CongestionWindow(self.timeout)
        self._mine = threading.local()  # this thread's client, its next request, and the start of its wait
        key, address = api_key(), server_address()
        self.host = host_of(address)
        self._openai = load_openai()
        self._http = importlib.import_module(self._openai.DefaultHttpxClient.__bases__[0].__module__.partition(".")[0])
        self._tls = self._http.create_ssl_context()
        self._key = key
        self._address = address

    @property
    def sdk(self) -> Any:
        """The SDK's client for this thread.

        Each thread has its own connection: in a shared pool of hundreds, every call inspects every connection.
        """
        found = getattr(self._mine, "sdk", None)
        if found is None:
            hooks = {"request": [self._before_request], "response": [self._on_response]}
            one = self._http.Limits(max_connections=1, max_keepalive_connections=1)
            found = self._mine.sdk = self._openai.OpenAI(
                api_key=self._key,
                base_url=self._address,
                timeout=self._openai.Timeout(self.timeout, connect=CONNECT_TIMEOUT_S),
                max_retries=failures.MAX_RETRIES,
                http_client=self._openai.DefaultHttpxClient(
                    event_hooks=hooks, limits=one, verify=self._tls, follow_redirects=False
                ),
            )
        return found

    def ask(
        self,
        question: Question[T],
        jpeg: bytes,
        note: str = "",
        size: tuple[int, int] = (0, 0),
        budget: Budget | None = None,
    ) -> Answer[T]:
        """Ask about one image and return the answer; ask again if it is unusable.

        Args:
            size: width and height of the image, for the expected tokens.
            budget: limit on the cost of each request; None = no limit.

        Raises:
            AnswerError: no usable answer, because of this image or a temporary failure.
            RunError: no image can get an answer.
        """
        budget = budget or Budget(None)
        spent: dict[str, Any] = dict.fromkeys(TOKENS, 0)
        tries: dict[str, int] = {}
        answer: Answer[T] | None = None
        while True:
            try:
                found = self._ask_once(question, jpeg, note, size, budget)
            except (AnswerError, Interrupted, BudgetReached) as error:
                if answer is None:
                    raise
                # Answers that were paid for before still count.
                short = isinstance(error, BudgetReached)
                answer = replace(answer, problem=f"{answer.problem}; {error}" if short else str(error))
                break
            if found is None:
                continue  # the flex tier has no capacity
            answer = found
            for name in (*TOKENS, "usd"):
                if name in answer.usage:
                    spent[name] = spent.get(name, 0) + answer.usage[name]
            slug = (answer.problem or "").partition(":")[0]
            tries[slug] = tries.get(slug, 0) + 1
            if answer.value is not None or sum(tries.values()) > TRIES_AGAIN.get(slug, -1) or self.should_stop():
                break
        if "usd" in spent:
            spent["usd"] = round(spent["usd"], 9)
        return replace(answer, usage={**answer.usage, **spent})

    def _ask_once(
        self, question: Question[T], jpeg: bytes, note: str, size: tuple[int, int], budget: Budget
    ) -> Answer[T] | None:
        """Return an answer, or None if the flex tier has no capacity now."""
        form = self.form
        body = request_body(form, question, jpeg, note)
        self._mine.tokens = expected_tokens(question, note, size, self.facts)
        self._mine.no_room = False
        attempts = self._mine.attempts = Attempts(budget, most_usd(form, question, note, size))
        try:
            # The SDK's typed methods traverse the entire request, which doubles the processor time.
            response = self.sdk.post(PATHS[form.api], body=body, cast_to=self._http.Response)
            reply = parse_body(response.content)
            if reply is None:
                message = f"{self.host} did not answer with a JSON object: does it speak this API?"
                raise AnswerError("invalid_json", message)
            answer = read_reply(reply, form, question, request_hash(form.model, question, jpeg, note))
            if answer.usage["input_tokens"]:
                attempts.answered(answer.usage.get("usd", 0.0))
        except self._openai.OpenAIError as error:
            if self._mine.no_room:
                if self._patience.refused():
                    self._leave_flex()
                return None
            raise explain(error, self.host, self.form, self.timeout) from None
        finally:
            self._end_request()
            attempts.end()
            self._mine.attempts = None
        self._patience.answered()
        self._pace.settle(self._mine.tokens, answer.usage["input_tokens"] + answer.usage["output_tokens"])
        return answer

    def shutdown_of(self, model: str) -> datetime.date | None:
        """Return the day on which the server says that it shuts a model down; None if it names none.

        Raises:
            LookupError: the server does not say.
        """
        try:
            response = self.sdk.with_options(max_retries=1).get(f"/models/{model}", cast_to=self._http.Response)
            said = (parse_body(response.content) or {})["shutdown_date"]
            return None if said is None else datetime.date.fromisoformat(str(said)[:10])
        except (self._openai.OpenAIError, KeyError, ValueError) as error:
            raise LookupError(str(error)) from None

    def _leave_flex(self) -> None:
        if self.form.flex:
            self.form = replace(self.form, flex=False)
            log.warning("the flex tier has no room: from here on the standard tier is asked, at twice the price")

    def _before_request(self, request: Any) -> None:
        """Wait for the budget, a free slot and the server's limits; once the run is to stop, send nothing more, not
        even a retry.
        """
        self._end_request()  # the previous attempt, if it got no answer and this is a retry
        attempts: Attempts | None = getattr(self._mine, "attempts", None)
        if attempts is not None:
            # First the budget, then the slot: a request that holds a slot must not wait for those that wait for one.
            attempts.begin()
            request.extensions["trace"] = partial(note_sent, attempts)
        self._window.begin(self.should_stop)
        self._mine.sent = time.monotonic()
        self._pace.wait(getattr(self._mine, "tokens", 0))
        self._mine.sent = time.monotonic()

    def _end_request(self) -> None:
        """Free the slot of this thread's request, if it has one."""
        sent = getattr(self._mine, "sent", None)
        if sent is not None:
            self._window.end(sent, time.monotonic())
            self._mine.sent = None

    def _on_response(self, response: Any) -> None:
        """Read the limits. Wait after a 429 here, because the SDK's wait does not poll the stop flag.

        An account that cannot pay is not retried: only the body tells that apart from a rate limit.
        """
        self._end_request()
        self._unmask(response)
        self._pace.learn(response.headers)
        attempts: Attempts | None = getattr(self._mine, "attempts", None)
        if attempts is not None and response.status_code >= 400:
            attempts.refused()
        if response.status_code != 429:
            return
        response.read()
        error = as_mapping((parse_body(response.content) or {}).get("error"))
        self._mine.no_room = self.form.flex and flex.has_no_room(response.status_code, error)
        seconds = retry_after(response.headers)
        quota = error.get("code") in QUOTA_CODES or error.get("type") in QUOTA_CODES
        if self._mine.no_room or quota or (seconds or 0) > MOST_REST_S:
            response.headers["x-should-retry"] = "false"
        elif seconds is not None:
            self._pace.rest(seconds)
            response.headers["retry-after-ms"] = "1"

    def is_connection_error(self, error: Exception) -> bool:
        """Tell whether a call failed in transit, so that the server may not have received it."""
        return isinstance(error, self._openai.APIConnectionError)

    def _unmask(self, response: Any) -> None:
        """Give an error that arrives with status 200 an error status, so that it is retried.

        An answer that counts tokens was paid for, and stays an answer.
        """
        if response.status_code == 200 and response.request.url.path.endswith(PATHS[self.form.api]):
            body = parse_body(response.read()) or {}
            if error := unpaid_error_of(body):
                code = as_mapping(error).get("code")
                response.status_code = code if isinstance(code, int) and 400 <= code < 600 else 500


def note_sent(attempts: Attempts, event: str, details: object) -> None:
    """Note httpcore's event that a request is being sent."""
    if event.endswith(SENT):
        attempts.sent()


def read_reply(
    reply: Mapping[str, Any], form: RequestOptions, question: Question[T], request: str, *, batch: bool = False
) -> Answer[T]:
    """Return the answer in a server's JSON object, usable or not, with its cost.

    Args:
        batch: whether it came through the Batch API, which has its own prices.
    """
    model = plain(str(reply.get("model") or form.model))
    asked = FLEX if form.flex else STANDARD
    # The tier that served it may differ from the one requested.
    tier = BATCH if batch else plain(str(reply.get("service_tier") or asked))
    usage: dict[str, Any] = {
        "model": model,
        "asked": plain(form.model),
        "question": question.version,
        "request": request,
        "response": plain(str(reply.get("id", ""))),
        "tier": tier,
        **tokens_of(reply),
    }
    dollars = cost_of(form.model, usage, tier)
    if dollars is not None:
        usage["usd"] = round(dollars, 9)
    try:
        value, fields, deviations = read_text(text_of(reply), question)
    except AnswerError as error:
        return Answer(None, str(error), model, usage, None)
    deviations |= {"parts"} if has_loose_parts(reply) else set()
    return Answer(value, None, model, usage | ({"deviations": sorted(deviations)} if deviations else {}), fields)
