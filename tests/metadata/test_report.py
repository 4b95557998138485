"""metadata/report.py: the page's content, that it stands alone, and that it is the same for the same ledger."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import shutil
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from metadata.report import build_page, spoken_time
from pokefa.ledger.runs import read_runs
from pokefa.ledger.tables import Ledger
from pokefa.reporting.contact_sheet import PAIR_SIDE, TILE_SIDE, contact_sheets, web_address
from pokefa.reporting.figures import bars
from pokefa.reporting.section_parts import classes, count_sizes, size_names
from pokefa.reporting.sections import SCORE_EDGES, domain_section, text_section
from pokefa.reporting.thumbnails import Thumbnail, thumbnail
from pokefa.stage.funnel import read_tables
from pokefa.stage.locks import holding

Ask = Callable[..., Any]
CHECKOUT = Path(__file__).resolve().parents[2]
VOID = {"meta", "img", "br", "input", "link", "path", "use"}


class Page(HTMLParser):
    """Elements of a page with their attributes; fails on an end tag that closes nothing."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}  # rows of cells by caption
        self._rows: list[list[str]] = []
        self._text: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td", "caption"):
            self._text = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag == "caption":
            self._rows = []
            self._caption = "".join(self._text or [])
        if tag in ("th", "td"):
            self._rows[-1].append("".join(self._text or []))
        if tag == "table":
            assert self._caption not in self.tables
            self.tables[self._caption] = self._rows
        if tag in ("th", "td", "caption"):
            self._text = None

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
    assert len(described) == 15 and all(described)
    assert "What the filter decided: kept 4, below_aesthetic 1, duplicate 1, error 1, not_scored 1, nsfw 1" in described
    assert (
        "Images left out, by step and reason: nsfw_filter: failed 1, nsfw_filter: nsfw 1, rm_dups: near 1, "
        "filter: below_aesthetic 1, species: no_known_species 1"
    ) in described
    funnel = next(text for text in described if text and text.startswith("Images that reached"))
    assert funnel.endswith(
        "downloaded 9, screened, not NSFW 7, text checked 7, resized 7, scored 6, not a duplicate 5, "
        "kept by the filter 4, captioned 3, in train or val 3"
    )


def test_gates_are_those_of_the_last_filter_run(page: str) -> None:
    assert "threshold 55</text>" in page
    assert "threshold 60</text>" in page  # the filter's own default


