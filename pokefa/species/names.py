"""The known species of quotas/popularity.csv: separated from their forms in a tag, and found in a sentence."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pokefa.errors import InputError
from pokefa.text import species_slug

POPULARITY = Path(__file__).resolve().parents[2] / "quotas" / "popularity.csv"

# Words before a species in a sentence that change which creature is meant.
DESCRIBING = frozenset({"shiny", "mega", "primal", "gigantamax", "alolan", "galarian", "hisuian", "paldean"})

_WORD = re.compile(r"[\w'’.♀♂-]+")


@dataclass(frozen=True)
class Mention:
    """A species in a sentence, by its slug without `_male` or `_female`, and the words of DESCRIBING before it."""

    name: str
    described: frozenset[str]


class Species:
    """The known species, by slug, as a part of a tag, and in sentences.

    Attributes:
        slugs: all of them.
        run_together: {slug without underscores: slug}.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.slugs = {species_slug(name) for name in names}
        self.run_together = {slug.replace("_", ""): slug for slug in self.slugs}
        self._phrases = {tuple(without_sex(slug).split("_")) for slug in self.slugs}
        self._longest = max(map(len, self._phrases), default=0)

    def split_form(self, slug: str) -> tuple[str, str | None]:
        """Return species and form of a slug that may contain both: `mega_charizard_x` is `charizard` and `mega_x`.

        Underscores do not matter: `mew_two` is a species. A slug with no species, or with several, is returned
        unchanged.
        """
        words = slug.split("_")
        for length in range(len(words), 0, -1):
            for start in range(len(words) - length + 1):
                species = self.run_together.get("".join(words[start : start + length]))
                if species is None:
                    continue
                rest = words[:start] + words[start + length :]
                if any(word in self.run_together for word in rest):
                    return slug, None
                return species, "_".join(rest) or None
        return slug, None

    def mentions_in(self, sentence: str) -> list[Mention]:
        """Return the species in a sentence, in order, including plural and genitive forms.

        If two names begin with the same word, the longer counts: "Porygon-Z" is not also Porygon. Nidoran names two
        species, and is returned without its sign.
        """
        words = [word for part in _WORD.findall(sentence) for word in without_sex(species_slug(part)).split("_")]
        found: list[Mention] = []
        place = 0
        while place < len(words):
            phrase = self._phrase_at(words, place)
            if phrase:
                first = place
                while first and words[first - 1] in DESCRIBING:
                    first -= 1
                found.append(Mention("_".join(phrase), frozenset(words[first:place])))
            place += len(phrase) or 1
        return found

    def _phrase_at(self, words: Sequence[str], place: int) -> tuple[str, ...]:
        """Return the longest name that begins with the word at `place`, or ()."""
        for length in range(min(self._longest, len(words) - place), 0, -1):
            phrase = tuple(words[place : place + length])
            for known in (phrase, *((*phrase[:-1], phrase[-1].removesuffix(end)) for end in ("s", "es"))):
                if known in self._phrases:
                    return known
        return ()


def without_sex(slug: str) -> str:
    return slug.removesuffix("_female").removesuffix("_male")


def read_species(path: Path) -> Species:
    """Return the species of popularity.csv.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return Species(row["name"] for row in csv.DictReader(stream))
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a CSV with a column name: {error}") from None


@lru_cache(maxsize=1)
def known_species() -> Species:
    """Return the species of the repository's quotas/popularity.csv, read once.

    Raises:
        InputError: the file cannot be read.
    """
    return read_species(POPULARITY)
