"""--from-folder: each odd file costs itself and no other, and is named in urls.jsonl."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scraping.folders import FolderFile, files_as_candidates, from_folder, read_file, walk_species
from scraping.utils import Refused, Species, SpeciesIndex
from tests.conftest import CHECKOUT, Dataset, Finished
from tests.metadata.conftest import build
from tests.odd_places import check_odd_places
from tests.scraping.conftest import picture

SCRIPT = "scraping/scrape.py"
MEW = Species("Mew", 40, "001-150", 3)
EEVEE = Species("Eevee", 12, "001-150", 3)
SHIFT_JIS = os.fsdecode("ピカチュウ.png".encode("shift_jis"))


@pytest.fixture
def dataset(dataset: Dataset) -> Dataset:
    (dataset.root / "quotas").mkdir()
    (dataset.root / "quotas/quotas.csv").write_text(
        "rank,name,band,weight,quota\n12,Eevee,001-150,1,3\n40,Mew,001-150,1,3\n"
    )
    return dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good files of Eevee."""
    folder = tmp_path / "pictures"
    put(folder / "Eevee/1.png", 1)
    put(folder / "Eevee/deep/2.png", 2)
    return folder


def put(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(seed))
    return path


def scrape(dataset: Dataset, folder: Path, *flags: object) -> Finished:
    """Take a folder, and take it again, which must change nothing."""
    finished = dataset.run(SCRIPT, "--from-folder", folder, *flags)
    assert finished.code == 0, finished.stderr
    again = dataset.run(SCRIPT, "--from-folder", folder, *flags)
    assert (again.code, again.summary["seen"]) == (0, 0), again.stderr
    return finished


def told(dataset: Dataset, species: str = "0012_eevee") -> dict[str, str]:
    """Return {address without its sum: status}."""
    path = dataset.root / f"data_raw/001-150/{species}/urls.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["url"].partition("#")[0]: line["status"] for line in lines}


def test_odd_files_cost_themselves_alone(dataset: Dataset, folder: Path, tmp_path: Path) -> None:
    put(folder / "Eevee" / SHIFT_JIS, 3)
    put(folder / "Eevee/a b#c?%41.png", 4)
    outside = put(tmp_path / "outside.png", 5)
    (folder / "Eevee/outside.png").symlink_to(outside)
    (folder / "Eevee/far").symlink_to(tmp_path)
    (folder / "Eevee/gone.png").symlink_to(folder / "Eevee/none.png")
    (folder / "Eevee/loop.png").symlink_to("loop.png")
    (folder / "Eevee/again").symlink_to(folder / "Eevee")
    (folder / "Eevee/near.png").symlink_to("1.png")
    os.mkfifo(folder / "Eevee/pipe.png")
    with (folder / "Eevee/sparse.png").open("wb") as stream:
        stream.truncate(100 << 30)
    finished = scrape(dataset, folder)
    assert told(dataset) == {
        "file:Eevee/1.png": "saved",
        "file:Eevee/deep/2.png": "saved",
        "file:Eevee/%83s%83J%83%60%83%85%83E.png": "saved",
        "file:Eevee/a%20b%23c%3F%2541.png": "saved",
        "file:Eevee/near.png": "duplicate_bytes",
        "file:Eevee/outside.png": "outside_folder",
        "file:Eevee/far": "outside_folder",
        "file:Eevee/gone.png": "missing_file",
        "file:Eevee/loop.png": "missing_file",
        "file:Eevee/pipe.png": "not_a_file",
        "file:Eevee/sparse.png": "too_many_bytes",
    }
    assert finished.summary["errors"] == 2  # what could not be read; the others are refused by a rule
    assert len(dataset.images()) == 4


def test_a_linked_species_folder_is_followed(dataset: Dataset, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere / "Mew/mew.png", 11)
    put(elsewhere / "Mew/deep/mew.png", 12)
    (elsewhere / "Mew/up").symlink_to("..")
    (elsewhere / "Mew/here").symlink_to(".")
    (folder / "Mew").symlink_to(elsewhere / "Mew")
    finished = scrape(dataset, folder)
    assert finished.summary["counts"] == {"outside_folder": 1, "saved": 4}
    assert told(dataset, "0040_mew") == {
        "file:Mew/deep/mew.png": "saved",
        "file:Mew/mew.png": "saved",
        "file:Mew/up": "outside_folder",
    }


