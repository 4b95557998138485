"""Stage 4: sizes by arithmetic, bytes and pixels by construction, one image for each reason slug."""

from __future__ import annotations

import hashlib
import io
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageFilter, JpegImagePlugin, PngImagePlugin

from pokefa.errors import InputError
from pokefa.images.files import MAX_BYTES, open_image
from preprocess.resize.convert import make_file
from preprocess.resize.policy import Bounds, Target, scaled, target_size
from preprocess.resize.resampling import as_image, reduction, resample
from tests.attack.images import encoded
from tests.conftest import CHECKOUT, Dataset, Finished

SCRIPT = "preprocess/resize/resize.py"
# A sixteenth of the defaults, so that the tests' pictures are small.
SMALL = ["--min-side", 64, "--max-short", 128, "--max-long", 256]

# -- the policy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected", "factor", "action", "kernel", "strip"),
    [
        ((1024, 1024), (1024, 1024), Fraction(1), "keep", "none", False),
        ((2048, 4096), (2048, 4096), Fraction(1), "keep", "none", False),
        ((512, 512), (1024, 1024), Fraction(2), "up", "bicubic", False),
        ((1023, 1500), (1024, 1501), Fraction(1024, 1023), "up", "bicubic", False),
        ((1000, 3000), (1024, 3072), Fraction(128, 125), "up", "bicubic", False),
        ((3000, 2400), (2560, 2048), Fraction(64, 75), "down", "bicubic", False),
        ((4096, 4096), (2048, 2048), Fraction(1, 2), "down", "bicubic", False),
        ((4097, 4097), (2048, 2048), Fraction(2048, 4097), "down", "area", False),
        ((1500, 5000), (1229, 4096), Fraction(512, 625), "down", "bicubic", False),
        ((8000, 5000), (3277, 2048), Fraction(256, 625), "down", "area", False),
        ((1500, 9000), (683, 4096), Fraction(512, 1125), "down", "area", True),
        ((300, 3000), (410, 4096), Fraction(512, 375), "up", "bicubic", True),
        ((500, 4096), (500, 4096), Fraction(1), "keep", "none", True),
        ((1, 100_000), (1, 4096), Fraction(128, 3125), "down", "area", True),
    ],
)
def test_policy(
    size: tuple[int, int], expected: tuple[int, int], factor: Fraction, action: str, kernel: str, strip: bool
) -> None:
    for turned in (1, -1):
        target = target_size(*size[::turned], Bounds())
        assert target == Target(expected[::turned], factor, strip)
        assert (target.action, target.kernel) == (action, kernel)


def test_rounding_is_half_up() -> None:
    assert [scaled(side, Fraction(1, 2)) for side in (1, 2, 3, 5, 6)] == [1, 1, 2, 3, 3]
    assert scaled(1, Fraction(1, 100)) == 1


sides = st.integers(1, 20_000)
bounds = st.lists(st.integers(1, 5000), min_size=3, max_size=3).map(lambda values: Bounds(*sorted(values)))


@given(sides, sides, bounds)
def test_both_upper_bounds_always_hold(width: int, height: int, bounds: Bounds) -> None:
    short, long = sorted(target_size(width, height, bounds).size)
    assert 1 <= short <= bounds.max_short
    assert long <= bounds.max_long


@given(sides, sides, bounds)
def test_never_distorts(width: int, height: int, bounds: Bounds) -> None:
    target = target_size(width, height, bounds)
    for before, after in zip((width, height), target.size, strict=True):
        assert abs(after - before * target.factor) <= Fraction(1, 2) or (after == 1 and before * target.factor < 1)


@given(sides, sides, bounds)
def test_the_shorter_side_is_too_short_only_where_the_longer_one_is_at_its_bound(
    width: int, height: int, bounds: Bounds
) -> None:
    target = target_size(width, height, bounds)
    short, long = sorted(target.size)
    assert target.strip == (short < bounds.min_side)
    if target.strip:
        assert long == bounds.max_long


@given(sides, sides, bounds)
def test_what_fits_is_kept_and_what_does_not_reaches_a_bound(width: int, height: int, bounds: Bounds) -> None:
    target = target_size(width, height, bounds)
    short, long = sorted((width, height))
    if bounds.min_side <= short <= bounds.max_short and long <= bounds.max_long:
        assert target == Target((width, height), Fraction(1), False)
    elif target.action == "down":  # the largest size within both
        assert min(target.size) == bounds.max_short or max(target.size) == bounds.max_long
    elif target.action == "up":  # the smallest that is enough
        assert min(target.size) == bounds.min_side or max(target.size) == bounds.max_long


