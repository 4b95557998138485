"""A model in a separate process that cannot write files, read the user's files or open a connection.

An unchecked model file is a program: TorchScript can write files, and PaddleX evaluates expressions in a model's
configuration. A child process gives up its rights (Landlock), has no secrets in its environment, and then loads the
file. It returns arrays of known types, never pickled objects:

    frame = length of the header, 8 bytes, big-endian; header, JSON; the bytes of its arrays in order
    header = {"arrays": [{"dtype": "|u1", "shape": [2, 30, 40, 3]}, …], "facts": {…}} or {"error": "one line"}
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import IO, Any

from pokefa.errors import PokefaError, RunError
from pokefa.images.landlock import confine, landlock_version

Array = Any  # numpy.ndarray; NumPy is installed only for stages with models
Arrays = list[Array]
Loader = Callable[..., tuple[Callable[[Arrays], Arrays], dict[str, Any]]]

DTYPES = ("|u1", "<f4", "<f8")
MOST_HEADER_BYTES = 2**20
MOST_DIMENSIONS = 5
MOST_ARRAYS = 10_000
MOST_BYTES = 2**32
MOST_ERROR = 300

# After so many deaths in a row the model is at fault, not the images.
MOST_DEATHS_IN_A_ROW = 5

# Variables that libraries and drivers read; none contains a key or the URL of a service.
KEPT_VARIABLES = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH")
KEPT_PREFIXES = (
    "LC_", "CUDA", "NVIDIA", "ROCR_", "HIP_", "HSA_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH_", "PYTORCH_", "TF_",
    "XLA_", "KERAS_", "ORT_", "FLAGS_", "PADDLE_",
)  # fmt: skip

DIE_WITH_PARENT = 1  # of prctl
NOWHERE = "/nonexistent"


def can_confine() -> bool:
    """Tell whether this system can confine a process."""
    return landlock_version() > 0


class ConfinedModel:
    """A model in a confined child process, which ends with this object. Threads share it, one call at a time.

    Args:
        load: `module:function`. The child calls it with `arguments`; it returns a function of arrays, and facts.
        readable: the files and folders of the model.

    Raises:
        PokefaError: the model cannot be loaded, or the child cannot be confined.
    """

    def __init__(self, load: str, arguments: Mapping[str, Any], readable: Sequence[Path]) -> None:
        self._spec = {
            "load": load,
            "arguments": dict(arguments),
            "readable": [str(path.resolve()) for path in readable],
        }
        self._lock = threading.Lock()
        self._deaths = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.facts: dict[str, Any] = {}
        with self._lock:
            self._start()

    def __call__(self, *arrays: Array) -> Arrays:
        """Return the model's results for the arrays.

        Raises:
            PokefaError: it failed, or its process died.
            RunError: its process died too often in a row.
        """
        with self._lock:
            if self._process is None:
                self._start()
            found = self._exchange({}, arrays)[1]
            self._deaths = 0
            return found

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pokefa.images.confined"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=child_variables(),
        )
        self._process = process
        weakref.finalize(self, _end, process)
        self.facts = self._exchange(self._spec, ())[0].get("facts", {})

    def _exchange(self, header: Mapping[str, Any], arrays: Sequence[Array]) -> tuple[dict[str, Any], Arrays]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            send(process.stdin, header, arrays)
            answer, found = receive(process.stdout)
        except (OSError, EOFError, ValueError) as error:
            _end(process)
            self._process = None
            self._deaths += 1
            how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
            problem = f"model_process_died: {how}" if isinstance(error, OSError | EOFError) else f"bad_answer: {error}"
            if self._deaths >= MOST_DEATHS_IN_A_ROW:
                raise RunError(f"{problem}, {self._deaths} times in a row: name another model file") from None
            raise PokefaError(f"{problem}, in the process that runs the model file") from None
        if "error" in answer:
            raise PokefaError(plain(answer["error"]))
        return answer, found


def child_variables() -> dict[str, str]:
    """Return the environment variables of a child: no secrets, and the same code and libraries."""
    kept = {
        name: value for name, value in os.environ.items() if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
    }
    return kept | {
        "PYTHONPATH": os.pathsep.join(code_folders()),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": NOWHERE,  # nothing there could be read
    }


def code_folders() -> list[str]:
    """Return the folders and archives on the module path, as absolute paths."""
    return list(dict.fromkeys(str(Path(entry).absolute()) for entry in sys.path if entry))


def plain(text: object) -> str:
    """Return a text from the child as one short line of printable characters."""
    line = "".join(sign if sign.isprintable() else " " for sign in str(text))
    return " ".join(line.split())[:MOST_ERROR] or "no reason given"


def send(stream: IO[bytes], header: Mapping[str, Any], arrays: Sequence[Array]) -> None:
    """Write one frame.

    Raises:
        OSError: the other side has closed.
    """
    import numpy as np  # type: ignore[import-not-found,unused-ignore]

    shapes = [{"dtype": array.dtype.newbyteorder("<").str, "shape": list(array.shape)} for array in arrays]
    data = json.dumps({**header, "arrays": shapes}).encode()
    stream.write(len(data).to_bytes(8, "big") + data)
    for array in arrays:
        stream.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], Arrays]:
    """Read one frame, without trusting its content.

    Raises:
        EOFError: the other side has closed.
        ValueError: it is not a frame.
    """
    import numpy as np  # type: ignore[import-not-found,unused-ignore]

    size = int.from_bytes(_read(stream, 8), "big")
    if size > MOST_HEADER_BYTES:
        raise ValueError(f"the header has {size} bytes")
    try:
        header = json.loads(_read(stream, size))
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    described = header.get("arrays", []) if isinstance(header, dict) else None
    if not isinstance(described, list) or len(described) > MOST_ARRAYS or not all(map(_is_described, described)):
        raise ValueError("the header has another shape")
    sizes = [int(each["dtype"][-1]) * prod(each["shape"]) for each in described]
    if sum(sizes) > MOST_BYTES:
        raise ValueError(f"{sum(sizes)} bytes")
    arrays = [
        np.frombuffer(_read(stream, length), np.dtype(each["dtype"])).reshape(each["shape"])
        for each, length in zip(described, sizes, strict=True)
    ]
    return header, arrays


def _is_described(array: object) -> bool:
    if not isinstance(array, dict) or array.get("dtype") not in DTYPES:
        return False
    shape = array.get("shape")
    return (
        isinstance(shape, list)
        and len(shape) <= MOST_DIMENSIONS
        and all(type(length) is int and 0 <= length <= MOST_BYTES for length in shape)
    )


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the process ended")
    return data


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


# -- the child ----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Confine this process, load the model named in the first frame, and answer the following frames."""
    die_with_parent()
    requests, answers = own_streams()
    size = int.from_bytes(_read(requests, 8), "big")
    spec = json.loads(_read(requests, size))
    try:
        confine([*spec["readable"], sys.prefix, sys.base_prefix, *code_folders(), *library_folders()])
    except OSError as error:
        _send_error(answers, f"cannot confine the process that runs the model file: {error.strerror}")
        return
    tempfile.tempdir = NOWHERE  # libraries look it up on import, and would fail
    try:
        module, _, name = str(spec["load"]).partition(":")
        load: Loader = getattr(importlib.import_module(module), name)
        call, facts = load(**spec["arguments"])
        send(answers, {"facts": facts}, ())
    except Exception as error:
        _send_error(answers, _describe(error))
        return
    while True:
        try:
            _, arrays = receive(requests)
        except EOFError:
            return
        try:
            found = call(arrays)
        except Exception as error:
            _send_error(answers, _describe(error))
        else:
            send(answers, {}, found)


def own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Return private copies of stdin and stdout; output printed by a library or the model is discarded."""
    streams = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return streams


def die_with_parent() -> None:
    """Make Linux end this process with the thread that started it; elsewhere it ends when its stdin closes."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)


def library_folders() -> list[str]:
    return [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]


def _send_error(answers: IO[bytes], text: str) -> None:
    data = json.dumps({"error": plain(text)}).encode()
    answers.write(len(data).to_bytes(8, "big") + data)
    answers.flush()


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, PokefaError) else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    serve()
