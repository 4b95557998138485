"""metadata/status.py: the counts of each step, the fates, and what comes next."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pokefa.llm.batch_records import BatchRecord
from pokefa.reporting.next_steps import Situation, command, retry_commands
from pokefa.setup.steps import STEPS
from pokefa.stage.funnel import StepCount
from pokefa.stage.options import command_line

Ask = Callable[..., Any]
CHECKOUT = Path(__file__).resolve().parents[2]


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
    "webdataset": (3, 3, 0, 0),
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
    found = finished.summary
    steps = {
        step["name"]: tuple(step[key] for key in ("eligible", "done", "pending", "errors")) for step in found["steps"]
    }
    assert steps == COUNTS
    assert {(row["step"], row["fate"]): row["images"] for row in found["fates"]} == FATES
    assert (found["stage"], found["run_id"], found["seen"], found["done"], found["errors"]) == (
        "status",
        None,
        9,
        3,
        1,
    )
    assert found["last_runs"]["score"]["summary"]["counts"] == {"scored": 6}


def test_screen_names_counts_reasons_runs_and_commands(ask: Ask, sample: Any) -> None:
    finished = ask("status")
    lines = [line.split() for line in finished.stdout.splitlines()]
    assert ["score", "7", "6", "1", "0"] in [line[:5] for line in lines]
    assert ["species", "no_known_species", "1"] in lines
    assert f"  python preprocess/score/score.py --root {sample.root}\n" in finished.stdout
    assert f"  python preprocess/nsfw/nsfw_filter.py --root {sample.root} --retry-errors\n" in finished.stdout
    assert finished.summary["next"] == [f"python preprocess/score/score.py --root {sample.root}"]


def test_steps_follow_one_another_to_the_end(ask_here: Ask, sample: Any) -> None:
    with sample.run("score") as run:
        run.record(sample.ids["waiting"], {"ae_relevance": 10, "ae_aesthetic": 10}, reason="scored")
    # The filter passed over the image for want of a score, which is there now.
    assert ask_here("status").summary["next"] == [
        f"python preprocess/filter/filter.py --root {sample.root} --min-aesthetic 55"
    ]
    with sample.run("filter") as run:
        run.record(sample.ids["waiting"], {"filter_decision": "below_relevance"}, reason="below_relevance")
    finished = ask_here("status")
    assert finished.summary["next"] == []
    assert "  nothing: every step is done\n" in finished.stdout


def test_changed_split_is_packed_anew(ask_here: Ask, sample: Any) -> None:
    with sample.run("score") as run:
        run.record(sample.ids["waiting"], {"ae_relevance": 10, "ae_aesthetic": 10}, reason="scored")
    with sample.run("filter") as run:
        run.record(sample.ids["waiting"], {"filter_decision": "below_relevance"}, reason="below_relevance")
    (sample.root / "webdataset/manifests/split_stats.json").unlink()
    assert ask_here("status").summary["next"] == [f"python webdataset/webdataset.py --root {sample.root}"]
    with sample.run("split") as run:
        run.record(sample.ids["text"], {"split": "val"}, reason="val")
    assert ask_here("status").summary["next"] == [
        f"python webdataset/split.py --root {sample.root}",
        f"python webdataset/webdataset.py --root {sample.root}",
    ]


def test_each_step_is_shown_with_its_last_run(ask_here: Ask, sample: Any) -> None:
    with sample.run("score") as run:
        run.note({"text": "nothing new"})
    header = json.loads(newest(sample.root, "score").read_text().splitlines()[0])
    lines = ask_here("status").stdout.splitlines()
    began = header["started"][:16].replace("T", " ")
    assert any(re.fullmatch(rf"score +7 +6 +1 +0  {began} +[0-9.]+ s", line) for line in lines)
    assert any(re.fullmatch(r"nsfw_unflag +2\S+ \S+ +[0-9.]+ s", line) for line in lines)  # it counts no rows


def test_shards_that_lack_an_image_are_counted(ask_here: Ask, sample: Any) -> None:
    path = sample.root / "webdataset/manifests/split_stats.json"
    stats = json.loads(path.read_text())
    stats["left_out"] = {sample.ids["good"]: "truncated"}
    path.write_text(json.dumps(stats))
    assert counts_of(ask_here("status", "--json"), "webdataset") == (3, 2, 0, 1)
    path.unlink()
    assert counts_of(ask_here("status", "--json"), "webdataset") == (3, 0, 3, 0)


def counts_of(finished: Any, name: str) -> tuple[int, ...]:
    step = next(step for step in finished.summary["steps"] if step["name"] == name)
    return tuple(step[key] for key in ("eligible", "done", "pending", "errors"))


def newest(root: Path, stage: str) -> Path:
    """Return the journal of the last run of a stage."""
    return max((root / "metadata/runs").glob(f"*-{stage}-*.jsonl"))


def kill(root: Path, stage: str) -> None:
    """Leave the journal of a stage's last run as a killed run leaves it."""
    journal = newest(root, stage)
    rewrite_journal(journal, journal.read_text().splitlines(keepends=True)[:-1])


