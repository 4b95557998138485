"""Reads a request to the OpenAI stand-in, from either API, and validates it as OpenAI does."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from PIL import Image

HEAD = 2**15  # characters of Base64, a multiple of 4, that contain the size of nearly every image

Json = dict[str, Any]

# Parameters of each API, separated by spaces. Those that reasoning models do not accept are refused separately.
RESPONSES_PARAMETERS = (
    "background context_management conversation include input instructions max_output_tokens max_tool_calls metadata "
    "model moderation parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options "
    "prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options temperature text "
    "tool_choice tools top_logprobs top_p truncation user"
)
CHAT_PARAMETERS = (
    "audio frequency_penalty logit_bias logprobs max_completion_tokens max_tokens messages metadata modalities model "
    "moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options "
    "prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream "
    "stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options"
)
NOT_FOR_REASONING = ("temperature", "top_p", "max_tokens")
REASONING = ("gpt-5", "gpt-6", "o3", "o4")  # prefixes of such models' names
NO_BREAKPOINTS = ("gpt-5-", "gpt-5.1", "gpt-5.2", "gpt-4")  # prefixes of models whose cache has no options


class Refused(Exception):
    """A request that gets an error as its answer."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        kind: str = "invalid_request_error",
        param: str | None = None,
        **headers: str,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class Asked:
    """A request of either API, in one form.

    Args:
        constant: instructions and schema, which come first and are the same for every image.
        notes: all other text.
        picture: the address of the one image: `data:image/…;base64,…`.
        tier: `default` or `flex`.
        most_made: maximum tokens of the answer; None = no limit.
        explicit_cache: cache only what ends at a breakpoint.
        beginning: the text up to the last breakpoint, or None.
    """

    model: str
    name: str
    constant: str
    notes: str
    picture: str
    metadata: Mapping[str, str]
    tier: str = "default"
    most_made: int | None = None
    explicit_cache: bool = False
    beginning: str | None = None


def read_responses(request: Json) -> Asked:
    """Read and validate a request of the Responses API, as OpenAI does for a reasoning model.

    Raises:
        Refused: it lacks a field, has one that the model does not accept, or its schema is not strict.
    """
    _check_parameters(request, RESPONSES_PARAMETERS)
    if not isinstance(request.get("input"), (list, str)):
        raise _missing("input")
    text = request.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    name, schema = _check_format(form, "text.format")
    parts = _parts(request.get("input"))
    notes = "".join(str(part.get("text", "")) for part in parts if part.get("type") == "input_text")
    pictures = [part.get("image_url") for part in parts if part.get("type") == "input_image"]
    instructions = str(request.get("instructions") or "")
    beginning = _beginning(instructions, parts, request)
    return _asked(request, name, instructions + schema, notes, pictures, beginning)


def read_chat(request: Json) -> Asked:
    """Read and validate a request of Chat Completions, by the same rules.

    Raises:
        Refused: as `read_responses`.
    """
    _check_parameters(request, CHAT_PARAMETERS)
    if not isinstance(request.get("messages"), list):
        raise _missing("messages")
    form = request.get("response_format")
    inner = form.get("json_schema") if isinstance(form, dict) else None
    inner = {**inner, "type": form.get("type")} if isinstance(form, dict) and isinstance(inner, dict) else None
    name, schema = _check_format(inner, "response_format")
    told = {"system": "", "user": ""}
    for message in request["messages"]:
        if isinstance(message, dict):
            whose = "system" if message.get("role") in ("system", "developer") else "user"
            texts = [part.get("text") for part in _parts([message]) if part.get("type") == "text"]
            told[whose] += "".join(map(str, texts))
    parts = [part for part in _parts(request["messages"]) if part.get("type") == "image_url"]
    pictures = [part["image_url"].get("url") for part in parts if isinstance(part.get("image_url"), dict)]
    beginning = _beginning("", _parts(request["messages"]), request)
    return _asked(request, name, told["system"] + schema, told["user"], pictures, beginning)


def open_picture(address: str, only_head: bool = False) -> Image.Image:
    """Open the image in a data address; its pixels are decoded only when used.

    Args:
        only_head: if possible, read only enough of the data for the size.

    Raises:
        Refused: it is not an image.
    """
    head, _, data = address.partition(";base64,")
    try:
        if not head.startswith("data:image/"):
            raise ValueError(head[:30])
        if only_head and len(data) > HEAD:
            with suppress(OSError):
                return Image.open(io.BytesIO(base64.b64decode(data[:HEAD], validate=True)))
        return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    except (ValueError, OSError, binascii.Error, Image.DecompressionBombError):
        raise _no_image() from None


