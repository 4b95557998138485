"""Stages whose images lie on object storage: a local server that speaks S3 (moto), everything else real."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Dataset
from tests.storage.conftest import BUCKET, files, serving_objects

FOLDER = f"s3://{BUCKET}/set"
STAGES = ("preprocess/resize/resize.py", "preprocess/dup/phash.py")


@pytest.fixture(scope="module")
def storage() -> Iterator[dict[str, str]]:
    with serving_objects() as variables:
        yield variables


def draw(root: Path) -> list[dict[str, object]]:
    """Draw one picture that is kept, one that is enlarged, one that is made smaller and one that is damaged."""
    rows: list[dict[str, object]] = []
    for number, (size, form) in enumerate([((1100, 1200), "jpg"), ((300, 400), "png"), ((2600, 2700), "jpg")]):
        path = root / f"data_raw/001-150/0001_Pikachu/{number}.{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        gradient = Image.linear_gradient("L").resize(size).rotate(90 * number)
        Image.merge("RGB", [gradient, gradient.transpose(Image.Transpose.ROTATE_180), gradient]).save(path)
        rows.append(row_of(path, root))
    broken = root / "data_raw/001-150/0001_Pikachu/broken.jpg"
    broken.write_bytes(b"this is no picture")
    return [*rows, row_of(broken, root)]


def row_of(path: Path, root: Path) -> dict[str, object]:
    image_id = hashlib.md5(path.read_bytes()).hexdigest()
    return {"image_id": image_id, "path_raw": path.relative_to(root).as_posix(), "is_nsfw": "False", "has_ocr": "False"}


def results(dataset: Dataset) -> dict[str, dict[str, str]]:
    """The ledger without the names of runs."""
    return {
        image_id: {name: cell for name, cell in row.items() if not name.endswith("_run_id")}
        for image_id, row in dataset.images().items()
    }


def run_all(dataset: Dataset, variables: Mapping[str, str], *flags: str) -> list[dict[str, object]]:
    summaries = []
    for script in STAGES:
        done = dataset.run(script, *flags, env=variables)
        assert done.code == 0, done.stderr
        summaries.append(done.summary)
    return summaries


def test_stages_give_the_same_on_object_storage_as_on_a_disk(dataset, tmp_path, storage):
    rows = draw(dataset.root)
    dataset.write_images(rows)
    run_all(dataset, storage)

    remote = Dataset(tmp_path / "driver")
    remote.write_images(rows)
    files().put(str(dataset.root / "data_raw"), f"{BUCKET}/set/data_raw", recursive=True)
    resized, _ = run_all(remote, storage, "--data-root", FOLDER)
    assert resized["counts"] == {"kept": 1, "up": 1, "down": 1}
    assert resized["errors"] == 1

    assert results(remote) == results(dataset)
    made = [row["path_resized"] for row in remote.images().values() if row["path_resized"]]
    assert len(made) == 3
    for path in made:
        assert files().cat_file(f"{BUCKET}/set/{path}") == (dataset.root / path).read_bytes()
    assert not (remote.root / "data_stage").exists(), "nothing of the images lies beside the ledger"

    again, _ = run_all(remote, storage, "--data-root", FOLDER)
    assert again["done"] == 0


def test_the_filter_copies_on_the_storage_and_removes_there_what_leaves_the_set(dataset, storage):
    rows = draw(dataset.root)[:3]
    scores = {"ae_relevance": "90", "phash64": "0" * 16, "dupe_removed": "False"}
    for number, row in enumerate(rows):
        path = f"data_stage/resized/001-150/0001_Pikachu/{row['image_id']}.jpg"
        files().pipe_file(f"{BUCKET}/filtered/{path}", b"picture %d" % number)
        row.update(scores, ae_aesthetic=str(70 + 10 * number), path_resized=path, resized_w="1100", resized_h="1100")
    dataset.write_images(rows)
    for top, kept in ((3, rows), (1, rows[2:])):
        done = dataset.run(
            "preprocess/filter/filter.py", "--data-root", f"s3://{BUCKET}/filtered", "--top-n", top, env=storage
        )
        assert done.code == 0, done.stderr
        found = {path.rsplit("/")[-1] for path in files().ls(f"{BUCKET}/filtered/data_clean/base")}
        assert found == {f"{row['image_id']}.jpg" for row in kept}
    assert not (dataset.root / "data_clean").exists()


def test_a_takedown_removes_what_lies_on_the_storage_and_asks_where_it_is(dataset, storage):
    rows = draw(dataset.root)[:1]
    rows[0]["source_url"] = "https://artist.example/1.jpg"
    dataset.write_images(rows)
    path = str(rows[0]["path_raw"])
    address = f"{BUCKET}/asked/{Path(path).parent.as_posix()}/{rows[0]['image_id']}.jpg"
    files().put(str(dataset.root / path), address)
    shutil.rmtree(dataset.root / "data_raw")
    ask = ("metadata/takedown.py", "--domain", "artist.example", "--reason", "the artist asked")
    done = dataset.run(*ask, env=storage)
    assert "1 of them have no file here: if the images are stored elsewhere, add --data-root." in done.stdout
    done = dataset.run(*ask, "--data-root", f"s3://{BUCKET}/asked", "--apply", env=storage)
    assert (done.code, done.summary["files"]) == (0, 1), done.stderr
    assert f"removed s3://{address}" in done.stdout
    assert not files().exists(address)


def test_an_image_that_is_not_there_is_its_own_error(dataset, storage):
    rows = draw(dataset.root)
    dataset.write_images(rows[:1])
    files().pipe_file(f"{BUCKET}/other/notes.txt", b"no images here")
    done = dataset.run(STAGES[0], "--data-root", f"s3://{BUCKET}/other", env=storage)
    assert done.code == 0
    (row,) = dataset.images().values()
    assert row["resize_error"].startswith("missing_file: ")


def test_another_folder_is_a_data_root_too(dataset, tmp_path, storage):
    rows = draw(dataset.root)
    dataset.write_images(rows)
    shutil.move(dataset.root / "data_raw", tmp_path / "share/data_raw")
    done = dataset.run(STAGES[0], "--data-root", tmp_path / "share", env=storage)
    assert done.summary["done"] == 3
    assert len(list((tmp_path / "share/data_stage").rglob("*.*"))) == 3
    before = (dataset.root / "metadata/images.csv").read_bytes()
    done = dataset.run("metadata/verify.py", "--fix")
    assert (done.code, done.stderr.splitlines()[-1]) == (
        2,
        f"error: the images are in --data-root {tmp_path / 'share'}, and --fix would treat them as missing: copy "
        f"them to {dataset.root} first",
    )
    done = dataset.run("metadata/takedown.py", "--id", rows[0]["image_id"], "--reason", "asked", "--apply")
    assert (done.code, done.stderr.splitlines()[-1]) == (
        2,
        f"error: 1 of the images have no file here, and earlier runs used --data-root {tmp_path / 'share'}: add it; "
        "nothing was changed",
    )
    assert (dataset.root / "metadata/images.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("address", "message"),
    [("s3://no-such-bucket/set", "--data-root s3://no-such-bucket/set does not exist, or "),
     ("no-such-folder", "--data-root no-such-folder does not exist: name an existing folder"),
     ("smoke://signals", "--data-root smoke://signals cannot be used: ")],
)  # fmt: skip
def test_a_wrong_address_is_one_line_and_changes_nothing(dataset, storage, address, message):
    dataset.write_images(draw(dataset.root))
    before = (dataset.root / "metadata/images.csv").read_bytes()
    done = dataset.run(STAGES[0], "--data-root", address, env=storage)
    assert done.code == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert (dataset.root / "metadata/images.csv").read_bytes() == before
