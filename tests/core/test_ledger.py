"""The ledger's tables: what is written comes back, and nobody's work is overwritten."""

from __future__ import annotations

import csv
import io
import os
import re
import resource
import tempfile
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pokefa.errors import InputError
from pokefa.ledger.columns import BASE, IMAGES
from pokefa.ledger.journal import entries_by_time
from pokefa.ledger.table import KEY, Table, empty_frame
from pokefa.ledger.tables import Ledger
from pokefa.setup.steps import STEPS
from pokefa.stage.options import Options
from pokefa.stage.runner import StageRun
from tests.conftest import numbered_id

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
HARD_TEXT = st.lists(
    st.sampled_from(
        [",", '"', '""', "\n", "\r", "\r\n", " ", "NA", "null", "None", "007", "Type: Null", "🐉", "é", "é", "\ufeff",
         "\u2028", "'", "\\", "#", "=1+1", "True", "1e5", "\x1a", "\x7f"]
    ),
    max_size=4,
).map("".join)  # fmt: skip
TEXT = ANY_TEXT | HARD_TEXT


def stage_run(root: Path, step: str) -> StageRun:
    return StageRun(STEPS[step], Options(root=root), Ledger.open(root, create=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5))
def test_any_text_in_any_text_column_survives_a_merge(texts):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = stage_run(root, "scrape")
        for number, (title, species, query) in enumerate(texts):
            values = {"image_id": f"{number:032x}", "title": title, "species": species, "query": query}
            run.record_row(values, reason="saved")
        run.finish()
        again = stage_run(root, "nsfw_filter")  # a merge that touches other cells of the same rows
        for number in range(len(texts)):
            again.record(f"{number:032x}", {"nsfw_model": texts[number][0]})
        again.finish()
        rows = Ledger.open(root).images.read_keyed().rows(named=True)
        found = [(row["title"] or "", row["species"] or "", row["query"] or "") for row in rows]
        assert found == texts
        assert [row["nsfw_model"] or "" for row in rows] == [title for title, _, _ in texts]
        with (root / IMAGES.path).open(newline="", encoding="utf-8") as stream:
            for row, (title, _, _) in zip(csv.DictReader(stream), texts, strict=True):
                assert row["title"].lstrip("'") == title.lstrip("'")
                assert not re.match(r"[=+\-@\t\r\n＝＋－＠]", row["title"])  # what a spreadsheet would run


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(TEXT, min_size=3, max_size=3), max_size=5))
def test_a_table_written_by_the_csv_module_reads_the_same(rows):
    """RFC 4180 from another writer, CRLF line ends and every field quoted."""
    with tempfile.TemporaryDirectory() as folder:
        table = Table(Path(folder), IMAGES)
        table.path.parent.mkdir()
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow([KEY, "title", "my own"])
        writer.writerows([[numbered_id(number), *row[1:]] for number, row in enumerate(rows)])
        table.path.write_bytes(stream.getvalue().encode())
        frame = table.read_keyed()
        assert frame.columns == [KEY, "title", "my own"]
        for number, row in enumerate(frame.iter_rows()):
            title = re.sub(r"^'(?='*[=+\-@\t\r\n＝＋－＠])", "", rows[number][1])
            assert [row[0], row[1] or "", row[2] or ""] == [numbered_id(number), title, rows[number][2]]


def test_nul_is_refused_with_an_error(dataset):
    run = stage_run(dataset.root, "scrape")
    with pytest.raises(InputError, match=r"^title: 'a\\x00' contains a NUL character, which a CSV cannot store$"):
        run.record_row({"image_id": "a" * 32, "title": "a\0"}, reason="saved")
    run.finish()
    assert not (dataset.root / "metadata/images.csv").exists()


def test_columns_of_the_user_and_row_order_are_kept(dataset):
    dataset.write_images([{"image_id": f"{n:032x}", "path_raw": "x", "note": f"mine {n}", "w": n} for n in (3, 1, 2)])
    path = dataset.root / "metadata/images.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    moved = [[line[-1], *line[:-1]] for line in lines]  # the user's column comes first in the file
    path.write_text("\n".join(",".join(line) for line in moved) + "\n")
    run = stage_run(dataset.root, "nsfw_filter")
    run.record(f"{2:032x}", {"is_nsfw": False, "nsfw_score": 0.25})
    run.finish()
    rows = dataset.rows("images")
    assert next(iter(rows[0])) == "note"
    assert [row["note"] for row in rows] == ["mine 3", "mine 1", "mine 2"]
    assert [row["is_nsfw"] for row in rows] == ["", "", "False"]
    assert rows[2]["nsfw_score"] == "0.25"


