"""The stand-in for OpenAI, asked by the openai package and by plain HTTP: its answers, limits, batches and failures."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest
from openai.types import Batch, FileObject
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses import Response
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from PIL import Image

from demo.standins.openai_answers import ANSWER_FAILURES
from demo.standins.openai_limits import Bucket, Limits, duration
from demo.standins.openai_requests import CHAT_PARAMETERS, RESPONSES_PARAMETERS, Refused
from demo.standins.openai_sloppy import PARTS, SLOPPY
from demo.standins.openai_standin import FAILURES, LINE_FAILURES, NOTE, StandIn, run_server
from demo.standins.pixel_rules import describe, judge
from tests.conftest import CHECKOUT
from tests.score.conftest import KEY

Json = dict[str, Any]
Start = Callable[..., StandIn]

SCHEMA = {
    "type": "object",
    "properties": {"relevance": {"type": "integer"}, "aesthetic": {"type": "integer"}, "artifact": {"type": "string"}},
    "required": ["relevance", "aesthetic", "artifact"],
    "additionalProperties": False,
}
RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
ENDPOINTS = pytest.mark.parametrize("endpoint", [RESPONSES, CHAT])


def picture(width: int = 107, height: int = 80) -> str:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(stream, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def question(endpoint: str, width: int = 107, *, name: str = "a_score", instructions: str = "Score it.") -> Json:
    """Return the body of a request about a picture so wide; `judge_by_width` scores it width - 50."""
    if endpoint == RESPONSES:
        content = [{"type": "input_image", "detail": "high", "image_url": picture(width)}]
        form = {"type": "json_schema", "name": name, "strict": True, "schema": SCHEMA}
        return {
            "model": "gpt-5-mini",
            "instructions": instructions,
            "input": [{"role": "user", "content": content}],
            "text": {"format": form},
            "store": False,
        }
    return {
        "model": "gpt-5-mini",
        "messages": [
            {"role": "developer", "content": instructions},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": picture(width), "detail": "high"}}],
            },
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": name, "strict": True, "schema": SCHEMA},
        },
        "store": False,
    }


def facts_of(endpoint: str, body: Mapping[str, Any]) -> Json:
    """Return the JSON that an answer's body says."""
    if endpoint == RESPONSES:
        (message,) = [item for item in body["output"] if item["type"] == "message"]
        found: Json = json.loads(message["content"][0]["text"])
    else:
        found = json.loads(body["choices"][0]["message"]["content"])
    return found


def right(width: int) -> Json:
    return {"relevance": 90, "aesthetic": width - 50, "artifact": "none"}


def client(server: StandIn, key: str = KEY, **options: Any) -> openai.OpenAI:
    settings = {"max_retries": 0, "timeout": 30.0, **options}
    # Loopback has no certificates, and loading those of the world takes longer than most of these tests.
    http = openai.DefaultHttpxClient(verify=False)
    return openai.OpenAI(base_url=server.address, api_key=key, http_client=http, **settings)


def post(server: StandIn, endpoint: str, body: Json) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    address = server.address + endpoint.removeprefix("/v1")
    return httpx2.post(address, json=body, headers=headers, timeout=30, verify=False)


