"""The parent's side of a decoder process: start, ask, end."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable

from PIL import Image

from pokefa.errors import ImageError, RunError
from pokefa.images.decoder import OUT_OF_MEMORY, Call, Reply, receive, send

# The limit is CPU time, because a busy machine is not the image's fault. A wall-clock limit ends a call that is stuck.
MOST_WAIT = 20  # times the limit
# A call that takes longer gives its turn to another.
PATIENCE_S = 1
# A decoder is one of many, and uses one core. It needs about the same memory for each image: without the last two,
# glibc returns and requests 4 MB each time, which costs as much as decoding 500 kB of JPEG.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "VIPS_CONCURRENCY": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
}
_START = "import sys; sys.path[:] = {}; from pokefa.images.decoder import serve; serve(int(sys.argv[1]))"


class Died(Exception):
    """A decoder ended in the middle of a call; `code` is its exit code, or minus the signal that ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def as_image_error(self, call: Call) -> ImageError:
        if self.code == -signal.SIGPROF:
            return ImageError("decode_timeout", f"not decoded within {call.seconds:g} seconds of CPU time")
        if self.code in (-signal.SIGKILL, OUT_OF_MEMORY):
            return ImageError("decode_memory", "the decoder was killed, most likely because memory ran out")
        how = signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"
        return ImageError("decode_crash", f"the decoder crashed ({how})")


class Decoder:
    """A decoder process and the connection to it.

    It runs in its own session, so that Ctrl-C in a terminal does not reach it. It ends when its stdin closes, with this
    process at the latest.
    """

    def __init__(self) -> None:
        try:
            self._stream, theirs = socket.socketpair()
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _START.format(repr(sys.path)), str(theirs.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    env={name: value for name, value in os.environ.items() if not name.endswith("_KEY")} | ENVIRONMENT,
                )
        except OSError as error:  # too few file descriptors, processes or memory: not the image's fault
            raise RunError(f"a decoder cannot start: {error.strerror}; raise this process's limit") from None
        # Python's own timeout would cost another system call and another wait for the interpreter.
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", PATIENCE_S, 0))
        self._has_answered = False
        self.is_spent = False

    def ask(self, call: Call, on_slow: Callable[[], None]) -> Reply:
        """Make a call and return the reply; `on_slow` is called if that takes over PATIENCE_S.

        Raises:
            Died: the decoder died during the call.
            RunError: the decoder did not start.
        """
        self.is_spent = True  # until the complete answer has arrived
        ends = time.monotonic() + MOST_WAIT * call.seconds

        def look() -> None:
            on_slow()
            if time.monotonic() > ends:
                raise Died(-signal.SIGPROF)

        try:
            send(self._stream, call)
            message, pixels = receive(self._stream, look)
            reply: Reply = pickle.loads(message)
            if reply.picture is not None:
                mode, size, form = reply.picture
                image = Image.frombytes(mode, size, pixels)
                image.format = form
                reply = Reply(image)
        except (EOFError, OSError):
            code = self.process.wait()
            if code > 0 and code != OUT_OF_MEMORY and not self._has_answered:
                raise RunError(f"a decoder cannot start (exit code {code}): see above, and run again") from None
            raise Died(code) from None
        self._has_answered = True
        self.is_spent = isinstance(reply.error, ImageError) and reply.error.slug == "decode_memory"
        return reply

    def end(self) -> None:
        self.process.kill()
        self._stream.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
