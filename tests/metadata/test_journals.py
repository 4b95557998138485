"""pokefa/ledger/runs.py: what a recorded command line set, however argparse let it be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pokefa.ledger.runs import Run, data_root_of, flag_value, gates_of, read_runs, settings_of
from preprocess.filter.filter import build_parser


def run_of(stage: str, *arguments: str) -> Run:
    return Run("1", stage, "", Path(), arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--min-aesthetic", "70", "--min-relevance", "75", "--top-n", "9", "--per-species-floor", "2"),
        ("--min-aes", "70", "--min-rel", "75", "--top", "9", "--per", "2"),
        ("--min-a=70", "--min-r=75", "--t=9", "--p=2"),
        ("--min-aes", "1", "--min-aesthetic", "70", "--min-relevance=1", "--min-rel=75", "--top=9", "--per-s", "2"),
    ],
)
def test_gates_are_those_that_argparse_took(arguments: tuple[str, ...]) -> None:
    parsed = build_parser().parse_args(arguments)
    assert (parsed.min_aesthetic, parsed.min_relevance, parsed.top_n, parsed.per_species_floor) == (70, 75, 9, 2)
    gates = {"min_relevance": 75.0, "min_aesthetic": 70.0, "top_n": 9.0, "per_species_floor": 2.0}
    assert gates_of([run_of("filter", *arguments)]) == gates == settings_of(run_of("filter", *arguments))


def test_gates_that_were_left_out_are_the_defaults() -> None:
    defaults = {"min_relevance": 60, "min_aesthetic": 60, "top_n": 16000, "per_species_floor": 0}
    assert gates_of([]) == settings_of(run_of("filter", "--root", "x", "--quiet")) == defaults


def test_thresholds_of_duplicates() -> None:
    assert settings_of(run_of("rm_dups", "--linkage", "single")) == {"threshold": 6}
    assert settings_of(run_of("rm_dups", "--thresh", "4", "--embeddings=x.npy")) == {"threshold": 4, "min_cosine": 0.95}
    assert settings_of(run_of("rm_dups", "--embedding-ids", "x.txt")) == {"threshold": 6}
    assert settings_of(run_of("score", "--threshold", "4")) == {}


@pytest.mark.parametrize("given", [("--data-root", "s3://here"), ("--data=s3://here",), ("--da", "s3://here")])
def test_data_root_is_found_in_every_spelling(given: tuple[str, ...]) -> None:
    runs = [run_of("score", "--root", "x", *given), run_of("phash", "--root", "x", "--linkage", "star")]
    assert data_root_of(runs) == "s3://here"
    assert data_root_of([run_of("phash", "--", "x"), run_of("phash", "--data-roots", "x")]) is None


def test_last_value_counts_and_a_flag_without_one_has_none() -> None:
    assert flag_value(["--min-aesthetic", "50", "--min-aes=70"], "--min-aesthetic") == "70"
    assert flag_value(["--min-aesthetic"], "--min-aesthetic") is None


def test_takedown_asks_for_a_data_root_that_was_abbreviated(ask_here: Any, sample: Any) -> None:
    with sample.run("resize", ["--data", "s3://here"]) as run:
        run.record(sample.ids["good"], {"resize_action": "keep"})
    assert data_root_of(read_runs(sample.root)) == "s3://here"
    for path in [*sample.root.glob(f"data_*/**/{sample.ids['good']}*")]:
        path.unlink()
    finished = ask_here("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    assert finished.code == 2
    assert "runs of this set had --data-root s3://here: name it here too" in finished.stderr
