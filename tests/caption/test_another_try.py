"""The whole way of captions that need another try, from the list to the drop, as a user goes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from demo.standins.openai_standin import StandIn
from tests.caption.conftest import FACTS, FIRST_WIDTH
from tests.conftest import Dataset, Finished
from tests.metadata.conftest import build
from tests.odd_places import check_odd_places

GOOD = "Umbreon sleeps on a mossy stone while picture number {} shows a full moon."
WRONG = "Espeon sleeps on a mossy stone while picture number {} shows a full moon."


def test_captions_get_better_or_their_images_go(
    dataset: Dataset,
    ready: Callable[..., list[str]],
    stand_in: Callable[..., StandIn],
    environment: Callable[[StandIn], dict[str, str]],
) -> None:
    ids = ready(4)
    asked: list[int] = []

    def describe(image: Image.Image) -> dict[str, Any]:
        """The model sees Espeon in the second and third picture, and in the second still when it is asked again."""
        number = image.width - FIRST_WIDTH
        asked.append(number)
        wrong = number == 1 or (number == 2 and asked.count(2) == 1)
        return {**FACTS, "caption": (WRONG if wrong else GOOD).format(number)}

    variables = environment(stand_in(describe=describe))
    recap = dataset.root / "metadata" / "recap.csv"

    def run(script: str, *arguments: object) -> Finished:
        finished = dataset.run(f"caption/{script}.py", *arguments, env=variables)
        assert finished.code == 0, finished.stderr
        return finished

    run("sentence_tags")
    run("cap_filter", "--drop")  # nothing is hopeless before it was tried again
    assert recap.read_text() == f"image_id,reasons\n{ids[1]},sentence_tags_disagree\n{ids[2]},sentence_tags_disagree\n"

    assert run("sentence_tags", "--only", recap).summary["counts"] == {"captioned_again": 2}
    assert run("recap_merge").summary["counts"] == {"already_merged": 1, "merged": 1}  # one answer was the same again
    assert sorted(asked) == [0, 1, 1, 2, 2, 3]

    assert run("cap_filter", "--drop").summary["counts"] == {"dropped": 1, "sentence_tags_disagree": 1}
    assert recap.read_text() == "image_id,reasons\n"
    assert [row["drop_reason"] for row in dataset.images().values()] == [
        "",
        "cap_filter:sentence_tags_disagree",
        "",
        "",
    ]

    run("hybrid_captions")
    hybrids = [row["hybrid_caption"] for row in dataset.base().values()]
    assert [hybrid.split(" | ")[0] for hybrid in hybrids] == [GOOD.format(0), "", GOOD.format(2), GOOD.format(3)]
    assert all(hybrid.split(" | ")[1].startswith("umbreon, ") for hybrid in hybrids if hybrid)


def test_a_root_of_any_name_in_any_locale(tmp_path: Path) -> None:
    template = build(tmp_path / "template")
    scripts = ["caption/cap_filter.py", "caption/recap_merge.py", "caption/hybrid_captions.py --max-tokens 20"]
    check_odd_places(template.root, tmp_path, scripts)
