"""How a model is asked: the options that every stage with a model offers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Literal

from pokefa.llm.client import ADDRESS_VARIABLE, KEY_VARIABLE, TIMEOUT_S, host_of, is_openai, server_address
from pokefa.llm.images import DETAILS, Detail, View
from pokefa.llm.prices import DEFAULT_MODEL, ModelFacts, facts_of
from pokefa.llm.wire import APIS, Api, Form
from pokefa.stage.options import add_decoding_options, number, positive_int

DEFAULT_CONCURRENCY = 32

BatchStep = Literal["submit", "status", "collect"]


@dataclass(frozen=True)
class Settings:
    """How the model is asked.

    Args:
        concurrency: pictures asked about at once.
        max_cost: dollars that a run may spend; None = no limit.
        estimate: only say what the run would cost.
        ask_again: do not use stored answers.
        timeout: seconds after which a request is given up; None = the usual.
        batch: go through the Batch API, in steps.
    """

    model: str = DEFAULT_MODEL
    concurrency: int = DEFAULT_CONCURRENCY
    api: Api = "responses"
    detail: Detail = "high"
    max_side: int | None = None
    max_cost: float | None = None
    estimate: bool = False
    ask_again: bool = False
    batch: BatchStep | None = None
    timeout: float | None = None

    @property
    def facts(self) -> ModelFacts | None:
        return facts_of(self.model)

    @property
    def view(self) -> View:
        return View(self.facts, self.detail, self.max_side)

    def form(self) -> Form:
        """Return how the server in the environment is to be spoken to."""
        return Form(self.model, self.api, self.detail, is_openai(host_of(server_address())), self.timeout)


LONGEST_NAME = 200  # of a model


def add_options(parser: argparse.ArgumentParser, *, max_side: int | None = None) -> None:
    """Offer what `settings_from` reads.

    Args:
        max_side: longest side in pixels in which the stage sends pictures by default.
    """
    add_decoding_options(parser)
    group = parser.add_argument_group(f"the model, at {ADDRESS_VARIABLE} with the key in {KEY_VARIABLE}")
    group.add_argument("--model", type=model_name, default=DEFAULT_MODEL, help="model that is asked")
    how_many = "pictures asked about at once"
    group.add_argument("--concurrency", type=positive_int, default=DEFAULT_CONCURRENCY, metavar="N", help=how_many)
    group.add_argument(
        "--timeout",
        type=number(1),
        metavar="SECONDS",
        help=f"give a request up after so long; fewer are sent at once when answers need a quarter of it (default: "
        f"{TIMEOUT_S:.0f})",
    )
    group.add_argument("--api", choices=APIS, default="responses", help="chat: for servers without the Responses API")
    group.add_argument("--detail", choices=DETAILS, default="high", help="how closely the model looks at a picture")
    group.add_argument(
        "--max-side", type=positive_int, default=max_side, metavar="PX", help="send pictures with no longer side"
    )
    group.add_argument("--max-cost", type=number(0), metavar="USD", help="spend no more in this run, then exit 3")
    group.add_argument("--ask-again", action="store_true", help="pay anew for questions whose answers are stored")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--estimate", action="store_true", help="say what the run would cost, and ask nothing")
    how.add_argument(
        "--batch",
        choices=["submit", "status", "collect"],
        help="the Batch API at half the price: submit what is pending, see how far it is, collect the answers",
    )


def model_name(text: str) -> str:
    """Parse a model's name, which goes into the ledger and into every request, for argparse."""
    if len(text) > LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"the name has {len(text)} characters, and may have {LONGEST_NAME}")
    if not text or not text.isprintable() or text != text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a model")
    return text


def check_server(args: argparse.Namespace) -> None:
    """Check the server's address before an earlier stage begins, for pokefa.stage.check_step.

    Raises:
        InputError: it is no http or https address.
    """
    settings_from(args).form()


def settings_from(args: argparse.Namespace) -> Settings:
    """Unpack the options of `add_options`."""
    return Settings(
        model=args.model,
        concurrency=args.concurrency,
        api=args.api,
        detail=args.detail,
        max_side=args.max_side,
        max_cost=args.max_cost,
        estimate=args.estimate,
        ask_again=args.ask_again,
        batch=args.batch,
        timeout=args.timeout,
    )
