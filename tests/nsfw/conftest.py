"""The stand-in model, built once, and pictures with a known share of magenta."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from demo.standins.nsfw_model import build_project

MAGENTA = (255, 0, 255)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "stand-in"
    assert build_project(folder)
    return folder


@pytest.fixture(scope="session")
def draw_magenta_share() -> Callable[..., Image.Image]:
    """Draw a picture of green and orange shapes whose lower part, a share of its pixels, is pure magenta."""

    def draw(share: float, size: tuple[int, int] = (512, 512)) -> Image.Image:
        width, height = size
        image = Image.new("RGB", size, (90, 160, 80))
        pen = ImageDraw.Draw(image)
        pen.ellipse((width // 8, height // 8, width // 2, height // 2), fill=(240, 140, 30))
        pen.ellipse((width // 2, height // 4, width - 1, height // 2), fill=(120, 90, 210))
        top = round(height * (1 - share))
        if top < height:
            pen.rectangle((0, top, width, height), fill=MAGENTA)
        return image

    return draw
