"""What is known about each model besides its price: image tokens, lowest reasoning effort, shutdown date."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pokefa.errors import InputError
from pokefa.outside import GPT_5_MINI_SHUTDOWN, GPT_5_MINI_SUCCESSOR, LOWEST_EFFORTS, PICTURE_SQUARES

# OpenAI's rule of thumb for English. A tokenizer would have to download its vocabulary, and the text is the smaller
# part of a question's cost.
CHARACTERS_PER_TOKEN = 4
# English, JSON and names never have this few; the cost limit assumes it.
FEWEST_BYTES_PER_TOKEN = 2

# How images are divided for a model that is not in the table.
UNKNOWN_PATCH, UNKNOWN_MOST_PATCHES, _ = PICTURE_SQUARES

# Output tokens for reasoning, in addition to the answer, by effort; None: no effort was set.
ROOM_TO_THINK: Mapping[str | None, int] = {"none": 0, "minimal": 1000, None: 2000}


@dataclass(frozen=True)
class ModelFacts:
    """What is known about a model.

    Args:
        patch: side in pixels of the squares that an image is divided into.
        most_patches: a larger image is scaled down to this many squares.
        tokens_per_patch: tokens per square.
        effort: the lowest reasoning effort that the model accepts.
        shutdown: the first day on which it does not answer.
        successor: the model that OpenAI names as its replacement.
    """

    patch: int
    most_patches: int
    tokens_per_patch: float
    effort: str
    shutdown: datetime.date | None = None
    successor: str | None = None


# OpenAI has not published how models from GPT-5.6 on count images, so the rule of gpt-5-mini is used.
_SHUTDOWNS = {"gpt-5-mini": (GPT_5_MINI_SHUTDOWN, GPT_5_MINI_SUCCESSOR)}
MODELS: Mapping[str, ModelFacts] = {
    name: ModelFacts(*PICTURE_SQUARES, effort, *_SHUTDOWNS.get(name, ())) for name, effort in LOWEST_EFFORTS.items()
}


def base_name(model: str) -> str:
    """Return the name of a model without its version date: gpt-5-mini for gpt-5-mini-2025-08-07."""
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model)


def facts_of(model: str) -> ModelFacts | None:
    """Return what is known about a model, or about a dated version of one."""
    return MODELS.get(base_name(model))


def require_facts(model: str, why: str) -> ModelFacts:
    """Return what is known about a model.

    Raises:
        InputError: the model is unknown, so the tokens of an image are too; `why` says what needs them.
    """
    facts = facts_of(model)
    if facts is None:
        known = ", ".join(sorted(MODELS))
        raise InputError(f"{why} needs the prices of the model, and those of {model} are not known (only of {known})")
    return facts


def room_to_think(facts: ModelFacts | None) -> int:
    """Return the output tokens that a model may use for reasoning."""
    return ROOM_TO_THINK[facts.effort if facts else None]


def picture_tokens(width: int, height: int, facts: ModelFacts | None) -> int:
    """Return the expected tokens of an image of this size in pixels, at most the model's number of squares."""
    patch, most = (facts.patch, facts.most_patches) if facts else (UNKNOWN_PATCH, UNKNOWN_MOST_PATCHES)
    squares = min(math.ceil(width / patch) * math.ceil(height / patch), most)
    return math.ceil(squares * (facts.tokens_per_patch if facts else 1.0))


def text_tokens(text: str) -> int:
    """Return the expected tokens of a text, at four characters per token."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def most_text_tokens(text: str) -> int:
    """Return the maximum tokens of a text."""
    return math.ceil(len(text.encode("utf-8", "replace")) / FEWEST_BYTES_PER_TOKEN)