@given(sides, sides)
def test_a_result_needs_no_second_pass(width: int, height: int) -> None:
    target = target_size(width, height, Bounds())
    assert target_size(*target.size, Bounds()).action == "keep"


def test_bounds_must_rise() -> None:
    with pytest.raises(InputError) as caught:
        Bounds(2000, 1000, 4096)
    assert str(caught.value) == (
        "--min-side 2000, --max-short 1000 and --max-long 4096 do not increase: give sizes from small to large"
    )


def test_area_is_the_mean_of_what_a_pixel_covers() -> None:
    image = Image.new("L", (8, 4), 0)
    image.paste(200, (0, 0, 2, 4))
    small = as_image(resample(image, target_size(8, 4, Bounds(1, 1, 2))))
    assert [small.getpixel((x, 0)) for x in (0, 1)] == [100, 0]


def test_pixels_that_are_covered_in_part_count_in_part() -> None:
    image = Image.new("L", (5, 5), 0)
    image.paste(200, (2, 0, 3, 5))  # the middle column, half of which lies under each pixel of the result
    small = as_image(resample(image, target_size(5, 5, Bounds(1, 2, 2))))
    assert [small.getpixel((x, y)) for x in (0, 1) for y in (0, 1)] == [40] * 4


@given(st.integers(0, 255), st.integers(3, 90), st.integers(3, 90), st.sampled_from(["L", "RGB", "LA", "RGBA"]))
def test_the_mean_of_one_colour_is_that_colour(level: int, width: int, height: int, mode: str) -> None:
    colour = (level,) * (len(mode) - (mode != "RGB" and "A" in mode)) + ((255,) if "A" in mode else ())
    image = Image.new(mode, (width, height), colour if len(colour) > 1 else level)
    small = as_image(resample(image, Target((max(1, width // 3), max(1, height // 3)), Fraction(1, 3), strip=False)))
    assert small.mode == mode
    assert small.getcolors() == [(small.width * small.height, colour if len(colour) > 1 else level)]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_hidden_colours_do_not_bleed_into_a_mean(mode: str) -> None:
    image = Image.new("RGBA", (90, 90), (255, 255, 255, 0))
    image.paste((0, 0, 0, 255), (0, 0, 40, 90))
    small = as_image(resample(image.convert(mode), Target((20, 20), Fraction(2, 9), strip=False)).convert("RGBA"))
    assert {pixel[:3] for _, pixel in small.getcolors() if pixel[3]} == {(0, 0, 0)}
    assert {pixel[3] for _, pixel in small.getcolors()} == {0, 255, 227}  # column 8 covers 36 to 40.5: 8/9 of it


def test_an_extreme_strip_is_averaged() -> None:
    small = as_image(resample(Image.new("RGB", (1, 100_000), (9, 99, 199)), target_size(1, 100_000, Bounds())))
    assert small.getcolors() == [(4096, (9, 99, 199))]


# -- decoding JPEGs smaller -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((800, 800), 200, 2),
        ((800, 800), 201, 1),
        ((801, 800), 200, 1),  # odd: half of it would not show exactly the same
        ((800, 800), 100, 4),
        ((804, 800), 100, 4),
        ((802, 800), 100, 2),
        ((800, 800), 50, 8),
        ((800, 800), 10, 8),
        ((800, 800), 800, 1),
    ],
)
def test_reduction(size: tuple[int, int], most: int, expected: int) -> None:
    assert reduction(*size, target_size(*size, Bounds(1, most, most * 2))) == expected


def drawing(width: int, height: int) -> Image.Image:
    chance = random.Random(4)
    image = picture(width, height)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, r = chance.randrange(width), chance.randrange(height), chance.randrange(5, width // 8)
        colour = tuple(chance.randrange(60, 256) for _ in "rgb")
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline=(40, 30, 50), width=6)
    return image.filter(ImageFilter.GaussianBlur(1.5))


def line_art(width: int, height: int) -> Image.Image:
    chance = random.Random(5)
    image = Image.new("RGB", (width, height), "white")
    for _ in range(width // 8):
        ends = [(chance.randrange(width), chance.randrange(height)) for _ in range(2)]
        ImageDraw.Draw(image).line(ends, fill="black", width=chance.randrange(1, 6))
    return image


def static(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(6).randbytes(3 * width * height))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize(("draw", "bound"), [(drawing, 40), (line_art, 29), (static, 29)])
@pytest.mark.parametrize("short", [50, 75, 99, 100, 140, 180, 199, 200])
def test_decoding_smaller_stays_within_the_stated_bound(
    draw: Callable[[int, int], Image.Image], bound: int, subsampling: str, short: int
) -> None:
    data = encoded(draw(960, 800), "JPEG", quality=92, subsampling=subsampling)
    target = target_size(960, 800, Bounds(1, short, 10 * short))
    by = reduction(960, 800, target)
    assert by > 1
    one, other = (as_image(resample(open_image(data, reduce=scale), target)) for scale in (1, by))
    errors = [value * value for value in ImageChops.difference(one, other).tobytes()]
    assert 10 * math.log10(255**2 / max(1e-9, sum(errors) / len(errors))) > bound


def test_hidden_colours_do_not_bleed() -> None:
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 20, 40))
    larger = as_image(resample(image, target_size(40, 40, Bounds(64, 128, 256))))
    seen = [larger.getpixel((x, 32)) for x in range(64)]
    assert all(red == 0 for red, _, _, alpha in seen if alpha > 0)
    assert {seen[2], seen[61][3]} == {(0, 0, 255, 255), 0}


# -- files ------------------------------------------------------------------------------------------------------


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return a smooth picture with another colour in each corner."""
    ramps = [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90), Image.radial_gradient("L")]
    image = Image.merge("RGB", ramps).resize((width, height))
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((width, height)))
    elif mode == "LA":
        image = Image.merge("LA", (image.convert("L"), Image.linear_gradient("L").resize((width, height))))
    return image if image.mode == mode else image.quantize(256) if mode == "P" else image.convert(mode)


def photo(width: int, height: int, **options: Any) -> bytes:
    return encoded(picture(width, height), "JPEG", quality=90, **options)


def row_of(dataset: Dataset, data: bytes, suffix: str, **cells: object) -> dict[str, object]:
    """Write a raw file and return the ledger row of an image that is ready for resizing."""
    image_id = hashlib.md5(data).hexdigest()
    path = f"data_raw/001-150/0005_sylveon/{image_id}.{suffix}"
    target = dataset.root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return {"image_id": image_id, "path_raw": path, "is_nsfw": "False", "has_ocr": "False"} | cells


def resize(
    dataset: Dataset, *data: tuple[bytes, str], flags: list[Any] = SMALL
) -> tuple[list[dict[str, str]], Finished]:
    """Run the script on these raw files; return their rows in the same order."""
    rows = [row_of(dataset, *each) for each in data]
    dataset.write_images(rows)
    finished = dataset.run(SCRIPT, "--workers", 1, *flags)
    assert finished.code == 0, finished.stderr
    return [dataset.images()[str(row["image_id"])] for row in rows], finished


def pixels(dataset: Dataset, path: str) -> Image.Image:
    image = Image.open(dataset.root / path)
    image.load()
    return image


def cells(row: dict[str, str]) -> tuple[str, ...]:
    names = ("resized_w", "resized_h", "resize_scale", "resize_kernel", "resize_action", "resize_source")
    return tuple(row[name] for name in names)


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode and ImageChops.difference(one, other).getbbox() is None


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    values = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).tobytes()
    return sum(values) / len(values)


def test_kept_files_are_the_raw_bytes(dataset: Dataset) -> None:
    files = [
        (photo(100, 90), "jpg"),
        (encoded(picture(100, 90), "PNG"), "png"),
        (encoded(picture(100, 90), "WEBP", quality=80), "webp"),
        (encoded(picture(100, 90, "P"), "PNG"), "png"),
        (encoded(picture(100, 90, "P"), "PNG", transparency=3), "png"),
        (encoded(picture(100, 90, "LA"), "PNG"), "png"),
        (encoded(picture(100, 90, "RGBA"), "PNG"), "png"),
        (encoded(picture(100, 90, "L"), "JPEG"), "jpg"),
        (encoded(picture(100, 90, "1"), "PNG"), "png"),
        (photo(100, 90, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()), "jpg"),
    ]
    rows, finished = resize(dataset, *files)
    for row, (data, suffix) in zip(rows, files, strict=True):
        assert cells(row) == ("100", "90", "1.0", "none", "keep", "raw")
        assert row["path_resized"] == f"data_stage/resized/001-150/0005_sylveon/{row['image_id']}.{suffix}"
        assert (dataset.root / row["path_resized"]).samefile(dataset.root / row["path_raw"])
        assert (dataset.root / row["path_resized"]).read_bytes() == data
        assert row["resize_run_id"] == finished.summary["run_id"]
    assert finished.summary["counts"] == {"kept": 10}


def identifying() -> Image.Exif:
    exif = Image.Exif()
    exif[0x013B] = "An Artist's Name"
    exif.get_ifd(0x8825)[2] = (35.0, 41.0, 22.0)
    return exif


def test_metadata_goes_without_touching_the_pixels(dataset: Dataset) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "An Artist's Name")
    more = [Image.new("RGB", (100, 90), "red")]
    files = [
        (photo(100, 90, exif=identifying(), comment=b"An Artist's Name"), "jpg"),
        (photo(100, 90, xmp=b"<x>An Artist's Name</x>", progressive=True), "jpg"),
        (photo(100, 90) + b"An Artist's Name", "jpg"),
        (encoded(picture(100, 90), "MPO", save_all=True, append_images=more), "jpg"),
        (encoded(picture(100, 90, "RGBA"), "PNG", pnginfo=text, exif=identifying()), "png"),
        (encoded(picture(100, 90), "WEBP", exif=identifying(), xmp=b"<x>An Artist's Name</x>"), "webp"),
        (encoded(picture(100, 90, "RGBA"), "WEBP", exif=identifying(), lossless=True), "webp"),
    ]
    rows, finished = resize(dataset, *files)
    for row, (data, _) in zip(rows, files, strict=True):
        assert cells(row) == ("100", "90", "1.0", "none", "strip", "raw")
        assert row["resize_note"] == "stripped"
        stripped = (dataset.root / row["path_resized"]).read_bytes()
        assert b"Artist" not in stripped
        assert (dataset.root / row["path_raw"]).read_bytes() == data
        image = pixels(dataset, row["path_resized"])
        assert not image.getexif()
        assert getattr(image, "n_frames", 1) == 1
        assert same(image, Image.open(io.BytesIO(data)))
    assert finished.summary["counts"] == {"stripped": 7}


def test_profiles_survive_stripping(dataset: Dataset) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files = [
        (encoded(picture(100, 90), form, icc_profile=srgb, exif=identifying()), form.lower())
        for form in ("JPEG", "PNG", "WEBP")
    ]
    rows, finished = resize(dataset, *files)
    assert [pixels(dataset, row["path_resized"]).info["icc_profile"] for row in rows] == [srgb] * 3
    assert finished.summary["counts"] == {"stripped": 3}


def test_rotated(dataset: Dataset) -> None:
    exif = identifying()
    exif[0x0112] = 6
    rows, finished = resize(dataset, (photo(100, 90, exif=exif), "jpg"))
    assert cells(rows[0]) == ("90", "100", "1.0", "none", "convert", "raw")
    assert rows[0]["resize_note"] == "rotated"
    image = pixels(dataset, rows[0]["path_resized"])
    assert (image.format, image.size) == ("JPEG", (90, 100))
    assert not image.getexif()
    assert mean_difference(image, picture(100, 90).transpose(Image.Transpose.ROTATE_270)) < 3
    assert finished.summary["counts"] == {"rotated": 1}


def test_an_orientation_that_is_none_is_upright(dataset: Dataset) -> None:
    files = []
    for value in (0, 1, 9):
        exif = identifying()
        exif[0x0112] = value
        files.append((encoded(picture(100, 90 + value), "JPEG", exif=exif), "jpg"))
    rows, finished = resize(dataset, *files)
    for row, (data, _) in zip(rows, files, strict=True):
        assert (row["resize_action"], row["resize_note"]) == ("strip", "stripped")
        assert same(pixels(dataset, row["path_resized"]), Image.open(io.BytesIO(data)))
    assert finished.summary["counts"] == {"stripped": 3}


def test_a_file_of_another_format_leaves_none_behind(dataset: Dataset) -> None:
    """An inpainted PNG comes in the place of a JPEG, and after ocr_unflag.py the JPEG in the place of the PNG."""
    raw = row_of(dataset, photo(100, 90), "jpg", has_ocr="True", ocr_inpainted_path="data_stage/OCR_inpainted/a.png")
    (dataset.root / "data_stage/OCR_inpainted").mkdir(parents=True)
    (dataset.root / "data_stage/OCR_inpainted/a.png").write_bytes(encoded(picture(100, 90), "PNG"))
    for override, suffix in (("", "png"), ("unflagged", "jpg"), ("", "png")):
        dataset.write_images([raw | {"ocr_override": override}])
        assert dataset.run(SCRIPT, "--workers", 1, *SMALL).code == 0
        (left,) = (dataset.root / "data_stage/resized/001-150/0005_sylveon").iterdir()
        assert left.name == f"{raw['image_id']}.{suffix}"


def test_jpegs_are_encoded_at_95_and_444(dataset: Dataset) -> None:
    rows, _ = resize(
        dataset, (photo(50, 40, subsampling="4:2:0"), "jpg"), (encoded(picture(50, 40, "L"), "JPEG"), "jpg")
    )
    colour, grey = (pixels(dataset, row["path_resized"]) for row in rows)
    assert (colour.format, colour.mode, grey.mode) == ("JPEG", "RGB", "L")
    assert JpegImagePlugin.get_sampling(colour) == 0
    reference = Image.open(io.BytesIO(photo(8, 8)))  # any picture at 90, to see that the tables tell qualities apart
    assert colour.quantization == Image.open(io.BytesIO(encoded(picture(8, 8), "JPEG", quality=95))).quantization
    assert colour.quantization != reference.quantization


def test_cmyk(dataset: Dataset) -> None:
    rows, finished = resize(dataset, (encoded(picture(100, 90).convert("CMYK"), "JPEG", quality=95), "jpg"))
    image = pixels(dataset, rows[0]["path_resized"])
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert mean_difference(image, picture(100, 90)) < 3
    assert cells(rows[0])[3:5] == ("none", "convert")
    assert rows[0]["resize_note"] == "cmyk"
    assert finished.summary["counts"] == {"cmyk": 1}


def test_sixteen_bit(dataset: Dataset) -> None:
    wide = picture(100, 90, "L").convert("I;16").point(lambda value: value * 257)
    rows, finished = resize(dataset, (encoded(wide, "PNG"), "png"))
    image = pixels(dataset, rows[0]["path_resized"])
    assert (image.format, same(image, picture(100, 90, "L"))) == ("PNG", True)
    assert finished.summary["counts"] == {"sixteen_bit": 1}


def test_animated(dataset: Dataset) -> None:
    frames = [picture(100, 90), Image.new("RGB", (100, 90), "red")]
    rows, finished = resize(
        dataset,
        (encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], quality=95), "webp"),
        (encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), "png"),
    )
    for row, form in zip(rows, ("WEBP", "PNG"), strict=True):
        image = pixels(dataset, row["path_resized"])
        assert (image.format, getattr(image, "n_frames", 1)) == (form, 1)
        assert mean_difference(image, frames[0]) < 4
    assert finished.summary["counts"] == {"animated": 2}


def test_profile(dataset: Dataset) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")
    rows, finished = resize(dataset, (encoded(Image.new("RGB", (100, 90), "red"), "PNG", icc_profile=swapped), "png"))
    image = pixels(dataset, rows[0]["path_resized"])
    assert image.getpixel((50, 45)) == (0, 0, 255)
    assert "icc_profile" not in image.info
    assert finished.summary["counts"] == {"profile": 1}


def test_odd_structure(dataset: Dataset) -> None:
    cut = encoded(picture(100, 90), "PNG")[:-6]  # the last chunk is not whole; decoders do not mind
    rows, finished = resize(dataset, (cut, "png"))
    assert same(pixels(dataset, rows[0]["path_resized"]), picture(100, 90))
    assert finished.summary["counts"] == {"odd_structure": 1}


def test_up_and_down(dataset: Dataset) -> None:
    rows, finished = resize(
        dataset,
        (photo(50, 40), "jpg"),
        (encoded(picture(50, 40, "RGBA"), "PNG"), "png"),
        (encoded(picture(300, 200), "WEBP"), "webp"),
        (encoded(picture(640, 400, "P"), "PNG"), "png"),
    )
    assert [cells(row) for row in rows] == [
        ("80", "64", "1.6", "bicubic", "up", "raw"),
        ("80", "64", "1.6", "bicubic", "up", "raw"),
        ("192", "128", "0.64", "bicubic", "down", "raw"),
        ("205", "128", "0.32", "area", "down", "raw"),
    ]
    images = [pixels(dataset, row["path_resized"]) for row in rows]
    assert [(image.format, image.mode) for image in images] == [
        ("JPEG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("PNG", "RGB"),
    ]  # fmt: skip
    for row, image in zip(rows, images, strict=True):
        assert image.size == (int(row["resized_w"]), int(row["resized_h"]))
        assert mean_difference(image, picture(*image.size)) < 8
    assert finished.summary["counts"] == {"down": 2, "up": 2}


def test_long_side_bound(dataset: Dataset) -> None:
    rows, finished = resize(dataset, (photo(1000, 100), "jpg"), (photo(20, 200), "jpg"), (photo(30, 256), "jpg"))
    assert [cells(row)[:5] for row in rows] == [
        ("256", "26", "0.256", "area", "down"),
        ("26", "256", "1.28", "bicubic", "up"),
        ("30", "256", "1.0", "none", "keep"),
    ]
    assert finished.summary["counts"] == {"long_side_bound": 3}


def test_source_is_the_inpainted_file_unless_a_person_decided_otherwise(dataset: Dataset) -> None:
    painted = dataset.root / "data_stage/OCR_inpainted/x.png"
    painted.parent.mkdir(parents=True)
    painted.write_bytes(encoded(Image.new("RGB", (100, 90), "blue"), "PNG"))
    text = {"has_ocr": "True", "ocr_inpainted_path": "data_stage/OCR_inpainted/x.png"}
    rows = [
        row_of(dataset, photo(100, 90), "jpg", **text),
        row_of(dataset, photo(100, 91), "jpg", **text, ocr_override="unflagged"),
        row_of(dataset, photo(100, 92), "jpg", **text | {"has_ocr": "False"}),
    ]
    dataset.write_images(rows)
    assert dataset.run(SCRIPT, "--workers", 1, *SMALL).code == 0
    results = [dataset.images()[str(row["image_id"])] for row in rows]
    assert [(row["resize_source"], Path(row["path_resized"]).suffix) for row in results] == [
        ("inpainted", ".png"), ("raw", ".jpg"), ("raw", ".jpg"),
    ]  # fmt: skip
    assert (dataset.root / results[0]["path_resized"]).samefile(painted)


# -- runs -------------------------------------------------------------------------------------------------------


def test_bad_files_become_errors(dataset: Dataset) -> None:
    cut = photo(300, 200)[:2000]
    rows = [row_of(dataset, cut, "jpg"), row_of(dataset, b"hello", "jpg"), row_of(dataset, photo(100, 90), "jpg")]
    rows.append(row_of(dataset, photo(99, 90), "jpg"))
    (dataset.root / str(rows[3]["path_raw"])).unlink()
    dataset.write_images(rows)
    finished = dataset.run(SCRIPT, "--workers", 1, *SMALL)
    results = [dataset.images()[str(row["image_id"])] for row in rows]
    assert [row["resize_error"].split(":")[0] for row in results] == ["truncated", "not_an_image", "", "missing_file"]
    assert [row["path_resized"] != "" for row in results] == [False, False, True, False]
    assert (finished.code, finished.summary["errors"], finished.summary["done"]) == (0, 3, 1)
    assert dataset.run(SCRIPT, "--workers", 1, "--retry-errors", "--strict", *SMALL).code == 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_damage_is_found_in_a_file_that_would_be_kept(dataset: Dataset, form: str) -> None:
    data = bytearray(encoded(static(100, 90), form))
    if form == "PNG":
        data[len(data) // 2] ^= 0xFF  # the structure is whole, the pixels are not
    else:
        del data[len(data) // 2 :]
    dataset.write_images([row_of(dataset, bytes(data), form.lower())])
    finished = dataset.run(SCRIPT, "--workers", 1, *SMALL)
    (row,) = dataset.images().values()
    assert row["resize_error"].startswith("truncated: ")
    assert (row["path_resized"], finished.summary["errors"]) == ("", 1)


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_second_run_changes_nothing(dataset: Dataset) -> None:
    resize(dataset, (photo(50, 40), "jpg"), (photo(100, 90), "jpg"))
    before = snapshot(dataset.root)
    finished = dataset.run(SCRIPT, "--workers", 1, *SMALL)
    assert (finished.summary["seen"], finished.summary["done"]) == (0, 0)
    assert snapshot(dataset.root) == before


def test_redo_with_other_sizes_leaves_the_raw_file_alone(dataset: Dataset) -> None:
    data = photo(100, 90)
    rows, _ = resize(dataset, (data, "jpg"))
    assert (dataset.root / rows[0]["path_resized"]).samefile(dataset.root / rows[0]["path_raw"])
    finished = dataset.run(SCRIPT, "--redo", "--min-side", 180, "--max-short", 180, "--max-long", 400)
    row = dataset.images()[rows[0]["image_id"]]
    assert (finished.code, cells(row)[:2]) == (0, ("200", "180"))
    assert (dataset.root / row["path_raw"]).read_bytes() == data
    assert pixels(dataset, row["path_resized"]).size == (200, 180)


def test_dry_run_writes_nothing(dataset: Dataset) -> None:
    dataset.write_images([row_of(dataset, photo(50, 40), "jpg")])
    before = snapshot(dataset.root)
    finished = dataset.run(SCRIPT, "--dry-run", *SMALL)
    assert (finished.code, finished.summary["seen"], finished.summary["done"]) == (0, 1, 0)
    assert snapshot(dataset.root) == before


def test_the_same_bytes_whatever_the_workers(dataset: Dataset, tmp_path: Path) -> None:
    files = [(photo(30 + number, 40), "jpg") for number in range(12)]
    rows, _ = resize(dataset, *files)
    other = Dataset(tmp_path / "other")
    other.write_images([row_of(other, *each) for each in files])
    assert other.run(SCRIPT, "--workers", 2, *SMALL).code == 0
    for row in rows:
        twin = other.images()[row["image_id"]]
        assert cells(twin) == cells(row)
        assert (other.root / twin["path_resized"]).read_bytes() == (dataset.root / row["path_resized"]).read_bytes()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


def test_a_killed_run_is_finished_by_the_next(dataset: Dataset) -> None:
    rows = [row_of(dataset, photo(700 + number, 500), "jpg") for number in range(40)]
    dataset.write_images(rows)
    command = [sys.executable, SCRIPT, "--root", str(dataset.root), "--workers", "1", "--min-side", "1024"]
    run = subprocess.Popen(command, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)})
    folder = dataset.root / "data_stage/resized/001-150/0005_sylveon"
    wait_until(lambda: len(list(folder.glob("*.jpg"))) >= 3, "three files")
    run.send_signal(signal.SIGKILL)
    run.wait()
    finished = dataset.run(SCRIPT, "--workers", 1, "--min-side", 1024)
    assert 0 < finished.summary["done"] <= 40
    results = dataset.images()
    for row in rows:
        whole, *_ = make_file(dataset.root / str(row["path_raw"]), MAX_BYTES, Bounds())
        assert (dataset.root / results[str(row["image_id"])]["path_resized"]).read_bytes() == whole


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--min-side", "0"], "argument --min-side: '0' is not a whole number of 1 or more"),
        (["--max-long", "wide"], "argument --max-long: 'wide' is not a whole number of 1 or more"),
        (
            ["--max-short", "5000"],
            "error: --min-side 1024, --max-short 5000 and --max-long 4096 do not increase: give sizes from small to large",  # noqa: E501
        ),
    ],
)
def test_wrong_flags_exit_2(dataset: Dataset, flags: list[str], message: str) -> None:
    dataset.write_images([])
    finished = dataset.run(SCRIPT, *flags)
    assert finished.code == 2
    assert finished.stderr.strip().splitlines()[-1].endswith(message)


def test_help_names_columns_and_flags(run_script: Callable[..., Finished]) -> None:
    finished = run_script(SCRIPT, "--help")
    assert finished.code == 0
    for word in ("Reads", "Writes", "--min-side", "--max-short", "--max-long", "--workers", "data_stage/resized"):
        assert word in finished.stdout
