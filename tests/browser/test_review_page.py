"""The review page in a real browser: ticks, ranges, undo, reload, filters, copying, saving, blurring, 5,000 images."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import MISSING, SPECIES, draw, find_chromium, image_id, write_flagged

OpenPage = Callable[..., Any]


def cell(page: Any, one: str) -> Any:
    return page.locator(f'[data-id="{one}"]')


def tick(page: Any, one: str, **how: Any) -> None:
    cell(page, one).locator(".name").click(**how)


def ticked(page: Any) -> list[str]:
    """Return the ids that the page keeps for a reload."""
    return json.loads(page.evaluate("localStorage.getItem(`pokefa review ${location.pathname}`)") or "[]")


def marked(page: Any) -> list[str]:
    """Return the ids of the images that are drawn as ticked."""
    return page.eval_on_selector_all('[aria-selected="true"]', "cells => cells.map(cell => cell.dataset.id)")


def listed(page: Any) -> list[str]:
    return page.eval_on_selector_all("[role=gridcell]", "cells => cells.map(cell => cell.dataset.id)")


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.dataset.id")


def copied(page: Any) -> list[str]:
    page.get_by_role("button", name="Copy command").click()
    page.get_by_text("Copied.").wait_for()
    return shlex.split(page.evaluate("navigator.clipboard.readText()"))


def test_a_click_ticks_and_another_takes_it_back(dataset: Any, flagged: list[str], open_page: OpenPage) -> None:
    page = open_page(dataset.root, "nsfw")
    assert listed(page)[:10] == flagged[:10]
    tick(page, flagged[2])
    tick(page, flagged[4])
    assert marked(page) == ticked(page) == [flagged[2], flagged[4]]
    assert page.locator("#count").inner_text() == "2 selected"
    tick(page, flagged[2])
    assert marked(page) == ticked(page) == [flagged[4]]


def test_shift_and_a_click_tick_the_range_and_undo_takes_it_back(
    dataset: Any, flagged: list[str], open_page: OpenPage
) -> None:
    page = open_page(dataset.root, "nsfw")
    tick(page, flagged[7])
    tick(page, flagged[1])
    tick(page, flagged[5], modifiers=["Shift"])
    assert ticked(page) == [*flagged[1:6], flagged[7]]
    tick(page, flagged[3], modifiers=["Shift"])  # the same range, made smaller
    assert ticked(page) == [*flagged[1:4], flagged[7]]
    page.keyboard.press("Control+z")
    assert ticked(page) == [flagged[1], flagged[7]]
    page.get_by_role("button", name="Undo").click()
    assert ticked(page) == [flagged[7]]
    page.keyboard.press("Control+z")
    assert ticked(page) == []
    assert page.get_by_role("button", name="Undo").is_disabled()


def test_a_range_from_an_image_that_was_unticked_unticks(dataset: Any, flagged: list[str], open_page: OpenPage) -> None:
    page = open_page(dataset.root, "nsfw")
    page.get_by_role("button", name="Select all shown").click()
    tick(page, flagged[2])
    tick(page, flagged[6], modifiers=["Shift"])
    assert ticked(page) == [*flagged[:2], *flagged[7:]]


def test_the_keyboard_alone_is_enough(dataset: Any, flagged: list[str], open_page: OpenPage) -> None:
    page = open_page(dataset.root, "nsfw")
    columns = int(page.locator("#grid").get_attribute("aria-colcount"))
    page.locator("[role=gridcell]").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert ticked(page) == [flagged[1]]
    page.keyboard.press("ArrowDown")
    assert focused(page) == flagged[1 + columns]
    page.keyboard.press("Shift+Space")  # from the last that was ticked
    assert ticked(page) == flagged[1 : 2 + columns]
    page.keyboard.press("u")
    page.keyboard.press("End")
    assert focused(page) == flagged[-1]
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowRight")
    assert ticked(page) == [flagged[1], *flagged[-2:]]
    page.keyboard.press("Control+a")
    assert ticked(page) == flagged
    page.keyboard.press("Control+z")
    page.keyboard.press("Home")
    assert focused(page) == flagged[0]
    assert ticked(page) == [flagged[1], *flagged[-2:]]
    page.keyboard.press("Tab")  # the grid is one stop: out of it, to the buttons below
    assert page.evaluate("document.activeElement.id") == "undo"


def test_ticks_survive_a_reload_a_new_window_and_a_new_page(
    dataset: Any, flagged: list[str], open_page: OpenPage
) -> None:
    page = open_page(dataset.root, "nsfw")
    tick(page, flagged[0])
    tick(page, flagged[3])
    page.reload()
    page.wait_for_selector("[role=gridcell]")
    assert marked(page) == [flagged[0], flagged[3]]
    page.close()
    assert dataset.run("preprocess/nsfw/nsfw_unflag.py", "--ids", flagged[0]).code == 0
    assert dataset.run("metadata/review.py", "--stage", "nsfw").summary["seen"] == 39
    page = open_page(dataset.root, "nsfw")
    assert marked(page) == [flagged[3]]
    assert page.locator("#count").inner_text() == "1 selected"


def test_two_windows_show_the_same_ticks(dataset: Any, flagged: list[str], open_page: OpenPage) -> None:
    page, other = open_page(dataset.root, "nsfw"), open_page(dataset.root, "nsfw")
    tick(page, flagged[0])
    expect(other.locator("[aria-selected=true]")).to_have_count(1)
    tick(other, flagged[2])
    expect(page.locator("[aria-selected=true]")).to_have_count(2)
    assert ticked(page) == [flagged[0], flagged[2]]


def test_filters_by_species_tag_score_and_id(dataset: Any, flagged: list[str], open_page: OpenPage) -> None:
    page = open_page(dataset.root, "nsfw")
    tick(page, flagged[0])
    page.get_by_label("Species").select_option("Eevee")
    assert listed(page) == flagged[1::4]
    page.get_by_label("Tag").select_option("rating:explicit")
    assert page.get_by_text("No image fits the filters.").is_visible()
    page.get_by_role("button", name="Reset filters").click()
    page.get_by_label("from").fill("0.7")
    page.get_by_label("to", exact=True).fill("0.75")
    assert listed(page) == flagged[20:26]
    assert page.locator("#count").inner_text() == "1 selected, 1 of them filtered out"
    page.get_by_role("button", name="Select all shown").click()
    assert ticked(page) == [flagged[0], *flagged[20:26]]
    page.get_by_role("button", name="Reset filters").click()
    page.get_by_label("Id begins with").fill(flagged[9][:8])
    assert listed(page) == [flagged[9]]
    page.get_by_role("button", name="Reset filters").click()
    page.get_by_label("selected only").check()
    assert listed(page) == [flagged[0], *flagged[20:26]]


def test_the_copied_command_clears_the_ticked_images(
    dataset: Any, run_script: Callable[..., Any], flagged: list[str], open_page: OpenPage
) -> None:
    page = open_page(dataset.root, "nsfw")
    tick(page, flagged[8])
    tick(page, flagged[1])
    words = copied(page)
    assert words == [
        *("python", "preprocess/nsfw/nsfw_unflag.py", "--root", str(dataset.root), "--ids", flagged[1], flagged[8])
    ]
    assert run_script(*words[1:]).code == 0
    assert [row["nsfw_override"] for row in dataset.rows("images")].count("unflagged") == 2


def test_a_command_of_many_ids_is_copied_whole(dataset: Any, flagged: list[str], open_page: OpenPage) -> None:
    page = open_page(dataset.root, "nsfw")
    page.get_by_role("button", name="Select all shown").click()
    assert page.locator("#command").inner_text().endswith(f"{flagged[11]} … (40 ids; the button copies all)")
    assert copied(page)[5:] == flagged


def test_a_browser_without_a_clipboard_shows_the_command_to_copy(
    dataset: Any, flagged: list[str], open_page: OpenPage
) -> None:
    page = open_page(dataset.root, "nsfw")
    page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('denied')))")
    tick(page, flagged[0])
    page.get_by_role("button", name="Copy command").click()
    field = page.locator("footer textarea")
    assert shlex.split(field.input_value())[-1] == flagged[0]
    assert page.evaluate("getSelection().toString()") == field.input_value()


def test_the_saved_ids_work_with_nsfw_unflag(
    dataset: Any, flagged: list[str], open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(dataset.root, "nsfw")
    tick(page, flagged[6])
    tick(page, flagged[9], modifiers=["Shift"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Save ids").click()
    assert download.value.suggested_filename == "review-nsfw-ids.txt"
    assert (
        page.locator("#said")
        .inner_text()
        .endswith(f"python preprocess/nsfw/nsfw_unflag.py --root {dataset.root} --ids-file review-nsfw-ids.txt")
    )
    saved = tmp_path / "review-nsfw-ids.txt"
    download.value.save_as(saved)
    finished = dataset.run("preprocess/nsfw/nsfw_unflag.py", "--ids-file", saved)
    assert (finished.code, finished.summary["counts"]) == (0, {"unflagged": 4}), finished.stderr
    cleared = [one for one, row in dataset.images().items() if row["nsfw_override"] == "unflagged"]
    assert cleared == flagged[6:10]


def blur_of(page: Any, one: str) -> str:
    return page.eval_on_selector(f'[data-id="{one}"] img', "image => getComputedStyle(image).filter")


def test_nsfw_pictures_are_blurred_until_asked_for(dataset: Any, flagged: list[str], open_page: OpenPage) -> None:
    page = open_page(dataset.root, "nsfw")
    assert all("blur(14px)" in blur_of(page, one) for one in flagged[:3])
    cell(page, flagged[0]).get_by_text("Unblur", exact=True).click()
    assert [blur_of(page, one) == "none" for one in flagged[:3]] == [True, False, False]
    assert ticked(page) == []
    page.keyboard.press("ArrowRight")
    page.keyboard.press("b")
    assert [blur_of(page, one) == "none" for one in flagged[:3]] == [True, True, False]
    page.get_by_role("button", name="Unblur all").click()
    assert blur_of(page, flagged[2]) == "none"
    page.get_by_role("button", name="Blur all").click()
    assert [blur_of(page, one) == "none" for one in flagged[:3]] == [False, False, False]
    page.get_by_role("button", name="Unblur all").click()
    page.reload()
    page.wait_for_selector("[role=gridcell]")
    assert "blur(14px)" in blur_of(page, flagged[0])


def test_only_flagged_ones_are_blurred_beside_a_duplicate(dataset: Any, open_page: OpenPage) -> None:
    write_later_stages(dataset, flagged=3)
    dataset.run("metadata/review.py", "--stage", "dup")
    page = open_page(dataset.root, "dup")
    assert listed(page) == [image_id(1), image_id(2)]

    def blurred(where: str) -> list[bool]:
        script = "images => images.map(image => getComputedStyle(image).filter !== 'none')"
        return page.eval_on_selector_all(f"{where} img", script)

    one = f'[data-id="{image_id(1)}"]'
    assert blurred(one) == [False, False, True, False]  # removed, kept, and the mates: the closest first
    cell(page, image_id(1)).get_by_text("Unblur", exact=True).click()
    assert blurred(one) == [False] * 4
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    assert blurred("dialog") == [False, False, True, False]
    page.get_by_role("dialog").get_by_role("button", name="Unblur", exact=True).click()
    assert blurred("dialog") == [False] * 4


def test_enter_opens_the_file_itself_still_blurred(dataset: Any, flagged: list[str], open_page: OpenPage) -> None:
    page = open_page(dataset.root, "nsfw")
    page.locator("[role=gridcell]").first.focus()
    page.keyboard.press("Enter")
    large = page.get_by_role("dialog")
    picture = large.locator("img")
    assert picture.get_attribute("src") == "../data_raw/00000.png"
    assert "blur" in picture.evaluate("image => getComputedStyle(image).filter")
    page.keyboard.press("b")
    assert picture.evaluate("image => getComputedStyle(image).filter") == "none"
    expect(page.locator("dialog img")).to_have_js_property("naturalWidth", 120)
    page.keyboard.press("ArrowRight")
    assert large.get_by_role("heading").inner_text() == "Eevee, score 0.510 (2 of 40)"
    page.keyboard.press("Space")
    assert ticked(page) == [flagged[1]]
    page.keyboard.press("Escape")
    # The dialog gives the focus back to where it was, and its close event, a moment later, to where the reader went.
    expect(page.locator(f"[data-id='{flagged[1]}']")).to_be_focused()


def test_a_page_away_from_its_dataset_shows_the_small_picture(
    dataset: Any, flagged: list[str], open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "metadata").mkdir()
    (dataset.root / "metadata/review-nsfw.html").rename(tmp_path / "metadata/review-nsfw.html")
    page = open_page(tmp_path, "nsfw")
    page.locator("[role=gridcell]").first.focus()
    with page.expect_event("requestfailed"):
        page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('dialog img').src.startsWith('data:image/webp')")


def write_later_stages(dataset: Any, flagged: int | None = None) -> None:
    """Write a ledger of four images: text in 0, which is also the kept one of 1, 2 and 3; `flagged` is NSFW by now."""
    rows: list[dict[str, object]] = []
    for number, (distance, aesthetic) in enumerate([("", 90), (6, 41), (3, 55), (0, 58)]):
        picture = f"data_raw/a b#{number}.png"
        draw(dataset.root / picture, number)
        removed = number > 0
        rows.append(
            {
                "image_id": image_id(number), "species": SPECIES[number], "path_raw": picture, "path_resized": picture,
                "is_nsfw": str(number == flagged), "has_ocr": str(not removed),
                "ocr_boxes_path": "" if removed else "boxes.json",
                "ocr_inpainted_path": "" if removed else picture, "ocr_area_frac": 0.2, "dupe_removed": str(removed),
                "dupe_group": image_id(0), "dupe_rep_image": image_id(0), "dupe_distance": distance,
                "dupe_flag": "near" if removed else "kept", "ae_relevance": 80, "ae_aesthetic": aesthetic,
                "filter_decision": "below_aesthetic" if removed else "kept",
                "filter_rank": "" if removed else 1, "filter_score": "" if removed else 80.0,
            }
        )  # fmt: skip
    box = {"points": [[12, 9], [60, 9], [60, 45], [12, 45]], "score": 0.8}
    (dataset.root / "boxes.json").write_text(json.dumps({"width": 120, "height": 90, "polygons": [box]}))
    dataset.write_images(rows)
    settings = {"min_relevance": 60, "min_aesthetic": 60, "top_n": 16000, "per_species_floor": 0}
    journal = dataset.root / "metadata/runs/20261122T100000000Z-filter-0a1b2c.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text(json.dumps({"stage": "filter", "settings": settings, "repeat": {}, "once": []}) + "\n")


def test_boxes_lie_over_the_text_and_can_be_hidden(dataset: Any, open_page: OpenPage) -> None:
    write_later_stages(dataset)
    dataset.run("metadata/review.py", "--stage", "ocr")
    page = open_page(dataset.root, "ocr")
    picture = page.locator(".frame img").first.bounding_box()
    x, y, width, height = page.eval_on_selector(
        "polygon",
        """shape => {
            const [place, box] = [shape.getScreenCTM(), shape.getBBox()];
            return [place.a * box.x + place.e, place.d * box.y + place.f, place.a * box.width, place.d * box.height];
        }""",
    )
    scale = min(picture["width"] / 120, picture["height"] / 90)  # the picture is as large as its frame lets it be
    left = picture["x"] + (picture["width"] - 120 * scale) / 2
    top = picture["y"] + (picture["height"] - 90 * scale) / 2
    assert (x, y) == pytest.approx((left + 12 * scale, top + 9 * scale), abs=1)
    assert (width, height) == pytest.approx((48 * scale, 36 * scale), abs=1)
    page.get_by_role("button", name="Boxes").click()
    assert not page.locator("polygon").is_visible()


def test_duplicates_show_the_group_and_give_the_threshold(dataset: Any, open_page: OpenPage) -> None:
    write_later_stages(dataset)
    dataset.run("metadata/review.py", "--stage", "dup")
    page = open_page(dataset.root, "dup")
    assert listed(page) == [image_id(number) for number in (1, 2, 3)]
    assert page.locator("figcaption").all_inner_texts() == ["removed", "kept"] * 3
    assert cell(page, image_id(1)).locator(".mates img").count() == 2
    tick(page, image_id(1))
    start = ["python", "preprocess/dup/rm_dups.py", "--root", str(dataset.root)]
    assert copied(page) == [*start, "--threshold", "5", "--dry-run"]
    tick(page, image_id(2))
    assert copied(page) == [*start, "--threshold", "2", "--dry-run"]
    assert "2 images on this page are farther than 2 bits" in page.locator("#note").inner_text()
    tick(page, image_id(3))
    assert page.get_by_role("button", name="Copy command").is_disabled()
    assert "no threshold keeps them apart" in page.locator("#note").inner_text()


def test_left_out_images_give_the_gates_or_another_score(dataset: Any, open_page: OpenPage) -> None:
    write_later_stages(dataset)
    dataset.run("metadata/review.py", "--stage", "filter")
    page = open_page(dataset.root, "filter")
    assert listed(page) == [image_id(number) for number in (3, 2, 1)]  # 2, 5 and 19 points missing
    tick(page, image_id(2))
    root = ["--root", str(dataset.root)]
    gates = ["--min-relevance", "60", "--min-aesthetic", "55", "--top-n", "16000", "--dry-run"]
    assert copied(page) == ["python", "preprocess/filter/filter.py", *root, *gates]
    page.get_by_label("Action").select_option("score them again")
    assert copied(page) == ["python", "preprocess/score/score.py", *root, "--redo", "--ids", image_id(2)]


def test_5000_images_keep_the_document_small_and_the_last_in_reach(dataset: Any, open_page: OpenPage) -> None:
    ids = write_flagged(dataset, 5000, files=500)
    finished = dataset.run("metadata/review.py", "--stage", "nsfw")
    assert finished.summary["done"] == 5000
    page = open_page(dataset.root, "nsfw")

    def nodes() -> int:
        return int(page.evaluate("document.querySelectorAll('*').length"))

    assert page.locator("#grid").get_attribute("aria-rowcount") == str(
        -(-5000 // int(page.locator("#grid").get_attribute("aria-colcount")))
    )
    assert nodes() < 1000
    page.locator("[role=gridcell]").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("End")
    assert focused(page) == ids[-1]
    assert nodes() < 1000
    page.keyboard.press("Shift+Space")
    assert page.locator("#count").inner_text() == "5,000 selected"
    assert copied(page)[5:] == ids
    page.keyboard.press("Control+z")
    assert ticked(page) == [ids[0]]
    page.mouse.move(600, 400)
    page.evaluate("document.getElementById('grid').scrollIntoView({block: 'center'})")
    middle = ids[2500]
    page.wait_for_selector(f'[data-id="{middle}"]')
    page.wait_for_function(f"document.querySelector('[data-id=\"{middle}\"] img').naturalWidth > 0")
    assert nodes() < 1000


def test_a_phone_shows_nothing_beyond_its_edge(chromium: Any, dataset: Any, flagged: list[str]) -> None:
    page = chromium.new_page(viewport={"width": 360, "height": 740}, has_touch=True)
    page.goto((dataset.root / "metadata/review-nsfw.html").as_uri())
    page.wait_for_selector("[role=gridcell]")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.locator(f'[data-id="{flagged[1]}"] .name').tap()
    assert marked(page) == [flagged[1]]
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(chromium: Any, dataset: Any, flagged: list[str], scheme: str) -> None:
    """WCAG 2.2 asks for a contrast of 4.5 to 1."""
    page = chromium.new_page(color_scheme=scheme)
    page.goto((dataset.root / "metadata/review-nsfw.html").as_uri())
    page.wait_for_selector("[role=gridcell]")
    tick(page, flagged[0])
    grounds = {
        "body": ("#shown", "header p"),
        ".image": (".name", ".tags", ".foot code"),
        "footer": ("#count", "#note"),
    }
    pairs = [(text, ground) for ground, texts in grounds.items() for text in texts]
    pairs += [(each, each) for each in ("#copy", "#command", "#veil", "#undo")]
    for text, ground in pairs:
        colours = page.evaluate(
            "([text, ground]) => [getComputedStyle(document.querySelector(text)).color,"
            " getComputedStyle(document.querySelector(ground)).backgroundColor]",
            [text, ground],
        )
        assert contrast(*colours) >= 4.5, (text, colours)
    page.close()


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours written as rgb(r, g, b), as WCAG defines it."""
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_browser_is_found_by_its_variable_or_the_tests_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("POKEFA_CHROMIUM", raising=False)
    assert find_chromium() is None
    assert "apt-get install chromium" in MISSING
    named = tmp_path / "browser"
    monkeypatch.setenv("POKEFA_CHROMIUM", str(named))
    with pytest.raises(FileNotFoundError, match="POKEFA_CHROMIUM names"):
        find_chromium()
    named.touch()
    assert find_chromium() == str(named)
