"""The columns of the shared tables: name, type, owners and meaning, declared once.

`python -m pokefa.ledger.columns` prints the data dictionary, `metadata/README.md`, from these declarations.

A value is stored as text. `encode` and `decode` convert it by the column's declared type (`pokefa/ledger/cells.py`).
Types are never guessed from the text: "007", "NA" and "Type: Null" stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from pokefa.ledger.cells import (
    BOOLEAN,
    PATH,
    TEXT,
    CellType,
    Kind,
    Value,
    decimal,
    hex_digits,
    integer,
    one_of,
    reason_of,
)

SAME_AS = "same as "  # how ae_model begins where an image has the scores of its near-duplicate

MD5 = hex_digits(32)
SHA256 = hex_digits(64)
PHASH = hex_digits(16)
COUNT = integer(1)
SCORE = integer(0, 100)
SHARE = decimal(0, 1)
DECISIONS = (
    "kept", "nsfw", "duplicate", "below_relevance", "below_aesthetic", "beyond_top_n", "not_scored", "error",
    "placeholder", "taken_down",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column: its type, the stages that may write it, and what a value means."""

    name: str
    type: CellType
    owners: tuple[str, ...]
    meaning: str

    @property
    def kind(self) -> Kind:
        return self.type.kind

    def encode(self, value: Value) -> str | None:
        """Return the cell text of a value; see `CellType.encode`."""
        return self.type.encode(self.name, value)

    def decode(self, text: str | None) -> Value:
        """Return the value of a cell; see `CellType.decode`."""
        return self.type.decode(self.name, text)


@dataclass(frozen=True)
class BadCell:
    """A cell with an invalid value; the message names the column and what is expected."""

    image_id: str
    column: str
    message: str


