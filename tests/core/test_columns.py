"""Columns: types are declared, never guessed, and every stage writes only its own."""

from __future__ import annotations

import math

import polars as pl
import pytest

from pokefa.errors import InputError
from pokefa.ledger.cells import BOOLEAN, TEXT, CellType, decimal, hex_digits, integer, one_of, reason_of
from pokefa.ledger.columns import BASE, DROPS, IMAGES, SCHEMAS, data_dictionary
from tests.conftest import CHECKOUT

MD5 = hex_digits(32)


@pytest.mark.parametrize(
    ("cell_type", "value", "text"),
    [
        (TEXT, "007", "007"),
        (TEXT, "NA", "NA"),
        (TEXT, "Type: Null", "Type: Null"),
        (TEXT, "True", "True"),
        (BOOLEAN, True, "True"),
        (BOOLEAN, False, "False"),
        (integer(-20), -12, "-12"),
        (decimal(0), 0.1, "0.1"),
        (decimal(0), 3, "3.0"),
        (decimal(0), 1e-7, "1e-07"),
        (MD5, "0" * 31 + "a", "0" * 31 + "a"),
        (TEXT, None, None),
    ],
)
def test_values_come_back_as_their_declared_type(cell_type: CellType, value, text):
    assert cell_type.encode("c", value) == text
    assert cell_type.decode("c", text) == value
    assert type(cell_type.decode("c", text)) is (float if cell_type.kind == "float" else type(value))
    cells, wrong = cell_type.respell("c", pl.Series([text], dtype=pl.String))
    assert (cells.to_list(), wrong) == ([text], {})


def test_an_empty_text_is_an_empty_cell():
    assert TEXT.encode("c", "") is None
    assert TEXT.decode("c", "") is None


@pytest.mark.parametrize(
    ("cell_type", "value", "message"),
    [
        (BOOLEAN, 1, "c: 1 is not of type bool"),
        (integer(0), True, "c: True is not of type int"),
        (integer(0), 1.0, "c: 1.0 is not of type int"),
        (integer(0, 100), 101, "c: 101 is not a whole number from 0 to 100"),
        (decimal(0), math.nan, "c: nan is not a finite number"),
        (TEXT, 7, "c: 7 is not of type text"),
        (TEXT, "a\0b", r"c: 'a\x00b' contains a NUL character, which a CSV cannot store"),
        (TEXT, "\ud800", r"c: '\ud800' contains a lone surrogate, which UTF-8 cannot store"),
        (MD5, "../../evil", "c: '../../evil' is not 32 hex digits"),
        (one_of("train", "val"), "test", "c: 'test' is not train or val"),
    ],
)
def test_values_that_do_not_fit_are_refused(cell_type: CellType, value, message):
    with pytest.raises(InputError) as caught:
        cell_type.encode("c", value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("cell_type", "ours", "spellings"),
    [
        (BOOLEAN, "True", ["TRUE", "true", "True ", "\u00a0True", "1", "1.0", "tRuE"]),
        (BOOLEAN, "False", ["FALSE", "false ", "0", "0.0"]),
        (BOOLEAN, None, [" ", "\u00a0"]),
        (integer(0, 100), "84", ["84.0", "84.", " 84", "+84", "084"]),
        (decimal(0, 1), "0.5", [".5", " 5e-1", "0.5E0", "+.50"]),
        (decimal(0), "1.0", ["1", "+1"]),
        (MD5, "ab" * 16, ["AB" * 16, " " + "ab" * 16]),
        (one_of("unflagged"), "unflagged", ["Unflagged", "unflagged "]),
        (reason_of("species", "takedown"), "takedown:gone", ["Takedown:gone", " takedown:Gone"]),
    ],
)
def test_other_spellings_are_read_as_the_value_and_written_in_ours(cell_type: CellType, ours, spellings):
    cells, wrong = cell_type.respell("c", pl.Series(spellings, dtype=pl.String))
    assert wrong == {}
    assert cells.to_list() == [ours] * len(spellings)
    assert {cell_type.decode("c", text) for text in spellings} == {cell_type.decode("c", ours)}


@pytest.mark.parametrize(
    ("cell_type", "text", "expected"),
    [
        (BOOLEAN, "yes", "True or False"),
        (BOOLEAN, "2", "True or False"),
        (integer(0), "1_000", "a whole number of 0 or more"),
        (integer(0), "١", "a whole number of 0 or more"),
        (integer(0), "84.5", "a whole number of 0 or more"),
        (integer(0), "1.23E+11", "a whole number of 0 or more"),
        (integer(0, 100), "900", "a whole number from 0 to 100"),
        (integer(0, 100), "-1", "a whole number from 0 to 100"),
        (decimal(0), "inf", "a number of 0 or more"),
        (decimal(0, 1), "0,5", "a number from 0 to 1"),
        (decimal(0, 1), "1.5", "a number from 0 to 1"),
        (MD5, "1.23E+31", "32 hex digits"),
        (MD5, "../../evil", "32 hex digits"),
        (hex_digits(16, times=2), "0" * 16, "2 times 16 hex digits"),
        (one_of("unflagged"), "no", "unflagged"),
        (reason_of("species", "takedown"), "takendown:x", "a stage and a reason, such as species:reason"),
    ],
)
def test_a_text_that_is_no_value_is_named_and_comes_empty(cell_type: CellType, text, expected):
    message = f"c: {text!r} is not {expected}; correct the cell or empty it"
    with pytest.raises(InputError) as caught:
        cell_type.decode("c", text)
    assert str(caught.value) == message
    cells, wrong = cell_type.respell("c", pl.Series([text]))
    assert (cells.to_list(), wrong) == ([None], {text: message})


def test_a_stage_writes_only_its_own_columns():
    with pytest.raises(ValueError, match=r"stage phash may not write .* column is_nsfw: it belongs to nsfw_filter"):
        IMAGES.encode_cells("phash", {"is_nsfw": True})
    with pytest.raises(ValueError, match=r"column colour: it belongs to nobody"):
        IMAGES.encode_cells("phash", {"colour": "red"})


def test_shared_columns_have_several_owners():
    for stage in ("cap_filter", "species", "takedown"):
        assert IMAGES.encode_cells(stage, {"drop_reason": "species:b"}) == {"drop_reason": "species:b"}
    for stage in ("sentence_tags", "recap_merge"):
        assert set(BASE.owned_by(stage)) == {"caption", "tags"}


def test_base_starts_with_the_columns_of_the_contract():
    expected = ["path", "source_url", "image_size", "ae_relevance", "ae_aesthetic", "image_id", "phash"]
    assert BASE.first_names == expected
    assert BASE.names == [*expected, "caption", "tags", "hybrid_caption", "species", "split"]
    assert DROPS.names == ["ts", "image_id", "stage", "reason", "detail", "source_url", "run_id"]


def test_each_example_is_a_cell_in_our_own_spelling():
    for column in (column for schema in SCHEMAS.values() for column in schema.columns):
        assert column.encode(column.decode(column.type.example)) == column.type.example
        assert column.type.respell("c", pl.Series([column.type.example]))[0].to_list() == [column.type.example]


def test_no_column_is_declared_twice():
    for schema in SCHEMAS.values():
        assert len(set(schema.names)) == len(schema.names)


def test_the_data_dictionary_on_disk_is_the_generated_one():
    on_disk = (CHECKOUT / "metadata/README.md").read_text(encoding="utf-8")
    assert on_disk == data_dictionary(), "run: python -m pokefa.ledger.columns > metadata/README.md"
