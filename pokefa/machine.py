"""Checks of what the system allows: address space, open files, cores, and paths that a user names."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from pokefa.errors import InputError, PokefaError

# With less, Polars cannot start its threads, and aborts, panics or hangs: observed at 1.0 GB on two cores.
LEAST_BYTES = 1_400_000_000
BYTES_PER_CORE = 50_000_000

# Standard streams, the ledger's lock, the journal, a table, the answer store and its journal, and some spare.
FILES_OF_ITS_OWN = 14


def check_address_space() -> None:
    """Check that `ulimit -v` leaves enough address space to start.

    Raises:
        PokefaError: it does not.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    least = LEAST_BYTES + BYTES_PER_CORE * (os.cpu_count() or 1)
    if limit != resource.RLIM_INFINITY and limit < least:
        raise PokefaError(
            f"this process needs {least / 1e9:.1f} GB of address space, and its limit is {limit / 1e9:.1f} GB: raise "
            f"the limit (ulimit -v {least // 1024}) or remove it"
        )


def check_path(what: str, path: Path) -> None:
    """Check that the system accepts a path, which need not exist.

    Args:
        what: the flag or variable that names it.

    Raises:
        InputError: it is too long, invalid, or leads through a file or an inaccessible folder.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{what} {path} cannot be used ({problem}): name another path") from None


def most_at_once(wanted: int, files_each: int) -> int:
    """Return how many things, up to `wanted` and at least 1, can be done at once with so many open files each."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (limit - max(FILES_OF_ITS_OWN, open_files())) // files_each))


def open_files() -> int:
    """Return the number of files that this process has open; 0 if the system does not report it."""
    folder = Path("/dev/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def available_cores() -> int:
    """Return the number of cores that this process may use, which a container can limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
