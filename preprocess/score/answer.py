"""The schema of an answer about scores. It needs pydantic, so import it inside a function."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pokefa.llm.answer_model import AnswerModel, Integer, in_any_case


class ScoreAnswer(AnswerModel):
    """The scores as the model gave them, before the cap for artifacts."""

    relevance: Annotated[Integer, Field(ge=0, le=100, description="0 to 100")]
    aesthetic: Annotated[Integer, Field(ge=0, le=100, description="0 to 100")]
    artifact: Annotated[Literal["none", "mild", "strong"], in_any_case]
