"""Shared fixtures: a dataset folder, its tables as plain CSV, and scripts run as a user would run them."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("pokefa", deadline=None)  # no test may fail because a machine is slow
settings.load_profile("pokefa")

CHECKOUT = Path(__file__).resolve().parents[1]

Table = dict[str, dict[str, str]]

# Makes a program's clock say that it is noon of a day: `CLOCK.format(day="2026-12-12")`.
CLOCK = """
import datetime, time
_now = time.time
_later = datetime.datetime.fromisoformat("{day}T12:00").timestamp() - _now()
time.time = lambda: _now() + _later
"""
RUN_SCRIPT = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Tests that ask a model do so on a day on which all of them are alive.
A_DAY = "2026-11-27"


def numbered_id(number: int) -> str:
    """Return an image_id."""
    return f"{number:032x}"


def named_id(name: str) -> str:
    """Return an image_id that `names_in` reads as `name`, of at most 16 bytes; an image_id stays as it is."""
    return name if re.fullmatch("[0-9a-f]{32}", name) else name.encode().hex().ljust(32, "0")


def names_in(text: str) -> str:
    """Return a text with the name in the place of each id that `named_id` made."""
    return re.sub("(?:2d|2e|3[0-9]|5f|[67][0-9a-f]){1,16}(?:00)+", _name_of, text)


def _name_of(found: re.Match[str]) -> str:
    return bytes.fromhex(found.group()).rstrip(b"\0").decode() if len(found.group()) == 32 else found.group()


@dataclass(frozen=True)
class Finished:
    """A script that has ended: exit code, the JSON summary of its last stdout line, and what it printed."""

    code: int
    summary: dict[str, Any] = field(repr=False)
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Dataset:
    """A dataset folder. Tables are read and written with the csv module, as a user's own script might."""

    root: Path

    def write_images(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write metadata/images.csv with all declared columns; cells that a row does not name are empty."""
        from pokefa.ledger.columns import IMAGES

        self._write("images", IMAGES.names, rows)

    def write_base(self, rows: Iterable[Mapping[str, object]]) -> None:
        from pokefa.ledger.columns import BASE

        self._write("base", BASE.first_names, rows)

    def images(self) -> Table:
        """Return images.csv as {image_id: {column: text}}."""
        return self.read("images")

    def base(self) -> Table:
        return self.read("base")

    def read(self, name: str) -> Table:
        return {row["image_id"]: row for row in self.rows(name)}

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return the rows of metadata/<name>.csv in file order."""
        with (self.root / "metadata" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def run(self, script: str, *arguments: object, env: Mapping[str, str] | None = None) -> Finished:
        """Run a script of the checkout on this dataset, in this interpreter's environment."""
        return run_command([script, "--root", str(self.root), *map(str, arguments)], env)

    def run_on(self, day: str, script: str, *arguments: object, env: Mapping[str, str] | None = None) -> Finished:
        """Run a script on a machine whose clock says that it is this day."""
        program = CLOCK.format(day=day) + RUN_SCRIPT
        return run_command(["-c", program, script, "--root", str(self.root), *map(str, arguments)], env)

    def _write(self, name: str, columns: list[str], rows: Iterable[Mapping[str, object]]) -> None:
        rows = list(rows)
        extra = [column for row in rows for column in row if column not in columns]
        path = self.root / "metadata" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*columns, *dict.fromkeys(extra)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


class NamedDataset(Dataset):
    """A dataset whose images have short names, which stand for ids in what is written, read and printed."""

    def run(self, script: str, *arguments: object, env: Mapping[str, str] | None = None) -> Finished:
        done = super().run(script, *arguments, env=env)
        summary = json.loads(names_in(json.dumps(done.summary)))
        return Finished(done.code, summary, names_in(done.stdout), names_in(done.stderr))

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return the rows of a table; paths stay as they are, for the files are named by ids."""
        rows = super().rows(name)
        return [{column: cell if "path" in column else names_in(cell) for column, cell in row.items()} for row in rows]

    def text(self, path: str) -> str:
        """Return a text file of the dataset, ids as names."""
        return names_in((self.root / path).read_text(encoding="utf-8"))

    def _write(self, name: str, columns: list[str], rows: Iterable[Mapping[str, object]]) -> None:
        from pokefa.ledger.tables import MERGED_FILE, Ledger

        ids = ("image_id", "dupe_group", "dupe_rep_image")
        named = [{**row, **{column: named_id(str(row[column])) for column in ids if row.get(column)}} for row in rows]
        super()._write(name, columns, named)
        if (self.root / MERGED_FILE).exists():  # the rows that are gone were taken out deliberately
            Ledger(self.root).accept()


def run_command(command: list[str], env: Mapping[str, str] | None = None, prepare: list[str] | None = None) -> Finished:
    """Run `python <command>` from the checkout's top; `env` is added to the environment.

    Args:
        prepare: a command that runs what stands behind it.
    """
    finished = subprocess.run(
        [*(prepare or []), sys.executable, *command],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = finished.stdout.strip().splitlines()
    summary = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Finished(finished.returncode, summary, finished.stdout, finished.stderr)


@pytest.fixture(scope="session")
def a_day(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment variables with which Python programs run on A_DAY."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "sitecustomize.py").write_text(CLOCK.format(day=A_DAY))
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(CHECKOUT)])}


def check_bill(request: pytest.FixtureRequest, stand_ins: Iterable[Any]) -> None:
    """Hold what all stand-ins for OpenAI have charged in a test against what the runs on its dataset have cost.

    Runs that the test kills have not said what they had cost.
    """
    if "dataset" not in request.fixturenames or request.node.get_closest_marker("killed"):
        return
    told = told_usd(request.getfixturevalue("dataset").root)
    if told is not None:
        assert told == pytest.approx(sum(server.bill.usd for server in stand_ins), abs=3e-6)


def told_usd(root: Path) -> float | None:
    """Return what the runs on a dataset say that they have cost, or None where one has not ended, has lost an answer,
    or waits for a batch.
    """
    total = 0.0
    for path in (root / "metadata/runs").glob("*.jsonl"):
        last = json.loads(path.read_bytes().splitlines()[-1])
        if "summary" not in last or "usd_lost_at_most" in last["summary"]:
            return None
        total += last["summary"].get("usd") or 0.0
    records = [json.loads(path.read_bytes()) for path in (root / "metadata/batches").glob("*.json")]
    return total if all(record.get("state") == "done" for record in records) else None


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """An empty dataset folder of the test's own."""
    root = tmp_path / "dataset"
    root.mkdir()
    return Dataset(root)


@pytest.fixture
def run_script() -> Callable[..., Finished]:
    """Run any script: `run_script("quotas/allocate.py", "--help")`."""
    return lambda *command, env=None: run_command([str(part) for part in command], env)


# Shell commands after which /dev/shm is as named, in a mount namespace of one's own.
SHARED_MEMORY = {
    "read-only": "mount -t tmpfs -o ro none /dev/shm",
    "missing": "new=$(mktemp -d) && mount -t tmpfs none $new && "
    "cp -a /dev/null /dev/zero /dev/random /dev/urandom $new && mount --bind $new /dev",
}


@pytest.fixture(params=SHARED_MEMORY)
def without_shared_memory(request: pytest.FixtureRequest) -> Callable[..., Finished]:
    """Run a script where /dev/shm is read-only or missing: `without_shared_memory("preprocess/dup/phash.py")`."""
    prepare = ["unshare", "--mount", "sh", "-c", f'{SHARED_MEMORY[request.param]} && exec "$@"', "sh"]
    try:
        tried = subprocess.run([*prepare, "true"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("this system has no mount namespaces")
    if tried.returncode:
        pytest.skip("only root may make a mount namespace here")
    return lambda *command: run_command([str(part) for part in command], prepare=prepare)


@pytest.fixture
def load_script() -> Callable[[str], ModuleType]:
    """Import a script by its path: the way to reach webdataset/, whose folder bears the library's name."""

    from pokefa.stage.check_step import load_script

    return lambda path: load_script(CHECKOUT / path)
