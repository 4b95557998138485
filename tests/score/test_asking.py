"""pokefa.llm without a server: sizes, prices, limits, schemas, stored answers, and what is read from an answer."""

from __future__ import annotations

import datetime
import io
import math
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pokefa.engine.local import run_batches
from pokefa.engine.work import Pool
from pokefa.errors import BudgetReached, InputError, Interrupted, PokefaError, RunError
from pokefa.llm.budget import Attempts, Budget
from pokefa.llm.client import Client
from pokefa.llm.congestion import CongestionWindow
from pokefa.llm.images import View, encode_jpeg, fit_patches
from pokefa.llm.model_choice import choose_model, first_alive, say_server_first, table_shutdown
from pokefa.llm.models import MODELS, facts_of, picture_tokens, require_facts
from pokefa.llm.prices import TOKENS
from pokefa.llm.prompt import Answer, AnswerError, Question, plain, request_hash
from pokefa.llm.rate_limit import Pace, retry_after
from pokefa.llm.server import host_of, is_openai
from pokefa.llm.store import Answers, Stored, keep, stored_answer
from pokefa.llm.wire import RequestOptions, has_loose_parts, text_of, tokens_of
from preprocess.score.answer import ScoreAnswer
from preprocess.score.score import load_form

MOST, PATCH = 1536, 32
FITTING: dict[str, Any] = {"relevance": 90, "aesthetic": 57, "artifact": "none"}


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
    assert fit_patches(*size, PATCH, MOST) == fitted


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_fitted_picture_is_covered_and_keeps_its_shape(width: int, height: int) -> None:
    w, h = fit_patches(width, height, PATCH, MOST)
    assert patches(w, h) <= MOST
    assert 1 <= w <= width and 1 <= h <= height
    if (w, h) != (width, height):
        assert patches(w, h) > MOST * 0.8 or min(w, h) < 11 * PATCH  # a row of squares is lost at most
        assert abs(w / width - h / height) <= 1 / min(width, height) + 1e-9


def test_a_picture_is_sent_as_a_small_enough_jpeg() -> None:
    sent = Image.open(io.BytesIO(encode_jpeg(Image.new("RGB", (3000, 2400), "teal"))))
    assert (sent.format, sent.size, sent.mode) == ("JPEG", (1376, 1100), "RGB")


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
        (
            message(status="incomplete", incomplete_details={"reason": "content_filter"}),
            "refusal: the server's content filter kept the answer back",
        ),
        ({"output": None, "error": "no such model"}, "server_error: no such model"),
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


def test_text_in_parts_and_parts_in_a_text() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "{"}, {"type": "text", "text": "}"}]
    for body in (chat(content=parts), {"output": [{"type": "message", "content": "{}"}]}):
        assert (text_of(body), has_loose_parts(body)) == ("{}", True)
    for body in (chat(content="{}"), message({"type": "output_text", "text": "{}"})):
        assert (text_of(body), has_loose_parts(body)) == ("{}", False)


def test_tokens_are_read_from_the_usage() -> None:
    usage = {"input_tokens": 1200, "input_tokens_details": {"cached_tokens": 1024}, "output_tokens": 30}
    nothing = {"input_tokens": 0, "cached_tokens": 0, "cache_write_tokens": 0, "output_tokens": 0}
    found = nothing | {"input_tokens": 1200, "cached_tokens": 1024, "output_tokens": 30}
    assert tokens_of({"usage": usage}) == found
    assert tokens_of({}) == nothing
    assert tokens_of({"usage": {"input_tokens": "many", "input_tokens_details": 3, "output_tokens": -1}}) == nothing


@pytest.mark.parametrize(
    ("cached", "written", "counted"), [(9, 0, (9, 0)), (99, 0, (10, 0)), (99, 4, (6, 4)), (0, 99, (0, 10))]
)
def test_a_server_that_counts_too_many_cached_tokens_gives_no_money_back(
    cached: int, written: int, counted: tuple[int, int]
) -> None:
    details = {"cached_tokens": cached, "cache_write_tokens": written}
    found = tokens_of({"usage": {"input_tokens": 10, "input_tokens_details": details, "output_tokens": 1}})
    assert (found["cached_tokens"], found["cache_write_tokens"]) == counted