def interrupt(root: Path, stage: str) -> None:
    """Have the journal of a stage's last run say that it was interrupted."""
    journal = newest(root, stage)
    *lines, last = journal.read_text().splitlines(keepends=True)
    closing = json.loads(last)
    closing["summary"]["interrupted"] = True
    rewrite_journal(journal, [*lines, json.dumps(closing) + "\n"])


def rewrite_journal(journal: Path, lines: list[str]) -> None:
    """Give a journal other lines, all of them merged."""
    journal.write_text("".join(lines))
    merged = journal.parent / "merged.json"
    told = json.loads(merged.read_text())
    told["journals"][journal.stem] = journal.stat().st_size
    merged.write_text(json.dumps(told))


def finish_scoring(sample: Any) -> None:
    """Bring the one image that waits to its end, so that no step has anything to do."""
    with sample.run("score") as run:
        run.record(sample.ids["waiting"], {"ae_relevance": 10, "ae_aesthetic": 10}, reason="scored")
    with sample.run("filter") as run:
        run.record(sample.ids["waiting"], {"filter_decision": "below_relevance"}, reason="below_relevance")


# -- quotas and money -------------------------------------------------------------------------------------------------


def test_quotas_are_summed_by_band(ask_here: Ask, sample: Any) -> None:
    write_quotas(
        sample.root, "1,Gengar,001-001,1,1", "2,Eevee,002-003,1,2", "3,Umbreon,002-003,1,5", "4,Onix,004-004,1,0"
    )
    finished = ask_here("status", "--json")
    bands = [tuple(band.values()) for band in finished.summary["quotas"]]
    # band, part, species, with any, met, quota, downloaded, kept
    assert bands == [
        ("001-001", "head", 1, 1, 1, 1, 3, 1),
        ("002-003", "middle", 2, 2, 0, 7, 4, 2),
        ("004-004", "tail", 1, 0, 0, 0, 0, 0),
    ]
    lines = [line.split() for line in ask_here("status").stdout.splitlines()]
    assert ["002-003", "middle", "2", "2", "0", "7", "4", "2"] in lines


def write_quotas(root: Path, *rows: str) -> None:
    (root / "quotas").mkdir()
    (root / "quotas/quotas.csv").write_text("\n".join(["rank,name,band,weight,quota", *rows]) + "\n")


def test_money_is_that_of_all_runs(ask_here: Ask, sample: Any) -> None:
    for dollars in (0.25, 0.5):
        with sample.run("score") as run:
            run.note({"text": "asked"})
            run.extra |= {"usd": dollars, "input_tokens": 1000, "output_tokens": 10}
    with sample.run("scrape") as run:
        run.note({"text": "searched"})
        run.extra["searches"] = {"paid": 7, "reused": 2, "left": 93}
    money = ask_here("status", "--json").summary["money"]
    assert (money["usd"], money["searches_left"]) == (0.75, 93)
    screen = ask_here("status").stdout
    assert "  score           $0.7500, 2000 input and 20 output tokens\n" in screen
    assert "  scrape          7 searches paid, 93 left on the account after the last run\n" in screen
    assert (
        "  total           $0.7500, tokens times the list price at the time of the run: an estimate, not the bill\n"
        in screen
    )


