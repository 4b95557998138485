"""Both stand-in services in one process: SerpApi with its image host, and OpenAI.

    python -m demo.standins.services --catalogue demo-run/demo/art/catalogue.json --port 18765

Prints one JSON line with their URLs once both listen, and ends when its stdin closes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.standins import openai_standin, pixel_rules, serpapi_standin


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True, help="catalogue.json that demo.art.draw wrote")
    parser.add_argument("--port", type=int, required=True, help="port of SerpApi; OpenAI gets the next one")
    args = parser.parse_args(argv)
    try:
        with (
            serpapi_standin.serve(args.catalogue, port=args.port) as search,
            openai_standin.serve(judge=pixel_rules.judge, describe=pixel_rules.describe, port=args.port + 1) as models,
        ):
            print(json.dumps({"stand-in": True, "serpapi": search, "openai": models}, default=str), flush=True)
            sys.stdin.read()
    except OSError as error:
        print(f"error: port {args.port} or {args.port + 1} is not available ({error.strerror})", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
