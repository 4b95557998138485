"""What is asked about a picture, and the check of what comes back: JSON that fits a schema, or a reason why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pokefa.errors import PokefaError
from pokefa.llm.models import ModelFacts, most_text_tokens, picture_tokens, room_to_think, text_tokens
from pokefa.secrets import redact
from pokefa.text import ZERO_WIDTH_JOINER, clean_text

LONGEST_DETAIL = 300
OUTPUT_MARGIN = 4  # over what an answer has in the mean

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
        output_tokens: what an answer has in the mean, for estimates.
    """

    name: str
    version: str
    instructions: str
    schema: Mapping[str, Any]
    read: Callable[[dict[str, Any]], T]
    output_tokens: int = 100


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
        usage: for the journal: model, question, request (hash), response (id), tier, the TOKENS of prices.py, and with
            a known price usd. An answer that an earlier question has paid for is marked `reused` and cost nothing.
        raw: the JSON object of a usable answer, as the model gave it.
    """

    value: T | None
    problem: str | None
    model: str
    usage: Mapping[str, Any]
    raw: Mapping[str, Any] | None = None


def request_hash(model: str, question: Question[Any], jpeg: bytes, note: str) -> str:
    """Return the SHA-256 that is the same exactly where the same is asked of the same model."""
    asked = json.dumps([model, question.version, question.instructions, question.schema, note], sort_keys=True)
    return hashlib.sha256(asked.encode("utf-8") + b"\0" + jpeg).hexdigest()


def expected_tokens(question: Question[Any], note: str, size: tuple[int, int], facts: ModelFacts | None) -> int:
    """Return how many input tokens a question about a picture of the sent (width, height) is expected to count."""
    texts = (question.instructions, str(question.schema), note)
    return sum(map(text_tokens, texts)) + picture_tokens(*size, facts)


def most_tokens(question: Question[Any], note: str, size: tuple[int, int], facts: ModelFacts | None) -> int:
    """Return how many input tokens a question can count at most."""
    texts = (question.instructions, str(question.schema), note)
    return sum(map(most_text_tokens, texts)) + picture_tokens(*size, facts)


def output_limit(question: Question[Any], facts: ModelFacts | None) -> int:
    """Return how many tokens the model may answer with: what the schema can need, and room to think."""
    return OUTPUT_MARGIN * question.output_tokens + room_to_think(facts)


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an object with exactly these fields, as Structured Outputs want it."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


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
    text = redact(clean_text(text) or "")
    seen = (mark if mark.isprintable() or mark == ZERO_WIDTH_JOINER else " " for mark in text)
    return " ".join("".join(seen).split())[:longest]


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


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
