"""Downloads of model files from a real server on loopback: resume, wrong files, archives, two processes at once."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pokefa.errors import InputError, PokefaError
from pokefa.images import weights as model_files
from pokefa.images.confined import can_confine
from pokefa.images.weights import (
    Member,
    ModelArchive,
    ModelFile,
    Trust,
    check_file,
    check_trust,
    fetch,
    fetch_archive,
    unpinned_file,
)
from pokefa.stage.options import add_trust_options, stage_parser, trust_from

CHECKOUT = Path(__file__).resolve().parents[2]
WAYS_OUT = "name a copy with --model-dir"
DATA = bytes(range(256)) * 1200


class FileServer(ThreadingHTTPServer):
    """Serves one file. `cuts` holds, for the next requests, after how many bytes the connection breaks off."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.honours_ranges = True
        self.status: int | None = None
        self.slow = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/model"

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep the cut connections off the test's output."""


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        if server.slow.is_set():
            threading.Event().wait(1.0)
        if server.status is not None:
            self.send_error(server.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.honours_ranges else 0
        size = len(server.data)
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked and server.honours_ranges else 200)
        if asked and server.honours_ranges:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        stop = start + server.cuts.pop(0) if server.cuts else size
        self.wfile.write(server.data[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(DATA) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POKEFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files, "PAUSE_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "models"


def pinned(server: FileServer, data: bytes = DATA) -> ModelFile:
    return ModelFile("weights.pt", server.url, len(data), hashlib.sha256(data).hexdigest())


def test_an_unpinned_file_is_refused_confined_or_let_run() -> None:
    what = unpinned_file(Path("model.pt"), "a" * 64, "b" * 64)
    assert what == f"model.pt is not the pinned model file (its SHA-256 is {'a' * 64}, expected {'b' * 64})"
    with pytest.raises(InputError, match=r"a model file is a program: if you trust its author, add --trust-model-file"):
        check_trust(what, Trust())
    with pytest.raises(InputError, match=r"a model file is a program"):
        check_trust(what, Trust(unconfined=True))
    assert check_trust(what, Trust(unpinned=True, unconfined=True)) is False
    if can_confine():
        assert check_trust(what, Trust(unpinned=True)) is True
    else:
        with pytest.raises(InputError, match=r"add --unconfined-model-file to run it with all of your rights"):
            check_trust(what, Trust(unpinned=True))


@pytest.mark.parametrize(
    ("words", "trust"),
    [
        ([], Trust()),
        (["--trust-model-file"], Trust(unpinned=True)),
        (["--trust-model-file", "--unconfined-model-file"], Trust(unpinned=True, unconfined=True)),
    ],
)
def test_trust_comes_from_two_flags(words: list[str], trust: Trust) -> None:
    parser = stage_parser("")
    add_trust_options(parser)
    assert trust_from(parser, parser.parse_args(words)) == trust


def test_unconfined_alone_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    parser = stage_parser("")
    add_trust_options(parser)
    with pytest.raises(SystemExit) as wrong:
        trust_from(parser, parser.parse_args(["--unconfined-model-file"]))
    assert wrong.value.code == 2
    assert "--unconfined-model-file needs --trust-model-file: add it" in capsys.readouterr().err


def test_a_file_is_downloaded_once(server: FileServer, cache: Path) -> None:
    path = fetch(pinned(server), ways_out=WAYS_OUT)
    assert path == cache / pinned(server).sha256[:12] / "weights.pt"
    assert path.read_bytes() == DATA
    assert fetch(pinned(server), ways_out=WAYS_OUT) == path
    assert server.ranges == [None]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (DATA[:1000], f"it has 1000 bytes, expected {len(DATA)}"),
        (
            DATA[::-1],
            f"its SHA-256 is {hashlib.sha256(DATA[::-1]).hexdigest()}, expected {hashlib.sha256(DATA).hexdigest()}",
        ),
    ],
)
def test_a_wrong_file_in_the_cache_is_named_and_left_alone(
    server: FileServer, cache: Path, data: bytes, problem: str
) -> None:
    path = cache / pinned(server).sha256[:12] / "weights.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(PokefaError) as caught:
        fetch(pinned(server), ways_out=WAYS_OUT)
    assert str(caught.value) == (
        f"{path} is not the pinned file: {problem}; remove it to download it again, or {WAYS_OUT}"
    )
    assert path.read_bytes() == data and server.ranges == []
    path.unlink()
    assert fetch(pinned(server), ways_out=WAYS_OUT).read_bytes() == DATA


def test_a_cut_connection_goes_on_where_it_stopped(server: FileServer) -> None:
    server.cuts = [100_000, 50_000]
    assert fetch(pinned(server), ways_out=WAYS_OUT).read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_what_a_killed_run_left_is_used(server: FileServer, cache: Path) -> None:
    partial = cache / pinned(server).sha256[:12] / "weights.pt.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(DATA[:1000])
    assert fetch(pinned(server), ways_out=WAYS_OUT).read_bytes() == DATA
    assert server.ranges == ["bytes=1000-"]
    assert not partial.exists()


