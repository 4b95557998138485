"""The schema of an answer about a caption and its tags. It needs pydantic, so import it inside a function.

Lists with fixed words accept any word: caption/tags.py drops unknown ones and keeps the others.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from caption.tags import ART_STYLE, COMPOSITION
from pokefa.llm.answer_model import AnswerModel, Flag, Text, TextOrNull, Words, WordsOrNulls, in_any_case


def _described(text: str, choices: tuple[str, ...] = ()) -> object:
    if not choices:
        return Field(description=text)
    items = {"type": "string", "enum": list(choices)}
    return WithJsonSchema({"type": "array", "items": items, "description": text})


class CaptionAnswer(AnswerModel):
    """The caption and the tags as the model gave them, before they are cleaned."""

    caption: Annotated[Text, _described("one sentence of 12 to 25 words, present tense")]
    pokemon: Annotated[
        Words,
        _described(
            "species, snake_case, the main subject first; a species again only where it is shown in another form"
        ),
    ]
    form: Annotated[WordsOrNulls, _described("as long as pokemon: null, or a form such as mega_x, alolan, gigantamax")]
    shiny_pokemon: Annotated[Words, _described("those of pokemon that wear their shiny colours")]
    trainer_presence: Annotated[Flag, _described("a person with the Pokémon")]
    gijinka: Annotated[Flag, _described("a Pokémon drawn as a person")]
    subject_count: Annotated[Literal["single", "multiple"], in_any_case]
    multi_panel: Annotated[Flag, _described("several pictures or panels in one")]
    pose: Annotated[Words, _described("as sitting, lying_down, looking_back")]
    actions: Annotated[Words, _described("as running, eating, using_thunderbolt")]
    outfit: Annotated[Words, _described("worn things, as scarf, witch_hat")]
    props: Annotated[Words, _described("things held or near, as poke_ball, book")]
    environment: Annotated[Words, _described("the place, as indoors, city_street, cafe")]
    biome: Annotated[Words, _described("the landscape, as forest, beach, snowy_mountain")]
    time_of_day: Annotated[TextOrNull, _described("as dawn, day, dusk, night; null if not shown")]
    weather: Annotated[TextOrNull, _described("as clear, rain, snow, fog; null if not shown")]
    background: Annotated[Words, _described("as plain_white, gradient, starry_sky")]
    characteristics: Annotated[
        Words, _described("what strikes the eye, as glowing_eyes, fluffy, closed_eyes, pastel_colors")
    ]
    composition: Annotated[Words, _described("from the list only", COMPOSITION)]
    art_style: Annotated[Words, _described("from the list only", ART_STYLE)]
