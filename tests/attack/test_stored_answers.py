"""metadata/answers.sqlite after a bad disk: nobody pays again because a stored answer could not be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pokefa.errors import InputError
from pokefa.llm.store import ANSWERS_FILE, Answers, Stored
from tests.attack.conftest import Victim


def random_bytes(path: Path) -> None:
    path.write_bytes(os.urandom(9000))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def zeroed_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [random_bytes, cut, zeroed_page])
def test_damaged_answers_are_found_and_stop_who_would_pay(victim: Victim, damage: Callable[[Path], None]) -> None:
    answers = Answers(victim.root)
    for number in range(60):
        answers.put(Stored(f"{number}", "score-1", "m", "r", {"text": "x" * 300}, {}))
    answers._file.close()
    assert victim.script("metadata/verify.py").code == 0
    damage(victim.root / ANSWERS_FILE)
    finished = victim.script("metadata/verify.py", "--json")
    assert (finished.code, list(finished.summary["findings"])) == (1, ["answers_damaged"])
    with pytest.raises(InputError, match=r"^metadata/answers.sqlite is damaged \("):
        Answers(victim.root)
