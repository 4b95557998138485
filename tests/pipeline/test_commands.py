"""Every command that the README, docs/ or a script's help shows runs as it stands, on a copy of the finished demo.

What stands for the reader's own things is replaced: `python` by the interpreter of the stage's environment, ids by ids
of the demo, example.org by the demo's domain. The services are the demo's stand-ins.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from demo.run import TRUST
from pokefa.setup.environments import CHECKOUT, ensure, environment
from pokefa.setup.runner import checkout_variables
from pokefa.setup.steps import COMMANDS, STEPS
from tests.pipeline.conftest import free_ports

pytestmark = pytest.mark.timeout(600)

PORT = free_ports()
FOLDERS = ("pokefa", "quotas", "scraping", "preprocess", "caption", "webdataset", "metadata", "demo")
MODULES = ("benchmarks", "requirements")
FOR_CLUSTERS = "scaling.md"
WITH_MODELS = {"preprocess/nsfw/nsfw_filter.py", "preprocess/ocr/ocr_pipeline.py", "nsfw", "ocr"}
SERVERS = ("demo.standins.openai_standin", "demo.standins.serpapi_standin", "demo.standins.services")

# Commands that do not run here, each with what runs in its place.
ELSEWHERE = {
    "python3 pipeline.py demo": "the fixture of this folder",
    "python3 pipeline.py test": "whoever runs this test",
    "python3 pipeline.py test [STAGE ...]": "whoever runs this test",
    "python3 pipeline.py setup all": "pipeline.py test, environment by environment",
    "python3 -m venv .venv/ocr": "test_environments.py builds one from requirement files",
    ".venv/ocr/bin/pip install -r requirements/requirements_ocr.txt": "the same",
    ".venv/ocr/bin/pip install --no-deps -r requirements/requirements_ocr_nodeps.txt": "the same",
    ".venv/ocr/bin/pip install -r requirements/requirements_test.txt": "the same",
}

# What a reader puts in the place of these.
OWN = {
    "DIR": "my-dataset",
    "NAME": "core",
    "example.org": "127.0.0.1",
    "example.com": "127.0.0.1",
}

# The stand-in's account has fewer searches than there are species.
USED_UP = "error: the search account is used up"


@dataclass(frozen=True)
class Shown:
    """A command and where it is shown."""

    where: str
    line: str


def shown_in_pages() -> Iterator[Shown]:
    """Yield the commands of the README and of docs/, apart from the page that wants clusters and clouds."""
    for path in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]:
        if path.name == FOR_CLUSTERS:
            continue
        text = path.read_text(encoding="utf-8")
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                command = re.split(r"\s+#", line)[0].strip()
                if command and not command.startswith("export "):
                    yield Shown(path.name, command)
        yield from (Shown(path.name, line) for line in re.findall(r"`(python3? [^`]*)`", text))


def shown_in_docstrings() -> Iterator[Shown]:
    scripts = [
        CHECKOUT / "pipeline.py",
        *(path for folder in FOLDERS for path in sorted((CHECKOUT / folder).rglob("*.py"))),
    ]
    for path in scripts:
        documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for line in documentation.splitlines():
            if re.match(r"\s+python3? ", line):
                yield Shown(str(path.relative_to(CHECKOUT)), re.split(r"\s{2,}", line.strip())[0])


def shown_in_benchmarks() -> list[Shown]:
    found = []
    for path in sorted((CHECKOUT / "benchmarks").glob("*.py")):
        documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for line in documentation.splitlines():
            if re.match(r"\s+python3? ", line):
                found.append(Shown(path.name, re.split(r"\s{2,}", line.strip())[0]))
    return found


def shown_for_clusters() -> list[Shown]:
    """Return the commands for clusters and clouds that run a script of the project."""
    found = []
    text = (CHECKOUT / "docs" / FOR_CLUSTERS).read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            place = next((place for place, word in enumerate(words) if word.endswith(".py")), None)
            if place is not None:
                found.append(Shown(FOR_CLUSTERS, shlex.join(["python", *words[place:]])))
    return found


def commands() -> list[Shown]:
    """Each command once, in the order in which a reader meets them."""
    found: dict[tuple[str, ...], Shown] = {}
    for each in [*shown_in_pages(), *shown_in_docstrings()]:
        found.setdefault(what_runs(each.line), each)
    return [each for each in found.values() if each.line not in ELSEWHERE]


def what_runs(line: str) -> tuple[str, ...]:
    """Return the script that a command runs and its flags, whichever way it is named and on whichever root."""
    words = shlex.split(line)
    if words[1:2] == ["pipeline.py"] and len(words) > 2 and words[2] in COMMANDS:
        step = COMMANDS[words[2]]
        words = ["python", step.script, *step.subcommands[:1], *words[3:]]
    if "--root" in words and words[1:2] != ["pipeline.py"]:
        place = words.index("--root")
        del words[place : place + 2]
    return tuple(words)


def environment_of(line: str) -> str:
    """Return the environment of the script or module that a command names."""
    script = next(word for word in shlex.split(line) if "/" in word or "." in word)
    others = {"nsfw_model": "nsfw", "inpaint_model": "ocr", "text_set": "ocr"}
    steps = {step.script: step.environment for step in STEPS.values()}
    return steps.get(script) or others.get(script.removesuffix(".py").split(".")[-1].split("/")[-1], "core")


@pytest.fixture(scope="session")
def top(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout's top in which the demo's dataset lies as well, and once more as my-dataset, with a reader's files."""
    top = tmp_path_factory.mktemp("commands") / "top"
    top.mkdir()
    for name in (*FOLDERS, *MODULES):
        shutil.copytree(CHECKOUT / name, top / name, ignore=ignore_generated)
    for name in ("pipeline.py", "pyproject.toml", "README.md"):
        shutil.copy(CHECKOUT / name, top / name)
    shutil.copytree(finished, top, dirs_exist_ok=True, ignore=shutil.ignore_patterns("art", "*.lock", "demo"))
    shutil.copytree(finished, top / "my-dataset", ignore=shutil.ignore_patterns("*.lock"))
    shutil.copytree(finished / "demo", top / "demo-run/demo")
    shutil.copytree(finished / "demo/nsfw_model", top / "models/deepdanbooru-v3")
    rows = images(top)
    kept = next(row for row in rows if row["filter_decision"] == "kept")
    shutil.copy(top / kept["path_raw"], top / "picture.png")
    for folder in ("pictures", "my-pictures"):
        (top / folder / "Pikachu").mkdir(parents=True)
        shutil.copy(top / kept["path_raw"], top / folder / "Pikachu")
    listed = "".join(f"{row['source_url']},{row['species']}\n" for row in rows[:3])
    for name in ("published.csv", "base.csv"):
        (top / name).write_text(f"source_url,species\n{listed}", encoding="utf-8")
    (top / "trust.toml").write_text(f"ocr = {json.dumps(TRUST)}\n")
    (top / "harmless.txt").write_text(f"{flagged(top, 'is_nsfw')[0]}\n")
    (top / "cleared.txt").write_text(f"{flagged(top, 'has_ocr')[0]}\n")
    return top