def test_cells_edited_between_merges_stay(dataset):
    dataset.write_images([{"image_id": f"{n:032x}", "path_raw": "x"} for n in range(3)])
    run = stage_run(dataset.root, "nsfw_filter")
    run.record(f"{0:032x}", {"is_nsfw": True})
    run.save()
    table = dataset.rows("images")
    table[0]["is_nsfw"] = "False"
    table[1]["title"] = "typed by a person"
    dataset.write_images(table)
    run.record(f"{2:032x}", {"is_nsfw": False})
    run.finish()
    after = dataset.rows("images")
    assert [row["is_nsfw"] for row in after] == ["False", "", "False"]
    assert after[1]["title"] == "typed by a person"


def test_a_removed_row_stays_removed_and_a_new_one_is_added_once(dataset):
    run = stage_run(dataset.root, "scrape")
    for number in (1, 2, 1):
        run.record_row({"image_id": f"{number:032x}", "path_raw": "x"}, reason="saved")
    run.finish()
    assert len(dataset.rows("images")) == 2
    dataset.write_images(dataset.rows("images")[:1])
    late = stage_run(dataset.root, "nsfw_filter")
    late.record(f"{2:032x}", {"is_nsfw": False})
    late.finish()
    assert [row["image_id"] for row in dataset.rows("images")] == [f"{1:032x}"]


def test_the_last_value_wins_and_none_empties_a_cell(dataset):
    dataset.write_images([{"image_id": f"{n:032x}", "path_raw": "x"} for n in range(2)])
    run = stage_run(dataset.root, "nsfw_filter")
    for number in range(2):
        run.record(f"{number:032x}", {"nsfw_score": 0.1, "nsfw_model": "first"})
    run.record(f"{0:032x}", {"nsfw_score": 0.9})
    run.record(f"{1:032x}", {"nsfw_score": None})
    run.finish()
    rows = dataset.rows("images")
    assert [(row["nsfw_score"], row["nsfw_model"]) for row in rows] == [("0.9", "first"), ("", "first")]


def test_drops_are_one_row_each_even_after_a_replay(dataset):
    dataset.write_images([{"image_id": "a" * 32, "path_raw": "x", "source_url": "https://example.org/a.png"}])
    run = stage_run(dataset.root, "nsfw_filter")
    run.record("a" * 32, {"is_nsfw": True}, drop="nsfw", detail="rating:explicit 0.91")
    run.finish()
    Ledger(dataset.root).rebuild()
    (row,) = dataset.rows("drops")
    assert row.pop("ts").endswith("Z")
    assert row == {
        "image_id": "a" * 32,
        "stage": "nsfw_filter",
        "reason": "nsfw",
        "detail": "rating:explicit 0.91",
        "source_url": "https://example.org/a.png",
        "run_id": run.run_id,
    }


