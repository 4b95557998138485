"""The checks of `pipeline.py run` before the first stage, so that a run of days does not stop at a missing key.

Each problem is one line, and all are reported at once. Checks that need a stage's libraries run in its environment
(`pokefa.stage.check_step`). Standard library only.
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

# The key that a step needs, and the flags with which it sends no request.
KEYS = {
    "scrape": ("SERPAPI_API_KEY", ("--from-folder", "--from-urls", "--dry-run")),
    "score": ("OPENAI_API_KEY", ("--estimate", "--dry-run")),
    "sentence_tags": ("OPENAI_API_KEY", ("--estimate", "--dry-run")),
}

# Gigabytes per environment; on Linux, PyTorch from its usual index includes CUDA.
ENVIRONMENT_GB = {"nsfw": 2.0, "ocr": 7.0}
USUAL_ENVIRONMENT_GB = 0.6

# Raw and resized image, shard, and an inpainted PNG for one image in ten: the sizes of docs/scaling.md.
GB_PER_IMAGE = 2.2e-3
USUAL_IMAGES = 30_000
# With these flags the quotas do not give the number of images, or the images are not stored in the root.
OTHER_IMAGES = ("--species", "--limit", "--ids", "--ids-file", "--from-folder", "--from-urls", "--quotas", "--dry-run")
ELSEWHERE = "--data-root"

STEPS_AT_ONCE = 4


def check_all(runner: Runner, steps: Sequence[Step], *, disk: bool = True) -> None:
    """Run every check before the first step, and build missing environments.

    Args:
        disk: also check the free disk space.

    Raises:
        InputErrors: a check failed.
        PokefaError: an environment cannot be built.
    """
    built = [step for step in steps if runner.environment(step).is_complete()]
    without_root = check_root(runner.root)
    problems = [*without_root, *check_keys(runner, steps), *check_building(runner, steps)]
    if not without_root:  # the disk check and the scripts use the root
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
    """Return why the dataset's folder cannot be created or written."""
    try:
        there = existing_parent(root)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        return [f"--root {root} cannot be used ({problem}): name another folder"]
    if not there.is_dir():
        return [f"--root {root}: {there} is not a folder: name another one"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"--root {root}: {there} is not writable: name another folder, or change its permissions"]
    return []


def check_keys(runner: Runner, steps: Iterable[Step]) -> list[str]:
    """Return a problem for each missing key; the clients require one for any server."""
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
    """Return why missing environments cannot be built."""
    if all(runner.environment(step).is_complete() for step in steps):
        return []
    problems = []
    if importlib.util.find_spec("ensurepip") is None:
        problems.append(
            "this Python cannot build environments without the module ensurepip: install it (on Debian and Ubuntu: "
            "apt-get install python3-venv)"
        )
    folder = existing_parent(environments_folder())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        problems.append(f"{folder}, the folder for environments, is not writable: set POKEFA_CACHE to another")
    return problems


def check_disk(runner: Runner, steps: Sequence[Step]) -> list[str]:
    """Return where disk space will run out, estimated from the usual sizes."""
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
                f"{folders}: {free:.1f} GB are free, and about {total:.1f} GB are needed ({named}): free some space, "
                "choose another disk, or add --no-disk-check"
            )
    return problems


def images_to_come(runner: Runner, steps: Sequence[Step]) -> int:
    """Return an estimate of how many images the steps will add to the root; 0 if that is not known."""
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
    """Return the sum of a dataset's quotas, or the usual sum if they cannot be read."""
    try:
        with quotas.open(encoding="utf-8", newline="") as stream:
            return sum(int(row["quota"]) for row in csv.DictReader(stream))
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return USUAL_IMAGES


def check_steps(runner: Runner, steps: Sequence[Step]) -> list[str]:
    """Return the problems that steps find with their flags, models and URLs."""
    with ThreadPoolExecutor(STEPS_AT_ONCE) as threads:
        return [problem for found in threads.map(partial(check_step, runner), steps) for problem in found]


def check_step(runner: Runner, step: Step) -> list[str]:
    """Return the problems that a step finds, each with the step's name."""
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
    return [f"{step.command}: its flags cannot be checked ({last}): run the step alone to see why"]


def given(flags: Iterable[str], flag: str) -> bool:
    """Tell whether a flag is among others, possibly abbreviated or with its value after a =."""
    names = [word.partition("=")[0] for word in flags]
    return any(len(name) > 3 and flag.startswith(name) for name in names if name.startswith("--"))


def existing_parent(path: Path) -> Path:
    """Return a path if it exists, else its nearest existing parent."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