def test_the_request_hash_changes_with_all_that_is_asked() -> None:
    class Other(ScoreAnswer):
        more: int

    def question(version: str, form: type[ScoreAnswer]) -> Question[dict[str, Any]]:
        return Question("q", version, "Look.", lambda: form, dict)

    one = question("q-1", ScoreAnswer)
    asked = [
        request_hash("m", one, b"picture", ""),
        request_hash("n", one, b"picture", ""),
        request_hash("m", question("q-2", ScoreAnswer), b"picture", ""),
        request_hash("m", question("q-1", Other), b"picture", ""),
        request_hash("m", one, b"another", ""),
        request_hash("m", one, b"picture", "a hint"),
    ]
    assert len(set(asked)) == len(asked)
    assert asked[0] == request_hash("m", question("q-1", ScoreAnswer), b"picture", "")


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
        Client(RequestOptions("gpt-5-mini"))
    assert str(caught.value) == "OPENAI_API_KEY is not set: export OPENAI_API_KEY=your-key and run again"


@pytest.mark.parametrize("key", ["sk-with a space", "sk-ключ", "sk-two\nlines"])
def test_a_key_that_no_header_can_hold_is_not_quoted(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError) as caught:
        Client(RequestOptions("gpt-5-mini"))
    assert str(caught.value) == "OPENAI_API_KEY holds characters that no key has: set it again"


def test_a_missing_package_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-for-tests")
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(PokefaError) as caught:
        Client(RequestOptions("gpt-5-mini"))
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


# -- models -----------------------------------------------------------------------------------------------------------


def test_a_dated_version_is_the_same_model() -> None:
    assert facts_of("gpt-5-mini-2025-08-07") is facts_of("gpt-5-mini") is MODELS["gpt-5-mini"]
    assert facts_of("gpt-5-mini-turbo") is None


def test_a_model_without_prices() -> None:
    with pytest.raises(InputError) as caught:
        require_facts("llava", "--max-cost")
    assert str(caught.value) == (
        "--max-cost needs the prices of the model, and those of llava are not known (only of gpt-5-mini, gpt-6-luna, "
        "gpt-6.1-terra)"
    )


@pytest.mark.parametrize(("size", "tokens"), [((1024, 1024), 1659), ((33, 32), 4), ((4000, 4000), 2489)])
def test_a_picture_counts_its_squares(size: tuple[int, int], tokens: int) -> None:
    assert picture_tokens(*size, MODELS["gpt-5-mini"]) == tokens


SCORERS, CAPTIONERS = ("gpt-5-mini", "gpt-6-luna"), ("gpt-5-mini", "gpt-6.1-terra")


@pytest.mark.parametrize(
    ("day", "models", "chosen", "said"),
    [
        ("2026-10-11", SCORERS, "gpt-5-mini", ["model gpt-5-mini: the default of this stage"]),
        (
            "2026-10-12",
            SCORERS,
            "gpt-5-mini",
            [
                "model gpt-5-mini: the default of this stage",
                "OpenAI shuts gpt-5-mini down on 2026-12-11, in 60 days; its successor is gpt-6.1-terra",
            ],
        ),
        ("2026-12-11", SCORERS, "gpt-6-luna", ["model gpt-6-luna: gpt-5-mini is shut down since 2026-12-11"]),
        ("2026-12-12", CAPTIONERS, "gpt-6.1-terra", ["model gpt-6.1-terra: gpt-5-mini is shut down since 2026-12-11"]),
        ("2026-12-12", (), "gpt-6-luna", ["model gpt-6-luna: named by --model"]),
    ],
)
def test_the_default_model_is_one_that_is_alive(
    caplog: pytest.LogCaptureFixture, day: str, models: tuple[str, ...], chosen: str, said: list[str]
) -> None:
    on = datetime.date.fromisoformat(day)
    first = first_alive(models, on) if models else "gpt-6-luna"
    with caplog.at_level("INFO", "pokefa"):
        assert choose_model(first, models, on, table_shutdown) == chosen == first
    assert caplog.messages == said


