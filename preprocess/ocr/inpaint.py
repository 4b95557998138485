"""Inpainting: an image and a mask in, the image with the masked text painted over out.

LaMa (Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022) runs through
simple-lama-inpainting. `--inpainter opencv` is Telea's fast marching method ("An Image Inpainting Technique Based on
the Fast Marching Method", 2004): no weights, and good for thin text on plain ground alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from pokefa.engine import Work, describe, each
from pokefa.errors import InputError, PokefaError
from pokefa.images import flatten, open_image
from pokefa.model_files import ModelFile, fetch, sha256_of
from pokefa.run import Row
from pokefa.table import replacing

INPAINTED_FOLDER = "data_stage/OCR_inpainted"

BIG_LAMA = ModelFile(
    name="big-lama.pt",
    url="https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt",
    size=205_669_692,
    sha256="344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9",
)
WAYS_OUT = "download it elsewhere and name it in LAMA_MODEL, or choose --inpainter opencv, which needs no weights"

# Pixels around the masked ones that Telea's method looks at.
TELEA_RADIUS = 5

# What the inpainter sees around the mask: at least this many pixels, and as much again as the mask is large.
LEAST_CONTEXT_PX = 128

Kind = Literal["lama", "opencv"]
Inpainter = Callable[[Image.Image, Image.Image], Image.Image]


@dataclass(frozen=True)
class InpainterModel:
    """The inpainter that was chosen, with its weights, if it has any, on disk.

    Args:
        label: what to call it in the ledger, with its version.
    """

    kind: Kind
    label: str
    weights: Path | None = None


def weights_by_hand() -> Path | None:
    """Return the weights that the user names in LAMA_MODEL, or None.

    Raises:
        InputError: there is no such file.
    """
    named = os.environ.get("LAMA_MODEL")
    if not named:
        return None
    path = Path(named)
    if not path.is_file():
        raise InputError(f"LAMA_MODEL names {path}, which is no file: correct it, or unset it to download big-lama.pt")
    return path.absolute()


def find_inpainter(kind: Kind) -> InpainterModel:
    """Return the inpainter, its weights from LAMA_MODEL or else downloaded once.

    Raises:
        InputError: LAMA_MODEL names no file.
        PokefaError: the weights cannot be downloaded.
    """
    if kind == "opencv":
        import cv2

        return InpainterModel("opencv", f"opencv-telea {cv2.__version__}")
    weights = weights_by_hand()
    if weights is None:
        weights, sha256 = fetch(BIG_LAMA, ways_out=WAYS_OUT), BIG_LAMA.sha256
    else:
        sha256 = sha256_of(weights)
    return InpainterModel("lama", f"lama {weights.name} {sha256[:12]}", weights)


def load_inpainter(model: InpainterModel, threads: int) -> Inpainter:
    """Return the function that fills a hole: RGB image and mask of mode L (255 = fill) to RGB image of the same size.

    Raises:
        PokefaError: the weights are no TorchScript model.
    """
    import cv2
    import numpy as np

    cv2.setNumThreads(threads)
    if model.kind == "opencv":
        return lambda image, mask: Image.fromarray(
            cv2.inpaint(np.asarray(image), np.asarray(mask), TELEA_RADIUS, cv2.INPAINT_TELEA)
        )

    import torch
    from simple_lama_inpainting import SimpleLama

    torch.set_num_threads(threads)
    os.environ["LAMA_MODEL"] = str(model.weights)  # where SimpleLama looks; else it downloads something unchecked
    try:
        lama = SimpleLama()
    except RuntimeError as error:
        raise PokefaError(
            f"{model.weights} is no TorchScript model ({describe(error)}): name another file in LAMA_MODEL"
        ) from None

    def fill(image: Image.Image, mask: Image.Image) -> Image.Image:
        # SimpleLama mirrors the image out to multiples of 8 pixels and does not cut that off again.
        filled: Image.Image = lama(image, mask)
        return filled.crop((0, 0, *image.size))

    return fill


def crop_around(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part of an image of (width, height) `size` that is enough to fill what is masked inside `box`.

    Boxes are (left, top, right, bottom) in pixels, right and bottom exclusive.
    """
    left, top, right, bottom = box
    across = max(LEAST_CONTEXT_PX, right - left)
    down = max(LEAST_CONTEXT_PX, bottom - top)
    return max(0, left - across), max(0, top - down), min(size[0], right + across), min(size[1], bottom + down)


def paint_over(image: Image.Image, mask: Image.Image, inpainter: Inpainter) -> Image.Image:
    """Return a copy of the image, in its own mode, whose masked pixels are filled in; all others are the same.

    The alpha channel stays as it is. The inpainter sees transparent parts as white.

    Raises:
        PokefaError: mask and image differ in size, or nothing is masked.
    """
    if mask.size != image.size:
        raise PokefaError(
            f"mask_mismatch: the mask has {mask.width}x{mask.height} pixels, the image {image.width}x{image.height}"
        )
    masked = mask.getbbox()
    if masked is None:
        raise PokefaError("empty_mask: the mask is black")
    part = crop_around(masked, image.size)
    hole = mask.crop(part)
    original = image.crop(part)
    filled = inpainter(flatten(original), hole).convert("L" if image.mode in ("L", "LA") else "RGB")
    if "A" in image.mode:
        filled.putalpha(original.getchannel("A"))
    result = image.copy()
    result.paste(filled, part, hole)
    return result


def inpainted_path(image_id: str) -> str:
    """Return where the inpainted image is kept, relative to the root."""
    return f"{INPAINTED_FOLDER}/{image_id}.png"


@dataclass(frozen=True)
class InpaintRows:
    """The worker: paints over the text of a batch of rows and writes the results.

    Args:
        threads: cores for each worker.
    """

    root: Path
    model: InpainterModel
    threads: int

    def __call__(self) -> Work[Row, str]:
        inpainter = load_inpainter(self.model, self.threads)
        return each(lambda row: self.inpaint_row(row, inpainter))

    def inpaint_row(self, row: Row, inpainter: Inpainter) -> str:
        """Return the path of the inpainted image, relative to the root."""
        image = open_image(self.root / str(row["path_raw"]))
        mask = open_image(self.root / str(row["ocr_mask_path"])).convert("L").point(lambda value: 255 * (value > 0))
        target = inpainted_path(str(row["image_id"]))
        result = paint_over(image, mask, inpainter)
        with replacing(self.root / target) as stream:
            result.save(stream, "PNG")
        return target
