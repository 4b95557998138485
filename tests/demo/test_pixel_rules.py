"""The rules of the stand-in judge, on pictures whose answers are known by hand."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from caption.tags import TAG_NAMES, tags_from_cell, tags_to_cell
from demo.art.creatures import SPECIES
from demo.standins.pixel_rules import (
    HUE_WORDS,
    MANNERS,
    MOODS,
    RELEVANCE_OF_FLATNESS,
    SENTENCES,
    STANCES,
    describe,
    interpolate,
    judge,
    look_at,
    measure_contrast,
    measure_flatness,
    measure_repetition,
    name_colour,
)

GROUND = (225, 228, 232)


def picture(*boxes: tuple[tuple[int, int, int, int], tuple[int, int, int]]) -> Image.Image:
    """A light grey picture of 320×240 with boxes (left, top, right, bottom) in a colour."""
    image = Image.new("RGB", (320, 240), GROUND)
    for (left, top, right, bottom), colour in boxes:
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=colour)
    return image


def noise(size: tuple[int, int], seed: int = 1) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1]))


def test_one_flat_colour_is_all_flat_and_noise_not_at_all():
    assert measure_flatness(Image.new("RGB", (100, 100), GROUND)) == 1
    assert measure_flatness(noise((100, 100))) == 0
    assert judge(Image.new("RGB", (100, 100), GROUND))["relevance"] == 100
    assert judge(noise((100, 100)))["relevance"] == 0


def test_flatness_is_the_share_of_flat_pixels():
    image = Image.new("L", (100, 100), 100)
    image.paste(noise((40, 100)).convert("L"), (0, 0))
    assert measure_flatness(image.convert("RGB")) == pytest.approx(0.59, abs=0.01)


def test_interpolation_meets_its_knots_and_is_level_beyond_them():
    for value, height in RELEVANCE_OF_FLATNESS:
        assert interpolate(value, RELEVANCE_OF_FLATNESS) == height
    assert interpolate(-1, ((0.0, 5.0), (1.0, 7.0))) == 5
    assert interpolate(0.25, ((0.0, 5.0), (1.0, 7.0))) == 5.5
    assert interpolate(9, ((0.0, 5.0), (1.0, 7.0))) == 7


def test_contrast_is_the_span_of_grey_and_the_mean_chroma():
    image = Image.new("RGB", (100, 100), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 50, 100))
    assert measure_contrast(image) == (1.0, 0.0)
    assert measure_contrast(Image.new("RGB", (10, 10), (200, 149, 98))) == (0.0, pytest.approx(0.4))


def test_a_dull_picture_scores_low_and_a_strong_one_high():
    assert judge(Image.new("RGB", (100, 100), GROUND))["aesthetic"] <= 28
    strong = picture(((0, 0, 160, 240), (30, 40, 90)), ((200, 60, 280, 200), SPECIES[9].body))
    assert judge(strong)["aesthetic"] >= 80


def test_equal_halves_are_a_strong_artifact():
    half = noise((160, 240))
    image = Image.new("RGB", (320, 240))
    image.paste(half, (0, 0))
    image.paste(half, (160, 0))
    assert measure_repetition(image) == 0
    assert judge(image)["artifact"] == "strong"


def test_nearly_equal_halves_are_a_mild_artifact():
    half = picture(((20, 60, 100, 200), (200, 60, 60))).crop((0, 0, 160, 240))
    other = half.copy()
    other.paste((60, 60, 200), (40, 60, 60, 200))  # a quarter of the box in another colour
    image = Image.new("RGB", (320, 240))
    image.paste(half, (0, 0))
    image.paste(other, (160, 0))
    assert judge(image)["artifact"] == "mild"


def test_different_halves_are_no_artifact():
    assert judge(picture(((20, 60, 100, 200), (200, 60, 60))))["artifact"] == "none"


@pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.slug)
def test_each_species_is_known_by_its_hue(species):
    image = picture(((100, 60, 220, 200), species.body))
    assert look_at(image).species == (species,)
    assert describe(image)["pokemon"] == [species.slug]
    assert species.name in describe(image)["caption"]


@pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.slug)
def test_a_faded_species_is_still_known(species):
    strong = picture(((100, 60, 220, 200), species.body))
    faded = Image.blend(strong, Image.new("RGB", strong.size, GROUND), 0.65)
    assert look_at(faded).species == (species,)


@pytest.mark.parametrize("colour", [(255, 0, 255), (178, 171, 161), (90, 90, 90)], ids=["magenta", "brown", "grey"])
def test_other_hues_and_none_are_a_fakemon(colour):
    answer = describe(picture(((100, 60, 220, 200), colour)))
    assert answer["pokemon"] == ["fakemon"]
    assert answer["form"] == [None]


def test_two_species_come_in_the_order_of_their_areas():
    image = picture(((20, 60, 80, 160), SPECIES[0].body), ((180, 60, 300, 200), SPECIES[3].body))
    answer = describe(image)
    assert answer["pokemon"] == [SPECIES[3].slug, SPECIES[0].slug]
    assert answer["form"] == [None, None]
    assert answer["subject_count"] == "multiple"
    assert "group_shot" in answer["composition"]


def test_a_mark_of_another_hue_is_no_second_creature():
    image = picture(((100, 60, 220, 200), SPECIES[9].body), ((120, 100, 160, 140), SPECIES[10].body))
    assert describe(image)["pokemon"] == [SPECIES[9].slug]


def test_the_place_and_the_shape_are_told():
    wide = describe(picture(((20, 100, 140, 160), SPECIES[2].body)))
    assert wide["pose"] == ["stretched_out"]
    assert "on the left" in wide["caption"].lower()
    tall = describe(picture(((230, 40, 290, 200), SPECIES[2].body)))
    assert tall["pose"] == ["standing"]
    assert "on the right" in tall["caption"].lower()
    square = describe(picture(((110, 70, 210, 170), SPECIES[2].body)))
    assert square["pose"] == ["sitting"]
    assert "in the middle" in square["caption"].lower()


def test_a_balloon_is_seen_by_its_magenta():
    image = picture(((20, 20, 120, 120), (255, 0, 255)), ((180, 80, 280, 200), SPECIES[2].body))
    assert describe(image)["props"] == ["balloon"]
    assert describe(picture(((180, 80, 280, 200), SPECIES[2].body)))["props"] == []


def test_night_is_told_from_day():
    night = Image.new("RGB", (320, 240), (24, 28, 60))
    night.paste(SPECIES[9].body, (100, 60, 220, 200))
    assert describe(night)["time_of_day"] == "night"
    day = Image.new("RGB", (320, 240), (180, 210, 246))
    day.paste(SPECIES[9].body, (100, 60, 220, 200))
    assert (describe(day)["time_of_day"], describe(day)["weather"]) == ("day", "clear")


@pytest.mark.parametrize(
    ("colour", "words"),
    [
        ((250, 250, 250), "white"),
        ((40, 40, 40), "dark grey"),
        ((130, 130, 130), "grey"),
        ((24, 28, 60), "dark blue"),
        ((180, 210, 246), "pale blue"),
        ((150, 190, 140), "green"),
        ((224, 40, 30), "red"),
        ((240, 215, 180), "pale sandy"),
    ],
)
def test_colours_have_names(colour, words):
    assert name_colour(colour) == words


def test_every_sentence_has_12_to_25_words():
    colours = ("green", "pale blue")
    assert max(len(word.split()) for _, *words in HUE_WORDS for word in words) == 1
    verbs = [verb for *_, one, several in STANCES.values() for verb in (one, several)]
    who = ("Umbreon", "Umbreon and Eevee", "a made-up creature")
    for template, name, verb, mood, top, bottom in product(SENTENCES, who, verbs, MOODS, colours, colours):
        for where in ("on the left", "in the middle"):
            sentence = template.format(
                who=name, verb=verb, where=where, top=top, bottom=bottom, colours=f"{top} and {bottom}", mood=mood,
                manner=MANNERS[0],
            )  # fmt: skip
            assert 12 <= len(sentence.split()) <= 25, sentence
    assert {len(manner.split()) for manner in MANNERS} == {1}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.binary(min_size=3, max_size=120))
def test_any_picture_gets_an_answer_of_the_right_form(width, height, pattern):
    data = (pattern * (3 * width * height // len(pattern) + 1))[: 3 * width * height]
    image = Image.frombytes("RGB", (width, height), data)
    scores = judge(image)
    assert 0 <= scores["relevance"] <= 100
    assert 0 <= scores["aesthetic"] <= 100
    assert scores["artifact"] in ("none", "mild", "strong")
    answer = describe(image)
    assert set(answer) == {"caption", *TAG_NAMES}
    assert tags_from_cell("an_id", tags_to_cell(answer))  # all values have their types
    assert judge(image) == scores
    assert describe(image) == describe(image.copy())