def test_a_model_that_is_shut_down() -> None:
    day = datetime.date(2026, 12, 11)
    with pytest.raises(InputError) as caught:
        choose_model("gpt-5-mini", (), day, table_shutdown)
    assert str(caught.value) == "OpenAI has shut gpt-5-mini down on 2026-12-11: use --model gpt-6.1-terra"
    with pytest.raises(InputError) as caught:
        choose_model("gpt-6-luna", (), day, {"gpt-6-luna": day}.__getitem__)
    assert str(caught.value) == "OpenAI has shut gpt-6-luna down on 2026-12-11: name another with --model"


def test_the_server_knows_best_and_the_table_where_it_does_not_say() -> None:
    told = {"gpt-5-mini": datetime.date(2027, 3, 1), "gpt-6-luna": None}
    shutdown_of = say_server_first(told.__getitem__)
    assert first_alive(SCORERS, datetime.date(2026, 12, 12), shutdown_of) == "gpt-5-mini"
    assert first_alive(SCORERS, datetime.date(2027, 3, 1), shutdown_of) == "gpt-6-luna"
    assert say_server_first({}.__getitem__)("gpt-5-mini") == datetime.date(2026, 12, 11)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("api.openai.com", True), ("eu.api.openai.com", True), ("127.0.0.1:80", False), ("notopenai.com", False)],
)
def test_openais_own_hosts(host: str, expected: bool) -> None:
    assert is_openai(host) is expected


def test_low_detail_is_sent_small() -> None:
    assert View(MODELS["gpt-5-mini"], "low").size(2048, 1024) == (512, 256)
    assert View(MODELS["gpt-5-mini"], "low").size(300, 200) == (300, 200)
    assert View(max_side=768).size(2048, 1024) == (768, 384)


# -- pace -------------------------------------------------------------------------------------------------------------


def headers(limit: int, left: int, name: str = "requests") -> dict[str, str]:
    return {f"x-ratelimit-limit-{name}": str(limit), f"x-ratelimit-remaining-{name}": str(left)}


def waits(pace_of: Callable[[Callable[[], bool]], Pace], tokens: int = 10) -> bool:
    """Tell whether a request has to wait: then the stop flag is polled again."""
    looks = 0

    def should_stop() -> bool:
        nonlocal looks
        looks += 1
        return looks > 1

    try:
        pace_of(should_stop).wait(tokens)
    except Interrupted:
        return True
    return False


def test_without_limits_nothing_waits() -> None:
    assert not waits(Pace)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (headers(60, 1), False),
        (headers(60, 0), True),
        (headers(1000, 10, "tokens"), False),
        (headers(1000, 9, "tokens"), True),
        (headers(5, 5, "tokens"), False),  # more than a minute's worth waits for a full bucket only
        ({"x-ratelimit-limit-requests": "many"}, False),
        (headers(0, 0), False),
    ],
)
def test_what_the_server_says_is_left(told: dict[str, str], expected: bool) -> None:
    def pace(should_stop: Callable[[], bool]) -> Pace:
        pace = Pace(should_stop)
        pace.learn(told)
        return pace

    assert waits(pace) is expected


def test_what_is_under_way_counts() -> None:
    """After one request the server says that one of two is left, but it has not seen the second one yet."""

    def pace(should_stop: Callable[[], bool]) -> Pace:
        quiet = Pace()
        quiet.learn(headers(2, 2))
        quiet.wait(0)
        quiet.wait(0)
        quiet.learn(headers(2, 1))
        quiet._should_stop = should_stop
        return quiet

    assert waits(pace)


