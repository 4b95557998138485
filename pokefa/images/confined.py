"""A model in a process of its own, which cannot write to any file, read the user's or open a connection.

A model file that nobody has checked is a program: TorchScript can write files, and what PaddleX reads beside a network
holds expressions that it evaluates. Such a file is loaded by a child that has given up its rights before (Landlock) and
has none of our secrets in its environment. What comes back from it is numbers of known types, never pickled objects:

    frame = length of the header, 8 bytes, big-endian; header, JSON; the bytes of its arrays, one after the other
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

Array = Any  # numpy.ndarray, which only stages with models have
Arrays = list[Array]
Loader = Callable[..., tuple[Callable[[Arrays], Arrays], dict[str, Any]]]

DTYPES = ("|u1", "<f4", "<f8")
MOST_HEADER_BYTES = 2**20
MOST_DIMENSIONS = 5
MOST_ARRAYS = 10_000
MOST_BYTES = 2**32
MOST_ERROR = 300

# Deaths in a row after which the model itself is at fault, and not the images.
MOST_DEATHS_IN_A_ROW = 5

# What libraries and drivers go by. No key is among it, and no address of a service.
KEPT_VARIABLES = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH")
KEPT_PREFIXES = (
    "LC_", "CUDA", "NVIDIA", "ROCR_", "HIP_", "HSA_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH_", "PYTORCH_", "TF_",
    "XLA_", "KERAS_", "ORT_", "FLAGS_", "PADDLE_",
)  # fmt: skip

DIE_WITH_PARENT = 1  # of prctl
NOWHERE = "/nonexistent"


def can_confine() -> bool:
    """Tell whether this system can keep a process from writing."""
    return landlock_version() > 0


class ConfinedModel:
    """A model in a confined child. Threads share it, one call at a time; the child ends with this object.

    Args:
        load: `module:function`. The child calls it with `arguments`, and gets a function of arrays, and facts about it.
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
        """Return what the model makes of the arrays.

        Raises:
            PokefaError: it failed, or its process died.
            RunError: it did nothing but die.
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
            raise PokefaError(f"{problem}, of the process that runs the model file") from None
        if "error" in answer:
            raise PokefaError(plain(answer["error"]))
        return answer, found


def child_variables() -> dict[str, str]:
    """Return the environment of a child: no secrets, and this process's own code and libraries."""
    kept = {
        name: value for name, value in os.environ.items() if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
    }
    return kept | {
        "PYTHONPATH": os.pathsep.join(code_folders()),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": NOWHERE,  # what a library would look for there could not be read
    }


def code_folders() -> list[str]:
    """Return the folders and archives that modules come from, as absolute paths."""
    return list(dict.fromkeys(str(Path(entry).absolute()) for entry in sys.path if entry))


def plain(text: object) -> str:
    """Return a text from the child as one short line of printable characters."""
    line = "".join(sign if sign.isprintable() else " " for sign in str(text))
    return " ".join(line.split())[:MOST_ERROR] or "no reason given"


def send(stream: IO[bytes], header: Mapping[str, Any], arrays: Sequence[Array]) -> None:
    """Write one frame.

    Raises:
        OSError: the other side is gone.
    """
    import numpy as np  # type: ignore[import-not-found,unused-ignore]

    shapes = [{"dtype": array.dtype.newbyteorder("<").str, "shape": list(array.shape)} for array in arrays]
    data = json.dumps({**header, "arrays": shapes}).encode()
    stream.write(len(data).to_bytes(8, "big") + data)
    for array in arrays:
        stream.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], Arrays]:
    """Read one frame, and believe nothing of it.

    Raises:
        EOFError: the other side is gone.
        ValueError: it is no frame.
    """
    import numpy as np  # type: ignore[import-not-found,unused-ignore]

    size = int.from_bytes(_read(stream, 8), "big")
    if size > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {size} bytes")
    try:
        header = json.loads(_read(stream, size))
    except RecursionError:
        raise ValueError("a header too deep") from None
    described = header.get("arrays", []) if isinstance(header, dict) else None
    if not isinstance(described, list) or len(described) > MOST_ARRAYS or not all(map(_is_described, described)):
        raise ValueError("a header of another shape")
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
    """Confine this process, load the model that the first frame names, and answer the frames that follow."""
    die_with_parent()
    requests, answers = own_streams()
    size = int.from_bytes(_read(requests, 8), "big")
    spec = json.loads(_read(requests, size))
    try:
        confine([*spec["readable"], sys.prefix, sys.base_prefix, *code_folders(), *library_folders()])
    except OSError as error:
        _send_error(answers, f"cannot confine the process that runs the model file: {error.strerror}")
        return
    tempfile.tempdir = NOWHERE  # libraries ask for its name when they are imported; it would not be found
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
    """Return stdin and stdout for this process alone: what a library or the model prints goes nowhere."""
    streams = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return streams


def die_with_parent() -> None:
    """Have Linux end this process with the thread that started it; elsewhere it ends when its stdin does."""
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
