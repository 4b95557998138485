"""Model files: found in the cache or downloaded once, and checked against a pinned SHA-256 before anyone loads them."""

from __future__ import annotations

import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath

from filelock import FileLock
from tqdm import tqdm

from pokefa.errors import InputError, PokefaError, first_line
from pokefa.files import sha256_of, sync_folder
from pokefa.images.confined import can_confine
from pokefa.setup.environments import user_cache_folder

CHUNK = 2**20
ATTEMPTS = 5
PAUSE_S = 2.0
LONGEST_PAUSE_S = 10.0
TIMEOUT_S = 60.0
CHECK_S = 15.0

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class ModelFile:
    """A file to download: its name in the cache, its address, and what its bytes must be."""

    name: str
    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Trust:
    """What the user lets a model file do that is not the pinned one.

    Args:
        unpinned: run, in a process that cannot write.
        unconfined: run with all of the user's rights.
    """

    unpinned: bool = False
    unconfined: bool = False


@dataclass(frozen=True)
class Member:
    """A file inside an archive: its name without folders, the most bytes it may have, its SHA-256 if pinned."""

    name: str
    largest: int
    sha256: str | None = None


@dataclass(frozen=True)
class ModelArchive:
    """A zip to download whose own sum nobody knows; the sum of what matters inside is pinned.

    Args:
        name: its folder in the cache.
        largest: the most bytes that the zip may have.
        members: the files to take out of it, wherever in the zip they lie; the first is pinned.
    """

    name: str
    url: str
    largest: int
    members: tuple[Member, ...]


def cache_folder() -> Path:
    """Return the folder of downloaded models: $POKEFA_CACHE, else `pokefa` in the user's cache folder."""
    chosen = os.environ.get("POKEFA_CACHE")
    if chosen:
        return Path(chosen) / "models"
    return user_cache_folder() / "models"


def fetch(model: ModelFile, *, ways_out: str) -> Path:
    """Return the path of a model file, downloading it unless the cache has it.

    A download that broke off goes on where it stopped. The file takes its name only once its SHA-256 is right, and
    under a lock: of two processes that start at once one downloads and both get the whole file. What the cache has is
    checked each time: a copy by hand may have broken off. A wrong file stays, since others may share the cache.

    Args:
        ways_out: what a user can do where the address cannot be reached; ends the error message.

    Raises:
        PokefaError: the file cannot be downloaded, or is not the pinned one.
    """
    target = cache_folder() / model.sha256[:12] / model.name
    if target.exists():
        _check_cached(target, model, ways_out)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(target.suffix + ".lock")):
        if target.exists():
            _check_cached(target, model, ways_out)
            return target
        partial = target.with_suffix(target.suffix + ".part")
        _download(model.url, partial, ways_out, size=model.size, largest=model.size)
        found = sha256_of(partial)
        if found != model.sha256:
            partial.unlink()
            raise PokefaError(
                f"{model.url} is not the pinned file: its SHA-256 is {found}, expected {model.sha256}; {ways_out}"
            )
        partial.replace(target)
    return target


def check_available(model: ModelFile | ModelArchive, *, ways_out: str) -> None:
    """Check that a model lies in the cache or that its address answers, without downloading it.

    Raises:
        PokefaError: neither is so.
    """
    sha256 = model.sha256 if isinstance(model, ModelFile) else str(model.members[0].sha256)
    if (cache_folder() / sha256[:12] / model.name).exists():
        return
    try:
        with urllib.request.urlopen(urllib.request.Request(model.url, headers={"Range": "bytes=0-0"}), timeout=CHECK_S):
            pass
    except (OSError, http.client.HTTPException) as error:
        raise PokefaError(f"cannot download {model.url} ({first_line(error)}); {ways_out}") from None


def fetch_archive(archive: ModelArchive, *, ways_out: str) -> Path:
    """Return the folder that holds an archive's members, downloading and unpacking it unless the cache has it.

    Resume and lock are those of `fetch`. The folder takes its name only once every member is whole and the pinned ones
    are right. Members are written under the names that `archive` gives them, never under names from inside the zip.

    Raises:
        PokefaError: the archive cannot be downloaded, or does not hold the members.
    """
    pinned = archive.members[0].sha256
    assert pinned is not None, "the first member of an archive is pinned"
    target = cache_folder() / pinned[:12] / archive.name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{archive.name}.lock")):
        if target.is_dir():
            return target
        partial = target.with_name(f"{archive.name}.part")
        _download(archive.url, partial, ways_out, size=None, largest=archive.largest)
        unpacked = target.with_name(f"{archive.name}.tmp")
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        try:
            _unpack(archive, partial, unpacked)
        except OSError as error:
            raise PokefaError(f"cannot unpack {partial}: {first_line(error)}") from None
        except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            partial.unlink()
            raise PokefaError(f"{archive.url} is not the pinned archive: {first_line(error)}; {ways_out}") from None
        unpacked.rename(target)
        sync_folder(target.parent)
        partial.unlink()
    return target


