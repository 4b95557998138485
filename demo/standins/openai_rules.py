"""The rules by which the OpenAI stand-in answers about an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from demo.standins.openai_requests import Refused, decode

Rule = Callable[[Image.Image], Mapping[str, Any]]


class Rules:
    """The rules by the name of the schema, shared by all threads.

    Args:
        judge: answers schemas with `score` in their name; None = that of demo.standins.pixel_rules.
        describe: answers schemas with `caption` in their name; None = that of demo.standins.pixel_rules.
        fixed: answer about every image what the rule says about a sample drawn here.
    """

    def __init__(self, judge: Rule | None, describe: Rule | None, fixed: bool) -> None:
        self._given = {"judge": judge, "describe": describe}
        self._fixed = fixed
        self._facts: dict[str, Mapping[str, Any]] = {}

    def facts(self, schema_name: str, picture: Image.Image) -> Mapping[str, Any]:
        """Return the facts about an image.

        Raises:
            Refused: there is no rule for the schema, or the image is damaged.
        """
        rule = self._rule(schema_name)
        if not self._fixed:
            return rule(decode(picture))
        if schema_name not in self._facts:
            self._facts[schema_name] = rule(_sample())
        return self._facts[schema_name]

    def _rule(self, schema_name: str) -> Rule:
        for word, name in (("score", "judge"), ("caption", "describe")):
            if word in schema_name:
                from demo.standins import pixel_rules

                rule: Rule = self._given[name] or getattr(pixel_rules, name)
                return rule
        raise Refused(400, f"stand-in: it has no rule for the schema {schema_name!r}", "unknown_schema")


def _sample() -> Image.Image:
    """Return an image in which the demo's rules find a creature: a demo species on a plain background."""
    from demo.art.creatures import SPECIES

    picture = Image.new("RGB", (96, 96), (196, 200, 190))
    picture.paste(SPECIES[0].body, (32, 24, 64, 72))
    return picture
