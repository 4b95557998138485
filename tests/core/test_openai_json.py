"""pokefa.openai_json without its client: sizes, schemas, and what is read from a server's answer."""

from __future__ import annotations

import io
import json
import math
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pokefa.engine import Pool, run_batches
from pokefa.errors import BudgetReached, InputError, PokefaError, RunError
from pokefa.openai_json import (
    MOST_PATCHES,
    PATCH,
    AnswerError,
    Model,
    Question,
    Settings,
    encode_jpeg,
    fit_patches,
    host_of,
    misfit,
    object_schema,
    parse_answer,
    plain,
    request_hash,
    text_of,
    tokens_of,
)

SCHEMA = object_schema(
    {
        "grade": {"type": "integer"},
        "kind": {"type": "string", "enum": ["round", "square"]},
        "good": {"type": "boolean"},
        "when": {"type": ["string", "null"]},
        "words": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
    }
)
FITTING: dict[str, Any] = {"grade": 3, "kind": "round", "good": True, "when": None, "words": ["a"]}


def patches(width: int, height: int) -> int:
    return math.ceil(width / PATCH) * math.ceil(height / PATCH)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((1024, 1024), (1024, 1024)),
        ((1536, 1024), (1536, 1024)),  # 48 x 32 squares, just what is allowed
        ((1537, 1024), (1488, 992)),  # 31 whole rows
        ((2048, 2048), (1248, 1248)),  # 39 x 39 squares
        ((3000, 2400), (1376, 1100)),  # 43 whole columns
        ((90, 90), (90, 90)),
    ],
)
def test_pictures_are_scaled_to_whole_squares(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fit_patches(*size) == fitted


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_fitted_picture_is_covered_and_keeps_its_shape(width: int, height: int) -> None:
    w, h = fit_patches(width, height)
    assert patches(w, h) <= MOST_PATCHES
    assert 1 <= w <= width and 1 <= h <= height
    if (w, h) != (width, height):
        assert patches(w, h) > MOST_PATCHES * 0.8 or min(w, h) < 11 * PATCH  # a row of squares is lost at most
        assert abs(w / width - h / height) <= 1 / min(width, height) + 1e-9


def test_a_picture_is_sent_as_a_small_enough_jpeg() -> None:
    sent = Image.open(io.BytesIO(encode_jpeg(Image.new("RGB", (3000, 2400), "teal"))))
    assert (sent.format, sent.size, sent.mode) == ("JPEG", (1376, 1100), "RGB")


def test_an_object_schema_is_strict() -> None:
    assert SCHEMA["required"] == list(FITTING)
    assert SCHEMA["additionalProperties"] is False
    assert misfit(FITTING, SCHEMA) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"grade": "3"}, 'grade is "3", not of type integer'),
        ({"grade": True}, "grade is true, not of type integer"),
        ({"grade": 3.5}, "grade is 3.5, not of type integer"),
        ({"grade": None}, "grade is null, not of type integer"),
        ({"kind": "oval"}, 'kind is "oval", not one of round, square'),
        ({"good": 1}, "good is 1, not of type boolean"),
        ({"when": 7}, "when is 7, not of type string or null"),
        ({"words": "a"}, 'words is "a", not of type array'),
        ({"words": ["a", 2]}, "words[1] is 2, not of type string"),
        ({"more": 1}, "answer has an unknown field 'more'"),
    ],
)
def test_what_does_not_fit_the_schema_is_named(change: dict[str, Any], problem: str) -> None:
    assert misfit(FITTING | change, SCHEMA) == problem


def test_a_missing_field_is_named() -> None:
    assert misfit({"grade": 3, "kind": "round"}, SCHEMA) == "answer lacks good, when, words"
    assert misfit([FITTING], SCHEMA, "it") == f"it is {json.dumps([FITTING])[:80]}, not of type object"


def test_an_unknown_word_in_a_list_is_left_to_the_stage() -> None:
    assert misfit(FITTING | {"words": ["a", "z"]}, SCHEMA) is None


def test_an_answer_is_parsed_and_checked() -> None:
    assert parse_answer(json.dumps(FITTING), SCHEMA) == FITTING


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Sure!", "invalid_json: not JSON (Expecting value: line 1 column 1 (char 0)): 'Sure!'"),
        ('{"grade": NaN}', "invalid_json: not JSON (NaN is no JSON number): '{\"grade\": NaN}'"),
        ("[1]", "invalid_json: answer is [1], not of type object"),
    ],
)
def test_text_that_is_no_answer(text: str, error: str) -> None:
    with pytest.raises(AnswerError) as caught:
        parse_answer(text, SCHEMA)
    assert str(caught.value) == error


def test_a_bottomless_answer_is_no_answer() -> None:
    with pytest.raises(AnswerError, match=r"^invalid_json: not JSON"):
        parse_answer("[" * 200_000, SCHEMA)


