"""The demo: all ten stages on drawn images, with stand-ins for paid services and large model files.

Standard library only. demo/README.md describes the images and the rules of the stand-ins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pokefa.errors import InputError, PokefaError
from pokefa.images.confined import can_confine
from pokefa.setup.runner import Runner
from pokefa.setup.steps import STEPS, Step, steps_in_run

DEMO_PORT = 18765

DRAW = Step("draw", "demo.art.draw", "core")
NSFW_MODEL = Step("nsfw_model", "demo.standins.nsfw_model", "nsfw")
INPAINT_MODEL = Step("inpaint_model", "demo.standins.inpaint_model", "ocr")
SERVICES = Step("services", "demo.standins.services", "core")

# The demo builds its own models.
TRUST = ["--trust-model-file", *([] if can_confine() else ["--unconfined-model-file"])]

NOTICE = """\
PokeFA demo. A program draws the images. SerpApi, the image host and OpenAI are stand-ins on this machine, and so are
the weights of the NSFW and inpainting models. They follow the rules in demo/README.md, and their answers mean nothing
for real images. The stages are the real ones."""


def run_demo(root: Path, port: int) -> None:
    """Draw the images, start the stand-ins, run every stage, and print where the results are.

    Raises:
        InputError: the ports are not available.
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
            # Nobody reviews images in between: large titles are inpainted, and what may be no text is left alone. With
            # the default of 0.95, the frame of a window counts as text.
            "ocr": [*TRUST, "--paint-doubtful", "--min-plausible", "0.98", "--min-doubtful", "0.98"],
            # With the defaults, all twelve species are head, and half of this small set would be in validation.
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
            for step in steps_in_run():
                runner.run(step, *(["--allow-private", "--species", *species] if step.name == "scrape" else []))
                if step.name == "nsfw_filter":
                    # A person would do this after reviewing the flagged images.
                    cleared = sorted(picture["md5"] for picture in pictures if picture["kind"] == "nsfw_false_alarm")
                    runner.run(STEPS["nsfw_unflag"], "--ids", *cleared, "--note", "a balloon, a false alarm")
            runner.run(STEPS["report"])
    print(f"\nshards   {root / 'webdataset' / 'data'}")
    print(f"ledger   {root / 'metadata' / 'images.csv'}")
    print(f"report   {root / 'metadata' / 'report.html'}")


def prepare(runner: Runner, folder: Path) -> None:
    """Draw the images and build the small models, unless they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "standin.txt").write_text("This dataset was made by `pipeline.py demo` with stand-in services.\n")
    for step, target in (
        (DRAW, folder / "art"),
        (NSFW_MODEL, folder / "nsfw_model"),
        (INPAINT_MODEL, folder / "inpaint_model.pt"),
    ):
        marker = folder / f".{step.name}.done"
        if not marker.exists():
            runner.run(step, "--out", str(target))
            marker.touch()


@contextmanager
def services(runner: Runner, catalogue: Path, port: int) -> Iterator[None]:
    """Run the stand-in services; they end with this process.

    Raises:
        InputError: their ports are not available.
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
