"""--batch wait: from nothing to the last score, at half the price, whatever goes wrong on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from demo.standins.openai_standin import StandIn
from pokefa.llm import batch_wait
from tests.conftest import CHECKOUT, Dataset, Finished
from tests.score.test_batches import records, scores, step
from tests.score.test_score import start_script

__all__ = ["step"]

Start = Callable[..., StandIn]
Environment = Callable[[StandIn], dict[str, str]]
Ready = Callable[[int], list[str]]
NOW = ("--batch-poll", 0)


def test_all_is_scored_at_half_the_price(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    ready(5)
    server = stand_in(batch_polls=3)
    finished: Finished = step(server, "wait", *NOW)
    assert (finished.code, finished.summary["done"]) == (0, 5)
    assert scores(dataset) == ["50", "51", "52", "53", "54"]
    assert [one["state"] for one in records(dataset)] == ["done"]
    assert server.counts == {"batched": 5}
    assert finished.summary["usd"] == pytest.approx(server.bill.usd, abs=1e-6)
    assert step(server, "wait", *NOW).summary["seen"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"batch_failures": ["expired", "invalid"]},
        {"batch_failures": ["token_limit"] * 5},
        {"line_failures": ["rate_limit", "server_error", "request_timeout"]},
        {"call_failures": {"poll": ["server_error"] * 8, "download": ["cut"], "upload": ["lost"], "create": ["lost"]}},
    ],
)
def test_what_was_left_is_asked_again(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any, options: Mapping[str, Any]
) -> None:
    ready(4)
    server = stand_in(**options)
    finished: Finished = step(server, "wait", *NOW)
    assert (finished.code, finished.summary["done"], finished.summary["errors"]) == (0, 4, 0)
    assert scores(dataset) == ["50", "51", "52", "53"]
    assert server.counts["batched"] == 4  # nobody is paid for twice


def test_too_many_tokens_at_once_make_smaller_batches(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any
) -> None:
    ready(4)
    server = stand_in(batch_failures=["token_limit"])
    assert step(server, "wait", *NOW).summary["done"] == 4
    assert [len(record["requests"]) for record in records(dataset)] == [4, 2, 2]


def test_an_image_that_no_batch_answers_is_an_error(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    ready(2)
    finished: Finished = step(stand_in(batch_failures=["invalid"] * 9), "wait", *NOW)
    assert (finished.code, finished.summary["errors"]) == (0, 2)
    assert {row["score_error"] for row in dataset.images().values()} == {
        "batch_unanswered: 3 batches left it unanswered: This line is not parseable as valid JSON."
    }


def test_a_server_that_is_gone_ends_the_run(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_wait, "MOST_FAILED_CALLS", 2)
    ready(2)
    server = stand_in(call_failures={"poll": ["server_error"] * 14})
    finished: Finished = step(server, "wait", *NOW)
    assert finished.code == 1
    assert finished.stderr.splitlines()[-1].endswith("run the same command again, it goes on where it stood")
    assert step(server, "wait", *NOW).summary["done"] == 2
    assert server.counts == {"batched": 2}


def test_the_limit_holds_over_all_batches(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    """What an answer has not used of its worst price is there for the next batch."""
    ready(20)
    server = stand_in()
    finished: Finished = step(server, "wait", "--max-cost", 0.0022, *NOW)
    assert finished.code == 3
    assert finished.stderr.endswith("error: --max-cost 0.0022 leaves no room for more: run again with more\n")
    assert 0.0004 < server.bill.usd <= 0.0022
    assert len(records(dataset)) > 1
    assert finished.summary["usd"] == pytest.approx(server.bill.usd, abs=1e-6)


@pytest.mark.killed
@pytest.mark.parametrize("polls", [1, 2, 4])
def test_a_killed_run_goes_on(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any, environment: Environment, polls: int
) -> None:
    ready(3)
    server = stand_in(batch_polls=5)
    process = start_script(dataset, environment(server), "--batch", "wait", *map(str, NOW))
    while server.calls["poll"] < polls and process.poll() is None:
        pass
    process.kill()
    process.communicate()
    assert step(server, "wait", *NOW).code == 0
    assert scores(dataset) == ["50", "51", "52"]
    assert server.counts == {"batched": 3}
    assert server.calls["create"] == 1


def test_the_pipeline_waits_for_a_batch(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(2)
    server = stand_in()
    config = dataset.root / "pipeline.toml"
    config.write_text('score = ["--batch", "wait", "--batch-poll", "0"]\n')
    words = ["pipeline.py", "run", "--root", str(dataset.root), "--from", "score", "--to", "score"]
    finished = subprocess.run(
        [sys.executable, *words, "--config", str(config), "--no-disk-check"],
        cwd=CHECKOUT,
        env={**os.environ, **environment(server)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert scores(dataset) == ["50", "51"]
    assert server.counts == {"batched": 2}
