"""The comparisons of the scrape.py benchmark: simple downloaders, and the bounds.

Each function is called in its own process and returns the number of images it completed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scraping_server import read_pictures


def one_at_a_time(urls: Sequence[str], folder: Path) -> int:
    """Requests, one address after the other over persistent connections; each image is decoded and saved."""
    import requests
    from PIL import Image

    session = requests.Session()
    for number, url in enumerate(urls):
        answer = session.get(url, timeout=10)
        answer.raise_for_status()
        Image.open(io.BytesIO(answer.content)).load()
        (folder / f"{number}.jpg").write_bytes(answer.content)
    return len(urls)


def event_loop(urls: Sequence[str], folder: Path, concurrency: int) -> int:
    """aiohttp with many concurrent downloads in one thread: each image is decoded and saved between two downloads."""
    import asyncio

    import aiohttp
    from PIL import Image

    async def work(session: aiohttp.ClientSession, numbered: list[tuple[int, str]]) -> None:
        while numbered:
            number, url = numbered.pop()
            async with session.get(url) as answer:
                answer.raise_for_status()
                data = await answer.read()
            Image.open(io.BytesIO(data)).load()
            (folder / f"{number}.jpg").write_bytes(data)

    async def run() -> None:
        numbered = list(enumerate(urls))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
            await asyncio.gather(*(work(session, numbered) for _ in range(concurrency)))

    asyncio.run(run())
    return len(urls)


def decode(folder: Path, size: str, count: int) -> int:
    """Only decode, on all cores: no network, nothing saved."""
    import multiprocessing

    cores = os.cpu_count() or 1
    shares = [count * (core + 1) // cores - count * core // cores for core in range(cores)]
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return sum(pool.starmap(_decode_share, [(folder, size, share) for share in shares]))


def _decode_share(folder: Path, size: str, count: int) -> int:
    from PIL import Image

    pictures = read_pictures(folder, size)
    for number in range(count):
        Image.open(io.BytesIO(pictures[number % len(pictures)])).load()
    return count


def only_receive(urls: Sequence[str], connections: int) -> int:
    """Only receive, in threads over persistent connections: the limit of the server and the machine."""
    from concurrent.futures import ThreadPoolExecutor
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    def receive(mine: Sequence[str]) -> int:
        kept: dict[str, HTTPConnection] = {}
        buffer = bytearray(2**20)
        for url in mine:
            parts = urlsplit(url)
            connection = kept.setdefault(parts.netloc, HTTPConnection(parts.netloc, timeout=10))
            connection.request("GET", parts.path)
            answer = connection.getresponse()
            left = answer.length or 0
            while left:
                left -= answer.readinto(buffer)
        return len(mine)

    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(receive, [urls[first::connections] for first in range(connections)]))
