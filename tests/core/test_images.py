"""pokefa.images over every format that a scraper meets; colours and positions are known by construction."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageChops, ImageCms

from pokefa.errors import ImageError, PokefaError
from pokefa.files import place_file
from pokefa.images import files as images
from pokefa.images.files import Facts, check_image, flatten, needs_conversion, open_image, read_file
from pokefa.images.formats import FORMATS, KEPT_FORMATS
from tests.attack.images import encoded

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CORNERS = (RED, GREEN, BLUE, WHITE)
GRAIN = Image.effect_noise((120, 90), 80).convert("RGB")


def corners(width: int = 48, height: int = 32) -> Image.Image:
    """Return an RGB image of four plain quarters: red, green / blue, white."""
    image = Image.new("RGB", (width, height), WHITE)
    for colour, place in zip(CORNERS, ((0, 0), (width // 2, 0), (0, height // 2)), strict=False):
        image.paste(colour, (*place, place[0] + width // 2, place[1] + height // 2))
    return image


def quarters(image: Image.Image) -> list[object]:
    """Return the pixels in the middle of the four quarters: top left, top right, bottom left, bottom right."""
    width, height = image.size
    return [image.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3)]


def near(colours: Sequence[object], expected: Sequence[Sequence[int]], levels: int = 3) -> bool:
    return all(
        abs(a - b) <= levels
        for got, want in zip(colours, expected, strict=True)
        for a, b in zip(got, want, strict=True)  # type: ignore[call-overload]
    )


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """Return a PNG written by hand; `rows` holds a filter byte before each row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(itertools.starmap(chunk, chunks))


