"""One question for one picture, and with --one-per-group for all that look like it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from demo.standins.openai_standin import StandIn
from tests.conftest import Dataset, numbered_id

SCRIPT = "preprocess/score/score.py"

Start = Callable[..., StandIn]
Environment = Callable[[StandIn], dict[str, str]]


def drawing(number: int, side: int) -> Image.Image:
    """Return a pattern of its own for each number, which looks the same at each size."""
    chance = random.Random(number)
    small = Image.frombytes("RGB", (8, 8), chance.randbytes(8 * 8 * 3))
    return small.resize((512, 512), Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.LANCZOS)


def fill(dataset: Dataset, pictures: Sequence[tuple[int, int]]) -> list[str]:
    """Fill the dataset with drawings, (number, side), that wait for a score; return their ids."""
    ids = [numbered_id(place) for place in range(len(pictures))]
    (dataset.root / "resized").mkdir(exist_ok=True)
    rows = []
    for image_id, (number, side) in zip(ids, pictures, strict=True):
        drawing(number, side).save(dataset.root / f"resized/{image_id}.png")
        row = {"image_id": image_id, "is_nsfw": False, "has_ocr": False, "path_resized": f"resized/{image_id}.png"}
        rows.append({**row, "w": side, "h": side})
    dataset.write_images(rows)
    return ids


def told(dataset: Dataset, *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in columns) for row in dataset.images().values()]


def test_the_largest_answers_for_its_group(dataset: Dataset, stand_in: Start, environment: Environment) -> None:
    ids = fill(dataset, [(1, 200), (1, 320), (1, 260), (2, 240)])
    server = stand_in()
    finished = dataset.run(SCRIPT, "--one-per-group", env=environment(server))
    assert finished.code == 0, finished.stderr
    assert finished.summary["counts"] == {"scored": 2, "scored_as_group": 2}
    assert server.counts == {"answered": 2}
    judge, same = "gpt-5-mini-stand-in score-1", f"same as {ids[1]}"
    # The stand-in tells the width: 320 - 100 = 220, of which it says 50 + 20.
    assert told(dataset, "ae_aesthetic", "ae_model") == [
        ("70", same),
        ("70", judge),
        ("70", same),
        ("90", judge),
    ]
    decided = dataset.run("preprocess/dup/rm_dups.py")
    assert decided.code == 0, decided.stderr
    assert told(dataset, "dupe_flag", "dupe_keep_reason") == [
        ("identical", "pixels"),
        ("kept", "pixels"),
        ("identical", "pixels"),
        ("unique", ""),
    ]
    assert dataset.run(SCRIPT, "--one-per-group", env=environment(server)).summary["seen"] == 0


def test_a_late_member_gets_the_scores_of_its_group(
    dataset: Dataset, stand_in: Start, environment: Environment
) -> None:
    ids = fill(dataset, [(1, 200), (1, 320)])
    server = stand_in(failures=["", "refusal"])
    dataset.run(SCRIPT, "--ids", ids[1], env=environment(server))
    late = dataset.run(SCRIPT, "--one-per-group", env=environment(server))
    assert (late.summary["counts"], late.summary["usd"]) == ({"scored_as_group": 1}, None)
    assert server.counts == {"answered": 1}
    assert told(dataset, "ae_model")[0] == (f"same as {ids[1]}",)


def test_a_leader_that_failed_leads_no_more(dataset: Dataset, stand_in: Start, environment: Environment) -> None:
    ids = fill(dataset, [(1, 200), (1, 320), (1, 260)])
    server = stand_in(failures=["refusal"])
    first = dataset.run(SCRIPT, "--one-per-group", env=environment(server))
    assert (first.summary["errors"], first.summary["left_with_their_group"]) == (1, 2)
    dataset.run(SCRIPT, "--one-per-group", env=environment(server))
    assert told(dataset, "ae_model") == [(f"same as {ids[2]}",), ("",), ("gpt-5-mini-stand-in score-1",)]


def test_an_estimate_tells_both_prices(dataset: Dataset, stand_in: Start, environment: Environment) -> None:
    fill(dataset, [(1, 200), (1, 320), (2, 240)])
    server = stand_in()
    bare = dataset.run(SCRIPT, "--estimate", env=environment(server)).summary["estimate"]
    assert "one_per_group" not in bare
    assert dataset.run("preprocess/dup/phash.py").code == 0
    estimate = dataset.run(SCRIPT, "--estimate", env=environment(server)).summary["estimate"]
    assert {**estimate, "one_per_group": None} == {**bare, "one_per_group": None}
    assert estimate["one_per_group"]["images"] == 2
    assert 0 < estimate["one_per_group"]["usd"] < estimate["usd"]
    assert not server.counts


def test_the_same_pixels_in_other_bytes_share_an_answer(
    dataset: Dataset, stand_in: Start, environment: Environment
) -> None:
    ids = fill(dataset, [(1, 200), (1, 200), (1, 200)])
    note = PngInfo()
    note.add_text("title", "another file")
    drawing(1, 200).save(dataset.root / f"resized/{ids[1]}.png", pnginfo=note, compress_level=1)
    drawing(1, 200).save(dataset.root / f"resized/{ids[2]}.png", "TIFF")
    files = {(dataset.root / f"resized/{image_id}.png").read_bytes() for image_id in ids}
    assert len(files) == 3
    server = stand_in()
    finished = dataset.run(SCRIPT, env=environment(server))
    assert (finished.summary["done"], finished.summary["reused"], server.counts["answered"]) == (3, 2, 1)


@pytest.mark.parametrize("flag", ["--dry-run", "--estimate"])
def test_what_asks_nothing_makes_no_hashes(
    dataset: Dataset, stand_in: Start, environment: Environment, flag: str
) -> None:
    fill(dataset, [(1, 200)])
    assert dataset.run(SCRIPT, "--one-per-group", flag, env=environment(stand_in())).code == 0
    assert told(dataset, "phash64") == [("",)]
