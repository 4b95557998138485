"""The drawn pictures: what is planted is there, and the rules see in each picture what was drawn."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from caption.cap_filter import Limits, find_faults
from caption.tags import clean_answer
from demo.art.creatures import SPECIES
from demo.art.draw import compose, fingerprint, plan_pictures, render
from demo.standins.pixel_rules import describe, judge, look_at
from pokefa.errors import ImageError
from pokefa.images.files import flatten, open_image
from pokefa.images.formats import FORMATS, KEPT_FORMATS
from pokefa.llm.images import encode_jpeg
from pokefa.species.matching import SpeciesMatcher
from pokefa.species.names import POPULARITY, read_species
from pokefa.text import species_slug

CHECKOUT = Path(__file__).resolve().parents[2]
SEED = 7

AT_LEAST = {
    "plain": 28,
    "text": 6,
    "near_duplicate": 6,
    "off_topic": 2,
    "nsfw": 2,
    "nsfw_false_alarm": 1,
    "oversize": 1,
    "tiny": 1,
    "opted_out": 1,
    "cmyk": 1,
    "exif_rotated": 1,
    "sixteen_bit": 1,
    "animated": 1,
    "truncated": 1,
    "text_file": 1,
    "low_aesthetic": 2,
    "artifact_strong": 2,
    "no_species": 1,
}
UNREADABLE = {"truncated": "truncated", "text_file": "not_an_image"}
# Kinds of which no picture gets as far as a score.
NOT_SCORED = {*UNREADABLE, "tiny", "opted_out", "nsfw"}
GOOD = {
    "plain",
    "text",
    "near_duplicate",
    "nsfw_false_alarm",
    "oversize",
    "cmyk",
    "exif_rotated",
    "sixteen_bit",
    "animated",
}

Picture = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pictures, drawn as a user would."""
    out = tmp_path_factory.mktemp("drawn") / "art"
    command = [sys.executable, "-m", "demo.art.draw", "--out", str(out), "--seed", str(SEED)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"pictures": 61, "catalogue": str(out / "catalogue.json")}
    return out


@pytest.fixture(scope="module")
def pictures(folder: Path) -> list[Picture]:
    catalogue = json.loads((folder / "catalogue.json").read_text(encoding="utf-8"))
    assert catalogue["seed"] == SEED
    return catalogue["pictures"]


@pytest.fixture(scope="module")
def sent(folder: Path, pictures: list[Picture]) -> dict[str, Image.Image]:
    """Every picture that is scored, by file, as it arrives at the API: enlarged to 1024, cut to the patches, JPEG."""
    return {
        picture["file"]: arrive(flatten(open_image(folder / picture["file"])))
        for picture in pictures
        if picture["kind"] not in NOT_SCORED
    }


