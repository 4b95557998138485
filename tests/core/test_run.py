"""The stage runner, driven through a real script: exit codes, the summary, one-line errors, secrets, overrides."""

from __future__ import annotations

import base64
import json
import logging
import signal
import subprocess
import sys
from urllib.parse import quote, quote_plus, unquote

import pytest

from pokefa.errors import BudgetReached, InputError
from pokefa.ledger.journal import read_entries
from pokefa.ledger.tables import Ledger
from pokefa.secrets import redact
from pokefa.setup.steps import STEPS
from pokefa.stage.options import Options, options_from, stage_parser
from pokefa.stage.runner import StageRun, run_stage
from tests.conftest import CHECKOUT

READY = {"is_nsfw": "False", "has_ocr": "False", "path_resized": "x.png"}


def ready(count: int) -> list[dict[str, object]]:
    return [{"image_id": f"{number:032x}", **READY} for number in range(count)]


def run_body(dataset, capsys, body, step="phash", **options):
    """Run a stage body here; return (exit code, summary, stderr)."""
    code = run_stage(step, Options(root=dataset.root, **options), body)
    captured = capsys.readouterr()
    lines = captured.out.strip().splitlines()
    return code, json.loads(lines[-1]) if lines else None, captured.err


def hash_all(run: StageRun) -> None:
    for row in run.rows([]):
        run.record(str(row["image_id"]), {"phash64": "0" * 16}, reason="hashed")


def test_the_summary_is_the_last_line_of_stdout(dataset, capsys):
    dataset.write_images(ready(3))
    code, summary, errors = run_body(dataset, capsys, hash_all)
    assert code == 0
    assert errors == ""
    assert summary.pop("seconds") >= 0
    assert summary.pop("run_id").split("-")[1] == "phash"
    assert summary == {"stage": "phash", "seen": 3, "done": 3, "errors": 0, "counts": {"hashed": 3}}


def test_the_journal_says_what_ran_and_why(dataset, capsys):
    dataset.write_images(ready(2))
    parser = stage_parser("Doc.")
    parser.add_argument("--model", default="m")
    parser.add_argument("--scale", type=float, default=1.5)
    words = ["--root", str(dataset.root), "--limit", "1", "--model", "x"]
    assert run_stage("phash", parser.parse_args(words), hash_all) == 0
    summary = json.loads(capsys.readouterr().out)
    (path,) = (dataset.root / "metadata/runs").glob("*.jsonl")
    assert path.stem == summary["run_id"]
    header, line, closing = [entry for _, entry in read_entries(path)]
    assert {"run_id", "stage", "started", "code", "python", "libraries", "host"} <= set(header)
    assert header["arguments"] == words
    shown = {name: header["settings"][name] for name in ("root", "limit", "model", "scale", "redo")}
    assert shown == {"root": str(dataset.root), "limit": 1, "model": "x", "scale": 1.5, "redo": False}
    assert (header["repeat"], header["once"]) == ({"model": "x"}, ["root", "limit"])
    assert header["libraries"]["polars"]
    assert line["image_id"] == f"{0:032x}"
    assert line["set"] == {"phash64": "0" * 16, "phash_run_id": path.stem}
    assert line["reason"] == "hashed"
    assert closing["summary"]["done"] == 1


