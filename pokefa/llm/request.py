"""The JSON body of a request, for either API, and its maximum cost. The constant part comes first, so that a server can
cache it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pokefa.llm.models import facts_of, text_tokens
from pokefa.llm.prices import FLEX, STANDARD, rates_of, writes_cost_extra
from pokefa.llm.prompt import Question, most_tokens, output_limit
from pokefa.llm.wire import RequestOptions
from pokefa.outside import SHORTEST_CACHED

BREAKPOINT = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def request_body(form: RequestOptions, question: Question[Any], jpeg: bytes, note: str) -> dict[str, Any]:
    """Return the JSON body of a request."""
    address = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
    build = _responses_body if form.api == "responses" else _chat_body
    body = build(form, question, address, note)
    if writes_cost_extra(form.model):
        # By default the server writes each image to its cache, which costs more and is never read again.
        body |= {"prompt_cache_options": {"mode": "explicit"}, "prompt_cache_key": cache_key(question)}
    if form.flex or form.is_openai:
        # Always sent: a project at OpenAI can have a more expensive default tier.
        body["service_tier"] = FLEX if form.flex else STANDARD
    return body


def _responses_body(form: RequestOptions, question: Question[Any], address: str, note: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "input_text", "text": note}] if note else []
    content.append({"type": "input_image", "detail": form.detail, "image_url": address})
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    body: dict[str, Any] = {
        "model": form.model,
        "text": {"format": {"type": "json_schema", **_schema(question)}},
        "max_output_tokens": most_output(form, question),
        "store": False,
    }
    if has_breakpoint(form, question):
        # Only a message can have a breakpoint.
        constant = {"type": "input_text", "text": question.instructions, **BREAKPOINT}
        body["input"] = [{"role": "developer", "content": [constant]}, *messages]
    else:
        body |= {"instructions": question.instructions, "input": messages}
    facts = facts_of(form.model)
    return body | ({"reasoning": {"effort": facts.effort}} if facts else {})


def _chat_body(form: RequestOptions, question: Question[Any], address: str, note: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": note}] if note else []
    parts.append({"type": "image_url", "image_url": {"url": address, "detail": form.detail}})
    constant: Any = question.instructions
    if has_breakpoint(form, question):
        constant = [{"type": "text", "text": question.instructions, **BREAKPOINT}]
    facts = facts_of(form.model)
    # Servers of local models only know the old name; reasoning models require the new one.
    limit = "max_completion_tokens" if facts or form.is_openai else "max_tokens"
    body: dict[str, Any] = {
        "model": form.model,
        "messages": [{"role": "system", "content": constant}, {"role": "user", "content": parts}],
        "response_format": {"type": "json_schema", "json_schema": _schema(question)},
        limit: most_output(form, question),
    }
    if form.is_openai:
        body["store"] = False
    return body | ({"reasoning_effort": facts.effort} if facts else {})


def most_output(form: RequestOptions, question: Question[Any]) -> int:
    """Return the maximum tokens of an answer: the user's number, or the most that the question can need."""
    return form.max_output_tokens or output_limit(question, facts_of(form.model))


def most_usd(
    form: RequestOptions, question: Question[Any], note: str, size: tuple[int, int], tier: str = STANDARD
) -> float:
    """Return the maximum cost of a request; 0 if the price is unknown.

    A flex request counts with the standard price, at which the server may serve it. All input counts as written to the
    cache if that costs more.
    """
    rates = rates_of(form.model, tier)
    if rates is None:
        return 0.0
    given = most_tokens(question, note, size, facts_of(form.model))
    return given * max(rates.input, rates.cache_write) + most_output(form, question) * rates.output


def has_breakpoint(form: RequestOptions, question: Question[Any]) -> bool:
    """Tell whether the instructions end at a cache breakpoint."""
    return writes_cost_extra(form.model) and text_tokens(question.instructions) >= SHORTEST_CACHED


def cache_key(question: Question[Any]) -> str:
    """Return the key that routes requests to the machine that has cached a question's constant part."""
    return f"{question.name}-{question.version}"


def _schema(question: Question[Any]) -> Mapping[str, Any]:
    return {"name": question.name, "strict": True, "schema": question.schema}
