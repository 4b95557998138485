"""Permanently giving up rights with Linux's Landlock, by system calls (docs.kernel.org/userspace-api/landlock.html).

A confined thread, and every thread and process that it starts, cannot create, change, rename or remove files, read
files outside the named folders, start another program, or open a TCP connection. This applies to root too. Open files
stay open. Standard library only, so that no import starts a thread first.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on x86 and ARM
GET_VERSION = 1
PATH_BENEATH = 1
SET_NO_NEW_PRIVILEGES = 38  # of prctl

EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = (1 << bit for bit in range(4))
CHANGE_FOLDERS = sum(1 << bit for bit in range(4, 13))  # remove and make files, folders, links, sockets, devices
REFER, TRUNCATE = 1 << 13, 1 << 14  # since versions 2 and 3
BIND_AND_CONNECT = 0b11  # TCP, since version 4
ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # those of other processes, since version 6

# Devices in /dev that libraries write to; they store no data.
DEVICES = ("null", "zero", "nvidia*", "nvidia-caps/*", "dri/*", "kfd", "dxg")

# System paths that an interpreter and its libraries read; none contains users' files.
SYSTEM = (
    "/usr", "/lib", "/lib64", "/opt", "/nix/store", "/run/opengl-driver", "/sys", "/dev", "/proc/self", "/proc/sys",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/driver", "/etc/ld.so.cache",
    "/etc/localtime", "/etc/passwd", "/etc/nsswitch.conf", "/etc/OpenCL", "/etc/vulkan",
)  # fmt: skip


def landlock_version() -> int:
    """Return the version of Landlock that the kernel offers this process; 0 if none."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return _call(CREATE_RULESET, None, 0, GET_VERSION)
    except OSError:
        return 0


def confine(readable: Iterable[str]) -> None:
    """Confine this process.

    Args:
        readable: files and folders that it may read in addition to SYSTEM; missing ones are skipped.

    Raises:
        OSError: the kernel does not support it, or the process has other threads, which would not be confined.
    """
    version = landlock_version()
    if version < 1:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock")
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise OSError(errno.EBUSY, "other threads are already running")
    change = WRITE_FILE | (TRUNCATE if version >= 3 else 0)
    files = EXECUTE | READ_FILE | READ_FOLDER | CHANGE_FOLDERS | change | (REFER if version >= 2 else 0)
    handled = [files]
    if version >= 4:
        handled.append(BIND_AND_CONNECT)
    if version >= 6:
        handled.append(ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(handled)}Q", *handled)
    ruleset = _call(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in (*SYSTEM, *readable):
            _allow(ruleset, path, READ_FILE | READ_FOLDER)
        for device in (path for pattern in DEVICES for path in Path("/dev").glob(pattern)):
            if device.is_char_device():
                _allow(ruleset, str(device), READ_FILE | change)
        if ctypes.CDLL(None, use_errno=True).prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "privileges cannot be given up")
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            access &= ~READ_FOLDER
        _call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", access, handle), 0)
    finally:
        os.close(handle)


def _call(number: int, *arguments: bytes | int | None) -> int:
    """Make a system call, and return its result.

    Raises:
        OSError: it failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # ctypes passes variadic integers as 32 bits by default.
    wide = [ctypes.c_long(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *wide))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
