"""metadata/review.py: who is listed, in which order, and that the command it writes works."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]


def page_of(root: Path, stage: str) -> str:
    return (root / f"metadata/review-{stage}.html").read_text(encoding="utf-8")


def listed(page: str) -> list[str]:
    return re.findall(r'<input type="checkbox" value="([0-9a-f]{32})">', page)


def command_of(page: str) -> list[str]:
    start = re.search(r'data-command="([^"]*)"', page)
    assert start is not None
    return shlex.split(unescape(start.group(1)))


def flag(sample: Any, name: str, scores: str, thresholds: str) -> None:
    with sample.run("nsfw_filter") as run:
        values = {"is_nsfw": True, "nsfw_score": 0.9, "nsfw_tags": scores, "nsfw_threshold": thresholds}
        run.record(sample.ids[name], values)


def test_nsfw_page_lists_the_flagged_closest_to_the_threshold_first(ask: Ask, sample: Any) -> None:
    flag(sample, "dull", '{"rating:explicit": 0.52, "tail": 0.99}', '{"rating:explicit": 0.5}')
    flag(sample, "good", "not JSON", '{"rating:explicit": 0.5}')
    finished = ask("review", "--stage", "nsfw")
    page = page_of(sample.root, "nsfw")
    assert listed(page) == [sample.ids[name] for name in ("dull", "nsfw", "good")]  # by 0.02, 0.47, unknown
    assert (finished.summary["seen"], finished.summary["done"]) == (3, 3)
    assert "rating:explicit 0.97 of 0.5" in page and "1 were cleared before" in page
    assert page.count('<div class="pictures veil">') == 3


def test_limit_says_how_many_there_are(ask: Ask, sample: Any) -> None:
    flag(sample, "dull", "{}", "{}")
    ask("review", "--stage", "nsfw", "--limit", "1")
    assert "2 images; the 1 closest to the threshold are here" in page_of(sample.root, "nsfw")


@pytest.mark.parametrize(
    ("stage", "name", "column"), [("nsfw", "nsfw", "nsfw_override"), ("ocr", "text", "ocr_override")]
)
def test_command_of_the_page_clears_the_image(
    ask: Ask, run_script: Ask, sample: Any, stage: str, name: str, column: str
) -> None:
    ask("review", "--stage", stage)
    page = page_of(sample.root, stage)
    assert listed(page) == [sample.ids[name]]
    python, *words = command_of(page)
    assert python == "python"
    finished = run_script(*words, *listed(page))
    assert finished.code == 0, finished.stderr
    assert ask("history", sample.ids[name], "--json").summary["events"][-1]["cells"] != {}
    ask("review", "--stage", stage)
    assert listed(page_of(sample.root, stage)) == []
    assert "Nothing is flagged." in page_of(sample.root, stage)


def test_ocr_page_shows_before_and_after(ask: Ask, sample: Any) -> None:
    ask("review", "--stage", "ocr")
    page = page_of(sample.root, "ocr")
    assert "text covers 4.00%" in page
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == ["before", "after"]
    assert "veil" not in re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL)


def test_dup_page_shows_the_kept_one_and_its_command_runs(ask: Ask, run_script: Ask, sample: Any) -> None:
    ask("review", "--stage", "dup")
    page = page_of(sample.root, "dup")
    assert listed(page) == [sample.ids["copy"]]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == ["removed", "kept"]
    assert "near, distance 4, decided by aesthetic" in page
    assert run_script(*command_of(page)[1:], listed(page)[0]).code == 0


def test_second_run_writes_nothing(ask: Ask, sample: Any) -> None:
    assert ask("review", "--stage", "nsfw").summary["written"] is True
    assert ask("review", "--stage", "nsfw").summary["written"] is False


def test_text_of_strangers_is_escaped(ask: Ask, sample: Any) -> None:
    with sample.run("scrape") as run:
        run.record(sample.ids["nsfw"], {"species": '"><script>alert(1)</script>'})
    ask("review", "--stage", "nsfw")
    page = page_of(sample.root, "nsfw")
    assert page.count("<script") == 1 and "alert(1)</script>" not in page


def test_unknown_stage_is_refused(ask: Ask) -> None:
    finished = ask("review", "--stage", "score")
    assert finished.code == 2
    assert "argument --stage: invalid choice: 'score'" in finished.stderr
