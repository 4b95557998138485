"""`kill -9`, a full disk and damaged journals: nothing finished is lost, and the tables are never half."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pokefa.errors import InputError, PokefaError
from pokefa.ledger.columns import IMAGES
from pokefa.ledger.tables import Ledger
from pokefa.setup.steps import STEPS
from pokefa.stage.options import Options
from pokefa.stage.runner import StageRun
from tests.core.crashing_stage import value_of

CHECKOUT = Path(__file__).resolve().parents[2]
STAGE = CHECKOUT / "tests/core/crashing_stage.py"

# Every fourth moment every day; POKEFA_ALL_CRASHES=1 takes them all.
MOMENTS = 200
TAKEN = MOMENTS if os.environ.get("POKEFA_ALL_CRASHES") else MOMENTS // 4


def resized_rows(count: int) -> list[dict[str, object]]:
    """Rows that wait for their hash."""
    return [
        {"image_id": f"{number:032x}", "is_nsfw": "False", "has_ocr": "False", "path_resized": f"{number}.png"}
        for number in range(count)
    ]


def start(root: Path, merge_every: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, STAGE, "--root", root, "--merge-every", str(merge_every)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after(process: subprocess.Popen[str], results: int, seconds: float) -> list[str]:
    """Kill the stage some time after it has announced so many results; return all ids that it announced."""
    assert process.stdout is not None
    announced = []
    while len(announced) < results:
        announced.append(process.stdout.readline().strip())
    time.sleep(seconds)
    process.kill()
    return [line for line in [*announced, *rest_of(process)[0].splitlines()] if len(line) == 32]


def rest_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what is left of stdout, and stderr, of a process that ends.

    Not `communicate`: it reads the descriptor and misses what `readline` has read ahead.
    """
    assert process.stdout is not None and process.stderr is not None
    with process.stdout as stdout, process.stderr as stderr:
        texts = stdout.read(), stderr.read()
    process.wait()
    return texts


def check_hashes(table: Mapping[str, Mapping[str, str]], announced: set[str]) -> None:
    for image_id, row in table.items():
        expected = value_of(image_id)
        assert row["phash64"] == expected if image_id in announced else row["phash64"] in ("", expected)


def test_kill_at_any_moment_loses_no_finished_result(dataset):
    rows = resized_rows(60 * TAKEN)
    dataset.write_images(rows)
    announced: set[str] = set()
    for moment in range(0, MOMENTS, MOMENTS // TAKEN):
        chance = random.Random(f"crash {moment}")
        process = start(dataset.root, merge_every=chance.choice([1, 3, 10]))
        announced.update(kill_after(process, chance.randint(1, 20), chance.uniform(0, 0.02)))
        check_hashes(dataset.images(), set())  # as it lies there: older than the journal perhaps, but whole
        Ledger.open(dataset.root)
        check_hashes(dataset.images(), announced)
    assert len(announced) >= TAKEN
    finished = dataset.run("tests/core/crashing_stage.py", "--merge-every", "1000")
    assert finished.code == 0
    assert [row["image_id"] for row in dataset.rows("images")] == [row["image_id"] for row in rows]
    check_hashes(dataset.images(), set(dataset.images()))
    leftovers = [*(dataset.root / "metadata").rglob(".*.tmp")]
    assert leftovers == []  # a killed merge leaves one, the next merge removes it


def test_sigterm_saves_what_is_finished_and_exits_130(dataset):
    dataset.write_images(resized_rows(50_000))
    process = start(dataset.root, merge_every=1000)
    assert process.stdout is not None
    announced = [process.stdout.readline().strip() for _ in range(20)]
    process.terminate()
    rest, errors = rest_of(process)
    assert process.returncode == 130
    assert "interrupted: finished work is saved; run the same command again to continue" in errors
    done = {line for line in [*announced, *rest.splitlines()] if len(line) == 32}
    table = dataset.images()
    assert {image_id for image_id, row in table.items() if row["phash64"]} == done
    assert len(done) < len(table)


def phash_run(root: Path) -> StageRun:
    return StageRun(STEPS["phash"], Options(root=root), Ledger.open(root))


def test_full_disk_leaves_the_old_table_whole_and_says_so(dataset):
    dataset.write_images(resized_rows(3000))
    before = (dataset.root / "metadata/images.csv").read_bytes()
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2}, -1))"
    runner = f"{limit}; import runpy; runpy.run_path({str(STAGE)!r}, run_name='__main__')"
    finished = subprocess.run(
        [sys.executable, "-c", runner, "--root", dataset.root, "--merge-every", "2000"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1
    assert os.strerror(errno.EFBIG) in finished.stderr
    assert (dataset.root / "metadata/images.csv").read_bytes() == before
    assert [path.name for path in (dataset.root / "metadata").glob(".*.tmp")] == []
    announced = {line for line in finished.stdout.splitlines() if len(line) == 32}
    assert announced
    Ledger.open(dataset.root)  # with room again, what was journalled comes in
    check_hashes(dataset.images(), announced)


def test_full_disk_at_the_journal_takes_back_the_half_line(dataset):
    dataset.write_images(resized_rows(2))
    run = phash_run(dataset.root)
    run.record(f"{0:032x}", {"phash64": "a" * 16})
    length = run._journal.path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length + 10, hard))
    try:
        with pytest.raises(PokefaError, match=r"cannot write .*: File too large; free some space and run"):
            run.record(f"{1:032x}", {"phash64": "b" * 16})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run._journal.path.stat().st_size == length
    run.record(f"{1:032x}", {"phash64": "c" * 16})
    run.finish()
    assert [row["phash64"] for row in dataset.rows("images")] == ["a" * 16, "c" * 16]


