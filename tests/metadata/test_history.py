"""metadata/history.py: an image's life from the journals, and where it is now."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import pytest

Ask = Callable[..., Any]


@pytest.fixture
def ask(ask_here: Ask) -> Ask:
    return ask_here


def test_life_is_told_in_order(ask: Ask, sample: Any) -> None:
    finished = ask("history", sample.ids["cleared"], "--json")
    assert finished.code == 0
    life = finished.summary
    assert [(event["stage"], event["what"]) for event in life["events"]] == [
        ("scrape", "saved"),
        ("nsfw_filter", "flagged"),
        ("nsfw_unflag", "unflagged"),
        ("nsfw_unflag", "note"),
        ("ocr_pipeline", "no_text"),
        ("resize", "set in images.csv"),
        ("score", "scored"),
        ("phash", "hashed"),
        ("rm_dups", "unique"),
        ("filter", "kept"),
        ("filter", "entered base.csv"),
        ("sentence_tags", "captioned"),
        ("hybrid_captions", "written"),
        ("species", "named"),
        ("split", "val"),
    ]
    assert life["events"][1]["cells"]["nsfw_score"] == "0.55"
    assert life["events"][3]["detail"] == "a balloon"
    assert [event["ts"] for event in life["events"]] == sorted(event["ts"] for event in life["events"])
    assert all(event["code"] and event["run_id"] for event in life["events"])


def test_each_decision_has_its_gates_or_threshold_and_the_arguments_of_its_run(ask: Ask, sample: Any) -> None:
    with sample.run("rm_dups", ["--root", "my set", "--thresh=5"]) as run:
        run.record(sample.ids["cleared"], {"dupe_flag": "unique"}, reason="unique")
    text = ask("history", sample.ids["cleared"]).stdout
    assert text.count("    at min_relevance 60, min_aesthetic 55, top_n 16000, per_species_floor 0\n") == 1
    assert text.count(", with --min-aesthetic 55\n") == 2  # kept, and entered base.csv
    assert "    at threshold 6" in text and "    at threshold 5" in text
    assert ", with --root 'my set' --thresh=5\n" in text
    life = ask("history", sample.ids["cleared"], "--json").summary
    kept = next(event for event in life["events"] if event["what"] == "kept")
    assert kept["settings"] == {"min_relevance": 60, "min_aesthetic": 55, "top_n": 16000, "per_species_floor": 0}
    runs = {run["run_id"]: run for run in life["runs"]}
    assert list(runs) == list(dict.fromkeys(event["run_id"] for event in life["events"]))
    assert runs[kept["run_id"]]["arguments"] == ["--min-aesthetic", "55"]
    assert runs[kept["run_id"]]["settings"].items() >= kept["settings"].items()
    assert runs[kept["run_id"]]["libraries"]["polars"] == importlib.metadata.version("polars")


def test_place_in_the_shard_is_where_the_bytes_are(ask: Ask, sample: Any) -> None:
    life = ask("history", sample.ids["cleared"], "--json").summary
    image = (sample.root / f"data_clean/base/{sample.ids['cleared']}.jpg").read_bytes()
    place = life["shards"][0]
    shard = (sample.root / place["shard"]).read_bytes()
    assert (place["shard"], place["extension"]) == ("webdataset/data/val-00000.tar", "jpg")
    assert shard[place["offset"] : place["offset"] + place["size"]] == image
    assert life["base"]["split"] == "val"
    assert [file["column"] for file in life["files"] if file["exists"]] == ["path_raw", "path_resized", "path"]


def test_screen_tells_of_failure_missing_file_and_no_shard(ask: Ask, sample: Any) -> None:
    next(sample.root.glob(f"data_raw/*/*/{sample.ids['broken']}.jpg")).unlink()
    text = ask("history", sample.ids["broken"][:8]).stdout
    assert "nsfw_filter: error\n    nsfw_error = truncated: image file is truncated\n" in text
    assert f"{sample.ids['broken']}.jpg  missing\n" in text
    assert "    not in metadata/base.csv\n    in no shard\n" in text


def test_leaving_the_set_and_coming_back_are_told(ask: Ask, sample: Any) -> None:
    for rows in ([], [{"image_id": sample.ids["good"], "path": "data_clean/base/x.jpg"}]):
        with sample.run("filter") as run:
            run.replace_rows("base", rows)
    events = ask("history", sample.ids["good"], "--json").summary["events"]
    assert [event["what"] for event in events if "base.csv" in event["what"]] == [
        "entered base.csv",
        "left base.csv",
        "entered base.csv",
    ]


def test_control_characters_are_shown_and_not_obeyed(ask: Ask, sample: Any) -> None:
    with sample.run("scrape") as run:
        run.record_row({"image_id": "ab" * 16, "title": "red \x1b[31m alarm\u202e"}, reason="saved")
    text = ask("history", "abab").stdout
    assert "    title = red \\x1b[31m alarm\\u202e\n" in text


def test_a_takedown_ends_the_life(ask: Ask, sample: Any) -> None:
    ask("takedown", "--id", sample.ids["good"], "--reason", "The artist asked", "--apply")
    text = ask("history", sample.ids["good"][:8]).stdout
    assert "  takedown: the_artist_asked\n    The artist asked\n    drop_reason = takedown:the_artist_asked\n" in text
    assert "  takedown: left base.csv\n" in text
    assert f"data_stage/resized/{sample.ids['good']}.jpg  removed: taken down\n" in text
    assert text.count("removed: taken down") == 2
    assert "    not in metadata/base.csv\n    in no shard\n" in text
    assert ask("history", sample.ids["good"], "--json").summary["taken_down"] is True


def test_unknown_id_is_one_line_and_exit_2(ask: Ask) -> None:
    finished = ask("history", "zzz")
    assert finished.code == 2
    assert finished.stderr == ("error: no image zzz in metadata/images.csv: give an image_id or a prefix\n")


def test_beginning_of_several_ids_is_refused(ask: Ask, sample: Any) -> None:
    with sample.run("scrape") as run:
        for last in "01":
            run.record_row({"image_id": "f" * 31 + last}, reason="saved")
    finished = ask("history", "f" * 31)
    assert finished.code == 2
    assert "is a prefix of several ids" in finished.stderr
