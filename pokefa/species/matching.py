"""The species that an unknown name means: by name, as one of its forms, or misspelled.

A name counts as misspelled if its OSA similarity to a species is at least MIN_SCORE and higher than to any other. The
similarity is one minus the number of edits (a letter inserted, deleted or replaced, two adjacent letters swapped)
divided by the length of the longer name (optimal string alignment; L. Boytsov 2011, "Indexing methods for approximate
dictionary searching"). Underscores do not count.

MIN_SCORE allows one edit from 7 letters on, and two from 14. Measured with benchmarks/species_matching.py, in percent
of 3,075 species names with one random edit, as many with two, 262,837 English words, 91,892 names of people, 19,995
pairs of English words, 19,979 made-up species (the beginning of one and the end of another) and 275 creatures and
people of other works:

             one edit:       two edits:                                                   other
    at least     right  wrong     right  wrong    words   people    pairs  made up        works
        0.75     99.61   0.00     67.41   0.23     0.80     1.43     0.50    12.76         1.82
        0.80     98.70   0.00     30.83   0.20     0.27     0.63     0.31     4.73         0.73
        0.82     94.99   0.00     15.67   0.13     0.18     0.41     0.20     2.76         0.00
        0.85     82.34   0.00     12.33   0.03     0.10     0.17     0.03     1.88         0.00
        0.86     59.28   0.00      8.68   0.03     0.03     0.02     0.00     1.13         0.00
        0.88     35.61   0.00      6.18   0.00     0.01     0.00     0.00     0.56         0.00
        0.90     17.17   0.00      4.07   0.00     0.00     0.00     0.00     0.22         0.00

At 0.85, four of five names with one edit are recognised, almost none as another species, and one English word in a
thousand matches. At 0.82, which allows one edit in 6 letters, 95 of 100 are recognised, but twice as many words and
people match. At 0.80, creatures of other works match too. At 0.86, which allows no edit in 7 letters, only 59 of 100
are recognised. Words one letter from a name still match (`chameleon`, 0.90), so every match is recorded with its score.

Of the 254 English words that match, 44 are in common use (a Zipf frequency of 3 or more in wordfreq 3.1.1). They are
accepted: as the name of a Pokémon, `ghastly`, `polygon` or `meditate` is more likely a typo than the word. Short names
are accepted too: without those of 6 and 7 letters 74 words would match, but 4 of 10 species could not be corrected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pokefa.errors import PokefaError
from pokefa.species.names import DESCRIBING, Species
from pokefa.text import species_slug

MIN_SCORE = 0.85
# The increase of MIN_SCORE if other unknown words are in the name: `haunted_doll` is not Haunter.
BESIDE_OTHER_WORDS = 0.03

ROUNDING = 1e-9  # tolerance for the last bits of a score
LOOSER = 0.01  # tolerance for the library's cutoff, which excludes 4 letters of 5 at 0.8

# Words that name a form before any species, even when joined to it: "megacharizard".
FORM_WORDS = DESCRIBING | {"alola", "galar", "hisui", "paldea", "gmax", "dynamax"}
# With one of these words, the name means a creature that only resembles the species.
RESEMBLING = frozenset({"like", "inspired", "resembling", "lookalike", "hybrid", "fusion", "fused", "fakemon"})

_SEXES = {"female": "female", "male": "male", "f": "female", "m": "male"}

# One more word than any species has: "mew_too", "iron_va_liant".
MOST_WORDS = 3

NOT_INSTALLED = "rapidfuzz is not installed: reinstall the stage's file in requirements/"


@dataclass(frozen=True)
class Match:
    """The meaning of a name.

    Attributes:
        form: the other words, such as `mega_x`.
        score: 1.0 for the species' own name, else the similarity.
    """

    species: str
    form: str | None
    score: float


class SpeciesMatcher:
    """Finds the species that names mean; results are cached."""

    def __init__(self, species: Species, min_score: float = MIN_SCORE) -> None:
        self.species = species
        self._min_score = min_score
        self._spellings = list(species.run_together)
        self.match = lru_cache(maxsize=100_000)(self._match)

    def _match(self, name: str) -> Match | None:
        """Return the species that a name means, or None if it means none, several, or something that resembles one."""
        words = [word for whole in species_slug(name).split("_") for word in self._parted(whole)]
        if RESEMBLING.intersection(words):
            return None
        for order in (words, _sex_last(words)):
            species, form = self.species.split_form("_".join(order))
            if species in self.species.slugs:
                return Match(species, form, 1.0)
        return self._misspelled(words)

    def _parted(self, word: str) -> list[str]:
        """Return `megacharizard` as two words; other words, and species that begin like a form, are not split."""
        if word not in self.species.run_together:
            for form in FORM_WORDS:
                if word.startswith(form) and word.removeprefix(form) in self.species.run_together:
                    return [form, word.removeprefix(form)]
        return [word]

    def _misspelled(self, words: list[str]) -> Match | None:
        """Return the species most similar to some of the words; None if none is close enough, or two are equal."""
        best: dict[str, Match] = {}
        for start, end in _windows(len(words)):
            for species, score in self._nearest("".join(words[start:end])):
                rest = words[:start] + words[end:]
                known = all(word in FORM_WORDS or len(word) == 1 for word in rest)
                if not known and score < self._min_score + BESIDE_OTHER_WORDS - ROUNDING:
                    continue
                if species not in best or score > best[species].score:
                    best[species] = Match(species, "_".join(rest) or None, score)
        ranked = sorted(best.values(), key=lambda match: -match.score)
        if not ranked or (len(ranked) > 1 and ranked[0].score == ranked[1].score):
            return None
        return ranked[0]

    def _nearest(self, text: str) -> list[tuple[str, float]]:
        """Return up to two species similar enough to a text, the most similar first."""
        try:
            from rapidfuzz.distance import OSA
            from rapidfuzz.process import extract
        except ImportError:
            raise PokefaError(NOT_INSTALLED) from None
        scorer, cutoff = OSA.normalized_similarity, self._min_score - LOOSER
        found = extract(text, self._spellings, scorer=scorer, score_cutoff=cutoff, limit=2)
        near = ((spelling, score) for spelling, score, _ in found if score >= self._min_score - ROUNDING)
        return [(self.species.run_together[spelling], score) for spelling, score in near]


def _sex_last(words: list[str]) -> list[str]:
    """Return the words with the sex moved to the end, as in `nidoran_female`."""
    rest = [word for word in words if word not in _SEXES]
    return [*rest, *(_SEXES[word] for word in words if word in _SEXES)] if len(rest) == len(words) - 1 else words


def _windows(words: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of all runs of up to MOST_WORDS words, longest first."""
    for length in range(min(words, MOST_WORDS), 0, -1):
        for start in range(words - length + 1):
            yield start, start + length
