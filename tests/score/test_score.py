"""Stage 5 as a user runs it, against the stand-in over HTTP."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo.standins.openai_sloppy import PARTS, SLOPPY
from demo.standins.openai_standin import StandIn
from preprocess.score.score import Score, read_score
from tests.conftest import CHECKOUT, Dataset
from tests.score.conftest import KEY, judge_by_width

SCRIPT = "preprocess/score/score.py"
MODEL = "gpt-5-mini-stand-in score-1"

Ready = Callable[[int], list[str]]
Start = Callable[..., StandIn]
Environment = Callable[[StandIn], dict[str, str]]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def start_script(dataset: Dataset, variables: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SCRIPT, "--root", str(dataset.root), *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("artifact", "aesthetic", "expected"),
    [("none", 88, 88), ("mild", 88, 25), ("mild", 20, 20), ("strong", 88, 15), ("strong", 15, 15), ("strong", 3, 3)],
)
def test_artifacts_cap_the_aesthetic_score(artifact: str, aesthetic: int, expected: int) -> None:
    answer = {"relevance": 70, "aesthetic": aesthetic, "artifact": artifact}
    assert read_score(answer) == Score(70, expected, artifact)


def test_images_are_scored(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    ids = ready(3)

    def judge(image: Image.Image) -> dict[str, Any]:
        return judge_by_width(image) | ({"artifact": "strong"} if image.width == 101 else {})

    server = stand_in(judge=judge)
    finished = dataset.run(SCRIPT, env=environment(server))
    assert finished.code == 0, finished.stderr
    table = dataset.images()
    columns = ("ae_relevance", "ae_aesthetic", "ae_artifact", "ae_model", "score_run_id", "score_error")
    run_id = finished.summary["run_id"]
    assert [tuple(table[image_id][name] for name in columns) for image_id in ids] == [
        ("90", "50", "none", MODEL, run_id, ""),
        ("90", "15", "strong", MODEL, run_id, ""),
        ("90", "52", "none", MODEL, run_id, ""),
    ]
    summary = finished.summary
    assert (summary["seen"], summary["done"], summary["errors"], summary["counts"]) == (3, 3, 0, {"scored": 3})
    assert summary["input_tokens"] > 3 * 1000 and summary["output_tokens"] > 30
    assert 0 < summary["cached_tokens"] < summary["input_tokens"]  # the rubric is long enough to be cached


def test_usage_and_prompt_version_are_in_the_journal(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(2)
    server = stand_in(failures=["refusal"])
    summary = dataset.run(SCRIPT, "--concurrency", 1, env=environment(server)).summary
    journal = dataset.root / "metadata" / "runs" / f"{summary['run_id']}.jsonl"
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    usages = [entry["usage"] for entry in entries if "usage" in entry]
    assert [entry.get("reason") for entry in entries if "usage" in entry] == ["error", "scored"]
    assert {usage["question"] for usage in usages} == {"score-1"}
    assert len({usage["request"] for usage in usages}) == 2
    for name in ("input_tokens", "cached_tokens", "output_tokens"):
        assert sum(usage[name] for usage in usages) == summary[name]


def test_a_second_run_asks_nothing_and_changes_nothing(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(2)
    server = stand_in()
    dataset.run(SCRIPT, env=environment(server))
    before = contents(dataset.root)
    again = dataset.run(SCRIPT, env={"OPENAI_API_KEY": ""})  # not even a key is needed
    assert (again.code, again.summary["seen"]) == (0, 0)
    assert contents(dataset.root) == before
    assert server.counts == {"answered": 2}


def test_a_dry_run_asks_nothing_and_changes_nothing(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(2)
    server = stand_in()
    before = contents(dataset.root)
    finished = dataset.run(SCRIPT, "--dry-run", env=environment(server))
    assert (finished.code, finished.summary["seen"], finished.summary["dry_run"]) == (0, 2, True)
    assert contents(dataset.root) == before
    assert not server.counts


def test_failures_cost_their_image_and_can_be_tried_again(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ids = ready(5)
    (dataset.root / dataset.images()[ids[4]]["path_resized"]).write_bytes(b"this is no picture")
    # The second and third are asked for again at once, and fail again.
    failures = ["refusal", "incomplete", "incomplete", "invalid_json", "invalid_json", "server_error"]
    server = stand_in(failures=failures)
    finished = dataset.run(SCRIPT, "--concurrency", 1, env=environment(server))
    assert finished.code == 0
    assert (finished.summary["done"], finished.summary["errors"]) == (1, 4)
    errors = [dataset.images()[image_id]["score_error"] for image_id in ids]
    assert [error.split(":")[0] for error in errors] == ["refusal", "incomplete", "invalid_json", "", "not_an_image"]

    left_alone = dataset.run(SCRIPT, env=environment(server))
    assert left_alone.summary["seen"] == 0
    tried = dataset.run(SCRIPT, "--retry-errors", "--strict", env=environment(server))
    assert (tried.code, tried.summary["done"], tried.summary["errors"]) == (1, 3, 1)
    table = dataset.images()
    assert [table[image_id]["ae_aesthetic"] for image_id in ids] == ["50", "51", "52", "53", ""]
    assert [bool(table[image_id]["score_error"]) for image_id in ids] == [False] * 4 + [True]


def test_sloppy_answers_are_used_and_counted(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    """No answer that holds the scores is paid for twice; those that do not are."""
    ready(20)
    sloppy = [*SLOPPY, PARTS]
    server = stand_in(failures=[*sloppy, "fenced", "out_of_range", "", "two_objects"])
    summary = dataset.run(SCRIPT, "--concurrency", 1, env=environment(server)).summary
    assert (summary["done"], summary["errors"]) == (20, 0)
    expected = dict.fromkeys(sloppy, 1) | {"fenced": 2}
    del expected["boolean_as_other"], expected["text_for_list"]  # scores have neither
    assert summary["deviations"] == dict(sorted(expected.items()))
    assert server.counts.total() == 22
    again = dataset.run(SCRIPT, "--redo", env=environment(server)).summary
    assert (again["done"], again["reused"], again["deviations"]) == (20, 20, {})


def test_a_refused_key_stops_the_run_and_blames_no_image(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(40)
    server = stand_in(key="another-key-altogether")
    finished = dataset.run(SCRIPT, "--concurrency", 2, env=environment(server))
    host = server.address.removeprefix("http://").removesuffix("/v1")
    assert finished.code == 1
    assert finished.stderr.splitlines()[-1] == (
        f"error: {host} refuses the key (401): set OPENAI_API_KEY to a valid key and run again"
    )
    assert finished.stderr.count("error: ") == 1
    assert (finished.summary["done"], finished.summary["errors"]) == (0, 0)
    assert server.counts["answered"] < 10
    assert not any(row["score_error"] for row in dataset.images().values())


def test_a_used_up_quota_stops_with_exit_code_3_and_keeps_what_came(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ids = ready(40)
    server = stand_in(failures=["", "", "quota", "quota", "quota"])
    finished = dataset.run(SCRIPT, "--concurrency", 1, env=environment(server))
    assert finished.code == 3
    assert "is used up (insufficient_quota): finished work is saved" in finished.stderr
    assert [row["ae_aesthetic"] for row in dataset.images().values()].count("") == len(ids) - finished.summary["done"]
    assert finished.summary["done"] == server.counts["answered"] >= 2
    assert finished.summary["errors"] == 0


def test_a_missing_key_is_one_line(dataset: Dataset, ready: Ready) -> None:
    ready(1)
    finished = dataset.run(SCRIPT, env={"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})
    assert finished.code == 2
    message = "error: OPENAI_API_KEY is not set: export OPENAI_API_KEY=your-key and run again"
    assert finished.stderr.splitlines()[-1] == message


def test_the_key_is_in_no_file_and_no_log(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(4)

    def tell_the_key(image: Image.Image) -> dict[str, Any]:
        return {"relevance": f"as {KEY} says", "aesthetic": 1, "artifact": "none"}

    server = stand_in(judge=tell_the_key, failures=["refusal", "rate_limit", "server_error"])
    variables = environment(server) | {"OPENAI_API_KEY": f" {KEY}\r"}  # as a copied line has them
    first = dataset.run(SCRIPT, "--log-level", "DEBUG", "--model", f"model-{KEY}", env=variables)
    refused = stand_in(key="another-key-altogether")
    second = dataset.run(SCRIPT, "--log-level", "DEBUG", "--retry-errors", env=environment(refused))
    assert (first.summary["errors"], second.code) == (4, 1)
    for text in (first.stdout, first.stderr, second.stdout, second.stderr):
        assert KEY not in text
    files = contents(dataset.root)
    assert len(files) > 5
    assert [name for name, data in files.items() if KEY.encode() in data] == []
    assert any(b"[redacted]" in data for data in files.values())


def test_32_pictures_are_asked_about_at_once(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ids = ready(64)
    together = threading.Barrier(32, timeout=60)

    def judge(image: Image.Image) -> dict[str, Any]:
        together.wait()  # passes only when 32 requests are being answered at the same time
        return judge_by_width(image)

    server = stand_in(judge=judge)
    finished = dataset.run(SCRIPT, env=environment(server))
    assert (finished.code, finished.summary["done"]) == (0, 64)
    assert [row["ae_aesthetic"] for row in dataset.images().values()] == [str(50 + n % 50) for n in range(len(ids))]


@pytest.mark.killed
@pytest.mark.parametrize("after", [1, 5, 11])
def test_a_killed_run_never_asks_again_for_what_it_has(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment, after: int
) -> None:
    ready(16)
    answered = threading.Semaphore(0)

    def judge(image: Image.Image) -> dict[str, Any]:
        answered.release()
        return judge_by_width(image)

    server = stand_in(judge=judge, latency=0.02)
    process = start_script(dataset, environment(server), "--concurrency", "3")
    for _ in range(after):
        assert answered.acquire(timeout=60)
    process.kill()
    process.communicate()
    finished = dataset.run(SCRIPT, env=environment(server))
    assert finished.code == 0
    assert [row["ae_aesthetic"] for row in dataset.images().values()] == [str(50 + n) for n in range(16)]
    assert 16 <= server.counts["answered"] <= 16 + 3  # paid for twice is at most what was in flight


@pytest.mark.killed
def test_killed_over_and_over(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    """300 pictures, five kills after so many answers: each is answered once, but for what was in flight at a kill."""
    ready(300)
    chance = random.Random(11)
    kills = 5
    allowed, begun = threading.Semaphore(0), threading.Semaphore(0)

    def judge(image: Image.Image) -> dict[str, Any]:
        allowed.acquire()  # so a run cannot get further than the kill that waits for it
        begun.release()
        return judge_by_width(image)

    server = stand_in(judge=judge, keep=False)
    for _ in range(kills):
        answers = chance.randrange(5, 45)
        process = start_script(dataset, environment(server), "--concurrency", "8")
        allowed.release(answers)
        for _ in range(answers):
            assert begun.acquire(timeout=60)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    allowed.release(1000)
    finished = dataset.run(SCRIPT, "--concurrency", 8, env=environment(server))
    assert finished.code == 0
    assert [row["ae_aesthetic"] for row in dataset.images().values()] == [str(50 + n % 50) for n in range(300)]
    assert 300 <= server.counts["answered"] <= 300 + 8 * kills


def test_a_stopped_run_saves_what_is_in_flight(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(12)
    in_flight, go_on = threading.Semaphore(0), threading.Event()

    def judge(image: Image.Image) -> dict[str, Any]:
        in_flight.release()
        assert go_on.wait(60)
        return judge_by_width(image)

    server = stand_in(judge=judge)
    process = start_script(dataset, environment(server), "--concurrency", "4")
    for _ in range(4):
        assert in_flight.acquire(timeout=60)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert any("SIGTERM: stopping" in line for line in iter(process.stderr.readline, ""))
    go_on.set()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: interrupted: " in stderr
    saved = [row["ae_aesthetic"] for row in dataset.images().values() if row["ae_aesthetic"]]
    assert len(saved) == json.loads(stdout.splitlines()[-1])["done"] == server.counts["answered"] >= 4


def test_one_file_is_scored_without_a_dataset(
    tmp_path: Path, stand_in: Start, environment: Environment, run_script: Callable[..., Any]
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGBA", (107, 80), (0, 128, 128, 0)).save(picture)
    finished = run_script(SCRIPT, "--image", picture, env=environment(stand_in()))
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.summary == {
        "image": str(picture),
        "relevance": 90,
        "aesthetic": 57,
        "artifact": "none",
        "model": MODEL,
    }
    assert list(tmp_path.iterdir()) == [picture]


def test_one_file_that_is_no_image_is_wrong_input(
    tmp_path: Path, stand_in: Start, environment: Environment, run_script: Callable[..., Any]
) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_text("no picture")
    finished = run_script(SCRIPT, "--image", picture, env=environment(stand_in()))
    assert (finished.code, finished.stdout) == (2, "")
    assert (
        finished.stderr
        == f"error: --image {picture} cannot be used: not_an_image: the bytes match no known image format\n"
    )


def test_one_file_that_is_refused_fails(
    tmp_path: Path, stand_in: Start, environment: Environment, run_script: Callable[..., Any]
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (107, 80)).save(picture)
    finished = run_script(SCRIPT, "--image", picture, env=environment(stand_in(failures=["refusal"])))
    assert (finished.code, finished.stdout) == (1, "")
    assert finished.stderr == "error: refusal: I'm sorry, but I can't help with that picture.\n"


def test_a_concurrency_of_nothing_is_wrong_usage(run_script: Callable[..., Any]) -> None:
    finished = run_script(SCRIPT, "--concurrency", "0")
    assert finished.code == 2
    assert "argument --concurrency: '0' is not a whole number of 1 or more" in finished.stderr


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("m" * 300, "the name has 300 characters, and may have 200"),
        ("", "'' is not the name of a model"),
        ("a\nmodel", "'a\\nmodel' is not the name of a model"),
        (" model", "' model' is not the name of a model"),
        ("mo\x1b[31mdel", "'mo\\x1b[31mdel' is not the name of a model"),
    ],
)
def test_what_is_no_name_of_a_model_is_wrong_usage(run_script: Callable[..., Any], name: str, problem: str) -> None:
    finished = run_script(SCRIPT, f"--model={name}")
    assert finished.code == 2
    assert finished.stderr.endswith(f"error: argument --model: {problem}\n")


def test_24_open_files_are_enough(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    ready(40)
    server = stand_in(latency=0.05)
    words = shlex.join([sys.executable, SCRIPT, "--root", str(dataset.root)])
    done = subprocess.run(
        ["sh", "-c", f"ulimit -n 24; exec {words}"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment(server)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["done"], summary["errors"]) == (40, 0)
    assert " calls at once and not 32: this process may open few files (ulimit -n)" in done.stderr