@settings(max_examples=12, deadline=None)
@example([(0, 0, True), (1, 0, True), (0, 0, False)])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
def test_journals_of_runs_that_overlapped_replay_to_the_same_cells(steps):
    """Three runs at once, each merging when it likes: what the tables hold is what the journals say from the start."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = stage_run(root, "scrape")
        for number in range(4):
            found.record_row({"image_id": f"{number:032x}"}, reason="saved")
        found.finish()
        runs = [stage_run(root, "phash") for _ in range(3)]
        for count, (writer, image, merges) in enumerate(steps):
            time.sleep(0.002)  # a journal's times are whole milliseconds
            runs[writer].record(f"{image:032x}", {"phash64": f"{count:016x}" if count % 3 else None})
            if merges:
                runs[writer].save()
        for run in reversed(runs):
            run.finish()
        before = (root / IMAGES.path).read_bytes()
        Ledger(root).rebuild()
        assert (root / IMAGES.path).read_bytes() == before


def test_a_replay_opens_no_more_journals_than_there_were_runs_at_once(dataset):
    dataset.write_images([{"image_id": "a" * 32}])
    for number in range(30):
        time.sleep(0.002)
        run = stage_run(dataset.root, "phash")
        run.record("a" * 32, {"phash64": f"{number:016x}"})
        run.finish()
    journals = sorted((dataset.root / "metadata/runs").glob("*.jsonl"))
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 4, hard))
    try:
        entries = [entry for _, _, entry in entries_by_time(dict.fromkeys(journals, 0))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    values = [entry["set"]["phash64"] for entry in entries if "table" in entry]
    assert values == [f"{number:016x}" for number in range(30)]


def test_base_gets_a_new_set_and_keeps_what_later_stages_wrote(dataset):
    dataset.write_images([{"image_id": letter * 32} for letter in "abc"])

    def set_base(letters: str) -> None:
        run = stage_run(dataset.root, "filter")
        run.replace_rows("base", [{"path": f"{letter}.png", "image_id": letter * 32} for letter in letters])
        run.finish()

    set_base("ab")
    assert list(dataset.rows("base")[0]) == BASE.first_names
    captions = stage_run(dataset.root, "sentence_tags")
    captions.record("b" * 32, {"caption": "A cat.", "tags": "{}"})
    captions.finish()
    set_base("cb")
    rows = dataset.rows("base")
    assert [(row["image_id"][0], row["path"], row["caption"]) for row in rows] == [
        ("c", "c.png", ""),
        ("b", "b.png", "A cat."),
    ]
    set_base("")
    assert dataset.rows("base") == []


def test_a_run_that_does_nothing_leaves_no_trace(dataset):
    dataset.write_images([{"image_id": "a" * 32}])
    before = {path: path.read_bytes() for path in dataset.root.rglob("*") if path.is_file()}
    stage_run(dataset.root, "phash").finish()
    after = {path: path.read_bytes() for path in dataset.root.rglob("*") if path.is_file()}
    assert after == before


A, B = "a" * 32, "b" * 32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"id,title\n{A},2\n", "has no column image_id: restore the header line"),
        (f"image_id,title\n{A},1\n{A.upper()},2\n", f"has image_id {A} more than once: remove one of the rows"),
        (f"image_id,mine,mine\n{A},1,2\n", "has two columns called mine: rename one of them"),
        (f"image_id,title\n{A},1\n{B},2,3\n", "record 3 has 3 cells of 2: restore it, or correct the line"),
        (f"image_id,title,query\n{A},1,2\n{B},2\n", "record 3 has 2 cells of 3: restore it, or correct the line"),
        (f"image_id,title\n{A},1\n,2\n", "record 3 has no image_id: complete or remove it"),
        (
            f"image_id,title\n{A},1\n{B},2",
            "line 3 has no line end, so the file may be truncated: restore it, or add the line end if the row "
            "is complete",
        ),
        (f"image_id,title\n{A},\0\n", "line 2 contains a NUL character: restore it, or correct the line"),
        (f"image_id,title\n{A},\udcff\n", "is not UTF-8 (invalid start byte): save it as UTF-8"),
        ("\ufeff".encode("utf-16").decode("latin-1"), "is UTF-16: save it as CSV with commas, in UTF-8"),
        (
            f"image_id;title\n{A};1\n",
            "separates its cells with semicolons: save it as CSV with commas, in UTF-8",
        ),
        (
            "sep=,\nimage_id,title\n",
            "begins with the spreadsheet line 'sep=': remove that line, and save it as CSV with commas, in UTF-8",
        ),
        ("", "is empty: restore it"),
    ],
)
def test_damaged_tables_are_named(dataset, content, message):
    path = dataset.root / "metadata/images.csv"
    path.parent.mkdir()
    encoding = "latin-1" if content.startswith("\xff") else "utf-8"
    path.write_bytes(content.encode(encoding, "surrogateescape"))
    with pytest.raises(InputError) as caught:
        Ledger.open(dataset.root).images.read_keyed()
    assert str(caught.value) == f"metadata/images.csv {message}"


def test_no_ledger_is_wrong_input(dataset):
    with pytest.raises(
        InputError, match=r"^no ledger at .*/metadata/images.csv: run scraping/scrape.py first, or name"
    ):
        Ledger.open(dataset.root)


def test_pandas_reads_what_we_write(dataset):
    """Not pandas itself, which this environment lacks, but the dialect: \\n line ends, a quote only where needed."""
    table = Table(dataset.root, IMAGES)
    table.write(pl.concat([empty_frame([KEY, "title"]), pl.DataFrame({KEY: ["a"], "title": ['say "hi", you']})]))
    assert table.path.read_bytes() == b'image_id,title\na,"say ""hi"", you"\n'
