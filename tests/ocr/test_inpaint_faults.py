"""What goes wrong while text is painted over, in real processes: each costs one image its result, and no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import CHECKOUT, Dataset
from tests.ocr.drawing import flat_page
from tests.ocr.models import impossible_model, stuck_model

SCRIPT = "preprocess/ocr/ocr_pipeline.py"
# The model runs in the worker itself, as the pinned one does.
UNCONFINED = ("--trust-model-file", "--unconfined-model-file")
WIDE = "wide"  # the image on which the models of this file fail
NAMES = ("first", WIDE, "last")
IDS = {name: f"{index}" * 32 for index, name in enumerate(NAMES, 1)}
ON_THE_WIDE_ONE = "image.size(3) > 400"

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture
def detected(dataset: Dataset) -> Dataset:
    """Three images with text and their masks; the mask of the second takes a wider crop than the others'."""
    rows = []
    for name in NAMES:
        size = (600, 300) if name == WIDE else (300, 300)
        page = flat_page(20, size)
        mask = Image.new("L", size)
        mask.paste(255, (40, 90, size[0] - 40, 130))
        files = {"path_raw": f"data_raw/{name}.png", "ocr_mask_path": f"masks/{name}.png"}
        for picture, path in zip((page.image, mask), files.values(), strict=True):
            (dataset.root / path).parent.mkdir(exist_ok=True)
            picture.save(dataset.root / path)
        rows.append({"image_id": IDS[name], "is_nsfw": "False", "has_ocr": "True", **files})
    dataset.write_images(rows)
    return dataset


def outcomes(dataset: Dataset) -> dict[str, str]:
    """Return each image's error, or `inpainted`, or nothing."""
    rows = dataset.images()
    found = {}
    for name, image_id in IDS.items():
        row = rows[image_id]
        assert bool(row["ocr_inpainted_path"]) == bool(row["ocr_inpainter"])
        assert bool(row["ocr_inpainted_path"]) <= (dataset.root / (row["ocr_inpainted_path"] or "none")).is_file()
        found[name] = row["ocr_error"] or ("inpainted" if row["ocr_inpainted_path"] else "")
    return found


