"""Hostile images: each is refused or ended by name, and costs no other image anything. Odd but good ones are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import ExifTags, Image, ImageChops

from pokefa.errors import ImageError, Interrupted, PokefaError
from pokefa.images import memory
from pokefa.images.decoding import Decoders, Limits
from pokefa.images.files import check_image, needs_conversion, open_image, read_file
from pokefa.images.formats import FORMATS
from pokefa.images.memory import SLOT_BYTES, Budget
from pokefa.images.structure import MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS, Caps, without_ballast
from tests.attack import calls, images
from tests.conftest import CHECKOUT

CALLS = (open_image, check_image, needs_conversion)


def refusal(data: bytes | Path, call: Callable[..., object] = open_image) -> str:
    with pytest.raises(ImageError) as caught:
        call(data)
    return str(caught.value)


def same_pixels(one: bytes, other: bytes) -> bool:
    difference = ImageChops.difference(open_image(one), open_image(other))
    return difference.getbbox() is None


# -- counts -----------------------------------------------------------------------------------------------------------

TOO_MANY = {
    "scans": (images.jpeg_with_scans(MAX_SCANS + 1), "too_many_scans"),
    "segments": (images.jpeg_with(images.jpeg_segment(0xDB) * (MAX_SEGMENTS + 1)), "too_many_segments"),
    "comments": (images.jpeg_with(images.jpeg_segment(0xFE) * 100_000), "too_many_segments"),
    "markers": (images.jpeg_with(b"\xff\x01" * 100_000), "too_many_segments"),
    "texts": (images.png_with(before=images.png_chunk(b"tEXt", b"a\0b") * (MAX_CHUNKS + 1)), "too_many_chunks"),
    "texts behind": (images.png_with(after=images.png_chunk(b"tEXt", b"a\0b") * (MAX_CHUNKS + 1)), "too_many_chunks"),
    "empty IDAT": (images.png_with(before=images.png_chunk(b"IDAT") * (MAX_CHUNKS + 1)), "too_many_chunks"),
    "WebP chunks": (images.webp_with_chunks(MAX_CHUNKS), "too_many_chunks"),
    "GIF comment": (images.gif_with_blocks(MAX_CHUNKS), "too_many_chunks"),
    "TIFF strips": (images.tiff_with_strips(MAX_CHUNKS + 1), "too_many_chunks"),
    "TIFF entries": (images.tiff_with_entries(MAX_CHUNKS + 1), "too_many_chunks"),
}


@pytest.mark.parametrize("kind", TOO_MANY)
@pytest.mark.parametrize("call", CALLS)
def test_what_has_too_many_parts_is_refused_before_it_is_decoded(kind: str, call: Callable[..., object]) -> None:
    data, slug = TOO_MANY[kind]
    assert refusal(data, call).startswith(f"{slug}: over ")


def test_as_many_parts_as_the_caps_allow_are_decoded() -> None:
    assert open_image(images.jpeg_with_scans(MAX_SCANS)).size == (64, 64)
    assert open_image(images.png_with(before=images.png_chunk(b"tEXt", b"a\0b") * (MAX_CHUNKS - 3))).size == (64, 64)
    assert open_image(images.gif_with_blocks(MAX_CHUNKS - 3)).size == (64, 64)
    assert open_image(images.tiff_with_strips(8)).size == (8, 8)


def test_a_user_can_set_the_caps() -> None:
    decoders = Decoders(Limits(caps=Caps(scans=11, segments=MAX_SEGMENTS, chunks=MAX_CHUNKS)))
    try:
        assert decoders.call(check_image, images.jpeg_with_scans(11)).format == "JPEG"
        with pytest.raises(ImageError, match=r"^too_many_scans: over 11 scans in a JPEG$"):
            decoders.call(check_image, images.jpeg_with_scans(12))
    finally:
        decoders.close()


# -- ballast: what no pixel depends on does not cost the picture ------------------------------------------------------

LONG = 3 * 2**20
XMP = b"XML:com.adobe.xmp\0"
BALLAST = {
    "zTXt": images.png_chunk(b"zTXt", b"Comment\0\0" + images.packed_text(LONG)),
    "iTXt": images.png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + images.packed_text(LONG)),
    "tEXt": images.png_chunk(b"tEXt", b"Comment\0" + b"text" * LONG),
    "XMP": images.png_chunk(b"iTXt", XMP + b"\0\0\0\0" + b" " * LONG),
    "XMP, packed": images.png_chunk(b"iTXt", XMP + b"\1\0\0\0" + images.packed_text(LONG)),
    "raw EXIF": images.png_chunk(b"zTXt", b"Raw profile type exif\0\0" + images.packed_text(LONG)),
    "many packed": images.png_chunk(b"zTXt", b"Comment\0\0" + images.packed_text(2**20)) * 200,
    "iCCP": images.png_chunk(b"iCCP", b"profile\0\0" + images.packed_text(40 * 2**20)),
    "damaged zTXt": images.png_chunk(b"zTXt", b"Comment\0\0no zlib"),
}


@pytest.mark.parametrize("kind", BALLAST)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_png_with_long_texts_keeps_its_picture(kind: str, place: str) -> None:
    data = images.png_with(**{place: BALLAST[kind]})
    assert same_pixels(data, images.png_with())
    assert check_image(data) == check_image(images.png_with())
    assert needs_conversion(data) is None


def test_a_long_profile_is_followed() -> None:
    """Profiles measured for one display have 1 to 3 MB."""
    from PIL import ImageCms

    red, blue = b"rXYZ", b"bXYZ"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(red, b"tXYZ").replace(blue, red).replace(b"tXYZ", blue)
    long = swapped + bytes(2 * 2**20)
    for profile in (swapped, len(long).to_bytes(4, "big") + long[4:]):
        data = images.encoded(Image.new("RGB", (8, 8), (255, 0, 0)), "PNG", icc_profile=profile)
        assert open_image(data).getpixel((4, 4)) == (0, 0, 255)


ORIENTATION = {
    "eXIf": lambda exif: images.png_chunk(b"eXIf", exif.tobytes()[6:]),
    "XMP": lambda exif: images.png_chunk(b"iTXt", XMP + b'\0\0\0\0<x tiff:Orientation="6"/>'),
    "raw profile": lambda exif: images.png_chunk(
        b"zTXt", b"Raw profile type exif\0\0" + images.zlib.compress(b"\nexif\n 99\n" + exif.tobytes().hex().encode())
    ),
}


@pytest.mark.parametrize("kind", ORIENTATION)
@pytest.mark.parametrize("place", ["before", "after"])
def test_an_orientation_among_long_texts_is_found(kind: str, place: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    chunk = ORIENTATION[kind](exif)
    wide = images.picture().resize((80, 40))
    for data in (chunk, BALLAST["zTXt"] + chunk + BALLAST["tEXt"]):
        turned = images.png_with(**{place: data}, image=wide)
        assert open_image(turned).size == (40, 80)
        assert check_image(turned).width == 40
        assert needs_conversion(turned) == "rotated"


EXIF = images.jpeg_segment(0xE1, b"Exif\0\0" + bytes(65_000))
ODD_HEADERS = {
    "600 segments of EXIF": EXIF * 600,
    "comments": images.jpeg_segment(0xFE, b"text" * 16_000) * 300,
    "photoshop": images.jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 16_000) * 300,
    "junk": images.jpeg_segment(0xFE) + bytes(3_000_000),
    "fill bytes": b"\xff" * 3_000_000,
    "more pictures": images.jpeg_segment(0xE2, b"MPF\0" + bytes(60_000)),
}


@pytest.mark.parametrize("kind", ODD_HEADERS)
def test_a_jpeg_with_an_odd_header_keeps_its_picture(kind: str) -> None:
    data = images.jpeg_with(ODD_HEADERS[kind])
    assert same_pixels(data, images.jpeg_with(b""))
    # Pillow gets little more than the picture, so nothing that it does with a header takes longer than usual.
    assert len(without_ballast("JPEG", data, Caps())) < len(images.jpeg_with(b"")) + 17 * len(EXIF)


def test_the_first_exif_counts_with_600_behind_it() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = images.jpeg_with(images.jpeg_segment(0xE1, exif.tobytes()) + EXIF * 600)
    assert needs_conversion(data) == "rotated"


def test_a_file_without_ballast_is_not_copied() -> None:
    for form in FORMATS:
        data = images.encoded(images.picture(), form)
        assert without_ballast(form, data, Caps()) is data


# -- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", images.NOT_READ)
def test_an_image_that_is_not_read_is_named(name: str) -> None:
    assert refusal(images.NOT_READ[name]) == f"unsupported_format: {name} is not supported"


@pytest.mark.parametrize("kind", images.NO_IMAGE)
def test_what_is_no_image_is_not_taken_for_one(kind: str) -> None:
    assert refusal(images.NO_IMAGE[kind]) == "not_an_image: the bytes match no known image format"


def test_a_pipe_or_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    assert refusal(tmp_path / "pipe.png") == "missing_file: pipe.png: not a regular file"
    assert refusal(tmp_path / "folder.png").startswith("missing_file: folder.png: ")


def test_a_sparse_file_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "sparse.png").open("wb") as stream:
        stream.truncate(100 << 30)
    with pytest.raises(ImageError, match=r"^too_many_bytes: over 1000 bytes$"):
        read_file(tmp_path / "sparse.png", 1000)


# -- time, memory, crashes --------------------------------------------------------------------------------------------


@pytest.fixture
def decoders(tmp_path: Path) -> Iterator[Decoders]:
    """Decoders, one at a time, for images that must be done in half a second of processor time."""
    made = Decoders(Limits(seconds=0.5), at_once=1, budget=Budget(2 * SLOT_BYTES, tmp_path / "budget"))
    yield made
    made.close()


def failure(decoders: Decoders, function: Callable[..., object], *args: object) -> str:
    with pytest.raises(PokefaError) as caught:
        decoders.call(function, *args)
    return str(caught.value)


KILLED = "decode_memory: the decoder was killed, most likely because memory ran out"
OVER = {
    "time": (calls.spin, "decode_timeout: not decoded within 0.5 seconds of CPU time"),
    "crash": (calls.crash, "decode_crash: the decoder crashed (SIGABRT)"),
    "killed twice": (calls.die, KILLED),
    "an error of another library": (calls.raise_what_cannot_travel, "Local: of a library that the caller lacks"),
}


@pytest.mark.parametrize("kind", OVER)
def test_a_call_over_its_limits_costs_itself_alone(decoders: Decoders, kind: str) -> None:
    function, error = OVER[kind]
    assert decoders.call(calls.double, 4) == 8
    assert failure(decoders, function) == error
    assert decoders.call(calls.double, 5) == 10


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts what is mapped on Linux alone")
def test_a_call_that_takes_ever_more_memory_is_ended(decoders: Decoders) -> None:
    assert failure(decoders, calls.hoard).startswith("decode_memory: ")
    assert decoders.call(calls.double, 5) == 10


def test_a_call_whose_decoder_was_killed_from_outside_is_made_again(decoders: Decoders, tmp_path: Path) -> None:
    assert decoders.call(calls.die_once, tmp_path / "died") == "alive"


def test_decoding_has_an_end(decoders: Decoders) -> None:
    """Pillow decodes a BMP's runs in Python: within the caps, and slow."""
    data = images.bmp_run_length(9_900)
    assert failure(decoders, check_image, data).startswith("decode_timeout: ")
    assert decoders.call(open_image, images.encoded(images.picture(), "BMP")).size == (64, 64)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts what is mapped on Linux alone")
