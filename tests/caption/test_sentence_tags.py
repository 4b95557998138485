"""Captions as a user makes them, against the stand-in over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from caption.cap_filter import find_faults
from caption.sentence_tags import ADVICE, note_of
from caption.tags import TAG_NAMES
from demo.standins.openai_standin import StandIn
from tests.caption.conftest import FACTS, SENTENCE, describe_by_width
from tests.conftest import CHECKOUT, Dataset

SCRIPT = "caption/sentence_tags.py"
MODEL = "gpt-5-mini-stand-in caption-1"

Ready = Callable[..., list[str]]
Start = Callable[..., StandIn]
Environment = Callable[[StandIn], dict[str, str]]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def notes(server: StandIn) -> list[str | None]:
    """Return what each request said about its own picture."""
    parts = [request["input"][0]["content"] for request in server.requests]
    return [next((part["text"] for part in content if part["type"] == "input_text"), None) for content in parts]


def test_images_are_captioned(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    ids = ready(3)

    def describe(image: Image.Image) -> dict[str, Any]:
        return {**describe_by_width(image), "pokemon": ["Umbreon"], "props": ["Poké Ball"], "art_style": ["best"]}

    server = stand_in(describe=describe)
    finished = dataset.run(SCRIPT, env=environment(server))
    assert finished.code == 0, finished.stderr
    base, images = dataset.base(), dataset.images()
    assert [base[image_id]["caption"] for image_id in ids] == [SENTENCE.format(number=number) for number in range(3)]
    tags = base[ids[0]]["tags"]
    assert json.loads(tags) == {name: FACTS[name] for name in TAG_NAMES} | {"props": ["poke_ball"], "art_style": []}
    assert list(json.loads(tags)) == sorted(TAG_NAMES)
    for image_id in ids:
        row = images[image_id]
        assert (row["caption_model"], row["caption_run_id"], row["caption_error"]) == (
            MODEL,
            finished.summary["run_id"],
            "",
        )
    assert (finished.summary["done"], finished.summary["counts"]) == (3, {"captioned": 3})
    assert finished.summary["output_tokens"] > 0
    assert notes(server) == [None, None, None]  # the species that was searched for is not told


def test_the_day_after_the_default_model_is_shut_down(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    """Captions go to the model that knows the species; each is charged as the stand-in's bill says."""
    ids = ready(2)
    server = stand_in()
    finished = dataset.run_on("2026-12-12", SCRIPT, env=environment(server))
    assert (finished.code, finished.summary["done"]) == (0, 2)
    assert "model gpt-6.1-terra: gpt-5-mini is shut down since 2026-12-11" in finished.stderr.splitlines()[0]
    assert {dataset.images()[image_id]["caption_model"] for image_id in ids} == {"gpt-6.1-terra-stand-in caption-1"}
    assert finished.summary["usd"] == pytest.approx(server.bill.usd, abs=1e-6)


