"""The answers of the OpenAI stand-in, in the shapes of both APIs, and their token counts.

Field names follow OpenAI's API reference, as in the types of the `openai` package: `Response` for /v1/responses,
`ChatCompletion` for /v1/chat/completions.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from demo.standins.openai_bill import Usage
from demo.standins.openai_requests import Asked, Json, Refused, read_chat, read_responses
from demo.standins.openai_sloppy import PARTS, SLOPPY, with_each

NOTE = "stand-in: not OpenAI; answers come from the pixels by rule"
MODEL_SUFFIX = "-stand-in"
PATCH = 32
TOKENS_A_PATCH = 1.62
RUNAWAY = 128_000  # tokens, a model's maximum

# What a model can answer instead, with status 200.
ANSWER_FAILURES = (
    "refusal",
    "incomplete",  # truncated
    "runaway",  # never ends, and is truncated at the limit of the request or of the model
    "boundless",  # the same, but ignores the limit of the request
    "content_filter",
    "failed",  # the model failed midway; Chat Completions has no such answer and returns a 500
    "empty",
    "invalid_json",
    "missing_field",
    "out_of_range",
    "two_objects",
    *SLOPPY,
    PARTS,
)
CUT = ("incomplete", "runaway", "boundless")
REFUSAL = "I'm sorry, but I can't help with that picture."


def count_given(asked: Asked, size: tuple[int, int]) -> int:
    """Return the input tokens of a request with an image of `size`, (width, height)."""
    squares = math.ceil(size[0] / PATCH) * math.ceil(size[1] / PATCH)
    return len(asked.constant) // 4 + len(asked.notes) // 4 + math.ceil(TOKENS_A_PATCH * squares)


def count_made(asked: Asked, text: str, failure: str | None) -> int:
    """Return the output tokens of an answer, limited by the request unless the model ignores limits."""
    made = RUNAWAY if failure in ("runaway", "boundless") else max(1, len(text) // 4)
    return made if asked.most_made is None or failure == "boundless" else min(made, asked.most_made)


def text_of(facts: Mapping[str, Any], failure: str | None) -> str:
    """Return the facts as the text of an answer, or what a failing model says instead."""
    whole = json.dumps(facts)
    changed = {
        **dict.fromkeys(CUT, whole[: len(whole) // 2]),
        "content_filter": "",
        "empty": "",
        "invalid_json": "Sure! Here is the JSON you asked for.",
        "missing_field": json.dumps(dict(list(facts.items())[1:])),
        "out_of_range": json.dumps(with_each(facts, lambda value: value + 900, int)),
        "two_objects": f"{whole} or {json.dumps(with_each(facts, lambda value: type(value)(not value), int, bool))}",
    }
    return SLOPPY[failure](facts) if failure and failure in SLOPPY else changed.get(failure or "", whole)


def responses_object(request: Json, asked: Asked, text: str, failure: str | None, usage: Usage) -> Json:
    """Return a Responses object that answers with `text`, or shows `failure`."""
    part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    if failure == "refusal":
        part = {"type": "refusal", "refusal": REFUSAL}
    reasons = {**dict.fromkeys(CUT, "max_output_tokens"), "content_filter": "content_filter"}
    status = "incomplete" if failure in reasons else "failed" if failure == "failed" else "completed"
    message = {
        "id": "msg_standin",
        "type": "message",
        "role": "assistant",
        "status": "incomplete" if failure in reasons else "completed",
        "content": text if failure == PARTS else [part],
    }
    thinking = {"id": "rs_standin", "type": "reasoning", "summary": []}
    reasoning = request.get("reasoning")
    return {
        "id": "resp_standin_" + _fingerprint(asked),
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": {"code": "server_error", "message": "The model failed."} if failure == "failed" else None,
        "incomplete_details": {"reason": reasons[failure]} if failure in reasons else None,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "metadata": {**asked.metadata, "stand_in": NOTE},
        "model": asked.model + MODEL_SUFFIX,
        "output": [thinking] if failure == "failed" else [thinking, message],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.get("effort") if isinstance(reasoning, dict) else None, "summary": None},
        "service_tier": asked.tier,
        "store": request.get("store", True),
        "temperature": 1.0,
        "text": request["text"],
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": usage.given,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
            "output_tokens": usage.made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.given + usage.made,
        },
        "user": None,
    }


def chat_object(request: Json, asked: Asked, text: str, failure: str | None, usage: Usage) -> Json:
    """Return a ChatCompletion object that answers with `text`, or shows `failure`.

    Raises:
        Refused: the model failed.
    """
    if failure == "failed":
        raise Refused(500, "The model failed.", None, "server_error")
    reasons = {**dict.fromkeys(CUT, "length"), "content_filter": "content_filter"}
    refused = failure == "refusal"
    return {
        "id": "chatcmpl-standin-" + _fingerprint(asked),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model + MODEL_SUFFIX,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None if refused else [{"type": "text", "text": text}] if failure == PARTS else text,
                    "refusal": REFUSAL if refused else None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": reasons.get(failure or "", "stop"),
            }
        ],
        "metadata": {**asked.metadata, "stand_in": NOTE},
        "usage": {
            "prompt_tokens": usage.given,
            "completion_tokens": usage.made,
            "total_tokens": usage.given + usage.made,
            "prompt_tokens_details": {
                "cached_tokens": usage.cached,
                "cache_write_tokens": usage.written,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": asked.tier,
        "system_fingerprint": None,
    }


@dataclass(frozen=True)
class Api:
    """One of the two APIs: how to read its requests and make its answers."""

    read: Callable[[Json], Asked]
    answer: Callable[[Json, Asked, str, str | None, Usage], Json]


APIS: Mapping[str, Api] = {
    "/v1/responses": Api(read_responses, responses_object),
    "/v1/chat/completions": Api(read_chat, chat_object),
}


def _fingerprint(asked: Asked) -> str:
    """Return a value that is equal exactly for equal requests."""
    told = "\0".join((asked.model, asked.name, asked.constant, asked.notes, asked.picture))
    return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:24]
