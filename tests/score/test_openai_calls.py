"""The shared call through the real client, over HTTP, against the stand-in: what is sent, and every way to fail."""

from __future__ import annotations

import base64
import datetime
import io
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from PIL import Image
from pydantic import TypeAdapter

from demo.standins import openai_failures
from demo.standins.openai_sloppy import PARTS, SLOPPY
from demo.standins.openai_standin import NOTE, StandIn
from pokefa.errors import BudgetReached, Interrupted, PokefaError, RunError
from pokefa.llm import failures, flex
from pokefa.llm.budget import Budget
from pokefa.llm.client import Client
from pokefa.llm.images import encode_jpeg
from pokefa.llm.prompt import Answer, AnswerError, Question, request_hash
from pokefa.llm.request import most_usd, request_body
from pokefa.llm.wire import APIS, Api, RequestOptions
from preprocess.score.answer import ScoreAnswer
from preprocess.score.score import QUESTION as SCORE
from preprocess.score.score import load_form
from tests.score.conftest import KEY, judge_by_width

QUESTION: Question[dict[str, Any]] = Question("a_score", "test-1", "Score this picture.", load_form, dict)
SCHEMA = QUESTION.schema
PICTURE = encode_jpeg(Image.new("RGB", (107, 80), "teal"))
FORM = RequestOptions("gpt-5-mini", is_openai=False)
FLEX_FORM = RequestOptions("gpt-5-mini", is_openai=False, flex=True)
RIGHT = {"relevance": 90, "aesthetic": 57, "artifact": "none"}

Start = Callable[..., StandIn]


@pytest.fixture
def ask(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Answer[dict[str, Any]], StandIn]]:
    """Ask a stand-in with the given options about PICTURE."""

    def run(question: Question[dict[str, Any]] = QUESTION, note: str = "", **options: Any) -> Any:
        server = stand_in(**options)
        point_to(server.address, monkeypatch)
        answer = Client(FORM).ask(question, PICTURE, note)
        assert answer.usage["usd"] == pytest.approx(server.bill.usd, abs=1e-8)
        return answer, server

    return run


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_the_request_is_what_a_reasoning_model_takes(ask: Any) -> None:
    answer, server = ask(note="A search for Umbreon found it.")
    assert answer.value == RIGHT
    (request,) = server.requests
    (message,) = request.pop("input")
    text, image = message["content"]
    assert request == {
        "model": "gpt-5-mini",
        "instructions": "Score this picture.",
        "text": {"format": {"type": "json_schema", "name": "a_score", "strict": True, "schema": SCHEMA}},
        "reasoning": {"effort": "minimal"},
        "max_output_tokens": 4 * 100 + 1000,  # what the answer can need, and room to think
        "store": False,
    }
    assert message["role"] == "user"
    assert text == {"type": "input_text", "text": "A search for Umbreon found it."}
    head, _, data = image.pop("image_url").partition(",")
    assert (image, head) == ({"type": "input_image", "detail": "high"}, "data:image/jpeg;base64")
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (sent.format, sent.size) == ("JPEG", (107, 80))


@pytest.mark.parametrize(
    ("api", "known"), [("responses", ResponseCreateParamsNonStreaming), ("chat", CompletionCreateParamsNonStreaming)]
)
def test_requests_are_valid_by_the_types_of_the_openai_package(
    stand_in: Start, monkeypatch: pytest.MonkeyPatch, api: Api, known: Any
) -> None:
    server = stand_in()
    point_to(server.address, monkeypatch)
    Client(replace(FORM, api=api, is_openai=True)).ask(QUESTION, PICTURE, "A search for Umbreon found it.")
    (request,) = server.requests
    valid = TypeAdapter(known).validate_python(request)
    assert list(valid.get("messages", valid.get("input")))  # some lists are checked only as they are read
    assert set(request) <= set(get_type_hints(known))


