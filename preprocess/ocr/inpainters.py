"""The inpainters: finds or downloads the weights, and loads them as a function that fills holes.

LaMa (Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022) runs through
simple-lama-inpainting, on the GPU if PyTorch sees one. `--inpainter opencv` is Telea's fast marching method ("An Image
Inpainting Technique Based on the Fast Marching Method", 2004): it needs no weights, and only suits thin text on plain
backgrounds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from pokefa.errors import InputError, PokefaError, one_line
from pokefa.files import sha256_of
from pokefa.images.confined import ConfinedModel
from pokefa.images.weights import ModelFile, Trust, check_trust, fetch, unpinned_file
from pokefa.machine import check_path
from pokefa.outside import LAMA_ADDRESS, LAMA_SHA256

if TYPE_CHECKING:
    from numpy.typing import NDArray

BIG_LAMA = ModelFile(
    name="big-lama.pt",
    url=LAMA_ADDRESS,
    size=205_669_692,
    sha256=LAMA_SHA256,
)
WAYS_OUT = "download it elsewhere and name it in LAMA_MODEL, or choose --inpainter opencv, which needs no weights"

# The radius around each masked pixel that Telea's method uses.
TELEA_RADIUS = 5

Kind = Literal["lama", "opencv"]
Inpainter = Callable[[Sequence[Image.Image], Sequence[Image.Image]], list[Image.Image]]


@dataclass(frozen=True)
class InpainterModel:
    """The chosen inpainter, with its weights, if any, on disk.

    Args:
        label: its name and version for the ledger.
        confined: the weights are not verified: they run in a process that cannot write.
    """

    kind: Kind
    label: str
    weights: Path | None = None
    confined: bool = False


def find_named_weights(trust: Trust) -> InpainterModel | None:
    """Return LaMa with the weights that the user names in LAMA_MODEL, or None.

    Raises:
        InputError: the file is missing, or differs from the pinned one and the user did not trust it.
    """
    named = os.environ.get("LAMA_MODEL")
    if not named:
        return None
    path = Path(named).absolute()
    check_path("LAMA_MODEL", path)
    if not path.is_file():
        raise InputError(f"LAMA_MODEL names {named}, which is no file: correct it, or unset it to download big-lama.pt")
    sha256 = sha256_of(path)
    if sha256 == BIG_LAMA.sha256:
        return InpainterModel("lama", lama_label(path, sha256), path)
    confined = check_trust(f"LAMA_MODEL: {unpinned_file(path, sha256, BIG_LAMA.sha256)}", trust)
    return InpainterModel("lama", lama_label(path, sha256), path, confined)


def lama_label(path: Path, sha256: str) -> str:
    """Return the ledger's label for LaMa with these weights."""
    pinned = sha256 == BIG_LAMA.sha256
    return f"lama {path.name} {sha256[:12]}" if pinned else f"lama {path.name} sha256:{sha256[:12]} unpinned"


def find_inpainter(kind: Kind) -> InpainterModel:
    """Return the inpainter; download its weights once.

    Raises:
        PokefaError: the weights cannot be downloaded.
    """
    if kind == "opencv":
        import cv2

        return InpainterModel("opencv", f"opencv-telea {cv2.__version__}")
    weights = fetch(BIG_LAMA, ways_out=WAYS_OUT)
    return InpainterModel("lama", lama_label(weights, BIG_LAMA.sha256), weights)


def load_inpainter(model: InpainterModel, threads: int) -> Inpainter:
    """Return the function that fills holes in RGB images, given masks of mode L (255 = fill), all of one size.

    The function raises PokefaError on failure: `out_of_memory` or `inpainter_failed`.

    Raises:
        PokefaError: the weights are not a TorchScript model.
    """
    import cv2
    import numpy as np

    cv2.setNumThreads(threads)
    if model.kind == "opencv":
        return lambda images, masks: [
            Image.fromarray(cv2.inpaint(np.asarray(image), np.asarray(mask), TELEA_RADIUS, cv2.INPAINT_TELEA))
            for image, mask in zip(images, masks, strict=True)
        ]
    assert model.weights is not None, "LaMa has weights"
    return load_confined_lama(model.weights, threads) if model.confined else load_lama(model.weights, threads)


def load_confined_lama(weights: Path, threads: int) -> Inpainter:
    """Return the same as `load_lama`, with the weights in a process of their own."""
    import numpy as np

    arguments = {"weights": str(weights), "threads": threads}
    model = ConfinedModel("preprocess.ocr.inpainters:serve_lama", arguments, [weights])

    def fill(images: Sequence[Image.Image], masks: Sequence[Image.Image]) -> list[Image.Image]:
        asked = np.stack([np.asarray(image) for image in images])
        filled = model(asked, np.stack([np.asarray(mask) for mask in masks]))
        if len(filled) != 1 or filled[0].shape != asked.shape or filled[0].dtype != np.uint8:
            raise PokefaError("inpainter_failed: its process gave something else than images of this size")
        return [Image.fromarray(pixels) for pixels in filled[0]]

    return fill


def serve_lama(weights: str, threads: int) -> tuple[Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]], Any]:
    """Load LaMa in a confined process: images (N, height, width, 3) and masks (N, height, width) to images, uint8."""
    import cv2
    import numpy as np

    cv2.setNumThreads(threads)
    fill = load_lama(Path(weights), threads)

    def fill_arrays(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        images, masks = ([Image.fromarray(pixels) for pixels in array] for array in arrays)
        return [np.stack([np.asarray(image) for image in fill(images, masks)])]

    return fill_arrays, {}


def load_lama(weights: Path, threads: int) -> Inpainter:
    """Return `load_inpainter`'s function for LaMa, which fills all images of a call at once."""
    import torch
    from simple_lama_inpainting import SimpleLama
    from simple_lama_inpainting.utils.util import prepare_img_and_mask

    torch.set_num_threads(threads)
    os.environ["LAMA_MODEL"] = str(weights)  # read by SimpleLama, which would otherwise download an unverified file
    try:
        lama = SimpleLama()
    except RuntimeError as error:
        raise PokefaError(
            f"{weights} is no TorchScript model ({one_line(error)}): name another file in LAMA_MODEL"
        ) from None

    def fill(images: Sequence[Image.Image], masks: Sequence[Image.Image]) -> list[Image.Image]:
        # SimpleLama's own call takes one image. This does the same for several; both mirror them out to multiples of 8.
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
    """Convert an error of PyTorch: the first lines of its text are TorchScript's own traceback."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, MemoryError) or "memory" in lines[-1]:
        return PokefaError(f"out_of_memory: the inpainter needs more memory than there is for {what}")
    return PokefaError(f"inpainter_failed: {lines[-1]}, for {what}")
