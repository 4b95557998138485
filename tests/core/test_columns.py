"""Columns: types are declared, never guessed, and every stage writes only its own."""

from __future__ import annotations

import math

import pytest

from pokefa.columns import BASE, DROPS, IMAGES, SCHEMAS, Column, data_dictionary
from pokefa.errors import InputError
from tests.conftest import CHECKOUT


def column(kind: str) -> Column:
    return Column("c", kind, ("stage",), "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("text", "007", "007"),
        ("text", "NA", "NA"),
        ("text", "Type: Null", "Type: Null"),
        ("text", "True", "True"),
        ("bool", True, "True"),
        ("bool", False, "False"),
        ("int", -12, "-12"),
        ("float", 0.1, "0.1"),
        ("float", 3, "3.0"),
        ("text", None, None),
    ],
)
def test_values_come_back_as_their_declared_type(kind, value, text):
    assert column(kind).encode(value) == text
    assert column(kind).decode(text) == value
    assert type(column(kind).decode(text)) is (float if kind == "float" else type(value))


def test_an_empty_text_is_an_empty_cell():
    assert column("text").encode("") is None
    assert column("text").decode("") is None


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("bool", 1, "c: 1 is not of type bool"),
        ("int", True, "c: True is not of type int"),
        ("int", 1.0, "c: 1.0 is not of type int"),
        ("float", math.nan, "c: nan is not a finite number"),
        ("text", 7, "c: 7 is not of type text"),
        ("text", "a\0b", r"c: 'a\x00b' holds a NUL character, which a CSV cannot store"),
        ("text", "\ud800", r"c: '\ud800' holds a lone surrogate, which UTF-8 cannot store"),
    ],
)
def test_values_that_do_not_fit_are_refused(kind, value, message):
    with pytest.raises(InputError) as caught:
        column(kind).encode(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("bool", "yes", "c: 'yes' is not True or False; correct the cell or empty it"),
        ("int", "1_000", "c: '1_000' is not type int; correct the cell or empty it"),
        ("int", "١", "c: '١' is not type int; correct the cell or empty it"),
        ("float", "inf", "c: 'inf' is not type float; correct the cell or empty it"),
    ],
)
def test_cells_edited_into_nonsense_are_named(kind, text, message):
    with pytest.raises(InputError) as caught:
        column(kind).decode(text)
    assert str(caught.value) == message


def test_a_stage_writes_only_its_own_columns():
    with pytest.raises(ValueError, match=r"stage phash may not write .* column is_nsfw: it belongs to nsfw_filter"):
        IMAGES.encode_cells("phash", {"is_nsfw": True})
    with pytest.raises(ValueError, match=r"column colour: it belongs to nobody"):
        IMAGES.encode_cells("phash", {"colour": "red"})


def test_shared_columns_have_several_owners():
    for stage in ("cap_filter", "species", "takedown"):
        assert IMAGES.encode_cells(stage, {"drop_reason": "a:b"}) == {"drop_reason": "a:b"}
    for stage in ("sentence_tags", "recap_merge"):
        assert set(BASE.owned_by(stage)) == {"caption", "tags"}


def test_base_starts_with_the_columns_of_the_contract():
    expected = ["path", "source_url", "image_size", "ae_relevance", "ae_aesthetic", "image_id", "phash"]
    assert BASE.first_names == expected
    assert BASE.names == [*expected, "caption", "tags", "hybrid_caption", "species", "split"]
    assert DROPS.names == ["ts", "image_id", "stage", "reason", "detail", "source_url", "run_id"]


def test_no_column_is_declared_twice():
    for schema in SCHEMAS.values():
        assert len(set(schema.names)) == len(schema.names)


def test_the_data_dictionary_on_disk_is_the_generated_one():
    on_disk = (CHECKOUT / "metadata/README.md").read_text(encoding="utf-8")
    assert on_disk == data_dictionary(), "run: python -m pokefa.columns > metadata/README.md"
