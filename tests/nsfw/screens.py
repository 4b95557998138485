"""Screens that fail on purpose where a picture is red, and a script that runs the stage with one of them.

python tests/nsfw/screens.py --root FOLDER kills|exhausts
"""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pokefa.stage.options import Options
from pokefa.stage.runner import run_stage
from preprocess.nsfw.nsfw_filter import screen_images
from preprocess.nsfw.screening import TagModel

RED = (255, 0, 0)


def prepare(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((1, 1)), np.float32) / 255


def is_red(picture: np.ndarray) -> bool:
    return picture[0, 0].tolist() == [1, 0, 0]


@dataclass(frozen=True)
class Blueness:
    """Its only tag's score is how blue a picture is."""

    label: str = "test:blueness:0"
    tags: tuple[str, ...] = ("blue",)

    def load(self, threads: int) -> TagModel:
        return TagModel(prepare, self.scores)

    def scores(self, batch: np.ndarray) -> np.ndarray:
        return batch[:, 0, 0, 2:]


class Kills(Blueness):
    """Its process is killed when it looks at a red picture, as the system does when memory runs out."""

    def scores(self, batch: np.ndarray) -> np.ndarray:
        if any(map(is_red, batch)):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scores(batch)


class Exhausts(Blueness):
    """It asks for more memory than any machine has, unless it gets one picture alone that is not red."""

    def scores(self, batch: np.ndarray) -> np.ndarray:
        if len(batch) > 1 or is_red(batch[0]):
            np.zeros((10**6, 10**6, 10**3))
        return super().scores(batch)


SCREENS = {"kills": Kills, "exhausts": Exhausts}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("screen", choices=list(SCREENS), help="which screen")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    args = parser.parse_args()
    screen = SCREENS[args.screen]()
    return run_stage(
        "nsfw_filter", Options(root=args.root), lambda run: screen_images(run, lambda: screen, {"blue": 0.5}, 2)
    )


if __name__ == "__main__":
    raise SystemExit(main())
