"""The Batch API through the scoring stage, against the stand-in: every step, and a kill or a failure in each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from demo.standins.openai_standin import StandIn
from pokefa.llm import batch_api as batches
from preprocess.score.score import main
from tests.conftest import Dataset, Finished

SCRIPT = "preprocess/score/score.py"

Start = Callable[..., StandIn]
Environment = Callable[[StandIn], dict[str, str]]
Ready = Callable[[int], list[str]]


@pytest.fixture
def step(
    dataset: Dataset,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Finished]:
    """Take a step, in this process: `step(server, "submit")`."""

    def take(server: StandIn, name: str, *more: object) -> Finished:
        for variable, value in environment(server).items():
            monkeypatch.setenv(variable, value)
        code = main(["--root", str(dataset.root), "--batch", name, *map(str, more)])
        written = capsys.readouterr()
        lines = written.out.splitlines()
        return Finished(code, json.loads(lines[-1]) if lines else {}, written.out, written.err)

    return take


def records(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((dataset.root / "metadata/batches").glob("*.json"))]


def scores(dataset: Dataset) -> list[str]:
    return [row["ae_aesthetic"] for row in dataset.images().values()]


def test_submit_status_collect(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    ids = ready(5)
    server = stand_in(batch_polls=2)
    submitted = step(server, "submit")
    assert (submitted.code, submitted.summary["counts"]) == (0, {"submitted": 5})
    (record,) = records(dataset)
    assert (record["state"], sorted(record["requests"])) == ("submitted", ids)
    assert list((dataset.root / "metadata/batches").glob("*.jsonl")) == []

    looked = step(server, "status")
    assert [one["status"] for one in looked.summary["batches"]] == ["validating"]
    early = step(server, "collect")
    assert (early.summary["done"], early.summary["batches_under_way"]) == (0, 1)
    while step(server, "status").summary["batches"][0]["status"] != "completed":
        pass
    collected = step(server, "collect")
    assert (collected.code, collected.summary["done"]) == (0, 5)
    assert scores(dataset) == ["50", "51", "52", "53", "54"]
    assert [one["state"] for one in records(dataset)] == ["done"]
    assert server.counts == {"batched": 5}
    assert step(server, "collect").summary["done"] == 0
    assert step(server, "submit").summary["seen"] == 0


def test_a_batch_costs_half(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    ready(3)
    server = stand_in()
    step(server, "submit")
    summary = step(server, "collect").summary
    fresh = summary["input_tokens"] - summary["cached_tokens"]
    dollars = (fresh * 0.25 + summary["cached_tokens"] * 0.025 + summary["output_tokens"] * 2.00) / 1e6
    assert summary["usd"] == pytest.approx(dollars / 2, abs=2e-6)


def test_what_waits_in_a_batch_is_not_asked_directly(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any, environment: Environment
) -> None:
    ready(4)
    server = stand_in()
    step(server, "submit", "--limit", 3)
    finished = dataset.run(SCRIPT, env=environment(server))
    assert finished.summary["done"] == 1
    assert "3 images wait in batches: --batch collect brings their answers" in finished.stderr
    assert step(server, "collect").summary["done"] == 3
    assert server.counts == {"batched": 3, "answered": 1}


def test_a_prompt_of_the_stage_and_not_of_the_batch_api(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any, environment: Environment
) -> None:
    """A batched answer is stored as any other: --redo has it for nothing."""
    ready(2)
    server = stand_in()
    step(server, "submit")
    step(server, "collect")
    again = dataset.run(SCRIPT, "--redo", env=environment(server))
    assert (again.summary["reused"], server.counts["answered"]) == (2, 0)


def test_chat_completions_in_a_batch(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    ready(2)
    server = stand_in()
    step(server, "submit", "--api", "chat")
    assert step(server, "collect").summary["done"] == 2
    assert scores(dataset) == ["50", "51"]
    assert {line["url"] for line in server.batched} == {"/v1/chat/completions"}


@pytest.mark.parametrize(
    ("failure", "state"),
    [("upload", "written"), ("create", "uploaded")],
)
def test_a_submit_that_broke_off_goes_on(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any, failure: str, state: str
) -> None:
    ready(3)
    broken = stand_in(call_failures={failure: ["server_error"] * 10})
    finished = step(broken, "submit")
    assert finished.code == 1
    assert finished.stderr.splitlines()[-1].endswith("run the same command again, it goes on where it stood")
    (record,) = records(dataset)
    assert record["state"] == state
    # Pictures and prompts are nobody else's.
    written = [path for path in (dataset.root / "metadata/batches").iterdir() if path.is_file()]
    assert len(written) == 2
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
    server = stand_in()
    if state == "uploaded":  # the other server does not know the file: what was written is uploaded there
        path = dataset.root / "metadata/batches" / f"{record['name']}.json"
        path.write_text(json.dumps({**record, "state": "written", "file_id": None}))
    again = step(server, "submit")
    assert (again.code, again.summary["counts"]) == (0, {"submitted": 3})
    assert len(records(dataset)) == 1
    assert step(server, "collect").summary["done"] == 3
    assert server.counts == {"batched": 3}


def test_a_batch_whose_making_was_not_answered_is_found(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any
) -> None:
    """The server has made the batch, and its answer got lost: made again, it would be paid for twice."""
    ready(3)
    server = stand_in(call_failures={"create": ["lost"]})
    finished = step(server, "submit")
    assert (finished.code, finished.summary["counts"]) == (0, {"submitted": 3})
    assert server.calls["create"] == 1
    assert step(server, "collect").summary["done"] == 3
    assert server.counts == {"batched": 3}


def test_a_kill_after_the_batch_was_made(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    """The record stands at `uploaded`, but the server works already."""
    ready(3)
    server = stand_in()
    step(server, "submit")
    (record,) = records(dataset)
    path = dataset.root / "metadata/batches" / f"{record['name']}.json"
    path.write_text(json.dumps({**record, "state": "uploaded", "batch_id": None}))
    assert step(server, "submit").code == 0
    assert records(dataset) == [{**record, "status": records(dataset)[0]["status"]}]
    assert server.calls["create"] == 1


def test_questions_without_a_record_are_removed(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    ready(1)
    leftover = dataset.root / "metadata/batches/20260101T000000000Z-score-000000-001.jsonl"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("{}\n")
    assert step(stand_in(), "submit").code == 0
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("options", "done", "unanswered"),
    [
        ({"batch_failures": ["expired"]}, 2, 2),
        ({"batch_failures": ["invalid"]}, 0, 4),
        ({"batch_failures": ["token_limit"]}, 0, 4),
        ({"line_failures": ["rate_limit", "server_error", "request_timeout"]}, 1, 3),
    ],
)
def test_what_a_batch_did_not_answer_goes_into_the_next(
    dataset: Dataset,
    ready: Ready,
    stand_in: Start,
    step: Any,
    options: Mapping[str, Any],
    done: int,
    unanswered: int,
) -> None:
    ready(4)
    server = stand_in(**options)
    step(server, "submit")
    first = step(server, "collect")
    assert (first.code, first.summary["done"], first.summary["errors"]) == (0, done, 0)
    assert first.summary["counts"].get("unanswered") == unanswered
    assert step(server, "submit").summary["counts"] == {"submitted": unanswered}
    assert step(server, "collect").summary["done"] == unanswered
    assert scores(dataset) == ["50", "51", "52", "53"]


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ("refusal", "refusal: "),
        ("incomplete", "incomplete: the answer was cut short (max_output_tokens)"),
        ("invalid_json", "invalid_json: no JSON object"),
        ("bad_request", "bad_request: 400: "),
    ],
)
def test_an_answer_that_cannot_be_used_costs_its_image(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any, failure: str, error: str
) -> None:
    ids = ready(2)
    server = stand_in(line_failures=[failure])
    step(server, "submit")
    collected = step(server, "collect")
    assert (collected.summary["done"], collected.summary["errors"]) == (1, 1)
    errors = [dataset.images()[image_id]["score_error"] for image_id in ids]
    assert sorted(map(bool, errors)) == [False, True]
    assert max(errors).startswith(error)
    assert step(server, "submit").summary["seen"] == 0


def test_an_odd_line_costs_its_own_image(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    """Lines of the first of two batches are not what a line is; all others are collected, and the second batch is."""
    ids = ready(9)
    server = stand_in()
    step(server, "submit", "--limit", 8)
    step(server, "submit")
    batch = step(server, "status").summary["batches"][0]["batch"]
    path = server.files.path(server.batches.poll(batch)["output_file_id"])
    lines = {line["custom_id"]: line for line in map(json.loads, path.read_text().splitlines())}
    changed = [
        {**lines[ids[0]], "response": "Internal error"},
        {**lines[ids[1]], "response": {"status_code": 200, "body": "late"}},
        {**lines[ids[2]], "response": {"status_code": 400, "body": {"error": "no"}}},
        {**lines[ids[3]], "custom_id": ["a", "list"]},
        {**lines[ids[4]], "response": {"status_code": 200, "body": {"error": {"message": "overloaded"}}}},
        [lines[ids[5]]],
        "not JSON",
        lines[ids[6]],
        lines[ids[6]],  # twice
        lines[ids[7]],
    ]
    texts = [json.dumps(line) if line != "not JSON" else "{not JSON" for line in changed]
    size = path.stat().st_size
    data = "\n".join(texts).encode() + b"\n"
    path.write_bytes(data + b" " * (size - len(data)))
    finished = step(server, "collect")
    assert (finished.code, finished.summary["done"], finished.summary["errors"]) == (0, 3, 1)
    assert finished.summary["counts"] == {"scored": 3, "unanswered": 5}
    table = dataset.images()
    assert [bool(table[image_id]["ae_aesthetic"]) for image_id in ids] == [False] * 6 + [True] * 3
    assert table[ids[2]]["score_error"] == "bad_request: 400: no"
    assert step(server, "submit").summary["counts"] == {"submitted": 5}


@pytest.mark.parametrize("operation", ["download", "poll"])
def test_a_collect_that_broke_off_goes_on(
    dataset: Dataset, ready: Ready, stand_in: Start, step: Any, operation: str
) -> None:
    ready(3)
    server = stand_in(call_failures={operation: ["server_error"] * 7})  # more often than the SDK tries
    step(server, "submit")
    assert step(server, "collect").code == 1
    assert [one["state"] for one in records(dataset)] == ["submitted"]
    assert step(server, "collect").summary["done"] == 3


def test_files_are_split(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(5)
    server = stand_in()
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(batches, "MOST_REQUESTS", 2)
    arguments = ["--root", str(dataset.root), "--quiet", "--batch"]
    assert main([*arguments, "submit"]) == 0
    assert [len(record["requests"]) for record in records(dataset)] == [2, 2, 1]
    assert main([*arguments, "collect"]) == 0
    assert scores(dataset) == ["50", "51", "52", "53", "54"]


def test_max_cost_of_a_batch(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    ready(20)
    server = stand_in()
    finished = step(server, "submit", "--max-cost", 0.002)
    assert finished.code == 3
    assert finished.stderr.endswith(
        "error: --max-cost 0.002 leaves no room for more: run again when this is collected\n"
    )
    assert 0 < finished.summary["counts"]["submitted"] < 20
    assert step(server, "collect").summary["usd"] <= 0.002


def test_a_damaged_record_is_named(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    ready(1)
    path = dataset.root / "metadata/batches/x.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    finished = step(stand_in(), "status")
    assert finished.code == 2
    assert finished.stderr.startswith("error: metadata/batches/x.json is damaged (")


def test_without_a_batch_there_is_nothing_to_see(dataset: Dataset, ready: Ready, stand_in: Start, step: Any) -> None:
    ready(1)
    assert step(stand_in(), "status").summary["batches"] == []
    assert step(stand_in(), "collect").summary["done"] == 0


@pytest.mark.parametrize("name", ["submit", "collect"])
def test_a_dry_run_takes_no_step(dataset: Dataset, ready: Ready, stand_in: Start, step: Any, name: str) -> None:
    ready(2)
    server = stand_in()
    if name == "collect":
        step(server, "submit")
    before = records(dataset)
    assert step(server, name, "--dry-run").code == 0
    assert records(dataset) == before
    assert scores(dataset) == ["", ""]
    if name == "submit":
        assert server.calls == {}
