"""Facts that third parties control: addresses, checksums, prices, shutdown dates, each with its source and the day of
its last check. Standard library only.

The report and a test list facts that were not checked for `OLD_DAYS` days.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TypeVar

OLD_DAYS = 90

T = TypeVar("T")


@dataclass(frozen=True)
class Fact:
    """A third-party fact: its value, its description, its source, and the day of its last check."""

    what: str
    source: str
    checked: datetime.date


FACTS: list[Fact] = []


def _fact(value: T, what: str, source: str, checked: str) -> T:
    FACTS.append(Fact(what, source, datetime.date.fromisoformat(checked)))
    return value


def old_facts(day: datetime.date) -> list[Fact]:
    """Return the facts whose last check is more than OLD_DAYS before a day."""
    return [fact for fact in FACTS if (day - fact.checked).days > OLD_DAYS]


OPENAI_ADDRESS = _fact("https://api.openai.com/v1", "address of OpenAI's API", "OpenAI's API reference", "2026-11-27")
SERPAPI_ADDRESS = _fact("https://serpapi.com", "address of SerpApi", "SerpApi's documentation", "2026-11-22")

# The prices themselves are in the package, pinned in requirements/.
PRICE_LIST = _fact(
    "0.2.3",
    "genai-prices: input, cached, written and output tokens of gpt-5-mini, gpt-6-luna and gpt-6.1-terra; half for flex "
    "and batch",
    "OpenAI's pricing page",
    "2026-11-27",
)
# OpenAI caches no prompt shorter than this.
SHORTEST_CACHED = _fact(1024, "tokens of the shortest cached prompt", "OpenAI's guide to prompt caching", "2026-11-27")
GPT_5_MINI_SHUTDOWN = _fact(
    datetime.date(2026, 12, 11), "shutdown of gpt-5-mini", "OpenAI's page of deprecations", "2026-11-27"
)
GPT_5_MINI_SUCCESSOR = _fact("gpt-6.1-terra", "successor of gpt-5-mini", "OpenAI's page of deprecations", "2026-11-27")
LOWEST_EFFORTS = _fact(
    {"gpt-5-mini": "minimal", "gpt-6-luna": "none", "gpt-6.1-terra": "none"},
    "lowest reasoning effort of each model",
    "OpenAI's pages of the models",
    "2026-11-27",
)
# Users measure about 1.2 tokens per square. The guide's number applies until the usage of answers disagrees.
PICTURE_SQUARES = _fact(
    (32, 1536, 1.62),
    "side in pixels, greatest number and tokens of the squares that a picture counts",
    "OpenAI's guide to images, for gpt-5-mini",
    "2026-11-27",
)

# The authors of both published no checksum: this is that of several independent public copies.
DEEPDANBOORU_ADDRESS = _fact(
    "https://github.com/KichangKim/DeepDanbooru/releases/download/v3-20211112-sgd-e28/"
    "deepdanbooru-v3-20211112-sgd-e28.zip",
    "address of DeepDanbooru's weights",
    "its release page",
    "2026-11-22",
)
DEEPDANBOORU_SHA256 = _fact(
    "16c16713f7096d1385effa11dc1d6cfee4fbe9d1098d13b9a9b5279abbf13046",
    "SHA-256 of DeepDanbooru's weights",
    "public copies",
    "2026-11-22",
)
LAMA_ADDRESS = _fact(
    "https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt",
    "address of LaMa's weights",
    "its release page",
    "2026-11-22",
)
LAMA_SHA256 = _fact(
    "344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9",
    "SHA-256 of LaMa's weights",
    "public copies",
    "2026-11-22",
)
