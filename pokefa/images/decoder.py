"""The code of a decoder process, which calls functions within limits for `pokefa.images.decoding`."""

from __future__ import annotations

import math
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from pokefa.errors import ImageError, PokefaError
from pokefa.images import files as images
from pokefa.images import memory
from pokefa.images.memory import NeedsMemory
from pokefa.images.structure import Caps

# What any call may take in addition to its image: the resized image, the encoded file.
ROOM_BYTES = 256 * 2**20

# The exit code of a decoder that exceeds its memory limit, on systems whose kernel does not enforce one.
OUT_OF_MEMORY = 77
LOOK_S = 0.1


@dataclass(frozen=True)
class Call:
    """A function to call, and its limits.

    Args:
        seconds: CPU time.
        allowance: bytes that the image may take.
        asks: an image that needs more is not decoded, and `Reply.needed` gives the amount.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    named: Mapping[str, Any]
    seconds: float
    allowance: int
    asks: bool
    caps: Caps


@dataclass(frozen=True)
class Reply:
    """What a call returned, what it raised, or the bytes that it needs.

    Args:
        picture: mode, size and format, if the result is an image. Its pixels follow separately, because pickling an
            image takes as long as decoding it.
    """

    result: Any = None
    picture: tuple[str, tuple[int, int], str | None] | None = None
    error: Exception | None = None
    needed: int | None = None


# The attribute that `loads_first` sets.
_LOADS = "pokefa_loads_first"

Function = TypeVar("Function", bound=Callable[..., Any])


def loads_first(load_libraries: Callable[[], None]) -> Callable[[Function], Function]:
    """Mark a function whose libraries a decoder loads before the limits of a call apply."""

    def mark(function: Function) -> Function:
        setattr(function, _LOADS, load_libraries)
        return function

    return mark


_LENGTHS = struct.Struct("=QQ")
# Most messages are shorter, and arrive in one piece.
_PIECE = 2**16


def send(stream: socket.socket, message: object, pixels: bytes | None = None) -> None:
    """Send a pickled object, followed by the pixels of an image."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.sendall(_LENGTHS.pack(len(data), len(pixels or b"")) + data)
    if pixels:
        stream.sendall(pixels)


def receive(stream: socket.socket, on_wait: Callable[[], None] | None = None) -> tuple[memoryview, memoryview]:
    """Return the pickled bytes from `send`, and the pixels.

    Args:
        on_wait: called after each socket timeout (SO_RCVTIMEO) without data; it may raise.

    Raises:
        EOFError: the other end is closed.
    """

    def read(most: memoryview) -> int:
        while True:
            try:
                count = stream.recv_into(most)
            except BlockingIOError:
                if on_wait is not None:
                    on_wait()
                continue
            if not count:
                raise EOFError
            return count

    # The sender waits for an answer, so no data follows a message and its pixels.
    first = memoryview(bytearray(_PIECE))
    there = 0
    while there < _LENGTHS.size:
        there += read(first[there:])
    length, more = _LENGTHS.unpack_from(first)
    there -= _LENGTHS.size
    data = memoryview(bytearray(length + more))
    data[:there] = first[_LENGTHS.size : _LENGTHS.size + there]
    while there < len(data):
        there += read(data[there:])
    return data[:length], data[length:]


def serve(descriptor: int) -> None:
    """Make the calls that arrive through a socket, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides when to stop
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # codecs repeat there what the reply says
    threading.Thread(target=_watch, daemon=True).start()
    with socket.socket(fileno=descriptor) as stream:
        while True:
            try:
                message, _ = receive(stream)
                send(stream, *_answer(message))
            except (EOFError, OSError):
                return


def _answer(message: memoryview) -> tuple[Reply, bytes | None]:
    """Return the reply to a call, and the pixels of its result if that is an image."""
    try:
        call: Call = pickle.loads(message)
        message.release()
        images.caps = call.caps
        load_libraries = getattr(call.function, _LOADS, None)
        if load_libraries is not None:
            load_libraries()
        with _limits(call):
            result = call.function(*call.args, **call.named)
            if isinstance(result, Image.Image):
                return Reply(picture=(result.mode, result.size, result.format)), result.tobytes()
            return Reply(result), None
    except NeedsMemory as error:
        return Reply(needed=error.needed), None
    except MemoryError:
        return Reply(error=ImageError("decode_memory", "decoding needs more memory than is available")), None
    except PokefaError as error:
        return Reply(error=error), None
    except Exception as error:  # its class may not exist in the parent process
        return Reply(error=PokefaError(f"{type(error).__name__}: {' '.join(str(error).split())}")), None


@contextmanager
def _limits(call: Call) -> Iterator[None]:
    """Apply the limits of a call; the kernel ends this process when its CPU time is used up."""
    global _ceiling
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    taken = _data_bytes()
    if taken is None:
        _ceiling = _peak_bytes() + call.allowance + ROOM_BYTES
    elif hard == resource.RLIM_INFINITY or hard > taken + call.allowance + ROOM_BYTES:
        resource.setrlimit(resource.RLIMIT_DATA, (taken + call.allowance + ROOM_BYTES, hard))
    memory.allowance = call.allowance if call.asks else None
    signal.setitimer(signal.ITIMER_PROF, call.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        memory.allowance = None
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        _ceiling = math.inf


# Bytes at which this process ends itself, if the kernel does not limit it.
_ceiling: float = math.inf


def _watch() -> None:
    """End this process when its parent has ended or its memory exceeds the limit."""
    wait = None if _data_bytes() is not None else LOOK_S
    while not select.select([sys.stdin], [], [], wait)[0]:
        if _peak_bytes() > _ceiling:
            os._exit(OUT_OF_MEMORY)
    os._exit(0)


def _data_bytes() -> int | None:
    """Return the bytes that RLIMIT_DATA counts, or None if the system does not apply it to mapped memory."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as stream:  # noqa: PTH123 -- at every call
            return int(stream.read(256).split()[5]) * resource.getpagesize()
    except OSError:
        return None


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
