"""The steps of the pipeline and its tools, each declared once, in pipeline order.

An entry declares which rows a step takes, which columns show that it is done, which lock it holds, and how it is run.
A new stage is one more entry. Standard library only: `pipeline.py` uses this before any environment exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One script, or one part of it.

    A row is done when `done` is filled, and has failed when `error` is filled. A step with `decides` instead decides
    over all rows at once, and fills that column.

    Args:
        name: its name in this table, the journal and the summary.
        script: its path from the repository root, or a module for `python -m`, which takes no --root.
        environment: the environment that it runs in.
        number: its stage number; None for a tool.
        command: its name on the command line of pipeline.py; `name` by default.
        in_run: `pipeline.py run` runs it.
        subcommands: the script's subcommands, the usual one first.
        owner: the name under which it owns columns; `name` by default.
        table: `images` or `base`; empty if it works on no rows.
        rows: the rows that it takes: columns that must be filled, and conditions of `pokefa.stage.rows`.
        needs: other columns that it reads.
        done, error: the columns described above.
        run_id: the column that names the run.
        decides: the column that it fills for all rows at once.
        finished: columns and conditions that the filter waits for.
        adds_rows: it creates the rows of images.csv, and names its run in new rows only.
        whole_table: a killed run starts over instead of resuming.
        manual: a person names the images.
        lock: the lock that it holds while it runs; that of `owner` by default, none if it works on no rows.
        outcome: the column, as `table.column`, with the result for a row; `done` or `decides` by default.
        words: how the card names the cells of `outcome`: one word for all filled cells, or one for each value.
            None: the cells are words already.
        settings_matter: its settings affect which images are in the set or how they look, so the card lists its
            defaults too.
    """

    name: str
    script: str
    environment: str
    number: int | None = None
    command: str = ""
    in_run: bool = False
    subcommands: tuple[str, ...] = ()
    owner: str = ""
    table: str = ""
    rows: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    done: str = ""
    error: str = ""
    run_id: str = ""
    decides: str = ""
    finished: tuple[str, ...] = ()
    adds_rows: bool = False
    whole_table: bool = False
    manual: bool = False
    lock: str = ""
    outcome: str = ""
    words: str | Mapping[str, str] | None = None
    settings_matter: bool = False

    def __post_init__(self) -> None:
        column = self.decides or self.done
        for name, usual in (
            ("command", self.name),
            ("owner", self.name),
            ("lock", (self.owner or self.name) if self.table else ""),
            ("outcome", column and f"{self.table}.{column}"),
        ):
            object.__setattr__(self, name, getattr(self, name) or usual)

    @property
    def marks(self) -> str:
        """The column that shows that the step has processed a row; empty if none does."""
        return self.done or self.decides

    @property
    def start(self) -> tuple[str, ...]:
        """The arguments that start it, without the interpreter."""
        program = (self.script,) if self.takes_root else ("-m", self.script)
        return (*program, *self.subcommands[:1])

    @property
    def takes_root(self) -> bool:
        return self.script.endswith(".py")


_TEXT_CHECKED = ("screened", "text_checked")
_RESIZED = (*_TEXT_CHECKED, "path_resized")
_OCR_COMMANDS = ("run", "detect", "inpaint")
_FINAL_SET = "final_set"  # without it, the builders of the final set would remove each other's files

