"""Questions to a model about one picture each, answered in JSON that is checked before a stage sees it.

A stage declares a `Question` and hands `ask_rows` its rows. The model answers through OpenAI's Responses API with
Structured Outputs, or through any server that speaks it: OPENAI_BASE_URL is the address, OPENAI_API_KEY the key.

What goes wrong with one picture becomes its error, which starts with a slug: `refusal`, `incomplete`, `invalid_json`,
`server_error`, `rate_limited`, `timeout`, `connection_cut`, `bad_request`. What no other picture can escape, such as
a refused key or a quota that is used up, ends the run. The SDK repeats what is worth repeating: 5xx, 408, 409, 429
(waiting as long as Retry-After says), time-outs and cut connections.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib
import io
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from PIL import Image

from pokefa.engine import Pool, Work, each
from pokefa.errors import BudgetReached, InputError, Interrupted, PokefaError, RunError
from pokefa.images import flatten, open_image
from pokefa.options import positive_int
from pokefa.run import Row, StageRun
from pokefa.secrets import redact, secret_from_environment
from pokefa.table import KEY

KEY_VARIABLE = "OPENAI_API_KEY"
ADDRESS_VARIABLE = "OPENAI_BASE_URL"
DEFAULT_ADDRESS = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-5-mini"
DEFAULT_CONCURRENCY = 32
EFFORT = "minimal"  # the lowest of gpt-5-mini; it takes no temperature, top_p or max_tokens

# gpt-5-mini sees a picture as at most so many squares of so many pixels; the server would scale a larger one down.
PATCH = 32
MOST_PATCHES = 1536
DETAIL = "high"
JPEG_QUALITY = 90

MAX_RETRIES = 6  # with the SDK's backoff of 0.5 s, doubled up to 8 s: about half a minute
TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 10.0
GRACE_S = 30.0  # for what is in flight when the run is to stop: it may be paid for

QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
# A 400 with one of these is about the request as such, so every picture would meet it.
REQUEST_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter", "invalid_json_schema")
LONGEST_DETAIL = 300

T = TypeVar("T")


class AnswerError(PokefaError):
    """An answer that cannot be used; the message starts with its reason slug."""

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(f"{slug}: {plain(detail)}")


@dataclass(frozen=True)
class Question(Generic[T]):
    """What is asked about every picture of a stage.

    Args:
        name: of the schema, as the server sees it.
        version: of instructions and schema together; to be changed with either, so that answers can be told apart.
        instructions: the constant part of the prompt. It comes first, so that a server can cache it.
        schema: JSON schema of the answer, in the subset that Structured Outputs take: every field is required and
            no other is allowed.
        read: makes the stage's value of an answer that fits the schema; raises AnswerError where code finds it wrong.
    """

    name: str
    version: str
    instructions: str
    schema: Mapping[str, Any]
    read: Callable[[dict[str, Any]], T]


@dataclass(frozen=True)
class Settings:
    """Which model is asked, and how many pictures at once."""

    model: str = DEFAULT_MODEL
    concurrency: int = DEFAULT_CONCURRENCY


@dataclass(frozen=True)
class Ask:
    """One picture to ask about, and what is to be said about this picture alone."""

    path: Path
    note: str = ""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """An answer that was paid for, usable or not.

    Args:
        value: what `Question.read` made of it; None where `problem` says why there is none.
        problem: one line that starts with a reason slug.
        model: the model that answered, as the server named it.
        usage: for the journal: model, question, request (hash), response (id), and input_tokens, cached_tokens and
            output_tokens. Cached tokens are among the input tokens.
    """

    value: T | None
    problem: str | None
    model: str
    usage: Mapping[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Offer --model and --concurrency."""
    group = parser.add_argument_group(f"the model, at {ADDRESS_VARIABLE} with the key in {KEY_VARIABLE}")
    group.add_argument("--model", default=DEFAULT_MODEL, help="model that is asked")
    how_many = "pictures asked about at once"
    group.add_argument("--concurrency", type=positive_int, default=DEFAULT_CONCURRENCY, metavar="N", help=how_many)


