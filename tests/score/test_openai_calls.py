"""The shared call through the real client, over HTTP, against the stand-in: what is sent, and every way to fail."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from demo.standins.openai_standin import NOTE, StandIn
from pokefa.errors import BudgetReached, Interrupted, PokefaError, RunError
from pokefa.llm import client
from pokefa.llm.client import Model
from pokefa.llm.images import encode_jpeg
from pokefa.llm.prompt import Answer, AnswerError, Question, object_schema, request_hash
from pokefa.llm.wire import Form
from tests.score.conftest import KEY, judge_by_width

SCHEMA = object_schema(
    {
        "relevance": {"type": "integer"},
        "aesthetic": {"type": "integer"},
        "artifact": {"type": "string", "enum": ["none", "mild", "strong"]},
    }
)
QUESTION: Question[dict[str, Any]] = Question("a_score", "test-1", "Score this picture.", SCHEMA, dict)
PICTURE = encode_jpeg(Image.new("RGB", (107, 80), "teal"))
FORM = Form("gpt-5-mini", is_openai=False)
RIGHT = {"relevance": 90, "aesthetic": 57, "artifact": "none"}

Start = Callable[..., StandIn]


@pytest.fixture
def ask(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Answer[dict[str, Any]], StandIn]]:
    """Ask a stand-in with the given options about PICTURE."""

    def run(question: Question[dict[str, Any]] = QUESTION, note: str = "", **options: Any) -> Any:
        server = stand_in(**options)
        point_to(server.address, monkeypatch)
        return Model(FORM).ask(question, PICTURE, note), server

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
        "store": False,
    }
    assert message["role"] == "user"
    assert text == {"type": "input_text", "text": "A search for Umbreon found it."}
    head, _, data = image.pop("image_url").partition(",")
    assert (image, head) == ({"type": "input_image", "detail": "high"}, "data:image/jpeg;base64")
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (sent.format, sent.size) == ("JPEG", (107, 80))


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
        (
            "invalid_json",
            "invalid_json: not JSON (Expecting value: line 1 column 1 (char 0)): "
            "'Sure! Here is the JSON you asked for.'",
        ),
        ("missing_field", "invalid_json: answer lacks relevance"),
    ],
)
def test_an_answer_that_cannot_be_used_still_has_its_price(ask: Any, failure: str, problem: str) -> None:
    """Refusals stay refusals; the others are asked for once more, and both answers are paid for."""
    tries = 1 if failure == "refusal" else 2
    answer, server = ask(failures=[failure] * 3)
    assert (answer.value, answer.problem) == (None, problem)
    assert server.counts == {failure: tries}
    once, _ = ask(failures=["refusal"])
    assert answer.usage["input_tokens"] == tries * once.usage["input_tokens"]
    assert answer.usage["usd"] > 0


@pytest.mark.parametrize("failure", ["incomplete", "failed", "empty", "invalid_json", "missing_field"])
def test_an_answer_that_cannot_be_used_is_asked_for_again(ask: Any, failure: str) -> None:
    answer, server = ask(failures=[failure])
    assert (answer.value, answer.problem) == (RIGHT, None)
    assert server.counts == {failure: 1, "answered": 1}


def test_an_answer_that_was_paid_for_counts_though_the_next_try_fails(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_RETRIES", 0)
    answer, _ = ask(failures=["invalid_json", "server_error"])
    assert answer.value is None
    assert answer.problem.startswith("server_error: 500 after 0 repetitions: ")
    assert answer.usage["input_tokens"] > 0 and answer.usage["usd"] > 0


def test_an_answer_that_the_stage_refuses_has_a_reason(ask: Any) -> None:
    def read(answer: dict[str, Any]) -> dict[str, Any]:
        raise AnswerError("invalid_json", "relevance is 900, outside 0 to 100")

    answer, _ = ask(Question("a_score", "test-1", "Score.", SCHEMA, read))
    assert answer.problem == "invalid_json: relevance is 900, outside 0 to 100"


@pytest.mark.parametrize("failure", ["rate_limit", "server_error", "cut"])
def test_what_may_pass_is_tried_again(ask: Any, failure: str) -> None:
    answer, server = ask(failures=[failure])
    assert answer.value == RIGHT
    assert server.counts == {failure: 1, "answered": 1}


def test_a_rate_limit_that_does_not_pass_costs_the_picture(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RETRIES", 2)
    with pytest.raises(AnswerError) as caught:
        ask(failures=["rate_limit"] * 3)
    assert str(caught.value).startswith("rate_limited: still refused after 2 repetitions: ")
    assert "Rate limit reached for requests per min." in str(caught.value)


def test_a_server_error_that_does_not_pass_costs_the_picture(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RETRIES", 2)
    with pytest.raises(AnswerError) as caught:
        ask(failures=["server_error"] * 3)
    assert str(caught.value).startswith("server_error: 500 after 2 repetitions: ")


def test_a_connection_that_is_always_cut_costs_the_picture(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RETRIES", 0)
    with pytest.raises(AnswerError) as caught:
        ask(failures=["cut"])
    assert str(caught.value).startswith("connection_cut: RemoteProtocolError: ")


def test_a_server_that_is_too_slow_costs_the_picture(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RETRIES", 0)
    monkeypatch.setattr(client, "TIMEOUT_S", 0.2)
    with pytest.raises(AnswerError) as caught:
        ask(latency=1.5)
    assert str(caught.value).startswith("timeout: no answer from 127.0.0.1:")
    assert type(caught.value) is AnswerError


def test_a_picture_that_the_server_cannot_read_costs_itself(ask: Any) -> None:
    with pytest.raises(AnswerError) as caught:
        ask(failures=["bad_request"])
    assert str(caught.value).startswith("bad_request: 400: ")
    assert "The image is too small to be read." in str(caught.value)


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
        Model(FORM).ask(QUESTION, PICTURE)
    assert caught.value.exit_code == 3
    host = server.address.removeprefix("http://").removesuffix("/v1")
    assert str(caught.value) == (
        f"the quota of the account at {host} is used up (insufficient_quota): what was finished is saved; add credit "
        "or raise the limit, then run the same command again"
    )
    assert server.counts == {"quota": 1}  # the SDK alone would have repeated it


def test_an_unknown_model_ends_the_run(ask: Any) -> None:
    with pytest.raises(RunError) as caught:
        ask(failures=["unknown_model"])
    assert "refuses every request to the model gpt-5-mini (404): " in str(caught.value)


def test_a_schema_that_is_not_strict_ends_the_run(ask: Any) -> None:
    loose = {**SCHEMA, "required": ["relevance"]}
    with pytest.raises(RunError) as caught:
        ask(Question("a_score", "test-1", "Score.", loose, dict))
    assert "'required' must be an array of every key in properties." in str(caught.value)


def test_a_server_that_nobody_runs_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    point_to(address, monkeypatch)
    monkeypatch.setattr(client, "MAX_RETRIES", 0)
    with pytest.raises(RunError) as caught:
        Model(FORM).ask(QUESTION, PICTURE)
    host = address.removeprefix("http://").removesuffix("/v1")
    assert str(caught.value).startswith(f"{host} cannot be reached (")
    assert str(caught.value).endswith("check the network and OPENAI_BASE_URL, then run the same command again")


def test_nothing_is_sent_once_the_run_is_to_stop(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stand_in(failures=["server_error"] * 3)
    point_to(server.address, monkeypatch)
    with pytest.raises(Interrupted):
        Model(FORM, lambda: bool(server.counts)).ask(QUESTION, PICTURE)
    assert server.counts == {"server_error": 1}


def test_one_client_serves_32_threads_at_once(stand_in: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(32, timeout=30)

    def judge(image: Image.Image) -> dict[str, Any]:
        together.wait()  # passes only when 32 requests are being answered at the same time
        return judge_by_width(image)

    server = stand_in(judge=judge)
    point_to(server.address, monkeypatch)
    model = Model(FORM)
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
        ask(Question("a_riddle", "test-1", "Score.", SCHEMA, dict))
    assert str(caught.value).startswith("bad_request: 400: ")
    assert "\n" not in str(caught.value)