def test_an_answer_comes_with_what_it_cost(ask: Any) -> None:
    answer, _ = ask()
    assert answer.problem is None
    assert answer.model == "gpt-5-mini-stand-in"
    assert answer.usage["question"] == "test-1"
    assert answer.usage["request"] == request_hash("gpt-5-mini", QUESTION, PICTURE, "")
    assert answer.usage["response"].startswith("resp_standin_")
    assert answer.usage["input_tokens"] > 20 and answer.usage["output_tokens"] > 10
    assert answer.usage["cached_tokens"] == 0


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        ("refusal", "refusal: I'm sorry, but I can't help with that picture."),
        ("incomplete", "incomplete: the answer was cut short (max_output_tokens)"),
        ("failed", "server_error: The model failed."),
        ("empty", "invalid_json: the answer holds no text"),
        ("content_filter", "refusal: the server's content filter kept the answer back"),
        ("invalid_json", 'invalid_json: no JSON object: "Sure! Here is the JSON you asked for."'),
        ("missing_field", "missing_key: the answer lacks relevance"),
    ],
)
def test_an_answer_that_cannot_be_used_still_has_its_price(ask: Any, failure: str, problem: str) -> None:
    """Refusals stay refusals; the others are asked for once more, and both answers are paid for."""
    tries = 1 if problem.startswith("refusal") else 2
    answer, server = ask(failures=[failure] * 3)
    assert (answer.value, answer.problem) == (None, problem)
    assert server.counts == {failure: tries}
    once, _ = ask(failures=["refusal"])
    assert answer.usage["input_tokens"] == tries * once.usage["input_tokens"]
    assert answer.usage["usd"] > 0


@pytest.mark.parametrize("failure", ["incomplete", "failed", "missing_field", "out_of_range", "two_objects"])
def test_an_answer_that_cannot_be_used_is_asked_for_again(ask: Any, failure: str) -> None:
    answer, server = ask(failures=[failure])
    assert (answer.value, answer.problem) == (RIGHT, None)
    assert server.counts == {failure: 1, "answered": 1}


