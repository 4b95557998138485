"""Finds the JSON value in the text of an answer, whatever a model wrote around it.

Small models put their JSON object in a code fence, after their reasoning, or inside a sentence. This module finds where
it begins, and the standard library decodes it. The time is linear in the length of the text.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pokefa.llm.prompt import AnswerError, Question
from pokefa.secrets import redact

T = TypeVar("T")

_DECODER = json.JSONDecoder(strict=False)  # allow line breaks inside strings
_TAGS = "think|thinking|thought|reasoning"
_THINKING = re.compile(rf"\s*<(?:{_TAGS})>", re.IGNORECASE)
_THOUGHT = re.compile(rf"</(?:{_TAGS})>", re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*")
_OBJECT = re.compile(r'\{\s*(?:"|\Z)')  # the object is never empty

# How much may remain where a truncated object cannot be read: the start of `false` or of `\u00e9`.
_LONGEST_STUMP = 6


def read_text(text: str, question: Question[T]) -> tuple[T, dict[str, Any], set[str]]:
    """Return the stage's value of the one object in a text that answers the question, its fields, and the deviations.

    Objects that do not fit, such as an example before the answer, are ignored, and so are repetitions.

    Raises:
        AnswerError: `two_objects` if two that fit differ; otherwise why none fits.
    """
    objects, around = find_objects(redact(text))  # a server may echo the key
    fitting: list[tuple[T, dict[str, Any], set[str]]] = []
    problems: list[AnswerError] = []
    for found in objects:
        try:
            fitting.append(question.value_of(found))
        except AnswerError as error:
            problems.append(error)
    if not fitting:
        raise min(problems, key=lambda problem: str(problem).startswith("missing_key"))
    value, fields, deviations = fitting[0]
    for _, others, _ in fitting:
        if others != fields:
            raise AnswerError("two_objects", f"{shown(fields)} and {shown(others)} differ")
    return value, fields, deviations | around


def find_objects(text: str) -> tuple[list[dict[str, Any]], set[str]]:
    """Return the outermost JSON objects of a text, in order, and what surrounds them.

    Returns:
        The second value is a set of `encoded` (JSON inside a JSON string), `listed` (a list of one), `think`, `fenced`
        and `prose`.

    Raises:
        AnswerError: `truncated_json` if an object, or the reasoning, has no end; `invalid_json` if there is no object.
    """
    found: set[str] = set()
    value = _decode(text)
    if isinstance(value, str):
        found.add("encoded")
        text, value = value, _decode(value)
    if isinstance(value, list) and len(value) == 1:
        found.add("listed")
        value = value[0]
    if isinstance(value, dict):
        return [value], found
    text, thought = _without_thinking(text)
    if thought:
        found.add("think")
    objects, rest = _scan(text)
    if not objects:
        raise AnswerError("invalid_json", f"no JSON object: {shown(text)}")
    if "```" in rest:
        found.add("fenced")
    if _FENCE.sub("", rest).strip():
        found.add("prose")
    return objects, found


def _without_thinking(text: str) -> tuple[str, bool]:
    """Return the text after a model's reasoning, and whether there was any."""
    start = 0
    while opening := _THINKING.match(text, start):
        closing = _THOUGHT.search(text, opening.end())
        if closing is None:
            raise AnswerError("truncated_json", f"the thinking has no end: {shown(text[start:])}")
        start = closing.end()
    # Some servers drop the opening tag. A closing tag with no object after it is inside a string of the answer.
    closing = _THOUGHT.search(text, start)
    if closing and _OBJECT.search(text, closing.end()):
        start = closing.end()
    return text[start:], start > 0


def _scan(text: str) -> tuple[list[dict[str, Any]], str]:
    """Return the objects of a text, and the text around them."""
    objects: list[dict[str, Any]] = []
    rest: list[str] = []
    end = after = 0
    while start := _OBJECT.search(text, after):
        try:
            value, after = _DECODER.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            if _is_cut(error):
                raise AnswerError("truncated_json", f"the object has no end: {shown(text[start.start() :])}") from None
            after = max(error.pos, start.end())  # what was read so far is part of the broken object
            continue
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of levels
            raise AnswerError("invalid_json", f"not JSON ({error}): {shown(text)}") from None
        objects.append(value)
        rest.append(text[end : start.start()])
        end = after
    return objects, "".join([*rest, text[end:]])


def _is_cut(error: json.JSONDecodeError) -> bool:
    """Tell whether a text cannot be decoded because it is truncated."""
    stump = error.doc[error.pos :].strip()
    return error.msg.startswith("Unterminated string") or (len(stump) <= _LONGEST_STUMP and "}" not in stump)


def _decode(text: str) -> object:
    try:
        return _DECODER.decode(text.strip("\ufeff \t\r\n"))
    except (ValueError, RecursionError):
        return None


def shown(value: object) -> str:
    """Return the beginning of a foreign value for a message, as JSON."""
    return json.dumps(value, ensure_ascii=False)[:80]