def test_an_image_that_needs_more_memory_than_all_may_have_is_refused(decoders: Decoders) -> None:
    data = images.webp_of_one_colour(9_000)
    assert len(data) < 100
    assert failure(decoders, check_image, data) == "decode_memory: decoding needs more than 128 MB of memory"
    assert decoders.call(check_image, images.webp_of_one_colour(500)).width == 500


# -- nobody waits for a hostile image ---------------------------------------------------------------------------------


def in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Start a thread; what the function returns or raises ends up in the list."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def test_a_slow_call_gives_its_turn_to_others_and_ends_when_the_run_does() -> None:
    decoders = Decoders(Limits(seconds=1000), at_once=1)
    thread, outcome = in_thread(lambda: decoders.call(calls.spin))
    assert [decoders.call(calls.double, number) for number in range(30)] == [2 * number for number in range(30)]
    assert outcome == []
    decoders.close()
    thread.join()
    assert isinstance(outcome[0], Interrupted)
    with pytest.raises(Interrupted):
        decoders.call(calls.double, 1)


def test_small_images_do_not_wait_for_the_memory_of_large_ones(tmp_path: Path) -> None:
    budget = Budget(40 * SLOT_BYTES, tmp_path)
    decoders = Decoders(at_once=1, budget=budget)
    large = images.webp_of_one_colour(2600)
    with budget.claim(40 * SLOT_BYTES):
        thread, outcome = in_thread(lambda: decoders.call(check_image, large))
        assert [decoders.call(open_image, images.png_with()).size for _ in range(10)] == [(64, 64)] * 10
        assert outcome == []
    thread.join()
    assert outcome == [check_image(large)]
    decoders.close()


