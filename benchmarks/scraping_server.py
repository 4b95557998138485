"""A server of generated photographs on 16 loopback addresses, with slow answers and fast transfers. Linux.

`/large/7.jpg` is a JPEG of about 500 kB, `/small/7.jpg` one of about 30 kB; any number works. A few dozen images are
generated once; a comment segment with the number makes every file unique, with its own MD5.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ADDRESSES = tuple(f"127.0.0.{last}" for last in range(2, 18))
PICTURES = 32  # more would only cost time and memory
# Width, height and grain; the grain determines how well the image compresses.
SIZES = {"large": (1600, 1200, 8.0), "small": (400, 300, 5.0)}
QUALITY = 85
JPEG_START = 2  # bytes of the marker that begins a JPEG; a comment may follow it


def make_picture(seed: int, width: int, height: int, grain: float) -> bytes:
    """Return a JPEG with the cost of a photograph of its size: soft shapes at three scales, and grain."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(seed)
    pixels = 128 + np.tile(chance.normal(0, grain, (128, 128, 1)), (height // 128 + 1, width // 128 + 1, 3))
    pixels = pixels[:height, :width].astype(np.float32)
    for cells, contrast in ((4, 60), (16, 30), (64, 15)):
        shapes = chance.normal(128, contrast, (cells, cells, 3)).clip(0, 255).astype(np.uint8)
        pixels += (
            np.asarray(Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128
        )
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def make_pictures(folder: Path) -> None:
    """Write the images of both sizes to `folder`/large and `folder`/small."""
    for name, (width, height, grain) in SIZES.items():
        (folder / name).mkdir(parents=True)
        for seed in range(PICTURES):
            (folder / name / f"{seed:02d}.jpg").write_bytes(make_picture(seed, width, height, grain))


def read_pictures(folder: Path, size: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / size).iterdir())]


def addresses(port: int, size: str, count: int) -> Iterator[str]:
    """Yield the addresses of `count` images, alternating between hosts."""
    for number in range(count):
        yield f"http://{ADDRESSES[number % len(ADDRESSES)]}:{port}/{size}/{number}.jpg"


class Answers(asyncio.Protocol):
    """One connection, kept open until the client closes it or sends `Connection: close`."""

    def __init__(self, pictures: dict[str, list[bytes]], latency: float) -> None:
        self.pictures = pictures
        self.latency = latency
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # Otherwise the end of a small answer waits 40 ms for the client to acknowledge its beginning.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            request, _, self.received = self.received.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(self.latency, self.answer, request)

    def answer(self, request: bytes) -> None:
        if self.transport.is_closing():
            return
        _, size, name = request.split(b" ", 2)[1].decode().split("/")
        number = int(name.removesuffix(".jpg"))
        picture = self.pictures[size][number % PICTURES]
        text = b"number %d" % number
        comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (
            len(picture) + len(comment)
        )
        self.transport.write(head + picture[:JPEG_START] + comment)
        self.transport.write(memoryview(picture)[JPEG_START:])
        if b"\r\nconnection: close" in request.lower():
            self.transport.close()


async def serve(folder: Path, latency: float) -> None:
    """Serve until the process ends; the first line of stdout is a JSON object with the port."""
    pictures = {size: read_pictures(folder, size) for size in SIZES}
    port = 0
    for address in ADDRESSES:
        listener = socket.create_server((address, port), backlog=1024)
        port = listener.getsockname()[1]
        await asyncio.get_running_loop().create_server(lambda: Answers(pictures, latency), sock=listener, backlog=1024)
    print(json.dumps({"port": port}), flush=True)
    await asyncio.Event().wait()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the images; created with them if missing")
    parser.add_argument("--latency", type=float, default=0.1, metavar="S", help="seconds before each answer")
    args = parser.parse_args(argv)
    if not args.folder.exists():
        make_pictures(args.folder)
    try:
        asyncio.run(serve(args.folder, args.latency))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