def profile(kind: bytes, colours: bytes, space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC version 2.4 profile of these tags."""
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, start + len(body), len(padded))
        body += padded
    header = struct.pack(">I4xI4s4s4s12x4s", start + len(body), 0x02400000, kind, colours, space, b"acsp")
    header = (header.ljust(68, b"\0") + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)).ljust(128, b"\0")
    return header + struct.pack(">I", len(tags)) + table + body


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# sRGB with the red and the blue primary changed over: what is red by its numbers is blue to the eye.
SWAPPED = SRGB.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")
D50 = b"XYZ \0\0\0\0" + struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
# Linear light: a grey of 128 reflects half the light, which sRGB writes as 188.
LINEAR_GREY = profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": D50, b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, 256)})


def odd_press() -> bytes:
    """Return a CMYK profile in which the ink called cyan is red, and magenta and yellow print nothing."""
    white, black, red = bytes([255, 128, 128]), bytes([0, 128, 128]), bytes([135, 208, 195])
    grid = b"".join(black if k else red if c else white for c, _, _, k in itertools.product((0, 1), repeat=4))
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + grid + bytes(range(256)) * 3
    return profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": D50, b"A2B0": table})


# -- what comes out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_plain(form: str) -> None:
    image = open_image(encoded(corners(), form, quality=95))
    assert (image.format, image.mode, image.size) == (form, "RGB", (48, 32))
    assert near(quarters(image), CORNERS, 6)
    assert needs_conversion(encoded(corners(), form)) == (None if form in KEPT_FORMATS else "format")


@pytest.mark.parametrize("form", FORMATS)
def test_grey(form: str) -> None:
    ramp = Image.linear_gradient("L").resize((64, 64))
    image = open_image(encoded(ramp, form, quality=95))
    assert image.convert("L").size == (64, 64)
    assert near(
        [[image.convert("L").getpixel((9, y)) for y in (1, 32, 62)]], [[ramp.getpixel((9, y)) for y in (1, 32, 62)]]
    )


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_alpha(form: str) -> None:
    rgba = corners().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize((48, 32)))
    image = open_image(encoded(rgba, form, quality=95))
    assert image.mode == "RGBA"
    assert near([[image.getpixel((24, y))[3] for y in (1, 16, 30)]], [[rgba.getpixel((24, y))[3] for y in (1, 16, 30)]])


def test_a_gif_with_a_transparent_colour() -> None:
    paletted = corners().quantize(4)
    image = open_image(encoded(paletted, "GIF", transparency=paletted.getpixel((2, 2))))
    assert image.mode == "RGBA"
    assert quarters(image) == [(*RED, 0), (*GREEN, 255), (*BLUE, 255), (*WHITE, 255)]


def test_cmyk_in_a_tiff() -> None:
    image = open_image(encoded(corners().convert("CMYK"), "TIFF", compression="tiff_lzw"))
    assert (image.mode, quarters(image)) == ("RGB", list(CORNERS))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_tiff_of_32_bits_says_not_what_it_looks_like(mode: str) -> None:
    data = encoded(corners().convert("L").convert(mode), "TIFF")
    assert refusal(data) == "unsupported_format: TIFF with 32 bits per sample is not supported"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3])
def test_metadata_is_not_carried_over(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = orientation, "An Artist's Name"
    image = open_image(encoded(corners(), form, exif=exif, icc_profile=SRGB))
    assert (type(image), image.info, dict(image.getexif())) == (Image.Image, {}, {})


def test_cmyk_without_profile_is_inverted() -> None:
    data = encoded(corners().convert("CMYK"), "JPEG", quality=95)
    image = open_image(data)
    assert (image.mode, image.format) == ("RGB", "JPEG")
    assert near(quarters(image), CORNERS, 6)
    assert needs_conversion(data) == "cmyk"


def test_cmyk_follows_its_profile() -> None:
    press = odd_press()
    for ink, seen in (((255, 0, 0, 0), RED), ((0, 255, 0, 0), WHITE), ((0, 0, 0, 255), (0, 0, 0))):
        data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95, icc_profile=press)
        assert near([open_image(data).getpixel((8, 8))], [seen], 12), ink
        assert needs_conversion(data) == "cmyk"


def test_a_profile_of_another_colour_space_is_passed_over() -> None:
    data = encoded(corners().convert("CMYK"), "JPEG", quality=95, icc_profile=SRGB)
    assert near(quarters(open_image(data)), CORNERS, 6)


# What the eight orientations of EXIF do to the four quarters, by the standard's own table (CIPA DC-008, tag 274).
ORIENTED = {1: "RGBW", 2: "GRWB", 3: "WBGR", 4: "BWRG", 5: "RBGW", 6: "BRWG", 7: "WGBR", 8: "GWRB"}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_exif_orientation_is_applied(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(corners(), form, quality=95, exif=exif)
    image = open_image(data)
    assert image.size == ((32, 48) if orientation >= 5 else (48, 32))
    colours = dict(zip("RGBW", CORNERS, strict=True))
    assert near(quarters(image), [colours[letter] for letter in ORIENTED[orientation]], 6)
    if form in KEPT_FORMATS:
        assert needs_conversion(data) == (None if orientation == 1 else "rotated")
    assert not image.getexif()


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0junkjunk",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\1" * 20,
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x63\0\0",  # orientation 99
        b"Exif\0\0",
    ],
)
def test_broken_exif_costs_nothing(exif: bytes) -> None:
    assert near(quarters(open_image(encoded(corners(), "JPEG", quality=95, exif=exif))), CORNERS, 6)


def sixteen_bit(colour_type: int, samples: Sequence[int]) -> bytes:
    """Return a PNG of one row, one pixel for each value, all its channels alike."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    row = b"".join(struct.pack(">H", value) * channels for value in samples)
    return png(len(samples), 1, 16, colour_type, b"\0" + row)


def test_sixteen_bit_grey_is_rounded() -> None:
    samples = [0, 127, 129, 257, 0x8000, 65406, 65407, 65535]
    image = open_image(sixteen_bit(0, samples))
    assert image.mode == "L"
    assert [image.getpixel((x, 0)) for x in range(8)] == [round(value * 255 / 65535) for value in samples]
    assert [image.getpixel((x, 0)) for x in range(8)] == [0, 0, 1, 1, 128, 254, 255, 255]


@pytest.mark.parametrize(("colour_type", "mode"), [(2, "RGB"), (4, "RGBA"), (6, "RGBA")])
def test_sixteen_bit_colour_keeps_the_upper_byte(colour_type: int, mode: str) -> None:
    image = open_image(sixteen_bit(colour_type, [0, 0x12FF, 0x8000, 65535]))
    assert image.mode == mode
    assert [image.getpixel((x, 0)) for x in range(4)] == [(value,) * len(mode) for value in (0, 0x12, 0x80, 255)]


@pytest.mark.parametrize("colour_type", [0, 2, 4, 6])
def test_sixteen_bit_needs_conversion(colour_type: int) -> None:
    assert needs_conversion(sixteen_bit(colour_type, [0, 65535])) == "sixteen_bit"


def test_palette_without_transparency() -> None:
    data = encoded(corners().quantize(4), "PNG")
    assert Image.open(io.BytesIO(data)).mode == "P"
    image = open_image(data)
    assert image.mode == "RGB"
    assert quarters(image) == list(CORNERS)
    assert needs_conversion(data) is None


def test_palette_with_transparency() -> None:
    paletted = corners().quantize(4)
    data = encoded(paletted, "PNG", transparency=paletted.getpixel((2, 2)))
    image = open_image(data)
    assert image.mode == "RGBA"
    assert quarters(image) == [(*RED, 0), (*GREEN, 255), (*BLUE, 255), (*WHITE, 255)]
    assert quarters(flatten(image)) == [WHITE, GREEN, BLUE, WHITE]


def test_palette_with_partial_transparency() -> None:
    paletted = corners().quantize(4)
    alphas = bytearray([255] * 4)
    alphas[paletted.getpixel((2, 2))] = 51
    image = open_image(encoded(paletted, "PNG", transparency=bytes(alphas)))
    assert quarters(image)[0] == (*RED, 51)
    assert quarters(flatten(image))[0] == (255, 204, 204)  # a fifth of red on white


def test_transparent_colour_of_rgb() -> None:
    image = open_image(encoded(corners(), "PNG", transparency=GREEN))
    assert image.mode == "RGBA"
    assert [pixel[3] for pixel in quarters(image)] == [255, 0, 255, 255]


def test_transparent_colour_of_grey() -> None:
    image = open_image(encoded(corners().convert("L"), "PNG", transparency=255))
    assert image.mode == "LA"
    assert [pixel[1] for pixel in quarters(image)] == [255, 255, 255, 0]


def test_grey_with_alpha() -> None:
    grey = Image.merge("LA", [Image.new("L", (8, 8), 100), Image.linear_gradient("L").resize((8, 8))])
    data = encoded(grey, "PNG")
    image = open_image(data)
    assert image.mode == "LA"
    assert ImageChops.difference(image.convert("RGBA"), grey.convert("RGBA")).getbbox() is None
    assert needs_conversion(data) is None


def test_one_bit() -> None:
    image = open_image(encoded(corners().convert("1", dither=Image.Dither.NONE), "PNG"))
    assert image.mode == "L"
    assert quarters(image)[3] == 255


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF", "GIF", "TIFF"])
def test_animation_gives_its_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in (RED, GREEN, BLUE)]
    options = {} if form in ("TIFF", "AVIF") else {"lossless": True}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    image = open_image(data)
    assert image.mode == "RGB" and near([image.getpixel((4, 4))], [RED])
    assert getattr(image, "n_frames", 1) == 1
    assert needs_conversion(data) == ("animated" if form in KEPT_FORMATS else "format")


