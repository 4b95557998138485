"""Files that only their owner may read, whatever the umask is, and whoever wrote them before."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pokefa.errors import RunError
from pokefa.files import close_to_others, make_private, replacing_privately
from pokefa.ledger.journal import Journal
from pokefa.llm.store import ANSWERS_FILE, Answers, Stored


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o077])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path) -> None:
    with replacing_privately(path) as stream:
        stream.write(b"private")
        [temporary] = set(path.parent.iterdir()) - {path}
        assert mode(temporary) == 0o600


@pytest.mark.parametrize("create", [make_private, write])
def test_a_new_file_is_private_and_an_old_one_becomes_so(tmp_path: Path, create: Callable[[Path], None]) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    create(new)
    assert mode(new) == 0o600
    new.unlink()
    old.write_bytes(b"old")
    old.chmod(0o664)
    create(old)
    assert mode(old) == 0o600


def test_the_umask_is_as_before(tmp_path: Path) -> None:
    write(tmp_path / "private")
    (tmp_path / "other").write_bytes(b"")
    mask = os.umask(0)
    os.umask(mask)
    assert mode(tmp_path / "other") == 0o666 & ~mask


def test_what_does_not_exist_is_left_alone(tmp_path: Path) -> None:
    close_to_others(tmp_path / "absent")
    assert not list(tmp_path.iterdir())


def test_a_journal_is_private(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "run", {"stage": "score"})
    journal.append({"note": "private"})
    journal.close()
    assert mode(journal.path) == 0o600


def test_answers_are_private_and_so_is_what_sqlite_puts_beside_them(tmp_path: Path) -> None:
    path = tmp_path / ANSWERS_FILE
    path.parent.mkdir()
    leftover = path.with_name(path.name + "-journal")
    for older in (path, leftover):
        older.write_bytes(b"")
        older.chmod(0o644)
    answers = Answers(tmp_path)
    assert mode(path) == 0o600
    # An open transaction shows the journal that SQLite itself creates.
    answers._file.execute("BEGIN IMMEDIATE")
    answers._file.execute("INSERT INTO answers (request) VALUES ('other')")
    assert mode(leftover) == 0o600
    answers._file.rollback()
    answers.put(Stored("request", "question", "model", "response", {}, {}))
    assert mode(path) == 0o600


def test_answers_that_cannot_be_created_end_the_run_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "metadata").write_bytes(b"a file, where the folder has to be")
    with pytest.raises(RunError, match="cannot be used") as failed:
        Answers(tmp_path)
    assert "\n" not in str(failed.value)
