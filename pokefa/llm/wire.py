"""One form for the answers of both APIs, as plain data; needs neither network nor SDK."""

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
PATHS: Mapping[Api, str] = {"responses": "/responses", "chat": "/chat/completions"}  # relative to the base address


@dataclass(frozen=True)
class RequestOptions:
    """How to talk to the server.

    Args:
        model: its name on the server.
        api: the Responses API, or Chat Completions for servers that only have that.
        detail: the detail level at which the model sees an image.
        is_openai: whether to send parameters that only OpenAI's own server knows.
        timeout: seconds until a request is given up; None = the default.
        flex: use the flex tier, at half the price.
        max_output_tokens: per answer; None = the most that the question can need.
    """

    model: str
    api: Api = "responses"
    detail: Detail = "high"
    is_openai: bool = True
    timeout: float | None = None
    flex: bool = False
    max_output_tokens: int | None = None


def tokens_of(body: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens of an answer of either API; missing counts are 0.

    The input tokens include cached and written ones. A server that reports more of those does not reduce the cost.
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
    """Return the error inside an answer, from the server or one behind it; None if there is none."""
    choices = body.get("choices")
    choice = as_mapping(choices[0]) if isinstance(choices, list) and choices else {}
    return body.get("error") or choice.get("error") or (body if body.get("object") == "error" else None)


def unpaid_error_of(body: Mapping[str, Any]) -> object:
    """Return the error inside an answer that counts no tokens, so the model did not cause it; None if there is none."""
    return None if any(tokens_of(body).values()) else error_of(body)


def words_of(body: object, depth: int = 4) -> str:
    """Return the message in an error's body: in OpenAI's form, another server's, or as problem details (RFC 9457)."""
    if isinstance(body, list):
        return "; ".join(filter(None, (words_of(part, depth - 1) for part in body if depth)))
    if not isinstance(body, dict) or not depth:
        return str(body or "")
    # FastAPI servers name the field, as ["body", "model"].
    where = ".".join(map(str, body["loc"])) if isinstance(body.get("loc"), list) else ""
    found = (words_of(body.get(name), depth - 1) for name in ("error", "title", "message", "msg", "detail"))
    return ": ".join(dict.fromkeys(filter(None, (where, *found))))


def text_of(body: Mapping[str, Any]) -> str:
    """Return the text of a Responses or Chat Completions object.

    Raises:
        AnswerError: the model refused, was cut off, failed, or returned nothing.
    """
    if error := error_of(body):
        raise AnswerError("server_error", words_of(error) or "no reason given")
    text = _text_of_chat(body) if "choices" in body else _text_of_response(body)
    if not text.strip():
        raise AnswerError("invalid_json", "the answer holds no text")
    return text


def has_loose_parts(body: Mapping[str, Any]) -> bool:
    """Tell whether the text is in parts where the API has one string, or the reverse."""
    return any(isinstance(content, list) == ("choices" in body) for content in _contents(body))


def _contents(body: Mapping[str, Any]) -> list[object]:
    """Return the contents of all messages: strings, parts, or lists of parts."""
    found = body.get("choices") if "choices" in body else body.get("output")
    items = [as_mapping(item) for item in found] if isinstance(found, list) else []
    if "choices" in body:
        return [as_mapping(item.get("message")).get("content") for item in items[:1]]
    return [item.get("content") for item in items if item.get("type") == "message"]


def _parts(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of all messages; a string counts as a text part."""
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
    """Return the JSON object of an answer, or None if it is not one."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}
