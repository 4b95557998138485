"""Model files: found in the cache or downloaded once, and checked against a pinned SHA-256 before anyone loads them."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from pokefa.errors import InputError, PokefaError
from pokefa.table import first_line

CHUNK = 2**20
ATTEMPTS = 5
TIMEOUT_S = 60.0

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class ModelFile:
    """A file to download: its name in the cache, its address, and what its bytes must be."""

    name: str
    url: str
    size: int
    sha256: str


def cache_folder() -> Path:
    """Return the folder of downloaded models: $POKEFA_CACHE, else `pokefa` in the user's cache folder."""
    chosen = os.environ.get("POKEFA_CACHE")
    if chosen:
        return Path(chosen) / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pokefa" / "models"


def fetch(model: ModelFile, *, ways_out: str) -> Path:
    """Return the path of a model file, downloading it unless the cache has it.

    A download that broke off goes on where it stopped. The file takes its name only once its SHA-256 is right, and
    under a lock: of two processes that start at once one downloads and both get the whole file.

    Args:
        ways_out: what a user can do where the address cannot be reached; ends the error message.

    Raises:
        PokefaError: the file cannot be downloaded, or is not the pinned one.
    """
    target = cache_folder() / model.sha256[:12] / model.name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(target.suffix + ".lock")):
        if target.exists():
            return target
        partial = target.with_suffix(target.suffix + ".part")
        _download(model, partial, ways_out)
        found = sha256_of(partial)
        if found != model.sha256:
            partial.unlink()
            raise PokefaError(
                f"{model.url} is not the pinned file: its SHA-256 is {found}, expected {model.sha256}; {ways_out}"
            )
        partial.replace(target)
    return target


def check_file(path: Path, sha256: str) -> None:
    """Check a file against its pinned sum.

    Raises:
        InputError: it is missing or other than pinned.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: name an existing model file")
    found = sha256_of(path)
    if found != sha256:
        raise InputError(f"{path} is not the pinned file: its SHA-256 is {found}, expected {sha256}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(model: ModelFile, partial: Path, ways_out: str) -> None:
    """Bring `partial` to the model's full size, going on after what it already holds."""
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(2**attempt, 10))
        try:
            _append_rest(model, partial)
        except (OSError, urllib.error.URLError) as error:
            problem = first_line(error)
            log.warning("%s: %s", model.url, problem)
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410):
                break
            continue
        size = partial.stat().st_size
        if size == model.size:
            return
        problem = f"{size} bytes came, {model.size} expected"
        if size > model.size:
            partial.unlink()
    raise PokefaError(f"cannot download {model.url} ({problem}); {ways_out}")


def _append_rest(model: ModelFile, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    if have == model.size:
        return
    request = urllib.request.Request(model.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        continued = answer.status == 206
        with (
            partial.open("ab" if continued else "wb") as stream,
            tqdm(
                total=model.size,
                initial=have if continued else 0,
                unit="B",
                unit_scale=True,
                desc=model.name,
                disable=None,
            ) as bar,
        ):
            while chunk := answer.read(CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
