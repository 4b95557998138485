"""pokefa/ledger/runs.py: what a run's settings were, also in journals from before settings were recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pokefa.ledger.runs import Run, flags_of, read_run, read_runs, setting_of_last, thresholds_of_filter
from preprocess.filter.filter import build_parser


def older_run(folder: Path, stage: str, *arguments: str) -> Run:
    """Return a run whose journal has its command line alone."""
    path = folder / "1.jsonl"
    path.write_text(json.dumps({"run_id": "1", "stage": stage, "arguments": list(arguments)}) + "\n")
    return read_run(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--min-aesthetic", "70", "--min-relevance", "75", "--top-n", "9", "--per-species-floor", "2"),
        ("--min-aes", "70", "--min-rel", "75", "--top", "9", "--per", "2"),
        ("--min-a=70", "--min-r=75", "--t=9", "--p=2"),
        ("--min-aes", "1", "--min-aesthetic", "70", "--min-relevance=1", "--min-rel=75", "--top=9", "--per-s", "2"),
    ],
)
def test_the_thresholds_of_an_older_run_are_those_that_argparse_took(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    parsed = build_parser().parse_args(arguments)
    assert (parsed.min_aesthetic, parsed.min_relevance, parsed.top_n, parsed.per_species_floor) == (70, 75, 9, 2)
    run = older_run(tmp_path, "filter", *arguments)
    thresholds = {"min_relevance": 75.0, "min_aesthetic": 70.0, "top_n": 9.0, "per_species_floor": 2.0}
    assert thresholds_of_filter([run]) == thresholds


def test_what_an_older_run_left_out_is_unknown(tmp_path: Path) -> None:
    assert thresholds_of_filter([]) == {}
    assert thresholds_of_filter([older_run(tmp_path, "filter", "--root", "x", "--top-n", "5")]) == {"top_n": 5}


def test_an_older_run_is_repeated_without_what_was_of_one_run(tmp_path: Path) -> None:
    run = older_run(
        tmp_path,
        "score",
        "--root",
        "x",
        "--ids",
        "a",
        "b",
        "--red",
        "--model",
        "m",
        "--max-cost=5",
        "--note",
        "[redacted]",
    )
    assert flags_of(run.repeat) == ["--model", "m", "--max-cost", "5"]
    assert run.once == ("root", "ids", "red")
    run = older_run(tmp_path, "ocr_pipeline", "--turns", "detect", "--root", "x")
    assert flags_of(run.repeat) == ["--turns"]


@pytest.mark.parametrize("given", [("--data-root", "s3://here"), ("--data=s3://here",), ("--da", "s3://here")])
def test_the_data_root_of_an_older_run_is_found_in_every_spelling(tmp_path: Path, given: tuple[str, ...]) -> None:
    runs = [older_run(tmp_path, "score", "--root", "x", *given), older_run(tmp_path, "phash", "--linkage", "star")]
    assert setting_of_last(runs, "data_root") == "s3://here"
    assert setting_of_last([older_run(tmp_path, "phash", "--data-roots", "x")], "data_root") is None


def test_takedown_asks_for_the_data_root_of_earlier_runs(ask_here: Any, sample: Any) -> None:
    with sample.run("resize", ["--data-r", "s3://here"]) as run:
        run.record(sample.ids["good"], {"resize_action": "keep"})
    assert setting_of_last(read_runs(sample.root), "data_root") == "s3://here"
    for path in [*sample.root.glob(f"data_*/**/{sample.ids['good']}*")]:
        path.unlink()
    finished = ask_here("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    assert finished.code == 2
    assert "earlier runs used --data-root s3://here: add it" in finished.stderr
