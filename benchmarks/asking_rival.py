"""The comparisons of asking.py, in the environment of scoring: a loop of single calls; and token counts.

python benchmarks/asking_rival.py FOLDER              asks about every picture of a folder, prints {"seconds": …}
python benchmarks/asking_rival.py --processor FOLDER  prints processor seconds by round, {"client": […], "httpx": […]}
python benchmarks/asking_rival.py --tokens            prints what a question counts, by the rule of the price list
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pokefa.llm.client import Client
from pokefa.llm.images import View
from pokefa.llm.models import facts_of, picture_tokens
from pokefa.llm.prompt import expected_tokens
from pokefa.llm.request import request_body
from pokefa.llm.wire import RequestOptions
from preprocess.score.score import INSTRUCTIONS, MAX_SIDE, QUESTION

MODEL = "gpt-5-mini"
EXAMPLES = 3
SIZES = ((1024, 1024), (1024, 1448), (1536, 2048))


def ask_one_by_one(folder: Path) -> float:
    """Ask about each image as in the openai package's documentation; return the seconds."""
    import openai

    client = openai.OpenAI()
    began = time.perf_counter()
    for path in sorted(folder.iterdir()):
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        form = {"type": "json_schema", "name": QUESTION.name, "strict": True, "schema": QUESTION.schema}
        image = {"type": "input_image", "detail": "high", "image_url": f"data:image/jpeg;base64,{data}"}
        response = client.responses.create(
            model=MODEL,
            instructions=INSTRUCTIONS,
            input=[{"role": "user", "content": [image]}],
            text={"format": form},
        )
        json.loads(response.output_text)
    return time.perf_counter() - began


def time_processor(folder: Path, rounds: int = 5) -> dict[str, list[float]]:
    """Return the processor seconds of each round of calls about all images, for our client and a minimal loop.

    Both send the same bytes and read the same answers; the server is another process.
    """
    import httpx2  # installed by the openai package

    pictures = [path.read_bytes() for path in sorted(folder.iterdir())]
    model = Client(RequestOptions(MODEL, is_openai=False))
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}

    def ask(jpeg: bytes) -> None:
        if model.ask(QUESTION, jpeg, size=(1, 1)).value is None:
            raise RuntimeError("no usable answer: a comparison would mean nothing")

    with httpx2.Client(headers=headers) as bare:

        def post(jpeg: bytes) -> None:
            body = request_body(model.form, QUESTION, jpeg, "")
            reply = bare.post(f"{os.environ['OPENAI_BASE_URL']}/responses", json=body).json()
            json.loads(reply["output"][1]["content"][0]["text"])

        calls: Mapping[str, Callable[[bytes], None]] = {"client": ask, "httpx": post}
        found: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(rounds + 1):
            for name, call in calls.items():
                began = time.process_time()
                for jpeg in pictures:
                    call(jpeg)
                if number:  # the first one imports and connects
                    found[name].append(time.process_time() - began)
    return found


def count_tokens() -> list[dict[str, object]]:
    """Return input tokens by image size: ours, ours at full size, and with three examples at full size."""
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
    result: Mapping[str, object]
    if words == ["--tokens"]:
        result = {"tokens": count_tokens()}
    elif words[0] == "--processor":
        result = time_processor(Path(words[1]))
    else:
        result = {"seconds": ask_one_by_one(Path(words[0]))}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