def test_nothing_but_its_own_style_has_a_place_in_the_page(page: str) -> None:
    parsed = Page(page)
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    [rules] = [meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (
        rules == f"default-src 'none'; img-src data:; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    )
    names = {name for _, attributes in parsed.found for name in attributes}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]


def test_strangers_words_in_a_figure_stay_words() -> None:
    label = 'style="fill: red" id="a" url(#b) <b>&amp;'
    drawn = bars("name", label, [(label, 1), ("\x1b[31m\x0b", 2)])
    assert drawn.count(f">{html.escape(label, quote=False)}</text>") == 1
    assert f'aria-label="{html.escape(label)}"' in drawn
    assert ">\ufffd[31m\ufffd</text>" in drawn


def test_figures_suit_a_dark_page(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert "currentColor" in svg
        assert "#ffffff" not in svg and "#010203" not in svg and "#000000" not in svg


def test_flagged_and_unscreened_images_are_veiled(with_quotas: Any, page: str) -> None:
    root, ids = with_quotas.root, with_quotas.ids
    raw = next(root.glob(f"data_raw/*/*/{ids['nsfw']}.jpg"))
    assert thumbnail(raw.parent, raw.name, TILE_SIDE, veiled=True).uri in tile_of(page, ids["nsfw"])
    assert thumbnail(raw.parent, raw.name, TILE_SIDE).uri not in page
    assert thumbnail(root, f"data_stage/resized/{ids['dull']}.jpg", TILE_SIDE).uri in tile_of(page, ids["dull"])
    assert "no picture:<br>truncated" in tile_of(page, ids["broken"])


def test_veil_leaves_a_few_blocks(tmp_path: Path) -> None:
    Image.effect_noise((240, 160), 200).save(tmp_path / "noise.png")
    veiled = decoded(thumbnail(tmp_path, "noise.png", 120, veiled=True))
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


# -- the sections: what their tables say is what the ledger says ------------------------------------------------------


def numbers(page: str, title: str, what: str = "the numbers") -> list[list[str]]:
    """Return the rows of a figure's table, without its head."""
    return Page(page).tables[f"{title}: {what}"][1:]


def test_funnel_in_numbers(page: str) -> None:
    rows = numbers(page, "Images that reached each level")
    assert [row[1] for row in rows] == ["9", "7", "7", "7", "6", "5", "4", "3", "3"]
    assert rows[0] == ["downloaded", "9", "100.0%"]
    assert ["below_aesthetic", "1", "11.1%"] in numbers(page, "What the filter decided")


def test_reasons_in_numbers(page: str) -> None:
    assert numbers(page, "Images left out, by step and reason") == [
        ["nsfw_filter: failed", "1", "11.1%"],
        ["nsfw_filter: nsfw", "1", "11.1%"],
        ["rm_dups: near", "1", "11.1%"],
        ["filter: below_aesthetic", "1", "11.1%"],
        ["species: no_known_species", "1", "11.1%"],
    ]


def test_scores_in_numbers(page: str) -> None:
    assert numbers(page, "Relevance") == [["95 to 100", "3", "3"]]
    # good 90; text and cleared 70; copy and fakemon 70 but out; dull 20
    assert numbers(page, "Aesthetic") == [["20 to 24", "0", "1"], ["70 to 74", "2", "2"], ["90 to 94", "1", "0"]]


def test_text_in_numbers(page: str) -> None:
    assert numbers(page, "Text in the images") == [["no text", "6", "85.7%"], ["painted over", "1", "14.3%"]]
    assert numbers(page, "How much of the picture is text") == [["0% to 5%", "1"]]


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({"ocr_inpainted_path": None}, "not painted over yet"),
        ({"ocr_inpainted_path": None, "ocr_text_dominated": True}, "mostly text, left as it is"),
        ({"ocr_inpainted_path": None, "ocr_doubt": "unsure"}, "doubtful, waiting for a person"),
        ({"ocr_override": "unflagged"}, "left as it is by a person"),
    ],
)
def test_every_state_of_text_is_counted(sample: Any, values: dict[str, Any], state: str) -> None:
    with sample.run("ocr_unflag" if "ocr_override" in values else "ocr_detect") as run:
        run.record(sample.ids["text"], values, reason="text")
    text = text_section(read_tables(Ledger.open(sample.root)).images)
    assert [row[0] for row in text.figures[0].table.rows] == ["no text", state]


def test_duplicates_in_numbers(page: str) -> None:
    assert "1 groups with 2 images; 1 of these were removed." in page
    assert numbers(page, "Sizes of the groups") == [["2", "1"]]
    assert numbers(page, "What was found of each image") == [
        ["unique", "5", "71.4%"], ["kept", "1", "14.3%"], ["near", "1", "14.3%"]
    ]  # fmt: skip


def test_species_in_numbers(page: str) -> None:
    rows = numbers(page, "Bands of popularity")
    # band, species, with a kept image, quota met, quota, downloaded, kept
    assert rows[0] == ["001-150 (head)", "150", "3", "0", "12000", "9", "3"]
    assert [row[0] for row in rows[1:]] == ["151-500 (middle)", "501-800 (middle)", "801-1025 (tail)"]
    assert "3 of 1025 species have a kept image and 0 have met their quota" in page
    lacking = numbers(page, "Species by rank", "the species that lack the most")
    assert [(row[0], row[3], row[4]) for row in lacking] == [
        ("umbreon", "2", "1"), ("eevee", "2", "1"), ("gengar", "3", "1"), ("pikachu", "2", "0")
    ]  # fmt: skip


def test_sizes_and_formats_in_numbers(page: str) -> None:
    assert numbers(page, "Sizes") == [["0–0.5", "9", "0"], ["1–1.5", "0", "7"]]
    assert numbers(page, "Formats") == [["JPEG", "8", "7"], ["PNG", "1", "0"]]


def test_domains_in_numbers(page: str) -> None:
    assert numbers(page, "Images by domain") == [
        ["gallery.example", "7", "2", "29%"],
        ["artist.example", "2", "1", "50%"],
    ]


