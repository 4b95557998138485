"""The OCR stage as a user runs it: real files, real processes, the real detector, a small TorchScript inpainter."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from demo.run import TRUST
from pokefa.files import sha256_of
from pokefa.images.files import open_image
from pokefa.machine import available_cores
from pokefa.stage.runner import Row
from preprocess.ocr import ocr_pipeline
from preprocess.ocr.detect import Detection, DetectRows
from preprocess.ocr.inpainters import BIG_LAMA
from preprocess.ocr.ocr_pipeline import share_cores
from preprocess.ocr.polygons import TextPolygon, area_frac, draw_mask
from tests.attack import images
from tests.attack.images import encoded
from tests.conftest import Dataset, Finished
from tests.ocr.drawing import GROUND, WORDS, Page, busy_page, creature, flat_page, write_on

SCRIPT = "preprocess/ocr/ocr_pipeline.py"
UNFLAG = "preprocess/ocr/ocr_unflag.py"
TEXT = ("flat", "busy", "clear", "grey", "turned")
STAGE_COLUMNS = (
    "has_ocr",
    "ocr_boxes_path",
    "ocr_mask_path",
    "ocr_area_frac",
    "ocr_text_dominated",
    "ocr_doubt",
    "ocr_text",
    "ocr_model",
    "ocr_inpainted_path",
    "ocr_inpainter",
    "ocr_override",
    "ocr_run_id",
    "ocr_error",
)


def clear_page() -> Page:
    """Text on a ground whose right half is transparent."""
    page = flat_page()
    image = page.image.convert("RGBA")
    image.paste((0, 0, 0, 0), (400, 250, 800, 600))
    return Page(image, page.text)


def turned_jpeg(page: Page) -> bytes:
    """The page as a camera held sideways would store it: turned left, with the EXIF note to turn it right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(page.image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


PAGES = {"flat": flat_page(), "busy": busy_page(24), "clear": clear_page(), "turned": flat_page()}
PAGES["grey"] = write_on(Image.new("L", (640, 480), 90), 40, 240)


def raw_files() -> dict[str, bytes]:
    """Return the encoded pictures by name."""
    return {
        "flat": encoded(PAGES["flat"].image, "PNG"),
        "busy": encoded(PAGES["busy"].image, "JPEG", quality=92),
        "clear": encoded(PAGES["clear"].image, "PNG"),
        "grey": encoded(PAGES["grey"].image, "PNG"),
        "turned": turned_jpeg(PAGES["turned"]),
        "plain": encoded(creature("stripes"), "PNG"),
        "broken": encoded(PAGES["flat"].image, "JPEG")[:5000],
        "nsfw": encoded(flat_page(60).image, "PNG"),
    }


FILES = raw_files()
IDS = {name: hashlib.md5(data).hexdigest() for name, data in FILES.items()}


def write_dataset(dataset: Dataset, names: tuple[str, ...], **cells: str) -> None:
    """Save the pictures and their rows, screened for NSFW; `cells` go into every row, `{id}` replaced."""
    rows = []
    for name in names:
        path = dataset.root / "data_raw" / "001-150" / "0001_umbreon" / f"{IDS[name]}.img"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
        row = {"image_id": IDS[name], "path_raw": path.relative_to(dataset.root).as_posix(), "is_nsfw": name == "nsfw"}
        rows.append(row | {column: text.replace("{id}", IDS[name]) for column, text in cells.items()})
    dataset.write_images(rows)


@pytest.fixture(scope="module")
def weights(stand_in: Path) -> dict[str, str]:
    return {"LAMA_MODEL": str(stand_in)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, str]) -> tuple[Dataset, Finished]:
    """A dataset of every kind of picture, after one run of both halves."""
    dataset = Dataset(tmp_path_factory.mktemp("finished"))
    write_dataset(dataset, tuple(FILES))
    # What a run that was killed between writing a file and recording it may leave behind.
    stale = dataset.root / "data_stage/OCR_detection/masks" / f"{IDS['flat']}.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half a mask")
    return dataset, dataset.run(SCRIPT, "run", *TRUST, env=weights)