_TABLE = (
    Step("quotas", "quotas/allocate.py", "quotas", 0, in_run=True),
    Step(
        "scrape", "scraping/scrape.py", "scraping", 1, in_run=True, table="images",
        done="path_raw", run_id="scrape_run_id", adds_rows=True, words="saved",
    ),
    # Empties cells of later stages whose files are missing.
    Step("verify", "metadata/verify.py", "metadata", table="images"),
    Step(
        "nsfw_filter", "preprocess/nsfw/nsfw_filter.py", "nsfw", 2, command="nsfw", in_run=True, table="images",
        rows=("path_raw",), done="is_nsfw", error="nsfw_error", run_id="nsfw_run_id", finished=("is_nsfw",),
        words={str(True): "nsfw", str(False): "clean"}, settings_matter=True,
    ),
    Step("nsfw_unflag", "preprocess/nsfw/nsfw_unflag.py", "nsfw", 2, table="images", rows=("nsfw",), manual=True),
    Step(
        "ocr_detect", "preprocess/ocr/ocr_pipeline.py", "ocr", 3, command="ocr", in_run=True, subcommands=_OCR_COMMANDS,
        owner="ocr_pipeline", table="images", rows=("screened",), done="has_ocr", error="ocr_error",
        run_id="ocr_run_id", finished=("text_checked",), words={str(True): "text_found", str(False): "no_text"},
        settings_matter=True,
    ),
    Step(
        "ocr_inpaint", "preprocess/ocr/ocr_pipeline.py", "ocr", 3, subcommands=_OCR_COMMANDS, owner="ocr_pipeline",
        table="images", rows=("screened", "to_inpaint"), done="ocr_inpainted_path", error="ocr_error",
        run_id="ocr_run_id",
    ),
    Step("ocr_unflag", "preprocess/ocr/ocr_unflag.py", "ocr", 3, table="images", rows=("has_text",), manual=True),
    Step(
        "resize", "preprocess/resize/resize.py", "resize", 4, in_run=True, table="images", rows=_TEXT_CHECKED,
        done="path_resized", error="resize_error", run_id="resize_run_id",
        finished=("path_resized", "resized_w", "resized_h"), outcome="images.resize_action", settings_matter=True,
    ),
    Step(
        "score", "preprocess/score/score.py", "score", 5, in_run=True, table="images", rows=_RESIZED,
        done="ae_aesthetic", error="score_error", run_id="score_run_id", finished=("ae_relevance", "ae_aesthetic"),
        words="scored",
    ),
    Step(
        "phash", "preprocess/dup/phash.py", "dup", 6, in_run=True, table="images", rows=_RESIZED,
        done="phash64", error="phash_error", run_id="phash_run_id", finished=("phash64",), words="hashed",
    ),
    Step(
        "rm_dups", "preprocess/dup/rm_dups.py", "dup", 6, in_run=True, table="images", rows=(*_RESIZED, "phash64"),
        decides="dupe_flag", run_id="dupe_run_id", finished=("dupe_removed",), whole_table=True, settings_matter=True,
    ),
    Step(
        "filter", "preprocess/filter/filter.py", "filter", 7, in_run=True, table="images",
        decides="filter_decision", run_id="filter_run_id", whole_table=True, lock=_FINAL_SET, settings_matter=True,
    ),
    Step(
        "sentence_tags", "caption/sentence_tags.py", "caption", 8, in_run=True, table="base", rows=("path",),
        done="caption", error="caption_error", run_id="caption_run_id", outcome="images.base_caption",
        words="captioned",
    ),
    Step("cap_filter", "caption/cap_filter.py", "caption", 8, in_run=True, table="base"),
    Step("recap_merge", "caption/recap_merge.py", "caption", 8, table="base"),
    Step(
        "hybrid_captions", "caption/hybrid_captions.py", "caption", 8, in_run=True, table="base", rows=("caption",),
        needs=("tags",), done="hybrid_caption", words="written",
    ),
    Step(
        "species", "webdataset/species.py", "webdataset", 9, in_run=True, table="base", rows=("tags",),
        done="species", words="named",
    ),
    Step(
        "split", "webdataset/split.py", "webdataset", 9, in_run=True, table="base", rows=("species",),
        decides="split", whole_table=True, lock=_FINAL_SET, settings_matter=True,
    ),
    Step(
        "webdataset", "webdataset/webdataset.py", "webdataset", 9, in_run=True, table="base",
        rows=("split", "hybrid_caption"), whole_table=True, lock=_FINAL_SET,
    ),
    Step("takedown", "metadata/takedown.py", "metadata", table="images", manual=True),
    Step("card", "webdataset/card.py", "webdataset"),
    Step("status", "metadata/status.py", "metadata"),
    Step("report", "metadata/report.py", "metadata", lock="report"),
    Step("review", "metadata/review.py", "metadata", lock="review"),
    Step("history", "metadata/history.py", "metadata"),
)  # fmt: skip

STEPS: Mapping[str, Step] = {step.name: step for step in _TABLE}
# One entry per script.
_BY_SCRIPT = {step.script: step for step in reversed(_TABLE)}
COMMANDS: Mapping[str, Step] = {step.command: step for step in reversed(_BY_SCRIPT.values())}


def steps_in_run() -> list[Step]:
    """Return the steps of `pipeline.py run`, in order."""
    return [step for step in STEPS.values() if step.in_run]


def steps_before(name: str) -> list[str]:
    """Return the names of the steps before a given one."""
    names = list(STEPS)
    return names[: names.index(name)]


def first_step_of(owner: str) -> Step:
    """Return the first step of an owner; one without columns if this version does not know the owner."""
    return next((step for step in STEPS.values() if step.owner == owner), Step(owner, "", ""))