def test_many_domains_are_summed_up(sample: Any) -> None:
    with sample.run("scrape") as run:
        for number in range(20):
            image_id = f"{number:032x}"
            run.record_row({"image_id": image_id, "source_domain": f"d{number}.example"}, reason="saved")
    (figure,) = domain_section(read_tables(Ledger.open(sample.root)).images).figures
    assert (len(figure.table.rows), figure.table.rows[-1]) == (16, ("7 others", 7, 0, "0%"))


def test_time_and_money_in_numbers(sample: Any) -> None:
    with sample.run("score") as run:
        run.note({"text": "asked"})
        run.extra |= {"usd": 0.06, "input_tokens": 1000, "output_tokens": 10}
    with sample.run("scrape") as run:
        run.note({"text": "searched"})
        run.extra["searches"] = {"paid": 7, "reused": 2, "left": 93}
    page = report_of(sample)
    assert numbers(page, "Money") == [["scrape", "", "", "", "", "7"], ["score", "0.0600", "10.00", "1000", "10", ""]]
    stages = {row[0]: row[2:5] for row in numbers(page, "Seconds of all runs")}
    assert stages["score"] == ["2", "6", "0"]  # runs, images, errors
    assert stages["nsfw_filter"] == ["1", "8", "1"]
    assert "<strong>$0.06</strong>by list price" in page


def test_contact_sheet_has_each_image_once(page: str) -> None:
    shown = [str(tile["id"])[1:] for tile in Page(page).all("figure") if tile.get("class") == "tile"]
    assert len(shown) == len(set(shown)) == 8  # all but the one that waits
    assert page.index('id="kept"') < page.index('id="borderline"') < page.index('id="dropped"')


def test_borderline_images_are_those_close_to_a_gate(sample: Any) -> None:
    ids = sample.ids
    with sample.run("score") as run:
        run.record(ids["dull"], {"ae_aesthetic": 53}, reason="scored")  # 2 under the threshold of 55
        run.record(ids["good"], {"ae_aesthetic": 65}, reason="scored")  # 10 over it
        run.record(ids["text"], {"ae_aesthetic": 66}, reason="scored")
    thresholds = {"relevance": 60.0, "aesthetic": 55.0}
    kept, borderline, _ = contact_sheets(read_tables(Ledger.open(sample.root)), sample.root, thresholds, 9)
    assert [tile.image_id for tile in borderline.tiles] == [ids["dull"], ids["good"]]
    assert (kept.of, borderline.of) == (2, 2)


def test_inpainting_is_shown_before_and_after(with_quotas: Any, page: str) -> None:
    pair = page[page.index('id="inpainting"') : page.index('id="sheet"')]
    image_id = with_quotas.ids["text"]
    after = with_quotas.root / f"data_stage/OCR_inpainted/{image_id}.png"
    assert 'alt="Eevee, before: with text"' in pair and 'alt="Eevee, after: text painted over"' in pair
    assert thumbnail(after.parent, after.name, PAIR_SIDE).uri in pair
    assert f"Eevee, 4.0 % painted over, {image_id[:8]}</figcaption>" in pair


def test_captions_describe_the_pictures(with_quotas: Any, page: str) -> None:
    assert 'alt="Gengar. A drawing, good."' in tile_of(page, with_quotas.ids["good"])
    assert 'alt="Gengar. Blocks of colour, not the picture"' in tile_of(page, with_quotas.ids["nsfw"])


def test_headings_leave_out_no_level(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(page).found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_figure_has_its_numbers_in_a_table(page: str) -> None:
    cards = re.findall(r'<div class="card.*?</table>', page, re.DOTALL)
    assert len(cards) == page.count("<svg") + page.count("<h3>Money</h3>") == 15
    assert all(row.get("scope") in ("col", "row") for row in Page(page).all("th"))


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
        "No text has been painted over.", "No image has been looked through for text yet.", "No stage has run yet.",
        "No image has been looked at for duplicates yet.", "No image has a source domain yet.",
    ):  # fmt: skip
        assert sentence in page


def test_damaged_quotas_are_one_line(ask: Ask, sample: Any) -> None:
    (sample.root / "quotas").mkdir()
    (sample.root / "quotas/quotas.csv").write_text("rank,name\none,Eevee\n")
    finished = ask("report")
    assert finished.code == 2
    path = sample.root / "quotas/quotas.csv"
    assert finished.stderr == f"error: {path} has no column band: run quotas/allocate.py again\n"


