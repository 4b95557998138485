"""A new stage is its own folder, its requirements, its columns, and one entry in the table of steps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from tests.conftest import CHECKOUT

STEP = """
    Step(
        "sharpness", "preprocess/sharpness/sharpness.py", "sharpness", 4, in_run=True, table="images",
        rows=("screened", "path_resized"), done="sharpness", error="sharpness_error", run_id="sharpness_run_id",
        finished=("sharpness",), words="measured", settings_matter=True,
    ),
"""
COLUMNS = """
        *_columns(
            "sharpness",
            [
                ("sharpness", COUNT, "how sharp the image is"),
                ("sharpness_error", TEXT, "why it could not be measured"),
                ("sharpness_run_id", TEXT, "the run that measured it"),
            ],
        ),
"""
SCRIPT = '''
"""Stage 4: measure sharpness."""
from pokefa.stage.options import stage_parser
from pokefa.stage.runner import run_stage

def build_parser():
    parser = stage_parser(__doc__)
    parser.add_argument("--scale", type=int, default=3)
    return parser

def main():
    args = build_parser().parse_args()
    def body(run):
        for row in run.rows(["path_resized"]):
            run.record(row["image_id"], {"sharpness": args.scale * len(row["path_resized"])}, reason="measured")
    return run_stage("sharpness", args, body)

if __name__ == "__main__":
    raise SystemExit(main())
'''


def test_a_new_stage_runs_is_counted_and_is_waited_for(dataset, tmp_path):
    checkout = tmp_path / "checkout"
    for folder in ("pokefa", "metadata", "requirements", "demo", "preprocess/filter"):
        shutil.copytree(CHECKOUT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pipeline.py", checkout)
    insert(checkout / "pokefa/setup/steps.py", STEP, before='\n    Step(\n        "score",')
    insert(checkout / "pokefa/ledger/columns.py", COLUMNS, before='\n        *_columns(\n            "score",')
    (checkout / "requirements/requirements_sharpness.txt").write_text("-r requirements_core.txt\n")
    script = checkout / "preprocess/sharpness/sharpness.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    ready = {
        "path_raw": "x.png",
        "is_nsfw": "False",
        "has_ocr": "False",
        "path_resized": "x.png",
        "resized_w": 9,
        "resized_h": 9,
    }
    dataset.write_images([{"image_id": name * 32, **ready} for name in "ab"])

    def run(path: str, *words: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONPATH": str(checkout)}
        command = [sys.executable, path, *words, "--root", str(dataset.root)]
        done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    def summary(path: str, *words: str) -> dict[str, object]:
        return json.loads(run(path, *words).stdout.splitlines()[-1])

    plan = run("pipeline.py", "run", "--plan", "--from", "resize", "--to", "score").stdout
    assert [line.split(" --root")[0].split("/")[-1] for line in plan.splitlines()] == [
        "resize.py",
        "sharpness.py",
        "score.py",
    ]
    assert summary("metadata/status.py")["next"] == [f"python preprocess/sharpness/sharpness.py --root {dataset.root}"]
    assert summary("preprocess/sharpness/sharpness.py", "--scale", "7", "--limit", "1")["counts"] == {"measured": 1}
    assert summary("metadata/status.py")["next"] == [
        f"python preprocess/sharpness/sharpness.py --root {dataset.root} --scale 7"
    ]
    assert summary("preprocess/filter/filter.py")["unfinished"] == {"sharpness": 1, "score": 1}
    assert summary("preprocess/sharpness/sharpness.py")["seen"] == 1
    assert dataset.images()["a" * 32]["sharpness"] == "35"


def insert(path, text: str, *, before: str) -> None:
    source = path.read_text()
    assert source.count(before) == 1
    path.write_text(source.replace(before, text.rstrip("\n") + before))
