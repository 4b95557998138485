"""What others decide: that it stands in one place, and which of it nobody has checked for long."""

from __future__ import annotations

import datetime
import re
import warnings

from pokefa.outside import FACTS, OLD_DAYS, PRICE_LIST, old_facts
from tests.conftest import CHECKOUT

# Addresses of services and files; names of vocabularies are none.
ADDRESS = re.compile(r"https://(api\.openai\.com|serpapi\.com|github\.com/[^/]+/[^/]+/releases)")


def test_facts_that_nobody_has_checked_for_long() -> None:
    """A warning and no failure: time alone breaks nothing."""
    for fact in old_facts(datetime.date.today()):
        warnings.warn(f"{fact.what} was last checked on {fact.checked}, by {fact.source}: check it", stacklevel=1)


def test_a_fact_is_old_after_ninety_days() -> None:
    first = min(fact.checked for fact in FACTS)
    assert old_facts(first + datetime.timedelta(OLD_DAYS)) == []
    late = old_facts(first + datetime.timedelta(OLD_DAYS + 1))
    assert late and {fact.checked for fact in late} == {first}


def test_the_price_list_that_was_checked_is_the_one_that_is_installed() -> None:
    pins = [
        line
        for path in (CHECKOUT / "requirements").glob("requirements_*.txt")
        for line in path.read_text().splitlines()
        if line.startswith("genai-prices")
    ]
    assert pins and set(pins) == {f"genai-prices=={PRICE_LIST}"}


def test_addresses_stand_in_one_place() -> None:
    folders = ("pokefa", "scraping", "preprocess", "caption", "metadata", "webdataset", "quotas")
    found = {
        path.relative_to(CHECKOUT).as_posix()
        for folder in folders
        for path in (CHECKOUT / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if ADDRESS.search(line) and f'"{ADDRESS.search(line).group()}' in line  # type: ignore[union-attr]
    }
    assert found == {"pokefa/outside.py"}
