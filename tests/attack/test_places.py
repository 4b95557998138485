"""Paths are data: a root of any name, in any locale, works as a plain one does, and touches no folder but its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest

from pokefa.ledger.tables import Ledger
from pokefa.setup.steps import STEPS
from pokefa.stage.options import Options
from pokefa.stage.runner import StageRun
from tests.metadata.conftest import Sample
from tests.odd_places import NAMES, check_odd_places, run_script


def test_every_script_works_in_every_place(template: Sample, tmp_path: Path) -> None:
    ids = template.ids
    scripts = [
        "quotas/allocate.py",
        f"preprocess/nsfw/nsfw_unflag.py --ids {ids['nsfw']}",
        f"preprocess/ocr/ocr_unflag.py --ids {ids['text']}",
        "preprocess/dup/rm_dups.py",
        "preprocess/filter/filter.py --top-n 3",
        "caption/cap_filter.py",
        "webdataset/split.py",
        "metadata/status.py",
        "metadata/history.py " + ids["good"],
        "metadata/review.py --stage dup",
        f"metadata/takedown.py --id {ids['dull']} --reason asked --apply",
        "metadata/verify.py --json",
    ]
    check_odd_places(template.root, tmp_path, scripts, NAMES)


def test_the_report_works_in_every_place(template: Sample, tmp_path: Path) -> None:
    check_odd_places(template.root, tmp_path, ["metadata/report.py --thumbnails 1"], [b"plain", "ü [1]\n{x}".encode()])


def test_a_root_behind_a_link_and_one_on_another_device(template: Sample, tmp_path: Path) -> None:
    """Where no hard link can be made, a file is copied."""
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        other = template.copy_to(Path(folder) / "dataset").root
        shutil.rmtree(other / "data_clean")
        (tmp_path / "exports").mkdir()
        (other / "data_clean").symlink_to(tmp_path / "exports")
        (tmp_path / "root").symlink_to(other)
        assert run_script(tmp_path / "root", "preprocess/filter/filter.py") == (0, "")
        kept = sorted(path.name for path in (template.root / "data_clean/base").iterdir())
        assert {path.name for path in (tmp_path / "exports/base").iterdir()} <= set(kept)
        assert (
            run_script(other, "metadata/verify.py --json")[0] == run_script(tmp_path / "root", "metadata/verify.py")[0]
        )


def test_what_only_reads_works_under_a_root_that_cannot_be_written(template: Sample, tmp_path: Path) -> None:
    """Results that no merge has brought into the tables yet are seen all the same."""
    root = template.copy_to(tmp_path / "dataset").root
    run = StageRun(STEPS["phash"], Options(root=root), Ledger.open(root))
    run.record(template.ids["dull"], {"phash64": "f" * 16})
    run._journal.close()
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with read_only(root):
        report = shlex.join(["report.py", "--thumbnails", "1", "--out", str(tmp_path / "report.html")])
        for line in ("status.py", f"history.py {template.ids['dull']}", "verify.py", report):
            assert run_script(root, f"metadata/{line}") == (0, ""), line
        assert (tmp_path / "report.html").is_file()
        told = f"error: {root / 'metadata/report.html'} cannot be written: name another file with --out\n"
        assert run_script(root, "metadata/report.py") == (2, told)
        assert Ledger.open_to_read(root).images.read().filter(pl.col("phash64") == "f" * 16)["image_id"].to_list() == [
            template.ids["dull"]
        ]
        code, said = run_script(root, "preprocess/filter/filter.py")
        assert code != 0 and said.startswith("error: ") and said.count("\n") == 1
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a folder read-only for a while; the system's manager may do that, and nobody else is bound by modes."""
    mounted = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no folder can be mounted here: {mounted.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True, capture_output=True)
