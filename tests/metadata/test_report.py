"""metadata/report.py: the page's content, that it stands alone, and that it is the same for the same ledger."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from metadata.figures import bars
from metadata.funnel import read_tables
from metadata.journals import flag_value, read_runs
from metadata.pages import Thumbnail, thumbnail
from metadata.report import TILE_SIDE, build_page, count_sizes, web_address
from pokefa.ledger import Ledger

Ask = Callable[..., Any]
CHECKOUT = Path(__file__).resolve().parents[2]
VOID = {"meta", "img", "br", "input", "link", "path", "use"}


class Page(HTMLParser):
    """Elements of a page with their attributes; fails on an end tag that closes nothing."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def report_of(sample: Any, most_tiles: int = 60) -> str:
    """Return the page that the dataset has now."""
    return build_page(read_tables(Ledger.open(sample.root)), read_runs(sample.root), sample.root, most_tiles)


def tile_of(page: str, image_id: str) -> str:
    return page[page.index(f'id="i{image_id}"') :].split("</figure>")[0]


@pytest.fixture(scope="session")
def with_quotas(finished_sample: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The dataset with quotas; not to be changed."""
    sample = finished_sample.copy_to(tmp_path_factory.mktemp("report") / "dataset")
    (sample.root / "quotas").mkdir()
    shutil.copy(CHECKOUT / "quotas/quotas.csv", sample.root / "quotas/quotas.csv")
    return sample


@pytest.fixture(scope="session")
def page(with_quotas: Any) -> str:
    return report_of(with_quotas)


def test_same_ledger_same_bytes_and_no_second_write(ask: Ask, sample: Any) -> None:
    path = sample.root / "metadata/report.html"
    finished = ask("report")
    assert finished.code == 0, finished.stderr
    assert (finished.summary["path"], finished.summary["written"]) == ("metadata/report.html", True)
    written = path.stat()
    again = ask("report")
    assert (again.summary["written"], again.summary["bytes"]) == (False, written.st_size)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert path.read_text(encoding="utf-8") == report_of(sample)


def test_page_stands_alone(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in parsed.all("img"))
    assert not parsed.all("link") and not parsed.all("script")
    ids = [attributes["id"] for _, attributes in parsed.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(link["href"])[1:] for link in parsed.all("a") if str(link["href"]).startswith("#")}
    assert targets and targets <= set(ids)


def test_every_picture_is_described(page: str) -> None:
    parsed = Page(page)
    assert all(image.get("alt") for image in parsed.all("img"))
    described = [svg.get("aria-label") for svg in parsed.all("svg")]
    assert len(described) == 8 and all(described)
    assert "Filter decisions: kept 4, below_aesthetic 1, duplicate 1, error 1, not_scored 1, nsfw 1" in described
    assert (
        "Images left out: nsfw_filter: failed 1, nsfw_filter: nsfw 1, rm_dups: near 1, filter: below_aesthetic 1, "
        "species: no_known_species 1"
    ) in described
    funnel = next(text for text in described if text and text.startswith("Images that reached"))
    assert funnel.endswith(
        "downloaded 9, screened, not NSFW 7, text settled 7, resized 7, scored 6, no duplicate 5, "
        "kept by the filter 4, captioned 3, in train or val 3"
    )


def test_gates_are_those_of_the_last_filter_run(page: str) -> None:
    assert "gate 55</text>" in page  # from its arguments
    assert "gate 60</text>" in page  # the filter's own default


def test_figures_suit_a_dark_page(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert "currentColor" in svg
        assert "#ffffff" not in svg and "#010203" not in svg and "#000000" not in svg


def test_flagged_and_unscreened_images_are_veiled(with_quotas: Any, page: str) -> None:
    root, ids = with_quotas.root, with_quotas.ids
    raw = next(root.glob(f"data_raw/*/*/{ids['nsfw']}.jpg"))
    assert thumbnail(raw, TILE_SIDE, veiled=True).uri in tile_of(page, ids["nsfw"])
    assert thumbnail(raw, TILE_SIDE).uri not in page
    assert thumbnail(root / f"data_stage/resized/{ids['dull']}.jpg", TILE_SIDE).uri in tile_of(page, ids["dull"])
    assert "no picture:<br>truncated" in tile_of(page, ids["broken"])


def test_veil_leaves_a_few_blocks(tmp_path: Path) -> None:
    Image.effect_noise((240, 160), 200).save(tmp_path / "noise.png")
    veiled = decoded(thumbnail(tmp_path / "noise.png", 120, veiled=True))
    assert veiled.size == (120, 80)
    blocks = veiled.resize((8, 5), Image.Resampling.NEAREST).resize((120, 80), Image.Resampling.NEAREST)
    assert max(high for _, high in ImageChops.difference(veiled, blocks).getextrema()) < 12  # what JPEG blurs


def decoded(thumb: Thumbnail) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(thumb.uri.partition(",")[2])))


def test_text_of_strangers_is_escaped(sample: Any) -> None:
    script = "<script>alert(1)</script>"
    with sample.run("scrape") as run:
        values = {"species": script, "source_page": "javascript:alert(1)", "source_url": 'https://x/"><b>'}
        run.record(sample.ids["good"], values)
    page = report_of(sample)
    assert "<script" not in page and "javascript:" not in page and '"><b>' not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_coverage_counts_the_bands(page: str) -> None:
    row = re.search(r'<td class="name">001-150</td>(.*?)</tr>', page, re.DOTALL)
    assert row is not None
    assert re.findall(r">(\d+)</td>", row.group(1)) == ["150", "3", "12000", "9", "3"]


def test_stand_in_is_told_by_the_mark(sample: Any, page: str) -> None:
    assert "Made with stand-ins" not in page
    (sample.root / "demo").mkdir()
    (sample.root / "demo/standin.txt").write_text("a demo")
    assert "Seen in: demo/standin.txt." in report_of(sample)


def test_stand_in_is_told_by_a_model(sample: Any) -> None:
    with sample.run("score") as run:
        run.record(sample.ids["good"], {"ae_model": "pixel-rules-stand-in v1"})
    assert "Seen in: ae_model pixel-rules-stand-in v1." in report_of(sample)


def test_taken_down_image_is_not_shown(sample: Any) -> None:
    with sample.run("takedown") as run:
        run.record(sample.ids["good"], {"drop_reason": "takedown:asked"}, drop="asked")
    tile = tile_of(report_of(sample), sample.ids["good"])
    assert "no picture:<br>taken down" in tile and "<img" not in tile


def test_fresh_ledger_has_a_report_too(run_script: Ask, dataset: Any) -> None:
    dataset.write_images([{"image_id": "a" * 32, "species": "Eevee", "path_raw": "data_raw/none.jpg"}])
    finished = run_script("metadata/report.py", "--root", dataset.root)
    assert finished.code == 0, finished.stderr
    page = (dataset.root / "metadata/report.html").read_text(encoding="utf-8")
    for sentence in (
        "No image has been left out.", "No image has been scored yet.", "There is no quotas/quotas.csv",
        "No text has been painted over.",
    ):  # fmt: skip
        assert sentence in page


def test_damaged_quotas_are_one_line(ask: Ask, sample: Any) -> None:
    (sample.root / "quotas").mkdir()
    (sample.root / "quotas/quotas.csv").write_text("rank,name\none,Eevee\n")
    finished = ask("report")
    assert finished.code == 2
    assert re.fullmatch(
        r"error: quotas/quotas.csv cannot be read \(.*\): run quotas/allocate.py again\n", finished.stderr
    )


def test_number_of_thumbnails_is_limited_and_checked(ask: Ask, sample: Any) -> None:
    assert report_of(sample, most_tiles=1).count('<figure class="tile"') == 2
    finished = ask("report", "--thumbnails", "0")
    assert finished.code == 2
    assert "argument --thumbnails: '0' is not a whole number of 1 or more" in finished.stderr


def test_figure_is_a_function_of_its_numbers() -> None:
    one = bars("x", 'say "hi" & go', [("a<b", 3), ("c", 0)], total=4)
    assert one == bars("x", 'say "hi" & go', [("a<b", 3), ("c", 0)], total=4)
    assert 'aria-label="say &quot;hi&quot; &amp; go"' in one
    assert "3 (75%)" in one and "0 (0%)" in one and "a&lt;b" in one


def test_thumbnail_is_small_and_names_what_it_cannot_open(tmp_path: Path) -> None:
    Image.new("RGBA", (400, 200), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    thumb = thumbnail(tmp_path / "clear.png", 100)
    shown = decoded(thumb)
    assert (thumb.width, thumb.height, shown.size, shown.getpixel((5, 5))) == (100, 50, (100, 50), (255, 255, 255))
    assert thumbnail(tmp_path / "none.png", 100).problem == "missing_file"


def test_small_helpers() -> None:
    assert flag_value(["--min-aesthetic", "50", "--min-aesthetic=70"], "--min-aesthetic") == "70"
    assert flag_value(["--min-aesthetic"], "--min-aesthetic") is None
    assert web_address("javascript:alert(1)") == web_address(None) == ""
    assert count_sizes([0, 0.49, 0.5, 1.0, 12.0]) == [2, 1, 1, 0, 0, 0, 1]