def test_a_second_run_asks_nothing_and_changes_nothing(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(2)
    server = stand_in()
    dataset.run(SCRIPT, env=environment(server))
    before = contents(dataset.root)
    assert dataset.run(SCRIPT, env={"OPENAI_API_KEY": ""}).summary["seen"] == 0
    assert contents(dataset.root) == before
    assert server.counts == {"answered": 2}


def test_failures_cost_their_image_and_can_be_tried_again(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ids = ready(4)

    def describe(image: Image.Image) -> dict[str, Any]:
        facts = describe_by_width(image)
        return facts | {"caption": "..."} if image.width == 102 and not server.requests[5:] else facts

    server = stand_in(describe=describe, failures=["refusal", "missing_field", "missing_field"])
    finished = dataset.run(SCRIPT, "--concurrency", 1, env=environment(server))
    assert (finished.code, finished.summary["done"], finished.summary["errors"]) == (0, 1, 3)
    assert [dataset.images()[image_id]["caption_error"] for image_id in ids] == [
        "refusal: I'm sorry, but I can't help with that picture.",
        "missing_key: the answer lacks caption",
        "empty_caption: '...' holds no sentence",
        "",
    ]
    assert dataset.run(SCRIPT, env=environment(server)).summary["seen"] == 0
    tried = dataset.run(SCRIPT, "--retry-errors", env=environment(server))
    assert (tried.summary["done"], tried.summary["errors"]) == (3, 0)
    assert not any(row["caption_error"] for row in dataset.images().values())
    assert [row["caption"] for row in dataset.base().values()] == [SENTENCE.format(number=n) for n in range(4)]


def test_the_species_can_be_told(dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment) -> None:
    (image_id,) = ready(1)
    server = stand_in()
    dataset.run(SCRIPT, "--species-hint", env=environment(server))
    assert notes(server) == [
        "A search for Umbreon found this picture. That may be wrong: use the name only if the picture agrees, and "
        "name what you see where it does not."
    ]
    assert dataset.images()[image_id]["caption_model"] == f"{MODEL}+species_hint"


def test_images_that_were_taken_down_are_not_sent(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ready(2)
    rows = [dict(row) for row in dataset.rows("images")]
    rows[0]["drop_reason"] = "takedown:asked"
    dataset.write_images(rows)
    server = stand_in()
    assert dataset.run(SCRIPT, env=environment(server)).summary["seen"] == 1
    assert server.counts == {"answered": 1}


def test_a_missing_final_set_is_wrong_input(dataset: Dataset) -> None:
    dataset.write_images([])
    finished = dataset.run(SCRIPT)
    assert finished.code == 2
    assert finished.stderr == (f"error: no {dataset.root}/metadata/base.csv: run preprocess/filter/filter.py first\n")


def test_every_reason_of_cap_filter_has_advice() -> None:
    from caption.cap_filter import Limits
    from pokefa.species.matching import SpeciesMatcher
    from pokefa.species.names import Species

    nothing = {**FACTS, "pokemon": []}
    reasons = set(find_faults("", nothing, SpeciesMatcher(Species([])), Limits())) | set(
        find_faults("I am sorry " * 9 + "for the unknown.", dict(FACTS), SpeciesMatcher(Species([])), Limits())
    )
    reasons |= set(find_faults("Eevee.", dict(FACTS), SpeciesMatcher(Species(["Umbreon", "Eevee"])), Limits()))
    assert reasons | {"same_sentence"} == set(ADVICE)


def test_a_second_try_is_told_what_was_wrong() -> None:
    assert note_of(None, ()) == ""
    assert note_of("Umbreon", ("repeated_text", "my_own_reason")) == (
        "A search for Umbreon found this picture. That may be wrong: use the name only if the picture agrees, and "
        "name what you see where it does not. An earlier caption of this picture was rejected: it repeated itself; "
        "my own reason."
    )


# -- another try --------------------------------------------------------------------------------------------------

OLD = "A fox-like creature sleeps somewhere under the full moon tonight."


@pytest.fixture
def listed(dataset: Dataset, ready: Ready) -> list[str]:
    """Three captioned images, the second and third of which are in recap.csv."""
    ids = ready(3, [(FACTS["caption"], FACTS), (OLD, {**FACTS, "pokemon": [], "form": []}), (OLD, FACTS)])
    write_recap(dataset, {ids[1]: "no_species", ids[2]: "sentence_tags_disagree wrong_length"})
    return ids


def write_recap(dataset: Dataset, reasons: dict[str, str]) -> Path:
    path = dataset.root / "metadata" / "recap.csv"
    path.write_text("image_id,reasons\n" + "".join(f"{image_id},{slugs}\n" for image_id, slugs in reasons.items()))
    return path


def only(dataset: Dataset) -> tuple[str, Path]:
    return "--only", dataset.root / "metadata" / "recap.csv"


def test_listed_images_are_captioned_again_beside_the_final_set(
    dataset: Dataset, listed: list[str], stand_in: Start, environment: Environment
) -> None:
    before = (dataset.root / "metadata" / "base.csv").read_bytes()
    server = stand_in()
    finished = dataset.run(SCRIPT, *only(dataset), "--concurrency", 1, env=environment(server))
    assert finished.code == 0, finished.stderr
    assert (dataset.root / "metadata" / "base.csv").read_bytes() == before
    rows = dataset.rows("recap_captions")
    assert [list(row) for row in rows[:1]] == [
        ["image_id", "caption", "tags", "model", "run_id", "reasons", "replaces"]
    ]
    assert [(row["image_id"], row["caption"], row["reasons"], row["replaces"]) for row in rows] == [
        (listed[1], SENTENCE.format(number=1), "no_species", OLD),
        (listed[2], SENTENCE.format(number=2), "sentence_tags_disagree wrong_length", OLD),
    ]
    assert json.loads(rows[0]["tags"])["pokemon"] == ["umbreon"]
    assert {row["model"] for row in rows} == {f"{MODEL}+recap"}
    assert {row["run_id"] for row in rows} == {finished.summary["run_id"]}
    assert notes(server) == [
        f"An earlier caption of this picture was rejected: {ADVICE['no_species']}.",
        "An earlier caption of this picture was rejected: "
        f"{ADVICE['sentence_tags_disagree']}; {ADVICE['wrong_length']}.",
    ]
    assert (finished.summary["done"], finished.summary["counts"]) == (2, {"captioned_again": 2})


def test_the_same_try_is_not_paid_twice(
    dataset: Dataset, listed: list[str], stand_in: Start, environment: Environment
) -> None:
    server = stand_in()
    dataset.run(SCRIPT, *only(dataset), env=environment(server))
    before = contents(dataset.root)
    assert dataset.run(SCRIPT, *only(dataset), env=environment(server)).summary["seen"] == 0
    dataset.run("caption/recap_merge.py")
    assert dataset.run(SCRIPT, *only(dataset), env=environment(server)).summary["seen"] == 0
    assert contents(dataset.root)["metadata/recap_captions.csv"] == before["metadata/recap_captions.csv"]
    assert server.counts == {"answered": 2}
    # Another reason, or --redo, is another question.
    write_recap(dataset, {listed[1]: "wrong_length", listed[2]: "sentence_tags_disagree wrong_length"})
    assert dataset.run(SCRIPT, *only(dataset), env=environment(server)).summary["done"] == 1
    assert dataset.run(SCRIPT, *only(dataset), "--redo", env=environment(server)).summary["done"] == 2


def test_a_failed_try_waits_for_retry_errors(
    dataset: Dataset, listed: list[str], stand_in: Start, environment: Environment
) -> None:
    server = stand_in(failures=["refusal"])
    first = dataset.run(SCRIPT, *only(dataset), "--concurrency", 1, env=environment(server))
    assert (first.summary["done"], first.summary["errors"]) == (1, 1)
    assert dataset.images()[listed[1]]["caption_error"].startswith("refusal: ")
    assert dataset.run(SCRIPT, *only(dataset), env=environment(server)).summary["seen"] == 0
    again = dataset.run(SCRIPT, *only(dataset), "--retry-errors", env=environment(server))
    assert (again.summary["done"], again.summary["errors"]) == (1, 0)
    assert dataset.images()[listed[1]]["caption_error"] == ""
    assert [row["image_id"] for row in dataset.rows("recap_captions")] == listed[1:]


def test_a_killed_try_is_not_paid_again(
    dataset: Dataset, ready: Ready, stand_in: Start, environment: Environment
) -> None:
    ids = ready(12, [(OLD, FACTS)] * 12)
    write_recap(dataset, dict.fromkeys(ids, "sentence_tags_disagree"))
    answered = threading.Semaphore(0)

    def describe(image: Image.Image) -> dict[str, Any]:
        answered.release()
        return describe_by_width(image)

    server = stand_in(describe=describe, latency=0.02)
    flag, path = only(dataset)
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "--root", str(dataset.root), flag, str(path), "--concurrency", "2"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment(server)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(6):
        assert answered.acquire(timeout=60)
    process.kill()
    process.wait()
    assert not (dataset.root / "metadata" / "recap_captions.csv").exists()
    finished = dataset.run(SCRIPT, *only(dataset), env=environment(server))
    assert finished.code == 0
    assert [row["caption"] for row in dataset.rows("recap_captions")] == [SENTENCE.format(number=n) for n in range(12)]
    assert finished.summary["done"] < 12
    assert 12 <= server.counts["answered"] <= 12 + 4  # at most two pictures for each of two threads


def test_ids_that_the_final_set_lacks_are_counted(
    dataset: Dataset, listed: list[str], stand_in: Start, environment: Environment
) -> None:
    write_recap(dataset, {"f" * 32: "no_species", listed[1]: "no_species"})
    finished = dataset.run(SCRIPT, *only(dataset), env=environment(stand_in()))
    assert finished.summary["counts"] == {"captioned_again": 1, "not_in_base": 1}


def test_an_empty_list_is_nothing_to_do(dataset: Dataset, listed: list[str]) -> None:
    write_recap(dataset, {})
    finished = dataset.run(SCRIPT, *only(dataset), env={"OPENAI_API_KEY": ""})
    assert (finished.code, finished.summary["seen"]) == (0, 0)
    assert not (dataset.root / "metadata" / "recap_captions.csv").exists()


def test_a_dry_run_of_another_try_asks_nothing(dataset: Dataset, listed: list[str]) -> None:
    before = contents(dataset.root)
    finished = dataset.run(SCRIPT, *only(dataset), "--dry-run", env={"OPENAI_API_KEY": ""})
    assert (finished.code, finished.summary["seen"]) == (0, 2)
    assert contents(dataset.root) == before


def test_a_list_that_is_missing_is_wrong_input(dataset: Dataset, listed: list[str]) -> None:
    finished = dataset.run(SCRIPT, "--only", "/nowhere/recap.csv")
    assert finished.code == 2
    assert finished.stderr.startswith("error: /nowhere/recap.csv cannot be read (No such file or directory): ")


def test_a_list_without_reasons_is_wrong_input(dataset: Dataset, listed: list[str]) -> None:
    path = dataset.root / "metadata" / "recap.csv"
    path.write_text(f"image_id\n{listed[1]}\n")
    finished = dataset.run(SCRIPT, *only(dataset))
    assert finished.code == 2
    assert finished.stderr == f"error: {path} has no column reasons: it needs image_id and reasons in its header line\n"
