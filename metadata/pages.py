"""Pages that stand in one file: templates filled in, and thumbnails as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pokefa.files import BadPathError, locate
from pokefa.images import ImageError, flatten, open_image

JPEG_QUALITY = 72

# A picture of this many pixels on its longer side shows colours and no content.
VEILED_SIDE = 8


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG; `uri` is empty where the file cannot be opened, and `problem` says why."""

    uri: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def thumbnail(root: Path, path: str, side: int, *, veiled: bool = False) -> Thumbnail:
    """Return the image at a path of the ledger as an RGB JPEG of at most `side` pixels in width and height.

    Args:
        veiled: reduce it to a few blocks of colour, so that the page does not hold the picture itself.
    """
    try:
        image = flatten(open_image(locate(root, path)))
    except (BadPathError, ImageError) as error:
        return Thumbnail(problem=error.slug)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    if veiled:
        size = image.size
        image.thumbnail((VEILED_SIDE, VEILED_SIDE), Image.Resampling.BOX)
        image = image.resize(size, Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", image.width, image.height)


def render(template: str, **values: Any) -> str:
    """Return a template of metadata/ filled in, every value escaped."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = Markup  # only figures.py's own output goes through it
    return environment.get_template(template).render(**values)