def test_killed_run_is_paid_for_too(ask_here: Ask, sample: Any) -> None:
    usage = {"input_tokens": 100, "output_tokens": 7, "usd": 0.125}
    with sample.run("score") as run:
        run.record(sample.ids["waiting"], {"ae_relevance": 9, "ae_aesthetic": 9}, reason="scored", usage=usage)
        run.fail(sample.ids["dull"], "refusal: no", usage=usage)
        run.note({"recap": {}, "usage": usage})
    kill(sample.root, "score")
    stages = {cost["stage"]: cost for cost in ask_here("status", "--json").summary["money"]["stages"]}
    score = stages["score"]
    assert (score["usd"], score["input_tokens"], score["output_tokens"]) == (0.375, 300, 21)
    assert (score["runs"], score["stopped"], score["done"], score["errors"]) == (2, 1, 7, 1)


def test_searches_of_a_killed_run_are_counted_by_their_pages(ask_here: Ask, sample: Any) -> None:
    kill(sample.root, "scrape")
    pages = sample.root / "data_raw/serpapi"
    pages.mkdir()
    for number in range(3):
        (pages / f"gengar-{number:02d}-0123.json.gz").write_bytes(b"")
    assert "  scrape          3 searches paid\n" in ask_here("status").stdout


def test_tokens_without_a_price_are_told_apart(ask_here: Ask, sample: Any) -> None:
    with sample.run("score") as run:
        run.note({"text": "asked a model that is not in the table"})
        run.extra |= {"usd": None, "input_tokens": 1000, "output_tokens": 10}
    finished = ask_here("status")
    assert (
        "  score           1000 input and 10 output tokens, 1010 of these from a model without a known price\n"
    ) in finished.stdout
    assert "total  " not in finished.stdout
    assert ask_here("status", "--json").summary["money"]["usd"] is None


# -- what to run next -------------------------------------------------------------------------------------------------


def test_run_without_closing_line_was_stopped(ask_here: Ask, sample: Any) -> None:
    kill(sample.root, "score")
    finished = ask_here("status")
    stopped = [line.split()[0] for line in finished.stdout.splitlines() if "stopped before its end" in line]
    assert stopped == ["score"]


def test_running_stage_is_waited_for(ask_here: Ask, sample: Any) -> None:
    with sample.run("score") as run:
        run.note({"text": "its journal is open in this process"})
        finished = ask_here("status")
        assert finished.summary["next"] == []
        assert "\n  wait until score ends: it is running\n" in finished.stdout
        assert re.search(rf"\n  score +since \S+ \S+, running, process {os.getpid()}\n", finished.stdout)
        details = ask_here("status", "--json").summary
        assert (details["awaited"], details["open_runs"]["score"]["running"]) == (["score"], True)
    assert ask_here("status").summary["next"] == [f"python preprocess/score/score.py --root {sample.root}"]


RUN_WITHOUT_END = """
import sys, time
from pathlib import Path
from pokefa.ledger.tables import Ledger
from pokefa.stage.options import Options
from pokefa.stage.runner import StageRun
from pokefa.setup.steps import STEPS
root = Path(sys.argv[1])
StageRun(STEPS["score"], Options(root=root), Ledger.open(root)).note({"text": "begun"}, durable=True)
print("begun", flush=True)
time.sleep(600)
"""


