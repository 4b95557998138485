"""Text helpers that more than one stage needs: species names as slugs, and text files that change only with cause."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from pokefa.table import replacing

_DROPPED = re.compile("['’‘ʼ`´.]")
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def species_slug(name: str) -> str:
    """Return a species name in lower-case ASCII snake_case: "Mr. Mime" is `mr_mime`, "Nidoran♀" `nidoran_female`.

    Accents, apostrophes and dots go, the signs ♀ and ♂ become words, and any run of other characters is one
    underscore. A slug is its own slug. A text without a Latin letter or a digit gives "".
    """
    name = _DROPPED.sub("", name).replace("♀", "_female").replace("♂", "_male")
    letters = (mark for mark in unicodedata.normalize("NFKD", name) if not unicodedata.combining(mark))
    return _SEPARATORS.sub("_", "".join(letters).lower()).strip("_")


def write_text(path: Path, text: str) -> bool:
    """Make `path` hold `text` in UTF-8, whole or not at all; return whether the file had to change.

    Raises:
        PokefaError: the file cannot be written; an older one is unchanged.
    """
    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return False
    with replacing(path) as stream:
        stream.write(data)
    return True
