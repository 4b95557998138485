"""Decoding what strangers made, in processes that can be ended: `in_decoder(open_image, path)`.

A decoder is a small process with Pillow and little else in it. It makes one call after the other and sends back what
the function returned. Each call has a limit of processor time, which the kernel keeps (ITIMER_PROF), and of memory
(RLIMIT_DATA on Linux; elsewhere a thread looks at what the process takes). A call over its limit ends the decoder, and
its image becomes an ImageError: `decode_timeout` or `decode_memory`, or `decode_crash` where a library fell over. Other
calls notice nothing, and the next one gets a new decoder.

Small images are decoded as they come, one for each core. A large one has its memory from the `Budget` first, and waits
for it without keeping a decoder. A call that takes long gives its turn to another: two hostile images do not hold up
thirty good ones.

The function is imported in the decoder. So it stands in a module that imports little, and not in a script.
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

# Images of 100 million pixels take 1 to 4 seconds, of any format.
SECONDS = 20.0
# Killed from outside, by the system for want of memory perhaps, an image has another try.
TRIES = 2

# Another try, with other limits or more memory, may succeed.
DECODER_SLUGS = ("decode_timeout", "decode_memory", "decode_crash")

# A library gives these errors too when it gets no memory.
_PERHAPS_MEMORY = ("truncated", "decode_crash")

LOOK_S = 0.2

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """What decoding an image may cost.

    Args:
        seconds: of processor time.
        memory: bytes for all large images together; None = half of what the machine has.
        caps: on the parts of a file.
    """

    seconds: float = SECONDS
    memory: int | None = None
    caps: Caps = field(default_factory=Caps)


class Decoders:
    """Decoders, started as they are needed; threads may share them.

    Args:
        at_once: how many are at work, apart from those that take long; None = one for each core.
        budget: for large images; None = that of `limits`.
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
            Interrupted: `close` was called meanwhile.
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
        """End all decoders; calls that are under way raise Interrupted."""
        with self._lock:
            self._closed = True
            for decoder in self._busy:
                decoder.process.kill()  # whoever waits for it ends it
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.end()

    def _make(self, call: Call) -> Reply:
        """Make a call; one whose decoder is killed from outside is made again."""
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
            raise Interrupted("interrupted while an image was decoded")


class _Turn:
    """One of the turns of a semaphore, given back once, at the end or before."""

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
    """Return what a decoder can read: a path, or the bytes of what lies on object storage, whose keys it lacks.

    Raises:
        ImageError: `missing_file`, `empty_file` or `too_many_bytes`, of what lies on object storage.
    """
    return path if isinstance(path, Path) else images.read_file(path, max_bytes)


def use_limits(limits: Limits, at_once: int | None = None) -> None:
    """Have this process's decoders keep to these limits from now on; `at_once` as for `Decoders`."""
    global _own_limits
    end_decoders()
    _own_limits = limits, at_once
    images.caps = limits.caps  # for headers that are read in this process


def limits_in_use() -> Limits:
    """Return the limits of this process's decoders, for other processes of the same run."""
    return _own_limits[0]


def end_decoders() -> None:
    """End this process's decoders; what is under way raises Interrupted, and a later call starts new ones."""
    global _own
    with _own_lock:
        before, _own = _own, None
    if before is not None:
        before.close()


atexit.register(end_decoders)