def test_number_of_thumbnails_is_limited_and_checked(ask: Ask, sample: Any) -> None:
    page = report_of(sample, most_tiles=1)
    assert page.count('<figure class="tile"') == 2  # none is borderline
    assert "1 of 3 are shown." in page and "1 of 5 are shown." in page
    assert all(image.get("loading") == "lazy" for image in Page(page).all("img"))
    finished = ask("report", "--thumbnails", "0")
    assert finished.code == 2
    assert "argument --thumbnails: '0' is not a whole number of 1 or more" in finished.stderr


def test_figure_is_a_function_of_its_numbers() -> None:
    one = bars("x", 'say "hi" & go', [("a<b", 3), ("c", 0)], total=4)
    assert one == bars("x", 'say "hi" & go', [("a<b", 3), ("c", 0)], total=4)
    assert 'aria-label="say &quot;hi&quot; &amp; go"' in one
    assert "3 (75%)" in one and "0 (0%)" in one and "a&lt;b" in one


def test_a_label_is_no_formula() -> None:
    drawn = bars("one", "domains", [("$\\frac$", 3), ("a$b$c_{d}", 1), ("$", 1)])
    assert ">$\\frac$</text>" in drawn and ">a$b$c_{d}</text>" in drawn and ">$</text>" in drawn


def test_letters_of_other_scripts_are_drawn_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = bars("one", "domains", [("画像.jp", 3), ("포켓몬.kr", 1)])
    assert ">画像.jp</text>" in drawn and ">포켓몬.kr</text>" in drawn


def test_domains_of_strangers_stop_no_report(ask: Ask, sample: Any) -> None:
    for name, domain in (("good", "$\\frac$"), ("text", "画像.jp")):
        with sample.run("scrape") as run:
            run.record(sample.ids[name], {"source_domain": domain})
    finished = ask("report")
    assert (finished.code, finished.stderr) == (0, "")
    page = (sample.root / "metadata/report.html").read_text(encoding="utf-8")
    assert ">$\\frac$</text>" in page and ">画像.jp</text>" in page


@pytest.mark.parametrize("words", [["report"], ["review", "--stage", "ocr"]])
def test_no_page_is_made_while_a_takedown_removes_pictures(ask: Ask, sample: Any, words: list[str]) -> None:
    with holding(sample.root, "takedown"):
        finished = ask(*words)
    assert finished.code == 2
    assert finished.stderr.startswith(f"error: {words[0]}.py or takedown.py is running on {sample.root}: ")
    assert not list((sample.root / "metadata").glob("*.html"))


def test_thumbnail_is_small_and_names_what_it_cannot_open(tmp_path: Path) -> None:
    Image.new("RGBA", (400, 200), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    thumb = thumbnail(tmp_path, "clear.png", 100)
    shown = decoded(thumb)
    assert (thumb.width, thumb.height, shown.size, shown.getpixel((5, 5))) == (100, 50, (100, 50), (255, 255, 255))
    assert thumbnail(tmp_path, "none.png", 100).problem == "missing_file"


def test_small_helpers() -> None:
    assert web_address("javascript:alert(1)") == web_address(None) == ""
    assert count_sizes([0, 0.49, 0.5, 1.0, 12.0], (0, 0.5, 1, 1.5, 2, 4, 8)) == [2, 1, 1, 0, 0, 0, 1]
    assert size_names((0, 0.5, 1)) == ["0–0.5", "0.5–1", "1+"]
    assert size_names((2, 3, 6), whole=True) == ["2", "3–5", "6+"]
    assert [spoken_time(seconds) for seconds in (99.4, 100, 5999, 7200)] == ["99 s", "1.7 min", "100.0 min", "2.0 h"]


@given(st.lists(st.integers(0, 100)))
def test_every_score_is_in_one_class(scores: list[int]) -> None:
    counts = classes(scores, SCORE_EDGES)
    assert len(counts) == len(SCORE_EDGES) - 1 and sum(counts) == len(scores)
    assert counts[-1] == sum(1 for score in scores if score >= 95)