def test_a_jpeg_with_more_pictures_behind_is_a_jpeg() -> None:
    data = encoded(corners(), "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (48, 32))])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    image = open_image(data)
    assert image.format == "JPEG"
    assert near(quarters(image), CORNERS, 6)
    assert needs_conversion(data) is None


# -- colour profiles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_profile_becomes_srgb(mode: str) -> None:
    data = encoded(corners().convert(mode), "PNG", icc_profile=SWAPPED)
    image = open_image(data)
    assert near([pixel[:3] for pixel in quarters(image)], [BLUE, GREEN, RED, WHITE], 1)
    assert "icc_profile" not in image.info
    assert needs_conversion(data) == "profile"


def test_profile_keeps_alpha() -> None:
    rgba = corners().convert("RGBA")
    rgba.putalpha(77)
    assert [pixel[3] for pixel in quarters(open_image(encoded(rgba, "PNG", icc_profile=SWAPPED)))] == [77] * 4


def test_profile_in_jpeg_and_webp() -> None:
    for form in ("JPEG", "WEBP", "AVIF", "TIFF"):
        data = encoded(Image.new("RGB", (16, 16), RED), form, quality=95, icc_profile=SWAPPED)
        assert near([open_image(data).getpixel((8, 8))], [BLUE], 6), form
        assert needs_conversion(data) == ("profile" if form in KEPT_FORMATS else "format")


def test_grey_profile() -> None:
    gradient = Image.linear_gradient("L")
    for mode in ("L", "LA"):
        data = encoded(gradient.convert(mode), "PNG", icc_profile=LINEAR_GREY)
        image = open_image(data)
        assert image.mode == mode
        values = [image.getchannel("L").getpixel((0, y)) for y in (0, 64, 128, 255)]
        assert near([values], [[0, 137, 188, 255]], 1)  # sRGB encoding of 0, 1/4, 1/2 and all of the light
        assert needs_conversion(data) == "profile"


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_srgb_profile_changes_nothing(mode: str) -> None:
    data = encoded(corners().convert(mode), "PNG", icc_profile=SRGB)
    assert ImageChops.difference(open_image(data), corners().convert(mode)).getbbox() is None
    assert needs_conversion(data) is None


def test_a_damaged_profile_is_passed_over() -> None:
    data = encoded(corners(), "PNG", icc_profile=b"no profile at all")
    assert quarters(open_image(data)) == list(CORNERS)
    assert needs_conversion(data) is None


# -- what is refused --------------------------------------------------------------------------------------------


def refusal(source: Path | bytes, call: Callable[..., object] = open_image, **caps: int) -> str:
    with pytest.raises(ImageError) as caught:
        call(source, **caps)
    return str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.jpg"
    assert refusal(path) == f"missing_file: {path.name}: No such file or directory"
    assert refusal(path, needs_conversion) == f"missing_file: {path.name}: No such file or directory"


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    assert refusal(path) == "empty_file: 0 bytes"


def test_too_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    path.write_bytes(encoded(corners(), "PNG"))
    size = path.stat().st_size
    assert refusal(path, max_bytes=size - 1) == f"too_many_bytes: over {size - 1} bytes"
    assert open_image(path, max_bytes=size).size == (48, 32)
    assert read_file(path, size) == path.read_bytes()


def test_too_many_pixels() -> None:
    data = encoded(corners(), "PNG")
    assert refusal(data, max_pixels=48 * 32 - 1) == "too_many_pixels: 48x32 is over 1535 pixels"
    assert open_image(data, max_pixels=48 * 32).size == (48, 32)


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (60_000, 60_000)])
def test_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    bomb = png(width, height, 8, 2, bytes(1000))
    for call in (open_image, needs_conversion, check_image):
        assert refusal(bomb, call).startswith("too_many_pixels: ")


