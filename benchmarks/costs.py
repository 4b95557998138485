"""The cost of scoring and captioning a complete dataset with each model, by the code of --estimate. Nothing is sent.

    python benchmarks/costs.py
    python benchmarks/costs.py --scores 20000 --captions 10000 --size 1024 1024

Prints Markdown. A run costs less, because cached tokens are not considered: after the first question the instructions
come from the cache. Run it in the environment of requirements/requirements_benchmarks.txt, with PYTHONPATH=. unless
that holds the project.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import table
from caption.sentence_tags import MODELS as CAPTION_MODELS
from caption.sentence_tags import QUESTION as CAPTION
from pokefa.llm.estimate import usd_by_tier
from pokefa.llm.images import View
from pokefa.llm.models import MODELS
from pokefa.llm.prompt import Question, expected_tokens
from preprocess.score.score import MAX_SIDE
from preprocess.score.score import MODELS as SCORE_MODELS
from preprocess.score.score import QUESTION as SCORE

SCORES, CAPTIONS = 30_000, 16_000
MIX = (SCORE_MODELS[-1], CAPTION_MODELS[-1])
SIZE = (1024, 1365)  # of a resized image, 3 to 4


def price(model: str, question: Question[Any], images: int, size: tuple[int, int], max_side: int | None) -> list[float]:
    """Return the dollars of `images` questions at each tier: standard, flex, batch."""
    facts = MODELS[model]
    given = expected_tokens(question, "", View(facts, max_side=max_side).size(*size), facts)
    usage = {"input_tokens": images * given, "output_tokens": images * question.output_tokens}
    return list(usd_by_tier(model, usage).values())


def cost_table(scores: int, captions: int, size: tuple[int, int]) -> str:
    """Return the table as Markdown: a row for each model, and one for the defaults after gpt-5-mini's shutdown."""
    rows = []
    for scorer, captioner in [*((model, model) for model in MODELS), MIX]:
        scored = price(scorer, SCORE, scores, size, MAX_SIDE)
        captioned = price(captioner, CAPTION, captions, size, None)
        both = [one + other for one, other in zip(scored, captioned, strict=True)]
        name = f"`{scorer}`" if scorer == captioner else f"`{scorer}`, captions `{captioner}`"
        rows.append([name, *(f"${dollars:.2f}" for dollars in (scored[0], captioned[0], *both))])
    heads = ["model", f"{scores:,} scores", f"{captions:,} captions", "both", "both, `--flex`", "both, `--batch`"]
    return table(heads, rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=int, default=SCORES, metavar="N", help="images to score")
    parser.add_argument("--captions", type=int, default=CAPTIONS, metavar="N", help="images to caption")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar="PX", help="width and height of an image")
    args = parser.parse_args(argv)
    width, height = args.size
    print(cost_table(args.scores, args.captions, (width, height)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