def message(*parts: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    thinking = {"type": "reasoning", "summary": []}
    return {"status": status, "output": [thinking, {"type": "message", "content": list(parts)}], **more}


def test_the_text_of_a_response_is_that_of_its_messages() -> None:
    body = message({"type": "output_text", "text": '{"a":'}, {"type": "output_text", "text": " 1}"})
    assert text_of(body) == '{"a": 1}'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (message({"type": "refusal", "refusal": "I can't\nhelp."}), "refusal: I can't help."),
        (
            message({"type": "output_text", "text": '{"a'}, status="incomplete",
                    incomplete_details={"reason": "max_output_tokens"}),
            "incomplete: the answer was cut short (max_output_tokens)",
        ),
        (message(status="incomplete"), "incomplete: the answer was cut short (no reason given)"),
        (
            {"status": "failed", "error": {"code": "server_error", "message": "The model failed."}, "output": []},
            "server_error: The model failed.",
        ),
        (message({"type": "output_text", "text": " "}), "invalid_json: the answer holds no text"),
        ({"output": "nonsense"}, "invalid_json: the answer holds no text"),
        ({"output": [None, {"type": "message", "content": [7]}]}, "invalid_json: the answer holds no text"),
    ],
)  # fmt: skip
def test_a_response_without_an_answer(body: dict[str, Any], error: str) -> None:
    with pytest.raises(AnswerError) as caught:
        text_of(body)
    assert str(caught.value) == error


def test_tokens_are_read_from_the_usage() -> None:
    usage = {"input_tokens": 1200, "input_tokens_details": {"cached_tokens": 1024}, "output_tokens": 30}
    assert tokens_of({"usage": usage}) == {"input_tokens": 1200, "cached_tokens": 1024, "output_tokens": 30}
    nothing = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0}
    assert tokens_of({}) == nothing
    assert tokens_of({"usage": {"input_tokens": "many", "input_tokens_details": 3, "output_tokens": -1}}) == nothing


def test_the_request_hash_changes_with_all_that_is_asked() -> None:
    def question(version: str, schema: dict[str, Any]) -> Question[dict[str, Any]]:
        return Question("q", version, "Look.", schema, dict)

    one = question("q-1", SCHEMA)
    asked = [
        request_hash("m", one, b"picture", ""),
        request_hash("n", one, b"picture", ""),
        request_hash("m", question("q-2", SCHEMA), b"picture", ""),
        request_hash("m", question("q-1", object_schema({})), b"picture", ""),
        request_hash("m", one, b"another", ""),
        request_hash("m", one, b"picture", "a hint"),
    ]
    assert len(set(asked)) == len(asked)
    assert asked[0] == request_hash("m", question("q-1", SCHEMA), b"picture", "")


@given(st.text(alphabet=st.characters()))
def test_plain_text_fits_into_a_cell_and_on_a_line(text: str) -> None:
    line = plain(text)
    line.encode("utf-8")
    assert len(line) <= 300
    assert len(line.splitlines()) <= 1 and "\0" not in line
    assert plain("a\ud800b\x00c\n d") == "a?b c d"


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://api.openai.com/v1", "api.openai.com"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("https://user:word@models.example/v1", "models.example"),
    ],
)
def test_only_the_host_of_an_address_is_shown(address: str, host: str) -> None:
    assert host_of(address) == host


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://example.org", "http://", "http://h:port/"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(InputError) as caught:
        host_of(address)
    assert str(caught.value) == ("OPENAI_BASE_URL is not an address that starts with http:// or https://: correct it")


def test_a_missing_key_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError) as caught:
        Model(Settings())
    assert str(caught.value) == "OPENAI_API_KEY is not set: export OPENAI_API_KEY=your-key and run again"


@pytest.mark.parametrize("key", ["sk-with a space", "sk-ключ", "sk-two\nlines"])
def test_a_key_that_no_header_can_hold_is_not_quoted(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError) as caught:
        Model(Settings())
    assert str(caught.value) == "OPENAI_API_KEY holds characters that no key has: set it again"


def test_a_missing_package_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-for-tests")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(PokefaError) as caught:
        Model(Settings())
    assert str(caught.value) == (
        "the openai package is not installed: python -m pip install -r requirements/requirements_score.txt"
    )


@pytest.mark.parametrize("error", [RunError("the key is refused"), BudgetReached("the quota is used up")])
def test_an_error_of_the_run_ends_the_map_and_what_was_in_flight_still_counts(error: RunError) -> None:
    raised = threading.Event()

    def work(batch: Sequence[int]) -> list[int]:
        if batch[0] == 2:
            raised.set()
            raise error
        assert raised.wait(10)
        return list(batch)

    yielded = []
    with pytest.raises(type(error), match=str(error)):
        for outcome in run_batches(lambda: work, range(100), Pool("thread", workers=4, queued=2, grace=10)):
            yielded.append(outcome)
    items = {outcome.item for outcome in yielded}
    assert {0, 1, 3} <= items <= {0, 1, 3, 4, 5, 6, 7}  # of eight that were handed out, those that had started
    assert all(outcome.error is None for outcome in yielded)
