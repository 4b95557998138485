"""The cost of an answer in US dollars, from the price list of the package genai-prices, for the tier that served it.

A model that is not in OpenAI's part of the list can be used; only its cost is unknown. The list is part of the pinned
package: nothing is downloaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pokefa.errors import PokefaError

# The counts in an answer's usage; the input tokens include cached tokens and tokens written to the cache.
TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")

STANDARD = "default"  # tiers as named in OpenAI's answers
FLEX = "flex"
BATCH = "batch"  # not a tier of a request, but priced like one

PROVIDER = "openai"
_COUNTED = 1000  # tokens, far below the input length from which OpenAI charges more
_USES = (
    {"input_tokens": _COUNTED},
    {"input_tokens": _COUNTED, "cache_read_tokens": _COUNTED},
    {"input_tokens": _COUNTED, "cache_write_tokens": _COUNTED},
    {"output_tokens": _COUNTED},
)


@dataclass(frozen=True)
class Rates:
    """Dollars per token: input, cached input, input written to the cache, output."""

    input: float
    cached: float
    cache_write: float
    output: float

    def cost(self, usage: Mapping[str, Any]) -> float:
        """Return the cost of the TOKENS in `usage` in dollars."""
        given, cached, written, made = (int(usage.get(name, 0)) for name in TOKENS)
        fresh = given - cached - written
        return fresh * self.input + cached * self.cached + written * self.cache_write + made * self.output


@cache
def rates_of(model: str, tier: str = STANDARD) -> Rates | None:
    """Return the list price of a model, or of a dated version of one, at a tier; None if unknown.

    Raises:
        PokefaError: the package genai-prices is not installed.
    """
    try:
        prices = importlib.import_module("genai_prices")
    except ImportError:
        raise PokefaError(
            "the genai-prices package is not installed: python -m pip install -r requirements/requirements_score.txt"
        ) from None
    context = {"processing": BATCH} if tier == BATCH else {"service_tier": tier}
    try:
        found = [
            prices.calc_price(prices.Usage(**use), model, provider_id=PROVIDER, price_context=context) for use in _USES
        ]
    except LookupError:
        return None
    return Rates(*(float(price.total_price) / _COUNTED for price in found))


def writes_cost_extra(model: str) -> bool:
    """Tell whether the model charges extra for input written to its cache, as models from GPT-5.6 on do."""
    rates = rates_of(model)
    return rates is not None and rates.cache_write > rates.input


def cost_of(model: str, usage: Mapping[str, Any], tier: str = STANDARD) -> float | None:
    """Return the cost of an answer in dollars, or None if the price is unknown."""
    rates = rates_of(model, tier)
    return None if rates is None else rates.cost(usage)
