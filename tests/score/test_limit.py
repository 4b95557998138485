"""That --max-cost holds: 500 runs with random failures, held against what the stand-in has charged."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from demo.standins.openai_standin import StandIn
from pokefa.errors import BudgetReached
from pokefa.llm.budget import Budget
from pokefa.llm.client import Client
from pokefa.llm.images import encode_jpeg
from pokefa.llm.models import MODELS
from pokefa.llm.prompt import AnswerError
from pokefa.llm.request import most_usd
from pokefa.llm.wire import RequestOptions
from preprocess.score.score import QUESTION
from tests.score.conftest import KEY

RUNS = 500
SIZE = (40, 30)
AT_ONCE = 3
# What happens to a request, and how often.
FATES = {"": 6, "lost": 1, "cut": 1, "rate_limit": 1, "server_error": 1, "runaway": 2, "invalid_json": 1, "refusal": 1}


def test_the_limit_is_never_exceeded(stand_in: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    import openai._base_client as sdk

    monkeypatch.setattr(sdk, "INITIAL_RETRY_DELAY", 0.0001)
    monkeypatch.setattr(sdk, "MAX_RETRY_DELAY", 0.0001)
    server = stand_in(keep=False, fixed=True, retry_after="0.0001")
    monkeypatch.setenv("OPENAI_BASE_URL", server.address)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    forms = [RequestOptions(name, is_openai=False, flex=flex) for name in MODELS for flex in (False, True)]
    models = [Client(form) for form in forms]
    jpeg = encode_jpeg(Image.new("RGB", SIZE, "teal"))
    ends = {"limit": 0, "done": 0}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for seed in range(RUNS):
            chance = random.Random(seed)
            model = chance.choice(models)
            budget = Budget(most_usd(model.form, QUESTION, "", SIZE) * chance.uniform(0.5, 8))
            server.play(chance.choices(list(FATES), list(FATES.values()), k=20))

            def ask(number: int, model: Client = model, budget: Budget = budget) -> str:
                try:
                    model.ask(QUESTION, jpeg, size=SIZE, budget=budget)
                except BudgetReached:
                    return "limit"
                except AnswerError:
                    pass
                return "done"

            before = server.bill.usd
            asked = list(threads.map(ask, range(5)))
            charged = server.bill.usd - before
            ends["limit" if "limit" in asked else "done"] += 1
            assert charged <= budget.most, f"seed {seed}"
            # What is known to the cent is charged; of what was lost no more than was held back.
            assert budget.spent - budget.lost - 1e-9 <= charged <= budget.spent + 1e-9, f"seed {seed}"
    assert min(ends.values()) > RUNS / 10, ends
