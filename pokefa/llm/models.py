"""What is known of each model beside its price: what a picture counts, how little it can be made to think, its end."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pokefa.errors import InputError
from pokefa.outside import GPT_5_MINI_SHUTDOWN, GPT_5_MINI_SUCCESSOR, LOWEST_EFFORTS, PICTURE_SQUARES

# OpenAI's rule of thumb for English. No tokenizer is needed for that: its vocabulary would have to be downloaded, and
# the text is the smaller part of what a question costs.
CHARACTERS_PER_TOKEN = 4
# English, JSON and names never come near so few; a limit on the cost counts with it.
FEWEST_BYTES_PER_TOKEN = 2

# How pictures are cut for a model that is not in the table.
UNKNOWN_PATCH, UNKNOWN_MOST_PATCHES, _ = PICTURE_SQUARES

# Output tokens for thinking, by effort, beside those of the answer; None: nobody said how much the model is to think.
ROOM_TO_THINK: Mapping[str | None, int] = {"none": 0, "minimal": 1000, None: 2000}


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model.

    Args:
        patch: side in pixels of the squares that a picture is seen in.
        most_patches: a larger picture is scaled down to so many squares.
        tokens_per_patch: what a square counts.
        effort: the lowest reasoning effort that the model takes.
        shutdown: the day from which it does not answer.
        successor: what OpenAI names in its place.
    """

    patch: int
    most_patches: int
    tokens_per_patch: float
    effort: str
    shutdown: datetime.date | None = None
    successor: str | None = None


# Of the models from GPT-5.6 on nobody has published how they count pictures: the rule of gpt-5-mini stands in for it.
_SHUTDOWNS = {"gpt-5-mini": (GPT_5_MINI_SHUTDOWN, GPT_5_MINI_SUCCESSOR)}
MODELS: Mapping[str, ModelFacts] = {
    name: ModelFacts(*PICTURE_SQUARES, effort, *_SHUTDOWNS.get(name, ())) for name, effort in LOWEST_EFFORTS.items()
}


def base_name(model: str) -> str:
    """Return the name of a model without the date of a version, such as that of gpt-5-mini-2025-08-07."""
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model)


def facts_of(model: str) -> ModelFacts | None:
    """Return what is known of a model or of the dated version of one."""
    return MODELS.get(base_name(model))


def require_facts(model: str, why: str) -> ModelFacts:
    """Return what is known of a model.

    Raises:
        InputError: nothing is, so nobody can say what a picture costs; `why` says what it is needed for.
    """
    facts = facts_of(model)
    if facts is None:
        known = ", ".join(sorted(MODELS))
        raise InputError(f"{why} needs the prices of the model, and those of {model} are not known (only of {known})")
    return facts


def room_to_think(facts: ModelFacts | None) -> int:
    """Return the output tokens that a model may think with."""
    return ROOM_TO_THINK[facts.effort if facts else None]


def picture_tokens(width: int, height: int, facts: ModelFacts | None) -> int:
    """Return what a picture of so many pixels is expected to count, at most the model's number of squares."""
    patch, most = (facts.patch, facts.most_patches) if facts else (UNKNOWN_PATCH, UNKNOWN_MOST_PATCHES)
    squares = min(math.ceil(width / patch) * math.ceil(height / patch), most)
    return math.ceil(squares * (facts.tokens_per_patch if facts else 1.0))


def text_tokens(text: str) -> int:
    """Return what a text is expected to count, by the rule of four characters a token."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def most_text_tokens(text: str) -> int:
    """Return what a text can count at most."""
    return math.ceil(len(text.encode("utf-8", "replace")) / FEWEST_BYTES_PER_TOKEN)