def ignore_generated(folder: str, names: list[str]) -> list[str]:
    """Leave out what a dataset in the checkout may have left in the folders of the code."""
    generated = {"__pycache__", "data", "manifests", "runs", "audit", "images.csv", "base.csv", "report.html"}
    return [name for name in names if name in generated or name.endswith((".lock", ".sqlite"))]


def images(root: Path) -> list[dict[str, str]]:
    with (root / "metadata/images.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def flagged(root: Path, column: str) -> list[str]:
    """Return the ids that a model flagged, those cleared by hand left out."""
    override = {"is_nsfw": "nsfw_override", "has_ocr": "ocr_override"}[column]
    return [row["image_id"] for row in images(root) if row[column] == "True" and not row[override]]


@pytest.fixture(scope="session")
def services(top: Path) -> Iterator[dict[str, str]]:
    """The demo's stand-ins; yields the variables that lead to them."""
    words = [ensure(environment("core")), "-m", "demo.standins.services", "--catalogue"]
    words += [top / "my-dataset/demo/art/catalogue.json", "--port", str(PORT)]
    with subprocess.Popen(
        words, cwd=CHECKOUT, env=checkout_variables(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "stand-in" in process.stdout.readline()
        yield {
            "SERPAPI_BASE_URL": f"http://127.0.0.1:{PORT}",
            "SERPAPI_API_KEY": "key",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{PORT + 1}/v1",
            "OPENAI_API_KEY": "key",
            "LAMA_MODEL": str(top / "my-dataset/demo/inpaint_model.pt"),
        }
        process.communicate()


@pytest.fixture
def copy(top: Path, tmp_path: Path) -> Path:
    """A copy for one command. Files are linked, for they are replaced and never written in place; databases are not."""
    return Path(shutil.copytree(top, tmp_path / "top", copy_function=link_or_copy))


def link_or_copy(source: str, target: str) -> None:
    if ".sqlite" in source or source.endswith(".py"):
        shutil.copy2(source, target)
    else:
        os.link(source, target)


def words_of(shown: Shown, root: Path, tmp_path: Path) -> list[str]:
    """Return the command's words with what stands for the reader's own things replaced."""
    words = shlex.split(shown.line)
    own = OWN | {"https://example.com/people/someone": artist_page(root)}
    words = [own.get(word, word) for word in words]
    words = [word.replace("/tmp/", f"{tmp_path}/", 1) if word.startswith("/tmp/") else word for word in words]
    ids = ids_for(shown.line, root)
    words = [next(ids) if re.fullmatch(r"[0-9a-f]{4,32}…?", word) and not word.isdecimal() else word for word in words]
    if {"scraping/scrape.py", "scrape"} & {*words}:
        words.append("--allow-private")  # the stand-in's images lie on this machine
    if "pipeline.py" in words and "run" in words:
        # The demo's set is small, whatever its quotas are, and its weights are its own.
        words += ["--no-disk-check", "--config", "trust.toml"]
    if WITH_MODELS & {*words[:3]} and TRUST[0] not in words:
        words += TRUST  # what stands here for the reader's weights is the demo's small models
    python = str(ensure(environment(environment_of(shown.line))))
    return [python if word in ("python", "python3", ".venv/ocr/bin/python") else word for word in words]


def artist_page(root: Path) -> str:
    """Return the page under which the demo's pictures lie, at the port that it had."""
    address = urlsplit(images(root)[0]["source_page"])
    return f"{address.scheme}://{address.netloc}/art"


def ids_for(line: str, root: Path) -> Iterator[str]:
    """Yield ids that the command can be about."""
    if "nsfw_unflag" in line:
        cleared = [row["image_id"] for row in images(root) if row["nsfw_override"]]
        return iter(cleared if "--undo" in line else flagged(root, "is_nsfw"))
    if "ocr_unflag" in line:
        return iter(flagged(root, "has_ocr"))
    return iter([row["image_id"] for row in images(root)])


def run(words: list[str], root: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=root,
        env=checkout_variables() | {"PYTHONPATH": str(root)} | dict(variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("shown", commands(), ids=lambda shown: shown.line)
def test_a_shown_command_runs(shown: Shown, copy: Path, services: dict[str, str], tmp_path: Path) -> None:
    words = words_of(shown, copy, tmp_path)
    if any(server in words for server in SERVERS):
        with subprocess.Popen(
            words, cwd=copy, env=checkout_variables(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())
            process.terminate()
        return
    if "ocr_unflag" in shown.line and "--undo" in shown.line:
        before = run([word for word in words if word != "--undo"], copy, services)
        assert before.returncode == 0, before.stderr
    done = run(words, copy, services)
    code = 3 if USED_UP in done.stderr else 0
    assert done.returncode == code, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shown", shown_in_benchmarks(), ids=lambda shown: shown.line)
def test_a_shown_benchmark_takes_its_flags(shown: Shown) -> None:
    """Benchmarks take minutes: here their parsers take the flags, and know every one of them."""
    words = shlex.split(shown.line)
    python = str(ensure(environment("benchmarks")))
    done = run([python, *words[1:], "--help"], CHECKOUT, {})
    assert done.returncode == 0, done.stderr
    for flag in (word for word in words if word.startswith("--")):
        assert flag in done.stdout


@pytest.mark.parametrize("shown", shown_for_clusters(), ids=lambda shown: shown.line)
def test_a_command_for_clusters_takes_its_flags(shown: Shown) -> None:
    """No cluster is here: their parsers take the commands, and know every one of their flags."""
    words = shlex.split(shown.line)
    done = run([str(ensure(environment("core"))), *words[1:], "--help"], CHECKOUT, {})
    assert done.returncode == 0, done.stderr
    for flag in (word for word in words if word.startswith("--")):
        assert flag in done.stdout


def test_there_are_commands_for_clusters() -> None:
    assert {"preprocess/resize/resize.py", "pipeline.py"} <= {
        shlex.split(each.line)[1] for each in shown_for_clusters()
    }


def test_what_runs_elsewhere_is_still_shown() -> None:
    lines = {each.line for each in [*shown_in_pages(), *shown_in_docstrings()]}
    assert set(ELSEWHERE) <= lines


def test_there_are_commands_of_every_stage() -> None:
    found = {environment_of(each.line) for each in commands()}
    assert found >= {"quotas", "scraping", "nsfw", "ocr", "resize", "score", "dup", "filter", "caption", "webdataset"}
    assert "metadata" in found
