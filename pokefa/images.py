"""Opening strangers' images: capped, upright, in sRGB, first frame, with every failure named.

`open_image` is the only way that a stage opens an image. It returns the mode "RGB", "RGBA", "L" or "LA" at 8 bits per
channel; `flatten` gives a model its RGB.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, ImageCms, ImageOps

from pokefa.errors import PokefaError

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}

_WHITE = (255, 255, 255)
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class ImageError(PokefaError):
    """An image that cannot be used; the message starts with its reason slug.

    Slugs: `missing_file`, `empty_file`, `too_many_bytes`, `too_many_pixels`, `not_an_image`, `truncated`.
    """

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(f"{slug}: {detail}")
        self.slug = slug
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.slug, self.detail)  # so that it comes whole out of a worker process


def open_image(
    source: Path | bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = FORMATS,
) -> Image.Image:
    """Return the decoded first frame of a file: upright, in sRGB, 8 bits per channel.

    The result has mode RGB or RGBA, or L or LA for grey images. 16-bit samples are scaled by 255/65535. CMYK and
    profiled images are converted through their embedded profile where they have one. Metadata is not carried over;
    `image.format` tells the file's format.

    Raises:
        ImageError: the file is missing, too large, of another format than `formats`, or damaged.
    """
    data = _read(source, max_bytes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning and EXIF remarks: the caps below decide
            opened = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except Exception:
        expected = " or ".join(formats or ("any image format",))
        raise ImageError("not_an_image", f"the bytes are not {expected}") from None
    with opened:
        width, height = opened.size
        if width * height > max_pixels:
            raise ImageError("too_many_pixels", f"{width}x{height} is over {max_pixels} pixels")
        name = opened.format
        try:
            opened.load()
            image = _to_srgb(ImageOps.exif_transpose(opened))
        except ImageError:
            raise
        except Exception as error:
            raise ImageError("truncated", f"{type(error).__name__}: {error}") from None
    image.format = name
    image.info = {}
    return image


def flatten(image: Image.Image) -> Image.Image:
    """Return the image as RGB, alpha laid on white."""
    if image.mode == "RGB":
        return image
    if "A" not in image.mode:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    ground = Image.new("RGB", image.size, _WHITE)
    ground.paste(rgba, mask=rgba.getchannel("A"))
    return ground


def has_alpha(image: Image.Image) -> bool:
    """Tell whether any pixel of the image is not opaque."""
    if "A" not in image.mode:
        return False
    lowest, _ = image.getchannel("A").getextrema()
    return isinstance(lowest, int | float) and lowest < 255


def _read(source: Path | bytes, max_bytes: int) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        try:
            with source.open("rb") as stream:
                data = stream.read(max_bytes + 1)
        except OSError as error:
            raise ImageError("missing_file", f"{source}: {error.strerror}") from None
    if not data:
        raise ImageError("empty_file", "0 bytes")
    if len(data) > max_bytes:
        raise ImageError("too_many_bytes", f"over {max_bytes} bytes")
    return data


def _to_srgb(image: Image.Image) -> Image.Image:
    """Return the image in RGB, RGBA, L or LA at 8 bits per channel, through its colour profile if it has one."""
    profile = image.info.get("icc_profile")
    if image.mode in _SIXTEEN_BIT_MODES:
        return image.convert("I").point(lambda value: value * (255 / 65535) + 0.5).convert("L")
    if image.mode in ("P", "1") or "transparency" in image.info:
        transparent = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB" if image.mode == "P" else "L")
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        converted = _through_profile(image, profile)
        if converted is not None:
            return converted
    return image if image.mode in ("RGB", "RGBA", "L", "LA") else image.convert("RGB")


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return the image converted to sRGB, or None where the profile is damaged or of another colour space."""
    output = {"CMYK": "RGB"}.get(image.mode, image.mode)
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if output == "L":  # a grey profile describes one channel; the result has three
            output = "RGB"
        image = image.convert("RGB") if alpha is not None else image
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode=output.replace("A", "")
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if converted is not None and alpha is not None:
        converted.putalpha(alpha)
    return converted
