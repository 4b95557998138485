"""What `pipeline.py run` finds wrong before the first stage: all of it at once, and nothing has been done by then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pokefa.setup.environments import CHECKOUT
from pokefa.setup.preflight import check_disk, check_keys, given
from pokefa.setup.runner import Runner
from pokefa.setup.steps import STEPS

KEYS = ("OPENAI_API_KEY", "SERPAPI_API_KEY", "OPENAI_BASE_URL", "SERPAPI_BASE_URL", "LAMA_MODEL")


@pytest.fixture
def run(tmp_path: Path):
    """Run steps on a root that is not there yet, with these variables and none of the user's own."""

    def run_(*words: object, config: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "pipeline.toml").write_text(config)
        clean = {name: value for name, value in os.environ.items() if name not in KEYS}
        start = [sys.executable, CHECKOUT / "pipeline.py", "run", "--config", tmp_path / "pipeline.toml"]
        return subprocess.run(
            [*start, "--root", tmp_path / "data", *map(str, words)],
            env={**clean, **variables},
            capture_output=True,
            text=True,
        )

    return run_


def problems(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return [line.removeprefix("error: ") for line in lines]


def test_keys_flags_addresses_and_disk_are_named_at_once_and_nothing_is_done(run, tmp_path):
    config = """
        resize = ["--min-sid", "none"]
        filter = ["--top-m", "5"]
        score = ["--max-cost", "much"]
    """
    found = problems(run("--from", "resize", "--to", "filter", config=config))
    assert found == [
        "OPENAI_API_KEY is not set: export OPENAI_API_KEY=your-key and run again",
        "resize: argument --min-side: 'none' is not a whole number of 1 or more",
        "score: argument --max-cost: 'much' is not a number of 0 or more",
        "filter: unrecognized arguments: --top-m 5",
    ]
    assert not (tmp_path / "data").exists()
    wrong_address = run("--from", "score", "--to", "score", OPENAI_API_KEY="key", OPENAI_BASE_URL="localhost:1")
    assert problems(wrong_address) == [
        "score: OPENAI_BASE_URL is not an address that starts with http:// or https://: correct it"
    ]


def test_models_that_are_missing_or_not_trusted_are_named(run, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    nowhere = tmp_path / "nowhere"
    config = f'nsfw = ["--model-dir", "{nowhere}"]\nocr = ["--det-model", "PP-OCRv5_mobile_det"]'
    found = problems(run("--from", "nsfw", "--to", "ocr", config=config, LAMA_MODEL=str(weights)))
    assert [each.partition(";")[0] for each in found] == [
        f"nsfw: model folder {nowhere} does not exist: name a DeepDanbooru project folder with --model-dir",
        "ocr: --det-model PP-OCRv5_mobile_det is downloaded unchecked",
        f"ocr: LAMA_MODEL: {weights} is not the pinned model file (its SHA-256 is "
        "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c, expected "
        "344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9)",
    ]


def test_a_key_is_wanted_where_a_step_asks_somebody(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    asking = [STEPS["scrape"], STEPS["score"], STEPS["sentence_tags"]]
    both = [
        f"{name} is not set: export {name}=your-key and run again" for name in ("SERPAPI_API_KEY", "OPENAI_API_KEY")
    ]
    found = check_keys(Runner(Path("data")), asking)
    assert list(dict.fromkeys(found)) == both
    without = {"scrape": ["--from-fold=pictures"], "score": ["--estimate"], "sentence_tags": ["--dry-run"]}
    assert check_keys(Runner(Path("data"), without), asking) == []
    assert check_keys(Runner(Path("data")), [STEPS["resize"], STEPS["filter"]]) == []
    # The clients send a key to any server, so one has to be there for any.
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    assert check_keys(Runner(Path("data")), [STEPS["score"]]) == both[1:]
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    assert check_keys(Runner(Path("data")), [STEPS["score"]]) == []


def test_a_set_that_no_disk_holds_is_named(tmp_path, run):
    quotas = tmp_path / "data/quotas/quotas.csv"
    quotas.parent.mkdir(parents=True)
    quotas.write_text("rank,name,band,weight,quota\n1,Umbreon,001-150,1,1000000000000\n")
    scrape = Runner(tmp_path / "data"), [STEPS["scrape"]]
    (found,) = check_disk(*scrape)
    assert found.startswith(f"{tmp_path / 'data'}: ")
    assert " GB are free, and about " in found and " for 1,000,000,000,000 images)" in found
    assert found.endswith(": free some space, choose another disk, or add --no-disk-check")
    for flags in (["--species", "Eevee"], ["--limit=5"], ["--data-root", "s3://bucket/set"]):
        assert check_disk(Runner(tmp_path / "data", {"scrape": flags}), [STEPS["scrape"]]) == []
    assert check_disk(Runner(tmp_path / "data"), [STEPS["resize"]]) == []
    steps = ("--from", "scrape", "--to", "scrape")
    named = problems(run(*steps, SERPAPI_API_KEY="key"))
    assert [each.partition(" GB")[0].rpartition(":")[0] for each in named] == [str(tmp_path / "data")]
    unchecked = run(*steps, "--no-disk-check", SERPAPI_API_KEY="key", config='scrape = ["--per-host", "x"]')
    assert problems(unchecked) == ["scrape: argument --per-host: 'x' is not a whole number of 1 or more"]


def test_a_root_that_cannot_be_a_folder_and_a_cache_that_cannot_be_written_are_named(run, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    found = problems(
        run("--from", "species", "--to", "split", "--root", file / "data", POKEFA_CACHE=str(file / "cache"))
    )
    assert found == [
        f"--root {file / 'data'}: {file} is not a folder: name another one",
        f"{file}, the folder for environments, is not writable: set POKEFA_CACHE to another",
    ]


def test_setting_up_in_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, CHECKOUT / "pipeline.py", "setup", "quotas"],
        env={**os.environ, "POKEFA_CACHE": str(tmp_path / "file/cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: cannot build environment quotas in {tmp_path}/file/cache/envs/")
    assert line.endswith("; set POKEFA_CACHE to a writable folder")


def test_an_abbreviated_flag_is_found():
    assert given(["--from-f=pictures"], "--from-folder")
    assert given(["--data", "s3://bucket"], "--data-root")
    assert not given(["--fr", "pictures", "from-folder"], "--limit")
    assert not given(["--", "-l"], "--limit")
