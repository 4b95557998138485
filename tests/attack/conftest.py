"""The dataset that is attacked: that of tests/metadata, with every fate that an image can have."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Finished
from tests.metadata.conftest import Sample, build
from tests.odd_places import load

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Victim(Sample):
    """A copy of the dataset that a test may damage."""

    @property
    def images(self) -> Path:
        return self.root / "metadata/images.csv"

    def script(self, script: str, *arguments: object) -> Finished:
        """Run a script on the dataset in this process, which spares the start of another one."""
        stdout, stderr = io.StringIO(), io.StringIO()
        with redirect_stdout(stdout), redirect_stderr(stderr):
            code = load(script).main(["--root", str(self.root), *map(str, arguments)])
        lines = stdout.getvalue().strip().splitlines()
        summary = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        return Finished(code, summary, stdout.getvalue(), stderr.getvalue())

    def rows(self, table: str = "images") -> Rows:
        with (self.root / f"metadata/{table}.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def rewrite(self, change: Callable[[Rows], Rows], table: str = "images", **dialect: str) -> None:
        """Save a table as another program would."""
        rows = change(self.rows(table))
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with (self.root / f"metadata/{table}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, **dialect)  # type: ignore[arg-type]
            writer.writeheader()
            writer.writerows(rows)

    def edit(self, name: str, **cells: str) -> None:
        """Change cells of one image."""
        image_id = self.ids[name]
        self.rewrite(lambda rows: [row | cells if row["image_id"] == image_id else row for row in rows])

    def kept_files(self) -> dict[str, bytes]:
        """Return what a run that should not have decided could have destroyed."""
        folders = ("data_clean", "data_raw", "data_stage", "webdataset")
        files = [path for folder in folders for path in (self.root / folder).rglob("*")]
        files += [self.root / "metadata/base.csv", self.root / "metadata/drops.csv"]
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return build(tmp_path_factory.mktemp("sample") / "dataset")


@pytest.fixture
def victim(template: Sample, tmp_path: Path) -> Victim:
    return Victim(template.copy_to(tmp_path / "dataset").root, template.ids)