@contextmanager
def running(*arguments: str) -> Iterator[dict[str, Any]]:
    """Run the stand-in as a program and yield the JSON line that it prints; it must end well when asked to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.standins.openai_standin", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


# The process


def test_a_process_answers_from_the_pixels_by_the_demos_rules() -> None:
    with running("--port", "0") as addresses:
        assert addresses["stand-in"] is True
        assert addresses["openai"].startswith("http://127.0.0.1:") and addresses["openai"].endswith("/v1")
        caller = openai.OpenAI(base_url=addresses["openai"], api_key=KEY, max_retries=0)
        scored = caller.responses.create(**question(RESPONSES, 320))
        captioned = caller.chat.completions.create(**question(CHAT, 320, name="a_caption"))
    seen = Image.open(io.BytesIO(base64.b64decode(picture(320).partition(",")[2]))).convert("RGB")
    assert json.loads(scored.output_text) == judge(seen)
    assert json.loads(captioned.choices[0].message.content or "") == describe(seen)


def test_a_process_takes_limits_and_fixed_answers_as_flags() -> None:
    flags = ["--fixed", "--requests-per-minute", "2", "--tokens-per-minute", "90000", "--batch-polls", "1"]
    with running(*flags) as addresses:
        caller = openai.OpenAI(base_url=addresses["openai"], api_key=KEY, max_retries=0)
        answers = [caller.responses.create(**question(RESPONSES, width)).output_text for width in (320, 100)]
        with pytest.raises(openai.RateLimitError, match="Limit 2, Used 2, Requested 1"):
            caller.responses.create(**question(RESPONSES))
    assert answers[0] == answers[1]


def test_the_help_says_that_it_is_a_stand_in() -> None:
    command = [sys.executable, "-m", "demo.standins.openai_standin", "--help"]
    shown = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    assert shown.index("A stand-in for the OpenAI API, on this machine only") < shown.rindex("--tokens-per-minute")


def test_a_port_that_is_taken_is_wrong_usage(stand_in: Start) -> None:
    port = stand_in().address.removeprefix("http://127.0.0.1:").removesuffix("/v1")
    finished = subprocess.run(
        [sys.executable, "-m", "demo.standins.openai_standin", "--port", port],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    assert f"error: --port {port} cannot be taken: Address already in use" in finished.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--latency", "-1"], "--port, --fail-every and --latency must not be negative, and a port is below 65536"),
        (["--batch-polls", "-1"], "--batch-polls and --batch-seconds must not be negative"),
        (["--requests-per-minute", "0"], "--requests-per-minute and --tokens-per-minute must be above 0"),
        (["--limit-window", "0"], "--limit-window must be above 0"),
    ],
)
def test_a_wrong_flag_is_wrong_usage(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    from demo.standins.openai_standin import main

    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


def test_an_unknown_failure_is_named() -> None:
    with pytest.raises(ValueError, match=r"^unknown failure 'rate-limit': it is one of rate_limit, quota"):
        StandIn(failures=["rate-limit"])
    with pytest.raises(ValueError, match=r"^call_failures knows upload, download"):
        StandIn(call_failures={"uploads": ["cut"]})


# Answers


def test_responses_have_the_published_shape(stand_in: Start) -> None:
    answer = client(stand_in()).responses.create(**question(RESPONSES))
    assert json.loads(answer.output_text) == right(107)
    assert (answer.status, answer.model) == ("completed", "gpt-5-mini-stand-in")
    assert answer.metadata == {"stand_in": NOTE}
    assert answer.usage is not None
    # A picture of 107×80 is 4 × 3 squares, times 1.62; the text counts by its length.
    text = len("Score it." + json.dumps(SCHEMA)) // 4
    assert answer.usage.input_tokens == text + 20
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_chat_completions_have_the_published_shape(stand_in: Start) -> None:
    answer = client(stand_in()).chat.completions.create(**question(CHAT))
    (choice,) = answer.choices
    assert json.loads(choice.message.content or "") == right(107)
    assert (choice.finish_reason, choice.message.refusal, choice.message.role) == ("stop", None, "assistant")
    assert (answer.object, answer.model) == ("chat.completion", "gpt-5-mini-stand-in")
    assert answer.metadata == {"stand_in": NOTE}
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_objects_are_valid_by_the_types_of_the_openai_package(stand_in: Start) -> None:
    server = stand_in(batch_failures=["", "expired", "token_limit"])
    caller = client(server)
    for failure in ["", *(name for name in ANSWER_FAILURES if name not in (*SLOPPY, PARTS))]:
        told = stand_in(failures=[failure, failure])
        Response.model_validate(post(told, RESPONSES, question(RESPONSES)).json())
        if failure != "failed":
            ChatCompletion.model_validate(post(told, CHAT, question(CHAT)).json())
    for _ in range(3):
        batch_id = submit(caller, lines_of(RESPONSES, range(100, 103)))
        shown = caller.batches.with_raw_response.retrieve(batch_id).http_response.json()
        assert set(Batch.model_validate(shown).to_dict()) == set(Batch.model_fields)
    files = caller.files.with_raw_response.list().http_response.json()["data"]
    assert len(files) == 3 + 3  # of the batches, one has an output, and one an output and errors
    for file in files:
        FileObject.model_validate(file)


def test_both_apis_count_the_same_tokens(stand_in: Start) -> None:
    caller = client(stand_in())
    answer = caller.responses.create(**question(RESPONSES))
    chat = caller.chat.completions.create(**question(CHAT))
    assert answer.usage is not None and chat.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (
        chat.usage.prompt_tokens,
        chat.usage.completion_tokens,
    )


@ENDPOINTS
def test_long_instructions_are_cached_from_the_second_time_on(stand_in: Start, endpoint: str) -> None:
    server = stand_in()
    cached = []
    for width in (100, 101):
        usage = post(server, endpoint, question(endpoint, width, instructions="Score it. " * 600)).json()["usage"]
        details = usage["input_tokens_details" if endpoint == RESPONSES else "prompt_tokens_details"]
        cached.append(details["cached_tokens"])
    assert cached == [0, 1536]  # of 1,500 tokens of instructions and some 60 of schema, in steps of 128


def test_metadata_come_back_beside_the_note(stand_in: Start) -> None:
    caller = client(stand_in())
    sent = {"run": "score-1"}
    expected = {"run": "score-1", "stand_in": NOTE}
    assert caller.responses.create(**question(RESPONSES), metadata=sent).metadata == expected
    assert caller.chat.completions.create(**question(CHAT), metadata=sent).metadata == expected


def test_fixed_answers_decode_no_picture(stand_in: Start) -> None:
    seen: list[tuple[int, int]] = []

    def rule(image: Image.Image) -> Json:
        seen.append(image.size)
        return right(100)

    server = stand_in(judge=rule, fixed=True)
    cut = question(RESPONSES)
    image = cut["input"][0]["content"][0]
    image["image_url"] = image["image_url"][:-400]  # the head is whole, the pixels are not
    for body in (cut, question(RESPONSES, 640)):
        answer = post(server, RESPONSES, body)
        assert (answer.status_code, facts_of(RESPONSES, answer.json())) == (200, right(100))
    assert seen == [(96, 96)]
    assert post(stand_in(), RESPONSES, cut).json()["error"]["code"] == "invalid_image"


def test_fixed_captions_are_about_a_species(stand_in: Start) -> None:
    server = stand_in(fixed=True)
    facts = facts_of(CHAT, post(server, CHAT, question(CHAT, name="a_caption")).json())
    assert facts["pokemon"] == ["umbreon"]
    assert "Umbreon" in facts["caption"]


# Refusals of a request


def without(body: Json, name: str) -> Json:
    return {key: value for key, value in body.items() if key != name}


def twice(value: Any) -> Any:
    """Return a list of messages with the last of them, the one with the picture, sent twice."""
    return [*value, value[-1]] if isinstance(value, list) else value


@ENDPOINTS
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda body: without(body, "model"), "missing_required_parameter"),
        (lambda body: without(without(body, "input"), "messages"), "missing_required_parameter"),
        (lambda body: {**body, "temperature": 0}, "unsupported_parameter"),
        (lambda body: {**body, "top_p": 1}, "unsupported_parameter"),
        (lambda body: {**body, "max_tokens": 9}, "unsupported_parameter"),
        (lambda body: {**body, "colour": "red"}, "unknown_parameter"),
        (lambda body: {**body, "stream": True}, "unsupported_value"),
        (lambda body: without(without(body, "text"), "response_format"), "unsupported_value"),
        (lambda body: json.loads(json.dumps(body).replace('"strict": true', '"strict": false')), "unsupported_value"),
        (lambda body: json.loads(json.dumps(body).replace(', "artifact"]', "]")), "invalid_json_schema"),
        (lambda body: json.loads(json.dumps(body).replace("image/jpeg", "text/html")), "invalid_image"),
        (lambda body: json.loads(json.dumps(body).replace("a_score", "a_rating")), "unknown_schema"),
        (lambda body: {name: twice(value) for name, value in body.items()}, "invalid_value"),
    ],
)
def test_a_wrong_request_is_refused(stand_in: Start, endpoint: str, change: Callable[[Json], Json], code: str) -> None:
    answer = post(stand_in(), endpoint, change(question(endpoint)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert answer.headers["X-Stand-In"] == NOTE


@ENDPOINTS
def test_parameters_of_the_other_api_are_refused(stand_in: Start, endpoint: str) -> None:
    other = "messages" if endpoint == RESPONSES else "instructions"
    answer = post(stand_in(), endpoint, {**question(endpoint), other: []})
    assert answer.json()["error"]["message"] == f"Unknown parameter: '{other}'."


def test_known_parameters_are_those_of_the_openai_package() -> None:
    for known, kind in (
        (RESPONSES_PARAMETERS, ResponseCreateParamsBase),
        (CHAT_PARAMETERS, CompletionCreateParamsBase),
    ):
        assert set(known.split()) - {"stream"} <= set(kind.__annotations__)


def test_keys_are_checked(stand_in: Start) -> None:
    server = stand_in(key="another-key-altogether")
    with pytest.raises(openai.AuthenticationError, match=r"Incorrect API key provided: sk-\*\*\*cdef"):
        client(server).responses.create(**question(RESPONSES))
    with pytest.raises(openai.AuthenticationError):
        client(server).batches.list()
    assert httpx2.post(f"{server.address}/responses", json={}).status_code == 401


def test_an_unknown_address_is_not_found(stand_in: Start) -> None:
    answer = post(stand_in(), "/v1/embeddings", {})
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Invalid URL (POST /v1/embeddings)")


# Failures


STATUSES = {
    "rate_limit": 429,
    "quota": 429,
    "server_error": 500,
    "overloaded": 503,
    "unauthorized": 401,
    "bad_request": 400,
    "unknown_model": 404,
    "no_room": 429,
    "no_flex": 400,
    "unprocessable": 422,
    "redirect": 307,
}


@ENDPOINTS
@pytest.mark.parametrize("failure", [name for name in FAILURES if name not in ("cut", "stall", "lost", PARTS, *SLOPPY)])
def test_every_failure_says_that_it_is_a_stand_ins(stand_in: Start, endpoint: str, failure: str) -> None:
    server = stand_in(failures=[failure], retry_after="7")
    answer = post(server, endpoint, question(endpoint))
    half_way = 500 if failure == "failed" and endpoint == CHAT else 200
    assert answer.status_code == STATUSES.get(failure, half_way)
    assert answer.headers["X-Stand-In"] == NOTE
    waits = failure in ("rate_limit", "server_error", "overloaded")
    assert answer.headers.get("Retry-After") == ("7" if waits else None)
    assert server.counts == {failure: 1}


@ENDPOINTS
@pytest.mark.parametrize("failure", ["cut", "stall", "lost"])
def test_a_connection_ends_without_an_answer(stand_in: Start, endpoint: str, failure: str) -> None:
    server = stand_in(failures=[failure], stall_s=0.05)
    with pytest.raises(httpx2.RemoteProtocolError):
        post(server, endpoint, question(endpoint))
    assert (server.bill.usd > 0) == (failure == "lost")
    assert post(server, endpoint, question(endpoint)).status_code == 200


def test_a_stalled_request_times_out(stand_in: Start) -> None:
    with pytest.raises(openai.APITimeoutError):
        client(stand_in(failures=["stall"]), timeout=0.2).responses.create(**question(RESPONSES))


@pytest.mark.parametrize(
    ("failure", "finish", "content", "refusal"),
    [
        ("refusal", "stop", None, "I'm sorry, but I can't help with that picture."),
        ("incomplete", "length", '{"relevance": 90, "aestheti', None),
        ("content_filter", "content_filter", "", None),
        ("empty", "stop", "", None),
        ("invalid_json", "stop", "Sure! Here is the JSON you asked for.", None),
        ("missing_field", "stop", '{"aesthetic": 57, "artifact": "none"}', None),
    ],
)
def test_chat_completions_fail_in_their_own_forms(
    stand_in: Start, failure: str, finish: str, content: str | None, refusal: str | None
) -> None:
    answer = client(stand_in(failures=[failure])).chat.completions.create(**question(CHAT))
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content, choice.message.refusal) == (finish, content, refusal)


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [("incomplete", "incomplete", "max_output_tokens"), ("content_filter", "incomplete", "content_filter")],
)
def test_responses_say_why_they_are_incomplete(stand_in: Start, failure: str, status: str, reason: str) -> None:
    answer = client(stand_in(failures=[failure])).responses.create(**question(RESPONSES))
    assert answer.incomplete_details is not None
    assert (answer.status, answer.incomplete_details.reason) == (status, reason)


def test_every_nth_request_fails(stand_in: Start) -> None:
    server = stand_in(fail_every=3)
    caller = client(server, max_retries=2)
    for _ in range(8):
        assert json.loads(caller.responses.create(**question(RESPONSES)).output_text) == right(107)
    # Of eleven requests the third, sixth and ninth failed, and were repeated.
    assert server.counts == {"answered": 8, "server_error": 2, "rate_limit": 1}


# Limits


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.12, "120ms"),
        (0.0001, "1ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
        (3630.5, "1h0m30.5s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_bucket_is_refilled_all_the_time() -> None:
    now = [0.0]
    bucket = Bucket(120, clock=lambda: now[0])
    bucket.take(120)
    assert (bucket.level(), bucket.wait_for(1), bucket.reset()) == (0, 0.5, 60)
    now[0] = 3
    assert (bucket.level(), bucket.wait_for(6), bucket.wait_for(7)) == (6, 0, 0.5)
    now[0] = 1000
    assert bucket.level() == 120


def test_who_waits_as_long_as_told_is_admitted() -> None:
    now = [0.0]
    limits = Limits(requests_per_minute=7, tokens_per_minute=1000, clock=lambda: now[0])
    waits = 0
    for _ in range(40):
        try:
            limits.admit("some-model", 90)
        except Refused as refused:
            now[0] += int(refused.headers["retry-after-ms"]) / 1000
            waits += 1
            limits.admit("some-model", 90)
    assert waits == 40 - 7  # the seven that a full bucket holds came at once
    assert now[0] == pytest.approx(33 * 60 / 7, abs=0.1)


def test_every_answer_tells_the_limits_that_are_left(stand_in: Start) -> None:
    server = stand_in(requests_per_minute=3, tokens_per_minute=60_000, failures=["", "server_error"])
    first, second = post(server, RESPONSES, question(RESPONSES)), post(server, CHAT, question(CHAT))
    assert (first.status_code, second.status_code) == (200, 500)
    for answer, left in ((first, "2"), (second, "1")):
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == left
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
        assert answer.headers["x-ratelimit-limit-tokens"] == "60000"
        assert 59_000 < int(answer.headers["x-ratelimit-remaining-tokens"]) <= 60_000
        assert answer.headers["x-ratelimit-reset-tokens"].endswith("ms")
    plain = post(stand_in(), RESPONSES, question(RESPONSES))
    assert not [name for name in plain.headers if name.startswith("x-ratelimit")]


def test_who_asks_too_often_is_told_when_to_come_back(stand_in: Start) -> None:
    server = stand_in(requests_per_minute=1)
    assert post(server, CHAT, question(CHAT)).status_code == 200
    answer = post(server, CHAT, question(CHAT))
    assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (429, "0")
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert "gpt-5-mini in organization org-standin on requests per min (RPM): Limit 1, Used 1" in error["message"]
    assert 50 <= int(answer.headers["Retry-After"]) <= 60
    assert int(answer.headers["retry-after-ms"]) <= 60_000
    assert server.counts == {"answered": 1, "over_limit": 1}
    assert len(server.requests) == 1


def test_tokens_are_limited_too(stand_in: Start) -> None:
    server = stand_in(tokens_per_minute=170)
    answers = [post(server, RESPONSES, question(RESPONSES)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"]["type"] == "tokens"
    large = post(server, RESPONSES, question(RESPONSES, 1000)).json()["error"]
    assert large["message"].startswith("Request too large for gpt-5-mini")


def test_the_openai_package_waits_for_a_limit(stand_in: Start) -> None:
    server = stand_in(requests_per_minute=1200, limit_window=0.2)  # four at once, and then one every 50 ms
    caller = client(server, max_retries=5)
    widths = range(100, 112)
    answers = [json.loads(caller.responses.create(**question(RESPONSES, width)).output_text) for width in widths]
    assert answers == [right(width) for width in widths]
    assert server.counts["answered"] == 12


# Files and batches


def lines_of(endpoint: str, widths: range | list[int], **options: Any) -> list[Json]:
    return [
        {"custom_id": f"image-{width}", "method": "POST", "url": endpoint, "body": question(endpoint, width, **options)}
        for width in widths
    ]


def upload(caller: openai.OpenAI, lines: list[Json]) -> str:
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return caller.files.create(file=("requests.jsonl", data), purpose="batch").id


def submit(caller: openai.OpenAI, lines: list[Json], endpoint: Any = RESPONSES) -> str:
    return caller.batches.create(
        input_file_id=upload(caller, lines), endpoint=endpoint, completion_window="24h", metadata={"part": "1"}
    ).id


def results(caller: openai.OpenAI, file_id: str | None) -> dict[str, Json]:
    assert file_id is not None
    lines = [json.loads(line) for line in caller.files.content(file_id).text.splitlines()]
    return {line["custom_id"]: line for line in lines}


def test_a_file_is_kept_as_it_was_sent(stand_in: Start) -> None:
    caller = client(stand_in())
    data = b'{"custom_id": "\xc3\xa9"}\r\n--boundary\r\n\r\n' + bytes(range(256)) * 5000
    file = caller.files.create(file=("requests.jsonl", data), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (len(data), "requests.jsonl", "batch")
    assert (file.object, file.status) == ("file", "processed")
    assert caller.files.retrieve(file.id) == file
    assert [found.id for found in caller.files.list()] == [file.id]
    assert caller.files.content(file.id).content == data
    assert caller.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError, match=f"No such File object: {file.id}"):
        caller.files.content(file.id)


@ENDPOINTS
def test_a_batch_answers_what_would_be_answered_directly(stand_in: Start, endpoint: str) -> None:
    server = stand_in()
    caller = client(server)
    lines = lines_of(endpoint, range(100, 105))
    batch = caller.batches.retrieve(submit(caller, lines, endpoint))
    assert (batch.status, batch.errors, batch.error_file_id, batch.model) == ("completed", None, None, "gpt-5-mini")
    assert batch.request_counts is not None and batch.request_counts.to_dict() == {
        "total": 5,
        "completed": 5,
        "failed": 0,
    }
    assert batch.metadata == {"part": "1", "stand_in": NOTE}
    assert None not in (batch.in_progress_at, batch.finalizing_at, batch.completed_at, batch.expires_at)
    answers = results(caller, batch.output_file_id)
    assert list(answers) == ["image-101", "image-100", "image-103", "image-102", "image-104"]  # in another order
    times = {"created_at", "created"}
    for line in lines:
        answer = answers[line["custom_id"]]
        assert (answer["error"], answer["response"]["status_code"]) == (None, 200)
        direct = post(server, endpoint, line["body"]).json()
        assert {**answer["response"]["body"], **dict.fromkeys(times, 0)} == {
            **direct,
            **dict.fromkeys(times, 0),
        }
    assert server.counts == {"batched": 5, "answered": 5}
    assert [line["custom_id"] for line in server.batched] == [line["custom_id"] for line in lines]
    assert batch.usage is not None
    given = "input_tokens" if endpoint == RESPONSES else "prompt_tokens"
    assert batch.usage.input_tokens == sum(answer["response"]["body"]["usage"][given] for answer in answers.values())
    assert caller.files.retrieve(batch.output_file_id or "").purpose == "batch_output"


def test_a_batch_takes_as_many_polls_as_it_is_told(stand_in: Start) -> None:
    server = stand_in(batch_polls=4)
    caller = client(server)
    batch_id = submit(caller, lines_of(RESPONSES, range(100, 102)))
    statuses = []
    for _ in range(6):
        statuses.append(caller.batches.retrieve(batch_id).status)
        assert bool(server.counts["batched"]) == (statuses[-1] == "completed")
    assert statuses == ["validating", "validating", "in_progress", "finalizing", "completed", "completed"]
    assert server.counts == {"batched": 2}


def test_a_batch_takes_as_long_as_it_is_told(stand_in: Start) -> None:
    caller = client(stand_in(batch_seconds=3600))
    batch_id = submit(caller, lines_of(RESPONSES, [100]))
    assert [caller.batches.retrieve(batch_id).status for _ in range(5)] == ["validating"] * 5
    caller = client(stand_in(batch_seconds=0.2))
    batch_id = submit(caller, lines_of(RESPONSES, [100]))
    while (status := caller.batches.retrieve(batch_id).status) != "completed":
        assert status in ("validating", "in_progress", "finalizing")


def test_batches_have_no_part_in_the_limits(stand_in: Start) -> None:
    server = stand_in(requests_per_minute=1, tokens_per_minute=100)
    caller = client(server)
    assert caller.batches.retrieve(submit(caller, lines_of(RESPONSES, range(100, 105)))).status == "completed"
    answer = post(server, RESPONSES, question(RESPONSES))
    assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, "0")


def test_files_end_with_the_server() -> None:
    server = StandIn()
    with run_server(server):
        upload(client(server), [])
        folder = server.files.folder()
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()


def test_batches_are_listed_newest_first(stand_in: Start) -> None:
    caller = client(stand_in())
    file_id = upload(caller, lines_of(RESPONSES, [100]))
    ids = [
        caller.batches.create(input_file_id=file_id, endpoint="/v1/responses", completion_window="24h").id
        for _ in range(5)
    ]
    page = caller.batches.list(limit=2)
    assert ([batch.id for batch in page.data], page.has_more) == (ids[:2:-1], True)
    page = caller.batches.list(limit=2, after=ids[1])
    assert ([batch.id for batch in page.data], page.has_more) == (ids[:1], False)
    assert [batch.id for batch in caller.batches.list(limit=2)] == ids[::-1]  # over all pages


def test_a_cancelled_batch_keeps_what_was_answered(stand_in: Start) -> None:
    server = stand_in(batch_polls=4, batch_answered=0.5)
    caller = client(server)
    batch_id = submit(caller, lines_of(RESPONSES, range(100, 104)))
    for _ in range(3):
        caller.batches.retrieve(batch_id)
    assert caller.batches.cancel(batch_id).status == "cancelling"
    batch = caller.batches.retrieve(batch_id)
    assert (batch.status, server.counts["batched"]) == ("cancelled", 2)
    assert set(results(caller, batch.output_file_id)) == {"image-100", "image-101"}
    errors = results(caller, batch.error_file_id)
    assert {line["error"]["code"] for line in errors.values()} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'cancelled'"):
        caller.batches.cancel(batch_id)


def test_an_expired_batch_keeps_what_was_answered(stand_in: Start) -> None:
    server = stand_in(batch_failures=["expired"], batch_answered=0.75)
    caller = client(server)
    batch = caller.batches.retrieve(submit(caller, lines_of(RESPONSES, range(100, 104))))
    assert (batch.status, batch.completed_at) == ("expired", None)
    assert batch.expired_at is not None
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.total) == (3, 4)
    assert set(results(caller, batch.output_file_id)) == {"image-100", "image-101", "image-102"}
    assert results(caller, batch.error_file_id)["image-103"] == {
        "id": "batch_req_standin000001_4",
        "custom_id": "image-103",
        "response": None,
        "error": {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        },
    }
    assert server.counts == {"batched": 3}
    again = caller.batches.retrieve(submit(caller, lines_of(RESPONSES, [103])))
    assert again.status == "completed"


def first_error(caller: openai.OpenAI, batch_id: str) -> tuple[str | None, int | None]:
    batch = caller.batches.retrieve(batch_id)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert batch.errors is not None and batch.errors.data
    return batch.errors.data[0].code, batch.errors.data[0].line


@pytest.mark.parametrize(
    ("failure", "code"), [("invalid", "invalid_json_line"), ("token_limit", "token_limit_exceeded")]
)
def test_a_batch_can_fail_as_a_whole(stand_in: Start, failure: str, code: str) -> None:
    server = stand_in(batch_failures=[failure])
    caller = client(server)
    assert first_error(caller, submit(caller, lines_of(RESPONSES, [100])))[0] == code
    assert not server.counts


@pytest.mark.parametrize(
    ("change", "code", "line"),
    [
        (lambda lines: [], "empty_file", None),
        (lambda lines: [*lines, ["no", "object"]], "invalid_json_line", 3),
        (lambda lines: [*lines, lines[0]], "duplicate_custom_id", 3),
        (lambda lines: [lines[0], {**lines[1], "url": CHAT}], "url_mismatch", 2),
        (lambda lines: [{**lines[0], "method": "GET"}], "invalid_method", 1),
        (lambda lines: [without(lines[0], "custom_id")], "missing_required_parameter", 1),
        (lambda lines: [lines[0], {**lines[1], "body": {"model": "gpt-5"}}], "model_mismatch", 2),
        (lambda lines: [{**lines[0], "body": {}}], "missing_required_parameter", 1),
        (lambda lines: lines_of(RESPONSES, range(100, 104)), "too_many_tasks", None),
    ],
)
def test_a_wrong_file_fails_validation(
    stand_in: Start, change: Callable[[list[Json]], list[Any]], code: str, line: int | None
) -> None:
    server = stand_in(batch_requests=3)
    caller = client(server)
    lines = change(lines_of(RESPONSES, range(100, 102)))
    data = "\n".join(map(json.dumps, lines)) + "\n"
    file = caller.files.create(file=("requests.jsonl", data.encode()), purpose="batch")
    batch = caller.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    assert batch.status == "validating"
    assert first_error(caller, batch.id) == (code, line)
    assert not server.counts


def test_the_limits_of_a_file_are_openais_by_default(stand_in: Start) -> None:
    assert (StandIn().batch_requests, StandIn().batch_bytes) == (50_000, 200_000_000)
    caller = client(stand_in(batch_bytes=1000))
    with pytest.raises(openai.APIStatusError, match="File is too large: 1001 bytes, and at most 1000") as refused:
        caller.files.create(file=("requests.jsonl", b"x" * 1001), purpose="batch")
    assert refused.value.status_code == 413
    assert caller.files.create(file=("requests.jsonl", b"x" * 1000), purpose="batch").bytes == 1000


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "48h"}, "completion_window"),
        ({"metadata": {"part": 1}}, "metadata"),
        ({"input_file_id": None}, "input_file_id"),
    ],
)
def test_a_wrong_batch_is_refused(stand_in: Start, change: Json, param: str) -> None:
    server = stand_in()
    right_one = {
        "input_file_id": upload(client(server), []),
        "endpoint": RESPONSES,
        "completion_window": "24h",
    }
    answer = post(server, "/v1/batches", {**right_one, **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert post(server, "/v1/batches", {**right_one, "input_file_id": "file-0"}).status_code == 404


LINE_STATUSES = {"bad_request": 400, "rate_limit": 429, "server_error": 500}


@pytest.mark.parametrize("failure", [name for name in LINE_FAILURES if name not in SLOPPY])
def test_a_line_can_fail(stand_in: Start, failure: str) -> None:
    server = stand_in(line_failures=["", failure])
    caller = client(server)
    batch = caller.batches.retrieve(submit(caller, lines_of(RESPONSES, range(100, 103))))
    assert batch.status == "completed"
    answers = results(caller, batch.output_file_id)
    assert facts_of(RESPONSES, answers["image-100"]["response"]["body"]) == right(100)
    if failure in LINE_STATUSES:
        (line,) = results(caller, batch.error_file_id).values()
        assert (line["custom_id"], line["error"]) == ("image-101", None)
        assert line["response"]["status_code"] == LINE_STATUSES[failure]
        assert "message" in line["response"]["body"]["error"]
    elif failure == "request_timeout":
        (line,) = results(caller, batch.error_file_id).values()
        assert (line["response"], line["error"]["code"]) == (None, "request_timeout")
    else:
        direct = post(stand_in(failures=[failure]), RESPONSES, question(RESPONSES, 101)).json()
        answer = answers["image-101"]["response"]["body"]
        assert batch.error_file_id is None
        for name in ("status", "output", "incomplete_details", "error"):
            assert answer[name] == direct[name]
    failed = failure in LINE_STATUSES or failure == "request_timeout"
    assert server.counts == ({"batched": 2, "batch_errors": 1} if failed else {"batched": 3})


def test_a_batch_whose_lines_all_fail_has_no_output(stand_in: Start) -> None:
    caller = client(stand_in())
    lines = lines_of(RESPONSES, range(100, 102), name="a_rating")
    batch = caller.batches.retrieve(submit(caller, lines))
    assert (batch.status, batch.output_file_id) == ("completed", None)
    statuses = [line["response"]["status_code"] for line in results(caller, batch.error_file_id).values()]
    assert statuses == [400, 400]


def test_an_upload_is_cut(stand_in: Start) -> None:
    server = stand_in(call_failures={"upload": ["cut"]})
    caller = client(server)
    with pytest.raises(openai.APIConnectionError):
        caller.files.create(file=("requests.jsonl", b"x" * 5_000_000), purpose="batch")
    assert list(caller.files.list()) == []
    assert caller.files.create(file=("requests.jsonl", b"x"), purpose="batch").bytes == 1
    assert server.calls == {"upload": 2, "list": 1}


def test_a_download_is_cut(stand_in: Start) -> None:
    caller = client(stand_in(call_failures={"download": ["cut"]}))
    file = caller.files.create(file=("requests.jsonl", b"x" * 100_000), purpose="batch")
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        caller.files.content(file.id)
    assert len(caller.files.content(file.id).content) == 100_000


def test_the_answer_about_what_was_done_is_lost(stand_in: Start) -> None:
    server = stand_in(call_failures={"upload": ["lost"], "create": ["lost"]})
    caller = client(server)
    with pytest.raises(openai.APIConnectionError):
        upload(caller, lines_of(RESPONSES, [100]))
    (file,) = caller.files.list(purpose="batch")
    with pytest.raises(openai.APIConnectionError):
        caller.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    (batch,) = caller.batches.list()
    assert (batch.input_file_id, batch.status, server.counts["batched"]) == (file.id, "completed", 1)


@pytest.mark.parametrize(
    ("failure", "error"), [("server_error", openai.InternalServerError), ("rate_limit", openai.RateLimitError)]
)
def test_a_call_about_batches_fails(stand_in: Start, failure: str, error: type[Exception]) -> None:
    operations = ("upload", "create", "poll", "download", "list", "cancel", "file", "delete")
    caller = client(stand_in(call_failures={name: [failure] for name in operations}, batch_polls=9))
    for _ in range(2):  # at the second time, everything works
        for call in (
            lambda: upload(caller, lines_of(RESPONSES, [100])),
            lambda: caller.batches.create(
                input_file_id="file-standin000001", endpoint="/v1/responses", completion_window="24h"
            ),
            lambda: caller.batches.retrieve("batch_standin000001"),
            lambda: caller.batches.cancel("batch_standin000001"),
            lambda: caller.batches.list(),
            lambda: caller.files.retrieve("file-standin000001"),
            lambda: caller.files.content("file-standin000001"),
            lambda: caller.files.delete("file-standin000001"),
        ):
            if _ == 0:
                with pytest.raises(error):
                    call()
            else:
                call()


def test_many_connections_are_answered_at_once(stand_in: Start) -> None:
    """Sixty-four requests that each wait for all others can only be answered together."""
    together = threading.Barrier(64, timeout=30)

    def rule(image: Image.Image) -> Json:
        together.wait()
        return right(image.width)

    server = stand_in(judge=rule)
    body = json.dumps(question(RESPONSES))
    limits = httpx2.Limits(max_connections=64)
    with httpx2.Client(timeout=60, limits=limits, verify=False, headers={"Authorization": f"Bearer {KEY}"}) as caller:
        found: list[int] = []

        def ask() -> None:
            found.append(caller.post(f"{server.address}/responses", content=body).status_code)

        threads = [threading.Thread(target=ask) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [200] * 64
    assert server.connections == 64
