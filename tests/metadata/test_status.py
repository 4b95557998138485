"""metadata/status.py: the counts of each step, the fates, and what comes next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Ask = Callable[..., Any]

COUNTS = {  # step: eligible, done, pending, errors
    "scrape": (9, 9, 0, 0),
    "nsfw_filter": (9, 8, 0, 1),
    "ocr_detect": (7, 7, 0, 0),
    "ocr_inpaint": (1, 1, 0, 0),
    "resize": (7, 7, 0, 0),
    "score": (7, 6, 1, 0),
    "phash": (7, 7, 0, 0),
    "rm_dups": (7, 7, 0, 0),
    "filter": (9, 9, 0, 0),
    "sentence_tags": (4, 4, 0, 0),
    "hybrid_captions": (4, 4, 0, 0),
    "species": (4, 4, 0, 0),
    "split": (3, 3, 0, 0),
}
FATES = {
    ("nsfw_filter", "failed"): 1,
    ("nsfw_filter", "nsfw"): 1,
    ("rm_dups", "near"): 1,
    ("filter", "kept"): 3,
    ("filter", "below_aesthetic"): 1,
    ("species", "no_known_species"): 1,
    ("", "waiting"): 1,
}


def test_json_has_every_count_and_each_image_one_fate(ask: Ask) -> None:
    finished = ask("status", "--json")
    assert finished.code == 0
    assert finished.stdout.count("\n") == 1
    status = finished.summary
    steps = {
        step["name"]: tuple(step[key] for key in ("eligible", "done", "pending", "errors")) for step in status["steps"]
    }
    assert steps == COUNTS
    assert {(row["step"], row["fate"]): row["images"] for row in status["fates"]} == FATES
    assert (status["stage"], status["run_id"], status["seen"], status["done"], status["errors"]) == (
        "status",
        None,
        9,
        3,
        1,
    )
    assert status["last_runs"]["score"]["summary"]["counts"] == {"scored": 6}


def test_screen_names_counts_reasons_runs_and_commands(ask: Ask, sample: Any) -> None:
    finished = ask("status")
    lines = [line.split() for line in finished.stdout.splitlines()]
    assert ["score", "7", "6", "1", "0"] in lines
    assert ["species", "no_known_species", "1"] in lines
    assert f"  python preprocess/score/score.py --root {sample.root}\n" in finished.stdout
    assert f"  python preprocess/nsfw/nsfw_filter.py --root {sample.root} --retry-errors\n" in finished.stdout
    assert finished.summary["next"] == [f"python preprocess/score/score.py --root {sample.root}"]


def test_steps_follow_one_another_to_the_end(ask: Ask, sample: Any) -> None:
    with sample.run("score") as run:
        run.record(sample.ids["waiting"], {"ae_relevance": 10, "ae_aesthetic": 10}, reason="scored")
    # The filter passed over the image for want of a score, which is there now.
    assert ask("status").summary["next"] == [f"python preprocess/filter/filter.py --root {sample.root}"]
    with sample.run("filter") as run:
        run.record(sample.ids["waiting"], {"filter_decision": "below_relevance"}, reason="below_relevance")
    finished = ask("status")
    assert finished.summary["next"] == []
    assert "  nothing: every step is done\n" in finished.stdout


def test_changed_split_is_packed_anew(ask: Ask, sample: Any) -> None:
    with sample.run("score") as run:
        run.record(sample.ids["waiting"], {"ae_relevance": 10, "ae_aesthetic": 10}, reason="scored")
    with sample.run("filter") as run:
        run.record(sample.ids["waiting"], {"filter_decision": "below_relevance"}, reason="below_relevance")
    (sample.root / "webdataset/manifests/split_stats.json").unlink()
    assert ask("status").summary["next"] == [f"python webdataset/webdataset.py --root {sample.root}"]
    with sample.run("split") as run:
        run.record(sample.ids["text"], {"split": "val"}, reason="val")
    assert ask("status").summary["next"] == [
        f"python webdataset/split.py --root {sample.root}",
        f"python webdataset/webdataset.py --root {sample.root}",
    ]


def test_run_without_closing_line_was_stopped(ask: Ask, sample: Any) -> None:
    journal = max((sample.root / "metadata/runs").glob("*-score-*.jsonl"))
    lines = journal.read_text().splitlines(keepends=True)
    (sample.root / "metadata/runs/merged.json").unlink()
    journal.write_text("".join(lines[:-1]))
    finished = ask("status")
    stopped = [line.split()[0] for line in finished.stdout.splitlines() if "stopped before its end" in line]
    assert stopped == ["score"]


def test_ledger_without_images_begins_with_scraping(run_script: Ask, dataset: Any) -> None:
    dataset.write_images([])
    finished = run_script("metadata/status.py", "--root", dataset.root)
    assert finished.summary["next"] == [f"python scraping/scrape.py --root {dataset.root}"]


def test_no_ledger_is_one_line_and_exit_2(run_script: Ask, tmp_path: Path) -> None:
    for script in ("status", "report", "verify"):
        finished = run_script(f"metadata/{script}.py", "--root", tmp_path)
        assert finished.code == 2
        assert finished.stderr == (
            f"error: no ledger at {tmp_path}/metadata/images.csv: run scraping/scrape.py first, or name the dataset's "
            "folder with --root\n"
        )


def test_damaged_stats_are_one_line(ask: Ask, sample: Any) -> None:
    (sample.root / "webdataset/manifests/split_stats.json").write_text("{")
    finished = ask("status")
    assert finished.code == 2
    assert finished.stderr.startswith("error: webdataset/manifests/split_stats.json is damaged (")
    assert finished.stderr.endswith("): run webdataset/webdataset.py again\n")


def test_last_stdout_line_is_json_without_the_flag_too(ask: Ask) -> None:
    finished = ask("status")
    assert set(json.loads(finished.stdout.splitlines()[-1])) >= {"stage", "run_id", "seen", "done", "errors", "seconds"}
