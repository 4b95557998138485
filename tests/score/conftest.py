"""Datasets that are ready to be scored, and stand-in servers that answer by the size of a picture."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo.standins.openai_standin import StandIn, run_server
from pokefa.llm import model_choice
from tests.conftest import A_DAY, check_bill

KEY = "sk-test-0123456789abcdef"
FIRST_WIDTH = 100


def judge_by_width(image: Image.Image) -> dict[str, Any]:
    """Return scores that tell which of the pictures of `ready` was seen."""
    number = image.width - FIRST_WIDTH
    return {"relevance": 90, "aesthetic": 50 + number % 50, "artifact": "none"}


@pytest.fixture
def ready(dataset: Any) -> Callable[[int], list[str]]:
    """Fill the dataset with so many images that wait for a score, and return their ids."""

    def fill(count: int) -> list[str]:
        ids = [f"{number:032x}" for number in range(count)]
        rows = []
        for number, image_id in enumerate(ids):
            path = Path("data_stage/resized/001-150/0001_umbreon") / f"{image_id}.png"
            (dataset.root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (FIRST_WIDTH + number, 80), "teal").save(dataset.root / path)
            rows.append({"image_id": image_id, "is_nsfw": False, "has_ocr": False, "path_resized": path})
        dataset.write_images(rows)
        return ids

    return fill


@pytest.fixture
def stand_in(request: pytest.FixtureRequest) -> Iterator[Callable[..., StandIn]]:
    """Start a stand-in with options of its own: `stand_in(failures=["refusal"])`; it keeps the requests.

    After the test, what all stand-ins have charged is held against what the dataset's runs say that they have cost.
    """
    started: list[StandIn] = []
    with ExitStack() as stack:

        def start(**options: Any) -> StandIn:
            options = {"judge": judge_by_width, "keep": True, "retry_after": "0.01"} | options
            started.append(stack.enter_context(run_server(StandIn(**options))))
            return started[-1]

        yield start
    check_bill(request, started)


@pytest.fixture
def environment(a_day: dict[str, str]) -> Callable[[StandIn], dict[str, str]]:
    """Return the environment variables that lead to a stand-in."""
    return lambda server: {"OPENAI_BASE_URL": server.address, "OPENAI_API_KEY": KEY, **a_day}


@pytest.fixture(autouse=True)
def day_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have scripts that run in the test's own process do so on the same day as the others."""
    monkeypatch.setattr(model_choice, "today", lambda: datetime.date.fromisoformat(A_DAY))