def decode(picture: Image.Image) -> Image.Image:
    """Return the image in RGB.

    Raises:
        Refused: its data is truncated or damaged.
    """
    try:
        return picture.convert("RGB")
    except (ValueError, OSError, Image.DecompressionBombError):
        raise _no_image() from None


def parse(data: bytes) -> Json:
    """Return the JSON object of a request's body.

    Raises:
        Refused: the body is not one.
    """
    try:
        request = json.loads(data)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise Refused(400, "We could not parse the JSON body of your request.")
    return request


def _check_parameters(request: Json, known: str) -> None:
    if not isinstance(request.get("model"), str):
        raise _missing("model")
    for name in NOT_FOR_REASONING if request["model"].startswith(REASONING) else ():
        if name in request:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise Refused(400, message, "unsupported_parameter", param=name)
    for name in request:
        if name not in known.split():
            raise Refused(400, f"Unknown parameter: '{name}'.", "unknown_parameter", param=name)
    if request.get("stream"):
        raise Refused(400, "stand-in: it does not stream", "unsupported_value", param="stream")


def _check_format(form: object, where: str) -> tuple[str, str]:
    """Return the name of a strict schema, and the schema as JSON."""
    form = form if isinstance(form, dict) else {}
    if form.get("type") != "json_schema" or not form.get("name") or not isinstance(form.get("schema"), dict):
        raise Refused(400, f"stand-in: it answers only to {where} of type json_schema", "unsupported_value")
    if form.get("strict") is not True:
        raise Refused(400, "stand-in: it answers only to a strict schema", "unsupported_value")
    _check_strict(form["schema"], form["name"])
    return str(form["name"]), json.dumps(form["schema"])


def _check_strict(schema: Json, name: str) -> None:
    """Check that every object of a schema requires all of its fields and allows no others, as in strict mode."""
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


def _beginning(first: str, parts: list[Json], request: Json) -> str | None:
    """Return the text up to the last breakpoint of the messages, or None if there is none."""
    found, so_far = None, first
    for part in parts:
        if part.get("type") in ("input_text", "text"):
            so_far += str(part.get("text", ""))
        if "prompt_cache_breakpoint" in part:
            if part["prompt_cache_breakpoint"] != {"mode": "explicit"}:
                raise Refused(400, "Invalid value for 'prompt_cache_breakpoint'.", "invalid_value")
            found = so_far
    if request["model"].startswith(NO_BREAKPOINTS) and (found is not None or "prompt_cache_options" in request):
        message = "Unsupported parameter: 'prompt_cache_options' is not supported with this model."
        raise Refused(400, message, "unsupported_parameter", param="prompt_cache_options")
    return found


def _asked(request: Json, name: str, constant: str, notes: str, pictures: list[Any], beginning: str | None) -> Asked:
    if len(pictures) != 1:
        raise Refused(400, f"stand-in: it answers about one picture and not about {len(pictures)}", "invalid_value")
    metadata = request.get("metadata")
    limits = (request.get(limit) for limit in ("max_output_tokens", "max_completion_tokens", "max_tokens"))
    options = request.get("prompt_cache_options")
    return Asked(
        request["model"],
        name,
        constant,
        notes,
        str(pictures[0]),
        metadata if isinstance(metadata, dict) else {},
        "flex" if request.get("service_tier") == "flex" else "default",
        next((limit for limit in limits if isinstance(limit, int)), None),
        isinstance(options, dict) and options.get("mode") == "explicit",
        beginning,
    )


def _parts(messages: object) -> list[Json]:
    """Return the parts of all messages; a string counts as a text part."""
    found: list[Json] = []
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            found += [{"type": "text", "text": content}, {"type": "input_text", "text": content}]
        elif isinstance(content, list):
            found += [part for part in content if isinstance(part, dict)]
    return found


def _missing(name: str) -> Refused:
    return Refused(400, f"Missing required parameter: '{name}'.", "missing_required_parameter", param=name)


def _no_image() -> Refused:
    message = "The image data you provided does not represent a valid image."
    return Refused(400, message, "invalid_image", "image_parse_error")
