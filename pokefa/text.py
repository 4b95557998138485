"""Species names as slugs, and untrusted text as one clean line."""

from __future__ import annotations

import re
import unicodedata

_DROPPED = re.compile("['’‘ʼ`´.]")
_SEPARATORS = re.compile(r"[^a-z0-9]+")
# C0 and C1 controls, including the ESC of terminal commands, and line and paragraph separators. They separate words.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
ZERO_WIDTH_JOINER = "\u200d"  # emoji need it
# Characters that change the text direction, and invisible characters except the joiner.
_INVISIBLE = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def species_slug(name: str) -> str:
    """Return a species name in lower-case ASCII snake_case: "Mr. Mime" is `mr_mime`, "Nidoran♀" `nidoran_female`.

    Accents, apostrophes and dots are removed, the signs ♀ and ♂ become words, and any run of other characters becomes
    one underscore. The function is idempotent. A text without a Latin letter or a digit gives "".
    """
    name = _DROPPED.sub("", name).replace("♀", "_female").replace("♂", "_male")
    letters = (mark for mark in unicodedata.normalize("NFKD", name) if not unicodedata.combining(mark))
    return _SEPARATORS.sub("_", "".join(letters).lower()).strip("_")


def clean_text(text: object) -> str | None:
    """Return untrusted text as one line for a CSV cell and a terminal, or None if nothing is left.

    Control characters become spaces. Invisible characters and those that change the text direction are removed. A lone
    surrogate, which UTF-8 cannot encode, becomes "?".
    """
    if not isinstance(text, str):
        return None
    text = _INVISIBLE.sub("", _CONTROLS.sub(" ", text)).encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.split()) or None