def journalled(dataset) -> Path:
    """A ledger of five rows with a journal of five results that was never merged."""
    dataset.write_images(resized_rows(5))
    run = phash_run(dataset.root)
    for number in range(5):
        run.record(f"{number:032x}", {"phash64": f"{number:016x}"})
    run._journal.close()
    return run._journal.path


def test_truncated_last_line_is_passed_over(dataset):
    path = journalled(dataset)
    path.write_bytes(path.read_bytes()[:-20])
    Ledger.open(dataset.root)
    assert [row["phash64"] for row in dataset.rows("images")] == [*(f"{number:016x}" for number in range(4)), ""]


def test_corrupt_middle_line_is_reported_with_its_number(dataset):
    path = journalled(dataset)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:30] + b"\xff\x00" + lines[3][32:]
    path.write_bytes(b"".join(lines))
    before = (dataset.root / "metadata/images.csv").read_bytes()
    with pytest.raises(
        InputError, match=rf"^metadata/runs/{path.name} line 4 is damaged .*repair that line, or remove"
    ):
        Ledger.open(dataset.root)
    assert (dataset.root / "metadata/images.csv").read_bytes() == before
    del lines[3]
    path.write_bytes(b"".join(lines))
    Ledger.open(dataset.root)
    assert [bool(row["phash64"]) for row in dataset.rows("images")] == [True, True, False, True, True]


def test_lost_offsets_stop_a_run_and_a_rebuild_gives_the_same_cells(dataset):
    path = journalled(dataset)
    Ledger.open(dataset.root)
    before = dataset.rows("images")
    merged = path.parent / "merged.json"
    for content in (
        "{",
        "[]",
        '{"journals": {"x": "y"}, "tables": {}}',
        '{"journals": {}, "tables": {"images": 1}}',
        None,
    ):
        if content is None:
            merged.unlink()
        else:
            merged.write_text(content)
        with pytest.raises(InputError, match=r"^metadata/runs/merged.json is (damaged|missing).*verify.py --rebuild$"):
            Ledger.open(dataset.root)
    Ledger(dataset.root).rebuild()
    assert dataset.rows("images") == before


def test_four_stages_that_merge_at_once_lose_no_cell(dataset):
    """Four processes, four stages, one ledger, a merge after every second result."""
    rows = [{**row, "path_raw": "x", "w": 1} for row in resized_rows(150)]
    dataset.write_images(rows)
    columns = {"phash": "phash_error", "resize": "resize_note", "score": "ae_model", "nsfw_filter": "nsfw_model"}
    script = (
        "import sys; from pathlib import Path; from pokefa.ledger.tables import Ledger;"
        "from pokefa.stage.options import Options;"
        "from pokefa.stage.runner import StageRun; from pokefa.setup.steps import STEPS;"
        "root, stage, column = sys.argv[1:]; root = Path(root);"
        "run = StageRun(STEPS[stage], Options(root=root), Ledger.open(root));"
        "[(run.record(f'{n:032x}', {column: f'{stage} {n}'}), n % 2 or run.save()) for n in range(150)];"
        "run.finish()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, dataset.root, stage, column], env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
        )
        for stage, column in columns.items()
    ]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    table = dataset.rows("images")
    assert len(table) == 150
    for number, row in enumerate(table):
        assert {row[column] for column in columns.values()} == {f"{stage} {number}" for stage in columns}
        assert row["path_resized"] == f"{number}.png"
    assert set(table[0]) == set(IMAGES.names)