@dataclass(frozen=True)
class TableSchema:
    """The declared columns of one table, in order; any other columns belong to the user."""

    name: str
    path: str
    meaning: str
    columns: tuple[Column, ...]
    born_with: tuple[str, ...] = ()  # owners whose columns a new table has; others are added with their first value
    is_log: bool = False  # an image may have several rows

    def column(self, name: str) -> Column | None:
        """Return the declared column `name`, or None if there is none."""
        return self._by_name.get(name)

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def path_names(self) -> list[str]:
        """Return the columns that contain file paths."""
        return [column.name for column in self.columns if column.type is PATH]

    def value(self, cells: Mapping[str, str | None], name: str) -> Value:
        """Return the value of a row's cell; None if the cell is empty or missing."""
        column = self.column(name)
        text = cells.get(name)
        return text if column is None else column.decode(text)

    def respell(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[BadCell]]:
        """Return a frame of cell texts in canonical spelling, and its invalid cells, which become empty.

        Undeclared columns stay as they are.
        """
        bad: list[BadCell] = []
        respelled: list[pl.Series] = []
        for column in self.columns:
            if column.name not in frame.columns:
                continue
            cells, wrong = column.type.respell(column.name, frame[column.name])
            respelled.append(cells)
            if wrong:
                rows = frame.filter(pl.col(column.name).is_in(list(wrong)))
                texts = zip(rows["image_id"], rows[column.name], strict=True)
                bad += [BadCell(str(image_id), column.name, wrong[text]) for image_id, text in texts]
        return frame.with_columns(respelled), bad

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
        """Return `values` as cell texts, after a check that `stage` owns every column.

        Raises:
            InputError: a value does not fit its column.
            ValueError: the stage does not own a column; this is a bug in the stage.
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


# The same bytes came from many pages: an "image removed" notice, for example.
PLACEHOLDER = pl.col("drop_reason").eq_missing(pl.lit("scrape:placeholder"))
# A person removed the image from the dataset; this overrides every other decision.
TAKEN_DOWN = pl.col("drop_reason").str.starts_with("takedown:").fill_null(False)


def is_true(name: str) -> pl.Expr:
    """Match True cells of a boolean column; an empty cell is not True."""
    return pl.col(name).eq_missing(pl.lit(str(True)))


def boolean_cells(values: pl.Expr) -> pl.Expr:
    """Return boolean values as cell texts, under the same name."""
    return values.replace_strict([True, False], [str(True), str(False)], return_dtype=pl.String)


def _columns(owners: str, rows: Iterable[tuple[str, CellType, str]]) -> tuple[Column, ...]:
    return tuple(Column(name, kind, tuple(owners.split()), meaning) for name, kind, meaning in rows)


IMAGES = TableSchema(
    "images",
    "metadata/images.csv",
    "One row per downloaded image, and every decision taken about it.",
    (
        *_columns(
            "scrape",
            [
                ("image_id", MD5, "MD5 of the raw bytes; the key"),
                ("sha256", SHA256, "SHA-256 of the raw bytes"),
                ("species", TEXT, "species searched for, as spelled in quotas/popularity.csv"),
                ("rank", COUNT, "popularity rank of that species, 1 = most popular"),
                ("band", TEXT, "popularity band of that species, such as `001-150`"),
                ("query", TEXT, "search query that found the image, or its other source"),
                ("source_url", TEXT, "URL that the bytes were downloaded from"),
                ("source_page", TEXT, "page that showed the image"),
                ("source_domain", TEXT, "host name of the page, or of the image if no page is known"),
                ("title", TEXT, "title in the search result"),
                ("path_raw", PATH, "raw file, byte for byte as the server sent it"),
                ("fmt", TEXT, "format recognised from the bytes: JPEG, PNG, WEBP, AVIF, GIF, BMP or TIFF"),
                ("w", COUNT, "width in pixels after EXIF orientation"),
                ("h", COUNT, "height in pixels after EXIF orientation"),
                ("bytes", COUNT, "size of the raw file in bytes"),
                ("content_type", TEXT, "content type that the server stated"),
                ("ts", TEXT, "time of the download, UTC, ISO 8601"),
                ("scrape_run_id", TEXT, "run that saved the image"),
            ],
        ),
        *_columns(
            "nsfw_filter",
            [
                ("is_nsfw", BOOLEAN, "True: a tag reached its threshold; nsfw_override takes precedence"),
                ("nsfw_score", SHARE, "highest score among the tags that have a threshold"),
                ("nsfw_tags", TEXT, "screened tags with a score over 0.05, as JSON {tag: score}"),
                (
                    "nsfw_threshold",
                    TEXT,
                    "thresholds that decided, as JSON {tag: threshold}; null: not a tag of this model; unused: not in "
                    "the table that decided",
                ),
                ("nsfw_model", TEXT, "backend, model name, and the first 12 digits of the model's SHA-256"),
            ],
        ),
        *_columns(
            "nsfw_unflag",
            [("nsfw_override", one_of("unflagged"), "a person reviewed the image and cleared it")],
        ),
        *_columns(
            "nsfw_filter",
            [
                ("nsfw_run_id", TEXT, "run that screened the image"),
                ("nsfw_error", TEXT, "why the image could not be screened"),
            ],
        ),
        *_columns(
            "ocr_pipeline",
            [
                ("has_ocr", BOOLEAN, "True: text was found; ocr_override takes precedence"),
                ("ocr_boxes_path", PATH, "JSON file with the text polygons and their scores"),
                ("ocr_mask_path", PATH, "PNG mask, white where text is to be inpainted"),
                ("ocr_area_frac", SHARE, "masked pixels divided by all pixels"),
                (
                    "ocr_text_dominated",
                    BOOLEAN,
                    "True: text covers too much of the image to inpaint, so the original is used",
                ),
                (
                    "ocr_doubt",
                    one_of("large_mask", "unsure"),
                    "why nothing is inpainted before a person reviews it; see ocr_override",
                ),
                ("ocr_text", TEXT, "lines that were read, as a JSON list: handles, titles, words"),
                ("ocr_model", TEXT, "text detector and its version"),
                ("ocr_inpainted_path", PATH, "inpainted PNG; empty if there is no text"),
                ("ocr_inpainter", TEXT, "inpainter and its version"),
            ],
        ),
        *_columns(
            "ocr_unflag",
            [
                (
                    "ocr_override",
                    one_of("unflagged", "paint"),
                    "a person's decision: `unflagged` uses the original, `paint` inpaints doubtful text too",
                )
            ],
        ),
        *_columns(
            "ocr_pipeline",
            [
                ("ocr_run_id", TEXT, "run that detected or inpainted text"),
                ("ocr_error", TEXT, "why detection or inpainting failed"),
            ],
        ),
        *_columns(
            "resize",
            [
                ("path_resized", PATH, "resized or kept file"),
                ("resized_w", COUNT, "its width in pixels"),
                ("resized_h", COUNT, "its height in pixels"),
                ("resize_scale", decimal(0), "scale factor of both sides; 1.0 = not resampled"),
                ("resize_kernel", one_of("bicubic", "area", "none"), "how it was resampled"),
                (
                    "resize_action",
                    one_of("keep", "strip", "convert", "up", "down"),
                    "`keep`: same bytes; `strip`: metadata removed; `convert`: encoded again; `up`, `down`: resampled",
                ),
                ("resize_note", TEXT, "why it was stripped or converted; `long_side_bound`: shorter than --min-side"),
                ("resize_source", one_of("raw", "inpainted"), "what was resized"),
                ("resize_run_id", TEXT, "run that resized the image"),
                ("resize_error", TEXT, "why the image could not be resized"),
            ],
        ),
        *_columns(
            "score",
            [
                ("ae_relevance", SCORE, "is it clearly Pokémon fan art?"),
                (
                    "ae_aesthetic",
                    SCORE,
                    "technique and appeal, after the cap for artifacts (25 for mild, 15 for strong)",
                ),
                (
                    "ae_artifact",
                    one_of("none", "mild", "strong"),
                    "grids, tiling or inpainting seams",
                ),
                (
                    "ae_model",
                    TEXT,
                    "model and prompt version that scored the image, or `same as` the image it shares scores with",
                ),
                ("score_run_id", TEXT, "run that scored the image"),
                ("score_error", TEXT, "why there is no score"),
            ],
        ),
        *_columns(
            "phash",
            [
                ("phash64", PHASH, "perceptual hash of the resized file"),
                (
                    "phash_contrast",
                    decimal(0),
                    "contrast of the image after downscaling for the hash, in grey levels; under 1 is nearly flat",
                ),
                (
                    "phash_variants",
                    hex_digits(16, times=7),
                    "hashes of the mirrored and rotated image",
                ),
                ("phash_run_id", TEXT, "run that hashed the image"),
                ("phash_error", TEXT, "why the image could not be hashed"),
            ],
        ),
        *_columns(
            "rm_dups",
            [
                ("dupe_group", MD5, "image_id of the kept image of the group; empty if the image is unique"),
                ("dupe_rep_image", MD5, "image_id of the image kept for this one"),
                (
                    "dupe_distance",
                    integer(0, 64),
                    "Hamming distance to the hash of the kept image; the minimum over all variants",
                ),
                (
                    "dupe_flag",
                    one_of("unique", "kept", "identical", "near"),
                    "`identical`: the same phash64",
                ),
                ("dupe_removed", BOOLEAN, "True: another image of the group is kept instead"),
                (
                    "dupe_keep_reason",
                    TEXT,
                    "why the kept image was chosen: unpainted, aesthetic, pixels, ts, image_id",
                ),
                ("dupe_run_id", TEXT, "run that decided"),
            ],
        ),
        *_columns(
            "filter",
            [
                ("filter_decision", one_of(*DECISIONS), "decision about the image"),
                ("filter_score", decimal(0, 100), "score by which the images are ranked"),
                ("filter_rank", COUNT, "rank among the images that pass the thresholds, 1 = best"),
                ("filter_run_id", TEXT, "run that decided"),
            ],
        ),
        *_columns(
            "sentence_tags recap_merge",
            [
                ("caption_model", TEXT, "model and prompt version that captioned the image"),
                ("caption_run_id", TEXT, "run that captioned the image"),
                ("caption_error", TEXT, "why there is no caption"),
            ],
        ),
        *_columns(
            "scrape cap_filter species takedown",
            [
                (
                    "drop_reason",
                    reason_of("scrape", "cap_filter", "species", "takedown"),
                    "why the image is left out, if it was not the filter's decision",
                )
            ],
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
                ("path", PATH, "exported image, relative to the root"),
                ("source_url", TEXT, "URL that the bytes were downloaded from"),
                ("image_size", TEXT, "width x height of the exported image, such as `1024x1536`"),
                ("ae_relevance", SCORE, "as in images.csv"),
                ("ae_aesthetic", SCORE, "as in images.csv"),
                ("image_id", MD5, "MD5 of the raw bytes; the key"),
                ("phash", PHASH, "perceptual hash, as phash64 in images.csv"),
            ],
        ),
        *_columns(
            "sentence_tags recap_merge",
            [
                ("caption", TEXT, "one sentence"),
                ("tags", TEXT, "tags as a JSON object"),
            ],
        ),
        *_columns("hybrid_captions", [("hybrid_caption", TEXT, "sentence, ` | `, then tags")]),
        *_columns("species", [("species", TEXT, "canonical species slugs, comma-separated")]),
        *_columns("split", [("split", one_of("train", "val"), "side of the split")]),
    ),
    born_with=("filter",),
)

DROPS = TableSchema(
    "drops",
    "metadata/drops.csv",
    "One row per drop, for reading only; the decisions are in images.csv.",
    _columns(
        "",
        [
            ("ts", TEXT, "time of the decision, UTC, ISO 8601"),
            ("image_id", MD5, "the image"),
            ("stage", TEXT, "stage that dropped it"),
            ("reason", TEXT, "reason slug"),
            ("detail", TEXT, "values that decided"),
            ("source_url", TEXT, "URL that the image came from"),
            ("run_id", TEXT, "run that decided"),
        ],
    ),
    is_log=True,
)

SCHEMAS = {schema.name: schema for schema in (IMAGES, BASE, DROPS)}


def data_dictionary() -> str:
    """Return the text of metadata/README.md."""
    lines = [
        "# Data dictionary",
        "",
        "Generated by `python -m pokefa.ledger.columns` from `pokefa/ledger/columns.py`: change it there.",
        "",
        'An empty cell means "not decided yet". Paths are relative to the root, with `/`. Booleans are `True` and',
        "`False`. Columns that are not listed here are yours: every stage keeps them unchanged and in place.",
    ]
    for schema in SCHEMAS.values():
        lines += ["", f"## `{schema.path}`", "", schema.meaning, ""]
        lines += ["| column | type | written by | meaning |", "| --- | --- | --- | --- |"]
        for column in schema.columns:
            owners = ", ".join(column.owners) or "every stage that drops"
            lines.append(
                f"| `{column.name}` | {column.type.expected.removeprefix('a ')} | {owners} | {column.meaning} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(data_dictionary(), end="")