def test_killed_process_is_told_from_a_running_one(ask_here: Ask, sample: Any) -> None:
    words = [sys.executable, "-c", RUN_WITHOUT_END, str(sample.root)]
    with subprocess.Popen(words, cwd=CHECKOUT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        running = ask_here("status").stdout
        process.kill()
    killed = ask_here("status").stdout
    assert f", running, process {process.pid}\n" in running and "stopped before its end" not in running
    assert "\nRunning\n" not in killed and "  stopped before its end\n" in killed
    assert f"\n  python preprocess/score/score.py --root {sample.root}\n" in killed


def test_failed_images_of_a_running_stage_are_not_tried_beside_it(ask_here: Ask, sample: Any) -> None:
    with sample.run("nsfw_filter") as run:
        run.note({"text": "running"})
        assert ask_here("status", "--json").summary["retry"] == []
    assert len(ask_here("status", "--json").summary["retry"]) == 1


def test_run_on_another_machine_may_be_running(ask_here: Ask, sample: Any) -> None:
    kill(sample.root, "score")
    journal = newest(sample.root, "score")
    header, *rest = journal.read_text().splitlines(keepends=True)
    rewrite_journal(journal, [json.dumps({**json.loads(header), "host": "node-7"}) + "\n", *rest])
    assert "score           since" in ask_here("status").stdout
    assert "open on node-7: running there, or killed\n" in ask_here("status").stdout


def test_next_command_keeps_the_flags_but_those_of_one_run(ask_here: Ask, sample: Any) -> None:
    arguments = ["--root", "elsewhere", "--limit", "3", "--model", "gpt 5", "--ids", "a", "b", "--redo", "--max-cost=5"]
    with sample.run("score", arguments) as run:
        run.note({"text": "a run with flags"})
    assert ask_here("status").summary["next"] == [
        f"python preprocess/score/score.py --root {sample.root} --model 'gpt 5' --max-cost 5"
    ]


def test_next_and_retry_lines_leave_out_what_was_of_one_run(ask_here: Ask, sample: Any) -> None:
    with sample.run("nsfw_filter", ["--redecide", "--threshold", "0.3"]) as run:
        run.note({"text": "decided again"})
    assert ask_here("status", "--json").summary["retry"] == [
        f"python preprocess/nsfw/nsfw_filter.py --root {sample.root} --threshold 0.3 --retry-errors"
    ]
    with sample.run("score") as run:
        run.record(sample.ids["waiting"], {"ae_relevance": 95, "ae_aesthetic": 90}, reason="scored")
    with sample.run("filter") as run:
        run.record(sample.ids["waiting"], {"filter_decision": "kept"}, reason="kept")
        base = [{"image_id": sample.ids[name], "path": f"{name}.jpg"} for name in ("good", "waiting")]
        run.replace_rows("base", base)
    with sample.run("sentence_tags", ["--only", "recap.csv", "--model", "m"]) as run:
        run.note({"text": "captioned again"})
    assert ask_here("status").summary["next"] == [f"python caption/sentence_tags.py --root {sample.root} --model m"]


def test_killed_run_that_decides_over_all_rows_is_run_again(ask_here: Ask, sample: Any) -> None:
    finish_scoring(sample)
    assert ask_here("status").summary["next"] == []
    kill(sample.root, "rm_dups")
    assert ask_here("status").summary["next"] == [f"python preprocess/dup/rm_dups.py --root {sample.root}"]


@pytest.mark.parametrize("end", [kill, interrupt])
def test_killed_or_interrupted_scraper_goes_on_first(
    ask_here: Ask, sample: Any, end: Callable[[Path, str], None]
) -> None:
    write_quotas(sample.root, "1,Gengar,001-001,1,1")
    with sample.run("scrape", ["--species", "Gengar", "Mr. Mime", "--retry-errors"]) as run:
        run.note({"text": "searching"})
    end(sample.root, "scrape")
    assert ask_here("status").summary["next"] == [
        f"python scraping/scrape.py --root {sample.root} --species Gengar 'Mr. Mime'",
        f"python preprocess/score/score.py --root {sample.root}",
    ]


def test_batches_are_collected_before_more_is_asked(ask_here: Ask, sample: Any) -> None:
    run_id = newest(sample.root, "score").stem
    record = BatchRecord(f"{run_id}-001", "pokefa_score", "1", "gpt-5-mini", "responses", "submitted", {"a": "b"})
    folder = sample.root / "metadata/batches"
    folder.mkdir()
    (folder / f"{record.name}.json").write_text(json.dumps(asdict(record)))
    finished = ask_here("status")
    assert finished.summary["next"] == [f"python preprocess/score/score.py --root {sample.root} --batch collect"]
    assert "  score           1 requests wait in batches: not counted until they are collected\n" in finished.stdout
    (folder / f"{record.name}.json").write_text(json.dumps(asdict(replace(record, state="done"))))
    assert ask_here("status").summary["next"] == [f"python preprocess/score/score.py --root {sample.root}"]


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if step.marks])
def test_commands_are_ones_that_the_scripts_take(load_script: Ask, tmp_path: Path, name: str) -> None:
    words = shlex.split(command(STEPS[name], Situation(tmp_path, {STEPS[name].owner: {"strict": True}})))
    assert words[0] == "python"
    args = load_script(words[1]).build_parser().parse_args(words[2:])
    assert (args.root, args.strict) == (tmp_path, True)


