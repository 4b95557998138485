"""Run Python as on a kernel without Landlock: `without_landlock.py ARGUMENT …`.

A seccomp filter lets the three system calls fail with ENOSYS, as a kernel does that has never heard of them.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

LOAD_NUMBER = (0x20, 0, 0, 0)
LESS_IS_ALLOWED = (0x35, 0, 2, 444)  # landlock_create_ruleset
MORE_IS_ALLOWED = (0x25, 1, 0, 446)  # landlock_restrict_self
NO_SUCH_CALL = (0x06, 0, 0, 0x0005_0000 | 38)
ALLOW = (0x06, 0, 0, 0x7FFF_0000)
FILTER = (LOAD_NUMBER, LESS_IS_ALLOWED, MORE_IS_ALLOWED, NO_SUCH_CALL, ALLOW)


def main() -> None:
    code = b"".join(struct.pack("=HBBI", *line) for line in FILTER)
    held = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(FILTER), ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
    assert libc.prctl(22, 2, ctypes.c_char_p(program)) == 0, os.strerror(ctypes.get_errno())
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
