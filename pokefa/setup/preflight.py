"""What `pipeline.py run` looks at before the first stage, so that a run of days does not stop for want of a key.

Each problem is one line, and all are named at once. What needs a stage's libraries is asked of the stage itself
(`pokefa.stage.check_step`), in its environment. Standard library only.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pokefa.errors import EXIT_USAGE, InputError, InputErrors
from pokefa.secrets import secret_from_environment
from pokefa.setup.environments import CHECKOUT, ensure, environments_folder
from pokefa.setup.runner import Runner, checkout_variables
from pokefa.setup.steps import Step

# The key that a step's client reads, and the flags with which it asks nobody.
KEYS = {
    "scrape": ("SERPAPI_API_KEY", ("--from-folder", "--from-urls", "--dry-run")),
    "score": ("OPENAI_API_KEY", ("--estimate", "--dry-run")),
    "sentence_tags": ("OPENAI_API_KEY", ("--estimate", "--dry-run")),
}

# Gigabytes of an environment; on Linux, PyTorch from its usual index brings CUDA with it.
ENVIRONMENT_GB = {"nsfw": 2.0, "ocr": 7.0}
USUAL_ENVIRONMENT_GB = 0.6

# Raw and resized image, shard, and an inpainted PNG for one in ten: the sizes of docs/scaling.md.
GB_PER_IMAGE = 2.2e-3
USUAL_IMAGES = 30_000
# With these the number of images is not that of the quotas, or their place is not the root.
OTHER_IMAGES = ("--species", "--limit", "--ids", "--ids-file", "--from-folder", "--from-urls", "--quotas", "--dry-run")
ELSEWHERE = "--data-root"

STEPS_AT_ONCE = 4


def check_all(runner: Runner, steps: Sequence[Step], *, disk: bool = True) -> None:
    """Check all that can be known before the first step runs; environments that are missing are built on the way.

    Args:
        disk: also check the free disk.

    Raises:
        InputErrors: something is wrong.
        PokefaError: an environment cannot be built.
    """
    built = [step for step in steps if runner.environment(step).is_complete()]
    without_root = check_root(runner.root)
    problems = [*without_root, *check_keys(runner, steps), *check_building(runner, steps)]
    if not without_root:  # the disk and the scripts are asked about the root
        problems += check_disk(runner, steps) if disk else []
        problems += check_steps(runner, built)
    raise_problems(problems)
    missing = [step for step in steps if step not in built]
    for step in missing:
        ensure(runner.environment(step))
    raise_problems(check_steps(runner, missing))


def raise_problems(problems: Sequence[str]) -> None:
    if problems:
        raise InputErrors(list(dict.fromkeys(problems)))


def check_root(root: Path) -> list[str]:
    """Return what keeps a dataset's folder from being made or written."""
    try:
        there = existing_parent(root)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        return [f"--root {root} cannot be used ({problem}): name another folder"]
    if not there.is_dir():
        return [f"--root {root}: {there} is no folder: name another one"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"--root {root}: {there} cannot be written: name another folder, or change its rights"]
    return []


def check_keys(runner: Runner, steps: Iterable[Step]) -> list[str]:
    """Return the keys that are missing. The clients send one to every server, and so want one for any."""
    problems = []
    for step in steps:
        key, without = KEYS.get(step.name, (None, ()))
        if key is None or any(given(runner.flags_of(step), flag) for flag in without):
            continue
        try:
            secret_from_environment(key)
        except InputError as error:
            problems.append(str(error))
    return problems


def check_building(runner: Runner, steps: Iterable[Step]) -> list[str]:
    """Return what keeps missing environments from being built."""
    if all(runner.environment(step).is_complete() for step in steps):
        return []
    problems = []
    if importlib.util.find_spec("ensurepip") is None:
        problems.append(
            "this Python cannot build environments, for it lacks the module ensurepip: install it (on Debian and "
            "Ubuntu: apt-get install python3-venv)"
        )
    folder = existing_parent(environments_folder())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        problems.append(f"{folder} cannot be written, and environments are kept there: set POKEFA_CACHE to a folder")
    return problems


