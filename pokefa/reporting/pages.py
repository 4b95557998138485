"""Pages that stand in one file: templates filled in, their style and script in them.

What strangers wrote is escaped, and were it not, a browser would not run it: the Content-Security-Policy of each page
names its one style and its one script by their hashes, and forbids everything else, style attributes too.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any


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
