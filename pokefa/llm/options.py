"""The options that every stage with a model offers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pokefa.llm import model_choice
from pokefa.llm.client import TIMEOUT_S
from pokefa.llm.flex import THENS, Then
from pokefa.llm.images import DETAILS, Detail, View
from pokefa.llm.models import ModelFacts, facts_of
from pokefa.llm.server import ADDRESS_VARIABLE, KEY_VARIABLE, host_of, is_openai, server_address
from pokefa.llm.wire import APIS, Api, RequestOptions
from pokefa.stage.options import StageParser, add_decoding_options, number, positive_int

DEFAULT_CONCURRENCY = 32

BatchStep = Literal["submit", "status", "collect", "wait"]
BATCH_STEPS: tuple[BatchStep, ...] = ("submit", "status", "collect", "wait")

FLEX_PATIENCE_S = 600.0
BATCH_POLL_S = 60.0


@dataclass(frozen=True)
class Settings:
    """How the model is asked.

    Args:
        model: its name.
        defaults: the stage's models if the user named none, the first available one first.
        concurrency: images asked about at once.
        max_output_tokens: per answer; None = the most that the question can need.
        max_cost: dollars that a run may spend; None = no limit.
        estimate: only report the expected cost of the run.
        ask_again: do not use stored answers.
        flex, flex_patience, flex_then: use the flex tier; how many seconds to wait for capacity; what to do afterwards.
        timeout: seconds until a request is given up; None = the default.
        batch: the step of the Batch API, if it is used.
        batch_poll: seconds between two polls of the batches.
    """

    model: str
    defaults: tuple[str, ...] = ()
    concurrency: int = DEFAULT_CONCURRENCY
    api: Api = "responses"
    detail: Detail = "high"
    max_side: int | None = None
    max_output_tokens: int | None = None
    max_cost: float | None = None
    estimate: bool = False
    ask_again: bool = False
    flex: bool = False
    flex_patience: float = FLEX_PATIENCE_S
    flex_then: Then = "stop"
    batch: BatchStep | None = None
    batch_poll: float = BATCH_POLL_S
    timeout: float | None = None

    @property
    def facts(self) -> ModelFacts | None:
        return facts_of(self.model)

    @property
    def view(self) -> View:
        return View(self.facts, self.detail, self.max_side)

    def form(self) -> RequestOptions:
        """Return the request options for the server in the environment."""
        at_openai = is_openai(host_of(server_address()))
        return RequestOptions(
            self.model, self.api, self.detail, at_openai, self.timeout, self.flex, self.max_output_tokens
        )


LONGEST_NAME = 200  # of a model's name


def add_options(parser: StageParser, models: Sequence[str], *, max_side: int | None = None) -> None:
    """Add the options that `settings_from` reads.

    Args:
        models: the stage's default models; the first one that is not shut down is used.
        max_side: default for the longest side in pixels of the images sent.
    """
    add_decoding_options(parser)
    parser.for_one_run("estimate", "batch", "batch_poll", "ask_again")
    group = parser.add_argument_group(f"the model, at {ADDRESS_VARIABLE} with the key in {KEY_VARIABLE}")
    parser.set_defaults(_models=tuple(models))  # underscore: not a setting of the user
    whose = f"model to use (default: the first of {' and '.join(models)} that is not shut down)"
    group.add_argument("--model", type=model_name, help=whose)
    how_many = "images asked about at once"
    group.add_argument("--concurrency", type=positive_int, default=DEFAULT_CONCURRENCY, metavar="N", help=how_many)
    group.add_argument(
        "--timeout",
        type=number(1),
        metavar="SECONDS",
        help=f"give up a request after this time; if answers take a quarter of it, fewer are sent at once (default: "
        f"{TIMEOUT_S:.0f})",
    )
    group.add_argument("--api", choices=APIS, default="responses", help="chat: for servers without the Responses API")
    group.add_argument("--detail", choices=DETAILS, default="high", help="detail level of an image")
    group.add_argument(
        "--max-side",
        type=positive_int,
        default=max_side,
        metavar="PX",
        help="downscale so that the longer side is at most PX",
    )
    group.add_argument(
        "--max-output-tokens",
        type=positive_int,
        metavar="N",
        help="maximum tokens per answer, reasoning included (default: the most it can need)",
    )
    group.add_argument("--max-cost", type=number(0), metavar="USD", help="stop before this run costs more (exit 3)")
    group.add_argument("--ask-again", action="store_true", help="do not reuse stored answers: ask and pay again")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--estimate", action="store_true", help="print the expected cost, and send nothing")
    how.add_argument("--flex", action="store_true", help="half the price, slower, when the server has capacity")
    how.add_argument(
        "--batch",
        choices=BATCH_STEPS,
        help="use the Batch API at half the price: submit pending images, show the status, collect the answers; or "
        "wait, which does all three until nothing is pending",
    )
    group.add_argument(
        "--flex-patience",
        type=number(0),
        default=FLEX_PATIENCE_S,
        metavar="SECONDS",
        help="how long to wait for capacity of the flex tier",
    )
    group.add_argument(
        "--flex-then", choices=THENS, default="stop", help="after that: stop (exit 3), or use the standard tier"
    )
    group.add_argument(
        "--batch-poll", type=number(0), default=BATCH_POLL_S, metavar="SECONDS", help="polling interval of --batch wait"
    )


def model_name(text: str) -> str:
    """Parse a model's name, which is stored in the ledger and sent in every request (an argparse type)."""
    if len(text) > LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"the name has {len(text)} characters, and may have {LONGEST_NAME}")
    if not text or not text.isprintable() or text != text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a model")
    return text


def check_server(args: argparse.Namespace) -> None:
    """Check the server's address and the model before an earlier stage starts, for pokefa.stage.check_step.

    Raises:
        InputError: the address is not http or https, or the model is shut down.
    """
    settings = settings_from(args)
    if settings.form().is_openai:
        model_choice.check_alive(settings.model, model_choice.today())


def settings_from(args: argparse.Namespace) -> Settings:
    """Read the options of `add_options`."""
    return Settings(
        model=args.model or model_choice.first_alive(args._models, model_choice.today()),
        defaults=() if args.model else args._models,
        concurrency=args.concurrency,
        api=args.api,
        detail=args.detail,
        max_side=args.max_side,
        max_output_tokens=args.max_output_tokens,
        max_cost=args.max_cost,
        estimate=args.estimate,
        ask_again=args.ask_again,
        flex=args.flex,
        flex_patience=args.flex_patience,
        flex_then=args.flex_then,
        batch=args.batch,
        batch_poll=args.batch_poll,
        timeout=args.timeout,
    )
