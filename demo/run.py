"""The demo: all ten stages on drawn pictures, with stand-ins for the services and weights that cost money or bytes.

Standard library only. See demo/README.md for what is drawn and by which rules the stand-ins answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pokefa.errors import InputError, PokefaError
from pokefa.images.confined import can_confine
from pokefa.setup.steps import STEPS, Command, Runner

DEMO_PORT = 18765

DRAW = Command("draw", None, "core", ("-m", "demo.art.draw"))
NSFW_MODEL = Command("nsfw_model", None, "nsfw", ("-m", "demo.standins.nsfw_model"))
INPAINT_MODEL = Command("inpaint_model", None, "ocr", ("-m", "demo.standins.inpaint_model"))
SERVICES = Command("services", None, "core", ("-m", "demo.standins.services"))
UNFLAG = Command("nsfw_unflag", 2, "nsfw", ("preprocess/nsfw/nsfw_unflag.py",))
REPORT = Command("report", None, "metadata", ("metadata/report.py",))

# The demo makes its models itself.
TRUST = ["--trust-model-file", *([] if can_confine() else ["--unconfined-model-file"])]

NOTICE = """\
PokeFA demo. The pictures are drawn by a program. SerpApi, the image host and OpenAI are stand-ins on this machine,
and so are the weights of the NSFW and inpainting models: they answer by the rules in demo/README.md, and what they
say means nothing about real images. The stages that use them are the real ones."""


def run_demo(root: Path, port: int) -> None:
    """Draw the pictures, start the stand-ins, run every stage, and say where the results are.

    Raises:
        InputError: the ports cannot be taken.
        CommandFailed: a step failed.
    """
    root = root.absolute()
    folder = root / "demo"
    catalogue_path = folder / "art" / "catalogue.json"
    key = "key-of-the-demo-stand-in"
    search = {"SERPAPI_BASE_URL": f"http://127.0.0.1:{port}", "SERPAPI_API_KEY": key}
    models = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port + 1}/v1", "OPENAI_API_KEY": key}
    runner = Runner(
        root,
        flags={
            "nsfw": ["--model-dir", str(folder / "nsfw_model"), *TRUST],
            # Nobody looks in between: large titles are painted over, and what may be no text is left alone.
            "ocr": [*TRUST, "--paint-doubtful", "--min-doubtful", "0.95"],
            # Twelve species are all head by the defaults, which would put half of so small a set into validation.
            "split": ["--head-rank", "6", "--head-images", "1", "--middle-rank", "6"],
        },
        variables={
            "scrape": search,
            "ocr": {"LAMA_MODEL": str(folder / "inpaint_model.pt")},
            "score": models,
            "sentence_tags": models,
        },
    )
    print(NOTICE)
    with runner.locked():
        prepare(runner, folder)
        pictures: list[dict[str, Any]] = json.loads(catalogue_path.read_text())["pictures"]
        species = sorted({picture["species"] for picture in pictures})
        with services(runner, catalogue_path, port):
            for step in STEPS:
                runner.run(step, *(["--allow-private", "--species", *species] if step.name == "scrape" else []))
                if step.name == "nsfw":
                    # What a person would do after looking through the flagged images.
                    cleared = sorted(picture["md5"] for picture in pictures if picture["kind"] == "nsfw_false_alarm")
                    runner.run(UNFLAG, "--ids", *cleared, "--note", "a balloon, not what the model took it for")
            runner.run(REPORT)
    print(f"\nshards   {root / 'webdataset' / 'data'}")
    print(f"ledger   {root / 'metadata' / 'images.csv'}")
    print(f"report   {root / 'metadata' / 'report.html'}")


def prepare(runner: Runner, folder: Path) -> None:
    """Draw the pictures and build the small models, each unless it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "standin.txt").write_text("This dataset was made by `pipeline.py demo` with stand-in services.\n")
    for command, target in (
        (DRAW, folder / "art"),
        (NSFW_MODEL, folder / "nsfw_model"),
        (INPAINT_MODEL, folder / "inpaint_model.pt"),
    ):
        marker = folder / f".{command.name}.done"
        if not marker.exists():
            runner.run(command, "--out", str(target))
            marker.touch()


@contextmanager
def services(runner: Runner, catalogue: Path, port: int) -> Iterator[None]:
    """Keep the stand-in services running; they end with this process, however it ends.

    Raises:
        InputError: their ports cannot be taken.
    """
    process = runner.start(SERVICES, "--catalogue", str(catalogue), "--port", str(port))
    try:
        assert process.stdout is not None
        addresses = process.stdout.readline()
        if not addresses:
            raise InputError(f"the stand-in services did not start: choose other ports with --port (now {port})")
        print(f"  {addresses.strip()}", flush=True)
        yield
    finally:
        process.communicate()  # closes its stdin, which ends it
    if process.returncode:
        raise PokefaError(f"the stand-in services ended with exit code {process.returncode}")