def test_a_server_without_ranges_starts_again(server: FileServer) -> None:
    server.cuts = [100_000]
    server.honours_ranges = False
    assert fetch(pinned(server), ways_out=WAYS_OUT).read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-"]


def test_a_file_with_the_wrong_sum_is_not_kept(server: FileServer, cache: Path) -> None:
    model = pinned(server, DATA[::-1])
    with pytest.raises(PokefaError) as caught:
        fetch(model, ways_out=WAYS_OUT)
    found = hashlib.sha256(DATA).hexdigest()
    assert str(caught.value) == (
        f"{server.url} is not the pinned file: its SHA-256 is {found}, expected {model.sha256}; {WAYS_OUT}"
    )
    assert [path.name for path in (cache / model.sha256[:12]).iterdir()] in ([], ["weights.pt.lock"])


def test_a_line_that_always_breaks_off_names_the_sizes(server: FileServer) -> None:
    server.cuts = [10] * model_files.ATTEMPTS
    with pytest.raises(PokefaError) as caught:
        fetch(pinned(server), ways_out=WAYS_OUT)
    assert str(caught.value) == f"cannot download {server.url} (got 50 of {len(DATA)} bytes); {WAYS_OUT}"
    assert len(server.ranges) == model_files.ATTEMPTS


def test_attempts_that_bring_a_large_file_on_do_not_count(server: FileServer) -> None:
    server.data = os.urandom(8 * model_files.CHUNK)
    server.cuts = [model_files.CHUNK] * 7
    assert fetch(pinned(server, server.data), ways_out=WAYS_OUT).read_bytes() == server.data
    assert len(server.ranges) == 8 > model_files.ATTEMPTS


def test_a_shorter_file_than_the_pinned_one_is_refused(server: FileServer) -> None:
    with pytest.raises(PokefaError, match=f"^{server.url} is not the pinned file: its SHA-256 is"):
        fetch(ModelFile("weights.pt", server.url, len(DATA) + 1, "0" * 64), ways_out=WAYS_OUT)


def test_a_file_that_is_too_long_is_broken_off(server: FileServer) -> None:
    with pytest.raises(PokefaError) as caught:
        fetch(ModelFile("weights.pt", server.url, 1000, "0" * 64), ways_out=WAYS_OUT)
    assert str(caught.value) == f"{server.url} has more than the 1000 bytes expected: it is not the pinned file"


def test_a_file_that_is_not_there_is_not_asked_for_again(server: FileServer) -> None:
    server.status = 404
    with pytest.raises(PokefaError) as caught:
        fetch(pinned(server), ways_out=WAYS_OUT)
    assert str(caught.value) == f"cannot download {server.url} (HTTP Error 404: Not Found); {WAYS_OUT}"
    assert len(server.ranges) == 1


def test_an_overloaded_server_is_asked_again(server: FileServer) -> None:
    server.status = 503
    with pytest.raises(PokefaError, match="HTTP Error 503: Service Unavailable"):
        fetch(pinned(server), ways_out=WAYS_OUT)
    assert len(server.ranges) == model_files.ATTEMPTS