def test_a_large_image_that_waits_for_memory_ends_when_the_run_does(tmp_path: Path) -> None:
    budget = Budget(40 * SLOT_BYTES, tmp_path)
    decoders = Decoders(at_once=1, budget=budget)
    with budget.claim(40 * SLOT_BYTES):
        thread, outcome = in_thread(lambda: decoders.call(check_image, images.webp_of_one_colour(2600)))
        decoders.close()
        thread.join()
    assert isinstance(outcome[0], Interrupted)


# -- the budget -------------------------------------------------------------------------------------------------------


def at_once() -> bool:
    return True


def test_a_budget_gives_what_there_is(tmp_path: Path) -> None:
    budget = Budget(4 * SLOT_BYTES + 5, tmp_path)
    with budget.claim(1) as one, budget.claim(3 * SLOT_BYTES) as three:
        assert (one, three) == (SLOT_BYTES, 3 * SLOT_BYTES)
        with pytest.raises(Interrupted), budget.claim(1, at_once):
            pass
    with budget.claim(9 * SLOT_BYTES) as everything:
        assert everything == budget.total


def test_the_claim_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from pokefa.images.memory import *\n"
        "with Budget(2 * SLOT_BYTES, Path(sys.argv[1])).claim(2 * SLOT_BYTES):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    budget = Budget(2 * SLOT_BYTES, tmp_path)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(Interrupted), budget.claim(1, at_once):
            pass
        holder.kill()
    with budget.claim(2 * SLOT_BYTES, at_once) as given:
        assert given == 2 * SLOT_BYTES


