"""Self-contained pages: rendered templates with their style and script inside.

Text from strangers is escaped. Even if it were not, a browser would not run it: the Content-Security-Policy of each
page allows its one style and its one script by their hashes, and nothing else, not even style attributes.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any


def policy(style: str, script: str | None, images: str) -> str:
    """Return the Content-Security-Policy of a page with this style and script.

    Args:
        images: the allowed image sources.
    """
    rules = {"default-src": "'none'", "img-src": images, "style-src": source_of(style)}
    if script is not None:
        rules["script-src"] = source_of(script)
    rules |= {"base-uri": "'none'", "form-action": "'none'"}
    return "; ".join(f"{name} {sources}" for name, sources in rules.items())


def source_of(text: str) -> str:
    """Return the source expression of an inline style or script: the hash of its exact bytes."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def render(name: str, *, images: str = "data:", **values: Any) -> str:
    """Return the rendered template metadata/<name>.html.j2, with every value escaped.

    The template gets <name>.css as `css`, <name>.js, if there is one, as `js`, and the page's policy as `policy`. Both
    texts must fill their elements exactly, because the policy contains their hashes.

    Args:
        images: the allowed image sources.
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
    environment.filters["figure"] = Markup  # only for the output of figures.py
    return environment.get_template(f"{name}.html.j2").render(**values)