def check_disk(runner: Runner, steps: Sequence[Step]) -> list[str]:
    """Return where disk space will run out: roughly, by the usual sizes."""
    wanted: dict[Path, list[tuple[float, str]]] = {}
    places = [runner.environment(step) for step in steps]
    missing = {place.folder: place.name for place in places if not place.is_complete()}
    size = sum(ENVIRONMENT_GB.get(name.partition("+")[0], USUAL_ENVIRONMENT_GB) for name in missing.values())
    if size:
        wanted[existing_parent(environments_folder())] = [(size, f"{len(missing)} environments")]
    images = images_to_come(runner, steps)
    if images:
        wanted.setdefault(existing_parent(runner.root), []).append((images * GB_PER_IMAGE, f"{images:,} images"))
    by_device: dict[int, list[tuple[Path, float, str]]] = {}
    for folder, needs in wanted.items():
        by_device.setdefault(folder.stat().st_dev, []).extend((folder, gigabytes, what) for gigabytes, what in needs)
    problems = []
    for needs_here in by_device.values():
        free = shutil.disk_usage(needs_here[0][0]).free / 1e9
        total = sum(gigabytes for _, gigabytes, _ in needs_here)
        if total > free:
            folders = " and ".join(dict.fromkeys(str(folder) for folder, _, _ in needs_here))
            named = ", ".join(f"{gigabytes:.1f} for {what}" for _, gigabytes, what in needs_here)
            problems.append(
                f"{folders}: {free:.1f} GB are free, and about {total:.1f} GB are needed ({named}): free some, choose "
                "another disk, or add --no-disk-check"
            )
    return problems


def images_to_come(runner: Runner, steps: Sequence[Step]) -> int:
    """Return how many images the steps will add to the root, as far as can be told; 0 where that is not known."""
    scrape = next((step for step in steps if step.name == "scrape"), None)
    if scrape is None or any(given(runner.flags_of(step), ELSEWHERE) for step in steps):
        return 0
    if any(given(runner.flags_of(scrape), flag) for flag in OTHER_IMAGES):
        return 0
    try:
        with (runner.root / "metadata/images.csv").open("rb") as stream:
            there = sum(1 for _ in stream)
    except OSError:
        there = 0
    return max(0, wanted_images(runner.root / "quotas/quotas.csv") - there)


def wanted_images(quotas: Path) -> int:
    """Return the sum of a dataset's quotas, or the usual one where these cannot be read."""
    try:
        with quotas.open(encoding="utf-8", newline="") as stream:
            return sum(int(row["quota"]) for row in csv.DictReader(stream))
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return USUAL_IMAGES


def check_steps(runner: Runner, steps: Sequence[Step]) -> list[str]:
    """Return what the steps themselves find wrong with their flags, models and addresses."""
    with ThreadPoolExecutor(STEPS_AT_ONCE) as threads:
        return [problem for found in threads.map(partial(check_step, runner), steps) for problem in found]


def check_step(runner: Runner, step: Step) -> list[str]:
    """Return what a step finds wrong, each problem with the step's name."""
    python, *words = runner.words(step)
    done = subprocess.run(
        [python, "-m", "pokefa.stage.check_step", *words],
        cwd=CHECKOUT,
        env=checkout_variables() | dict(runner.variables.get(step.command, {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return [f"{step.command}: {problem}" for problem in json.loads(lines[-1])]
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode == EXIT_USAGE:
        return [f"{step.command}: {last.partition(': error: ')[2] or last}"]
    return [f"{step.command}: its flags cannot be checked ({last}): run it by itself to see why"]


def given(flags: Iterable[str], flag: str) -> bool:
    """Tell whether a flag is among others, also abbreviated or with its value behind a =."""
    names = [word.partition("=")[0] for word in flags]
    return any(len(name) > 3 and flag.startswith(name) for name in names if name.startswith("--"))


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above a path, or the path itself, that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