def test_a_budget_without_a_folder_lets_everything_pass(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    budget = Budget(SLOT_BYTES, tmp_path / "file" / "folder")
    with budget.claim(1), budget.claim(1):
        pass


def test_the_machine_has_memory() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.memory_of_machine() <= physical
    assert Budget().total == int(memory.memory_of_machine() * memory.SHARE_OF_MEMORY)


# -- decoders and their parent ----------------------------------------------------------------------------------------


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_decoders_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    script = (
        "import sys; from pathlib import Path; from pokefa.images.decoding import *; from tests.attack.calls import *\n"
        "Decoders(Limits(seconds=1000)).call(tell_pid_and_spin, Path(sys.argv[1]))"
    )
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    parent = subprocess.Popen([sys.executable, "-c", script, str(file)], env=environment)
    while not (file.exists() and file.read_text()):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while is_alive(int(file.read_text())):
        assert time.monotonic() < deadline, "the decoder lives on"
        time.sleep(0.02)


def test_a_decoder_gets_no_key(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert decoders.call(os.getenv, "OPENAI_API_KEY") is None
    assert decoders.call(os.getenv, "PATH") == os.environ["PATH"]


@pytest.mark.parametrize(
    "module",
    [
        "pokefa.reporting.thumbnails",
        "pokefa.llm.images",
        "pokefa.images.phash",
        "preprocess.resize.convert",
        "pokefa.shards.images",
    ],
)
def test_a_decoder_loads_little(decoders: Decoders, module: str) -> None:
    assert not decoders.call(calls.loads_polars, module)


def test_ctrl_c_in_a_terminal_does_not_reach_decoders(decoders: Decoders) -> None:
    assert decoders.call(os.getsid, 0) != os.getsid(0)
    assert decoders.call(signal.getsignal, signal.SIGINT) == signal.SIG_IGN
