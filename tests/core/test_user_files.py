"""CSV files as spreadsheets and cut transfers leave them: read in full, or refused with one line."""

from __future__ import annotations

import csv
import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokefa.csv_files import csv_text, read_csv, remove_guard
from pokefa.errors import InputError

ADVICE = "it needs the columns file and species"
SAVE_AS = "save it as CSV with commas, in UTF-8"
COMPLETE = "complete the row, and put quotes around a cell that contains a comma"
GOOD = "file,species\n1.png,Mew\n2.png,Flabébé\n"


def rows_of(path: Path) -> list[tuple[int, dict[str, str]]]:
    return list(read_csv(path, ["file", "species"], ADVICE))


@pytest.mark.parametrize(
    "data",
    [
        GOOD.encode(),
        GOOD.encode("utf-8-sig"),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\r").encode(),
        GOOD.rstrip("\n").encode(),
        GOOD.replace("Mew", '" Mew "').encode(),
    ],
)
def test_what_is_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(data)
    assert rows_of(path) == [(2, {"file": "1.png", "species": "Mew"}), (3, {"file": "2.png", "species": "Flabébé"})]


def test_blank_rows_other_columns_and_long_cells(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    long = "x" * 300_000
    path.write_text(f'file, species ,note\n\n,,\n"a\nb",Mew,{long},,\n')
    assert rows_of(path) == [(5, {"file": "a\nb", "species": "Mew", "note": long})]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", f"has no column file: {ADVICE}"),
        (b"file\n1.png\n", f"has no column species: {ADVICE}"),
        (b"file;species\n1.png;Mew\n", f"separates its cells with semicolons: {SAVE_AS}"),
        (b"file\tspecies\n1.png\tMew\n", f"separates its cells with tabs: {SAVE_AS}"),
        (b"file|species\n1.png|Mew\n", f"separates its cells with vertical bars: {SAVE_AS}"),
        (
            b"sep=;\nfile;species\n",
            f"begins with the spreadsheet line 'sep=;': remove that line, and {SAVE_AS}",
        ),
        (
            b"SEP=,\nfile,species\n",
            f"begins with the spreadsheet line 'SEP=': remove that line, and {SAVE_AS}",
        ),
        (GOOD.encode("utf-16"), f"is UTF-16: {SAVE_AS}"),
        (b"\xfe\xff" + GOOD.encode("utf-16-be"), f"is UTF-16: {SAVE_AS}"),
        (GOOD.encode("utf-32"), f"is UTF-32: {SAVE_AS}"),
        ("file,species\n".encode("utf-16-le"), f"is UTF-16 or damaged (line 1 contains a NUL byte): {SAVE_AS}"),
        (b"file,species\n1.png,M\0ew\n", f"line 2 contains a NUL byte: {SAVE_AS}"),
        (
            GOOD.encode("cp1252"),
            f"is not UTF-8 (it contains the byte 0xe9, as Windows-1252 or Shift-JIS do): {SAVE_AS}",
        ),
        (b"PK\x03\x04rest", f"is a spreadsheet (XLSX or ODS): {SAVE_AS}"),
        (b"PAR1rest", f"is Parquet: {SAVE_AS}"),
        (
            b"file,species\n1.png,Mew\n2.p",
            f"line 3 has 1 cells, but the header has 2: {COMPLETE}",
        ),
        (
            b"file,species\n1,5.png,Mew\n",
            f"line 2 has 3 cells, but the header has 2: {COMPLETE}",
        ),
        (b"file,species,file\n", "has two columns called file: rename one of them"),
    ],
)
def test_what_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(data)
    with pytest.raises(InputError) as refused:
        rows_of(path)
    assert str(refused.value) == f"{path} {message}"


@pytest.mark.parametrize("end", ['2.png,"Me', '2.png,"Mew"x\n'])
def test_a_quote_that_is_not_closed(tmp_path: Path, end: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"file,species\n1.png,Mew\n{end}")
    with pytest.raises(InputError) as refused:
        rows_of(path)
    assert str(refused.value).startswith(f"{path} is damaged near line 3 (")
    assert str(refused.value).endswith("): close the quote, or restore the truncated file")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"none cannot be read \(No such file or directory\): {ADVICE}"):
        rows_of(tmp_path / "none")
    with pytest.raises(InputError, match=rf"cannot be read \(Is a directory\): {ADVICE}"):
        rows_of(tmp_path)


def test_a_pipe_is_read_too(tmp_path: Path) -> None:
    """As of `--labels <(…)` in a shell."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=[GOOD])
    writer.start()
    assert len(rows_of(path)) == 2
    writer.join()


@pytest.mark.parametrize("name", ["set [1].csv", "a*b.csv", "what?.csv", "{x,y}.csv", "ü ポケモン.csv"])
def test_a_path_is_no_pattern(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(GOOD, encoding="utf-8")
    assert len(rows_of(path)) == 2


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


UNGUARDED = TEXTS.filter(lambda text: remove_guard(text) == text)  # csv.writer adds no guard


@given(st.lists(st.tuples(UNGUARDED, UNGUARDED).filter(lambda row: any(cell.strip() for cell in row))))
def test_what_csv_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("file", "species"), *rows])
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    path.write_bytes(stream.getvalue().encode("utf-8"))
    found = read_csv(path, ["file", "species"], ADVICE, strip=False)
    assert [tuple(row.values()) for _, row in found] == rows


def test_what_a_spreadsheet_would_run_is_text_and_comes_back(tmp_path: Path) -> None:
    texts = ["=1+1", "+a", "-b", "@c", "'=d", "\tx", "plain", "'quoted'", ""]
    path = tmp_path / "a.csv"
    path.write_text(csv_text(["text", "number"], [(text, -1) for text in texts]), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    assert lines[:5] == ["'=1+1,-1", "'+a,-1", "'-b,-1", "'@c,-1", "''=d,-1"]
    assert [row["text"] for _, row in read_csv(path, ["text"], "", strip=False)] == texts
