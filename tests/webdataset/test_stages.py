"""The card's table of stages: every set of settings, defaults too, with the images that each decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pokefa.ledger.runs import Run
from pokefa.ledger.tables import Ledger
from pokefa.shards.card_history import public_flags, settings_of, stage_lines
from pokefa.stage.funnel import read_tables
from tests.webdataset.test_webdataset import SCRIPT, base_row, write_set

NO_STATS: dict[str, Any] = {"samples": {"train": 0, "val": 0}, "left_out": {}}


def run_of(stage: str, run_id: str, *arguments: str, counts: dict[str, int] | None = None) -> Run:
    summary = None if counts is None else {"counts": counts}
    return Run(run_id, stage, "2026-11-22T10:00:00+00:00", Path(), arguments, "abc", summary=summary)


def lines_of(dataset: Any, runs: Sequence[Run]) -> list[tuple[str, str, str, str]]:
    return list(stage_lines(runs, read_tables(Ledger.open(dataset.root)), NO_STATS))


@pytest.mark.parametrize(
    ("stage", "arguments", "told"),
    [
        ("filter", (), "--min-relevance 60 --min-aesthetic 60 --top-n 16000 --per-species-floor 0"),
        (
            "filter",
            ("--root", "/home/me", "--min-rel=70", "--quiet"),
            "--min-relevance 70 --min-aesthetic 60 --top-n 16000 --per-species-floor 0",
        ),
        ("rm_dups", (), "--threshold 6 --linkage star"),
        ("rm_dups", ("--with-variants",), "--threshold 6 --linkage star --with-variants"),
        (
            "split",
            ("--seed", "7"),
            "--threshold 6 --seed 7 --head-rank 100 --head-images 2 --middle-rank 301 --middle-images 1",
        ),
        ("resize", ("--limit", "5", "--workers", "3"), "--min-side 1024 --max-short 2048 --max-long 4096"),
        ("nsfw_filter", ("--backend", "opennsfw"), "--backend opennsfw --threshold nsfw=0.8"),
        (
            "nsfw_filter",
            ("--backend", "opennsfw", "--threshold", "0.3", "--redecide"),
            "--backend opennsfw --threshold nsfw=0.3",
        ),
        ("nsfw_filter", ("--tags", "/home/me/tags.json"), "--backend deepdanbooru --tags"),
        ("ocr_pipeline", ("inpaint", "--inpainter", "opencv"), "inpaint --inpainter opencv"),
        ("filter", ("--of-older-code", "3"), "--of-older-code 3"),
        ("score", ("--model", "m-1", "--retry-errors"), "--model m-1"),
    ],
)
def test_settings_with_their_defaults(
    stage: str, arguments: tuple[str, ...], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert " ".join(settings_of(run_of(stage, "a", *arguments))) == told
    assert capfd.readouterr() == ("", "")


def test_the_settings_of_the_half_that_did_not_run_are_not_told() -> None:
    detected = " ".join(settings_of(run_of("ocr_pipeline", "a", "detect")))
    assert detected.startswith("detect --scales ")
    assert "--inpainter" not in detected
    both = " ".join(settings_of(run_of("ocr_pipeline", "a", "run", "--verify-text", "none")))
    assert "--min-plausible 0.95 " in both and "--verify-text none" in both
    assert both.endswith("--inpainter lama")


def test_an_image_counts_for_the_settings_that_had_the_last_word(dataset: Any) -> None:
    cells = [
        ("a", "False", ""),
        ("a", "True", ""),
        ("b", "False", ""),
        ("c", "", "unreadable: truncated"),
        ("", "", ""),
    ]
    dataset.write_images(
        {"image_id": str(number), "nsfw_run_id": run_id, "is_nsfw": flagged, "nsfw_error": error}
        for number, (run_id, flagged, error) in enumerate(cells)
    )
    strict, usual = ("--backend", "opennsfw", "--threshold", "0.3"), ("--backend", "opennsfw")
    runs = [
        run_of("nsfw_filter", "a", *strict),  # killed, so it left no summary
        run_of("nsfw_filter", "b", *usual, "--retry-errors", counts={"clean": 1}),
        run_of("nsfw_filter", "c", *strict, "--retry-errors", counts={}),
    ]
    assert lines_of(dataset, runs) == [
        ("nsfw_filter", "abc", "--backend opennsfw --threshold nsfw=0.3", "clean 1, error 1, nsfw 1"),
        ("nsfw_filter", "abc", "--backend opennsfw --threshold nsfw=0.8", "clean 1"),
    ]
    assert lines_of(dataset, runs[1:])[-1] == ("nsfw_filter", "", "told by no journal", "clean 1, nsfw 1")


def test_the_last_run_of_a_stage_that_decides_over_all_images(dataset: Any) -> None:
    kept = ["kept", "kept", "below_aesthetic"]
    dataset.write_images({"image_id": str(n), "filter_decision": decision} for n, decision in enumerate(kept))
    runs = [
        run_of("filter", "a", "--top-n", "5", counts={"kept": 3}),
        run_of("filter", "b", counts={"below_aesthetic": 1}),
    ]
    assert lines_of(dataset, runs) == [
        (
            "filter",
            "abc",
            "--min-relevance 60 --min-aesthetic 60 --top-n 16000 --per-species-floor 0",
            "below_aesthetic 1, kept 2",
        )
    ]


def test_runs_of_stages_that_only_drop_are_summed_by_their_flags(dataset: Any) -> None:
    dataset.write_images([{"image_id": "a"}])
    runs = [
        run_of("cap_filter", "a", "--drop", counts={"no_species": 2}),
        run_of("cap_filter", "b", "--drop", "--untried", counts={"no_species": 1}),
        run_of("cap_filter", "c", "--drop", counts={"no_species": 3, "taken_back": 1}),
    ]
    assert lines_of(dataset, runs) == [
        ("cap_filter", "abc", "--drop", "no_species 5, taken_back 1"),
        ("cap_filter", "abc", "--drop --untried", "no_species 1"),
    ]


def test_the_card_after_second_runs(dataset: Any) -> None:
    rows = write_set(dataset, train=5)
    for row in rows:
        del row["split"], row["species"]
    rows[3]["tags"] = ""
    rows[4]["tags"] = '{"pokemon": ["fakemon"]}'
    dataset.write_base(rows)
    assert dataset.run("webdataset/species.py").summary["counts"] == {"named": 3, "no_known_species": 1}
    rows = [dataset.base()[str(row["image_id"])] for row in rows]
    rows[3]["tags"] = str(base_row(3, "train")["tags"])
    dataset.write_base(rows)
    assert dataset.run("webdataset/species.py").summary["counts"] == {"named": 1}
    assert dataset.run("webdataset/split.py", "--seed", 3).code == dataset.run(SCRIPT).code == 0
    assert dataset.run("webdataset/card.py", "--contact", "x@example.net").code == 0
    card = (dataset.root / "webdataset/README.md").read_text(encoding="utf-8")
    told = {line.split(" | ")[0]: line.split(" | ")[2:] for line in card.partition("### Models")[0].splitlines()}
    sides = Counter(row["split"] for row in dataset.base().values() if row["split"])
    assert told["| species"] == ["", "named 4, no_known_species 1 |"]
    assert told["| split"] == [
        "--threshold 6 --seed 3 --head-rank 100 --head-images 2 --middle-rank 301 --middle-images 1",
        f"{', '.join(f'{side} {count}' for side, count in sorted(sides.items()))} |",
    ]
    assert told["| webdataset"] == ["--workers 1", "dropped 1, packed 4 |"]


def test_paths_and_people_stay_out_of_the_card() -> None:
    arguments = ["--root", "/home/me", "--threshold", "0.3", "--contact=me@x.org", "--ids", "a", "b", "--model", "m-1"]
    assert public_flags(arguments) == ["--threshold", "0.3", "--model", "m-1"]
    assert public_flags(["--from-folder", "/home/me/x", "--top-n=16000"]) == ["--from-folder", "--top-n", "16000"]
