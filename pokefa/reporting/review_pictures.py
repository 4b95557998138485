"""Creates the small pictures of a page on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from pokefa.images.decoding import end_decoders
from pokefa.machine import available_cores
from pokefa.reporting.thumbnails import small_picture


def small_pictures(root: Path, paths: Sequence[str]) -> list[str]:
    """Return `small_picture` of each file, in the same order; show a progress bar on a terminal."""
    threads = ThreadPoolExecutor(available_cores())
    try:
        made = threads.map(partial(small_picture, root), paths)
        return list(tqdm(made, total=len(paths), unit="picture", leave=False, disable=None))
    except BaseException:
        end_decoders()  # the threads wait for them
        raise
    finally:
        threads.shutdown(cancel_futures=True)
