"""The inpainters: the weights found or downloaded, and loaded as a function that fills holes.

LaMa (Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022) runs through
simple-lama-inpainting, on the GPU where PyTorch sees one. `--inpainter opencv` is Telea's fast marching method ("An
Image Inpainting Technique Based on the Fast Marching Method", 2004): no weights, and good for thin text on plain
ground alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from pokefa.engine import describe
from pokefa.errors import InputError, PokefaError
from pokefa.model_files import ModelFile, fetch, sha256_of

BIG_LAMA = ModelFile(
    name="big-lama.pt",
    url="https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt",
    size=205_669_692,
    sha256="344c77bbcb158f17dd143070d1e789f38a66c04202311ae3a258ef66667a9ea9",
)
WAYS_OUT = "download it elsewhere and name it in LAMA_MODEL, or choose --inpainter opencv, which needs no weights"

# Pixels around the masked ones that Telea's method looks at.
TELEA_RADIUS = 5

Kind = Literal["lama", "opencv"]
Inpainter = Callable[[Sequence[Image.Image], Sequence[Image.Image]], list[Image.Image]]


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
    """Return the function that fills holes: RGB images and masks of mode L (255 = fill), all of one size, to images.

    The function raises PokefaError where it fails, `out_of_memory` or `inpainter_failed`.

    Raises:
        PokefaError: the weights are no TorchScript model.
    """
    import cv2
    import numpy as np

    cv2.setNumThreads(threads)
    if model.kind == "opencv":
        return lambda images, masks: [
            Image.fromarray(cv2.inpaint(np.asarray(image), np.asarray(mask), TELEA_RADIUS, cv2.INPAINT_TELEA))
            for image, mask in zip(images, masks, strict=True)
        ]
    return load_lama(model, threads)


def load_lama(model: InpainterModel, threads: int) -> Inpainter:
    """Return `load_inpainter`'s function for LaMa, which fills all images of a call at once."""
    import torch
    from simple_lama_inpainting import SimpleLama
    from simple_lama_inpainting.utils.util import prepare_img_and_mask

    torch.set_num_threads(threads)
    os.environ["LAMA_MODEL"] = str(model.weights)  # where SimpleLama looks; else it downloads something unchecked
    try:
        lama = SimpleLama()
    except RuntimeError as error:
        raise PokefaError(
            f"{model.weights} is no TorchScript model ({describe(error)}): name another file in LAMA_MODEL"
        ) from None

    def fill(images: Sequence[Image.Image], masks: Sequence[Image.Image]) -> list[Image.Image]:
        # SimpleLama's own call takes one image. This does the same to several; both mirror them out to multiples of 8.
        prepared = [prepare_img_and_mask(*both, lama.device) for both in zip(images, masks, strict=True)]
        width, height = images[0].size
        try:
            with torch.inference_mode():
                filled = lama.model(*(torch.cat(tensors) for tensors in zip(*prepared, strict=True)))
                levels = (filled[:, :, :height, :width] * 255).clamp(0, 255).to(torch.uint8)
        except (MemoryError, RuntimeError) as error:
            raise failure(error, f"{len(images)} crop{'s' * (len(images) > 1)} of {width}x{height}") from None
        return [Image.fromarray(pixels) for pixels in levels.permute(0, 2, 3, 1).cpu().numpy()]

    return fill


def failure(error: MemoryError | RuntimeError, what: str) -> PokefaError:
    """Return an error of PyTorch as one of ours: the first lines of its text are TorchScript's own traceback."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, MemoryError) or "memory" in lines[-1]:
        return PokefaError(f"out_of_memory: the inpainter needs more memory than there is for {what}")
    return PokefaError(f"inpainter_failed: {lines[-1]}, for {what}")
