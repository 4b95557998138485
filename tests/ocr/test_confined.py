"""pokefa.images.confined: what a confined process cannot do, and that nothing it says is believed."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pokefa.errors import PokefaError, RunError
from pokefa.images.confined import MOST_DEATHS_IN_A_ROW, ConfinedModel, can_confine, child_variables
from pokefa.images.landlock import landlock_version
from tests.conftest import CHECKOUT

pytestmark = pytest.mark.skipif(not can_confine(), reason="no Landlock here: nothing can be confined")


def start(name: str, **arguments: object) -> ConfinedModel:
    return ConfinedModel(f"tests.ocr.confined_examples:{name}", arguments, [])


def test_arrays_go_there_and_back() -> None:
    model = start("doubling", told=[1, None, "ä"])
    assert model.facts == {"told": [1, None, "ä"]}
    bytes_, floats = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.linspace(0, 1, 5)
    none = np.zeros((0, 3), np.float32)
    for _ in range(2):
        found = model(bytes_[:, ::-1], floats, none)
        for given, array in zip((bytes_[:, ::-1], floats, none), found, strict=True):
            assert (array == 2 * given).all()
            assert (array.shape, array.dtype) == (given.shape, given.dtype)


def test_a_failure_is_one_printable_line_and_the_next_call_works() -> None:
    model = start("doubling")
    with pytest.raises(PokefaError) as caught:
        model(np.array([7], np.uint8))
    assert str(caught.value) == "seven: it [31m fails in two lines"
    assert model(np.array([8], np.uint8))[0] == 16


def test_a_death_costs_one_call_and_too_many_end_the_run() -> None:
    model = start("doubling")
    for _ in range(MOST_DEATHS_IN_A_ROW - 1):
        with pytest.raises(PokefaError) as caught:
            model(np.array([13], np.uint8))
        assert str(caught.value) == "model_process_died: signal 9, in the process that runs the model file"
        assert not isinstance(caught.value, RunError)
    assert model(np.array([2], np.uint8))[0] == 4
    for _ in range(MOST_DEATHS_IN_A_ROW - 1):
        with pytest.raises(PokefaError):
            model(np.array([13], np.uint8))
    with pytest.raises(RunError, match=r"^model_process_died: signal 9, 5 times in a row: name another model file$"):
        model(np.array([13], np.uint8))


def test_what_cannot_be_loaded_is_named() -> None:
    with pytest.raises(PokefaError, match=r"^no_model: there is none$"):
        start("missing")
    with pytest.raises(PokefaError, match=r"^AttributeError: "):
        start("no_such_function")


def test_a_confined_process_can_do_nothing_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    (tmp_path / "old").write_text("old")
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = start("trying", folder=str(tmp_path), parent=os.getpid(), port=server.getsockname()[1]).facts
    variables = told.pop("variables")
    assert told.pop("null") is True
    if landlock_version() < 6:
        told.pop("signal")
    if landlock_version() < 4:
        told.pop("connect")
    if landlock_version() < 3:
        told.pop("truncate")
    assert set(told.values()) <= {errno.EACCES, errno.EPERM, errno.EXDEV}, told
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old": "old"}
    assert not [name for name in variables if name.startswith(("OPENAI", "SERPAPI"))]
    assert set(variables) >= {"PATH", "PYTHONPATH"}


@pytest.mark.parametrize(
    ("header", "rest", "problem"),
    [
        ("[]", 0, "bad_answer: the header has another shape"),
        ('{"arrays": 1}', 0, "bad_answer: the header has another shape"),
        ('{"arrays": [{"dtype": "|O", "shape": [1]}]}', 8, "bad_answer: the header has another shape"),
        ('{"arrays": [{"dtype": "|u1", "shape": [-1]}]}', 8, "bad_answer: the header has another shape"),
        ('{"arrays": [{"dtype": "|u1", "shape": [true]}]}', 8, "bad_answer: the header has another shape"),
        ('{"arrays": [{"dtype": "|u1", "shape": [70000, 70000]}]}', 8, "bad_answer: 4900000000 bytes"),
        ('{"arrays": [{"dtype": "<f4", "shape": [9]}]}', 8, "model_process_died: "),
        ("[" * 100_000, 0, "bad_answer: "),
        ("not JSON", 0, "bad_answer: "),
    ],
)
def test_an_answer_that_is_none_is_refused(header: str, rest: int, problem: str) -> None:
    model = start("lying", header=header, rest=rest)
    with pytest.raises(PokefaError) as caught:
        model(np.zeros(1, np.uint8))
    assert str(caught.value).startswith(problem)
    assert str(caught.value).endswith(", in the process that runs the model file")


def test_the_process_ends_with_the_one_that_started_it() -> None:
    code = (
        "import os; from pokefa.images.confined import ConfinedModel\n"
        "model = ConfinedModel('tests.ocr.confined_examples:doubling', {}, [])\n"
        "print(model._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True
    )
    status = Path(f"/proc/{int(done.stdout)}/status")
    while status.exists() and "State:\tZ" not in status.read_text():  # the kernel takes its time, and no more
        pass


WITHOUT = """
from pokefa.images.confined import ConfinedModel, can_confine
from pokefa.errors import PokefaError
from pokefa.images.weights import Trust, check_trust
assert not can_confine()
for attempt in (
    lambda: check_trust("model.pt", Trust(unpinned=True)),
    lambda: ConfinedModel("tests.ocr.confined_examples:doubling", {}, []),
):
    try:
        attempt()
    except PokefaError as error:
        print(error.exit_code, error)
print(check_trust("model.pt", Trust(unpinned=True, unconfined=True)))
"""


def test_where_nothing_can_be_confined_nothing_runs() -> None:
    done = subprocess.run(
        [sys.executable, "tests/ocr/without_landlock.py", "-c", WITHOUT],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2 model.pt, and this system cannot keep it from writing (which needs Landlock, in Linux 5.13 or newer): add "
        "--unconfined-model-file to run it with all of your rights",
        "1 cannot confine the process that runs the model file: the kernel has no Landlock",
        "False",
    ]


def test_variables_are_chosen_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    variables: dict[str, Any] = child_variables()
    assert variables["OMP_NUM_THREADS"] == "3"
    assert "secret" not in json.dumps(variables)
