"""Stage 4 on formats that no later stage holds, on images that decode for ever, and without shared memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from pokefa.images.files import open_image
from pokefa.images.formats import FORMATS, KEPT_FORMATS, SUFFIXES
from tests.attack import images
from tests.conftest import Dataset, Finished, NamedDataset, named_id
from tests.metadata.conftest import build
from tests.odd_places import check_odd_places

SCRIPT = "preprocess/resize/resize.py"
SMALL = ("--min-side", 64, "--max-short", 128, "--max-long", 256)
OTHERS = [form for form in FORMATS if form not in KEPT_FORMATS]
LOSSLESS = ("GIF", "BMP", "TIFF")


@pytest.fixture
def dataset(dataset: Dataset) -> NamedDataset:
    return NamedDataset(dataset.root)


def write(dataset: Dataset, files: dict[str, bytes]) -> None:
    """Write raw files, and the rows that make them ready; the file's name without its suffix is the id."""
    folder = dataset.root / "data_raw/001-150/0005_sylveon"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    dataset.write_images(
        {"image_id": name.split(".")[0], "path_raw": f"data_raw/001-150/0005_sylveon/{name}", "is_nsfw": "False"}
        | {"has_ocr": "False"}
        for name in files
    )


@pytest.mark.parametrize("side", [40, 100, 300])
def test_other_formats_are_converted(dataset: Dataset, side: int) -> None:
    """As large as they are, up, and down: lossless ones without loss, AVIF to WebP."""
    drawn = images.picture(side).quantize(16).convert("RGB")  # which a GIF can hold
    write(dataset, {f"{form.lower()}.{SUFFIXES[form]}": images.encoded(drawn, form, quality=95) for form in OTHERS})
    raw = {path.name: path.read_bytes() for path in dataset.root.rglob("data_raw/*/*/*")}
    finished = dataset.run(SCRIPT, *SMALL)
    assert (finished.code, finished.summary["done"]) == (0, len(OTHERS)), finished.stderr
    for name, row in dataset.images().items():
        form = name.upper()
        made = Image.open(dataset.root / row["path_resized"])
        assert made.format == FORMATS[form].resized_as == ("PNG" if form in LOSSLESS else "WEBP")
        assert row["path_resized"].endswith(f"{named_id(name)}.{SUFFIXES[str(made.format)]}")
        assert made.size == (int(row["resized_w"]), int(row["resized_h"]))
        if side == 100:
            assert (row["resize_action"], row["resize_note"]) == ("convert", "format")
            difference = ImageChops.difference(made.convert("RGB"), drawn)
            assert max(difference.tobytes()) == 0 if form in LOSSLESS else sum(difference.tobytes()) / 30_000 < 4
        else:
            assert row["resize_action"] == ("up" if side == 40 else "down")
    assert {path.name: path.read_bytes() for path in dataset.root.rglob("data_raw/*/*/*")} == raw


def test_alpha_of_an_avif_is_kept(dataset: Dataset) -> None:
    clear = images.picture(100).convert("RGBA")
    clear.putalpha(77)
    write(dataset, {"clear.avif": images.encoded(clear, "AVIF", quality=95)})
    assert dataset.run(SCRIPT, *SMALL).summary["counts"] == {"format": 1}
    made = open_image(dataset.root / dataset.images()["clear"]["path_resized"])
    assert (made.format, made.mode, made.getpixel((50, 50))[3]) == ("WEBP", "RGBA", 77)


def test_a_png_with_a_long_text_is_stripped_of_it(dataset: Dataset) -> None:
    text = images.png_chunk(b"zTXt", b"Comment\0\0" + images.packed_text(3 * 2**20))
    wide = images.picture(300)
    write(dataset, {
        "keep.png": images.png_with(text, image=images.picture(100)),
        "down.png": images.png_with(text, text, image=wide),
    })  # fmt: skip
    finished = dataset.run(SCRIPT, *SMALL)
    assert finished.summary["counts"] == {"down": 1, "stripped": 1}, finished.stderr
    assert b"zTXt" not in (dataset.root / dataset.images()["keep"]["path_resized"]).read_bytes()


def test_hostile_images_cost_themselves_alone(dataset: Dataset) -> None:
    stream = io.BytesIO()
    images.picture(100).save(stream, "JPEG")
    hostile = {"slow.bmp": images.bmp_run_length(9_900), "scans.jpg": images.jpeg_with_scans(500, 100)}
    write(dataset, hostile | {f"good{number}.jpg": stream.getvalue() for number in range(4)})
    finished = dataset.run(SCRIPT, "--workers", 2, "--decode-seconds", 0.5, *SMALL)
    assert (finished.code, finished.summary["done"], finished.summary["errors"]) == (0, 4, 2), finished.stderr
    errors = {image_id: row["resize_error"].split(":")[0] for image_id, row in dataset.images().items()}
    assert errors == {"slow": "decode_timeout", "scans": "too_many_scans"} | {f"good{n}": "" for n in range(4)}


def test_without_shared_memory(dataset: Dataset, without_shared_memory: Callable[..., Finished]) -> None:
    write(dataset, {"good.png": images.encoded(images.picture(300), "PNG")})
    finished = without_shared_memory(SCRIPT, "--root", dataset.root, *SMALL)
    assert (finished.code, finished.summary["counts"], finished.stderr) == (0, {"down": 1}, "")


def test_a_root_of_any_name_in_any_locale(tmp_path: Path) -> None:
    template = build(tmp_path / "template")
    check_odd_places(template.root, tmp_path, ["preprocess/resize/resize.py --redo --workers 1"])