@contextmanager
def started(dataset: Dataset, weights: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the stage's second half with one worker."""
    words = [sys.executable, SCRIPT, "--root", str(dataset.root), "inpaint", "--workers", "1", *UNCONFINED]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "LAMA_MODEL": str(weights), "PYTHONUNBUFFERED": "1"}
    run = subprocess.Popen(words, cwd=CHECKOUT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def wait_until_stuck(run: subprocess.Popen[str]) -> int:
    """Wait until the model is running on the image on which it never ends, and return the worker's process id."""
    assert run.stdout is not None
    for line in run.stdout:
        if line.strip() == "stuck":
            tasks = Path(f"/proc/{run.pid}/task").iterdir()
            children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
            # The other child is multiprocessing's resource tracker.
            [worker] = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            return worker
    raise AssertionError("the run ended")


def wait_until_journalled(dataset: Dataset, image_id: str) -> None:
    """Wait until the run has recorded an image: its worker may be at the next one before that."""
    deadline = time.monotonic() + 60
    while not any(
        f'"image_id":"{image_id}"' in path.read_text(encoding="utf-8")
        for path in (dataset.root / "metadata/runs").glob("*.jsonl")
    ):
        assert time.monotonic() < deadline, "the first image was never recorded"
        time.sleep(0.05)


def test_a_worker_that_dies_costs_its_image_alone(detected: Dataset, tmp_path: Path) -> None:
    weights = stuck_model(tmp_path / "stuck.pt", ON_THE_WIDE_ONE)
    with started(detected, weights) as run:
        for _ in range(2):  # the second time the image is alone in a process, and known to be the culprit
            os.kill(wait_until_stuck(run), signal.SIGKILL)
        assert run.wait(timeout=120) == 0
    assert outcomes(detected) == {
        "first": "inpainted",
        WIDE: "worker_died: the process working on this image was killed (out of memory, or a crash in a library)",
        "last": "inpainted",
    }


def test_a_run_that_is_killed_goes_on_with_what_was_not_painted(
    detected: Dataset, stand_in: Path, tmp_path: Path
) -> None:
    weights = stuck_model(tmp_path / "stuck.pt", ON_THE_WIDE_ONE)
    with started(detected, weights) as run:
        worker = wait_until_stuck(run)
        wait_until_journalled(detected, IDS["first"])
        run.kill()
        run.wait(timeout=60)
        with suppress(ProcessLookupError):  # it dies with the driver, sooner or later
            os.kill(worker, signal.SIGKILL)
    first = detected.root / "data_stage/OCR_inpainted" / f"{IDS['first']}.png"
    before = first.stat().st_mtime_ns, first.read_bytes()
    rest = detected.run(SCRIPT, "inpaint", "--workers", "1", *UNCONFINED, env={"LAMA_MODEL": str(stand_in)})
    assert (rest.code, rest.summary["counts"]) == (0, {"inpainted": 2}), rest.stderr
    assert outcomes(detected) == dict.fromkeys(NAMES, "inpainted")
    assert (first.stat().st_mtime_ns, first.read_bytes()) == before
    models = [detected.images()[IDS[name]]["ocr_inpainter"].split()[1] for name in NAMES]
    assert models == ["stuck.pt", "stand-in.pt", "stand-in.pt"]
    written = sorted(path.name for path in first.parent.iterdir())
    assert written == [f"{IDS[name]}.png" for name in NAMES], "and no half-written file stays"


def test_too_little_memory_for_one_image_is_its_error(detected: Dataset, tmp_path: Path) -> None:
    weights = impossible_model(tmp_path / "large.pt", "torch.empty([1 << 46])", ON_THE_WIDE_ONE)
    done = detected.run(SCRIPT, "inpaint", "--workers", "1", *UNCONFINED, env={"LAMA_MODEL": str(weights)})
    assert (done.code, done.summary["errors"], done.summary["counts"]) == (0, 1, {"inpainted": 2}), done.stderr
    assert outcomes(detected) == {
        "first": "inpainted",
        WIDE: "out_of_memory: the inpainter needs more memory than there is for 1 crop of 600x256",
        "last": "inpainted",
    }


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "bad_mask: truncated: "),
        (lambda path: path.write_text("no mask"), "bad_mask: not_an_image: "),
        (lambda path: path.write_bytes(b""), "bad_mask: empty_file: 0 bytes"),
        (lambda path: path.unlink(), "bad_mask: missing_file: wide.png: No such file or directory"),
        (lambda path: Image.new("L", (300, 600), 255).save(path), "mask_mismatch: the mask has 300x600 pixels, "),
        (lambda path: Image.new("L", (600, 300)).save(path), "empty_mask: the mask is black"),
    ],
    ids=["cut", "text", "empty", "missing", "turned", "black"],
)
def test_a_mask_that_cannot_be_used_costs_its_image_alone(detected: Dataset, damage: object, error: str) -> None:
    damage(detected.root / "masks" / f"{WIDE}.png")  # type: ignore[operator]
    done = detected.run(SCRIPT, "inpaint", "--inpainter", "opencv", "--workers", "1")
    assert (done.code, done.summary["errors"], done.summary["counts"]) == (0, 1, {"inpainted": 2}), done.stderr
    found = outcomes(detected)
    assert found.pop(WIDE).startswith(error)
    assert set(found.values()) == {"inpainted"}


@pytest.mark.parametrize("inpainter", ["lama", "opencv"])
def test_painting_again_gives_the_same_bytes(detected: Dataset, stand_in: Path, inpainter: str) -> None:
    folder = detected.root / "data_stage/OCR_inpainted"
    written = []
    for workers in (1, 2):
        arguments = ("inpaint", "--redo", "--inpainter", inpainter, "--workers", workers)
        done = detected.run(SCRIPT, *arguments, *UNCONFINED, env={"LAMA_MODEL": str(stand_in)})
        assert done.summary["counts"] == {"inpainted": 3}, done.stderr
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
