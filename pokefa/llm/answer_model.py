"""Base class and field types for the pydantic models of answers. A model gives the schema and validates the answer.

The model of a question derives from `AnswerModel` and uses the field types of this module. They also accept values
that small models write in the wrong type, such as `"84"` for 84, and record each deviation from the schema. This
module needs pydantic, which the openai package installs: import it, and models that use it, inside a function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, model_validator

from pokefa.llm.prompt import AnswerError
from pokefa.llm.reading import shown

# Keywords of JSON Schema that strict Structured Outputs and all known servers accept. Ranges are only checked here.
_SENT = ("type", "enum", "items", "description")
_OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


class AnswerModel(BaseModel):
    """The answer to one question: every field is required, and others are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")  # type: ignore[untyped-decorator]
    @classmethod
    def _note_extra_keys(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict) and not value.keys() <= cls.model_fields.keys():
            _note("extra_keys", info)
        return value

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """Return the values of the fields and the deviations from the schema.

        Returns:
            The deviations are any of `extra_keys`, `number_as_text`, `integer_as_float`, `enum_case`, `text_for_list`,
            `null_for_list`, `null_in_list`, `list_for_text` and `boolean_as_other`.

        Raises:
            AnswerError: `missing_key`, `out_of_range`, or `invalid_json` for a value of a wrong type.
        """
        found: set[str] = set()
        try:
            return cls.model_validate(answer, context=found).model_dump(), found
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False)
        missing = [str(problem["loc"][0]) for problem in problems if problem["type"] == "missing"]
        if missing:
            raise AnswerError("missing_key", f"the answer lacks {', '.join(missing)}")
        first = problems[0]
        slug = "out_of_range" if first["type"] in _OUT_OF_RANGE else "invalid_json"
        where = ".".join(map(str, first["loc"])) or "answer"
        raise AnswerError(slug, f"{where} is {shown(first['input'])}: {first['msg']}")

    @classmethod
    def strict_schema(cls) -> dict[str, Any]:
        """Return the JSON schema, limited to what Structured Outputs accept."""
        parts = cls.model_json_schema()["properties"]
        return {
            "type": "object",
            "properties": {name: _sent(part) for name, part in parts.items()},
            "required": list(parts),
            "additionalProperties": False,
        }


def _sent(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of one value with the sent keywords only, and alternative types as one list."""
    sent = {name: _sent(part[name]) if name == "items" else part[name] for name in _SENT if name in part}
    return sent | ({"type": [other["type"] for other in part["anyOf"]]} if "anyOf" in part else {})


def _note(deviation: str, info: ValidationInfo) -> None:
    if info.context is not None:
        info.context.add(deviation)


def _read_integer(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")
    if isinstance(value, (str, float)):
        _note("number_as_text" if isinstance(value, str) else "integer_as_float", info)
    return value  # pydantic accepts 80.0, "84" and "84.0", and rejects 80.5


def _read_boolean(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, bool):
        _note("boolean_as_other", info)
    return value  # pydantic accepts 0, 1, "True", "no" and the like


def _read_choice(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) and value != (lower := value.strip().lower()):
        _note("enum_case", info)
        return lower
    return value


def _read_text(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, list) and len(value) < 2:
        _note("list_for_text", info)
        return value[0] if value else None
    return value


def _read_nullable_list(value: Any, info: ValidationInfo) -> Any:
    if value is None:
        _note("null_for_list", info)
        return []
    if isinstance(value, str):
        _note("text_for_list", info)
        return [part for part in map(str.strip, value.split(",")) if part]  # no list item contains a comma
    return value


def _read_list(value: Any, info: ValidationInfo) -> Any:
    value = _read_nullable_list(value, info)
    if isinstance(value, list) and None in value:
        _note("null_in_list", info)
        return [item for item in value if item is not None]
    return value


Integer = Annotated[int, BeforeValidator(_read_integer)]
Flag = Annotated[bool, BeforeValidator(_read_boolean)]
Text = Annotated[str, BeforeValidator(_read_text)]
TextOrNull = Annotated[str | None, BeforeValidator(_read_text)]
Words = Annotated[list[str], BeforeValidator(_read_list)]
WordsOrNulls = Annotated[list[str | None], BeforeValidator(_read_nullable_list)]
in_any_case = BeforeValidator(_read_choice)  # for a Literal in lower case
