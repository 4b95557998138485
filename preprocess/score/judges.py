"""That all scores of a dataset are one judge's: each model grades by a scale of its own."""

from __future__ import annotations

import polars as pl

from pokefa.errors import InputError
from pokefa.ledger.columns import SAME_AS
from pokefa.llm.models import base_name
from pokefa.llm.prompt import plain

STAND_IN = "-stand-in"


def refuse_another_judge(images: pl.DataFrame, model: str, names: frozenset[tuple[str, str]]) -> None:
    """Check that a model may add its scores to those that a dataset has.

    Args:
        images: cell texts, with ae_model.
        names: (asked, answered), the names under which models were asked and those that they gave themselves.

    Raises:
        InputError: another model has scored images before.
    """
    scored = images.filter(pl.col("ae_model").is_not_null() & ~pl.col("ae_model").str.starts_with(SAME_AS))
    for judge, count in scored["ae_model"].value_counts(sort=True).iter_rows():
        answered = judge.rpartition(" ")[0] or judge
        if not is_same(model, answered, names):
            raise InputError(
                f"{count} scores here are by {answered}, and {model} would grade by another scale: go on with --model "
                f"{asked_as(answered, names)} at a server that still has it, or score everything once more with "
                "--redo"
            )


def is_same(model: str, answered: str, names: frozenset[tuple[str, str]]) -> bool:
    """Tell whether scores by `answered` are those of the model that is asked as `model`."""
    if (plain(model), answered) in names or family(model) == family(answered):
        return True
    # A server's own name for a model of which nobody noted how it was asked decides nothing.
    return answered not in {name for _, name in names} and not family(answered).startswith(("gpt-", "o"))


def family(model: str) -> str:
    """Return a model's name without the date of a version."""
    return base_name(model.removesuffix(STAND_IN))


def asked_as(answered: str, names: frozenset[tuple[str, str]]) -> str:
    return next((asked for asked, name in sorted(names) if name == answered), family(answered))
