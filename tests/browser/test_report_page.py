"""The report in a real browser, and what the policy of the pages keeps out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pokefa.reporting.figures import BLUE
from tests.conftest import run_command
from tests.metadata.conftest import build

# What a page would hold if a stranger's text ever came into it unescaped.
HOSTILE = """
<p id="hostile" style="position: fixed">text</p>
<style>h1 { display: none }</style>
<script>document.title = "taken over"</script>
<img src="data:," onerror="document.title = 'taken over'" alt="">
<form action="https://example.org/"><button id="send">Send</button></form>
<base href="https://example.org/">
"""

COLOURS_AND_FONT = """element => {
  const style = getComputedStyle(element);
  return {fill: style.fill, color: style.color, font: style.fontFamily};
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report and a review page of one small dataset."""
    root = tmp_path_factory.mktemp("pages") / "dataset"
    build(root)
    for words in (["metadata/report.py"], ["metadata/review.py", "--stage", "nsfw"]):
        finished = run_command([*words, "--root", str(root)])
        assert finished.code == 0, finished.stderr
    return root / "metadata"


def test_the_report_has_its_style_its_figures_and_its_pictures(window: Any, pages: Path) -> None:
    page = window.new_page()
    page.goto((pages / "report.html").as_uri())
    assert page.evaluate("getComputedStyle(document.querySelector('.numbers')).display") == "grid"
    red, green, blue = (int(BLUE[at : at + 2], 16) for at in (1, 3, 5))
    drawn = page.eval_on_selector_all("svg path[clip-path]", "all => all.map(each => getComputedStyle(each).fill)")
    assert f"rgb({red}, {green}, {blue})" in drawn
    text, body = (page.eval_on_selector(one, COLOURS_AND_FONT) for one in ("svg text", "body"))
    assert (text["fill"], text["font"]) == (body["color"], body["font"])
    for picture in page.locator("img").all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


@pytest.mark.parametrize("name", ["report.html", "review-nsfw.html"])
def test_what_a_stranger_might_bring_in_does_not_run(chromium: Any, pages: Path, tmp_path: Path, name: str) -> None:
    text = (pages / name).read_text(encoding="utf-8")
    hostile = tmp_path / name
    hostile.write_text(text.replace("</body>", f"{HOSTILE}</body>"), encoding="utf-8")
    page = chromium.new_context(offline=True).new_page()
    page.add_init_script(
        "violated = new Set();"
        "addEventListener('securitypolicyviolation', event => violated.add(event.effectiveDirective), true)"
    )
    page.goto(hostile.as_uri())
    title = text.partition("<title>")[2].partition("</title>")[0]
    assert page.title() == title
    assert page.evaluate("document.baseURI") == hostile.as_uri()
    assert page.evaluate("getComputedStyle(document.getElementById('hostile')).position") == "static"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).display") == "block"
    page.evaluate("document.getElementById('send').click()")
    # Not wait_for_function: it evaluates its text in the page, which is one more violation.
    while page.evaluate("violated.size") < 6:
        page.wait_for_timeout(50)
    assert page.url == hostile.as_uri()
    assert set(page.evaluate("[...violated]")) == {
        "style-src-attr", "style-src-elem", "script-src-elem", "script-src-attr", "form-action", "base-uri"
    }  # fmt: skip
    page.context.close()