def arrive(image: Image.Image) -> Image.Image:
    scale = max(1.0, 1024 / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    arrived = Image.open(io.BytesIO(encode_jpeg(image)))
    arrived.load()
    return arrived


def of_kind(pictures: list[Picture], *kinds: str) -> list[Picture]:
    return [picture for picture in pictures if picture["kind"] in kinds]


def test_every_kind_is_planted(pictures):
    counts = Counter(picture["kind"] for picture in pictures)
    assert counts.keys() == AT_LEAST.keys()
    assert {kind: counts[kind] for kind in AT_LEAST if counts[kind] < AT_LEAST[kind]} == {}


def test_the_twelve_species_are_in_the_popularity_list_and_all_drawn(pictures):
    known = {line.partition(",")[2] for line in POPULARITY.read_text(encoding="utf-8").splitlines()}
    names = {species.name for species in SPECIES}
    assert len(names) == 12
    assert names <= known
    assert {picture["species"] for picture in of_kind(pictures, "plain")} == names


def test_the_hues_keep_apart_and_off_magenta():
    for one, other in combinations(SPECIES, 2):
        assert abs((one.hue - other.hue + 180) % 360 - 180) >= 20
    assert not [species.name for species in SPECIES if 280 <= species.hue <= 330]


def test_the_catalogue_tells_the_truth(folder, pictures):
    files = [picture["file"] for picture in pictures]
    assert files == sorted(files)
    assert set(files) == {str(path.relative_to(folder)) for path in folder.glob("*/*")}
    suffixes = {form.media_type: f".{form.suffix}" for form in FORMATS.values()}
    assert {picture["content_type"] for picture in pictures} == suffixes.keys()
    for picture in pictures:
        path = folder / picture["file"]
        assert hashlib.md5(path.read_bytes()).hexdigest() == picture["md5"]
        assert path.parent.name == species_slug(picture["species"])
        assert suffixes[picture["content_type"]] == path.suffix
        assert picture["page"].startswith("/art/")
    assert (
        len({picture["page"] for picture in pictures}) == len({picture["md5"] for picture in pictures}) == len(pictures)
    )
    assert sum((folder / file).stat().st_size for file in files) < 40_000_000


def test_a_second_drawing_has_the_same_bytes(folder, pictures):
    by_file = {picture["file"]: picture for picture in pictures}
    drawn = set()
    for plan in plan_pictures(SEED):
        if plan.kind in drawn or plan.kind == "oversize":
            continue
        drawn.add(plan.kind)
        data, entry = render(plan, SEED, lambda file: (folder / file).read_bytes())
        assert entry == by_file[plan.file]
        assert data == (folder / plan.file).read_bytes()
    assert len(drawn) == len(AT_LEAST) - 1


def test_another_seed_draws_other_pictures():
    plan = plan_pictures(SEED)[0]
    assert compose(plan, 8, scale=0.1).tobytes() != compose(plan, SEED, scale=0.1).tobytes()


def test_a_thumbnail_shows_the_same_composition():
    for plan in plan_pictures(SEED)[:3]:
        small, large = compose(plan, SEED, scale=0.1), compose(plan, SEED)
        assert large.size == plan.size
        assert (fingerprint(small) ^ fingerprint(large)).bit_count() <= 8


def test_pictures_have_the_properties_of_their_kind(folder, pictures):
    def opened(kind: str) -> Image.Image:
        (picture,) = of_kind(pictures, kind)
        return Image.open(folder / picture["file"])

    assert opened("oversize").size == (3000, 2400)
    assert opened("tiny").size == (90, 90)
    assert opened("cmyk").mode == "CMYK"
    assert opened("exif_rotated").getexif()[0x0112] == 6
    assert opened("animated").n_frames == 3
    (deep,) = of_kind(pictures, "sixteen_bit")
    header = (folder / deep["file"]).read_bytes()[:33]
    assert (header[12:16], header[24], header[25]) == (b"IHDR", 16, 2)  # bits per sample, colour type RGB
    formats = Counter(picture["content_type"] for picture in of_kind(pictures, "plain"))
    assert min(formats[FORMATS[form].media_type] for form in KEPT_FORMATS) >= 5
    assert len(formats) == len(FORMATS)
    sides = [min(open_image(folder / picture["file"]).size) for picture in of_kind(pictures, "plain")]
    assert min(sides) >= 700
    assert min(sum(side < 1024 for side in sides), sum(1024 <= side <= 2048 for side in sides)) >= 5


@pytest.mark.parametrize(("kind", "slug"), UNREADABLE.items())
def test_broken_files_are_broken_as_planned(folder, pictures, kind, slug):
    (picture,) = of_kind(pictures, kind)
    with pytest.raises(ImageError) as caught:
        open_image(folder / picture["file"])
    assert caught.value.slug == slug


def test_the_rotated_picture_is_upright_once_opened(folder, pictures):
    (picture,) = of_kind(pictures, "exif_rotated")
    plan = next(plan for plan in plan_pictures(SEED) if plan.file == picture["file"])
    upright = flatten(open_image(folder / picture["file"]))
    assert upright.size == plan.size
    assert (fingerprint(upright) ^ fingerprint(compose(plan, SEED))).bit_count() <= 2


def magenta_share(image: Image.Image) -> float:
    data = image.tobytes()
    pixels = [data[at : at + 3] for at in range(0, len(data), 3)]
    return pixels.count(b"\xff\x00\xff") / len(pixels)


def test_magenta_covers_what_it_should(folder, pictures):
    for picture in of_kind(pictures, "nsfw"):
        assert 0.42 <= magenta_share(flatten(open_image(folder / picture["file"]))) <= 0.65
    (balloon,) = of_kind(pictures, "nsfw_false_alarm")
    assert 0.2 <= magenta_share(flatten(open_image(folder / balloon["file"]))) <= 0.25
    for picture in of_kind(pictures, "plain", "text"):
        assert look_at(flatten(open_image(folder / picture["file"]))).magenta == 0


def test_near_duplicates_are_near_and_everything_else_is_far(folder, pictures):
    prints = {
        picture["file"]: fingerprint(flatten(open_image(folder / picture["file"])))
        for picture in pictures
        if picture["kind"] not in UNREADABLE
    }
    originals = {picture["file"]: picture["copy_of"] for picture in of_kind(pictures, "near_duplicate")}
    assert {picture["variant"] for picture in of_kind(pictures, "near_duplicate")} == {
        "reencoded",
        "resized",
        "brighter",
    }
    for copy, original in originals.items():
        assert (prints[copy] ^ prints[original]).bit_count() <= 4
        assert (folder / copy).read_bytes() != (folder / original).read_bytes()
    for one, other in combinations(prints, 2):
        if originals.get(one) != other and originals.get(other) != one:
            assert (prints[one] ^ prints[other]).bit_count() > 12, f"{one} and {other}"


def test_good_pictures_are_judged_good(pictures, sent):
    for picture in of_kind(pictures, *GOOD):
        found = judge(sent[picture["file"]])
        assert found["artifact"] == "none", picture["file"]
        assert found["relevance"] >= 80, picture["file"]
        assert 65 <= found["aesthetic"] <= 95, picture["file"]


def test_planted_faults_are_judged_with_a_margin(pictures, sent):
    found = {picture["file"]: judge(sent[picture["file"]]) for picture in pictures if picture["file"] in sent}
    for picture in of_kind(pictures, "off_topic"):
        assert found[picture["file"]]["relevance"] <= 10
    for picture in of_kind(pictures, "low_aesthetic"):
        assert found[picture["file"]]["aesthetic"] <= 42
        assert found[picture["file"]]["relevance"] >= 80
        assert found[picture["file"]]["artifact"] == "none"
    for picture in of_kind(pictures, "artifact_strong"):
        assert found[picture["file"]]["artifact"] == "strong"
        assert found[picture["file"]]["relevance"] >= 75
    (made_up,) = of_kind(pictures, "no_species")
    assert found[made_up["file"]]["relevance"] >= 75
    assert found[made_up["file"]]["aesthetic"] >= 65


def test_copies_do_not_tie_with_their_originals(folder, pictures, sent):
    """Score, then pixels decide which one is kept; a tie in both would leave it to the order of the downloads."""
    for picture in of_kind(pictures, "near_duplicate"):
        ranks = set()
        for file in (picture["file"], picture["copy_of"]):
            width, height = open_image(folder / file).size
            ranks.add((judge(sent[file])["aesthetic"], width * height))
        assert len(ranks) == 2, picture["file"]


def test_every_creature_is_named_right(pictures, sent):
    companions = {plan.file: plan.companion for plan in plan_pictures(SEED)}
    for picture in of_kind(pictures, *GOOD, "low_aesthetic", "artifact_strong"):
        names = [picture["species"], companions[picture["file"]]]
        answer = describe(sent[picture["file"]])
        assert answer["pokemon"] == [species_slug(name) for name in names if name], picture["file"]
        assert answer["subject_count"] == ("multiple" if names[1] else "single")
    assert sum(companion is not None for companion in companions.values()) >= 4


def test_a_creature_of_no_hue_is_a_fakemon(pictures, sent):
    (made_up,) = of_kind(pictures, "no_species")
    assert describe(sent[made_up["file"]])["pokemon"] == ["fakemon"]


def test_captions_are_good_and_none_is_said_twice(pictures, sent):
    matcher = SpeciesMatcher(read_species(POPULARITY))
    sentences = []
    for picture in of_kind(pictures, *GOOD, "no_species"):
        answer = describe(sent[picture["file"]])
        caption = clean_answer(answer)
        assert caption.sentence == answer["caption"]
        assert caption.tags == {name: value for name, value in answer.items() if name != "caption"}
        expected = ["unknown_species"] if picture["kind"] == "no_species" else []
        assert find_faults(caption.sentence, caption.tags, matcher, Limits(12, 25)) == expected, caption.sentence
        sentences.append(caption.sentence)
    assert len(set(sentences)) == len(sentences)


def test_a_folder_that_is_a_file_is_refused(tmp_path, run_script):
    taken = tmp_path / "taken"
    taken.write_text("")
    finished = run_script("-m", "demo.art.draw", "--out", taken)
    assert finished.code == 2
    assert finished.stderr.splitlines()[-1] == f"python -m demo.art.draw: error: --out {taken} is a file: name a folder"


def test_a_plan_keeps_its_place_whatever_its_attempt():
    plan = plan_pictures(SEED)[0]
    assert replace(plan, attempt=3).file == plan.file
    assert compose(replace(plan, attempt=3), SEED, scale=0.1).tobytes() != compose(plan, SEED, scale=0.1).tobytes()


def test_only_the_opted_out_picture_carries_the_header(pictures):
    marked = {picture["kind"]: picture["headers"] for picture in pictures if "headers" in picture}
    assert marked == {"opted_out": {"X-Robots-Tag": "noai, noimageai"}}
