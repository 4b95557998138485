"""What a run costs, and that no question is paid for twice: the scoring stage against the stand-in, over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from demo.standins.openai_standin import StandIn
from preprocess.score.score import QUESTION
from tests.conftest import Dataset

SCRIPT = "preprocess/score/score.py"

Start = Callable[..., StandIn]
Environment = Callable[[StandIn], dict[str, str]]
Ready = Callable[[int], list[str]]


def scores(dataset: Dataset) -> list[str]:
    return [row["ae_aesthetic"] for row in dataset.images().values()]


def test_redo_uses_the_stored_answers(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(4)
    server = stand_in()
    first = dataset.run(SCRIPT, env=environment(server))
    assert (first.summary["reused"], server.counts["answered"]) == (0, 4)
    before = scores(dataset)
    again = dataset.run(SCRIPT, "--redo", env=environment(server))
    assert (again.summary["done"], again.summary["reused"], again.summary["usd"]) == (4, 4, 0.0)
    assert again.summary["input_tokens"] == 0
    assert server.counts["answered"] == 4
    assert scores(dataset) == before


def test_ask_again_pays_anew(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    ready(3)
    server = stand_in()
    dataset.run(SCRIPT, env=environment(server))
    again = dataset.run(SCRIPT, "--redo", "--ask-again", env=environment(server))
    assert (again.summary["done"], again.summary["reused"]) == (3, 0)
    assert server.counts["answered"] == 6


@pytest.mark.parametrize("flags", [[], ["--ask-again"]])
def test_identical_pictures_share_an_answer(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment, flags: list[str]
) -> None:
    """Asked about at the same moment or one after the other: eight copies, one question."""
    ids = ready(8)
    paths = [dataset.root / row["path_resized"] for row in dataset.images().values()]
    for path in paths[1:]:
        shutil.copyfile(paths[0], path)
    server = stand_in(latency=0.2)
    finished = dataset.run(SCRIPT, "--concurrency", 4, *flags, env=environment(server))
    assert (finished.summary["done"], finished.summary["reused"]) == (8, 7)
    assert server.counts["answered"] == 1
    assert scores(dataset) == ["50"] * len(ids)


def test_a_lost_ledger_cell_costs_nothing(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    """A power cut between an answer and its journal line: the answer is stored, so the next run has it for nothing."""
    ready(3)
    server = stand_in()
    dataset.run(SCRIPT, env=environment(server))
    rows = dataset.images()
    for row in rows.values():
        for name in ("ae_relevance", "ae_aesthetic", "ae_artifact", "ae_model", "score_run_id", "score_error"):
            row[name] = ""
    dataset.write_images(list(rows.values()))
    again = dataset.run(SCRIPT, env=environment(server))
    assert (again.summary["done"], again.summary["reused"]) == (3, 3)
    assert server.counts["answered"] == 3


def test_the_summary_and_the_journal_say_what_was_paid(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(3)
    finished = dataset.run(SCRIPT, env=environment(stand_in()))
    summary = finished.summary
    fresh = summary["input_tokens"] - summary["cached_tokens"]
    dollars = fresh * 0.25 + summary["cached_tokens"] * 0.025 + summary["output_tokens"] * 2.00
    assert summary["usd"] == pytest.approx(dollars / 1e6, abs=2e-6)
    assert summary["cached_tokens"] >= 2 * 1024  # the constant part is long enough to be kept by the server


def test_max_cost_is_a_hard_limit(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    """A request is sent only if its worst price has room, so the run ends somewhat below the limit."""
    ready(60)
    server = stand_in()
    finished = dataset.run(SCRIPT, "--max-cost", 0.005, "--concurrency", 16, env=environment(server))
    assert finished.code == 3
    assert "error: --max-cost 0.005 is reached ($0.00" in finished.stderr
    assert 0 < finished.summary["done"] < 60
    assert 0.001 < finished.summary["usd"] <= 0.005
    assert finished.summary["done"] == server.counts["answered"]
    rest = dataset.run(SCRIPT, env=environment(server))
    assert finished.summary["done"] + rest.summary["done"] == 60
    assert server.counts["answered"] == 60
    assert server.bill.usd == pytest.approx(finished.summary["usd"] + rest.summary["usd"], abs=2e-6)


@pytest.mark.parametrize("failure", ["runaway", "boundless"])
def test_answers_that_never_end_stay_below_the_limit(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment, failure: str
) -> None:
    """A server that heeds no limit on an answer can be stopped after its first one only: one at a time here."""
    ready(30)
    server = stand_in(failures=[failure] * 60)
    at_once = 16 if failure == "runaway" else 1
    finished = dataset.run(SCRIPT, "--max-cost", 0.05, "--concurrency", at_once, env=environment(server))
    assert finished.code == 3
    assert finished.summary["usd"] == pytest.approx(server.bill.usd, abs=2e-6)
    if failure == "runaway":
        assert 0.03 < server.bill.usd <= 0.05
        assert {request["max_output_tokens"] for request in server.requests} == {1120}
    else:
        assert server.counts == {"boundless": 1}


def test_an_estimate_asks_nothing(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    ready(4)
    server = stand_in()
    finished = dataset.run(SCRIPT, "--estimate", "--concurrency", 2, env=environment(server))
    estimate = finished.summary["estimate"]
    assert finished.code == 0
    assert (server.counts, scores(dataset)) == ({}, [""] * 4)
    assert not (dataset.root / "metadata/answers.sqlite").exists()
    assert (estimate["images"], estimate["output_tokens"]) == (4, 4 * QUESTION.output_tokens)
    assert estimate["usd_batch"] == pytest.approx(estimate["usd"] / 2, abs=1e-4)
    assert (
        f"estimate for gpt-5-mini: 4 images, {estimate['input_tokens']} input and 120 output tokens, $0.00"
        in finished.stderr
    )
    paid = dataset.run(SCRIPT, env=environment(server))
    assert paid.summary["input_tokens"] == pytest.approx(estimate["input_tokens"], rel=0.1)  # by the stand-in's rule


@pytest.mark.parametrize("flags", [["--estimate"], ["--max-cost", "1"]])
def test_a_model_without_prices_cannot_be_budgeted(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment, flags: list[str]
) -> None:
    ready(1)
    server = stand_in()
    finished = dataset.run(SCRIPT, "--model", "llava", *flags, env=environment(server))
    assert finished.code == 2
    assert finished.stderr == (
        f"error: {flags[0]} needs the prices of the model, and those of llava are not known (only of gpt-5-mini, "
        "gpt-6-luna, gpt-6.1-terra)\n"
    )
    plain = dataset.run(SCRIPT, "--model", "llava", env=environment(server))
    assert (plain.summary["done"], plain.summary["usd"]) == (1, None)
    (request,) = server.requests
    assert "reasoning" not in request


def test_a_picture_in_low_detail(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    ready(1)
    server = stand_in()
    assert dataset.run(SCRIPT, "--detail", "low", env=environment(server)).summary["done"] == 1
    ((message,),) = [request["input"] for request in server.requests]
    assert [part["detail"] for part in message["content"]] == ["low"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimate", "--batch", "submit"], "argument --batch: not allowed with argument --estimate"),
        (["--max-cost", "-1"], "argument --max-cost: '-1' is not a number of 0 or more"),
        (["--api", "soap"], "argument --api: invalid choice: 'soap' (choose from 'responses', 'chat')"),
    ],
)
def test_wrong_usage(run_script: Callable[..., Any], arguments: list[str], message: str) -> None:
    finished = run_script(SCRIPT, *arguments)
    assert finished.code == 2
    assert finished.stderr.splitlines()[-1].endswith(message)


def test_chat_completions(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    ready(3)
    server = stand_in(failures=["content_filter"])
    finished = dataset.run(SCRIPT, "--api", "chat", "--concurrency", 1, env=environment(server))
    assert (finished.summary["done"], finished.summary["errors"]) == (2, 1)
    (error,) = {row["score_error"] for row in dataset.images().values()} - {""}
    assert error == "refusal: the server's content filter kept the answer back"
    assert scores(dataset).count("") == 1
    assert all("messages" in request for request in server.requests)
    assert finished.summary["input_tokens"] > 0


def test_the_servers_limits_are_kept(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    """Four requests at once and then one every 50 ms: after the first refusals the others wait for their turn."""
    ready(40)
    server = stand_in(requests_per_minute=1200, limit_window=0.2)
    finished = dataset.run(SCRIPT, "--concurrency", 16, env=environment(server))
    assert (finished.summary["done"], finished.summary["errors"]) == (40, 0)
    assert server.counts["answered"] == 40
    assert server.counts["over_limit"] <= 40  # without waiting, 16 threads would be refused over and over
