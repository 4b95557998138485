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
PATHS: Mapping[Api, str] = {"responses": "/responses", "chat": "/chat/completions"}  # below the base address


@dataclass(frozen=True)
class Form:
    """How the server is to be spoken to.

    Args:
        model: its name at the server.
        api: the Responses API, or Chat Completions for servers that have only that.
        detail: how closely the model looks at a picture.
        is_openai: whether parameters that only OpenAI's own server knows may be sent.
        flex: ask at half the price, with what room the server has left.
        max_output_tokens: of an answer; None = what the question can need.
    """

    model: str
    api: Api = "responses"
    detail: Detail = "high"
    is_openai: bool = True
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


def text_of(body: Mapping[str, Any]) -> str:
    """Return the text of a Responses or of a Chat Completions object.

    Raises:
        AnswerError: the model refused, was cut short, failed, or said nothing.
    """
    text = _text_of_chat(body) if "choices" in body else _text_of_response(body)
    if not text.strip():
        raise AnswerError("invalid_json", "the answer holds no text")
    return text


def _text_of_response(body: Mapping[str, Any]) -> str:
    output = body.get("output")
    items = [as_mapping(item) for item in output] if isinstance(output, list) else []
    parts = [
        as_mapping(part)
        for item in items
        if item.get("type") == "message" and isinstance(item.get("content"), list)
        for part in item["content"]
    ]
    refusals = [str(part.get("refusal", "")) for part in parts if part.get("type") == "refusal"]
    if refusals:
        raise AnswerError("refusal", " ".join(refusals))
    status = body.get("status")
    if status == "incomplete":
        reason = as_mapping(body.get("incomplete_details")).get("reason")
        raise AnswerError("incomplete", f"the answer was cut short ({reason or 'no reason given'})")
    if status == "failed":
        raise AnswerError("server_error", str(as_mapping(body.get("error")).get("message") or "the model failed"))
    return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "output_text")


def _text_of_chat(body: Mapping[str, Any]) -> str:
    choices = body["choices"]
    choice = as_mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = as_mapping(choice.get("message"))
    if message.get("refusal"):
        raise AnswerError("refusal", str(message["refusal"]))
    if choice.get("finish_reason") == "content_filter":
        raise AnswerError("refusal", "the server's content filter kept the answer back")
    if choice.get("finish_reason") == "length":
        raise AnswerError("incomplete", "the answer was cut short (length)")
    return str(message.get("content") or "")


def parse_body(data: bytes | str) -> dict[str, Any] | None:
    """Return the JSON object of an answer, or None where it is none."""
    try:
        body = json.loads(data)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return a part of a foreign JSON object if it is an object itself, else an empty one."""
    return value if isinstance(value, dict) else {}
