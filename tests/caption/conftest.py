"""Datasets that are ready to be captioned, and stand-in servers that answer by the size of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo.standins.openai_standin import StandIn, run_server
from tests.conftest import check_bill

FIRST_WIDTH = 100
SENTENCE = "Umbreon sleeps on a mossy stone under the full moon in forest number {number}."

# An answer in the schema, for Umbreon at night.
FACTS: Mapping[str, Any] = {
    "caption": SENTENCE.format(number=0),
    "pokemon": ["umbreon"],
    "form": [None],
    "shiny_pokemon": [],
    "trainer_presence": False,
    "gijinka": False,
    "subject_count": "single",
    "multi_panel": False,
    "pose": ["curled_up"],
    "actions": ["sleeping"],
    "outfit": [],
    "props": ["stone"],
    "environment": ["outdoors"],
    "biome": ["forest"],
    "time_of_day": "night",
    "weather": "clear",
    "background": ["full_moon"],
    "characteristics": ["glowing_rings"],
    "composition": ["full_body"],
    "art_style": ["digital_painting"],
}


def describe_by_width(image: Image.Image) -> dict[str, Any]:
    """Return a caption that tells which of the pictures of `ready` was seen."""
    return {**FACTS, "caption": SENTENCE.format(number=image.width - FIRST_WIDTH)}


@pytest.fixture
def ready(dataset: Any) -> Callable[..., list[str]]:
    """Fill the dataset with so many images that wait for a caption, and return their ids.

    `captions` gives some of them a caption already: (sentence, tags as a dict) by place.
    """

    def fill(count: int, captions: Sequence[tuple[str, Mapping[str, Any]]] = ()) -> list[str]:
        from caption.tags import tags_to_cell

        ids = [f"{number:032x}" for number in range(count)]
        rows = []
        for number, image_id in enumerate(ids):
            path = Path("data_clean/base") / f"{image_id}.png"
            (dataset.root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (FIRST_WIDTH + number, 80), "navy").save(dataset.root / path)
            row: dict[str, object] = {"image_id": image_id, "path": path}
            if captions:
                sentence, tags = captions[number] if number < len(captions) else ("", {})
                row |= {"caption": sentence, "tags": tags_to_cell(tags) if sentence else ""}
            rows.append(row)
        dataset.write_images({"image_id": image_id, "species": "Umbreon"} for image_id in ids)
        dataset.write_base(rows)
        return ids

    return fill


@pytest.fixture
def stand_in(request: pytest.FixtureRequest) -> Iterator[Callable[..., StandIn]]:
    """Start a stand-in with options of its own; it keeps the requests, and its bill is checked after the test."""
    started: list[StandIn] = []
    with ExitStack() as stack:

        def start(**options: Any) -> StandIn:
            options = {"describe": describe_by_width, "keep": True, "retry_after": "0.01"} | options
            started.append(stack.enter_context(run_server(StandIn(**options))))
            return started[-1]

        yield start
    check_bill(request, started)


@pytest.fixture
def environment(a_day: dict[str, str]) -> Callable[[StandIn], dict[str, str]]:
    """Return the environment variables that lead to a stand-in."""
    return lambda server: {"OPENAI_BASE_URL": server.address, "OPENAI_API_KEY": "sk-test-0123456789abcdef", **a_day}
