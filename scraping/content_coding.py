"""Bodies that a server compresses although the request forbids it, unpacked within the cap on bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scraping.utils import Refused

if TYPE_CHECKING:
    from urllib3.response import MultiDecoder

# Brotli and Zstandard need packages that are in the stage's requirements.
CODINGS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd"})
MOST_CODINGS = 5


class Body:
    """Collects the bytes of a response, chunk by chunk.

    Args:
        coding: the Content-Encoding headers, joined by commas; the last coding was applied last.
        max_bytes: cap on the body, both as sent and unpacked.

    Raises:
        Refused: `unsupported_encoding`: a coding is unknown, or there are too many.
    """

    def __init__(self, coding: str, max_bytes: int) -> None:
        codings = [name for part in coding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
        if not CODINGS.issuperset(codings) or len(codings) > MOST_CODINGS:
            raise Refused("unsupported_encoding", f"Content-Encoding: {coding}"[:200])
        self._decoder = decoder_of(codings) if codings else None
        self._max_bytes = max_bytes
        self._sent = 0
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        """Add the next bytes as sent.

        Raises:
            Refused: `too_many_bytes`, or `truncated` if they cannot be unpacked.
        """
        self._sent += len(chunk)
        if self._decoder is None:
            self._data += chunk
        else:
            self._unpack(self._decoder, chunk)
        if max(self._sent, len(self._data)) > self._max_bytes:
            raise Refused("too_many_bytes", f"over {self._max_bytes} bytes")

    def finish(self) -> bytes:
        """Return the body, unpacked.

        Raises:
            Refused: `truncated`: the compressed data end too early.
        """
        if self._decoder is not None:
            with _refusing_damage():
                self._data += self._decoder.flush()
        return bytes(self._data)

    def _unpack(self, decoder: MultiDecoder, chunk: bytes) -> None:
        """Unpack at most about one byte over the cap, whatever the chunk contains."""
        with _refusing_damage():
            while (room := self._max_bytes + 1 - len(self._data)) > 0:
                self._data += decoder.decompress(chunk, max_length=room)
                if not decoder.has_unconsumed_tail:
                    return
                chunk = b""


def decoder_of(codings: Sequence[str]) -> MultiDecoder:
    """Return the decoder of several codings; its library is imported only when needed, which is rare."""
    from urllib3.response import MultiDecoder

    return MultiDecoder(", ".join(codings))


@contextmanager
def _refusing_damage() -> Iterator[None]:
    """Turn the errors of all decoders into `truncated`."""
    from urllib3.exceptions import HTTPError
    from urllib3.response import BaseHTTPResponse

    errors: tuple[type[Exception], ...] = (HTTPError, *BaseHTTPResponse.DECODER_ERROR_CLASSES)
    try:
        yield
    except errors as error:
        raise Refused("truncated", f"the compressed data are damaged ({type(error).__name__})") from None
