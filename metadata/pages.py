"""Pages that stand in one file: templates filled in, their style and script in them, thumbnails as data URIs.

What strangers wrote is escaped, and were it not, a browser would not run it: the Content-Security-Policy of each page
names its one style and its one script by their hashes, and forbids everything else, style attributes too.
"""

from __future__ import annotations

import base64
import hashlib
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


def policy(style: str, script: str | None, images: str) -> str:
    """Return the Content-Security-Policy of a page with so much inside it.

    Args:
        images: the sources that pictures may have.
    """
    rules = {"default-src": "'none'", "img-src": images, "style-src": source_of(style)}
    if script is not None:
        rules["script-src"] = source_of(script)
    rules |= {"base-uri": "'none'", "form-action": "'none'"}
    return "; ".join(f"{name} {sources}" for name, sources in rules.items())


def source_of(text: str) -> str:
    """Return the source expression of a style or script in the page: the hash of its very bytes."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def render(name: str, *, images: str = "data:", **values: Any) -> str:
    """Return the template metadata/<name>.html.j2 filled in, every value escaped.

    It finds <name>.css under `css`, <name>.js, if there is one, under `js`, and what goes into the page's policy under
    `policy`. Both texts have to fill their elements exactly: the policy names their hashes.

    Args:
        images: the sources that pictures may have.
    """
    import jinja2
    from markupsafe import Markup

    folder = Path(__file__).parent
    style, script = (path.read_text(encoding="utf-8") if path.exists() else None
                     for path in (folder / f"{name}.css", folder / f"{name}.js"))  # fmt: skip
    assert style is not None, "every page has a style"
    values |= {"css": Markup(style), "js": Markup(script or ""), "policy": policy(style, script, images)}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = Markup  # only figures.py's own output goes through it
    return environment.get_template(f"{name}.html.j2").render(**values)