def test_a_failed_image_is_recorded_and_strict_makes_it_exit_1(dataset, capsys):
    dataset.write_images(ready(2))

    def body(run: StageRun) -> None:
        for row in run.rows([]):
            run.fail(str(row["image_id"]), "truncated: half a\nfile")

    code, summary, errors = run_body(dataset, capsys, body, limit=1)
    assert (code, summary["errors"], summary["done"]) == (0, 1, 0)
    assert "truncated: half a file" in errors
    assert dataset.images()[f"{0:032x}"]["phash_error"] == "truncated: half a file"
    code, _, _ = run_body(dataset, capsys, body, strict=True)
    assert code == 1
    code, summary, _ = run_body(dataset, capsys, hash_all, retry_errors=True)
    assert (code, summary["done"]) == (0, 2)
    assert dataset.images()[f"{0:032x}"]["phash_error"] == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("wrong --flag"), 2), (BudgetReached("budget reached"), 3), (RuntimeError("a defect\nwith lines"), 1)],
)
def test_errors_are_one_line_and_what_was_finished_stays(dataset, capsys, error, code):
    dataset.write_images(ready(3))

    def body(run: StageRun) -> None:
        run.record(f"{0:032x}", {"phash64": "0" * 16})
        raise error

    found, summary, errors = run_body(dataset, capsys, body)
    assert found == code
    assert errors.count("\n") == 1
    assert errors.startswith("error: ")
    assert summary["done"] == 1
    assert dataset.images()[f"{0:032x}"]["phash64"] == "0" * 16


def test_dry_run_names_the_rows_and_changes_nothing(dataset, capsys):
    dataset.write_images(ready(2))
    before = sorted((path, path.read_bytes()) for path in dataset.root.rglob("*") if path.is_file())
    code, summary, errors = run_body(dataset, capsys, hash_all, dry_run=True)
    assert (code, summary["seen"], summary["done"], summary["dry_run"]) == (0, 2, 0, True)
    assert f"dry run: phash would work on 2 images ({0:032x}, {1:032x}, …)" in errors
    assert sorted((path, path.read_bytes()) for path in dataset.root.rglob("*") if path.is_file()) == before


def test_a_cell_of_the_wrong_type_is_named_with_its_row(dataset, capsys):
    dataset.write_images([{"image_id": "a" * 32, **READY, "w": "wide"}])
    code, _, errors = run_body(dataset, capsys, lambda run: run.rows(["w"]) and None)
    assert code == 2
    expected = f"metadata/images.csv, image {'a' * 32}, w: 'wide' is not a whole number of 1 or more"
    assert errors == f"error: {expected}; correct the cell or empty it\n"


def test_overrides_survive_a_redo(dataset, capsys):
    dataset.write_images([{"image_id": "a" * 32, "path_raw": "x", "is_nsfw": "True", "nsfw_override": "unflagged"}])

    def body(run: StageRun) -> None:
        for row in run.rows([]):
            run.record(str(row["image_id"]), {"is_nsfw": True, "nsfw_score": 1.0})

    code, _, _ = run_body(dataset, capsys, body, step="nsfw_filter", redo=True)
    row = dataset.images()["a" * 32]
    assert (code, row["nsfw_score"], row["nsfw_override"]) == (0, "1.0", "unflagged")


def test_clear_makes_later_stages_pending_again(dataset):
    dataset.write_images(
        [{"image_id": "a" * 32, **READY, "phash64": "0" * 16, "dupe_flag": "unique", "ae_aesthetic": "70"}]
    )
    run = StageRun(STEPS["ocr_unflag"], Options(root=dataset.root), Ledger.open(dataset.root))
    run.clear("a" * 32, ["resize", "phash"], reason="unflagged")
    run.finish()
    row = dataset.images()["a" * 32]
    assert (row["path_resized"], row["phash64"], row["ae_aesthetic"]) == ("", "", "70")


KEY = 'sk-a"b\\c/1+2=é'
USER = "me:p@ss+w/rd"


@pytest.mark.parametrize(
    "told",
    [
        KEY,
        json.dumps(KEY),
        json.dumps(json.dumps(KEY)),
        repr({"key": KEY}),
        quote(KEY),
        quote(KEY, safe="").lower(),
        quote_plus(KEY),
        base64.b64encode(KEY.encode()).decode(),
        f"Basic {base64.b64encode(USER.encode()).decode()}",
        "http://me:p%40ss+w%2frd@host/v1",
        "the password p@ss+w/rd is wrong",
    ],
)
def test_every_form_of_a_secret_is_redacted(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY} \r\n")
    monkeypatch.setenv("OPENAI_BASE_URL", " http://me:p%40ss+w%2frd@host/v1")
    monkeypatch.setenv("SERPAPI_BASE_URL", "http://token-0123456@[host")  # no address: nothing to be found in it
    shown = redact(told)
    assert "[redacted]" in shown
    assert not any(part in unquote(shown) for part in ("sk-a", "1+2", "p@ss", "w/rd", "c2s", "bWU6"))


