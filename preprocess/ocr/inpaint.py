"""Inpainting: takes an image and a mask, and paints over the masked text.

Only windows around the text go through the network, not the entire image. A hole too large for one window is filled at
a reduced size first, where it is no larger than the holes of LaMa's training. Then it is filled in tiles at full size
that see the coarse fill as their surroundings. Kulshreshtha et al. ("Feature Refinement to Improve High Resolution
Image Inpainting", 2022) also transfer LaMa's result from a small size to a large one; they refine by gradient descent,
which would take many times as long as the fill itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from pokefa.engine.work import Work, each
from pokefa.errors import ImageError, PokefaError
from pokefa.images.decoding import in_decoder, readable
from pokefa.images.files import flatten, open_image, to_png
from pokefa.images.storage import write_file
from pokefa.stage.runner import Row
from preprocess.ocr.crops import MOST_PIXELS, Region, Regions, batches, cut_tiles, fade_in, find_regions, reduction
from preprocess.ocr.inpainters import Inpainter, InpainterModel, load_inpainter

INPAINTED_FOLDER = "data_stage/OCR_inpainted"

# A third of the time of Pillow's default 6, for a tenth more bytes (benchmarks/resize.py). The pixels are the same.
PNG_LEVEL = 3


def paint_over(
    image: Image.Image, mask: Image.Image, inpainter: Inpainter, *, coarse_to_fine: bool = True
) -> Image.Image:
    """Return a copy of the image, in its own mode, with its masked pixels filled; all others are unchanged.

    The fill blends into the source inside the edge of the mask. The alpha channel stays as it is; the inpainter sees
    transparent parts as white.

    Args:
        image: of mode RGB, RGBA, L or LA.
        mask: of mode L and the same size: 255 where to fill, else 0.
        coarse_to_fine: fill a hole larger than a window of MOST_PIXELS in two passes; else at once, whatever its size.

    Raises:
        PokefaError: mask and image differ in size, nothing is masked, or the inpainter failed.
    """
    import numpy as np

    if mask.size != image.size:
        raise PokefaError(
            f"mask_mismatch: the mask has {mask.width}x{mask.height} pixels, the image {image.width}x{image.height}"
        )
    if mask.getbbox() is None:
        raise PokefaError("empty_mask: the mask is black")
    found = find_regions(np.asarray(mask))
    result = image.copy()
    for region, filled in fill_regions(image, mask, found, inpainter, coarse_to_fine):
        left, top, right, bottom = region.window
        part = np.s_[top:bottom, left:right]
        weight = np.where(found.owner[part] == region.number, found.blend[part], 0).astype(np.uint8)
        filled = filled.convert("L" if image.mode in ("L", "LA") else "RGB")
        if "A" in image.mode:
            filled.putalpha(image.crop(region.window).getchannel("A"))
        result.paste(filled, region.window, Image.fromarray(weight))
    return result


def fill_regions(
    image: Image.Image, mask: Image.Image, found: Regions, inpainter: Inpainter, coarse_to_fine: bool
) -> Iterator[tuple[Region, Image.Image]]:
    """Yield each region with its window filled, RGB."""
    import numpy as np

    large = [region for region in found.regions if coarse_to_fine and region.pixels > MOST_PIXELS]
    for chosen in batches(region for region in found.regions if region not in large):
        crops = [flatten(image.crop(region.window)) for region in chosen]
        holes = [mask.crop(region.window) for region in chosen]
        yield from zip(chosen, inpainter(crops, holes), strict=True)
    for region in large:
        left, top, right, bottom = region.window
        own = 255 * (found.owner[top:bottom, left:right] == region.number).astype(np.uint8)
        window = flatten(image.crop(region.window))
        yield region, fill_large(window, mask.crop(region.window), Image.fromarray(own), inpainter)


def fill_large(image: Image.Image, hole: Image.Image, own: Image.Image, inpainter: Inpainter) -> Image.Image:
    """Return the image filled from coarse to fine where `own` is 255.

    Args:
        image: RGB.
        hole: of mode L: 255 on all masked pixels, own or not, so that other text is not used as context.
    """
    surroundings = image.copy()
    surroundings.paste(fill_reduced(image, hole, inpainter), mask=own)
    result = surroundings.copy()
    others = ImageChops.subtract(hole, own)
    masked = own.getbbox()
    assert masked is not None, "a region has pixels"
    tiles = [tile for tile in cut_tiles(masked, image.size) if own.crop(tile.box).getbbox()]
    for chosen in batches(tiles):
        crops, holes = [], []
        for tile in chosen:
            crops.append(surroundings.crop(tile.window))
            holes.append(others.crop(tile.window))
            holes[-1].paste(255, tile.inner, own.crop(tile.box))
        for tile, filled in zip(chosen, inpainter(crops, holes), strict=True):
            share = Image.fromarray((255 * fade_in(tile)).round().astype("uint8"))
            result.paste(filled.crop(tile.inner), tile.box, ImageChops.multiply(share, own.crop(tile.box)))
    return result


def fill_reduced(image: Image.Image, hole: Image.Image, inpainter: Inpainter) -> Image.Image:
    """Return the image filled at a reduced size and enlarged again."""
    factor = reduction(image.width * image.height)
    small_hole = hole.reduce(factor).point(lambda value: 255 * (value > 0))
    [filled] = inpainter([image.reduce(factor)], [small_hole])
    # The last pixels of a reduced image may represent fewer source pixels than the others.
    exact = (0.0, 0.0, image.width / factor, image.height / factor)
    return filled.resize(image.size, Image.Resampling.BICUBIC, box=exact)


def inpainted_path(image_id: str) -> str:
    """Return the path of the inpainted image, relative to the root."""
    return f"{INPAINTED_FOLDER}/{image_id}.png"


@dataclass(frozen=True)
class InpaintRows:
    """The worker: paints over the text of a batch of rows and writes the results.

    Args:
        threads: cores per worker.
    """

    data: Path
    model: InpainterModel
    threads: int

    def __call__(self) -> Work[Row, str]:
        inpainter = load_inpainter(self.model, self.threads)
        return each(lambda row: self.inpaint_row(row, inpainter))

    def inpaint_row(self, row: Row, inpainter: Inpainter) -> str:
        """Return the path of the inpainted image, relative to the root."""
        image = in_decoder(open_image, readable(self.data / str(row["path_raw"])))
        try:
            mask = in_decoder(open_image, readable(self.data / str(row["ocr_mask_path"]))).convert("L")
        except ImageError as error:
            raise PokefaError(f"bad_mask: {error}") from None
        target = inpainted_path(str(row["image_id"]))
        mask = mask.point(lambda value: 255 * (value > 0))
        # Telea's method has no training size: tiles would only add edges.
        result = paint_over(image, mask, inpainter, coarse_to_fine=self.model.kind == "lama")
        write_file(self.data / target, to_png(result, PNG_LEVEL))
        return target