@pytest.fixture
def copy(finished: tuple[Dataset, Finished], tmp_path: Path) -> Dataset:
    """A copy of the finished dataset that a test may change."""
    shutil.copytree(finished[0].root, tmp_path / "copy")
    return Dataset(tmp_path / "copy")


def mask_of(dataset: Dataset, name: str) -> np.ndarray:
    return np.asarray(Image.open(dataset.root / dataset.images()[IDS[name]]["ocr_mask_path"])) > 0


def upright(name: str) -> Image.Image:
    """The source as Pillow itself opens it."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(FILES[name])))


def bytes_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def stage_cells(dataset: Dataset, name: str) -> dict[str, str]:
    row = dataset.images()[IDS[name]]
    return {column: row[column] for column in STAGE_COLUMNS if row[column]}


# -- one run of both halves -------------------------------------------------------------------------------------------


def test_a_run_finds_text_and_paints_it_over(finished: tuple[Dataset, Finished]) -> None:
    dataset, run = finished
    assert run.code == 0, run.stderr
    assert run.summary["counts"] == {"inpainted": 5, "no_text": 1, "text_found": 5}
    assert (run.summary["seen"], run.summary["done"], run.summary["errors"]) == (7 + 5, 6 + 5, 1)
    assert sum(run.summary["rejected_polygons"].values()) >= 1, "the creature was proposed, and is no word"
    assert (run.summary["doubtful"], run.summary["waiting_for_review"]) == ({}, 0)
    run_id = run.summary["run_id"]
    for name in TEXT:
        cells = stage_cells(dataset, name)
        assert 0.005 < float(cells.pop("ocr_area_frac")) < 0.2
        assert cells.pop("ocr_inpainter").startswith("lama stand-in.pt ")
        assert WORDS in json.loads(cells.pop("ocr_text"))
        assert cells == {
            "has_ocr": "True",
            "ocr_boxes_path": f"data_stage/OCR_detection/boxes/{IDS[name]}.json",
            "ocr_mask_path": f"data_stage/OCR_detection/masks/{IDS[name]}.png",
            "ocr_text_dominated": "False",
            "ocr_model": "PP-OCRv6_small_det 090f04abcd9d",
            "ocr_inpainted_path": f"data_stage/OCR_inpainted/{IDS[name]}.png",
            "ocr_run_id": run_id,
        }


def test_an_image_without_text_costs_no_file(finished: tuple[Dataset, Finished]) -> None:
    dataset, run = finished
    assert stage_cells(dataset, "plain") == {
        "has_ocr": "False",
        "ocr_model": "PP-OCRv6_small_det 090f04abcd9d",
        "ocr_run_id": run.summary["run_id"],
    }
    written = {path.stem for path in (dataset.root / "data_stage").rglob("*.*")}
    assert written == {IDS[name] for name in TEXT}


def test_a_corrupt_image_becomes_an_error_and_the_run_goes_on(finished: tuple[Dataset, Finished]) -> None:
    dataset, run = finished
    cells = stage_cells(dataset, "broken")
    assert cells.keys() == {"ocr_error", "ocr_run_id"}
    assert cells["ocr_error"].startswith("truncated: ")
    assert f"{IDS['broken']}: truncated: " in run.stderr


def test_a_flagged_image_is_not_looked_at(finished: tuple[Dataset, Finished]) -> None:
    assert stage_cells(finished[0], "nsfw") == {}


@pytest.mark.parametrize("name", ["flat", "busy", "turned", "grey"])
def test_the_mask_covers_the_text_in_the_upright_image(finished: tuple[Dataset, Finished], name: str) -> None:
    text = np.asarray(PAGES[name].text) > 0
    mask = mask_of(finished[0], name)
    assert mask.shape == text.shape
    assert not text[~mask].any()


def test_boxes_mask_and_area_agree(finished: tuple[Dataset, Finished]) -> None:
    dataset, _ = finished
    row = dataset.images()[IDS["flat"]]
    boxes = json.loads((dataset.root / row["ocr_boxes_path"]).read_text())
    assert (boxes["image_id"], boxes["width"], boxes["height"]) == (IDS["flat"], 800, 600)
    assert boxes["model"] == row["ocr_model"]
    polygons = [TextPolygon(tuple(map(tuple, shape["points"])), shape["score"]) for shape in boxes["polygons"]]
    assert len(polygons) == 1 and 0.6 <= polygons[0].score <= 1
    assert boxes["polygons"][0]["scale"] == 1.0
    mask = draw_mask(polygons, (800, 600), 0.2, PAGES["flat"].image)
    assert (np.asarray(mask) > 0).tolist() == mask_of(dataset, "flat").tolist()
    assert float(row["ocr_area_frac"]) == round(area_frac(mask), 6)


@pytest.mark.parametrize("name", TEXT)
def test_outside_the_mask_every_pixel_is_that_of_the_source(finished: tuple[Dataset, Finished], name: str) -> None:
    dataset, _ = finished
    source = upright(name)
    result = Image.open(dataset.root / "data_stage/OCR_inpainted" / f"{IDS[name]}.png")
    assert (result.format, result.size, result.mode) == ("PNG", source.size, source.mode)
    mask = mask_of(dataset, name)
    assert (np.asarray(result)[~mask] == np.asarray(source)[~mask]).all()
    assert (np.asarray(result)[mask] != np.asarray(source)[mask]).any()


def test_the_text_on_flat_ground_is_gone(finished: tuple[Dataset, Finished]) -> None:
    """All but the faintest pixels at the rim of a glyph, which a mask of strokes may leave out."""
    root = finished[0].root / "data_stage/OCR_inpainted"
    for name, ground in (("flat", GROUND), ("grey", 90)):
        pixels = np.asarray(Image.open(root / f"{IDS[name]}.png")).astype(int)
        assert np.abs(pixels - ground).max() <= 4


def test_transparency_stays_as_it_was(finished: tuple[Dataset, Finished]) -> None:
    result = Image.open(finished[0].root / "data_stage/OCR_inpainted" / f"{IDS['clear']}.png")
    assert result.getchannel("A").tobytes() == PAGES["clear"].image.getchannel("A").tobytes()


def test_originals_are_untouched(finished: tuple[Dataset, Finished]) -> None:
    dataset, _ = finished
    for name, row in ((name, dataset.images()[IDS[name]]) for name in FILES):
        assert (dataset.root / row["path_raw"]).read_bytes() == FILES[name]


def test_a_second_run_does_nothing(finished: tuple[Dataset, Finished], weights: dict[str, str]) -> None:
    dataset, _ = finished
    before = bytes_of(dataset.root)
    again = dataset.run(SCRIPT, "run", *TRUST, env=weights)
    assert again.code == 0, again.stderr
    assert (again.summary["seen"], again.summary["done"], again.summary["counts"]) == (0, 0, {})
    assert bytes_of(dataset.root) == before


# -- each half --------------------------------------------------------------------------------------------------------


def test_doing_it_all_again_gives_the_same_bytes(copy: Dataset, weights: dict[str, str]) -> None:
    before = bytes_of(copy.root / "data_stage")
    again = copy.run(SCRIPT, "run", "--redo", *TRUST, env=weights)
    assert again.summary["counts"] == {"inpainted": 5, "no_text": 1, "text_found": 5}, again.stderr
    assert bytes_of(copy.root / "data_stage") == before


def test_each_half_goes_on_where_it_was_left(dataset: Dataset) -> None:
    write_dataset(dataset, ("flat", "plain", "grey"))
    first = dataset.run(SCRIPT, "detect", "--limit", 1, "--workers", 1)
    assert first.summary["counts"] == {"text_found": 1}, first.stderr
    assert stage_cells(dataset, "flat")["has_ocr"] == "True"
    assert "ocr_inpainted_path" not in stage_cells(dataset, "flat")
    assert stage_cells(dataset, "plain") == stage_cells(dataset, "grey") == {}
    rest = dataset.run(SCRIPT, "run", "--workers", 1, "--inpainter", "opencv")
    assert rest.summary["counts"] == {"inpainted": 2, "no_text": 1, "text_found": 1}, rest.stderr
    assert stage_cells(dataset, "flat")["ocr_inpainted_path"]
    assert stage_cells(dataset, "grey")["ocr_inpainted_path"]


def test_detecting_anew_empties_what_was_painted_over_another_mask(copy: Dataset, weights: dict[str, str]) -> None:
    before = stage_cells(copy, "busy")
    flat, grey = IDS["flat"], IDS["grey"]
    copy.run(UNFLAG, "--ids", grey)
    again = copy.run(SCRIPT, "detect", "--redo", "--ids", flat, grey, "--dilate", 0.5)
    assert again.summary["counts"] == {"text_found": 2}, again.stderr
    assert not {"ocr_inpainted_path", "ocr_inpainter"} & stage_cells(copy, "flat").keys()
    assert stage_cells(copy, "grey")["ocr_override"] == "unflagged", "the override outlives a new detection"
    assert stage_cells(copy, "busy") == before
    # Of the images with text only the one that was detected anew and is not unflagged would be painted; here none.
    strictest = ("--min-plausible", 1, "--min-doubtful", 1)
    stricter = copy.run(SCRIPT, "run", "--redo", "--ids", flat, grey, *strictest, *TRUST, env=weights)
    assert stricter.summary["counts"] == {"no_text": 2}, stricter.stderr
    assert stage_cells(copy, "flat").keys() == {"has_ocr", "ocr_model", "ocr_run_id"}
    assert not [path for path in (copy.root / "data_stage").rglob("*.*") if path.stem in (flat, grey)]


def test_an_image_that_is_mostly_text_is_marked_and_left_as_it_is(copy: Dataset) -> None:
    flat, busy = IDS["flat"], IDS["busy"]
    little = float(copy.images()[busy]["ocr_area_frac"])
    assert little < float(copy.images()[flat]["ocr_area_frac"])
    flags = ("--max-text-frac", little, "--inpainter", "opencv")
    again = copy.run(SCRIPT, "run", "--redo", "--ids", flat, busy, *flags)
    assert again.summary["counts"] == {"inpainted": 1, "text_dominated": 1, "text_found": 1}, again.stderr
    cells = stage_cells(copy, "flat")
    assert (cells["has_ocr"], cells["ocr_text_dominated"]) == ("True", "True")
    assert not {"ocr_inpainted_path", "ocr_inpainter"} & cells.keys()
    assert stage_cells(copy, "busy")["ocr_text_dominated"] == "False"
    left = {path.relative_to(copy.root / "data_stage").as_posix() for path in (copy.root / "data_stage").rglob("*.*")}
    assert {name for name in left if flat in name} == {
        f"OCR_detection/boxes/{flat}.json",
        f"OCR_detection/masks/{flat}.png",
    }
    assert copy.run(SCRIPT, "run", "--inpainter", "opencv").summary["seen"] == 0, "nothing waits to be painted over"


def test_a_doubtful_image_waits_for_a_person(copy: Dataset) -> None:
    flat, grey, busy = (IDS[name] for name in ("flat", "grey", "busy"))
    flags = ("--ids", flat, grey, busy, "--max-mask-frac", "0.001")
    again = copy.run(SCRIPT, "run", "--redo", *flags, "--inpainter", "opencv")
    assert again.summary["counts"] == {"text_doubtful": 3}, again.stderr
    assert (again.summary["doubtful"], again.summary["waiting_for_review"]) == ({"large_mask": 3}, 3)
    for name in ("flat", "grey", "busy"):
        cells = stage_cells(copy, name)
        assert (cells["has_ocr"], cells["ocr_doubt"]) == ("True", "large_mask")
        assert (
            "ocr_inpainted_path" not in cells and not (copy.root / f"data_stage/OCR_inpainted/{IDS[name]}.png").exists()
        )
        assert (copy.root / cells["ocr_mask_path"]).exists(), "the review shows it"
    assert copy.run(SCRIPT, "run", "--inpainter", "opencv").summary["seen"] == 0
    copy.run(UNFLAG, "--ids", grey)
    copy.run(UNFLAG, "--paint", "--ids", flat)
    decided = copy.run(SCRIPT, "run", "--inpainter", "opencv")
    assert (decided.summary["counts"], decided.summary["waiting_for_review"]) == ({"inpainted": 1}, 1)
    assert stage_cells(copy, "flat")["ocr_inpainted_path"]
    rest = copy.run(SCRIPT, "inpaint", "--paint-doubtful", "--inpainter", "opencv")
    assert (rest.summary["counts"], rest.summary["waiting_for_review"]) == ({"inpainted": 1}, 0)
    assert stage_cells(copy, "busy")["ocr_inpainted_path"] and "ocr_inpainted_path" not in stage_cells(copy, "grey")


def test_hostile_images_become_errors(dataset: Dataset) -> None:
    """One that decodes for ever, one with too many scans, and a pipe, for which nobody waits."""
    write_dataset(dataset, ("flat", "busy", "clear", "plain"))
    paths = {name: dataset.root / dataset.images()[IDS[name]]["path_raw"] for name in ("flat", "busy", "clear")}
    paths["flat"].write_bytes(images.bmp_run_length(9_900))
    paths["busy"].write_bytes(images.jpeg_with_scans(500))
    paths["clear"].unlink()
    os.mkfifo(paths["clear"])
    done = dataset.run(SCRIPT, "detect", "--workers", "1", "--verify-text", "none", "--decode-seconds", "0.5")
    assert (done.code, done.summary["counts"], done.summary["errors"]) == (0, {"no_text": 1}, 3), done.stderr
    errors = {name: dataset.images()[IDS[name]]["ocr_error"].split(":")[0] for name in paths}
    assert errors == {"flat": "decode_timeout", "busy": "too_many_scans", "clear": "missing_file"}
    assert stage_cells(dataset, "plain")["has_ocr"] == "False"


@dataclass(frozen=True)
class Exhausts(DetectRows):
    """It asks for more memory than any machine has, for one of the images."""

    def detect_row(self, row: Row, *others: Any) -> Detection:
        if row["image_id"] == IDS["flat"]:
            np.zeros((10**6, 10**6, 10**3))
        return super().detect_row(row, *others)


def test_an_image_that_memory_does_not_suffice_for_becomes_an_error(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(dataset, ("flat", "plain"))
    monkeypatch.setattr(ocr_pipeline, "DetectRows", Exhausts)
    arguments = ["detect", "--root", str(dataset.root), "--workers", "1", "--verify-text", "none"]
    assert ocr_pipeline.main(arguments) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["counts"], summary["errors"]) == ({"no_text": 1}, 1)
    assert "MemoryError" in dataset.images()[IDS["flat"]]["ocr_error"]


def has_text_cells(mask: str = "masks/{id}.png") -> dict[str, str]:
    return {"has_ocr": "True", "ocr_mask_path": mask, "ocr_model": "by hand"}


def write_mask(dataset: Dataset, name: str, mask: Image.Image) -> Path:
    path = dataset.root / "masks" / f"{IDS[name]}.png"
    path.parent.mkdir(exist_ok=True)
    mask.save(path)
    return path


def test_opencv_paints_a_mask_that_a_person_drew(dataset: Dataset) -> None:
    write_dataset(dataset, ("flat",), **has_text_cells())
    by_hand = Image.new("RGB", (800, 600))
    by_hand.paste((255, 255, 255), (80, 180, 720, 280))
    write_mask(dataset, "flat", by_hand)
    done = dataset.run(SCRIPT, "inpaint", "--inpainter", "opencv")
    assert (done.code, done.summary["stage"]) == (0, "ocr_inpaint"), done.stderr
    assert done.summary["counts"] == {"inpainted": 1}
    assert stage_cells(dataset, "flat")["ocr_inpainter"].startswith("opencv-telea 4.")
    result = open_image(dataset.root / stage_cells(dataset, "flat")["ocr_inpainted_path"])
    assert np.abs(np.asarray(result).astype(int) - GROUND).max() <= 8


def test_an_image_that_cannot_be_painted_is_tried_again_on_demand(dataset: Dataset) -> None:
    write_dataset(dataset, ("flat", "grey"), **has_text_cells())
    write_mask(dataset, "flat", Image.new("L", (600, 800), 255))
    failed = dataset.run(SCRIPT, "inpaint", "--inpainter", "opencv", "--workers", 2)
    assert (failed.code, failed.summary["errors"], failed.summary["counts"]) == (0, 2, {})
    assert dataset.images()[IDS["flat"]]["ocr_error"] == (
        "mask_mismatch: the mask has 600x800 pixels, the image 800x600"
    )
    missing = dataset.root / "masks" / f"{IDS['grey']}.png"
    expected = f"bad_mask: missing_file: {missing.name}: No such file or directory"
    assert dataset.images()[IDS["grey"]]["ocr_error"] == expected
    write_mask(dataset, "flat", PAGES["flat"].text)
    assert dataset.run(SCRIPT, "inpaint", "--inpainter", "opencv").summary["seen"] == 0
    mended = dataset.run(SCRIPT, "inpaint", "--inpainter", "opencv", "--retry-errors", "--strict")
    assert (mended.code, mended.summary["counts"], mended.summary["errors"]) == (1, {"inpainted": 1}, 1)
    assert "ocr_error" not in stage_cells(dataset, "flat")


def test_a_dry_run_changes_nothing(dataset: Dataset) -> None:
    write_dataset(dataset, ("flat", "plain"))
    before = bytes_of(dataset.root)
    dry = dataset.run(SCRIPT, "run", "--dry-run")
    assert dry.code == 0
    assert "dry run: ocr_detect would work on 2 images" in dry.stderr
    assert bytes_of(dataset.root) == before


def test_a_table_without_the_stages_columns_is_enough(dataset: Dataset) -> None:
    path = dataset.root / "metadata" / "images.csv"
    path.parent.mkdir()
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["image_id", "path_raw", "is_nsfw", "nsfw_override"], ["a" * 32, "x.png", "True", ""]]
        )
    done = dataset.run(SCRIPT, "run", "--inpainter", "opencv")
    assert (done.code, done.summary["seen"]) == (0, 0), done.stderr


# -- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: halves"),
        (("both",), "argument halves: invalid choice: 'both' (choose from 'run', 'detect', 'inpaint')"),
        (("run", "--min-plausible", "1.5"), "argument --min-plausible: '1.5' is not a number from 0 to 1"),
        (("run", "--min-area-frac", "nan"), "argument --min-area-frac: 'nan' is not a number from 0 to 1"),
        (("run", "--dilate", "wide"), "argument --dilate: 'wide' is not a number from 0 to 1"),
        (("run", "--scales", "9"), "argument --scales: '9' is not a number from 0.1 to 4"),
        (("run", "--tile", "100"), "argument --tile: '100' is not a whole number from 256 to 4000"),
        (("run", "--max-side", "0"), "argument --max-side: '0' is not a whole number of 64 or more"),
        (("run", "--min-doubtful", "2"), "argument --min-doubtful: '2' is not a number from 0 to 1"),
        (("run", "--max-mask-frac", "2"), "argument --max-mask-frac: '2' is not a number from 0 to 1"),
        (("run", "--max-text-frac", "2"), "argument --max-text-frac: '2' is not a number from 0 to 1"),
        (
            ("run", "--verify-text", "some"),
            "argument --verify-text: invalid choice: 'some' (choose from 'none', 'all')",
        ),
        (("run", "--workers", "0"), "argument --workers: '0' is not a whole number of 1 or more"),
        (("run", "--inpainter", "gan"), "argument --inpainter: invalid choice: 'gan' (choose from 'lama', 'opencv')"),
    ],
)
def test_wrong_arguments(run_script: Callable[..., Finished], arguments: tuple[str, ...], message: str) -> None:
    wrong = run_script(SCRIPT, *arguments)
    assert wrong.code == 2
    assert wrong.stderr.splitlines()[-1] == f"ocr_pipeline.py: error: {message}"


def test_a_missing_ledger(dataset: Dataset) -> None:
    wrong = dataset.run(SCRIPT, "run", env={"LAMA_MODEL": ""})
    assert wrong.code == 2
    assert wrong.stderr == (
        f"error: no ledger at {dataset.root}/metadata/images.csv: run scraping/scrape.py first, or name the dataset's "
        "folder with --root\n"
    )


def test_wrong_weights_are_known_before_anything_is_detected(dataset: Dataset) -> None:
    write_dataset(dataset, ("flat",))
    wrong = dataset.run(SCRIPT, "run", env={"LAMA_MODEL": "/no/such.pt"})
    assert wrong.code == 2
    assert wrong.stderr == (
        "error: LAMA_MODEL names /no/such.pt, which is no file: correct it, or unset it to download big-lama.pt\n"
    )
    assert stage_cells(dataset, "flat") == {}


def test_a_file_that_is_not_pinned_needs_a_word_of_trust(dataset: Dataset, weights: dict[str, str]) -> None:
    write_dataset(dataset, ("flat",))
    for flags in ((), ("--dry-run",)):
        wrong = dataset.run(SCRIPT, "run", *flags, env=weights)
        assert wrong.code == 2
        assert wrong.stderr == (
            f"error: LAMA_MODEL: {weights['LAMA_MODEL']} is not the pinned model file (its SHA-256 is "
            f"{sha256_of(Path(weights['LAMA_MODEL']))}, expected {BIG_LAMA.sha256}); a model file is a "
            "program: if you trust its author, add --trust-model-file to run it in a process that cannot write\n"
        )
    wrong = dataset.run(SCRIPT, "detect", "--det-model", "PP-OCRv5_mobile_det")
    assert wrong.code == 2
    assert wrong.stderr.startswith("error: --det-model PP-OCRv5_mobile_det is downloaded unchecked; a model file is a")
    assert stage_cells(dataset, "flat") == {}


def test_help_and_import_need_no_heavy_library(run_script: Callable[..., Finished]) -> None:
    code = (
        "import sys; import preprocess.ocr.ocr_pipeline as stage; stage.build_parser().format_help(); "
        "print(sorted({'cv2', 'numpy', 'onnxruntime', 'paddleocr', 'paddlex', 'torch'} & set(sys.modules)))"
    )
    assert run_script("-c", code).stdout == "[]\n"


def test_workers_times_threads_fill_the_cores() -> None:
    cores = available_cores()
    for workers in range(1, cores + 1):
        assert share_cores(workers) == (workers, cores // workers)
    assert share_cores(2 * cores) == (2 * cores, 1)
    workers, threads = share_cores(None)
    assert workers == max(1, cores // 4) and workers * threads <= cores
