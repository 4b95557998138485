"""Many small pictures for one page, made on all cores."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from pokefa.engine import available_cores
from pokefa.files import BadPathError, locate
from pokefa.images import ImageError, check_image, flatten, open_image, read_file

# Enough to tell a drawing by, in 2 to 5 kB: a page of 5,000 stays between 15 and 30 MB. For details the page opens the
# file itself.
SIDE = 176
QUALITY = 50

# A JPEG is decoded at a fraction of its size, as long as this many of its pixels go into one of the small picture.
LEAST_OVERSAMPLING = 2

# What the page tells apart from base64: that there is no picture, and why.
PROBLEM = "!"


def small_picture(root: Path, path: str) -> str:
    """Return an image as the base64 of an RGB WebP of at most SIDE pixels, or `!` and why there is none."""
    try:
        data = read_file(locate(root, path))
        facts = check_image(data, decode=False)
        longer = max(facts.width, facts.height)
        reduce = next((by for by in (8, 4, 2) if longer // by >= LEAST_OVERSAMPLING * SIDE), 1)
        image = flatten(open_image(data, reduce=reduce))
    except (BadPathError, ImageError) as error:
        return PROBLEM + error.slug
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def small_pictures(root: Path, paths: Sequence[str]) -> list[str]:
    """Return `small_picture` of each file, in the same order; a bar on a terminal shows how far it has come."""
    # Pillow leaves the interpreter to others while it decodes, scales and encodes.
    threads = ThreadPoolExecutor(available_cores())
    try:
        made = threads.map(partial(small_picture, root), paths)
        return list(tqdm(made, total=len(paths), unit="picture", leave=False, disable=None))
    finally:
        threads.shutdown(cancel_futures=True)
