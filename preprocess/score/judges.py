"""Ensures that one model gave all scores of a dataset: each model has its own scale."""

from __future__ import annotations

import polars as pl

from pokefa.errors import InputError
from pokefa.ledger.columns import SAME_AS
from pokefa.llm.models import base_name
from pokefa.llm.prompt import plain

STAND_IN = "-stand-in"


def refuse_another_judge(images: pl.DataFrame, model: str, names: frozenset[tuple[str, str]]) -> None:
    """Check that a model may add its scores to those in a dataset.

    Args:
        images: cell texts, with ae_model.
        names: (requested, reported) names of the models that answered.

    Raises:
        InputError: another model has scored images.
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
    """Tell whether the scores by `answered` come from the model that is requested as `model`."""
    if (plain(model), answered) in names or family(model) == family(answered):
        return True
    # A name that only the server reported, and that no request is recorded for, proves nothing.
    return answered not in {name for _, name in names} and not family(answered).startswith(("gpt-", "o"))


def family(model: str) -> str:
    """Return a model's name without its version date."""
    return base_name(model.removesuffix(STAND_IN))


def asked_as(answered: str, names: frozenset[tuple[str, str]]) -> str:
    return next((asked for asked, name in sorted(names) if name == answered), family(answered))
