"""What is known of each model, as data: prices, what a picture counts, how little it can be made to think, its end.

Prices are OpenAI's in US dollars per million tokens. A model that is not in the table can be asked all the same; only
its cost is not known.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pokefa.errors import InputError

DEFAULT_MODEL = "gpt-5-mini"
WARN_DAYS = 60

# What an answer's usage counts; cached tokens are among the input tokens.
TOKENS = ("input_tokens", "cached_tokens", "output_tokens")

# OpenAI's rule of thumb for English. No tokenizer is needed for that: its vocabulary would have to be downloaded, and
# the text is the smaller part of what a question costs.
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model.

    Args:
        input, cached, output: dollars per million tokens; cached input is what the server has kept from before.
        batch_discount: the share of the price that the Batch API takes off.
        patch: side in pixels of the squares that a picture is seen in.
        most_patches: a larger picture is scaled down to so many squares.
        tokens_per_patch: what a square counts.
        effort: the lowest reasoning effort that the model takes.
        shutdown: the day from which it does not answer.
        successor: what OpenAI names in its place.
    """

    input: float
    cached: float
    output: float
    batch_discount: float
    patch: int
    most_patches: int
    tokens_per_patch: float
    effort: str
    shutdown: datetime.date | None = None
    successor: str | None = None


MODELS: Mapping[str, ModelFacts] = {
    # Users measure about 1.2 tokens a square; the guide says 1.62. The summary shows what was measured.
    "gpt-5-mini": ModelFacts(
        0.25, 0.025, 2.00, 0.5, 32, 1536, 1.62, "minimal", datetime.date(2026, 12, 11), "gpt-6.1-terra"
    ),
    # How it counts pictures is not published: the rule of gpt-5-mini stands in for it.
    "gpt-6.1-terra": ModelFacts(1.00, 0.05, 5.00, 0.5, 32, 1536, 1.62, "none"),
}
# How pictures are cut for a model that is not in the table.
UNKNOWN_PATCH = 32
UNKNOWN_MOST_PATCHES = 1536


def facts_of(model: str) -> ModelFacts | None:
    """Return what is known of a model or of the dated version of one, such as gpt-5-mini-2025-08-07."""
    return MODELS.get(re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model))


def require_facts(model: str, why: str) -> ModelFacts:
    """Return what is known of a model.

    Raises:
        InputError: nothing is; `why` says what it is needed for.
    """
    facts = facts_of(model)
    if facts is None:
        known = ", ".join(sorted(MODELS))
        raise InputError(f"{why} needs the prices of the model, and those of {model} are not known (only of {known})")
    return facts


def check_shutdown(model: str, today: datetime.date) -> str | None:
    """Return a warning where OpenAI shuts the model down soon.

    Raises:
        InputError: it is shut down.
    """
    facts = facts_of(model)
    if facts is None or facts.shutdown is None:
        return None
    if today >= facts.shutdown:
        raise InputError(f"OpenAI has shut {model} down on {facts.shutdown}: use --model {facts.successor}")
    left = (facts.shutdown - today).days
    if left > WARN_DAYS:
        return None
    return f"OpenAI shuts {model} down on {facts.shutdown}, in {left} days; its successor is {facts.successor}"


def cost_of(facts: ModelFacts, usage: Mapping[str, Any], *, batch: bool = False) -> float:
    """Return what an answer cost in dollars; `usage` holds input_tokens, cached_tokens (among them), output_tokens."""
    given, cached, made = (int(usage[name]) for name in TOKENS)
    dollars = ((given - cached) * facts.input + cached * facts.cached + made * facts.output) / 1_000_000
    return dollars * (1 - facts.batch_discount) if batch else dollars


def picture_tokens(width: int, height: int, facts: ModelFacts | None) -> int:
    """Return what a picture of so many pixels is expected to count, at most the model's number of squares."""
    patch, most = (facts.patch, facts.most_patches) if facts else (UNKNOWN_PATCH, UNKNOWN_MOST_PATCHES)
    squares = min(math.ceil(width / patch) * math.ceil(height / patch), most)
    return math.ceil(squares * (facts.tokens_per_patch if facts else 1.0))


def text_tokens(text: str) -> int:
    """Return what a text is expected to count, by the rule of four characters a token."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
