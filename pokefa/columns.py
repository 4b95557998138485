"""The columns of the shared tables: name, type, owners and meaning, declared once.

`python -m pokefa.columns` prints the data dictionary, `metadata/README.md`, from these declarations.

A value is stored as text. `encode` turns a Python value into the text of a cell and `decode` turns it back, by the
column's declared type and never by the look of the text: "007", "NA" and "Type: Null" stay what they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pokefa.errors import InputError

Kind = Literal["text", "int", "float", "bool"]
Value = str | int | float | bool | None

_BOOLEANS = {"True": True, "False": False}
_INTEGER = re.compile(r"[+-]?[0-9]+\Z", re.ASCII)


@dataclass(frozen=True)
class Column:
    """One column: its type, the stages that may write it, and what a value means."""

    name: str
    kind: Kind
    owners: tuple[str, ...]
    meaning: str

    def encode(self, value: Value) -> str | None:
        """Return the cell text of `value`; None and "" both mean an empty cell, "not decided yet".

        Raises:
            InputError: the value is not of this column's type, is not finite, or holds a NUL or a lone surrogate.
        """
        if value is None:
            return None
        if self.kind == "bool" and isinstance(value, bool):
            return str(value)
        if self.kind == "int" and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if self.kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
            if math.isfinite(value):
                return repr(float(value))
            raise InputError(f"{self.name}: {value!r} is not a finite number")
        if self.kind == "text" and isinstance(value, str):
            return check_text(self.name, value) or None
        raise InputError(f"{self.name}: {value!r} is not of type {self.kind}")

    def decode(self, text: str | None) -> Value:
        """Return the typed value of a cell; an empty cell is None.

        Raises:
            InputError: the text is not a value of this column's type, for example after an edit by hand.
        """
        if text is None or text == "":
            return None
        if self.kind == "text":
            return text
        if self.kind == "bool" and text in _BOOLEANS:
            return _BOOLEANS[text]
        if self.kind == "int" and _INTEGER.match(text):
            return int(text)
        if self.kind == "float":
            try:
                number = float(text)
            except ValueError:
                number = math.nan
            if math.isfinite(number):
                return number
        expected = "True or False" if self.kind == "bool" else f"type {self.kind}"
        raise InputError(f"{self.name}: {text!r} is not {expected}; correct the cell or empty it")


def check_text(name: str, text: str) -> str:
    """Return `text` if a UTF-8 CSV can hold it.

    Raises:
        InputError: it holds a NUL byte, which RFC 4180 readers refuse, or a lone surrogate, which UTF-8 cannot hold.
    """
    if "\0" in text:
        raise InputError(f"{name}: {text!r} holds a NUL character, which a CSV cannot store")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{name}: {text!r} holds a lone surrogate, which UTF-8 cannot store") from None
    return text


@dataclass(frozen=True)
class TableSchema:
    """The declared columns of one table, in order; the table may carry others, which belong to the user."""

    name: str
    path: str
    meaning: str
    columns: tuple[Column, ...]
    born_with: tuple[str, ...] = ()  # owners whose columns a new table has; the others come with their first value

    def column(self, name: str) -> Column | None:
        """Return the declared column called `name`, or None when the schema does not know it."""
        return self._by_name.get(name)

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def first_names(self) -> list[str]:
        """Return the columns of a table that has just been created."""
        if not self.born_with:
            return self.names
        return [column.name for column in self.columns if set(column.owners) & set(self.born_with)]

    def owned_by(self, stage: str) -> list[str]:
        """Return the names of the columns that `stage` may write, in table order."""
        return [column.name for column in self.columns if stage in column.owners]

    def encode_cells(self, stage: str, values: Mapping[str, Value]) -> dict[str, str | None]:
        """Return `values` as cell texts, having checked that `stage` owns every column.

        Raises:
            InputError: a value does not fit its column.
            ValueError: the stage does not own a column; this is a defect in the stage, not in the data.
        """
        cells: dict[str, str | None] = {}
        for name, value in values.items():
            column = self.column(name)
            if column is None or stage not in column.owners:
                owners = "nobody (it is not declared)" if column is None else ", ".join(column.owners)
                raise ValueError(f"stage {stage} may not write {self.path} column {name}: it belongs to {owners}")
            cells[name] = column.encode(value)
        return cells

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}


def _columns(owners: str, rows: Iterable[tuple[str, Kind, str]]) -> tuple[Column, ...]:
    return tuple(Column(name, kind, tuple(owners.split()), meaning) for name, kind, meaning in rows)


IMAGES = TableSchema(
    "images",
    "metadata/images.csv",
    "One row per downloaded image, and every decision taken about it.",
    (
        *_columns(
            "scrape",
            [
                ("image_id", "text", "MD5 of the raw bytes in hex; the key"),
                ("sha256", "text", "SHA-256 of the raw bytes in hex"),
                ("species", "text", "species that was searched for, as in quotas/popularity.csv"),
                ("rank", "int", "popularity rank of that species, 1 = most popular"),
                ("band", "text", "popularity band of that species, as `001-150`"),
                ("query", "text", "search query that found the image, or how it came otherwise"),
                ("source_url", "text", "address that the bytes were downloaded from"),
                ("source_page", "text", "page that showed the image"),
                ("source_domain", "text", "host name of the page, or of the image where no page is known"),
                ("title", "text", "title that the search gave"),
                ("path_raw", "text", "raw file, relative to the root; byte for byte what the server sent"),
                ("fmt", "text", "format recognised from the bytes: JPEG, PNG, WEBP, AVIF, GIF, BMP or TIFF"),
                ("w", "int", "width in pixels after EXIF orientation"),
                ("h", "int", "height in pixels after EXIF orientation"),
                ("bytes", "int", "size of the raw file in bytes"),
                ("content_type", "text", "content type that the server claimed"),
                ("ts", "text", "time of the download, UTC, ISO 8601"),
                ("scrape_run_id", "text", "run that saved the image"),
            ],
        ),
        *_columns(
            "nsfw_filter",
            [
                ("is_nsfw", "bool", "True: a tag reached its threshold; the model's word, see nsfw_override"),
                (
                    "nsfw_score",
                    "float",
                    "highest score among the tags of the table, 0 to 1",
                ),
                ("nsfw_tags", "text", "tags it was screened for with a score over 0.05, as JSON {tag: score}"),
                (
                    "nsfw_threshold",
                    "text",
                    "thresholds that decided, as JSON {tag: threshold}; null: the model lacks it; unused: the table",
                ),
                ("nsfw_model", "text", "backend, model name and first 12 digits of its SHA-256"),
            ],
        ),
        *_columns("nsfw_unflag", [("nsfw_override", "text", "`unflagged`: a person looked and cleared the image")]),
        *_columns(
            "nsfw_filter",
            [
                ("nsfw_run_id", "text", "run that screened the image"),
                ("nsfw_error", "text", "why the image could not be screened"),
            ],
        ),
        *_columns(
            "ocr_pipeline",
            [
                ("has_ocr", "bool", "True: text was found; see ocr_override"),
                ("ocr_boxes_path", "text", "JSON of the text polygons with scores"),
                ("ocr_mask_path", "text", "PNG mask, white where text is to be painted over"),
                ("ocr_area_frac", "float", "masked pixels divided by all pixels, 0 to 1"),
                (
                    "ocr_text_dominated",
                    "bool",
                    "True: so much is text that nothing is painted over and the original is used",
                ),
                ("ocr_model", "text", "text detector and its version"),
                ("ocr_inpainted_path", "text", "PNG with the text painted over; empty where there is no text"),
                ("ocr_inpainter", "text", "inpainter and its version"),
            ],
        ),
        *_columns("ocr_unflag", [("ocr_override", "text", "`unflagged`: a person looked; the original is used")]),
        *_columns(
            "ocr_pipeline",
            [
                ("ocr_run_id", "text", "run that looked for text"),
                ("ocr_error", "text", "why detection or inpainting failed"),
            ],
        ),
        *_columns(
            "resize",
            [
                ("path_resized", "text", "resized or kept file"),
                ("resized_w", "int", "its width in pixels"),
                ("resized_h", "int", "its height in pixels"),
                ("resize_scale", "float", "one factor for both sides; 1.0 = kept"),
                ("resize_kernel", "text", "`bicubic`, `area` or `none`"),
                (
                    "resize_action",
                    "text",
                    "`keep` (the same bytes), `strip` (no metadata), `convert`, `up` or `down`",
                ),
                ("resize_note", "text", "why it was stripped or converted; `long_side_bound`: shorter than --min-side"),
                ("resize_source", "text", "`raw` or `inpainted`"),
                ("resize_run_id", "text", "run that resized the image"),
                ("resize_error", "text", "why the image could not be resized"),
            ],
        ),
        *_columns(
            "score",
            [
                ("ae_relevance", "int", "0 to 100: is it clearly Pokémon fan art?"),
                ("ae_aesthetic", "int", "0 to 100: technique and appeal, after the cap for artifacts"),
                ("ae_artifact", "text", "`none`, `mild` or `strong` grids, tiling or inpainting seams"),
                ("ae_model", "text", "model and prompt version that scored the image"),
                ("score_run_id", "text", "run that scored the image"),
                ("score_error", "text", "why there is no score"),
            ],
        ),
        *_columns(
            "phash",
            [
                ("phash64", "text", "perceptual hash of the resized file, 16 hex digits"),
                (
                    "phash_contrast",
                    "float",
                    "grey levels by which what the hash is made of varies; under 1 is nearly flat",
                ),
                ("phash_variants", "text", "7 more hashes, of the image mirrored and turned; with --with-variants"),
                ("phash_run_id", "text", "run that hashed the image"),
                ("phash_error", "text", "why the image could not be hashed"),
            ],
        ),
        *_columns(
            "rm_dups",
            [
                ("dupe_group", "text", "image_id of the kept image of the group; empty where an image is alone"),
                ("dupe_rep_image", "text", "image_id of the image kept for this one"),
                ("dupe_distance", "int", "Hamming distance to the kept image, 0 to 64 bits; of variants, the least"),
                ("dupe_flag", "text", "`unique`, `kept`, `identical` (the same phash64) or `near`"),
                ("dupe_removed", "bool", "True: another image of the group is kept instead"),
                ("dupe_keep_reason", "text", "what decided for the kept one: aesthetic, pixels, ts or image_id"),
                ("dupe_run_id", "text", "run that decided"),
            ],
        ),
        *_columns(
            "filter",
            [
                (
                    "filter_decision",
                    "text",
                    "`kept`, `nsfw`, `duplicate`, `below_relevance`, `below_aesthetic`, `beyond_top_n`, "
                    "`not_scored`, `error` or `taken_down`",
                ),
                ("filter_score", "float", "effective score that ranks the images, 0 to 100"),
                ("filter_rank", "int", "place among the images that pass the gates, 1 = best"),
                ("filter_run_id", "text", "run that decided"),
            ],
        ),
        *_columns(
            "sentence_tags recap_merge",
            [
                ("caption_model", "text", "model and prompt version that captioned the image"),
                ("caption_run_id", "text", "run that captioned the image"),
                ("caption_error", "text", "why there is no caption"),
            ],
        ),
        *_columns(
            "cap_filter species takedown",
            [("drop_reason", "text", "`stage:reason` of a drop after the filter, as `species:no_known_species`")],
        ),
    ),
)

BASE = TableSchema(
    "base",
    "metadata/base.csv",
    "The final set, written by filter; later stages append their columns.",
    (
        *_columns(
            "filter",
            [
                ("path", "text", "exported image, relative to the root"),
                ("source_url", "text", "address that the bytes were downloaded from"),
                ("image_size", "text", "width x height of the exported image, as `1024x1536`"),
                ("ae_relevance", "int", "0 to 100, as in images.csv"),
                ("ae_aesthetic", "int", "0 to 100, as in images.csv"),
                ("image_id", "text", "MD5 of the raw bytes in hex; the key"),
                ("phash", "text", "perceptual hash, 16 hex digits"),
            ],
        ),
        *_columns(
            "sentence_tags recap_merge",
            [
                ("caption", "text", "one sentence"),
                ("tags", "text", "tags as a JSON object"),
            ],
        ),
        *_columns("hybrid_captions", [("hybrid_caption", "text", "sentence, ` | `, then tags")]),
        *_columns("species", [("species", "text", "canonical species slugs, comma-separated")]),
        *_columns("split", [("split", "text", "`train` or `val`")]),
    ),
    born_with=("filter",),
)

DROPS = TableSchema(
    "drops",
    "metadata/drops.csv",
    "One row per drop, for reading; the decisions themselves stand in images.csv.",
    _columns(
        "",
        [
            ("ts", "text", "time of the decision, UTC, ISO 8601"),
            ("image_id", "text", "the image"),
            ("stage", "text", "stage that dropped it"),
            ("reason", "text", "reason slug"),
            ("detail", "text", "values that decided"),
            ("source_url", "text", "address that the image came from"),
            ("run_id", "text", "run that decided"),
        ],
    ),
)

SCHEMAS = {schema.name: schema for schema in (IMAGES, BASE, DROPS)}


def data_dictionary() -> str:
    """Return the text of metadata/README.md."""
    lines = [
        "# Data dictionary",
        "",
        "Generated by `python -m pokefa.columns` from `pokefa/columns.py`: change it there.",
        "",
        'An empty cell means "not decided yet". Paths are relative to the root, with `/`. Booleans are `True` and',
        "`False`. Columns that are not listed here are yours: every stage keeps them as they are, in place.",
    ]
    for schema in SCHEMAS.values():
        lines += ["", f"## `{schema.path}`", "", schema.meaning, ""]
        lines += ["| column | type | written by | meaning |", "| --- | --- | --- | --- |"]
        for column in schema.columns:
            owners = ", ".join(column.owners) or "every stage that drops"
            lines.append(f"| `{column.name}` | {column.kind} | {owners} | {column.meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(data_dictionary(), end="")