def test_secrets_reach_neither_journal_nor_log(dataset, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    dataset.write_images(ready(1))

    def body(run: StageRun) -> None:
        logging.getLogger("pokefa").warning("sent %s", "sk-very-secret-key")
        run.fail(f"{0:032x}", "401: wrong key sk-very-secret-key")

    parser = stage_parser("Doc.")
    parser.add_argument("--header", nargs="+")
    words = ["--root", str(dataset.root), "--header", "a", "Bearer sk-very-secret-key"]
    run_stage("phash", parser.parse_args(words), body)
    captured = capsys.readouterr()
    files = [path.read_text() for path in dataset.root.rglob("*") if path.is_file()]
    assert "[redacted]" in captured.err
    for text in (captured.out, captured.err, *files):
        assert "sk-very-secret-key" not in text


def test_ids_and_ids_file_select_rows(tmp_path):
    listing = tmp_path / "ids.txt"
    listing.write_text("b\nc b\n")
    args = stage_parser("Doc.").parse_args(["--ids", "a", "b", "--ids-file", str(listing)])
    assert options_from(args).ids == ("a", "b", "c")
    args = stage_parser("Doc.").parse_args(["--ids-file", str(tmp_path / "none.txt")])
    with pytest.raises(InputError, match=r"^--ids-file .*none.txt cannot be read: "):
        options_from(args)


def test_ids_may_be_shortened_and_those_with_nothing_to_do_are_counted(dataset, capsys):
    dataset.write_images(
        [{"image_id": name * 32, **READY, "phash64": done} for name, done in (("a", ""), ("b", "f" * 16))]
    )
    code, summary, errors = run_body(dataset, capsys, hash_all, ids=("aaa", "bbb"))
    assert (code, summary["seen"]) == (0, 1)
    assert errors.endswith("INFO phash has nothing to do for 1 of the 2 images named\n")


def test_unknown_ids_are_named_and_nothing_is_done(dataset, capsys):
    dataset.write_images(ready(2))
    code, summary, errors = run_body(dataset, capsys, hash_all, ids=(f"{0:032x}", "zz", "yy"))
    assert (code, summary["done"]) == (2, 0)
    assert errors == "error: not in metadata/images.csv: zz, yy; nothing was done: correct the ids\n"


@pytest.mark.parametrize(
    ("redo", "way_on"),
    [
        (False, "run the same command again to continue"),
        (True, "the same command would start over, because --redo includes finished images"),
    ],
)
def test_an_interrupted_run_says_how_to_go_on(dataset, capsys, redo, way_on):
    dataset.write_images(ready(1))

    def body(run: StageRun) -> None:
        signal.raise_signal(signal.SIGINT)
        run.check_stop()

    code, _, errors = run_body(dataset, capsys, body, redo=redo)
    assert code == 130
    assert errors.endswith(f"error: interrupted: finished work is saved; {way_on}\n")


def test_a_limit_of_nothing_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        stage_parser("Doc.").parse_args(["--limit", "0"])
    assert caught.value.code == 2
    assert "argument --limit: '0' is not a whole number of 1 or more" in capsys.readouterr().err


def test_help_needs_no_heavy_library():
    """Every script answers --help in this environment, which has the core's libraries alone."""
    scripts = [
        path
        for folder in ("quotas", "scraping", "preprocess", "caption", "webdataset", "metadata")
        for path in sorted((CHECKOUT / folder).rglob("*.py"))
        if 'if __name__ == "__main__":' in path.read_text()
    ]
    assert scripts
    for script in scripts:
        done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=CHECKOUT)
        assert done.returncode == 0, f"{script}: {done.stderr}"
        assert done.stdout.startswith("usage: ")
