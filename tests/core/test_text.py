"""Slugs of species names, and text files that change only with cause."""

from __future__ import annotations

import csv
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokefa.files import write_text
from pokefa.text import clean_text, species_slug

CHECKOUT = Path(__file__).resolve().parents[2]

BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}

GOLDEN = {
    "Umbreon": "umbreon",
    "Nidoran♀": "nidoran_female",
    "Nidoran♂": "nidoran_male",
    "Nidoran♀\ufe0f": "nidoran_female",
    "Mr. Mime": "mr_mime",
    "Mr. Rime": "mr_rime",
    "Mime Jr.": "mime_jr",
    "Type: Null": "type_null",
    "Porygon-Z": "porygon_z",
    "Porygon2": "porygon2",
    "Farfetch'd": "farfetchd",
    "Farfetch’d": "farfetchd",
    "Sirfetch'd": "sirfetchd",
    "Ho-Oh": "ho_oh",
    "Flabébé": "flabebe",
    "Flabe\u0301be\u0301": "flabebe",
    "Tapu Koko": "tapu_koko",
    "Jangmo-o": "jangmo_o",
    "Chien–Pao": "chien_pao",
    "  Iron  Hands ": "iron_hands",
    "ho_oh": "ho_oh",
    "ピカチュウ": "",
    "": "",
}


@pytest.mark.parametrize(("name", "slug"), GOLDEN.items())
def test_golden_slugs(name: str, slug: str) -> None:
    assert species_slug(name) == slug


def test_every_species_has_a_slug_of_its_own() -> None:
    with (CHECKOUT / "quotas/popularity.csv").open(encoding="utf-8", newline="") as stream:
        names = [row["name"] for row in csv.DictReader(stream)]
    slugs = {species_slug(name) for name in names}
    assert len(names) == len(slugs) == 1025
    assert all(re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", slug) for slug in slugs)


@given(st.text())
def test_a_slug_is_snake_case_and_its_own_slug(text: str) -> None:
    slug = species_slug(text)
    assert re.fullmatch(r"([a-z0-9]+(_[a-z0-9]+)*)?", slug)
    assert species_slug(slug) == slug


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Mew, sleeping", "Mew, sleeping"),
        ("two\n\0lines\t", "two lines"),
        ("\x1b[31mred\x1b[0m\x07", "[31mred [0m"),
        ("C1 \x9b31m\x85next\u2028line", "C1 31m next line"),
        ("gnp.\u202eexe\u202c \u2066a\u2069\u200e\u200f\u061c", "gnp.exe a"),
        ("soft\u00adhyphen zero\u200bwidth \ufeff", "softhyphen zerowidth"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f", "👨\u200d👩\u200d👧 ❤\ufe0f"),
        ("بولباسور 皮卡丘 é", "بولباسور 皮卡丘 é"),
        ("\ud800", "?"),
        ("\u202e \x00", None),
        ("", None),
        (None, None),
        (7, None),
        (["no text"], None),
    ],
)
def test_clean_text(text: object, clean: str | None) -> None:
    assert clean_text(text) == clean


@given(st.text(st.characters()))
def test_clean_text_holds_no_controls(text: str) -> None:
    clean = clean_text(text) or ""
    assert not {unicodedata.category(mark) for mark in clean} & {"Cc", "Cs", "Zl", "Zp"}
    assert not any(unicodedata.bidirectional(mark) in BIDI_CONTROLS for mark in clean)
    assert (clean_text(clean) or "") == clean


def test_write_text_leaves_an_equal_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "list.txt"
    assert write_text(path, "Flabébé\n")
    before = path.stat()
    assert not write_text(path, "Flabébé\n")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert write_text(path, "Mew\n")
    assert path.read_bytes() == b"Mew\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["list.txt"]