VALUES = ("1", "0.5", "64", "256", "en", "us", "{name}", "--")  # one of them suits any flag that wants a value


def recorded_lines(parser: argparse.ArgumentParser, subcommand: list[str]) -> list[list[str]]:
    """Return a command line for each flag of a script, with a value that the flag takes."""
    lines = []
    for action in parser._actions:
        if not action.option_strings or action.dest in ("help", "root"):
            continue
        flag = action.option_strings[-1]
        values = list(action.choices or VALUES)
        tries = [[*subcommand, flag]] if action.nargs == 0 else [[*subcommand, flag, str(value)] for value in values]
        lines.append(next(words for words in tries if parses(parser, words)))
    return lines


def parses(parser: argparse.ArgumentParser, words: list[str]) -> bool:
    try:
        parser.parse_args(words)
    except SystemExit:
        return False
    return True


def is_taken(script: ModuleType, words: list[str]) -> bool:
    """Tell whether a script takes a command line, though there is no dataset: else argparse ends it."""
    try:
        script.main(words)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if step.marks])
def test_after_any_flag_the_next_and_the_retry_line_are_taken(load_script: Ask, tmp_path: Path, name: str) -> None:
    step = STEPS[name]
    script = load_script(step.script)
    end = ["--root", str(tmp_path), "--dry-run"]
    for recorded in recorded_lines(script.build_parser(), ["run"] if "ocr" in name else []):
        situation = Situation(tmp_path, {step.owner: command_line(script.build_parser().parse_args(recorded)).repeat})
        # A retry line is the next line with one flag more.
        lines = retry_commands([StepCount(name, 1, 0, 0, 1)], situation) if step.error else [command(step, situation)]
        for line in lines:
            taken = is_taken(script, [*shlex.split(line)[2:], "--dry-run"])
            assert taken or not is_taken(script, [*recorded, *end]), line  # some flags are refused without another one


def test_a_subcommand_is_named_once() -> None:
    line = command(STEPS["ocr_detect"], Situation(Path("/x"), {"ocr_pipeline": {"turns": True}}))
    assert line == "python preprocess/ocr/ocr_pipeline.py --root /x run --turns"


def test_commands_are_those_of_the_checkouts_top_wherever_they_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(CHECKOUT)
    assert command(STEPS["resize"], Situation(Path("e5"))) == "python preprocess/resize/resize.py --root e5"
    assert command(STEPS["resize"], Situation(Path())) == "python preprocess/resize/resize.py"
    monkeypatch.chdir(tmp_path)
    for root in (Path("e5"), Path()):
        line = f"python preprocess/resize/resize.py --root {tmp_path / root}"
        assert command(STEPS["resize"], Situation(root)) == line


def test_ledger_without_images_begins_with_the_quotas(run_script: Ask, dataset: Any) -> None:
    dataset.write_images([])
    commands = run_script("metadata/status.py", "--root", dataset.root).summary["next"]
    assert commands == [
        f"python quotas/allocate.py --root {dataset.root}",
        f"python scraping/scrape.py --root {dataset.root}",
    ]
    assert run_script(*shlex.split(commands[0])[1:]).code == 0
    assert run_script("metadata/status.py", "--root", dataset.root).summary["next"] == commands[1:]


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