def test_offline_says_how_to_go_on(cache: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/model"
        with pytest.raises(PokefaError) as caught:
            fetch(ModelFile("weights.pt", url, 10, "0" * 64), ways_out=WAYS_OUT)
    assert str(caught.value).startswith(f"cannot download {url} (<urlopen error [Errno ")
    assert str(caught.value).endswith(f"Connection refused>); {WAYS_OUT}")


def test_two_processes_at_once_both_get_the_whole_file(server: FileServer, tmp_path: Path) -> None:
    server.slow.set()
    code = (
        "import sys; from pokefa.images.weights import ModelFile, fetch; "
        "print(fetch(ModelFile('weights.pt', sys.argv[1], int(sys.argv[2]), sys.argv[3]), ways_out=''))"
    )
    model = pinned(server)
    command = [sys.executable, "-c", code, model.url, str(model.size), model.sha256]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert printed[0] == printed[1]
    assert Path(printed[0]).read_bytes() == DATA
    assert server.ranges == [None]


def test_check_file_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(InputError) as caught:
        check_file(path, "0" * 64)
    assert str(caught.value) == f"{path} does not exist: name an existing model file"
    path.write_bytes(b"weights")
    check_file(path, hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(InputError, match=r"is not the pinned file: its SHA-256 is [0-9a-f]{64}, expected 0{64}"):
        check_file(path, "0" * 64)


# -- archives ---------------------------------------------------------------------------------------------------------

WEIGHTS = b"weights " * 20_000


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def archive_at(server: FileServer) -> ModelArchive:
    server.data = zipped({"model.h5": WEIGHTS, "tags.txt": b"solo\n", "unused.bin": b"x" * 100})
    members = (Member("model.h5", len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()), Member("tags.txt", 100))
    return ModelArchive("project", server.url, 2**20, members)


def test_an_archive_becomes_a_folder_of_its_members(server: FileServer, cache: Path) -> None:
    archive = archive_at(server)
    folder = fetch_archive(archive, ways_out=WAYS_OUT)
    assert folder == cache / hashlib.sha256(WEIGHTS).hexdigest()[:12] / "project"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"model.h5": WEIGHTS, "tags.txt": b"solo\n"}
    assert {path.name for path in folder.parent.iterdir()} <= {"project", "project.lock"}
    assert fetch_archive(archive, ways_out=WAYS_OUT) == folder
    assert server.ranges == [None]


def test_an_archive_of_unknown_size_goes_on_after_a_cut(server: FileServer) -> None:
    archive = archive_at(server)
    server.cuts = [70_000]
    assert (fetch_archive(archive, ways_out=WAYS_OUT) / "model.h5").read_bytes() == WEIGHTS
    assert server.ranges == [None, "bytes=70000-"]


def test_an_archive_that_was_whole_when_the_run_was_killed_is_not_downloaded_again(
    server: FileServer, cache: Path
) -> None:
    archive = archive_at(server)
    parent = cache / hashlib.sha256(WEIGHTS).hexdigest()[:12]
    (parent / "project.tmp").mkdir(parents=True)
    (parent / "project.tmp" / "model.h5").write_bytes(b"half")
    (parent / "project.part").write_bytes(server.data)
    assert (fetch_archive(archive, ways_out=WAYS_OUT) / "model.h5").read_bytes() == WEIGHTS
    assert server.ranges == [f"bytes={len(server.data)}-"]


def test_a_part_of_another_archive_is_thrown_away(server: FileServer, cache: Path) -> None:
    archive = archive_at(server)
    part = cache / hashlib.sha256(WEIGHTS).hexdigest()[:12] / "project.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.data + b"more")
    assert (fetch_archive(archive, ways_out=WAYS_OUT) / "model.h5").read_bytes() == WEIGHTS
    assert server.ranges == [f"bytes={len(server.data) + 4}-", None]


def test_names_inside_an_archive_choose_no_place(server: FileServer, cache: Path, tmp_path: Path) -> None:
    archive = archive_at(server)
    server.data = zipped({"../../../model.h5": WEIGHTS, "/deep/er/tags.txt": b"solo\n", "../evil.txt": b"evil"})
    folder = fetch_archive(archive, ways_out=WAYS_OUT)
    written = {path.relative_to(folder.parent).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written - {"project.lock"} == {"project/model.h5", "project/tags.txt"}


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"model.h5": WEIGHTS}, "it has 0 files called tags.txt"),
        ({"a/model.h5": WEIGHTS, "b/model.h5": b"", "tags.txt": b""}, "it has 2 files called model.h5"),
        (
            {"model.h5": WEIGHTS, "tags.txt": b"x" * 101},
            "tags.txt has 101 bytes, at most 100 are expected",
        ),
        (
            {"model.h5": b"other", "tags.txt": b""},
            f"the SHA-256 of model.h5 is {hashlib.sha256(b'other').hexdigest()}, "
            f"expected {hashlib.sha256(WEIGHTS).hexdigest()}",
        ),
    ],
)
def test_an_archive_with_other_content_is_refused(
    server: FileServer, cache: Path, files: dict[str, bytes], problem: str
) -> None:
    archive = archive_at(server)
    server.data = zipped(files)
    with pytest.raises(PokefaError) as caught:
        fetch_archive(archive, ways_out=WAYS_OUT)
    assert str(caught.value) == f"{server.url} is not the pinned archive: {problem}; {WAYS_OUT}"
    assert not list(cache.rglob("project")) and not list(cache.rglob("project.part"))


def test_what_is_no_archive_is_refused(server: FileServer) -> None:
    archive = archive_at(server)
    server.data = b"<html>not found</html>"
    with pytest.raises(PokefaError) as caught:
        fetch_archive(archive, ways_out=WAYS_OUT)
    assert str(caught.value) == f"{server.url} is not the pinned archive: File is not a zip file; {WAYS_OUT}"


def test_a_member_that_lies_about_its_size_is_refused(server: FileServer) -> None:
    archive = archive_at(server)
    server.data = zipped({"model.h5": WEIGHTS, "tags.txt": b"x" * 5000})
    lie = (5000).to_bytes(4, "little"), (50).to_bytes(4, "little")
    place = server.data.rindex(lie[0])  # the uncompressed size in the central directory, which zipfile goes by
    server.data = server.data[:place] + lie[1] + server.data[place + 4 :]
    with pytest.raises(PokefaError) as caught:
        fetch_archive(archive, ways_out=WAYS_OUT)
    assert str(caught.value) == (f"{server.url} is not the pinned archive: Bad CRC-32 for file 'tags.txt'; {WAYS_OUT}")


def test_an_archive_over_its_cap_is_broken_off(server: FileServer) -> None:
    archive = archive_at(server)
    server.data = b"x" * (2**20 + 1)
    with pytest.raises(PokefaError) as caught:
        fetch_archive(archive, ways_out=WAYS_OUT)
    assert str(caught.value) == f"{server.url} has more than the 1048576 bytes expected: it is not the pinned file"