def test_text_named_jpg(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<!doctype html><title>Not found</title>")
    assert refusal(path) == "not_an_image: the bytes match no known image format"


def test_a_pillow_without_avif_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(images._BUILT, "AVIF", False)
    assert refusal(encoded(corners(), "AVIF")) == "unsupported_format: AVIF is not supported by this Pillow"


def noise(form: str) -> bytes:
    return encoded(GRAIN, form)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.95])
def test_truncated(form: str, share: float) -> None:
    data = noise(form)
    assert refusal(data[: max(20, int(len(data) * share))]).startswith("truncated: ")


def test_damaged_png_data() -> None:
    data = bytearray(noise("PNG"))
    data[len(data) // 2] ^= 0xFF
    assert refusal(bytes(data)).startswith("truncated: ")


BEGINNINGS = [b"", b"RIFF", *(noise(form)[:40] for form in FORMATS)]


@given(st.binary(min_size=1, max_size=300), st.sampled_from(BEGINNINGS))
def test_any_bytes_are_an_image_or_an_image_error(data: bytes, start: bytes) -> None:
    for call in (open_image, needs_conversion, check_image):
        try:
            call(start + data)
        except ImageError as error:
            assert error.slug in (
                "not_an_image",
                "unsupported_format",
                "truncated",
                "too_many_pixels",
                "too_many_chunks",
            )


def test_an_error_survives_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(ImageError("truncated", "half")))
    assert (str(error), error.slug, error.detail) == ("truncated: half", "truncated", "half")


# -- flatten ----------------------------------------------------------------------------------------------------


def test_flatten_lays_alpha_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 51))
    flat = flatten(image)
    assert flat.mode == "RGB"
    assert [flat.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (255, 204, 204)]


def test_flatten_of_rgb_and_grey() -> None:
    assert flatten(corners()).tobytes() == corners().tobytes()
    assert flatten(Image.new("L", (1, 1), 7)).getpixel((0, 0)) == (7, 7, 7)
    assert flatten(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0)) == WHITE


# -- place_file -------------------------------------------------------------------------------------------------