def check_trust(what: str, trust: Trust) -> bool:
    """Return whether a model file that is not the pinned one has to run in a confined process.

    Args:
        what: names the file and says why it is not the pinned one; begins the error message.

    Raises:
        InputError: the user has not said to trust it, or this system cannot confine it.
    """
    if not trust.unpinned:
        raise InputError(
            f"{what}; a model file is a program: add --trust-model-file if you trust who made it, and it runs where it "
            "cannot write"
        )
    if trust.unconfined:
        log.warning("%s: it runs with all of your rights, as --unconfined-model-file says", what)
        return False
    if not can_confine():
        raise InputError(
            f"{what}, and this system cannot keep it from writing (that takes Landlock, in Linux 5.13 or newer): add "
            "--unconfined-model-file to run it with all of your rights"
        )
    log.warning("%s: it runs in a process that cannot write, read your files or open connections", what)
    return True


def unpinned_file(path: Path, found: str, pinned: str) -> str:
    """Return what `check_trust` says of a file whose SHA-256 is another."""
    return f"{path} is not the pinned model file (its SHA-256 is {found}, expected {pinned})"


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


def _check_cached(path: Path, model: ModelFile, ways_out: str) -> None:
    """Check a file of the cache: by its size first, which needs no reading.

    Raises:
        PokefaError: it is not the pinned one.
    """
    size = path.stat().st_size
    if size != model.size:
        problem = f"it has {size} bytes, expected {model.size}"
    elif (found := sha256_of(path)) != model.sha256:
        problem = f"its SHA-256 is {found}, expected {model.sha256}"
    else:
        return
    raise PokefaError(f"{path} is not the pinned file: {problem}; remove it to download it again, or {ways_out}")


def _unpack(archive: ModelArchive, packed: Path, folder: Path) -> None:
    """Write the members of a zip into `folder`.

    Raises:
        ValueError: a member is missing, too large or not the pinned one.
    """
    with zipfile.ZipFile(packed) as opened:
        for member in archive.members:
            found = [info for info in opened.infolist() if PurePosixPath(info.filename).name == member.name]
            if len(found) != 1:
                raise ValueError(f"it holds {len(found)} files called {member.name}")
            if found[0].file_size > member.largest:
                raise ValueError(f"{member.name} has {found[0].file_size} bytes, at most {member.largest} are expected")
            path = folder / member.name
            # zipfile reads no more than the size that was just checked, and compares the CRC at the end.
            with opened.open(found[0]) as source, path.open("xb") as stream:
                shutil.copyfileobj(source, stream, CHUNK)
                stream.flush()
                os.fsync(stream.fileno())
            if member.sha256 is not None and (sha256 := sha256_of(path)) != member.sha256:
                raise ValueError(f"the SHA-256 of {member.name} is {sha256}, expected {member.sha256}")


def _download(url: str, partial: Path, ways_out: str, *, size: int | None, largest: int) -> None:
    """Bring `partial` to its full size, going on after what it already holds.

    Args:
        size: the full size where it is known; else what the server says.
        largest: the most bytes to take.
    """
    failures = 0
    while failures < ATTEMPTS:
        if failures:
            time.sleep(min(PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S))
        before = _size_of(partial)
        try:
            total = _append_rest(url, partial, size, largest)
            have = _size_of(partial)
            if total is None or have == total:
                return
            problem = f"{have} bytes came, {total} expected"
            if have > total:
                partial.unlink()
        except (OSError, http.client.HTTPException) as error:
            problem = first_line(error)
            if _is_final(error, came=failures > 0 or before > 0):
                break
        log.warning("%s: %s", url, problem)
        # A large file over a bad line may take many attempts, as long as each brings it on.
        failures = 1 if _size_of(partial) >= before + CHUNK else failures + 1
    raise PokefaError(f"cannot download {url} ({problem}); {ways_out}")


def _is_final(error: Exception, *, came: bool) -> bool:
    """Tell whether trying again is no use: the file is not there, or the very first try reached nobody."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (401, 403, 404, 410)
    return isinstance(error, urllib.error.URLError) and not came


def _append_rest(url: str, partial: Path, size: int | None, largest: int) -> int | None:
    """Append what is missing, as far as it comes; return the full size, or None where the server does not tell it.

    Raises:
        OSError, HTTPException: the connection failed or broke off; `partial` holds what came.
        PokefaError: more than `largest` bytes.
    """
    have = _size_of(partial)
    if have and have == size:
        return size
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing comes after what is here: either it is whole, or the file at the address has changed.
        if _range(error.headers)[1] == have:
            return have
        partial.unlink()
        raise
    with answer:
        start, total = _range(answer.headers) if answer.status == 206 else (0, _length(answer.headers))
        if start not in (0, have):
            raise OSError(f"asked for the bytes from {have} on, got those from {start} on")
        with (
            partial.open("ab" if start else "wb") as stream,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=partial.stem, disable=None) as bar,
        ):
            while chunk := answer.read(CHUNK):
                if stream.tell() + len(chunk) > largest:
                    stream.truncate(0)
                    raise PokefaError(f"{url} has more than the {largest} bytes expected: it is not the pinned file")
                stream.write(chunk)
                bar.update(len(chunk))
    return size if size is not None else total


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _range(headers: Message) -> tuple[int, int | None]:
    """Return (first byte, full size) of a Content-Range, as `bytes 100-199/200` or `bytes */200`, or (-1, None)."""
    match = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)\Z", headers.get("Content-Range", ""))
    if match is None:
        return -1, None
    return int(match[1] or 0), int(match[2]) if match[2] != "*" else None
