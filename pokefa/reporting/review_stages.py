"""The stages that can be reviewed, and the actions on the images that a person selects.

If a stage has no manual override, the action changes what the stage does: for duplicates and the filter, the settings
that would have kept the selected images; for captions, a second try.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pokefa.ledger.runs import flags_of, thresholds_of_filter
from pokefa.reporting.review_data import Dataset, Flagged
from pokefa.reporting.review_find import find_captions, find_duplicates, find_left_out, find_nsfw, find_text
from pokefa.stage.rows import filled


@dataclass(frozen=True)
class Action:
    """An action on the selected images.

    Args:
        words: the command without what the page appends: the ids, or computed settings.
        kind: what is appended: `ids`, `threshold` (of rm_dups.py) or `gates` (of filter.py).
        note: what the command does, for the person about to run it.
        settings: numbers that the page computes with.
    """

    label: str
    words: tuple[str, ...]
    note: str
    kind: str = "ids"
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A stage whose flagged images can be reviewed.

    Args:
        ask: what to select.
        score: the meaning of `Flagged.score`.
        wide: whether its images have two pictures side by side.
        cleared: the column of the manual override.
    """

    title: str
    ask: str
    score: str
    find: Callable[[Dataset], list[Flagged]]
    actions: Callable[[Dataset], list[Action]]
    wide: bool = False
    cleared: str | None = None


def flags_kept(data: Dataset, stage: str, *changed: str) -> list[str]:
    """Return the flags of the stage's last run, except for those that the page changes."""
    last = next((run for run in reversed(data.runs) if run.stage == stage), None)
    kept = {name: value for name, value in last.repeat.items() if name not in (*changed, "strict")} if last else {}
    return flags_of(kept)


def duplicate_actions(data: Dataset) -> list[Action]:
    flags = flags_kept(data, "rm_dups", "threshold")
    return [
        Action(
            "a threshold that keeps them apart",
            ("preprocess/dup/rm_dups.py", *flags),
            "A single duplicate cannot be restored. This is the highest threshold at which the selected images "
            "are no duplicates of the kept ones; --dry-run lists all that would come back. Leave it off to do it.",
            "threshold",
        )
    ]


def filter_actions(data: Dataset) -> list[Action]:
    thresholds = thresholds_of_filter(data.runs)
    passing = data.tables.images.filter(filled("filter_rank")).height
    flags = flags_kept(data, "filter", "min_relevance", "min_aesthetic", "top_n")
    return [
        Action(
            "thresholds that keep them",
            ("preprocess/filter/filter.py", *flags),
            "A single image cannot be added. These are the highest thresholds that the selected images pass; "
            "--dry-run counts all that would join. Leave it off to do it.",
            "gates",
            {**thresholds, "passing": passing},
        ),
        Action(
            "score them again",
            ("preprocess/score/score.py", "--redo", "--ids"),
            "Asks the model about these images again, which is paid for; run preprocess/filter/filter.py afterwards.",
        ),
    ]


def text_actions(data: Dataset) -> list[Action]:
    script = "preprocess/ocr/ocr_unflag.py"
    again = "The summary names the stages to run again."
    return [
        Action("use their originals", (script, "--ids"), f"Uses the original of the selected images. {again}"),
        Action("inpaint them", (script, "--paint", "--ids"), f"Inpaints the selected images as masked. {again}"),
    ]


STAGES = {
    "nsfw": Stage(
        title="Flagged as NSFW",
        ask="Select what was flagged wrongly.",
        score="score",
        find=find_nsfw,
        actions=lambda data: [
            Action(
                "clear them",
                ("preprocess/nsfw/nsfw_unflag.py", "--ids"),
                "Clears the selected images permanently. The summary names the stages to run again.",
            )
        ],
        cleared="nsfw_override",
    ),
    "ocr": Stage(
        title="Text was found",
        ask="Doubtful images come first and wait for you: select those to use as they are, or those to inpaint.",
        score="confidence",
        find=find_text,
        actions=text_actions,
        wide=True,
        cleared="ocr_override",
    ),
    "dup": Stage(
        title="Removed as duplicates",
        ask="Select the images that are not duplicates of the kept one.",
        score="distance",
        find=find_duplicates,
        actions=duplicate_actions,
        wide=True,
    ),
    "filter": Stage(
        title="Left out by the filter",
        ask="Select the images that belong in the set.",
        score="points missing",
        find=find_left_out,
        actions=filter_actions,
    ),
    "caption": Stage(
        title="Captions to redo",
        ask="Select the images to caption again.",
        score="words",
        find=find_captions,
        actions=lambda data: [
            Action(
                "caption them again",
                ("caption/sentence_tags.py", "--redo", "--ids"),
                "Asks the model for new captions of these images, which is paid for, and puts them in place of the old "
                "ones. Run caption/cap_filter.py afterwards (with --drop, it takes dropped images back whose captions "
                "have become good), then caption/hybrid_captions.py.",
            )
        ],
    ),
}
