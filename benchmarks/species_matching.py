"""How many misspelled species are recognized, and how many other words are mistaken for one, by required score.

    python benchmarks/species_matching.py            about a minute
    python benchmarks/species_matching.py --quick    on fewer words, in seconds

Misspelled words are all species, with one or two random edits. Other words are an English dictionary, people's names,
pairs of English words, made-up species (the beginning of one and the end of another), and creatures and people of other
works. Names that happen to be those of a species are excluded. Nothing is timed. The environment is that of
requirements/requirements_benchmarks_species_matching.txt.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from importlib.resources import files

from benchmarks.harness import Bench, bench_main
from benchmarks.markdown import table
from pokefa.species.matching import SpeciesMatcher
from pokefa.species.names import Species, known_species

SCORES = (0.75, 0.80, 0.82, 0.85, 0.86, 0.88, 0.90)
SPELLINGS_EACH = 3
QUICK = 2_000

OTHER_WORKS = """
agumon gabumon biyomon tentomon palmon gomamon patamon gatomon greymon garurumon birdramon kabuterimon togemon
ikkakumon angemon angewomon metalgreymon weregarurumon garudamon megakabuterimon lillymon zudomon wargreymon
metalgarurumon omnimon veemon hawkmon armadillomon wormmon guilmon terriermon renamon impmon leomon devimon etemon
myotismon diaboromon kuwagamon ogremon koromon tsunomon tanemon motimon yokomon bukamon tokomon gigimon gummymon
lamball cattiva chikipi lifmunk foxparks fuack sparkit tanzee rooby pengullet penking jolthog gumoss vixy hoocrates
teafant depresso cremis daedream rushoar nox fuddler killamari mau celaray direhowl tocotoco flopie mozzarina bristla
gobfin hangyu mossanda woolipop caprity melpaca eikthyrdeer nitewing ribbuny incineram cinnamoth arsox dumud cawgnito
leezpunk loupmoon galeclaw robinquill gorirat beegarde elizabee grintale swee sweepa chillet univolt foxcicle pyrin
reindrix rayhound kitsun dazzi lunaris dinossom surfent maraith digtoise tombat lovander flambelle vanwyrm bushi
beakon ragnahawk katress wixen verdash vaelet sibelyx elphidran kelpsea azurobe cryolinx blazehowl relaxaurus
broncherry petallia reptyro kingpaca mammorest wumpo warsect fenglope felbat quivern blazamut helzephyr astegon
menasting anubis jormuntide suzaku grizzbolt lyleen faleris orserk shadowbeak paladius necromus frostallion jetragon
jibanyan whisper komasan komajiro kyubi venoct shogunyan usapyon temtem swali oree zephyruff paharo houchic tental
kuriboh exodia slifer obelisk chocobo moogle cactuar tonberry carbuncle behemoth ifrit bahamut kirby metaknight dedede
waddledee yoshi bowser goomba koopa luigi rosalina samus ridley ganondorf midna sonic tails knuckles amy shadow rouge
cream blaze silver stitch angel totoro catbus calcifer toothless simba nala naruto sasuke goku vegeta luffy zoro
chopper inuyasha sailor doraemon hamtaro shrek bluey bingo garfield snoopy ash misty brock jessie james oak cynthia
steven dawn serena iris cilan clemont bonnie lillie gladion hau marnie nemona penny arven leon hop raihan nessa bea
volo gary giovanni lysandre guzma cinnapup pikablu missingno dragon_like_1 fakemon fire_fox water_starter
electric_mouse unknown_creature grass_dragon
"""


def edited(word: str, rng: random.Random) -> str:
    """Return a word with one letter inserted, deleted or replaced, or two neighbours swapped."""
    place, letter = rng.randrange(len(word)), rng.choice(string.ascii_lowercase)
    if (kind := rng.choice(("insert", "delete", "replace", "swap"))) == "insert":
        return word[:place] + letter + word[place:]
    if kind == "swap":
        place = min(place, len(word) - 2)
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word[:place] + ("" if kind == "delete" else letter) + word[place + 1 :]


def made_up(spellings: Sequence[str], rng: random.Random) -> str:
    """Return the beginning of one species and the end of another, at least two letters each."""
    first, second = rng.sample(spellings, 2)
    return first[: rng.randint(2, max(2, len(first) - 2))] + second[-rng.randint(2, max(2, len(second) - 2)) :]


def english_words() -> list[str]:
    from english_words import get_english_words_set

    return sorted(get_english_words_set(["web2", "gcide"], lower=True, alpha=True))


def people() -> list[str]:
    """Return the first and last names of the US census of 1990 from the package `names`."""
    lists = [files("names") / f"dist.{name}" for name in ("all.last", "female.first", "male.first")]
    return sorted({line.split()[0].lower() for text in lists for line in text.read_text().splitlines()})


def other_words(species: Species, rng: random.Random, quick: bool) -> dict[str, list[str]]:
    """Return the lists of words that are not species, without those that equal a species' name."""
    spellings, words = sorted(species.run_together), english_words()
    count = QUICK if quick else 20_000
    pairs = [f"{first}_{second}" for first, second in (rng.sample(words, 2) for _ in range(count))]
    lists = {
        "words": rng.sample(words, QUICK) if quick else words,
        "people": rng.sample(people(), QUICK) if quick else people(),
        "pairs": [pair for pair in pairs if not set(pair.split("_")) & set(spellings)],
        "made up": [made_up(spellings, rng) for _ in range(count)],
        "other works": OTHER_WORKS.split(),
    }
    return {name: [word for word in words if word not in species.run_together] for name, words in lists.items()}


def named(matcher: SpeciesMatcher, word: str) -> str | None:
    match = matcher.match(word)
    return match.species if match is not None else None


def percent(count: int, of: int) -> str:
    return f"{100 * count / of:.2f}"


def measure(bench: Bench) -> None:
    species, rng = known_species(), random.Random(0)
    spellings = sorted(species.run_together.items()) * SPELLINGS_EACH
    misspelled = {
        "one edit": [(edited(spelling, rng), slug) for spelling, slug in spellings],
        "two edits": [(edited(edited(spelling, rng), rng), slug) for spelling, slug in spellings],
    }
    others = other_words(species, rng, bench.quick)
    heads = ["at least", *(f"{name}: {what}" for name in misspelled for what in ("right", "wrong")), *others]
    rows: list[list[str]] = []
    taken = others
    for score in SCORES:  # ascending: a word without a match has none at higher scores either
        matcher = SpeciesMatcher(species, score)
        cells = [f"{score:.2f}"]
        for pairs in misspelled.values():
            found = [(slug, named(matcher, spelling)) for spelling, slug in pairs]
            cells.append(percent(sum(slug == name for slug, name in found), len(found)))
            cells.append(percent(sum(name not in (slug, None) for slug, name in found), len(found)))
        taken = {name: [word for word in words if named(matcher, word)] for name, words in taken.items()}
        cells += [percent(len(words), len(others[name])) for name, words in taken.items()]
        rows.append(cells)
        if score == bench.args.show:
            print(
                "\n".join(f"{name}: {word} {named(matcher, word)}" for name, words in taken.items() for word in words)
            )
    lengths = {name: len(words) for lists in (misspelled, others) for name, words in lists.items()}
    counts = [f"{length:,} {name}" for name, length in lengths.items()]
    print(f"{table(heads, rows)}\nIn percent, of {', '.join(counts)}.")


if __name__ == "__main__":
    show = {"type": float, "choices": SCORES, "help": "list the words that count as a species there"}
    raise SystemExit(bench_main(__doc__, "Species matching", measure, flags={"--show": show}))