def test_labels(dataset: Dataset, folder: Path, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside.png", 5)
    (folder / "link").symlink_to(tmp_path)
    (folder / "link.png").symlink_to(outside)
    labels = tmp_path / "labels.csv"
    names = ["Eevee/1.png", "../outside.png", "Eevee/../Eevee/1.png", str(outside), "/etc/passwd", "Eevee", "n" * 300]
    names += ["./Eevee/deep/2.png", "link/outside.png", "link.png", "none.png"]
    labels.write_text("file,species\n" + "".join(f"{name},Mew\n" for name in names))
    finished = scrape(dataset, folder, "--labels", labels)
    # `link` is a folder that the user has placed in the folder; `link.png` is a file.
    counts = {"missing_file": 2, "not_a_file": 1, "outside_folder": 5, "saved": 3}
    assert finished.summary["counts"] == counts
    found = told(dataset, "0040_mew")
    assert found["file:/etc/passwd"] == found["file:../outside.png"] == "outside_folder"
    assert found["file:Eevee/deep/2.png"] == found["file:link/outside.png"] == "saved"


def test_a_label_with_a_nul_names_the_line(dataset: Dataset, folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,species\nEevee/1.png,Mew\na\0b.png,Mew\n")
    finished = dataset.run(SCRIPT, "--from-folder", folder, "--labels", labels)
    assert finished.code == 2
    assert finished.stderr.startswith(f"error: {labels} line 3 contains a NUL byte: ")


def test_a_folder_whose_own_name_is_odd(dataset: Dataset, folder: Path) -> None:
    odd = folder.rename(folder.with_name(f"[{SHIFT_JIS}]*\n"))
    assert scrape(dataset, odd).summary["counts"] == {"saved": 2}


def test_a_file_that_has_changed_is_another_candidate(dataset: Dataset, folder: Path) -> None:
    with (folder / "Eevee/3.png").open("wb") as stream:
        stream.truncate(1 << 20)
    assert scrape(dataset, folder, "--max-bytes", 100_000).summary["counts"] == {"saved": 2, "too_many_bytes": 1}
    put(folder / "Eevee/3.png", 3)
    assert scrape(dataset, folder).summary["counts"] == {"saved": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(dataset: Dataset, folder: Path) -> None:
    (folder / "Eevee/deep").chmod(0)
    try:
        assert scrape(dataset, folder).summary["counts"] == {"missing_file": 1, "saved": 1}
    finally:
        (folder / "Eevee/deep").chmod(0o755)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "folder":
        path.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "socket":
            listening.bind(str(path))
        with pytest.raises(Refused, match=r"^not_a_file: a folder, pipe, socket or device, not a regular file$"):
            read_file(path, 100)


def test_a_signal_ends_the_walk(dataset: Dataset, folder: Path) -> None:
    """With a pipe in the folder the first SIGTERM is enough."""
    os.mkfifo(folder / "Eevee/pipe.png")
    for number in range(200):
        put(folder / f"Eevee/more/{number}.png", number)
    command = [sys.executable, SCRIPT, "--root", str(dataset.root), "--from-folder", str(folder)]
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, cwd=CHECKOUT, env=variables, stdout=subprocess.PIPE, text=True) as process:
        record = dataset.root / "data_raw/001-150/0012_eevee/urls.jsonl"
        while not record.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode in (0, 130)  # 0: it was done before the signal came


def test_a_species_is_named_by_the_bytes_of_its_folder(tmp_path: Path) -> None:
    put(tmp_path / os.fsdecode("Flabébé".encode()) / "1.png", 1)
    flabebe = Species("Flabébé", 639, "501-800", 2)
    assert list(from_folder(tmp_path, None, SpeciesIndex([flabebe]))) == [flabebe]


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/1", "a.b", "a/2", "a/1/x", "c"):
        put(tmp_path / "Mew" / name, 1)
    found = [file.name for file in walk_species(tmp_path, "Mew")]
    assert found == [f"Mew/{name}" for name in ("a/1/x", "a/2", "a.b", "b/1", "c")]


@given(
    st.binary(min_size=1, max_size=60).filter(lambda name: not set(name) & set(b"\0/") and name not in (b".", b".."))
)
def test_an_address_is_the_name_to_the_byte(name: bytes) -> None:
    file = FolderFile(Path(os.fsdecode(name)), os.fsdecode(name))
    assert file.address.isascii() and file.address.isprintable()
    assert unquote_to_bytes(file.address.removeprefix("file:")) == name


def test_an_address_ends_with_the_sum_of_the_bytes(folder: Path) -> None:
    files = from_folder(folder, None, SpeciesIndex([MEW, EEVEE]))[EEVEE]
    first = next(files_as_candidates(files, 10**6))
    assert first.url == f"file:Eevee/1.png#{hashlib.md5(picture(1)).hexdigest()}"
    assert str(folder.parent) not in first.url


def test_a_root_of_any_name_in_any_locale(tmp_path: Path) -> None:
    template = build(tmp_path / "template")
    pictures = tmp_path / "my [1] pictures/Umbreon"
    pictures.mkdir(parents=True)
    Image.effect_mandelbrot((300, 300), (-2.0, -1.1, 0.7, 0.5), 90).save(pictures / "a*b.png")
    quotas = tmp_path / "quotas.csv"
    quotas.write_text("rank,name,band,weight,quota\n1,Umbreon,001-150,1,5\n", encoding="utf-8")
    line = shlex.join(["scraping/scrape.py", "--from-folder", str(pictures.parent), "--quotas", str(quotas)])
    check_odd_places(template.root, tmp_path, [line])
