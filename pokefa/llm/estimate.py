"""The expected cost of a run, computed before anything is sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pokefa.errors import ImageError
from pokefa.images.decoding import in_decoder, readable
from pokefa.images.files import check_image
from pokefa.ledger.table import KEY
from pokefa.llm.models import require_facts
from pokefa.llm.options import Settings
from pokefa.llm.prices import BATCH, FLEX, STANDARD, TOKENS, cost_of
from pokefa.llm.prompt import Question, Request, expected_tokens
from pokefa.stage.runner import Row

EXPECTED_SECONDS = 5.0  # of one call

# Initial values of a run's summary.
EMPTY: Mapping[str, Any] = {**dict.fromkeys(TOKENS, 0), "reused": 0, "usd": None}

log = logging.getLogger("pokefa")


def estimate(
    question: Question[Any],
    rows: Sequence[Row],
    ask_of: Callable[[Row], Request],
    settings: Settings,
    fewer: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return and log images, tokens, dollars and minutes; send nothing, and assume that no token is cached.

    Args:
        fewer: the images that --one-per-group would ask about; their cost is reported as well.

    Raises:
        InputError: the prices of the model are unknown.
    """
    facts = require_facts(settings.model, "--estimate")
    sums = {"all": [0, 0], "one_per_group": [0, 0]}  # images and input tokens
    for row in rows:
        asked = ask_of(row)
        try:
            found = in_decoder(check_image, readable(asked.path), decode=False)
        except ImageError:
            continue  # it will be an error and cost nothing
        size = settings.view.size(found.width, found.height)
        tokens = expected_tokens(question, asked.note, size, facts)
        for name in sums:
            if name == "all" or (fewer is not None and row[KEY] in fewer):
                sums[name] = [sums[name][0] + 1, sums[name][1] + tokens]
    priced = {name: _priced(name, question, settings, *counts) for name, counts in sums.items()}
    return {"model": settings.model, **priced["all"]} | (
        {"one_per_group": priced["one_per_group"]} if fewer is not None else {}
    )


def _priced(name: str, question: Question[Any], settings: Settings, images: int, given: int) -> dict[str, Any]:
    """Return and log the cost of `images` images with `given` input tokens in all."""
    usage = {"input_tokens": given, "output_tokens": images * question.output_tokens}
    dollars = usd_by_tier(settings.model, usage)
    minutes = images * EXPECTED_SECONDS / settings.concurrency / 60
    if name == "all" or images:
        log.info(
            "estimate for %s%s: %d images, %d input and %d output tokens, $%.2f ($%.2f with --flex or --batch), about "
            "%.0f minutes at --concurrency %d",
            settings.model,
            "" if name == "all" else ", --one-per-group",
            images,
            *usage.values(),
            dollars[STANDARD],
            dollars[BATCH],
            minutes,
            settings.concurrency,
        )
    return {
        "images": images,
        **usage,
        "usd": round(dollars[STANDARD], 4),
        "usd_flex": round(dollars[FLEX], 4),
        "usd_batch": round(dollars[BATCH], 4),
        "minutes": round(minutes, 1),
    }


def usd_by_tier(model: str, usage: Mapping[str, int]) -> dict[str, float]:
    """Return the cost of the tokens at each tier that a run can choose; the model is one of MODELS."""
    return {tier: cost_of(model, usage, tier) or 0.0 for tier in (STANDARD, FLEX, BATCH)}