def ask_rows(
    run: StageRun, question: Question[T], rows: Sequence[Row], ask_of: Callable[[Row], Ask], settings: Settings
) -> Iterator[tuple[Row, T, Answer[T]]]:
    """Yield (row, value, answer) for every usable answer, as they come; the others are recorded as the rows' errors.

    The summary counts the tokens of all answers. With no rows nothing is needed, neither key nor package.

    Raises:
        RunError: the server refuses the key, the model or the request, or cannot be reached.
        BudgetReached: the account's quota is used up.
        Interrupted: a signal asked to stop.
    """
    tokens = dict.fromkeys(("input_tokens", "cached_tokens", "output_tokens"), 0)
    run.extra.update(tokens)
    if not rows:
        return
    ended = threading.Event()
    model = Model(settings, lambda: ended.is_set() or run.stop_asked())

    def ask(row: Row) -> Answer[T]:
        asked = ask_of(row)
        return model.ask(question, encode_jpeg(flatten(open_image(asked.path))), asked.note)

    def make_work() -> Work[Row, Answer[T]]:
        return each(ask)

    pool = Pool(kind="thread", workers=settings.concurrency, grace=GRACE_S)
    try:
        for row, answer in run.map(make_work, rows, pool):
            for name in tokens:
                tokens[name] += answer.usage[name]
            run.extra.update(tokens)
            run.show(tokens=tokens["input_tokens"] + tokens["output_tokens"])
            if answer.value is None:
                run.fail(str(row[KEY]), str(answer.problem), usage=answer.usage)
            else:
                yield row, answer.value, answer
    finally:
        ended.set()


