"""Model files: found in the cache or downloaded once, and checked against a pinned SHA-256 before use."""

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
    """A file to download: its name in the cache, its URL, and its expected size and SHA-256."""

    name: str
    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Trust:
    """The user's permissions for a model file that is not the pinned one.

    Args:
        unpinned: it may run in a process that cannot write.
        unconfined: it may run with all of the user's rights.
    """

    unpinned: bool = False
    unconfined: bool = False


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name without folders, its largest size in bytes, and its SHA-256 if pinned."""

    name: str
    largest: int
    sha256: str | None = None


@dataclass(frozen=True)
class ModelArchive:
    """A zip to download, without a pinned SHA-256 of its own; that of its main member is pinned.

    Args:
        name: its folder in the cache.
        largest: the largest size of the zip in bytes.
        members: the files to extract, from any folder of the zip; the first is pinned.
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

    An interrupted download is resumed. The file gets its name only after its SHA-256 is checked, and under a lock: if
    two processes start at once, one downloads for both. A cached file is checked each time, because a manual copy may
    be incomplete. A wrong file is not removed, because others may share the cache.

    Args:
        ways_out: what a user can do if the URL cannot be reached; ends the error message.

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
    """Check that a model is in the cache or that its URL answers, without downloading it.

    Raises:
        PokefaError: neither is true.
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
    """Return the folder of an archive's members, downloading and unpacking it unless the cache has it.

    Downloads are resumed and locked as in `fetch`. The folder gets its name only after every member is complete and
    the pinned ones are checked. Members get the names in `archive`, never names from the zip.

    Raises:
        PokefaError: the archive cannot be downloaded, or lacks a member.
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
        what: the file and why it is not the pinned one; begins the error message.

    Raises:
        InputError: the user does not trust it, or this system cannot confine it.
    """
    if not trust.unpinned:
        raise InputError(
            f"{what}; a model file is a program: if you trust its author, add --trust-model-file to run it in a "
            "process that cannot write"
        )
    if trust.unconfined:
        log.warning("%s: it runs with all of your rights because of --unconfined-model-file", what)
        return False
    if not can_confine():
        raise InputError(
            f"{what}, and this system cannot keep it from writing (which needs Landlock, in Linux 5.13 or newer): add "
            "--unconfined-model-file to run it with all of your rights"
        )
    log.warning("%s: it runs in a process that cannot write, read your files or open connections", what)
    return True


def unpinned_file(path: Path, found: str, pinned: str) -> str:
    """Return the text for `check_trust` about a file with another SHA-256."""
    return f"{path} is not the pinned model file (its SHA-256 is {found}, expected {pinned})"


def check_file(path: Path, sha256: str) -> None:
    """Check a file against its pinned SHA-256.

    Raises:
        InputError: it is missing or has another SHA-256.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: name an existing model file")
    found = sha256_of(path)
    if found != sha256:
        raise InputError(f"{path} is not the pinned file: its SHA-256 is {found}, expected {sha256}")


def _check_cached(path: Path, model: ModelFile, ways_out: str) -> None:
    """Check a cached file, by its size first, which needs no reading.

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
                raise ValueError(f"it has {len(found)} files called {member.name}")
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
    """Download to `partial`, resuming after its present content.

    Args:
        size: the full size, if known; else the server's.
        largest: the largest size in bytes.
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
            problem = f"got {have} of {total} bytes"
            if have > total:
                partial.unlink()
        except (OSError, http.client.HTTPException) as error:
            problem = first_line(error)
            if _is_final(error, came=failures > 0 or before > 0):
                break
        log.warning("%s: %s", url, problem)
        # A large file over a bad connection may take many attempts, as long as each makes progress.
        failures = 1 if _size_of(partial) >= before + CHUNK else failures + 1
    raise PokefaError(f"cannot download {url} ({problem}); {ways_out}")


def _is_final(error: Exception, *, came: bool) -> bool:
    """Tell whether a retry is useless: the file does not exist, or the first attempt reached no server."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (401, 403, 404, 410)
    return isinstance(error, urllib.error.URLError) and not came


def _append_rest(url: str, partial: Path, size: int | None, largest: int) -> int | None:
    """Append the missing bytes, as far as they arrive; return the full size, or None if the server does not send it.

    Raises:
        OSError, HTTPException: the connection failed; `partial` has the bytes received.
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
        # There is nothing after the present bytes: the file is complete, or the one at the URL has changed.
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
    """Return (first byte, full size) of a Content-Range such as `bytes 100-199/200` or `bytes */200`, or (-1, None)."""
    match = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)\Z", headers.get("Content-Range", ""))
    if match is None:
        return -1, None
    return int(match[1] or 0), int(match[2]) if match[2] != "*" else None
