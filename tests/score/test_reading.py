"""What is read from an answer: every way to wrap the right one, and what stays refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from pokefa.llm.answer_model import AnswerModel, Flag, Integer, Text, TextOrNull, Words, WordsOrNulls, in_any_case
from pokefa.llm.client import read_reply
from pokefa.llm.prompt import AnswerError, Question
from pokefa.llm.reading import find_objects, read_text
from pokefa.llm.wire import RequestOptions, words_of
from preprocess.score.score import QUESTION, Score


class Example(AnswerModel):
    """One field of each type."""

    grade: Annotated[Integer, Field(ge=0, le=100, description="0 to 100")]
    kind: Annotated[Literal["round", "square"], in_any_case]
    good: Flag
    text: Text
    when: TextOrNull
    words: Words
    forms: WordsOrNulls


ASKED: Question[dict[str, Any]] = Question("q", "q-1", "Look.", lambda: Example, dict)
FACTS: dict[str, Any] = {
    "grade": 84,
    "kind": "round",
    "good": True,
    "text": 'It says "}{" and ```, </think>.',
    "when": None,
    "words": ["a"],
    "forms": [None, "b"],
}

# What can be done to the facts, to their JSON, and to the text around it, by the deviation that is noted.
CHANGES: Mapping[str, Any] = {
    "extra_keys": lambda facts: {"reasoning": {"grade": 3}, **facts},
    "integer_as_float": lambda facts: {**facts, "grade": float(facts["grade"])},
    "number_as_text": lambda facts: {**facts, "grade": str(facts["grade"])},
    "enum_case": lambda facts: {**facts, "kind": f" {facts['kind'].capitalize()}"},
    "boolean_as_other": lambda facts: {**facts, "good": str(facts["good"])},
    "text_for_list": lambda facts: {**facts, "words": ", ".join(facts["words"])},
    "null_in_list": lambda facts: {**facts, "words": [*facts["words"], None]},
    "null_for_list": lambda facts: {**facts, "forms": None},
    "list_for_text": lambda facts: {**facts, "text": [facts["text"]], "when": []},
}
APART = [{"integer_as_float", "number_as_text"}, {"text_for_list", "null_in_list"}]  # changes of the same value
AROUND: Mapping[str, Any] = {
    "listed": lambda text: f"[{text}]",
    "fenced": lambda text: f"```json\n{text}\n```",
    "prose": lambda text: f"Here {{it}} is:\n{text}\nI hope that {{helps}}!",
    "think": lambda text: f'<think>\nFirst {{"grade": 1}}, then {text[:9]}\n</think>\n<think>\n</think>\n{text}',
}


def bodies(text: str) -> list[dict[str, Any]]:
    """Return the objects in which servers give a text: both APIs, each as it should be and not."""
    parts = [{"type": "text", "text": text[:7]}, {"type": "text", "text": text[7:]}]
    output = [{"type": "output_text", "text": text}]
    return [
        {"choices": [{"finish_reason": "stop", "message": {"content": text}}]},
        {"choices": [{"finish_reason": "stop", "message": {"content": parts}}]},
        {"status": "completed", "output": [{"type": "reasoning"}, {"type": "message", "content": output}]},
        {"status": "completed", "output": [{"type": "message", "content": text}]},
    ]


def subsets(names: Mapping[str, Any]) -> list[set[str]]:
    return [{name for name, on in zip(names, each, strict=True) if on} for each in product((0, 1), repeat=len(names))]


def test_every_combination_of_wrappings_is_read() -> None:
    """All changes of values with all texts around them, in each object of a server."""
    seen = 0
    for changes in subsets(CHANGES):
        if any(pair <= changes for pair in APART):
            continue
        facts = FACTS
        for name in changes:
            facts = CHANGES[name](facts)
        expected = FACTS | ({"forms": []} if "null_for_list" in changes else {})
        for around in subsets(AROUND):
            text = json.dumps(facts)
            for name in AROUND:
                text = AROUND[name](text) if name in around else text
            value, fields, found = read_text(text, ASKED)
            assert value == fields == expected
            # Inside other text, a list of one is text too.
            assert found - {"prose"} == (changes | around) - {"prose"} - ({"listed"} if around - {"listed"} else set())
            assert ("prose" in found) >= ("prose" in around)
            seen += 1
        for number, body in enumerate(bodies(text)):
            answer = read_reply(body, RequestOptions("m"), ASKED, "r")
            assert (answer.value, answer.raw) == (expected, expected)
            assert ("parts" in answer.usage["deviations"]) == (number in (1, 3))
    assert seen > 4000


TEXTS = st.text(max_size=30)
ANSWERS = st.fixed_dictionaries({
    "grade": st.integers(0, 100),
    "kind": st.sampled_from(["round", "square"]),
    "good": st.booleans(),
    "text": TEXTS,
    "when": st.none() | TEXTS,
    "words": st.lists(TEXTS, max_size=4),
    "forms": st.lists(st.none() | TEXTS, max_size=4),
})  # fmt: skip


@given(ANSWERS, st.sampled_from(subsets(AROUND)), TEXTS)
def test_any_answer_is_read_from_any_wrapping(facts: dict[str, Any], around: set[str], prose: str) -> None:
    text = json.dumps(facts, ensure_ascii=False)
    for name in AROUND:
        text = AROUND[name](text) if name in around else text
    assert read_text(text, ASKED)[1] == facts
    assert read_text(f"{prose.replace('{', '(').replace('<', '(')}\n{text}", ASKED)[1] == facts


@given(ANSWERS, ANSWERS, st.sampled_from(["\n", " or rather ", "\n```\n", ""]))
def test_two_answers_count_only_where_they_agree(one: dict[str, Any], other: dict[str, Any], between: str) -> None:
    text = json.dumps(one) + between + json.dumps(other)
    if one == other:
        assert read_text(text, ASKED)[1] == one
    else:
        with pytest.raises(AnswerError, match=r"^two_objects: "):
            read_text(text, ASKED)


@given(ANSWERS, st.data())
def test_a_cut_answer_is_never_read(facts: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(facts)
    end = data.draw(st.integers(1, len(text) - 1))
    for cut in (text[:end], f"```json\n{text[:end]}"):
        with pytest.raises(AnswerError, match=r"^truncated_json: "):
            read_text(cut, ASKED)


@given(st.text(alphabet='{}[]":,\\ a1<think>/`\n', max_size=60) | st.text())
def test_no_text_is_more_than_an_answer_or_a_reason(text: str) -> None:
    try:
        read_text(text, ASKED)
    except AnswerError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"grade": 101}, "out_of_range: grade is 101: "),
        ({"grade": "-1"}, 'out_of_range: grade is "-1": '),
        ({"grade": True}, "invalid_json: grade is true: "),
        ({"grade": 80.5}, "invalid_json: grade is 80.5: "),
        ({"grade": "80.5"}, 'invalid_json: grade is "80.5": '),
        ({"grade": float("nan")}, "invalid_json: grade is NaN: "),
        ({"grade": float("inf")}, "invalid_json: grade is Infinity: "),
        ({"grade": None}, "invalid_json: grade is null: "),
        ({"kind": "oval"}, 'invalid_json: kind is "oval": '),
        ({"good": 7}, "invalid_json: good is 7: "),
        ({"text": None}, "invalid_json: text is null: "),
        ({"text": ["a", "b"]}, 'invalid_json: text is ["a", "b"]: '),
        ({"words": ["a", 2]}, "invalid_json: words.1 is 2: "),
        ({"words": {}}, "invalid_json: words is {}: "),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(AnswerError) as caught:
        read_text(json.dumps(FACTS | change), ASKED)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Sure!", 'invalid_json: no JSON object: "Sure!"'),
        ("[1]", 'invalid_json: no JSON object: "[1]"'),
        ('Use {braces} {"a", b}', "invalid_json: no JSON object: "),
        ('{"grade": 3, "kind": "round"}', "missing_key: the answer lacks good, text, when, words, forms"),
        ('<think>{"grade": 3} is', 'truncated_json: the thinking has no end: "<think>{\\"grade\\": 3} is"'),
    ],
)
def test_a_text_without_an_answer(text: str, problem: str) -> None:
    with pytest.raises(AnswerError) as caught:
        read_text(text, ASKED)
    assert str(caught.value).startswith(problem)


def test_an_example_before_the_answer_is_not_an_answer() -> None:
    example = {"grade": "0-100", "kind": "round|square"}
    assert read_text(f"RequestOptions: {json.dumps(example)}\nAnswer: {json.dumps(FACTS)}", ASKED)[0] == FACTS


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "{" * 300_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_hostile_text_is_no_answer_and_takes_no_time(text: str) -> None:
    with pytest.raises(AnswerError, match=r"^(invalid_json|truncated_json): "):
        find_objects(text)


def test_the_key_is_in_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    told = FACTS | {"text": "as sk-0123456789abcdef says"}
    assert read_text(json.dumps(told), ASKED)[1]["text"] == "as [redacted] says"
    with pytest.raises(AnswerError) as caught:  # whatever place the message is cut at
        read_text("x" * 70 + "sk-0123456789abcdef", ASKED)
    assert "sk-0" not in str(caught.value)


def test_scores() -> None:
    answer = {"relevance": 90.0, "aesthetic": "84", "artifact": "Mild"}
    value, fields, _ = read_text(json.dumps(answer), QUESTION)
    assert value == Score(90, 25, "mild")
    assert fields == {"relevance": 90, "aesthetic": 84, "artifact": "mild"}


def test_the_schema_of_scores_has_not_changed() -> None:
    """It is part of what an answer is stored under: with another one, all stored answers would be paid for again."""
    digest = hashlib.sha256(json.dumps(QUESTION.schema, sort_keys=True).encode()).hexdigest()
    assert digest == "f78b1f70d7006f5e7a52d27b621115d7655bb642b3074f446ac02720ee5469b4"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "Too small.", "code": "invalid_image"}}, "Too small."),
        ({"error": "no such model"}, "no such model"),
        ({"object": "error", "message": "Not loaded."}, "Not loaded."),
        ({"title": "Forbidden", "detail": "No right to it.", "status": 403}, "Forbidden: No right to it."),
        ({"detail": "Not Found"}, "Not Found"),
        (
            {"detail": [{"loc": ["body", "model"], "msg": "Field required"}, {"loc": ["body"], "msg": "Extra"}]},
            "body.model: Field required; body: Extra",
        ),
        ("<html>", "<html>"),
        (None, ""),
        ({"error": {}}, ""),
    ],
)
def test_the_words_of_an_error(body: object, words: str) -> None:
    assert words_of(body) == words