def test_place_file_links(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    source.write_bytes(b"one")
    assert place_file(source, target) is True
    assert target.samefile(source)
    assert place_file(source, target) is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_place_file_replaces_the_name_and_not_the_bytes(tmp_path: Path) -> None:
    old, new, target = tmp_path / "old", tmp_path / "new", tmp_path / "target"
    old.write_bytes(b"old bytes")
    new.write_bytes(b"new")
    place_file(old, target)
    assert place_file(new, target) is True
    assert (target.read_bytes(), old.read_bytes()) == (b"new", b"old bytes")


def test_place_file_after_a_killed_run(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"one")
    (tmp_path / ".b.link").write_bytes(b"left behind")
    assert place_file(source, target) is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_place_file_copies_across_devices(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to try with")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        source, target = Path(other) / "a", tmp_path / "b"
        source.write_bytes(b"one")
        os.utime(source, (1_700_000_000, 1_700_000_000))
        assert place_file(source, target) is True
        assert target.read_bytes() == b"one"
        written = target.stat().st_mtime_ns, target.stat().st_ino
        assert place_file(source, target) is False
        assert (target.stat().st_mtime_ns, target.stat().st_ino) == written
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_place_file_without_a_source(tmp_path: Path) -> None:
    with pytest.raises(PokefaError, match=r"^cannot place .*none at .*b: No such file or directory$"):
        place_file(tmp_path / "none", tmp_path / "b")


# -- check_image ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_check_gives_format_and_upright_size(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(corners(), form, exif=exif)
    opened = open_image(data)
    assert check_image(data) == check_image(data, decode=False) == Facts(form, opened.width, opened.height)


@settings(max_examples=150)
@given(
    form=st.sampled_from(["progressive", *FORMATS]),
    cut=st.floats(0.05, 1.0),
    changes=st.dictionaries(st.floats(0.0, 0.999), st.integers(0, 255), max_size=4),
)
def test_check_finds_the_damage_that_decoding_finds(form: str, cut: float, changes: dict[float, int]) -> None:
    whole = encoded(GRAIN, "JPEG", progressive=True) if form == "progressive" else encoded(GRAIN, form)
    data = bytearray(whole[: max(1, int(len(whole) * cut))])
    for place, value in changes.items():
        data[int(place * len(data))] = value

    def verdict(look: Callable[[], tuple[str | None, int, int]]) -> object:
        try:
            return look()
        except ImageError as error:
            return error.slug

    def opened() -> tuple[str | None, int, int]:
        image = open_image(bytes(data))
        return image.format, image.width, image.height

    def checked() -> tuple[str | None, int, int]:
        facts = check_image(bytes(data))
        return facts.format, facts.width, facts.height

    assert verdict(checked) == verdict(opened)


def test_check_of_the_header_lets_damage_pass() -> None:
    data = encoded(GRAIN, "JPEG")[:-200]
    assert refusal(data, check_image).startswith("truncated: ")
    assert check_image(data, decode=False) == Facts("JPEG", *GRAIN.size)


def test_an_orientation_behind_the_pixels_of_a_png_is_found() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encoded(corners(), "PNG", exif=exif)
    at = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[at : at + 4], "big")
    late = data[:at] + data[at + length : -12] + data[at : at + length] + data[-12:]
    assert check_image(late, decode=False) == Facts("PNG", 32, 48)
    assert needs_conversion(late) == "rotated"
    assert open_image(late).size == (32, 48)


def test_the_header_of_a_png_is_read_without_its_pixels() -> None:
    data = encoded(GRAIN, "PNG")
    damaged = data[: len(data) // 2]
    assert check_image(damaged, decode=False) == Facts("PNG", *GRAIN.size)
    assert needs_conversion(damaged) is None
    assert refusal(damaged, check_image).startswith("truncated: ")


# -- reduce -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [2, 4, 8])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_a_jpeg_is_decoded_smaller(orientation: int, by: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(corners(480, 320), "JPEG", quality=95, exif=exif)
    whole, small = open_image(data), open_image(data, reduce=by)
    assert small.size == (whole.width // by, whole.height // by)
    assert (small.format, small.mode) == ("JPEG", "RGB")
    assert near(quarters(small), quarters(whole))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "JPEG"])
def test_other_formats_are_decoded_whole(form: str) -> None:
    assert open_image(encoded(corners(), form), reduce=2).size == (48, 32)


def test_damage_is_found_in_a_jpeg_that_is_decoded_smaller() -> None:
    data = encoded(GRAIN.resize((240, 160)), "JPEG")
    assert refusal(data[: len(data) // 2], lambda source: open_image(source, reduce=4)).startswith("truncated: ")