def test_tokens_that_were_not_used_are_given_back() -> None:
    def pace(should_stop: Callable[[], bool]) -> Pace:
        quiet = Pace()
        quiet.learn(headers(1000, 100, "tokens"))
        quiet.wait(95)
        quiet.settle(95, 50)
        quiet._should_stop = should_stop
        return quiet

    assert not waits(pace, tokens=40)
    assert waits(pace, tokens=60)


def test_a_rest_is_kept() -> None:
    def pace(should_stop: Callable[[], bool]) -> Pace:
        pace = Pace(should_stop)
        pace.rest(30)
        return pace

    assert waits(pace)


def has_room(window: CongestionWindow) -> bool:
    """Tell whether one more request may be sent, and send it."""
    try:
        window.begin(lambda: True)
    except Interrupted:
        return False
    return True


def under_way(window: CongestionWindow, most: int = 100) -> int:
    """Send as many requests as may be, and return how many they are."""
    return sum(has_room(window) for _ in range(most))


def test_late_answers_halve_what_is_sent_at_once() -> None:
    window = CongestionWindow(timeout=40)  # late from 10 s on
    assert under_way(window, 32) == 32
    for _ in range(4):
        window.end(sent=0, now=9)
    assert under_way(window, 4) == 4
    window.end(sent=0, now=12)  # the first late one of 32
    assert not has_room(window)
    for _ in range(27):
        window.end(sent=0, now=30)  # sent before the cut: they say nothing new
    for _ in range(4):
        window.end(sent=9, now=15)
    assert under_way(window) == 16
    window.end(sent=20, now=31)
    for _ in range(15):
        window.end(sent=20, now=32)
    assert under_way(window) == 8


def test_timely_answers_raise_what_is_sent_at_once_again_by_about_one_a_round() -> None:
    window = CongestionWindow(timeout=40)
    under_way(window, 8)
    for _ in range(8):
        window.end(sent=0, now=20)
    for expected in (4, 4, 5, 6):
        assert under_way(window) == expected
        for _ in range(expected):
            window.end(sent=30, now=31)


def test_one_request_is_always_under_way() -> None:
    window = CongestionWindow(timeout=40)
    for start in range(0, 500, 100):
        assert has_room(window)
        window.end(sent=start, now=start + 50)
    assert under_way(window) == 1


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(told: dict[str, str], seconds: float | None) -> None:
    assert retry_after(told) == seconds


# -- budget, answers --------------------------------------------------------------------------------------------------


def test_a_budget_counts_what_is_under_way() -> None:
    budget = Budget(1.0, should_stop=lambda: True)
    first = budget.promise(0.6)
    with pytest.raises(Interrupted):
        budget.promise(0.5)  # waits for the first, which may cost less
    with pytest.raises(BudgetReached):
        budget.promise(1.1)  # has no room whatever the first costs
    budget.settle(first, 0.1)
    budget.settle(budget.promise(0.9), 0.5)
    with pytest.raises(BudgetReached) as caught:
        budget.promise(0.5)
    assert str(caught.value) == ("--max-cost 1 is reached ($0.6000 spent): finished work is saved; run again with more")
    assert Budget(None).promise(1e9) == 1e9


def test_a_request_waits_for_one_under_way() -> None:
    budget = Budget(1.0)
    first = budget.promise(0.6)
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(budget.promise, 0.6)
        budget.settle(first, 0.2)
        assert second.result(60) == 0.6


def test_a_server_that_charges_more_than_was_promised_is_expected_to_do_so_again() -> None:
    budget = Budget(10.0)
    budget.settle(budget.promise(1.0), 4.0)
    assert budget.promise(1.0) == 4.0
    with pytest.raises(BudgetReached):
        budget.promise(2.0)


