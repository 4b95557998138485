"""Forged paths and linked folders: nothing outside the dataset is read or written, and nothing inside is overlooked."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from pokefa.files import BadPathError, locate, walk_files
from tests.attack.conftest import Victim

FORGED = ["../private.jpg", "data_raw/../../private.jpg", "{root}/../private.jpg", "linked.jpg"]


@pytest.mark.parametrize("path", FORGED)
def test_a_path_that_leads_out_is_an_error_of_its_row_alone(victim: Victim, path: str) -> None:
    private = victim.root.parent / "private.jpg"
    shutil.copyfile(next(victim.root.glob("data_stage/resized/*.jpg")), private)
    (victim.root / "linked.jpg").symlink_to(private)
    victim.edit("good", path_resized=path.format(root=victim.root), phash64="")
    finished = victim.script("preprocess/dup/phash.py", "--redo", "--workers", "1", "--ids", *clean_ids(victim))
    assert (finished.code, finished.summary["done"], finished.summary["errors"]) == (0, len(clean_ids(victim)) - 1, 1)
    (row,) = (row for row in victim.rows() if row["image_id"] == victim.ids["good"])
    assert row["phash_error"].startswith("bad_path: ") and row["phash64"] == ""
    victim.edit("good", phash64="0" * 16, phash_error="")
    filtered = victim.script("preprocess/filter/filter.py")
    if filtered.code == 0:  # a link is seen when the file is opened
        assert filtered.summary["decisions"]["error"] == 2  # and the broken one
    else:
        assert (path, filtered.code) == ("linked.jpg", 1)
        assert "bad_path: 'linked.jpg' is a link that leads out of the data folder" in filtered.stderr
    assert hashlib.md5(private.read_bytes()).hexdigest() not in sums_under(victim.root / "data_clean")
    assert victim.script("metadata/verify.py", "--json").summary["findings"]["bad_path"]["found"]


def clean_ids(victim: Victim) -> list[str]:
    return [victim.ids[name] for name in ("good", "cleared", "dull")]


def sums_under(folder: Path) -> set[str]:
    return {hashlib.md5(path.read_bytes()).hexdigest() for path in walk_files(folder) if path.is_file()}


def test_a_folder_that_the_root_links_to_is_part_of_it(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    (disk / "band").mkdir(parents=True)
    (disk / "band/a.jpg").write_bytes(b"a")
    (disk / "band/b.jpg").symlink_to("a.jpg")
    root.mkdir()
    (root / "data_raw").symlink_to(disk)
    (disk / "loop").symlink_to(disk)
    assert locate(root, "data_raw/band/a.jpg").read_bytes() == b"a"
    assert locate(root, "data_raw/band/b.jpg").read_bytes() == b"a"
    assert [path.name for path in walk_files(root)] == ["a.jpg", "b.jpg"]
    for path in ("", "/etc/passwd", "..", "data_raw/../x", "a\0b", None):
        with pytest.raises(BadPathError):
            locate(root, path)


LINKED = (
    "data_raw", "data_raw/001-150", "data_stage", "data_stage/resized", "data_stage/OCR_inpainted", "data_clean",
    "data_clean/base", "webdataset", "webdataset/data", "webdataset/manifests", "metadata",
)  # fmt: skip


@pytest.mark.parametrize("folder", LINKED)
def test_a_takedown_reaches_what_is_behind_a_link_and_verify_proves_it(victim: Victim, folder: str) -> None:
    disk = victim.root.parent / "disk"
    shutil.move(victim.root / folder, disk)
    (victim.root / folder).symlink_to(disk)
    assert victim.script("metadata/review.py", "--stage", "ocr").code == 0
    image_id = victim.ids["text"]
    gone = {hashlib.md5(path.read_bytes()).hexdigest() for path in walk_files(victim.root) if image_id in path.name}
    assert len(gone) >= 3
    assert victim.script("metadata/takedown.py", "--id", image_id, "--reason", "asked", "--apply").code == 0
    assert not gone & (sums_under(victim.root) | sums_under(disk))
    assert not [path for path in walk_files(victim.root) if image_id in path.name or path.suffix == ".html"]
    shards = [path.read_bytes() for path in walk_files(victim.root) if path.suffix == ".tar"]
    assert len(shards) == 2 and not any(image_id.encode() in shard for shard in shards)
    assert (victim.root / folder).is_symlink()
    finished = victim.script("metadata/verify.py")
    assert (finished.code, finished.summary["taken_down"]) == (0, 1), finished.stdout


def test_what_is_left_under_another_name_is_found_by_its_bytes(victim: Victim) -> None:
    raw = next(victim.root.glob(f"data_raw/*/*/{victim.ids['dull']}.jpg"))
    resized = victim.root / f"data_stage/resized/{victim.ids['dull']}.jpg"
    disk = victim.root.parent / "disk"
    disk.mkdir()
    shutil.copyfile(raw, disk / "holiday.jpg")
    shutil.copyfile(resized, disk / "holiday 2.jpg")
    assert victim.script("metadata/takedown.py", "--id", victim.ids["dull"], "--reason", "asked", "--apply").code == 0
    (victim.root / "data_raw/more").symlink_to(disk)
    found = victim.script("metadata/verify.py", "--json").summary["findings"]
    assert found["taken_down_bytes"]["found"] == ["data_raw/more/holiday 2.jpg", "data_raw/more/holiday.jpg"]


def test_every_path_that_the_ledger_ever_named_is_opened(victim: Victim) -> None:
    """A file that the last run of a stage no longer names, and whose name does not tell whose it is."""
    with victim.run("resize") as run:
        run.record(victim.ids["dull"], {"path_resized": "old/place.jpg"}, reason="up")
        run.record(victim.ids["dull"], {"path_resized": f"data_stage/resized/{victim.ids['dull']}.jpg"}, reason="up")
    (victim.root / "old").mkdir()
    (victim.root / "old/place.jpg").write_bytes(b"another encoding of the picture")
    assert victim.script("metadata/takedown.py", "--id", victim.ids["dull"], "--reason", "asked", "--apply").code == 0
    found = victim.script("metadata/verify.py", "--json").summary["findings"]
    assert found["taken_down_bytes"]["found"] == ["old/place.jpg"]
