"""One virtual environment per stage group, built with venv and pip and kept in a cache. Standard library only.

An environment contains third-party packages only. The line `-e .` is skipped, so checkouts share environments, and each
puts itself on PYTHONPATH. The folder is named by the hash of its requirements, and is complete once it contains
`complete.json`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pokefa.errors import InputError, PokefaError

CHECKOUT = Path(__file__).resolve().parents[2]
MARKER = "complete.json"

# Requirements without an environment of their own: `test` goes into each, the others where the name includes them.
ADDED = ("test", "ray", "data_root")


@dataclass(frozen=True)
class Environment:
    """The packages of one environment, and its location."""

    name: str
    packages: tuple[str, ...]
    packages_without_dependencies: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Its folder: stages with the same Python, platform and requirements share one."""
        facts = [sys.version, sysconfig.get_platform(), self.packages, self.packages_without_dependencies]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        return environments_folder() / key

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin/python"

    def is_complete(self) -> bool:
        return (self.folder / MARKER).exists() and self.python.exists()


def environments_folder() -> Path:
    """Return the folder of all environments: $POKEFA_CACHE/envs, else `pokefa/envs` in the user's cache folder."""
    chosen = os.environ.get("POKEFA_CACHE")
    if chosen:
        return Path(chosen).absolute() / "envs"
    return user_cache_folder() / "envs"


def user_cache_folder() -> Path:
    """Return this project's folder in the user's cache folder.

    Raises:
        InputError: the user has no home folder.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(chosen) if chosen else Path.home() / ".cache") / "pokefa"
    except RuntimeError:
        raise InputError("there is no home folder for the cache: set POKEFA_CACHE to a folder") from None


def environment_names(checkout: Path = CHECKOUT) -> list[str]:
    """Return the names of all environments, from the files in requirements/."""
    names = [path.stem.removeprefix("requirements_") for path in (checkout / "requirements").glob("requirements_*.txt")]
    return sorted(name for name in names if name not in ADDED and not name.endswith("_nodeps"))


def environment(name: str, checkout: Path = CHECKOUT) -> Environment:
    """Return the environment `name`, with the requirements of its stage and of the tests.

    A name such as `nsfw+ray` combines the requirements of both.

    Raises:
        InputError: there is no such environment.
    """
    names = environment_names(checkout)
    parts = name.split("+")
    if not {*parts} <= {*names, *ADDED} or parts[0] in ADDED:
        raise InputError(f"unknown environment {name!r}: choose from {', '.join(names)}")
    return Environment(name, *requirements_of(f"{name}+test", checkout))


def requirements_of(name: str, checkout: Path = CHECKOUT) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the requirements of a name, or of several joined by `+`, and those to install without dependencies."""
    folder = checkout / "requirements"
    packages: dict[str, None] = {}
    without: dict[str, None] = {}
    for part in name.split("+"):
        packages |= dict.fromkeys(read_requirements(folder / f"requirements_{part}.txt"))
        apart = folder / f"requirements_{part}_nodeps.txt"
        without |= dict.fromkeys(read_requirements(apart) if apart.exists() else [])
    return tuple(packages), tuple(without)


def read_requirements(path: Path) -> list[str]:
    """Return the requirement lines of a file, with `-r` lines expanded and `-e .` skipped."""
    lines: list[str] = []
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.split("#", 1)[0].strip()
        if line.startswith("-r "):
            lines += read_requirements(path.parent / line[3:].strip())
        elif line and line != "-e .":
            lines.append(line)
    return lines


def ensure(wanted: Environment) -> Path:
    """Return the interpreter of an environment, which is built first unless it is complete.

    A second process waits for the first to build it. An interrupted build starts over.

    Raises:
        PokefaError: the environment cannot be built.
    """
    try:
        if not wanted.is_complete():
            wanted.folder.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(wanted.folder.with_name(f"{wanted.folder.name}.lock")):
                if not wanted.is_complete():
                    _build(wanted)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PokefaError(f"cannot build environment {wanted.name} in {wanted.folder}: {_way_out(error)}") from None
    return wanted.python


def _way_out(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}; set POKEFA_CACHE to a writable folder"
    return "this Python has no working ensurepip; install it (on Debian and Ubuntu: apt-get install python3-venv)"


def _build(wanted: Environment) -> None:
    print(f"building environment {wanted.name} in {wanted.folder} (minutes, once)", file=sys.stderr, flush=True)
    shutil.rmtree(wanted.folder, ignore_errors=True)
    venv.create(wanted.folder, with_pip=True, symlinks=True)
    _pip_install(wanted, "requirements.txt", wanted.packages)
    _pip_install(wanted, "requirements_nodeps.txt", wanted.packages_without_dependencies, "--no-deps")
    marker = {"name": wanted.name, "packages": wanted.packages, "no_deps": wanted.packages_without_dependencies}
    temporary = wanted.folder / f"{MARKER}.tmp"
    temporary.write_text(json.dumps(marker, indent=1))
    temporary.replace(wanted.folder / MARKER)


def _pip_install(wanted: Environment, list_name: str, packages: tuple[str, ...], *options: str) -> None:
    if not packages:
        return
    listing = wanted.folder / list_name
    listing.write_text("\n".join(packages) + "\n")
    pip = [str(wanted.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [*pip, *options, "-r", str(listing)], env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    (wanted.folder / f"{list_name}.log").write_text(done.stdout)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")] or done.stdout.splitlines()
        raise PokefaError(
            f"pip could not build environment {wanted.name}: {errors[0] if errors else 'no message'} "
            f"(full output in {wanted.folder / f'{list_name}.log'}); fix that and run the same command again"
        )


@contextmanager
def file_lock(path: Path) -> Iterator[int]:
    """Hold an exclusive lock on `path`, and yield its descriptor.

    A child that inherits the descriptor holds the lock too. The system releases it when the last holder ends.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that holds {path}", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
