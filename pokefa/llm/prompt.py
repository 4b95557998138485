"""The question about an image, and its answer: a value, or a reason why there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pokefa.errors import PokefaError
from pokefa.llm.models import ModelFacts, most_text_tokens, picture_tokens, room_to_think, text_tokens
from pokefa.secrets import redact
from pokefa.text import ZERO_WIDTH_JOINER, clean_text

LONGEST_DETAIL = 300
OUTPUT_MARGIN = 4  # times the mean length of an answer
NO_PACKAGE = "the openai package is not installed: python -m pip install -r requirements/requirements_score.txt"

T = TypeVar("T")


class AnswerError(PokefaError):
    """An answer that cannot be used; the message starts with its reason slug."""

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(f"{slug}: {plain(detail)}")


@dataclass(frozen=True)
class Question(Generic[T]):
    """The question that a stage asks about every image.

    Args:
        name: of the schema, as sent to the server.
        version: of instructions and schema together; change it with either, so that answers can be told apart.
        instructions: the constant part of the prompt. It comes first, so that a server can cache it.
        load_form: imports and returns the answer's pydantic model, an AnswerModel; pydantic is a heavy library.
        read: converts the model's fields to the stage's value; raises AnswerError if they are invalid.
        output_tokens: mean length of an answer, for estimates.
    """

    name: str
    version: str
    instructions: str
    load_form: Callable[[], type[Any]]
    read: Callable[[dict[str, Any]], T]
    output_tokens: int = 100

    @cached_property
    def form(self) -> type[Any]:
        """The pydantic model of the answer.

        Raises:
            PokefaError: pydantic, which comes with the openai package, is not installed.
        """
        try:
            return self.load_form()
        except ModuleNotFoundError as error:
            if error.name != "pydantic":
                raise
            raise PokefaError(NO_PACKAGE) from None

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """JSON schema of the answer, limited to what Structured Outputs accept: all fields are required."""
        return self.form.strict_schema()

    def value_of(self, answer: Mapping[str, Any]) -> tuple[T, dict[str, Any], set[str]]:
        """Return the stage's value of a JSON object, its fields, and its deviations from the schema.

        Raises:
            AnswerError: the object is not a usable answer.
        """
        fields, deviations = self.form.read(answer)
        return self.read(fields), fields, deviations


@dataclass(frozen=True)
class Request:
    """One image to ask about, and the note about this image alone."""

    path: Path
    note: str = ""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """An answer that was paid for, usable or not.

    Args:
        value: the result of `Question.read`; None if there is a `problem`.
        problem: one line that starts with a reason slug.
        model: the model that answered, as named by the server.
        usage: for the journal: model, question, request (hash), response (id), tier, the TOKENS of prices.py, and usd
            if the price is known. An answer that an earlier question paid for is marked `reused` and costs nothing.
            `deviations` lists how a usable answer deviates from the schema.
        raw: the fields of a usable answer, before `Question.read`.
    """

    value: T | None
    problem: str | None
    model: str
    usage: Mapping[str, Any]
    raw: Mapping[str, Any] | None = None


def request_hash(model: str, question: Question[Any], jpeg: bytes, note: str) -> str:
    """Return a SHA-256 that is the same exactly if model, question, image and note are."""
    asked = json.dumps([model, question.version, question.instructions, question.schema, note], sort_keys=True)
    return hashlib.sha256(asked.encode("utf-8") + b"\0" + jpeg).hexdigest()


def expected_tokens(question: Question[Any], note: str, size: tuple[int, int], facts: ModelFacts | None) -> int:
    """Return the expected input tokens of a question about an image of `size`, the (width, height) sent."""
    texts = (question.instructions, str(question.schema), note)
    return sum(map(text_tokens, texts)) + picture_tokens(*size, facts)


def most_tokens(question: Question[Any], note: str, size: tuple[int, int], facts: ModelFacts | None) -> int:
    """Return the maximum input tokens of a question."""
    texts = (question.instructions, str(question.schema), note)
    return sum(map(most_text_tokens, texts)) + picture_tokens(*size, facts)


def output_limit(question: Question[Any], facts: ModelFacts | None) -> int:
    """Return the output limit of a request: what the schema can need, plus reasoning."""
    return OUTPUT_MARGIN * question.output_tokens + room_to_think(facts)


def plain(text: str, longest: int = LONGEST_DETAIL) -> str:
    """Return foreign text as one line of at most `longest` characters, safe for a CSV and a log.

    A server may echo what it was sent, including the key: secrets are replaced.
    """
    text = redact(clean_text(text) or "")
    seen = (mark if mark.isprintable() or mark == ZERO_WIDTH_JOINER else " " for mark in text)
    return " ".join("".join(seen).split())[:longest]