def test_an_answer_that_is_lost_counts_with_all_that_was_promised() -> None:
    budget = Budget(1.0)
    attempts = Attempts(budget, 0.25)
    attempts.begin()  # nobody has heard of the first one
    attempts.begin()
    attempts.sent()
    attempts.refused()  # the second one was answered with an error
    attempts.begin()
    attempts.sent()
    attempts.begin()
    attempts.sent()
    attempts.answered(0.1)
    attempts.end()
    assert (budget.spent, budget.lost) == (0.35, 0.25)
    with pytest.raises(BudgetReached, match=r"\$0.3500 spent, \$0.2500 of it at most for answers that were lost"):
        budget.promise(0.9)


QUESTION = Question("q", "q-1", "Look.", load_form, dict)


def paid(request: str) -> Answer[dict[str, Any]]:
    usage = {"question": "q-1", "response": "r", "request": request, "input_tokens": 9, "cached_tokens": 0}
    return Answer(FITTING, None, "m", {**usage, "output_tokens": 3, "usd": 0.5}, FITTING)


def test_an_answer_is_kept_and_costs_nothing_again(tmp_path: Path) -> None:
    keep(Answers(tmp_path), "a" * 64, paid("a" * 64))
    again = Answers(tmp_path)
    found = stored_answer(again, "a" * 64, QUESTION)
    assert found is not None and found.value == FITTING
    assert found.usage == {**paid("a" * 64).usage, **dict.fromkeys(TOKENS, 0), "usd": 0.0, "reused": True}
    assert stored_answer(again, "b" * 64, QUESTION) is None


def test_an_answer_that_cannot_be_used_is_not_kept(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    keep(answers, "a" * 64, Answer(None, "refusal: no", "m", paid("a" * 64).usage))
    assert answers.get("a" * 64) is None


def test_an_answer_that_newer_code_does_not_take_is_passed_over(tmp_path: Path) -> None:
    def read(answer: dict[str, Any]) -> dict[str, Any]:
        raise AnswerError("invalid_json", "too short")

    keep(Answers(tmp_path), "a" * 64, paid("a" * 64))
    assert stored_answer(Answers(tmp_path), "a" * 64, Question("q", "q-1", "Look.", load_form, read)) is None


def test_many_threads_store_answers_at_once(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    names = [f"{number:064x}" for number in range(200)]
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(lambda name: answers.put(Stored(name, "q-1", "m", name[-4:], {"a": 1}, {})), names))
    again = Answers(tmp_path)
    assert [again.get(name) for name in names] == [Stored(name, "q-1", "m", name[-4:], {"a": 1}, {}) for name in names]


def test_a_damaged_store_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "metadata/answers.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=r"^metadata/answers.sqlite is damaged \(.*\): restore it, or move it away"):
        Answers(tmp_path)


# -- the other API ----------------------------------------------------------------------------------------------------


def chat(finish: str = "stop", **given: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": finish, "message": given}]}


def test_the_text_of_a_chat() -> None:
    assert text_of(chat(content='{"a": 1}', refusal=None)) == '{"a": 1}'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (chat(content=None, refusal="I can't help."), "refusal: I can't help."),
        (chat("content_filter", content=""), "refusal: the server's content filter kept the answer back"),
        (chat("length", content='{"a'), "incomplete: the answer was cut short (length)"),
        (chat(content=""), "invalid_json: the answer holds no text"),
        ({"choices": []}, "invalid_json: the answer holds no text"),
        ({"choices": None, "error": {"message": "loading"}}, "server_error: loading"),
        ({"choices": [{"error": {"message": "loading"}, "message": None}]}, "server_error: loading"),
    ],
)
def test_a_chat_without_an_answer(body: dict[str, Any], error: str) -> None:
    with pytest.raises(AnswerError) as caught:
        text_of(body)
    assert str(caught.value) == error


def test_the_tokens_of_a_chat() -> None:
    usage = {"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens": 2}
    found = {"input_tokens": 7, "cached_tokens": 4, "cache_write_tokens": 0, "output_tokens": 2}
    assert tokens_of({"usage": usage}) == found
