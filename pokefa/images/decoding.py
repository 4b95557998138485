"""Decoding untrusted images in processes that can be ended: `in_decoder(open_image, path)`.

A decoder is a small process with Pillow and little else. It makes one call after another and returns the results. Each
call has a limit of CPU time, which the kernel enforces (ITIMER_PROF), and of memory (RLIMIT_DATA on Linux; elsewhere a
thread checks the process's memory). A call over its limit ends the decoder, and its image gets an ImageError:
`decode_timeout` or `decode_memory`, or `decode_crash` if a library crashed. Other calls are not affected, and the next
one gets a new decoder.

Small images are decoded at once, one per core. A large image first claims its memory from the `Budget`, and waits for
it without occupying a decoder. A slow call gives its turn to another, so two hostile images do not delay thirty good
ones.

The decoder imports the function, so it must be in a module that imports little, and not in a script.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from pokefa.errors import ImageError, Interrupted
from pokefa.images import files as images
from pokefa.images.decoder import Call, Reply
from pokefa.images.decoder_process import Decoder, Died
from pokefa.images.memory import SMALL_BYTES, Budget
from pokefa.images.structure import Caps

# An image of 100 million pixels takes 1 to 4 seconds in any format.
SECONDS = 20.0
# A call is repeated if its decoder is killed from outside, for example by the system when memory runs out.
TRIES = 2

# A retry with higher limits or more memory may succeed.
DECODER_SLUGS = ("decode_timeout", "decode_memory", "decode_crash")

# A library also reports these errors when it cannot allocate memory.
_PERHAPS_MEMORY = ("truncated", "decode_crash")

LOOK_S = 0.2

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """The limits of decoding an image.

    Args:
        seconds: CPU time.
        memory: bytes for all large images together; None = half of the machine's memory.
        caps: caps on the parts of a file.
    """

    seconds: float = SECONDS
    memory: int | None = None
    caps: Caps = field(default_factory=Caps)


class Decoders:
    """Decoders, started on demand; threads may share them.

    Args:
        at_once: how many work at once, not counting slow ones; None = one per core.
        budget: the budget for large images; None = that of `limits`.
    """

    def __init__(self, limits: Limits = Limits(), at_once: int | None = None, budget: Budget | None = None) -> None:
        from pokefa.machine import available_cores

        self._limits = limits
        self._budget = budget or Budget(limits.memory)
        self._turns = threading.Semaphore(at_once or available_cores())
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []
        self._busy: set[Decoder] = set()
        self._closed = False

    def call(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **named: Parameters.kwargs
    ) -> Result:
        """Return what the function returns, or raise what it raises.

        Raises:
            ImageError: `decode_timeout`, `decode_memory` or `decode_crash`.
            Interrupted: `close` was called in the meantime.
            RunError: no decoder can start.
        """
        limits = self._limits
        reply = self._make(Call(function, args, named, limits.seconds, SMALL_BYTES, True, limits.caps))
        if (needed := reply.needed) is not None:
            with self._budget.claim(needed, lambda: self._closed) as given:
                reply = self._make(Call(function, args, named, limits.seconds, given, False, limits.caps))
            if given < needed and isinstance(reply.error, ImageError) and reply.error.slug in _PERHAPS_MEMORY:
                reply = Reply(error=ImageError("decode_memory", f"decoding needs more than {given >> 20} MB of memory"))
        if reply.error is not None:
            raise reply.error
        return reply.result

    def close(self) -> None:
        """End all decoders; calls in progress raise Interrupted."""
        with self._lock:
            self._closed = True
            for decoder in self._busy:
                decoder.process.kill()  # the waiting thread ends it
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.end()

    def _make(self, call: Call) -> Reply:
        """Make a call, and repeat it if its decoder is killed from outside."""
        for _ in range(TRIES):
            try:
                return self._try(call)
            except Died as error:
                self._check_open()
                died = error
            if died.code != -signal.SIGKILL:
                break
        return Reply(error=died.as_image_error(call))

    def _try(self, call: Call) -> Reply:
        turn = _Turn(self._turns, self._check_open)
        try:
            decoder = self._lend()
            try:
                self._check_open()
                return decoder.ask(call, turn.end)
            finally:
                self._take_back(decoder)
        finally:
            turn.end()

    def _lend(self) -> Decoder:
        with self._lock:
            while self._idle:
                decoder = self._idle.pop()
                if decoder.process.poll() is None:
                    self._busy.add(decoder)
                    return decoder
        decoder = Decoder()
        with self._lock:
            self._busy.add(decoder)
        return decoder

    def _take_back(self, decoder: Decoder) -> None:
        with self._lock:
            self._busy.discard(decoder)
            if not (decoder.is_spent or self._closed):
                self._idle.append(decoder)
                return
        decoder.end()

    def _check_open(self) -> None:
        if self._closed:
            raise Interrupted("interrupted while decoding an image")


class _Turn:
    """One turn of a semaphore, given back once, at the end or earlier."""

    def __init__(self, turns: threading.Semaphore, check: Callable[[], None]) -> None:
        check()
        while not turns.acquire(timeout=LOOK_S):
            check()
        self._turns: threading.Semaphore | None = turns

    def end(self) -> None:
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.release()


# -- the decoders of this process -------------------------------------------------------------------------------------

_own: Decoders | None = None
_own_limits: tuple[Limits, int | None] = Limits(), None
_own_lock = threading.Lock()


def in_decoder(function: Callable[Parameters, Result], *args: Parameters.args, **named: Parameters.kwargs) -> Result:
    """Call a function in one of this process's decoders: see `Decoders.call`."""
    global _own
    with _own_lock:
        if _own is None:
            _own = Decoders(*_own_limits)
        decoders = _own
    return decoders.call(function, *args, **named)


def readable(path: Path, max_bytes: int = images.MAX_BYTES) -> Path | bytes:
    """Return what a decoder can read: a path, or the bytes of an object in object storage, whose keys it lacks.

    Raises:
        ImageError: `missing_file`, `empty_file` or `too_many_bytes`, for object storage only.
    """
    return path if isinstance(path, Path) else images.read_file(path, max_bytes)


def use_limits(limits: Limits, at_once: int | None = None) -> None:
    """Set the limits of this process's decoders from now on; `at_once` as for `Decoders`."""
    global _own_limits
    end_decoders()
    _own_limits = limits, at_once
    images.caps = limits.caps  # for headers that are read in this process


def limits_in_use() -> Limits:
    """Return the limits of this process's decoders, for other processes of the same run."""
    return _own_limits[0]


def end_decoders() -> None:
    """End this process's decoders; calls in progress raise Interrupted, and a later call starts new ones."""
    global _own
    with _own_lock:
        before, _own = _own, None
    if before is not None:
        before.close()


atexit.register(end_decoders)
