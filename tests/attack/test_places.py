"""Paths are data: a root of any name, in any locale, works as a plain one does, and touches no folder but its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.metadata.conftest import Sample, build
from tests.odd_places import NAMES, run_in_odd_places


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return build(tmp_path_factory.mktemp("sample") / "dataset")


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
    compare(template.root, tmp_path, scripts)


def test_the_report_works_in_every_place(template: Sample, tmp_path: Path) -> None:
    compare(template.root, tmp_path, ["metadata/report.py --thumbnails 1"], [b"plain", "ü [1]\n{x}".encode()])


def compare(template: Path, folder: Path, scripts: list[str], names: list[bytes] = NAMES) -> None:
    for place, there, plain in run_in_odd_places(template, folder, scripts, names):
        assert there["ended"] == plain["ended"], place
        assert there["tables"] == plain["tables"], place
        assert there["files"] == plain["files"], place
    assert {code for code, _ in plain["ended"].values()} <= {0, 1}