def test_an_answer_that_was_paid_for_counts_though_the_next_try_fails(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MAX_RETRIES", 0)
    answer, _ = ask(failures=["invalid_json", "server_error"])
    assert answer.value is None
    assert answer.problem.startswith("server_error: 500 after 0 repetitions: ")
    assert answer.usage["input_tokens"] > 0 and answer.usage["usd"] > 0


def test_cached_written_and_runaway_tokens_are_charged_as_the_server_does(
    stand_in: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stand_in(failures=["", "", "runaway"])
    point_to(server.address, monkeypatch)
    model = Client(RequestOptions("gpt-6-luna", is_openai=False))
    pictures = [encode_jpeg(Image.new("RGB", (100 + number, 80), "teal")) for number in range(3)]
    usages = [model.ask(SCORE, jpeg, size=(100, 80)).usage for jpeg in pictures]
    beginning = len(SCORE.instructions) // 4
    # Written once and read from then on; the third answer was cut short and asked for again.
    assert [usage["cache_write_tokens"] for usage in usages] == [beginning, 0, 0]
    assert [usage["cached_tokens"] for usage in usages] == [0, beginning, 2 * beginning]
    assert usages[2]["output_tokens"] > 4 * SCORE.output_tokens
    assert sum(usage["usd"] for usage in usages) == pytest.approx(server.bill.usd, abs=1e-8)


def test_left_to_itself_the_cache_would_cost_more(stand_in: Start) -> None:
    """What the explicit mode is for: each new picture is written to the cache, and never read."""
    server = stand_in()
    for number in range(2):
        picture = encode_jpeg(Image.new("RGB", (100 + number, 80), "teal"))
        body = request_body(RequestOptions("gpt-6-luna", is_openai=False), SCORE, picture, "")
        del body["prompt_cache_options"]
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.address}/responses", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            usage = json.load(answer)["usage"]
        assert usage["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": usage["input_tokens"]}


def test_a_lost_answer_counts_against_the_limit_and_is_asked_for_again(
    stand_in: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stand_in(failures=["lost", "cut"])
    point_to(server.address, monkeypatch)
    budget = Budget(1.0)
    answer = Client(FORM).ask(QUESTION, PICTURE, size=(107, 80), budget=budget)
    most = most_usd(FORM, QUESTION, "", (107, 80))
    assert (answer.value, server.counts) == (RIGHT, {"lost": 1, "cut": 1, "answered": 1})
    assert budget.lost == pytest.approx(2 * most)
    assert answer.usage["usd"] < server.bill.usd <= budget.spent == pytest.approx(2 * most + answer.usage["usd"])


def test_a_second_try_asks_the_budget(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stand_in(failures=["runaway", "runaway"])
    point_to(server.address, monkeypatch)
    budget = Budget(1.5 * most_usd(FORM, QUESTION, "", (107, 80)))
    answer = Client(FORM).ask(QUESTION, PICTURE, size=(107, 80), budget=budget)
    assert server.counts == {"runaway": 1}
    assert answer.problem is not None
    assert answer.problem.startswith("incomplete: the answer was cut short (max_output_tokens); --max-cost ")
    assert budget.spent == pytest.approx(server.bill.usd, abs=1e-8)


def test_a_flex_tier_without_room_is_waited_for(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "SHORTEST_REST_S", 0.01)
    server = stand_in(failures=["no_room"] * 3)
    point_to(server.address, monkeypatch)
    answer = Client(FLEX_FORM, patience=60).ask(QUESTION, PICTURE, size=(107, 80))
    assert (answer.value, answer.usage["tier"]) == (RIGHT, "flex")
    assert server.counts == {"no_room": 3, "answered": 1}
    assert {request["service_tier"] for request in server.requests} == {"flex"}
    assert answer.usage["usd"] == pytest.approx(server.bill.usd, abs=1e-9)
    standard = stand_in()
    point_to(standard.address, monkeypatch)
    Client(FORM).ask(QUESTION, PICTURE, size=(107, 80))
    assert server.bill.usd == pytest.approx(standard.bill.usd / 2)


def test_without_patience_the_standard_tier_is_asked_or_the_run_stops(
    stand_in: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stand_in(failures=["no_room"])
    point_to(server.address, monkeypatch)
    model = Client(FLEX_FORM, patience=0, then="standard")
    answer = model.ask(QUESTION, PICTURE, size=(107, 80))
    assert (answer.value, answer.usage["tier"]) == (RIGHT, "default")
    assert [request.get("service_tier") for request in server.requests] == ["flex", None]
    assert answer.usage["usd"] == pytest.approx(server.bill.usd, abs=1e-9)
    point_to(stand_in(failures=["no_room"] * 2).address, monkeypatch)
    with pytest.raises(BudgetReached, match=r"^the flex tier has had no room for 0 s: "):
        Client(FLEX_FORM, patience=0).ask(QUESTION, PICTURE, size=(107, 80))


def test_a_model_without_flex_ends_the_run(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(stand_in(failures=["no_flex"]).address, monkeypatch)
    with pytest.raises(RunError, match=r"has no flex tier for the model gpt-5-mini \(400\): .*: leave --flex out$"):
        Client(FLEX_FORM).ask(QUESTION, PICTURE)


def test_the_server_is_asked_when_a_model_is_shut_down(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(stand_in(shutdowns={"gpt-5-mini": "2027-02-01", "gpt-6-luna": None}).address, monkeypatch)
    model = Client(FORM)
    assert model.shutdown_of("gpt-5-mini") == datetime.date(2027, 2, 1)
    assert model.shutdown_of("gpt-6-luna") is None
    with pytest.raises(LookupError):
        model.shutdown_of("gpt-7")


def test_an_answer_that_the_stage_refuses_has_a_reason(ask: Any) -> None:
    def read(answer: dict[str, Any]) -> dict[str, Any]:
        raise AnswerError("empty_caption", "it holds no sentence")

    answer, _ = ask(Question("a_score", "test-1", "Score.", load_form, read))
    assert answer.problem == "empty_caption: it holds no sentence"


@pytest.mark.parametrize("api", APIS)
def test_what_a_small_model_answers_is_used(stand_in: Start, monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    names = [*SLOPPY, PARTS]
    server = stand_in(failures=names)
    point_to(server.address, monkeypatch)
    model = Client(replace(FORM, api=api))
    for name in names:
        answer = model.ask(QUESTION, PICTURE)
        assert (answer.value, answer.raw, answer.problem) == (RIGHT, RIGHT, None), name
        unchanged = name in ("boolean_as_other", "text_for_list")  # scores have neither
        assert answer.usage.get("deviations") == (None if unchanged else [name])
    assert server.counts == dict.fromkeys(names, 1)  # none was asked for twice


@pytest.mark.parametrize("failure", ["rate_limit", "server_error", "cut", "error_in_200", "no_choices"])
def test_what_may_pass_is_tried_again(ask: Any, failure: str) -> None:
    answer, server = ask(failures=[failure])
    assert answer.value == RIGHT
    assert server.counts == {failure: 1, "answered": 1}


def test_a_rate_limit_that_does_not_pass_costs_the_picture(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_RETRIES", 2)
    with pytest.raises(AnswerError) as caught:
        ask(failures=["rate_limit"] * 3)
    assert str(caught.value).startswith("rate_limited: still refused after 2 repetitions: ")
    assert "Rate limit reached for requests per min." in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        ("server_error", 500, "The server had an error while processing your request."),
        ("error_in_200", 503, "The upstream model is loading."),
        ("no_choices", 500, "The upstream model is loading."),
    ],
)
def test_a_server_error_that_does_not_pass_costs_the_picture(
    ask: Any, monkeypatch: pytest.MonkeyPatch, failure: str, status: int, words: str
) -> None:
    monkeypatch.setattr(failures, "MAX_RETRIES", 2)
    with pytest.raises(AnswerError) as caught:
        ask(failures=[failure] * 3)
    assert str(caught.value) == f"server_error: {status} after 2 repetitions: {words}"


def test_a_connection_that_is_always_cut_costs_the_picture(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_RETRIES", 0)
    with pytest.raises(AnswerError) as caught:
        ask(failures=["cut"])
    assert str(caught.value).startswith("connection_cut: RemoteProtocolError: ")


def test_a_server_that_is_too_slow_costs_the_picture(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_RETRIES", 0)
    point_to(stand_in(latency=1.5).address, monkeypatch)
    with pytest.raises(AnswerError) as caught:
        Client(replace(FORM, timeout=0.2)).ask(QUESTION, PICTURE)
    assert str(caught.value).startswith("timeout: no answer from 127.0.0.1:")
    assert type(caught.value) is AnswerError


def test_a_picture_that_the_server_cannot_read_costs_itself(ask: Any) -> None:
    with pytest.raises(AnswerError) as caught:
        ask(failures=["bad_request"])
    assert str(caught.value).startswith("bad_request: 400: ")
    assert "The image is too small to be read." in str(caught.value)


def test_the_words_of_any_error_are_shown(ask: Any) -> None:
    with pytest.raises(AnswerError) as caught:
        ask(failures=["unprocessable"])
    assert str(caught.value) == "bad_request: 422: body.store: Extra inputs"


def test_a_redirect_is_not_followed(stand_in: Start, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Picture, prompt and the name of the organization would go to whomever the server names."""
    other = stand_in()
    monkeypatch.setattr(openai_failures, "ELSEWHERE", f"{other.address}/responses")
    with pytest.raises(RunError) as caught:
        ask(failures=["redirect"])
    host = other.address.removeprefix("http://").removesuffix("/v1")
    assert f" redirects to {host} (307): set OPENAI_BASE_URL to " in str(caught.value)
    assert (other.connections, other.requests) == (0, [])


def test_a_refused_key_ends_the_run(ask: Any) -> None:
    with pytest.raises(RunError) as caught:
        ask(key="another-key-altogether")
    message = str(caught.value)
    assert message.endswith(" refuses the key (401): set OPENAI_API_KEY to a valid key and run again")
    assert KEY[-4:] not in message


def test_a_quota_that_is_used_up_stops_at_once(ask: Any, stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stand_in(failures=["quota"] * 5)
    point_to(server.address, monkeypatch)
    with pytest.raises(BudgetReached) as caught:
        Client(FORM).ask(QUESTION, PICTURE)
    assert caught.value.exit_code == 3
    host = server.address.removeprefix("http://").removesuffix("/v1")
    assert str(caught.value) == (
        f"the quota of the account at {host} is used up (insufficient_quota): finished work is saved; add credit "
        "or raise the limit, then run the same command again"
    )
    assert server.counts == {"quota": 1}  # the SDK alone would have repeated it


def test_an_unknown_model_ends_the_run(ask: Any) -> None:
    with pytest.raises(RunError) as caught:
        ask(failures=["unknown_model"])
    assert "refuses every request to the model gpt-5-mini (404): " in str(caught.value)


def test_a_schema_that_is_not_strict_ends_the_run(ask: Any) -> None:
    class Loose(ScoreAnswer):
        @classmethod
        def strict_schema(cls) -> dict[str, Any]:
            return {**SCHEMA, "required": ["relevance"]}

    with pytest.raises(RunError) as caught:
        ask(Question("a_score", "test-1", "Score.", lambda: Loose, dict))
    assert "'required' must be an array of every key in properties." in str(caught.value)


def test_a_server_that_nobody_runs_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    point_to(address, monkeypatch)
    monkeypatch.setattr(failures, "MAX_RETRIES", 0)
    with pytest.raises(RunError) as caught:
        Client(FORM).ask(QUESTION, PICTURE)
    host = address.removeprefix("http://").removesuffix("/v1")
    assert str(caught.value).startswith(f"{host} cannot be reached (")
    assert str(caught.value).endswith("check the network and OPENAI_BASE_URL, then run the same command again")


def test_nothing_is_sent_once_the_run_is_to_stop(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stand_in(failures=["server_error"] * 3)
    point_to(server.address, monkeypatch)
    with pytest.raises(Interrupted):
        Client(FORM, lambda: bool(server.counts)).ask(QUESTION, PICTURE)
    assert server.counts == {"server_error": 1}


def test_one_client_serves_32_threads_at_once(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(32, timeout=30)

    def judge(image: Image.Image) -> dict[str, Any]:
        together.wait()  # passes only when 32 requests are being answered at the same time
        return judge_by_width(image)

    server = stand_in(judge=judge)
    point_to(server.address, monkeypatch)
    model = Client(FORM)
    values: list[Any] = []

    def ask_twice() -> None:
        values.extend(model.ask(QUESTION, PICTURE).value for _ in range(2))

    threads = [threading.Thread(target=ask_twice) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [RIGHT] * 64
    assert server.counts == {"answered": 64}
    assert server.connections == 32  # each is used again for the second request


def test_every_answer_says_that_it_is_a_stand_ins(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    import openai

    server = stand_in(failures=["", "bad_request"])
    client = openai.OpenAI(api_key=KEY, base_url=server.address, max_retries=0)
    data = base64.b64encode(PICTURE).decode()
    content = [{"type": "input_image", "detail": "auto", "image_url": f"data:image/jpeg;base64,{data}"}]
    form = {"type": "json_schema", "name": "a_score", "strict": True, "schema": SCHEMA}
    asked: Any = {
        "model": "gpt-5-mini",
        "input": [{"role": "user", "content": content}],
        "text": {"format": form},
    }
    raw = client.responses.with_raw_response.create(**asked)
    response = raw.parse()
    assert raw.headers["X-Stand-In"] == NOTE
    assert response.metadata == {"stand_in": NOTE}
    assert response.model == "gpt-5-mini-stand-in"
    assert (response.object, response.status, response.output_text[:1]) == ("response", "completed", "{")
    assert response.usage is not None and response.usage.input_tokens_details.cached_tokens == 0
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**asked)
    assert caught.value.response.headers["X-Stand-In"] == NOTE
    with pytest.raises(openai.BadRequestError, match="Unsupported parameter: 'temperature' is not supported"):
        client.responses.create(**asked, temperature=0.2)


def test_the_stand_in_asks_for_a_key(stand_in: Start) -> None:
    request = urllib.request.Request(f"{stand_in().address}/responses", data=b"{}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as answer:
        assert answer.status == 401
        assert json.load(answer)["error"]["message"].startswith("You didn't provide an API key.")


def test_other_errors_are_one_line_of_the_picture(ask: Any) -> None:
    with pytest.raises(PokefaError) as caught:
        ask(Question("a_riddle", "test-1", "Score.", load_form, dict))
    assert str(caught.value).startswith("bad_request: 400: ")
    assert "\n" not in str(caught.value)
