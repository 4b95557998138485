"""Runs scripts on copies of a dataset in folders with odd names, in one process for each locale.

    python tests/odd_places.py TEMPLATE FOLDER '["<name in hex>", …]' 'script.py --flags' …

Prints one JSON line for each folder: its name, what each script exited with and said, and the tables afterwards with
run ids and times left out. `run_in_odd_places` starts it and is what tests call.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]

# Brackets and stars are patterns to some libraries, a name in other letters or in no encoding at all is not found by
# others, and "plain" is what all of them are compared with.
NAMES = [
    b"plain", b"set [1]", b"ds[12]", b"a*b", b"what?", b"{x,y}", b" blanks ", "ü ö".encode(), "ポケモン".encode(),
    b"latin \xe9", b"l" * 200, b"line\nend", b"-dash", b"%41#a",
]  # fmt: skip
FEW_NAMES = [b"plain", b"ds[12] *{x}?", "ü ポ".encode(), b"latin \xe9"]
LOCALES = {"utf8": "C.UTF-8", "ascii": "C", "latin1": "de_DE.ISO-8859-1"}
# Of each table, what differs from run to run.
VARYING = re.compile(r"(^|_)(ts|run_id)$")


def run_in_odd_places(
    template: Path, folder: Path, scripts: Sequence[str], names: Sequence[bytes] = NAMES
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield (place, what happened there, what happened in a plain folder), for each locale and name.

    Args:
        template: a dataset that is copied to each place.
        scripts: command lines without --root.
    """
    for tag, locale in LOCALES.items():
        # In ASCII every locale has the same names.
        wanted = [name for name in names if tag == "utf8" or name == b"plain" or not name.isascii()]
        places = folder / tag
        places.mkdir()
        variables = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(CHECKOUT)}
        if tag == "latin1":
            variables["LOCPATH"] = str(make_locale(folder))
        done = subprocess.run(
            [sys.executable, __file__, template, places, json.dumps([name.hex() for name in wanted]), *scripts],
            cwd=CHECKOUT,
            env={**os.environ, **variables},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        plain, *others = [json.loads(line) for line in done.stdout.splitlines()]
        del plain["place"]
        for other in others:
            yield f"{tag} {other.pop('place')}", other, plain


def check_odd_places(template: Path, folder: Path, scripts: Sequence[str], names: Sequence[bytes] = FEW_NAMES) -> None:
    """Check that scripts do in every place what they do in a plain folder."""
    for place, there, plain in run_in_odd_places(template, folder, scripts, names):
        assert there["ended"] == plain["ended"], place
        assert there["tables"] == plain["tables"], place
        assert there["files"] == plain["files"], place
    assert {code for code, _ in plain["ended"].values()} <= {0, 1}, plain["ended"]


def make_locale(folder: Path) -> Path:
    """Compile a locale whose encoding is Latin-1, and return the folder to name in LOCPATH."""
    target = folder / "locales" / LOCALES["latin1"]
    target.parent.mkdir(exist_ok=True)
    subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", target], check=True, capture_output=True)
    return target.parent


@cache
def load(script: str) -> Any:
    """Import a script by its path; those of webdataset/, whose folder has the library's name, by their file."""
    if not script.startswith("webdataset/"):
        return importlib.import_module(script.removesuffix(".py").replace("/", "."))
    from pokefa.stage.check_step import load_script

    return load_script(CHECKOUT / script)


def run_script(root: Path, line: str) -> tuple[int, str]:
    """Run a command line on a root; return its exit code and what it wrote to stderr."""
    script, *flags = shlex.split(line)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding)
    stderr = io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            code = load(script).main([*flags, f"--root={root}"])
        except SystemExit as ended:
            code = int(ended.code or 0) if not isinstance(ended.code, str) else 1
        except BaseException:
            traceback.print_exc()
            code = 99
    return code, stderr.getvalue() if code else ""


def tables_of(root: Path) -> dict[str, list[dict[str, str]]]:
    found = {}
    for path in sorted((root / "metadata").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        found[path.name] = [{name: cell for name, cell in row.items() if not VARYING.search(name)} for row in rows]
    return found


def files_of(root: Path) -> list[str]:
    """Return the files of images and shards; what a run names after itself is left out."""
    folders = ("data_raw", "data_stage", "data_clean", "webdataset")
    paths = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return sorted(path.relative_to(root).as_posix() for path in paths)


def main() -> int:
    template, folder, names, *scripts = sys.argv[1:]
    out = sys.stdout
    for name in json.loads(names):
        root = Path(folder) / os.fsdecode(bytes.fromhex(name))
        shutil.copytree(template, root)
        ended = {line: run_script(root, line) for line in scripts}
        told = {"place": repr(bytes.fromhex(name)), "ended": ended, "tables": tables_of(root), "files": files_of(root)}
        print(json.dumps(told), file=out, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
