"""The two files of the second captioning pass: `metadata/recap.csv` lists the captions to redo, and
`metadata/recap_captions.csv` holds the new ones until they are merged.

cap_filter.py  ->  recap.csv  ->  sentence_tags.py --only  ->  recap_captions.csv  ->  recap_merge.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from pokefa.csv_files import csv_text, read_csv
from pokefa.errors import InputError
from pokefa.files import write_text
from pokefa.ledger.journal import RUNS_FOLDER, read_entries, read_header
from pokefa.ledger.table import KEY

RECAP_FILE = "metadata/recap.csv"
RECAP_CAPTIONS_FILE = "metadata/recap_captions.csv"
RECAP_COLUMNS = (KEY, "reasons")
NEEDS = f"it needs {KEY} and reasons in its header line"
MODEL_OF_ANOTHER_TRY = "+recap"  # suffix of caption_model, see model_name in sentence_tags.py

Reasons = tuple[str, ...]


@dataclass(frozen=True)
class RecapCaption:
    """A new caption that waits for recap_merge.py.

    Args:
        tags: JSON, as in base.csv.
        model, run_id: of the new caption.
        reasons: why the old caption was rejected, separated by spaces.
        replaces: the old caption; the new one replaces no other.
    """

    image_id: str
    caption: str
    tags: str
    model: str | None = None
    run_id: str | None = None
    reasons: str | None = None
    replaces: str | None = None

    def answers(self, reasons: Reasons, caption: str | None) -> bool:
        """Tell whether this caption answers an image with these reasons whose caption is now `caption`."""
        return self.reasons == " ".join(reasons) and caption in (self.replaces, self.caption)


def tried_again(caption: str, model: str | None, error: str | None, new: RecapCaption | None) -> bool:
    """Tell whether a caption of base.csv is the outcome of a second try.

    Args:
        caption: its text in base.csv.
        model, error: the image's caption_model and caption_error. An image with both a caption and an error failed at
            the second try.
        new: its caption in recap_captions.csv, which may equal the caption that it was to replace.
    """
    by_model = (model or "").endswith(MODEL_OF_ANOTHER_TRY)
    return by_model or bool(error) or (new is not None and new.model is not None and new.caption == caption)


def write_recap(root: Path, reasons: Mapping[str, Iterable[str]]) -> bool:
    """Write {image_id: reasons} to recap.csv, in this order; return whether the file changed."""
    rows = ([image_id, " ".join(slugs)] for image_id, slugs in reasons.items())
    return write_text(root / RECAP_FILE, csv_text(RECAP_COLUMNS, rows))


def read_recap(path: Path) -> dict[str, Reasons]:
    """Return {image_id: reasons} of a CSV with the columns image_id and reasons (or reason).

    Raises:
        InputError: the file is missing, or is not such a CSV.
    """
    found: dict[str, Reasons] = {}
    for _, row in read_csv(path, [KEY], NEEDS):
        reasons = row.get("reason", row.get("reasons"))
        if reasons is None:
            raise InputError(f"{path} has no column reasons: {NEEDS}")
        if row[KEY]:
            found[row[KEY]] = tuple(reasons.replace(";", " ").split())
    return found


def write_recap_captions(root: Path, captions: Iterable[RecapCaption]) -> bool:
    """Write these captions to recap_captions.csv, sorted by image_id; return whether the file changed."""
    rows = sorted([getattr(caption, name) for name in _FIELDS] for caption in captions)
    return write_text(root / RECAP_CAPTIONS_FILE, csv_text(_FIELDS, rows))


def read_recap_captions(root: Path) -> dict[str, RecapCaption]:
    """Return the waiting captions by image_id; a manually written file may lack the columns after `tags`.

    Raises:
        InputError: the file is not such a CSV, or a row lacks its id, caption or tags.
    """
    path = root / RECAP_CAPTIONS_FILE
    if not path.exists():
        return {}
    captions: dict[str, RecapCaption] = {}
    for number, row in read_csv(path, [KEY, "caption", "tags"], f"it needs {KEY}, caption and tags", strip=False):
        if not (row[KEY] and row["caption"] and row["tags"]):
            raise InputError(f"{path} line {number} lacks {KEY}, caption or tags: complete or remove it")
        captions[row[KEY]] = RecapCaption(**{name: row[name] for name in _FIELDS if row.get(name)})
    return captions


def all_recap_captions(root: Path, stage: str) -> dict[str, RecapCaption]:
    """Return the waiting captions and those in the journals of killed runs; the newer one wins.

    Raises:
        InputError: recap_captions.csv or a journal is damaged.
    """
    captions = read_recap_captions(root)
    for path in sorted((root / RUNS_FOLDER).glob(f"*-{stage}-*.jsonl")):
        if _has_ended(path) or read_header(path).get("stage") != stage:
            continue
        for _, entry in read_entries(path):
            recap = entry.get("note", {}).get("recap")
            if not recap:
                continue
            found = RecapCaption(**recap)
            known = captions.get(found.image_id)
            if known is None or (known.run_id or "") < (found.run_id or ""):  # run ids sort by time
                captions[found.image_id] = found
    return captions


_FIELDS = tuple(field.name for field in fields(RecapCaption))


def _has_ended(path: Path) -> bool:
    """Tell whether a journal ends with the summary of a finished run."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 65_536))
        tail = stream.read()
    if not tail.endswith(b"\n"):
        return False
    try:
        return "summary" in json.loads(tail.splitlines()[-1])
    except ValueError:
        return False
