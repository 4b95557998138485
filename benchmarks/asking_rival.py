"""What asking.py compares with, in the environment of the scores: a loop of single calls; and counts of tokens.

python benchmarks/asking_rival.py FOLDER     asks about every picture of a folder, prints {"seconds": …}
python benchmarks/asking_rival.py --tokens   prints what a question counts, by the rule of the price list
"""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path

from pokefa.llm.images import View
from pokefa.llm.models import facts_of, picture_tokens
from pokefa.llm.prompt import expected_tokens
from preprocess.score.score import INSTRUCTIONS, MAX_SIDE, QUESTION, SCHEMA

MODEL = "gpt-5-mini"
EXAMPLES = 3
SIZES = ((1024, 1024), (1024, 1448), (1536, 2048))


def ask_one_by_one(folder: Path) -> float:
    """Ask about each picture as the openai package's documentation shows it; return the seconds."""
    import openai

    client = openai.OpenAI()
    began = time.perf_counter()
    for path in sorted(folder.iterdir()):
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        form = {"type": "json_schema", "name": QUESTION.name, "strict": True, "schema": SCHEMA}
        image = {"type": "input_image", "detail": "high", "image_url": f"data:image/jpeg;base64,{data}"}
        response = client.responses.create(
            model=MODEL,
            instructions=INSTRUCTIONS,
            input=[{"role": "user", "content": [image]}],
            text={"format": form},
        )
        json.loads(response.output_text)
    return time.perf_counter() - began


def count_tokens() -> list[dict[str, object]]:
    """Return input tokens by size of picture: ours, ours at full size, and with three examples at full size."""
    facts = facts_of(MODEL)
    found: list[dict[str, object]] = []
    for width, height in SIZES:
        large = View(facts).size(width, height)
        full = expected_tokens(QUESTION, "", large, facts)
        found.append(
            {
                "size": f"{width} × {height}",
                "ours": expected_tokens(QUESTION, "", View(facts, max_side=MAX_SIDE).size(width, height), facts),
                "full": full,
                "examples": full + EXAMPLES * picture_tokens(*large, facts),
            }
        )
    return found


def main(words: list[str]) -> int:
    result = {"tokens": count_tokens()} if words == ["--tokens"] else {"seconds": ask_one_by_one(Path(words[0]))}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
