"""The two APIs' forms of an answer, as plain data; nothing here needs the network or the SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pokefa.llm.images import Detail
from pokefa.llm.prompt import AnswerError

Api = Literal["responses", "chat"]
APIS: tuple[Api, ...] = ("responses", "chat")
FILTERED = "the server's content filter kept the answer back"
PATHS: Mapping[Api, str] = {"responses": "/responses", "chat": "/chat/completions"}  # below the base address


@dataclass(frozen=True)
class RequestOptions:
    """How the server is to be spoken to.

    Args:
        model: its name at the server.
        api: the Responses API, or Chat Completions for servers that have only that.
        detail: how closely the model looks at a picture.
        is_openai: whether parameters that only OpenAI's own server knows may be sent.
        timeout: seconds after which a request is given up; None = the usual.
        flex: ask at half the price, with what room the server has left.
        max_output_tokens: of an answer; None = what the question can need.
    """

    model: str
    api: Api = "responses"
    detail: Detail = "high"
    is_openai: bool = True
    timeout: float | None = None
    flex: bool = False
    max_output_tokens: int | None = None


def tokens_of(body: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens that an answer of either API cost; what a server leaves out counts as 0.

    Cached and written tokens are among the input tokens: a server that counts more of them gives no money back.
    """
    usage = as_mapping(body.get("usage"))
    details = as_mapping(usage.get("input_tokens_details") or usage.get("prompt_tokens_details"))
    given = _count(usage.get("input_tokens", usage.get("prompt_tokens")))
    written = min(_count(details.get("cache_write_tokens")), given)
    return {
        "input_tokens": given,
        "cached_tokens": min(_count(details.get("cached_tokens")), given - written),
        "cache_write_tokens": written,
        "output_tokens": _count(usage.get("output_tokens", usage.get("completion_tokens"))),
    }


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def error_of(body: Mapping[str, Any]) -> object:
    """Return the error that a server, or one behind it, has put into an answer; None where there is none."""
    choices = body.get("choices")
    choice = as_mapping(choices[0]) if isinstance(choices, list) and choices else {}
    return body.get("error") or choice.get("error") or (body if body.get("object") == "error" else None)


def unpaid_error_of(body: Mapping[str, Any]) -> object:
    """Return the error in an answer that counts no tokens: it is none of the model's. None where there is none."""
    return None if any(tokens_of(body).values()) else error_of(body)


def words_of(body: object, depth: int = 4) -> str:
    """Return what the body of an error says: OpenAI's form, those of others, or problem details (RFC 9457)."""
    if isinstance(body, list):
        return "; ".join(filter(None, (words_of(part, depth - 1) for part in body if depth)))
    if not isinstance(body, dict) or not depth:
        return str(body or "")
    # FastAPI's servers name the field, as ["body", "model"].
    where = ".".join(map(str, body["loc"])) if isinstance(body.get("loc"), list) else ""
    found = (words_of(body.get(name), depth - 1) for name in ("error", "title", "message", "msg", "detail"))
    return ": ".join(dict.fromkeys(filter(None, (where, *found))))


def text_of(body: Mapping[str, Any]) -> str:
    """Return the text of a Responses or of a Chat Completions object.

    Raises:
        AnswerError: the model refused, was cut short, failed, or said nothing.
    """
    if error := error_of(body):
        raise AnswerError("server_error", words_of(error) or "no reason given")
    text = _text_of_chat(body) if "choices" in body else _text_of_response(body)
    if not text.strip():
        raise AnswerError("invalid_json", "the answer holds no text")
    return text


def has_loose_parts(body: Mapping[str, Any]) -> bool:
    """Tell whether the text stands in parts where the API has one string, or the other way round."""
    return any(isinstance(content, list) == ("choices" in body) for content in _contents(body))


def _contents(body: Mapping[str, Any]) -> list[object]:
    """Return the contents of all messages: a text, a part, or a list of parts."""
    found = body.get("choices") if "choices" in body else body.get("output")
    items = [as_mapping(item) for item in found] if isinstance(found, list) else []
    if "choices" in body:
        return [as_mapping(item.get("message")).get("content") for item in items[:1]]
    return [item.get("content") for item in items if item.get("type") == "message"]


def _parts(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of all messages; a text is a part of text."""
    parts: list[Mapping[str, Any]] = []
    for content in _contents(body):
        for part in content if isinstance(content, list) else [content]:
            parts.append({"type": "text", "text": part} if isinstance(part, str) else as_mapping(part))
    return parts


def _joined(body: Mapping[str, Any]) -> str:
    parts = (part for part in _parts(body) if part.get("type") in ("text", "output_text"))
    return "".join(str(part.get("text") or "") for part in parts)


def _text_of_response(body: Mapping[str, Any]) -> str:
    refusals = [str(part.get("refusal", "")) for part in _parts(body) if part.get("type") == "refusal"]
    if refusals:
        raise AnswerError("refusal", " ".join(refusals))
    status = body.get("status")
    if status == "incomplete":
        reason = as_mapping(body.get("incomplete_details")).get("reason")
        if reason == "content_filter":
            raise AnswerError("refusal", FILTERED)
        raise AnswerError("incomplete", f"the answer was cut short ({reason or 'no reason given'})")
    if status == "failed":
        raise AnswerError("server_error", "the model failed")
    return _joined(body)


def _text_of_chat(body: Mapping[str, Any]) -> str:
    choices = body["choices"]
    choice = as_mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = as_mapping(choice.get("message"))
    if message.get("refusal"):
        raise AnswerError("refusal", str(message["refusal"]))
    if choice.get("finish_reason") == "content_filter":
        raise AnswerError("refusal", FILTERED)
    if choice.get("finish_reason") == "length":
        raise AnswerError("incomplete", "the answer was cut short (length)")
    return _joined(body)


def parse_body(data: bytes | str) -> dict[str, Any] | None:
    """Return the JSON object of an answer, or None where it is none."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return a part of a foreign JSON object if it is an object itself, else an empty one."""
    return value if isinstance(value, dict) else {}
