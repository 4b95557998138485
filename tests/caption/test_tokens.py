"""Counting CLIP's tokens: the vocabulary, the rules of splitting, and what happens without them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption.tokens import MERGES, find_vocabulary, load_token_counter, read_merges
from pokefa.errors import PokefaError
from pokefa.species.names import POPULARITY
from tests.conftest import CHECKOUT

count = load_token_counter()


def test_the_vocabulary_is_the_published_one() -> None:
    digest = hashlib.sha256(find_vocabulary().read_bytes()).hexdigest()
    assert digest == "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    merges = read_merges(find_vocabulary())
    assert (len(merges), merges[0], merges[-1]) == (MERGES, ("i", "n"), ("jeky", "ll</w>"))


# What CLIP's first implementation makes of these texts, begin and end included; counted once with it.
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 2),
        ("Hi there", 4),
        ("a photo of a cat", 7),
        ("A person riding a motorcycle", 7),
        ("jynx", 5),
        ("pyukumuku", 7),
        ("krookodile", 7),
        ("skorupi", 6),
        ("fezandipiti", 7),
        ("Type: Null", 5),
        ("Mr. Mime", 6),
        ("Nidoran♀", 7),
        ("Flabébé", 6),
        ("Farfetch'd", 5),
        ("Porygon-Z", 7),
        ("glowing_rings", 5),
        ("2024", 6),
        ("!!! ... ?!", 5),
        ("don't they'll we've", 8),
        ("ELDEGOSS  eldegoss\teldegoss", 11),
        ("月の石", 8),
        ("cafe\u0301 Über İstanbul", 8),
        ("😀 🌙", 4),
        ("x" * 60, 17),
        ("Shiny Mega Charizard X breathes blue fire across a ruined tower in the pouring rain.", 21),
        (
            "Umbreon sleeps on a mossy stone under the full moon in forest number 0. | umbreon, glowing rings, curled "
            "up, sleeping, stone, outdoors, forest, night, clear, full moon, digital painting, full body",
            49,
        ),
    ],
)
def test_counts_are_those_of_clip(text: str, tokens: int) -> None:
    assert count(text) == tokens


def test_the_names_of_all_species_cost_what_they_cost_clip() -> None:
    with POPULARITY.open(newline="", encoding="utf-8") as stream:
        counts = [count(row["name"]) for row in csv.DictReader(stream)]
    assert (len(counts), sum(counts), max(counts)) == (1025, 4744, 7)


@given(st.text(), st.text())
def test_texts_side_by_side_cost_as_much_as_both(first: str, second: str) -> None:
    assert count(f"{first} {second}") - 2 == (count(first) - 2) + (count(second) - 2)


@given(st.text())
def test_no_text_costs_more_than_its_bytes(text: str) -> None:
    assert 2 <= count(text) <= 2 + 4 * len(text.lower().encode("utf-8"))


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"#version\ni n\nt h\n"), gzip.compress(b"#v\n" + b"x\n")])
def test_a_damaged_vocabulary_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(data)
    with pytest.raises(PokefaError) as caught:
        read_merges(path)
    assert str(caught.value) == f"{path} is damaged: install the packages of requirements_caption_nodeps.txt anew"


@pytest.mark.parametrize("hidden", ["tokenizers", "clip_anytorch"])
def test_without_its_packages_there_is_one_line(tmp_path: Path, hidden: str) -> None:
    """An interpreter whose path holds all installed packages but one."""
    packages = find_vocabulary().parents[1]
    for entry in packages.iterdir():
        if not entry.name.startswith(hidden):
            (tmp_path / entry.name).symlink_to(entry)
    program = (
        "import sys\n"
        f"sys.path = [p for p in sys.path if p != {str(packages)!r}] + [{str(tmp_path)!r}, {str(CHECKOUT)!r}]\n"
        "from caption.tokens import load_token_counter\n"
        "try:\n    load_token_counter()\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == (
        "PokefaError CLIP's tokenizer is not installed: python -m pip install --no-deps -r "
        "requirements/requirements_caption_nodeps.txt\n"
    ), done.stderr
