"""What a run will cost, before it is asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pokefa.errors import ImageError
from pokefa.images.decoding import in_decoder, readable
from pokefa.images.files import check_image
from pokefa.llm.models import require_facts
from pokefa.llm.options import Settings
from pokefa.llm.prices import BATCH, FLEX, STANDARD, TOKENS, cost_of
from pokefa.llm.prompt import Ask, Question, expected_tokens
from pokefa.stage.runner import Row

EXPECTED_SECONDS = 5.0  # of one call

# What the summary of a run starts from.
EMPTY: Mapping[str, Any] = {**dict.fromkeys(TOKENS, 0), "reused": 0, "usd": None}

log = logging.getLogger("pokefa")


def estimate(
    question: Question[Any], rows: Sequence[Row], ask_of: Callable[[Row], Ask], settings: Settings
) -> dict[str, Any]:
    """Return and log images, tokens, dollars and minutes; nothing is asked, and no cached token is counted on.

    Raises:
        InputError: the prices of the model are not known.
    """
    facts = require_facts(settings.model, "--estimate")
    given = images = 0
    for row in rows:
        asked = ask_of(row)
        try:
            found = in_decoder(check_image, readable(asked.path), decode=False)
        except ImageError:
            continue  # it will be an error and cost nothing
        images += 1
        size = settings.view.size(found.width, found.height)
        given += expected_tokens(question, asked.note, size, facts)
    usage = {"input_tokens": given, "output_tokens": images * question.output_tokens}
    dollars = usd_by_tier(settings.model, usage)
    minutes = images * EXPECTED_SECONDS / settings.concurrency / 60
    log.info(
        "estimate for %s: %d images, %d input and %d output tokens, $%.2f ($%.2f with --flex or --batch), about %.0f "
        "minutes at --concurrency %d",
        settings.model,
        images,
        given,
        usage["output_tokens"],
        dollars[STANDARD],
        dollars[BATCH],
        minutes,
        settings.concurrency,
    )
    return {
        "model": settings.model,
        "images": images,
        **usage,
        "usd": round(dollars[STANDARD], 4),
        "usd_flex": round(dollars[FLEX], 4),
        "usd_batch": round(dollars[BATCH], 4),
        "minutes": round(minutes, 1),
    }


def usd_by_tier(model: str, usage: Mapping[str, int]) -> dict[str, float]:
    """Return what so many tokens of a model of MODELS cost at each tier that a run can choose."""
    return {tier: cost_of(model, usage, tier) or 0.0 for tier in (STANDARD, FLEX, BATCH)}
