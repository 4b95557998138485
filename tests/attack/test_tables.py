"""Tables that another program saved, cut, emptied or lost: what cannot be read decides nothing."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pokefa.errors import InputError, PokefaError
from pokefa.ledger.columns import IMAGES
from pokefa.ledger.merge import Changes
from pokefa.ledger.tables import Ledger
from tests.attack.conftest import Rows, Victim
from tests.conftest import CHECKOUT

DECIDERS = (
    ["preprocess/dup/rm_dups.py"],
    ["preprocess/filter/filter.py"],
    ["preprocess/dup/phash.py", "--workers", "1"],
    ["caption/cap_filter.py"],
    ["webdataset/split.py"],
    ["metadata/takedown.py", "--domain", "artist.example", "--reason", "asked", "--apply"],
)
ROWS = 9

# -- spellings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("TRUE", "FALSE"),
        ("true", "false"),
        ("True ", "False "),
        ("\u00a0True", "\u00a0False"),
        ("1", "0"),
        ("1.0", "0.0"),
    ],
)
def test_a_spreadsheets_spelling_of_a_flag_is_the_flag(victim: Victim, true: str, false: str) -> None:
    assert victim.script("preprocess/filter/filter.py").code == 0  # with the filter's own defaults
    before = victim.rows()
    spelled = {"True": true, "False": false}
    flags = [column.name for column in IMAGES.columns if column.kind == "bool"]

    def respell(rows: Rows) -> Rows:
        return [row | {name: spelled.get(row[name], row[name]) for name in flags if name in row} for row in rows]

    victim.rewrite(respell)
    finished = victim.script("preprocess/filter/filter.py")
    assert finished.summary["decisions"]["nsfw"] == finished.summary["decisions"]["duplicate"] == 1
    assert victim.script("preprocess/nsfw/nsfw_unflag.py", "--ids", victim.ids["waiting"]).code == 0  # writes the table
    victim.script("preprocess/dup/rm_dups.py")
    ours = {row["image_id"]: [row.get(name) for name in ("is_nsfw", "has_ocr")] for row in before}
    assert {row["image_id"]: [row.get(name) for name in ("is_nsfw", "has_ocr")] for row in victim.rows()} == ours


@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("is_nsfw", "yes", "True or False"),
        ("dupe_removed", "WAHR", "True or False"),
        ("nsfw_override", "no", "unflagged"),
        ("ae_aesthetic", "900", "a whole number from 0 to 100"),
        ("nsfw_score", "0,97", "a number from 0 to 1"),
        ("phash64", "1.5E+15", "16 hex digits"),
        ("image_id", "../../evil", "32 hex digits"),
        ("drop_reason", "gone", "a stage and a reason, such as scrape:reason"),
    ],
)
def test_any_other_text_stops_every_script_and_names_the_cell(
    victim: Victim, column: str, text: str, expected: str
) -> None:
    victim.edit("good", **{column: text})
    before = victim.kept_files()
    image_id = text if column == "image_id" else victim.ids["good"]
    told = f"metadata/images.csv, image {image_id}, {column}: {text!r} is not {expected}; correct the cell or empty it"
    script, *arguments = random.Random(column).choice(DECIDERS)
    finished = victim.script(script, *arguments)
    assert (finished.code, finished.stderr) == (2, f"error: {told}\n")
    assert victim.kept_files() == before
    found = victim.script("metadata/verify.py", "--json").summary["findings"]
    assert found["table_damaged" if column == "image_id" else "bad_cell"]["found"] == [told]


def test_no_code_outside_the_schema_compares_the_text_of_a_cell() -> None:
    """A flag is asked by `is_true` or decoded, so that a spelling can never switch it off."""
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    ours = [Path(name) for name in files.stdout.split() if not name.startswith(("tests/", "benchmarks/", "demo/"))]
    assert Path("pokefa/ledger/columns.py") in ours
    compares = re.compile(r"""(==|!=|\bin\b|eq_missing|lit)\W*\(?["'](True|False)["']|\{["']True["']:""")
    schema = {Path("pokefa/ledger/cells.py"), Path("pokefa/ledger/columns.py")}
    assert [str(path) for path in ours if path not in schema and compares.search((CHECKOUT / path).read_text())] == []


def test_what_a_spreadsheet_would_run_is_text_in_the_file_and_comes_back(victim: Victim) -> None:
    with victim.run("scrape") as run:
        run.record_row({"image_id": "f" * 32, "title": "=1+1", "source_page": "-x", "query": "'@a"}, reason="saved")
    row = victim.rows()[-1]
    assert (row["title"], row["source_page"], row["query"]) == ("'=1+1", "'-x", "''@a")
    (found,) = Ledger.open(victim.root).images.read().filter(pl.col("image_id") == "f" * 32).to_dicts()
    assert (found["title"], found["source_page"], found["query"]) == ("=1+1", "-x", "'@a")


# -- lost and cut tables -----------------------------------------------------------------------------------------------


def delete(victim: Victim) -> None:
    victim.images.unlink()


def empty(victim: Victim) -> None:
    victim.images.write_bytes(b"")


def keep_the_header(victim: Victim) -> None:
    victim.images.write_bytes(victim.images.read_bytes().split(b"\n")[0] + b"\n")


def cut_in_a_row(victim: Victim) -> None:
    victim.images.write_bytes(victim.images.read_bytes()[:-3])


def cut_between_rows(victim: Victim) -> None:
    victim.images.write_bytes(b"".join(victim.images.read_bytes().splitlines(keepends=True)[:5]))


def keep_the_ids_alone(victim: Victim) -> None:
    victim.rewrite(lambda rows: [dict.fromkeys(row, "") | {"image_id": row["image_id"]} for row in rows])


def lose_a_column(victim: Victim) -> None:
    frame = pl.read_csv(victim.images, infer_schema=False).drop("drop_reason")
    frame.write_csv(victim.images)


def lose_the_final_set(victim: Victim) -> None:
    (victim.root / "metadata/base.csv").unlink()


def lose_the_drops(victim: Victim) -> None:
    (victim.root / "metadata/drops.csv").unlink()


LOSSES = [
    delete, empty, keep_the_header, cut_in_a_row, cut_between_rows, keep_the_ids_alone, lose_a_column,
    lose_the_final_set, lose_the_drops,
]  # fmt: skip


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_a_lost_table_stops_who_would_write_and_the_journals_bring_it_back(
    victim: Victim, lose: Callable[[Victim], None]
) -> None:
    before = {name: victim.rows(name) for name in ("images", "base", "drops")}
    lose(victim)
    files = victim.kept_files()
    for script, *arguments in DECIDERS[:2]:
        finished = victim.script(script, *arguments)
        assert finished.code == 2, finished.stdout
        assert re.match(r"error: metadata/\w+\.csv .*\n$", finished.stderr)
    assert victim.kept_files() == files
    found = victim.script("metadata/verify.py", "--json")
    assert (found.code, list(found.summary["findings"])) == (1, ["table_damaged"])
    assert victim.script("metadata/verify.py", "--rebuild").code == 0
    assert {name: victim.rows(name) for name in before} == before
    assert victim.script("preprocess/dup/rm_dups.py").code == 0


def test_a_table_on_a_disk_that_is_not_there_is_neither_new_nor_rebuilt(victim: Victim) -> None:
    elsewhere = victim.root.parent / "disk/images.csv"
    elsewhere.parent.mkdir()
    victim.images.rename(elsewhere)
    victim.images.symlink_to(elsewhere)
    assert victim.script("preprocess/dup/rm_dups.py").code == 0
    assert victim.images.is_symlink()  # the file on the other disk was written, and not a new one here
    elsewhere.parent.rename(victim.root.parent / "unplugged")
    for script in ("preprocess/filter/filter.py", "metadata/verify.py"):
        finished = victim.script(script, *(["--rebuild"] if "verify" in script else []))
        assert finished.code == 2 and finished.stderr.startswith("error: metadata/images.csv ")
    (victim.root.parent / "unplugged").rename(elsewhere.parent)
    assert victim.script("preprocess/filter/filter.py").code == 0


def test_a_table_that_is_cut_anywhere_is_never_taken_for_an_edited_one(victim: Victim) -> None:
    whole = victim.images.read_bytes()
    ends = [place for place in range(len(whole)) if whole[place - 1 : place] == b"\n"]
    chance = random.Random("cuts")
    cuts = {*chance.sample(range(1, len(whole)), 60), *range(len(whole) - 40, len(whole)), *ends[1:-1]}
    for cut in sorted(cuts):
        victim.images.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            Ledger.open(victim.root)
    victim.images.write_bytes(whole)
    Ledger.open(victim.root)


def test_a_few_rows_that_a_person_takes_out_stay_out(victim: Victim) -> None:
    """One of nine is an edit; more has to be said."""
    victim.rewrite(lambda rows: [row for row in rows if row["image_id"] != victim.ids["dull"]])
    finished = victim.script("preprocess/dup/rm_dups.py")
    assert finished.code == 0
    assert "metadata/images.csv: 1 rows were removed since the last run" in finished.stderr
    victim.rewrite(lambda rows: rows[:4] + rows[-1:])
    assert victim.script("preprocess/dup/rm_dups.py").code == 2
    assert victim.script("metadata/verify.py", "--accept-edits").code == 0
    assert victim.script("preprocess/dup/rm_dups.py").code == 0
    assert len(victim.rows()) == 5


def test_a_rebuild_keeps_what_only_a_person_wrote(victim: Victim) -> None:
    victim.rewrite(lambda rows: [row | {"mine": f"note {number}"} for number, row in enumerate(rows)])
    victim.rewrite(lambda rows: rows[:3])
    assert victim.script("metadata/verify.py", "--rebuild").code == 0
    rows = victim.rows()
    assert (len(rows), [row["mine"] for row in rows[:4]]) == (ROWS, ["note 0", "note 1", "note 2", ""])
    (beside,) = (victim.root / "metadata").glob("images.csv.*.before-rebuild")
    assert len(beside.read_text(encoding="utf-8").splitlines()) == 4


def test_a_taken_down_image_cannot_be_edited_back_in(victim: Victim) -> None:
    assert victim.script("metadata/takedown.py", "--id", victim.ids["dull"], "--reason", "asked", "--apply").code == 0
    victim.edit("dull", drop_reason="")
    finished = victim.script("preprocess/filter/filter.py")
    assert finished.code == 2
    assert f"image {victim.ids['dull']} was taken down, but its drop_reason was changed" in finished.stderr
    assert list(victim.script("metadata/verify.py", "--json").summary["findings"]) == ["table_damaged"]


def test_a_merge_that_would_lose_something_is_refused(victim: Victim) -> None:
    changes = Changes(Ledger.open(victim.root).images)
    whole = changes.result()
    for shrunk in (whole.head(3), whole.with_columns(pl.lit(None, pl.String).alias("title"))):
        with pytest.raises(PokefaError, match=r"^metadata/images.csv would have lost .*: nothing was written$"):
            changes._check_kept(whole, shrunk)


# -- journals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        [], 7, None, {"table": "nowhere"}, {"table": ["images"]}, {"table": "images"},
        {"table": "images", "image_id": 7, "set": {}}, {"table": "images", "image_id": "a", "set": [1]},
        {"table": "images", "image_id": "a", "set": {"w": 3}}, {"table": "base", "rows": {}, "columns": []},
        {"table": "base", "rows": [["a"]], "columns": ["image_id"]}, {"ts": 5},
        {"table": "images", "image_id": "a", "set": {}, "drop": "x"},
        {"table": "images", "image_id": "a", "set": {}, "usage": []},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_journal_line_of_another_shape_is_named(victim: Victim, line: object) -> None:
    journal = max((victim.root / "metadata/runs").glob("*.jsonl"))
    count = len(journal.read_text().splitlines())
    with journal.open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=rf"^metadata/runs/{journal.name} line {count + 1} is damaged \("):
        Ledger.open(victim.root)
