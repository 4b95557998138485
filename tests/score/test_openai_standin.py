"""The stand-in for OpenAI as a process of its own, and the failures that it plays."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from caption.sentence_tags import QUESTION as CAPTION
from demo.openai_standin import FAILURES, NOTE, StandIn
from demo.pixel_rules import describe, judge
from pokefa.openai_json import Model, Settings, encode_jpeg
from preprocess.score.score import QUESTION as SCORE
from preprocess.score.score import read_score
from tests.conftest import CHECKOUT
from tests.score.conftest import KEY

PICTURE = Image.linear_gradient("L").resize((320, 256)).convert("RGB")


@contextmanager
def running(*arguments: str) -> Iterator[dict[str, Any]]:
    """Run `python -m demo.openai_standin` and yield the JSON line that it prints; it must end well when asked to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.openai_standin", *arguments],
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


def test_a_process_answers_from_the_pixels_by_the_demos_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("--port", "0") as addresses:
        assert addresses["stand-in"] is True
        assert addresses["openai"].startswith("http://127.0.0.1:") and addresses["openai"].endswith("/v1")
        monkeypatch.setenv("OPENAI_BASE_URL", addresses["openai"])
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        model, jpeg = Model(Settings(model="some-model")), encode_jpeg(PICTURE)
        score, caption = model.ask(SCORE, jpeg), model.ask(CAPTION, jpeg)
    seen = Image.open(io.BytesIO(jpeg)).convert("RGB")
    assert score.value == read_score(judge(seen))
    assert caption.value == CAPTION.read(describe(seen))
    assert score.model == caption.model == "some-model-stand-in"


def test_every_nth_request_fails(stand_in: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    server = stand_in(fail_every=3)
    monkeypatch.setenv("OPENAI_BASE_URL", server.address)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = Model(Settings())
    for _ in range(8):
        assert model.ask(SCORE, encode_jpeg(Image.new("RGB", (110, 80)))).value is not None
    # Of eleven requests the third, sixth and ninth failed, and were repeated.
    assert server.counts == {"answered": 8, "server_error": 2, "rate_limit": 1}


@pytest.mark.parametrize("failure", [name for name in FAILURES if name != "cut"])
def test_every_failure_says_that_it_is_a_stand_ins(stand_in: Callable[..., StandIn], failure: str) -> None:
    import httpx2

    data = base64.b64encode(encode_jpeg(PICTURE)).decode()
    form = {"type": "json_schema", "name": "a_score", "strict": True, "schema": SCORE.schema}
    request = {
        "model": "gpt-5-mini",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_image", "detail": "auto", "image_url": f"data:image/jpeg;base64,{data}"}],
            }
        ],
        "text": {"format": form},
    }
    server = stand_in(failures=[failure], retry_after="7")
    answer = httpx2.post(
        f"{server.address}/responses", json=request, headers={"Authorization": f"Bearer {KEY}"}, timeout=30
    )
    statuses = {
        "rate_limit": 429,
        "quota": 429,
        "server_error": 500,
        "unauthorized": 401,
        "bad_request": 400,
        "unknown_model": 404,
    }
    assert answer.status_code == statuses.get(failure, 200)
    assert answer.headers["X-Stand-In"] == NOTE
    assert answer.headers.get("Retry-After") == ("7" if failure in ("rate_limit", "server_error") else None)


def test_a_port_that_is_taken_is_wrong_usage(stand_in: Callable[..., StandIn]) -> None:
    port = stand_in().address.removeprefix("http://127.0.0.1:").removesuffix("/v1")
    finished = subprocess.run(
        [sys.executable, "-m", "demo.openai_standin", "--port", port], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert finished.returncode == 2
    assert f"error: --port {port} cannot be taken: Address already in use" in finished.stderr