class Model:
    """The connection to a model; one serves all threads.

    Raises:
        InputError: the key or the address in the environment is missing or malformed.
        PokefaError: the openai package is not installed.
    """

    def __init__(self, settings: Settings, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.name = settings.model
        key = _key()
        address = os.environ.get(ADDRESS_VARIABLE, "").strip() or DEFAULT_ADDRESS
        self.host = host_of(address)
        try:
            self._openai = importlib.import_module("openai")
        except ImportError:
            raise PokefaError(
                "the openai package is not installed: python -m pip install -r requirements/requirements_score.txt"
            ) from None
        self._should_stop = should_stop
        hooks = {"request": [self._before_request], "response": [_on_response]}
        self._client = self._openai.OpenAI(
            api_key=key,
            base_url=address,
            timeout=self._openai.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            max_retries=MAX_RETRIES,
            http_client=self._openai.DefaultHttpxClient(event_hooks=hooks),
        )

    def ask(self, question: Question[T], jpeg: bytes, note: str = "") -> Answer[T]:
        """Ask about one picture and return the answer.

        Raises:
            AnswerError: no answer came, for a reason that lies with this picture or with the moment.
            RunError: no answer can come for any picture.
        """
        content: list[dict[str, Any]] = [{"type": "input_text", "text": note}] if note else []
        data = base64.b64encode(jpeg).decode("ascii")
        content.append({"type": "input_image", "detail": DETAIL, "image_url": f"data:image/jpeg;base64,{data}"})
        form = {"type": "json_schema", "name": question.name, "strict": True, "schema": question.schema}
        try:
            raw = self._client.responses.with_raw_response.create(
                model=self.name,
                instructions=question.instructions,
                input=[{"role": "user", "content": content}],
                text={"format": form},
                reasoning={"effort": EFFORT},
                store=False,
            )
        except self._openai.OpenAIError as error:
            raise self._explain(error) from None
        try:
            body = raw.http_response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise AnswerError("invalid_json", f"{self.host} did not answer with a JSON object: does it speak this API?")
        model = plain(str(body.get("model") or self.name))
        usage = {
            "model": model,
            "question": question.version,
            "request": request_hash(self.name, question, jpeg, note),
            "response": plain(str(body.get("id", ""))),
            **tokens_of(body),
        }
        try:
            return Answer(question.read(parse_answer(text_of(body), question.schema)), None, model, usage)
        except AnswerError as error:
            return Answer(None, str(error), model, usage)

    def _before_request(self, request: object) -> None:
        """Send nothing more, no repetition either, once the run is to stop."""
        if self._should_stop():
            raise Interrupted("interrupted: what was finished is saved; run the same command again to go on")

    def _explain(self, error: Exception) -> PokefaError:
        """Return the error of a call as one that ends the run, or as one of this picture."""
        openai = self._openai
        detail = plain(str(getattr(error, "message", "") or error))
        code = str(getattr(error, "code", "") or "")
        if isinstance(error, openai.APITimeoutError):
            return AnswerError("timeout", f"no answer from {self.host} within {TIMEOUT_S:.0f} s")
        if isinstance(error, openai.APIConnectionError):
            # By name, for the class belongs to the HTTP library that the SDK happens to bring.
            if type(error.__cause__).__name__ == "ConnectError":
                return RunError(
                    f"{self.host} cannot be reached ({plain(str(error.__cause__))}): check the network and "
                    f"{ADDRESS_VARIABLE}, then run the same command again"
                )
            return AnswerError("connection_cut", f"{type(error.__cause__).__name__}: {error.__cause__}")
        status = getattr(error, "status_code", None)
        if status == 401:
            return RunError(f"{self.host} refuses the key (401): set {KEY_VARIABLE} to a valid key and run again")
        if code in QUOTA_CODES:
            return BudgetReached(
                f"the quota of the account at {self.host} is used up ({code}): what was finished is saved; add credit "
                "or raise the limit, then run the same command again"
            )
        if status in (403, 404) or code in REQUEST_CODES:
            return RunError(f"{self.host} refuses every request to the model {self.name} ({status}): {detail}")
        if status == 429:
            return AnswerError("rate_limited", f"still refused after {MAX_RETRIES} repetitions: {detail}")
        if isinstance(status, int) and status >= 500:
            return AnswerError("server_error", f"{status} after {MAX_RETRIES} repetitions: {detail}")
        return AnswerError("bad_request", f"{status}: {detail}")


def host_of(address: str) -> str:
    """Return host and port of a server's address, without the name and password that an address can hold.

    Raises:
        InputError: it is no http or https address.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https"):
        raise InputError(f"{ADDRESS_VARIABLE} is not an address that starts with http:// or https://: correct it")
    return f"{host}:{port}" if port else host


def _key() -> str:
    """Return the API key, having checked that it can stand in a header: errors about headers would quote it."""
    key = secret_from_environment(KEY_VARIABLE)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(f"{KEY_VARIABLE} holds characters that no key has: set it again")
    return key


def _on_response(response: Any) -> None:
    """Keep the SDK from repeating a request that the account cannot pay for: only the body tells that from a limit."""
    if response.status_code != 429:
        return
    response.read()
    try:
        error = response.json()["error"]
        used_up = error["code"] in QUOTA_CODES or error["type"] in QUOTA_CODES
    except (ValueError, LookupError, TypeError):
        return
    if used_up:
        response.headers["x-should-retry"] = "false"


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an object with exactly these fields, as Structured Outputs want it."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def fit_patches(width: int, height: int) -> tuple[int, int]:
    """Return the size, of the same shape, to which a picture is scaled down so that MOST_PATCHES squares cover it.

    The rule is that of OpenAI's guide to images: scale to the area of the squares, then down to whole squares on the
    side that this shortens more.
    """
    if math.ceil(width / PATCH) * math.ceil(height / PATCH) <= MOST_PATCHES:
        return width, height
    scale = min(1.0, math.sqrt(PATCH * PATCH * MOST_PATCHES / (width * height)))
    columns, rows = width * scale / PATCH, height * scale / PATCH
    scale *= min(max(math.floor(columns), 1) / columns, max(math.floor(rows), 1) / rows, 1.0)
    # Only a picture thinner than one square can still be too long: it is cut to length, and loses its shape.
    longest = PATCH * MOST_PATCHES
    return min(max(1, math.floor(width * scale)), longest), min(max(1, math.floor(height * scale)), longest)


def encode_jpeg(image: Image.Image) -> bytes:
    """Return an RGB image as JPEG, scaled down so that the model sees all of what is sent."""
    size = fit_patches(*image.size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def request_hash(model: str, question: Question[Any], jpeg: bytes, note: str) -> str:
    """Return the SHA-256 that is the same exactly where the same is asked of the same model."""
    asked = json.dumps([model, question.version, question.instructions, question.schema, note], sort_keys=True)
    return hashlib.sha256(asked.encode("utf-8") + b"\0" + jpeg).hexdigest()


def tokens_of(body: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens that an answer cost; what a server leaves out counts as 0."""
    usage = _mapping(body.get("usage"))
    counts = {
        "input_tokens": usage.get("input_tokens"),
        "cached_tokens": _mapping(usage.get("input_tokens_details")).get("cached_tokens"),
        "output_tokens": usage.get("output_tokens"),
    }
    return {name: count if isinstance(count, int) and count > 0 else 0 for name, count in counts.items()}


def text_of(body: Mapping[str, Any]) -> str:
    """Return the text of a Responses object.

    Raises:
        AnswerError: the model refused, was cut short, failed, or said nothing.
    """
    output = body.get("output")
    items = [_mapping(item) for item in output] if isinstance(output, list) else []
    parts = [
        _mapping(part)
        for item in items
        if item.get("type") == "message" and isinstance(item.get("content"), list)
        for part in item["content"]
    ]
    refusals = [str(part.get("refusal", "")) for part in parts if part.get("type") == "refusal"]
    if refusals:
        raise AnswerError("refusal", " ".join(refusals))
    status = body.get("status")
    if status == "incomplete":
        reason = _mapping(body.get("incomplete_details")).get("reason")
        raise AnswerError("incomplete", f"the answer was cut short ({reason or 'no reason given'})")
    if status == "failed":
        raise AnswerError("server_error", str(_mapping(body.get("error")).get("message") or "the model failed"))
    text = "".join(str(part.get("text", "")) for part in parts if part.get("type") == "output_text")
    if not text.strip():
        raise AnswerError("invalid_json", "the answer holds no text")
    return text


def parse_answer(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON object of an answer, having checked it against `schema`.

    Raises:
        AnswerError: it is not JSON, or does not fit.
    """
    try:
        answer = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise AnswerError("invalid_json", f"not JSON ({error}): {text[:80]!r}") from None
    problem = misfit(answer, schema)
    if problem is not None:
        raise AnswerError("invalid_json", problem)
    found: dict[str, Any] = answer
    return found


def misfit(value: object, schema: Mapping[str, Any], where: str = "answer") -> str | None:
    """Return in which way `value` does not fit a JSON schema, or None where it does.

    Knows what the project's schemas use: types, alternatives of types, enum, properties, required and items. The
    items of a list are not held to an enum: a stage drops the words that it does not know, and keeps the others.
    """
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is_kind(value, kind) for kind in kinds):
        return f"{where} is {_shown(value)}, not of type {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is {_shown(value)}, not one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, dict):
        missing = [name for name in schema["required"] if name not in value]
        unknown = [name for name in value if name not in schema["properties"]]
        if missing or unknown:
            return f"{where} lacks {', '.join(missing)}" if missing else f"{where} has an unknown field {unknown[0]!r}"
        problems = (misfit(value[name], part, name) for name, part in schema["properties"].items())
        return next((problem for problem in problems if problem), None)
    if isinstance(value, list):
        loose = {name: part for name, part in schema["items"].items() if name != "enum"}
        problems = (misfit(item, loose, f"{where}[{place}]") for place, item in enumerate(value))
        return next((problem for problem in problems if problem), None)
    return None


def plain(text: str, longest: int = LONGEST_DETAIL) -> str:
    """Return foreign text as one line of at most `longest` characters that a CSV and a log can hold.

    A server may send back what it was sent, the key included: secrets are replaced.
    """
    text = redact(text.encode("utf-8", "replace").decode("utf-8"))
    return " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())[:longest]


_KINDS: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def _is_kind(value: object, kind: str) -> bool:
    return isinstance(value, _KINDS[kind]) and not (kind == "integer" and isinstance(value, bool))


def _shown(value: object) -> str:
    return json.dumps(value)[:80]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
