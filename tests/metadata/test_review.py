"""metadata/review.py: who is listed, in which order, with what, and that the commands it offers run.

What the page does in a browser is tested in tests/browser.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pokefa.reporting.thumbnails import SIDE, small_picture

Ask = Callable[..., Any]


def text_of(root: Path, stage: str) -> str:
    return (root / f"metadata/review-{stage}.html").read_text(encoding="utf-8")


def page_of(root: Path, stage: str) -> dict[str, Any]:
    """Return what the page's script works with."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text_of(root, stage))
    assert found is not None
    page: dict[str, Any] = json.loads(found.group(1))
    return page


def listed(page: dict[str, Any]) -> list[str]:
    return [item["image_id"] for item in page["items"]]


def shown(page: dict[str, Any], item: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (caption, file) of an image's pictures."""
    return [(picture["caption"], page["paths"][picture["place"]]) for picture in item["pictures"]]


def words_of(action: dict[str, Any], *more: str) -> list[str]:
    python, *words = [*shlex.split(action["start"]), *more]
    assert python == "python"
    return words


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
    assert page["items"][1]["tags"] == [["rating:explicit", "0.97 (threshold 0.50)"]]
    assert [veiled(item) for item in page["items"]] == [[True]] * 3
    assert page["items"][0]["tags"] == [["tail", "0.99"], ["rating:explicit", "0.52 (threshold 0.50)"]]
    assert page["items"][1]["score"] == 0.97
    assert "1 was cleared before" in text_of(sample.root, "nsfw")
    assert '<body class="veiled" data-stage="nsfw">' in text_of(sample.root, "nsfw")


def test_limit_says_how_many_there_are(ask: Ask, sample: Any) -> None:
    flag(sample, "dull", "{}", "{}")
    ask("review", "--stage", "nsfw", "--limit", "1")
    assert len(page_of(sample.root, "nsfw")["items"]) == 1
    assert "2 images; the 1 closest to the threshold are here, more with --limit" in text_of(sample.root, "nsfw")


@pytest.mark.parametrize(
    ("stage", "name", "column"), [("nsfw", "nsfw", "nsfw_override"), ("ocr", "text", "ocr_override")]
)
def test_command_of_the_page_clears_the_image(
    ask: Ask, run_script: Ask, sample: Any, stage: str, name: str, column: str
) -> None:
    ask("review", "--stage", stage)
    page = page_of(sample.root, stage)
    assert listed(page) == [sample.ids[name]]
    finished = run_script(*words_of(page["actions"][0], *listed(page)))
    assert finished.code == 0, finished.stderr
    events = ask("history", sample.ids[name], "--json").summary["events"]
    assert any(event["cells"].get(column) == "unflagged" for event in events if event.get("cells"))
    ask("review", "--stage", stage)
    text = text_of(sample.root, stage)
    assert "Nothing is flagged." in text and "<script" not in text


def test_ocr_page_shows_before_and_after_and_the_boxes(ask: Ask, sample: Any) -> None:
    image_id = sample.ids["text"]
    points = [[10, 10], [90, 10], [90, 30], [10, 30]]
    boxes = {"width": 300, "height": 260, "polygons": [{"points": points, "score": 0.7}, {"points": [], "score": 0.9}]}
    (sample.root / "boxes.json").write_text(json.dumps(boxes))
    with sample.run("ocr_detect") as run:
        run.record(image_id, {"ocr_boxes_path": "boxes.json"})
    ask("review", "--stage", "ocr")
    page = page_of(sample.root, "ocr")
    (item,) = page["items"]
    assert item["says"] == "text covers 4.00%, confidence 0.90"
    assert item["score"] == 0.9
    before, after = item["pictures"]
    assert (before["boxes"], before["size"]) == ([points, []], [300, 260])
    assert "boxes" not in after
    assert [caption for caption, _ in shown(page, item)] == ["before", "after"]
    assert "veiled" not in text_of(sample.root, "ocr").split("<script")[0].split("<body")[1].split(">")[0]


def test_ocr_page_does_without_boxes(ask: Ask, sample: Any) -> None:
    (sample.root / "boxes.json").write_text('{"polygons": 3}')
    with sample.run("ocr_detect") as run:
        run.record(sample.ids["text"], {"ocr_boxes_path": "boxes.json"})
    ask("review", "--stage", "ocr")
    (item,) = page_of(sample.root, "ocr")["items"]
    assert (item["says"], item["score"]) == ("text covers 4.00%", None)


def test_a_doubtful_image_comes_first_with_its_mask(ask: Ask, run_script: Ask, sample: Any) -> None:
    waiting = sample.ids["waiting"]
    cells = {"has_ocr": True, "ocr_doubt": "large_mask", "ocr_area_frac": 0.2, "ocr_mask_path": "mask.png"}
    with sample.run("ocr_detect") as run:
        run.record(waiting, cells)
    ask("review", "--stage", "ocr")
    page = page_of(sample.root, "ocr")
    assert listed(page) == [waiting, sample.ids["text"]]
    item = page["items"][0]
    assert item["tags"] == [["doubtful: large mask", ""]]
    assert [caption for caption, _ in shown(page, item)] == ["before", "mask"]
    finished = run_script(*words_of(page["actions"][1], waiting))
    assert (finished.code, finished.summary["counts"]) == (0, {"paint": 1}), finished.stderr


def test_dup_page_shows_the_kept_one_and_others_of_the_group(ask: Ask, sample: Any) -> None:
    with sample.run("rm_dups") as run:
        values = {"dupe_group": sample.ids["good"], "dupe_rep_image": sample.ids["good"], "dupe_removed": True}
        run.record(sample.ids["dull"], {**values, "dupe_flag": "identical", "dupe_distance": 0})
    ask("review", "--stage", "dup")
    page = page_of(sample.root, "dup")
    assert listed(page) == [sample.ids["copy"], sample.ids["dull"]]  # 4 bits, 0 bits
    item = page["items"][0]
    assert item["says"] == "near, distance 4, decided by aesthetic"
    assert shown(page, item) == [
        ("removed", f"data_stage/resized/{sample.ids['copy']}.jpg"),
        ("kept", f"data_stage/resized/{sample.ids['good']}.jpg"),
    ]
    assert [mate["id"] for mate in item["mates"]] == [sample.ids["dull"]]
    assert len(page["pictures"]) == 3  # each file once, though the pairs share some


def test_dup_command_brings_back_what_the_threshold_no_longer_reaches(ask: Ask, run_script: Ask, sample: Any) -> None:
    root = ["--root", str(sample.root)]
    with sample.run("rm_dups", [*root, "--threshold", "5", "--linkage", "single", "--quiet"]) as run:
        run.record(sample.ids["copy"], {"dupe_keep_reason": "pixels"})
    ask("review", "--stage", "dup")
    action = page_of(sample.root, "dup")["actions"][0]
    assert (action["kind"], action["file"]) == ("threshold", None)
    assert shlex.split(action["start"])[-4:] == [*root, "--linkage", "single"]
    with sample.run("phash") as run:
        run.record(sample.ids["good"], {"phash64": "0123456789abcdef"})
        run.record(sample.ids["copy"], {"phash64": "0123456789abcde0"})  # 4 bits
    for threshold, back in ((3, True), (4, False)):
        finished = run_script(*words_of(action, "--threshold", str(threshold), "--dry-run"))
        assert finished.code == 0, finished.stderr
        assert (f"restore {sample.ids['copy']}\n" in finished.stdout) is back


def test_filter_page_sorts_by_missing_points_and_its_command_runs(ask: Ask, run_script: Ask, sample: Any) -> None:
    with sample.run("filter", ["--root", "elsewhere", "--min-aesthetic", "58", "--top-n=4", "--dry-run"]) as run:
        run.record(sample.ids["fakemon"], {"filter_decision": "beyond_top_n", "filter_rank": 5, "filter_score": 64.0})
        run.record(sample.ids["good"], {"filter_decision": "kept", "filter_rank": 4, "filter_score": 70.0})
    ask("review", "--stage", "filter")
    page = page_of(sample.root, "filter")
    assert [(item["image_id"], item["says"], item["score"]) for item in page["items"]] == [
        (sample.ids["fakemon"], "rank 5", 6.0),
        (sample.ids["dull"], "aesthetic 20 (needs 58)", 38.0),
    ]
    assert page["items"][1]["values"] == {"relevance": 95.0, "aesthetic": 20.0}
    gates, again = page["actions"]
    assert gates["settings"]["min_aesthetic"] == 58 and gates["settings"]["top_n"] == 4
    flags = ["--min-relevance", "60", "--min-aesthetic", "20", "--top-n", "9", "--dry-run"]
    finished = run_script(*words_of(gates, *flags))
    assert finished.code == 0, finished.stderr
    assert finished.summary["decisions"]["below_aesthetic"] == 0
    finished = run_script(*words_of(again, sample.ids["dull"], "--dry-run"))
    assert (finished.code, finished.summary["seen"]) == (0, 1), finished.stderr


def list_captions(sample: Any) -> None:
    lines = [f"{sample.ids['good']},wrong_length no_species", f"{sample.ids['text']},wrong_length"]
    (sample.root / "metadata/recap.csv").write_text("\n".join(["image_id,reasons", *lines, ""]))


def test_caption_page_lists_what_cap_filter_found_and_dropped(ask: Ask, run_script: Ask, sample: Any) -> None:
    list_captions(sample)
    with sample.run("cap_filter") as run:
        run.record(sample.ids["cleared"], {"drop_reason": "cap_filter:refusal_language"}, table="images")
    with (sample.root / "metadata/recap.csv").open("a") as stream:
        stream.write(f"{sample.ids['fakemon']},unknown_species no_species wrong_length\n")
    ask("review", "--stage", "caption")
    page = page_of(sample.root, "caption")
    assert {item["image_id"]: (item["says"], item["text"]) for item in page["items"]} == {
        sample.ids["text"]: ("wrong length", "A drawing, text."),
        sample.ids["cleared"]: ("dropped by cap_filter: refusal language", "A drawing, cleared."),
        sample.ids["good"]: ("wrong length, no species", "A drawing, good."),
        sample.ids["fakemon"]: (
            "dropped by species: unknown species, no species, wrong length",
            "A drawing, fakemon.",
        ),
    }
    assert listed(page)[2:] == [sample.ids["good"], sample.ids["fakemon"]]  # two faults, three faults
    assert [name for name, _ in page["items"][2]["tags"]] == ["wrong_length", "no_species"]
    finished = run_script(*words_of(page["actions"][0], *listed(page), "--dry-run"))
    assert (finished.code, finished.summary["seen"]) == (0, 4), finished.stderr


def test_caption_page_needs_the_caption_filter(ask: Ask) -> None:
    finished = ask("review", "--stage", "caption")
    assert finished.code == 2
    assert finished.stderr == "error: metadata/recap.csv is not there: run caption/cap_filter.py first\n"


def veiled(item: dict[str, Any]) -> list[bool]:
    return [each.get("veiled", False) for each in (*item["pictures"], *item["mates"])]


def test_images_flagged_by_a_later_screening_are_veiled_beside_a_duplicate(ask: Ask, sample: Any) -> None:
    with sample.run("rm_dups") as run:
        for name in ("text", "dull"):
            values = {"dupe_group": sample.ids["good"], "dupe_rep_image": sample.ids["good"], "dupe_distance": 5}
            run.record(sample.ids[name], {**values, "dupe_flag": "near", "dupe_removed": name == "dull"})
    ask("review", "--stage", "dup")
    page = page_of(sample.root, "dup")
    assert [veiled(item) for item in page["items"]] == [[False] * 4] * 2
    assert 'id="veil"' not in text_of(sample.root, "dup")
    for name in ("good", "text"):  # the kept one, and a mate
        flag(sample, name, "{}", "{}")
    ask("review", "--stage", "dup")
    page = page_of(sample.root, "dup")
    items = {item["image_id"]: item for item in page["items"]}
    assert set(items) == {sample.ids["copy"], sample.ids["dull"]}
    for item in items.values():
        mates = [mate["id"] for mate in item["mates"]]
        assert sample.ids["text"] in mates
        assert veiled(item) == [False, True, *(mate == sample.ids["text"] for mate in mates)]
    assert '<body class="veiled wide"' in text_of(sample.root, "dup")
    assert 'id="veil"' in text_of(sample.root, "dup")


def test_an_image_flagged_by_a_later_screening_is_none_to_let_in_or_to_caption(ask: Ask, sample: Any) -> None:
    list_captions(sample)
    flag(sample, "dull", "{}", "{}")
    flag(sample, "good", "{}", "{}")
    ask("review", "--stage", "filter")
    assert "Nothing is flagged." in text_of(sample.root, "filter")  # dull is the only one that a threshold left out
    ask("review", "--stage", "caption")
    assert listed(page_of(sample.root, "caption")) == [sample.ids["text"]]
    for stage, name in (("filter", "dull"), ("caption", "good")):
        assert sample.ids[name] not in text_of(sample.root, stage)


@pytest.mark.parametrize("stage", ["nsfw", "dup"])
def test_what_was_taken_down_is_not_shown(ask: Ask, sample: Any, stage: str) -> None:
    gone = sample.ids["nsfw" if stage == "nsfw" else "good"]
    with sample.run("takedown") as run:
        run.record(gone, {"drop_reason": "takedown:asked"})
    ask("review", "--stage", stage)
    text = text_of(sample.root, stage)
    assert f"{gone}." not in text  # no file of it
    if stage == "dup":
        (item,) = page_of(sample.root, stage)["items"]
        assert [picture["caption"] for picture in item["pictures"]] == ["removed"]


def test_second_run_writes_nothing(ask: Ask, sample: Any) -> None:
    assert ask("review", "--stage", "nsfw").summary["written"] is True
    assert ask("review", "--stage", "nsfw").summary["written"] is False


def test_the_policy_names_the_style_and_the_script_of_the_page(ask: Ask, sample: Any) -> None:
    ask("review", "--stage", "nsfw")
    text = text_of(sample.root, "nsfw")
    rules = html.unescape(re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)[0])
    style, script = (
        base64.b64encode(hashlib.sha256(re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[0].encode()).digest())
        for tag in ("style", "script")
    )
    assert rules == (
        f"default-src 'none'; img-src data: file: 'self'; style-src 'sha256-{style.decode()}'; "
        f"script-src 'sha256-{script.decode()}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.findall(r"<[^>]*\s(?:style|on\w+)=", text)


def test_text_of_strangers_is_escaped(ask: Ask, sample: Any) -> None:
    with sample.run("scrape") as run:
        run.record(sample.ids["nsfw"], {"species": '"></script><script>alert(1)</script>'})
    ask("review", "--stage", "nsfw")
    assert text_of(sample.root, "nsfw").count("<script") == 2  # the data and the page's own
    assert page_of(sample.root, "nsfw")["items"][0]["species"] == '"></script><script>alert(1)</script>'


def test_command_is_for_the_top_of_the_checkout_wherever_the_page_was_made(
    ask: Ask, sample: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metadata.review import main

    monkeypatch.chdir(sample.root)
    assert main(["--stage", "nsfw"]) == 0
    assert page_of(sample.root, "nsfw")["actions"][0]["start"] == (
        f"python preprocess/nsfw/nsfw_unflag.py --root {sample.root} --ids"
    )


@pytest.mark.parametrize("size", [(2400, 1800), (300, 200), (100, 40), (900, 20)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_small_picture_has_the_shape_and_the_colours(tmp_path: Path, size: tuple[int, int], kind: str) -> None:
    image = Image.new("RGB", size, (200, 40, 40))
    image.paste((40, 40, 200), (0, 0, size[0] // 2, size[1]))
    image.save(tmp_path / "picture", kind, quality=95)
    small = Image.open(io.BytesIO(base64.b64decode(small_picture(tmp_path, "picture"))))
    scale = min(1, SIDE / max(size))
    assert small.format == "WEBP"
    assert abs(small.width - size[0] * scale) <= 1 and abs(small.height - size[1] * scale) <= 1
    for x, wanted in ((0.1, (40, 40, 200)), (0.9, (200, 40, 40))):
        pixel = small.convert("RGB").getpixel((int(small.width * x), small.height // 2))
        assert isinstance(pixel, tuple)
        assert max(abs(one - other) for one, other in zip(pixel, wanted, strict=True)) < 30


def test_a_picture_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    assert small_picture(tmp_path, "text.jpg") == "!not_an_image"
    assert small_picture(tmp_path, "none.jpg") == "!missing_file"


def test_unknown_stage_is_refused(ask: Ask) -> None:
    finished = ask("review", "--stage", "score")
    assert finished.code == 2
    assert "argument --stage: invalid choice: 'score'" in finished.stderr
