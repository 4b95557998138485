"""What is asked about a picture, and what becomes of the answer: a value, or a reason why there is none."""

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
OUTPUT_MARGIN = 4  # over what an answer has in the mean
NO_PACKAGE = "the openai package is not installed: python -m pip install -r requirements/requirements_score.txt"

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
        load_form: imports and returns the pydantic model of the answer, an AnswerModel; pydantic is a heavy library.
        read: makes the stage's value of the model's fields; raises AnswerError where code finds it wrong.
        output_tokens: what an answer has in the mean, for estimates.
    """

    name: str
    version: str
    instructions: str
    load_form: Callable[[], type[Any]]
    read: Callable[[dict[str, Any]], T]
    output_tokens: int = 100

    @cached_property
    def form(self) -> type[Any]:
        """The pydantic model of the answer: what it may be.

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
        """JSON schema of the answer, in the subset that Structured Outputs take: all fields, and no other."""
        return self.form.strict_schema()

    def value_of(self, answer: Mapping[str, Any]) -> tuple[T, dict[str, Any], set[str]]:
        """Return the stage's value of a JSON object, its fields, and how it deviates from the schema.

        Raises:
            AnswerError: it cannot be used.
        """
        fields, deviations = self.form.read(answer)
        return self.read(fields), fields, deviations


@dataclass(frozen=True)
class Request:
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
            `deviations` says how a usable answer deviates from the schema that was sent.
        raw: the fields of a usable answer, before `Question.read`.
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


def plain(text: str, longest: int = LONGEST_DETAIL) -> str:
    """Return foreign text as one line of at most `longest` characters that a CSV and a log can hold.

    A server may send back what it was sent, the key included: secrets are replaced.
    """
    text = redact(clean_text(text) or "")
    seen = (mark if mark.isprintable() or mark == ZERO_WIDTH_JOINER else " " for mark in text)
    return " ".join("".join(seen).split())[:longest]
