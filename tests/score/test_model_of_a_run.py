"""Which model a run asks, on which day, and that one dataset has one judge."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from demo.standins.openai_standin import StandIn
from pokefa.llm import options
from preprocess.score.score import main
from tests.conftest import Dataset
from tests.score.conftest import KEY

SCRIPT = "preprocess/score/score.py"

Ready = Callable[[int], list[str]]
Start = Callable[..., StandIn]
Environment = Callable[[StandIn], dict[str, str]]


def judges(dataset: Dataset) -> list[str]:
    return [row["ae_model"] for row in dataset.images().values()]


def test_the_day_after_the_shutdown(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    ready(3)
    server = stand_in()
    finished = dataset.run_on("2026-12-12", SCRIPT, env=environment(server))
    assert (finished.code, finished.summary["done"]) == (0, 3)
    first_line = finished.stderr.splitlines()[0]
    assert first_line.endswith("INFO model gpt-6-luna: gpt-5-mini is shut down since 2026-12-11")
    assert {request["model"] for request in server.requests} == {"gpt-6-luna"}
    assert judges(dataset) == ["gpt-6-luna-stand-in score-1"] * 3
    again = dataset.run_on("2026-12-12", SCRIPT, "--estimate", "--redo", env=environment(server))
    assert again.summary["estimate"]["model"] == "gpt-6-luna"


def test_scores_of_one_model_are_not_gone_on_with_by_another(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(3)
    server = stand_in()
    dataset.run_on("2026-11-27", SCRIPT, "--limit", 2, env=environment(server))
    refused = dataset.run_on("2026-12-12", SCRIPT, env=environment(server))
    assert refused.code == 2
    assert refused.stderr.splitlines()[-1] == (
        "error: 2 scores here are by gpt-5-mini-stand-in, and gpt-6-luna would grade by another scale: go on with "
        "--model gpt-5-mini at a server that still has it, or score everything once more with --redo"
    )
    assert server.counts == {"answered": 2}
    old = dataset.run_on("2026-12-12", SCRIPT, "--model", "gpt-5-mini", env=environment(server))
    assert (old.code, old.summary["done"]) == (0, 1)
    redone = dataset.run_on("2026-12-12", SCRIPT, "--redo", env=environment(server))
    assert (redone.code, redone.summary["done"]) == (0, 3)
    assert judges(dataset) == ["gpt-6-luna-stand-in score-1"] * 3


def test_a_servers_own_name_of_the_model_is_remembered(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    """A server of local models may answer under another name than the one that it was asked by."""
    ready(3)
    server = stand_in(name_of_model="/models/llava.gguf")
    dataset.run(SCRIPT, "--limit", 1, "--model", "llava", env=environment(server))
    assert dataset.run(SCRIPT, "--limit", 1, "--model", "llava", env=environment(server)).summary["done"] == 1
    other = dataset.run(SCRIPT, "--model", "qwen", env=environment(server))
    assert other.code == 2
    assert "2 scores here are by /models/llava.gguf, and qwen would" in other.stderr
    assert "go on with --model llava at" in other.stderr


@pytest.mark.parametrize(
    ("shutdowns", "asked"),
    [
        ({"gpt-5-mini": None, "gpt-6-luna": None}, "gpt-5-mini"),
        ({"gpt-5-mini": "2026-11-01", "gpt-6-luna": None}, "gpt-6-luna"),
    ],
)
def test_openais_server_is_asked_once_a_run(
    dataset: Dataset,
    ready: Ready,
    stand_in: Start,
    monkeypatch: pytest.MonkeyPatch,
    shutdowns: dict[str, str | None],
    asked: str,
) -> None:
    ready(2)
    server = stand_in(shutdowns=shutdowns)
    monkeypatch.setattr(options, "is_openai", lambda host: True)
    monkeypatch.setenv("OPENAI_BASE_URL", server.address)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert main(["--root", str(dataset.root), "--quiet"]) == 0
    assert {request["model"] for request in server.requests} == {asked}
    assert {request["service_tier"] for request in server.requests} == {"default"}
    assert server.calls == {"model": 1 if asked == "gpt-5-mini" else 2}  # until one is alive


def test_a_model_that_openai_has_shut_down_is_wrong_usage(
    dataset: Dataset, ready: Ready, stand_in: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ready(1)
    server = stand_in(shutdowns={"gpt-5-nano": "2026-11-01"})
    monkeypatch.setattr(options, "is_openai", lambda host: True)
    monkeypatch.setenv("OPENAI_BASE_URL", server.address)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert main(["--root", str(dataset.root), "--quiet", "--model", "gpt-5-nano"]) == 2
    assert (
        capsys.readouterr().err == "error: OpenAI has shut gpt-5-nano down on 2026-11-01: name another with --model\n"
    )
    assert not server.counts
