"""What a run will cost, before it is asked; and the most that one call is held to cost until its usage is known."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pokefa.errors import ImageError
from pokefa.images.decoding import in_decoder, readable
from pokefa.images.files import check_image
from pokefa.llm.options import Settings
from pokefa.llm.prices import ModelFacts, cost_of, require_facts
from pokefa.llm.prompt import Ask, Question, expected_tokens
from pokefa.stage.runner import Row

OUTPUT_MARGIN = 4  # over what an answer has in the mean
EXPECTED_SECONDS = 5.0  # of one call

# What the summary of a run starts from.
EMPTY: Mapping[str, Any] = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "reused": 0, "usd": None}

log = logging.getLogger("pokefa")


def most_usd(question: Question[Any], note: str, size: tuple[int, int], facts: ModelFacts | None) -> float:
    """Return what a call will cost at most, by expectation; 0 where the price is not known."""
    if facts is None:
        return 0.0
    expected = expected_tokens(question, note, size, facts)
    usage = {"input_tokens": expected, "cached_tokens": 0, "output_tokens": OUTPUT_MARGIN * question.output_tokens}
    return cost_of(facts, usage)


def estimate(
    question: Question[Any], rows: Sequence[Row], ask_of: Callable[[Row], Ask], settings: Settings
) -> dict[str, Any]:
    """Return and log images, tokens, dollars and minutes; nothing is asked, and no cached token is counted on.

    Raises:
        InputError: the prices of the model are not known.
    """
    facts = require_facts(settings.model, "--estimate")
    usage = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": len(rows) * question.output_tokens}
    images = 0
    for row in rows:
        asked = ask_of(row)
        try:
            found = in_decoder(check_image, readable(asked.path), decode=False)
        except ImageError:
            continue  # it will be an error and cost nothing
        images += 1
        size = settings.view.size(found.width, found.height)
        usage["input_tokens"] += expected_tokens(question, asked.note, size, facts)
    usage["output_tokens"] = images * question.output_tokens
    dollars, halved = cost_of(facts, usage), cost_of(facts, usage, batch=True)
    minutes = images * EXPECTED_SECONDS / settings.concurrency / 60
    log.info(
        "estimate: %d images, %d input and %d output tokens, $%.2f ($%.2f with --batch), about %.0f minutes at "
        "--concurrency %d",
        images,
        usage["input_tokens"],
        usage["output_tokens"],
        dollars,
        halved,
        minutes,
        settings.concurrency,
    )
    return {
        "images": images,
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "usd": round(dollars, 4),
        "usd_batch": round(halved, 4),
        "minutes": round(minutes, 1),
    }
