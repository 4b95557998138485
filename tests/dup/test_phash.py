"""phash64 is what imagehash says of the picture as a person sees it, whatever the file's format."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from pokefa.errors import ImageError
from pokefa.images.phash import FLAT_BITS, FLAT_CONTRAST, TURNS, contrast_of, phash_of, shrink
from tests.attack import images
from tests.conftest import Dataset, Finished, numbered_id

SCRIPT = "preprocess/dup/phash.py"


def drawing() -> Image.Image:
    """Return a picture with structure in every direction."""
    image = Image.new("RGB", (320, 240), (250, 240, 220))
    draw = ImageDraw.Draw(image)
    draw.ellipse((40, 30, 200, 210), fill=(200, 60, 40))
    draw.polygon([(180, 20), (300, 120), (210, 200)], fill=(30, 90, 160))
    draw.rectangle((20, 170, 90, 230), fill=(20, 20, 20))
    return image


def saved(tmp_path: Path, image: Image.Image, form: str, **options: Any) -> Path:
    path = tmp_path / f"picture.{form.lower()}"
    image.save(path, form, **options)
    return path


def hash_of(path: Path) -> str:
    return phash_of(shrink(path))


def bits_apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_golden_value(tmp_path: Path) -> None:
    # Must never change: hashes in people's ledgers are compared with new ones.
    assert hash_of(saved(tmp_path, drawing(), "PNG")) == "bfe095c1ca0fe10e"


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "1"), ("WEBP", "RGB")],
)
def test_equals_imagehash_of_the_decoded_file(tmp_path: Path, form: str, mode: str) -> None:
    path = saved(tmp_path, drawing().convert(mode), form, quality=90)
    assert hash_of(path) == str(imagehash.phash(Image.open(path).convert("RGB")))


def test_palette(tmp_path: Path) -> None:
    path = saved(tmp_path, drawing().quantize(16), "PNG")
    assert hash_of(path) == str(imagehash.phash(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_hashed_on_white(tmp_path: Path, mode: str) -> None:
    image = drawing().convert(mode)
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    assert hash_of(saved(tmp_path, image, "PNG")) == str(imagehash.phash(white.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_by_a_flag_is_hashed_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that stores the picture so
    stored = drawing().transpose(Image.Transpose(undo[orientation])) if orientation > 1 else drawing()
    assert hash_of(saved(tmp_path, stored, "PNG", exif=exif)) == str(imagehash.phash(drawing()))


def test_profile_is_followed(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")
    red, green, blue = drawing().split()
    path = saved(tmp_path, Image.merge("RGB", (blue, green, red)), "PNG", icc_profile=swapped)
    assert bits_apart(hash_of(path), str(imagehash.phash(drawing()))) <= 2  # a rounding or two in the conversion


def test_sixteen_bit_grey(tmp_path: Path) -> None:
    wide = drawing().convert("L").convert("I;16").point(lambda value: value * 257)
    assert hash_of(saved(tmp_path, wide, "PNG")) == str(imagehash.phash(drawing().convert("L")))


def test_animation_is_hashed_by_its_first_frame(tmp_path: Path) -> None:
    path = saved(
        tmp_path, drawing(), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (320, 240))]
    )
    assert hash_of(path) == str(imagehash.phash(drawing()))


def test_copies_are_near(tmp_path: Path) -> None:
    original = hash_of(saved(tmp_path, drawing(), "PNG"))
    for copy in (drawing().resize((200, 150)), drawing().point(lambda value: min(255, value + 12))):
        assert bits_apart(hash_of(saved(tmp_path, copy, "JPEG", quality=60)), original) <= 6


@pytest.mark.parametrize("grey", range(0, 256, 15))
def test_plain_colours_and_stripes_have_flat_hashes(tmp_path: Path, grey: int) -> None:
    """The other half of rm_dups' rule for flat images."""
    stripes = Image.new("L", (90, 70), 255)
    stripes.paste(grey, (0, 0, 40, 70))
    gradient = Image.linear_gradient("L").point(lambda value: value * grey // 255)
    for image in (Image.new("L", (64, 64), grey), stripes, gradient):
        for form in ("PNG", "JPEG"):
            assert int(hash_of(saved(tmp_path, image, form)), 16).bit_count() <= FLAT_BITS
    assert int(hash_of(saved(tmp_path, drawing(), "PNG")), 16).bit_count() > FLAT_BITS


def test_contrast_by_hand(tmp_path: Path) -> None:
    """A wave of amplitude a across the picture has the standard deviation a / √2."""
    cosine = (128 + 100 * np.cos(np.pi * 3 * (np.arange(32) + 0.5) / 32)).round().astype(np.uint8)
    assert contrast_of(Image.fromarray(np.tile(cosine, (32, 1)))) == pytest.approx(100 / 2**0.5, abs=0.05)
    too_fine = (128 + 100 * np.cos(np.pi * 12 * (np.arange(32) + 0.5) / 32)).round().astype(np.uint8)
    assert contrast_of(Image.fromarray(np.tile(too_fine, (32, 1)))) < 0.3
    assert contrast_of(Image.new("L", (32, 32), 77)) == 0


@pytest.mark.parametrize("noise", [4, 8])
def test_nearly_flat_images_have_little_contrast(tmp_path: Path, noise: int) -> None:
    generator = np.random.default_rng(3)
    grain = (200 + generator.integers(-noise, noise + 1, (300, 400, 3))).astype(np.uint8)
    for form in ("PNG", "JPEG"):
        small = shrink(saved(tmp_path, Image.fromarray(grain), form))
        assert contrast_of(small) < FLAT_CONTRAST
    assert (
        int(hash_of(saved(tmp_path, Image.fromarray(grain), "PNG")), 16).bit_count() > FLAT_BITS
    )  # so bits don't tell
    faint = Image.blend(Image.new("RGB", (320, 240), "white"), drawing(), 0.1)  # as of a hard pencil
    assert contrast_of(shrink(saved(tmp_path, faint, "PNG"))) > 2 * FLAT_CONTRAST


def test_errors_carry_their_slug(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(ImageError, match=r"^not_an_image: the bytes match no known image format$"):
        hash_of(tmp_path / "page.jpg")


def test_the_script(dataset: Dataset) -> None:
    stream = io.BytesIO()
    drawing().save(stream, "PNG")
    (dataset.root / "good.png").write_bytes(stream.getvalue())
    (dataset.root / "cut.png").write_bytes(stream.getvalue()[:200])
    ready = {"is_nsfw": "False", "has_ocr": "False"}
    cells = {
        "good": {"path_resized": "good.png", **ready},
        "cut": {"path_resized": "cut.png", **ready},
        "flagged": {"path_resized": "good.png", **ready, "is_nsfw": "True"},
        "waiting": ready,
    }
    ids = {name: numbered_id(number) for number, name in enumerate(cells)}
    dataset.write_images([{"image_id": ids[name], **row} for name, row in cells.items()])
    finished = dataset.run(SCRIPT, "--workers", 1)
    images = {name: dataset.images()[image_id] for name, image_id in ids.items()}
    assert (finished.code, finished.summary["counts"], finished.summary["errors"]) == (0, {"hashed": 1}, 1)
    assert images["good"]["phash64"] == str(imagehash.phash(drawing()))
    assert float(images["good"]["phash_contrast"]) > 20
    assert images["good"]["phash_variants"] == ""
    assert images["good"]["phash_run_id"] == finished.summary["run_id"]
    assert (images["cut"]["phash64"], images["cut"]["phash_error"].split(":")[0]) == ("", "truncated")
    assert images["flagged"]["phash64"] == images["waiting"]["phash64"] == ""
    before = (dataset.root / "metadata/images.csv").read_bytes()
    assert dataset.run(SCRIPT).summary["seen"] == 0
    assert (dataset.root / "metadata/images.csv").read_bytes() == before


def test_an_image_that_decodes_for_ever_is_an_error(dataset: Dataset) -> None:
    (dataset.root / "slow.bmp").write_bytes(images.bmp_run_length(9_900))
    drawing().save(dataset.root / "good.png")
    ready = {"is_nsfw": "False", "has_ocr": "False"}
    names = {"a" * 32: "slow.bmp", "b" * 32: "good.png"}
    dataset.write_images({"image_id": image_id, "path_resized": name, **ready} for image_id, name in names.items())
    finished = dataset.run(SCRIPT, "--workers", 1, "--decode-seconds", 0.5)
    assert (finished.summary["counts"], finished.summary["errors"]) == ({"hashed": 1}, 1)
    slow = dataset.images()["a" * 32]["phash_error"]
    assert slow == "decode_timeout: not decoded within 0.5 seconds of CPU time"
    again = dataset.run(SCRIPT, "--retry-errors")
    assert again.summary["counts"] == {"hashed": 1}, "with more time it is hashed"


def test_without_shared_memory(dataset: Dataset, without_shared_memory: Callable[..., Finished]) -> None:
    drawing().save(dataset.root / "a.png")
    dataset.write_images([{"image_id": "a" * 32, "path_resized": "a.png", "is_nsfw": "False", "has_ocr": "False"}])
    finished = without_shared_memory(SCRIPT, "--root", dataset.root)
    assert (finished.code, finished.summary["counts"], finished.stderr) == (0, {"hashed": 1}, "")


def test_variants_are_those_of_the_whole_image_turned(dataset: Dataset) -> None:
    drawing().save(dataset.root / "a.png")
    dataset.write_images([{"image_id": "a" * 32, "path_resized": "a.png", "is_nsfw": "False", "has_ocr": "False"}])
    assert dataset.run(SCRIPT, "--workers", 1).summary["done"] == 1
    plain = dataset.images()["a" * 32]["phash64"]
    assert dataset.run(SCRIPT, "--with-variants", "--workers", 1).summary["done"] == 1  # hashed before, not turned
    row = dataset.images()["a" * 32]
    assert row["phash64"] == plain
    variants = row["phash_variants"].split(" ")
    for turn, variant in zip(TURNS, variants, strict=True):
        # Resizing rounds rows and columns one after the other, so a turned copy may differ in a bit that ties.
        assert bits_apart(variant, str(imagehash.phash(drawing().transpose(turn)))) <= 2
        assert bits_apart(variant, plain) > 6
    assert len(set(variants)) == 7
    assert dataset.run(SCRIPT, "--with-variants").summary["seen"] == 0
    assert dataset.run(SCRIPT, "--redo", "--workers", 1).summary["done"] == 1  # no stale variants stay
    assert dataset.images()["a" * 32]["phash_variants"] == ""
