"""Prices, by the list of genai-prices; what a request can cost, and what is sent so that it costs little."""

from __future__ import annotations

from typing import Any

import pytest

from demo.standins.openai_bill import PRICES, Bill, Usage
from pokefa.llm.models import MODELS
from pokefa.llm.prices import BATCH, FLEX, STANDARD, TOKENS, cost_of, rates_of, writes_cost_extra
from pokefa.llm.prompt import Question
from pokefa.llm.request import most_usd, request_body
from pokefa.llm.wire import RequestOptions
from preprocess.score.score import QUESTION as SCORE
from preprocess.score.score import load_form

QUESTION: Question[Any] = Question("q", "q-1", "Look.", load_form, dict)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tier", [STANDARD, FLEX, BATCH])
def test_the_price_list_has_openais_figures(model: str, tier: str) -> None:
    """The stand-in's table was copied from OpenAI's page, so the two lists check one another."""
    tokens = (1_000_000, 300_000, 200_000, 400_000)
    bill = Bill()
    bill.charge(model, tier, Usage(*tokens))
    assert cost_of(model, dict(zip(TOKENS, tokens, strict=True)), tier) == pytest.approx(bill.usd)
    assert set(PRICES) == set(MODELS)


def test_versions_and_unknown_models() -> None:
    assert rates_of("gpt-5-mini-2025-08-07") == rates_of("gpt-5-mini")
    assert rates_of("llava") is None and cost_of("llava", {}) is None
    assert [writes_cost_extra(model) for model in ("gpt-5-mini", "gpt-6-luna", "llava")] == [False, True, False]


def test_a_long_input_is_priced_by_the_token() -> None:
    """From 272,000 input tokens on a request costs more; many short ones do not."""
    assert cost_of("gpt-6-luna", {"input_tokens": 50_000_000}) == pytest.approx(5.00)


@pytest.mark.parametrize("model", MODELS)
def test_no_answer_costs_more_than_was_promised(model: str) -> None:
    form = RequestOptions(model)
    most = most_usd(form, SCORE, "", (768, 768))
    given, made = 24 * 24 * 1.62 + len(SCORE.instructions + str(SCORE.schema)) / 3, 4 * SCORE.output_tokens
    written = {"input_tokens": round(given), "cache_write_tokens": round(given), "output_tokens": made}
    assert (cost_of(model, written) or 0.0) < most < 20 * (cost_of(model, written) or 0.0)
    assert most_usd(form, SCORE, "", (768, 768), BATCH) == pytest.approx(most / 2)


def test_a_chat_request() -> None:
    body = request_body(RequestOptions("gpt-5-mini", "chat", "low"), QUESTION, b"jpeg", "A hint.")
    assert body == {
        "model": "gpt-5-mini",
        "messages": [
            {"role": "system", "content": "Look."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "A hint."},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,anBlZw==", "detail": "low"}},
                ],
            },
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "q", "strict": True, "schema": QUESTION.schema},
        },
        "max_completion_tokens": 1400,
        "store": False,
        "service_tier": "default",
        "reasoning_effort": "minimal",
    }
    elsewhere = request_body(RequestOptions("llava", "chat", is_openai=False), QUESTION, b"jpeg", "")
    assert {"store", "reasoning_effort", "service_tier", "max_completion_tokens"}.isdisjoint(elsewhere)
    assert elsewhere["max_tokens"] == 2400


@pytest.mark.parametrize("api", ["responses", "chat"])
def test_only_the_constant_part_is_cached_where_caching_costs(api: Any) -> None:
    body = request_body(RequestOptions("gpt-6-luna", api), SCORE, b"jpeg", "")
    assert body["prompt_cache_options"] == {"mode": "explicit"}
    assert body["prompt_cache_key"] == "pokefa_score-score-1"
    constant, picture = body["input" if api == "responses" else "messages"]
    (part,) = constant["content"]
    assert part.pop("prompt_cache_breakpoint") == {"mode": "explicit"}
    assert part == {"type": "input_text" if api == "responses" else "text", "text": SCORE.instructions}
    assert "prompt_cache_breakpoint" not in str(picture)
    assert "instructions" not in body


def test_a_short_constant_part_is_not_cached() -> None:
    body = request_body(RequestOptions("gpt-6-luna"), QUESTION, b"jpeg", "")
    assert body["prompt_cache_options"] == {"mode": "explicit"}
    assert (body["instructions"], "prompt_cache_breakpoint" in str(body)) == ("Look.", False)
    assert "prompt_cache" not in str(request_body(RequestOptions("gpt-5-mini"), SCORE, b"jpeg", ""))


def test_the_user_can_limit_the_answer() -> None:
    assert (
        request_body(RequestOptions("gpt-6-luna", max_output_tokens=77), SCORE, b"jpeg", "")["max_output_tokens"] == 77
    )
    assert (
        request_body(RequestOptions("gpt-6-luna"), SCORE, b"jpeg", "")["max_output_tokens"] == 4 * SCORE.output_tokens
    )
