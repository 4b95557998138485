"""Answers that hold the right facts in the wrong form, like those of small models on local servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Facts = Mapping[str, Any]


def with_each(facts: Facts, change: Callable[[Any], Any], *types: type) -> dict[str, Any]:
    """Return the facts with every value of these types changed."""
    return {name: change(value) if type(value) in types else value for name, value in facts.items()}


def _text_for_list(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 and isinstance(values[0], str) else values


# The text of an answer, in place of the facts as JSON.
SLOPPY: Mapping[str, Callable[[Facts], str]] = {
    "fenced": lambda facts: f"```json\n{json.dumps(facts, indent=2)}\n```",
    "prose": lambda facts: f"Sure! Here is what I see:\n{json.dumps(facts)}\nLet me know if {{more}} is needed.",
    "think": lambda facts: f'<think>\nAt first {{"relevance": 1}}, or is it?\n</think>\n\n{json.dumps(facts)}',
    "listed": lambda facts: json.dumps([facts]),
    "encoded": lambda facts: json.dumps(json.dumps(facts)),
    "extra_keys": lambda facts: json.dumps({"reasoning": "Lines and colours.", **facts}),
    "integer_as_float": lambda facts: json.dumps(with_each(facts, float, int)),
    "number_as_text": lambda facts: json.dumps(with_each(facts, str, int)),
    "boolean_as_other": lambda facts: json.dumps(with_each(facts, str, bool)),
    "enum_case": lambda facts: json.dumps(with_each(facts, str.capitalize, str)),
    "text_for_list": lambda facts: json.dumps(with_each(facts, _text_for_list, list)),
}
# Wrong in its object rather than its text: a list of parts where the API has a string, or the reverse.
PARTS = "parts"
