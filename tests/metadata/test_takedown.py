"""metadata/takedown.py: what would go, what goes, and what stays as proof."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metadata.takedown import slug_of
from pokefa.ledger.tables import Ledger
from pokefa.llm.batch_records import BatchRecord
from pokefa.llm.store import Answers, Stored
from pokefa.reporting.contact_sheet import PAIR_SIDE
from pokefa.reporting.thumbnails import thumbnail
from pokefa.takedown.addresses import Addresses
from pokefa.takedown.find import REPORT_MARK
from pokefa.takedown.records import hash_picture, read_taken_down
from tests.conftest import CHECKOUT

Ask = Callable[..., Any]


@pytest.fixture
def ask(ask_here: Ask) -> Ask:
    return ask_here


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def images(root: Path) -> dict[str, dict[str, str]]:
    with (root / "metadata/images.csv").open(newline="", encoding="utf-8") as stream:
        return {row["image_id"]: row for row in csv.DictReader(stream)}


def test_without_apply_nothing_changes(ask: Ask, sample: Any) -> None:
    before = files(sample.root)
    for flags in ((), ("--apply", "--dry-run")):
        finished = ask("takedown", "--id", sample.ids["good"], "--reason", "asked", *flags)
        assert finished.code == 0
        assert f"    would remove data_clean/base/{sample.ids['good']}.jpg\n" in finished.stdout
        assert "Nothing was changed: add --apply to take them down.\n" in finished.stdout
        assert (finished.summary["applied"], finished.summary["files"], finished.summary["done"]) == (False, 3, 0)
    assert files(sample.root) == before


def test_apply_removes_bytes_and_pages_and_marks_the_row(ask: Ask, sample: Any) -> None:
    image_id = sample.ids["text"]
    half = sample.root / "data_stage/resized" / f".{image_id}.jpg.abc.tmp"
    half.write_bytes(b"half")
    showing = sample.root / "metadata/review-ocr.html"
    other = sample.root / "metadata/review-nsfw.html"
    showing.write_text(f"<p>{image_id}</p>")
    other.write_text(f"<p>{sample.ids['nsfw']}</p>")
    before = set(files(sample.root))
    finished = ask("takedown", "--id", image_id[:10], "--reason", "The artist asked!", "--apply")
    assert finished.code == 0
    after = files(sample.root)
    assert not [path for path in after if image_id in path]
    assert before - set(after) == {
        f"data_raw/001-150/0001_eevee/{image_id}.png",
        f"data_stage/OCR_inpainted/{image_id}.png",
        f"data_stage/resized/{image_id}.jpg",
        f"data_stage/resized/{half.name}",
        f"data_clean/base/{image_id}.jpg",
        "metadata/review-ocr.html",
    }
    assert images(sample.root)[image_id]["drop_reason"] == "takedown:the_artist_asked"
    assert images(sample.root)[image_id]["source_url"] == "https://cdn.gallery.example/text.png"
    with (sample.root / "metadata/drops.csv").open(newline="", encoding="utf-8") as stream:
        drop = list(csv.DictReader(stream))[-1]
    assert (drop["image_id"], drop["stage"], drop["reason"], drop["detail"]) == (
        image_id, "takedown", "the_artist_asked", "The artist asked!"
    )  # fmt: skip
    assert finished.summary["counts"] == {"the_artist_asked": 1}
    assert finished.summary["in_split"] == 1
    assert finished.summary["run_again"] == ["filter", "card"]
    assert "    rewrote webdataset/data/train-00000.tar without the images\n" in finished.stdout
    [record] = (sample.root / "metadata/takedowns").iterdir()
    assert record.stat().st_mode & 0o777 == 0o600


def test_verify_proves_that_nothing_is_left_before_and_after_the_filter_ran(ask: Ask, sample: Any) -> None:
    image_id = sample.ids["text"]
    before = (sample.root / "metadata/base.csv").read_text().splitlines()
    ask("takedown", "--id", image_id, "--reason", "asked", "--apply")
    finished = ask("verify")
    assert finished.code == 0
    assert finished.stdout.splitlines()[:-1] == [
        "1 image taken down: nothing is left",
        "9 images checked: all is well",
    ]
    assert (finished.summary["taken_down"], finished.summary["counts"]) == (1, {})
    base = (sample.root / "metadata/base.csv").read_text().splitlines()
    assert base == [line for line in before if image_id not in line]
    assert len(base) == len(before) - 1
    with sample.run("filter") as run:
        run.record(image_id, {"filter_decision": "taken_down"})
        kept = [sample.ids[name] for name in ("good", "cleared", "fakemon")]
        run.replace_rows("base", [{"image_id": kept_id, "path": f"data_clean/base/{kept_id}.jpg"} for kept_id in kept])
    assert ask("verify").summary["counts"] == {}


def test_taken_down_image_makes_the_filter_due(ask: Ask, sample: Any) -> None:
    with sample.run("score") as run:
        run.record(sample.ids["waiting"], {"ae_relevance": 10, "ae_aesthetic": 10})
    with sample.run("filter") as run:
        run.record(sample.ids["waiting"], {"filter_decision": "below_relevance"})
    assert ask("status").summary["next"] == []
    ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    assert ask("status").summary["next"] == [f"python preprocess/filter/filter.py --root {sample.root}"]


def test_second_apply_finishes_a_killed_one_and_writes_no_journal(ask: Ask, sample: Any) -> None:
    raw = next(sample.root.glob(f"data_raw/*/*/{sample.ids['good']}.jpg"))
    data = raw.read_bytes()
    ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    raw.write_bytes(data)  # as if the first had been killed between marking the row and removing the bytes
    journals = set((sample.root / "metadata/runs").iterdir())
    finished = ask("takedown", "--id", sample.ids["good"], "--reason", "another", "--apply")
    assert (finished.code, finished.summary["done"], finished.summary["files"]) == (0, 0, 1)
    assert not raw.exists()
    assert set((sample.root / "metadata/runs").iterdir()) == journals
    assert images(sample.root)[sample.ids["good"]]["drop_reason"] == "takedown:asked"


@pytest.mark.parametrize(
    ("flag", "value", "names"),
    [
        ("--url", "https://cdn.artist.example/good.jpg", {"good"}),
        ("--url", "https://artist.example/art/5", {"copy"}),
        ("--domain", "artist.example", {"good", "copy"}),
        ("--domain", "CDN.artist.example", {"good", "copy"}),
        ("--url", "http://www.artist.example/art/5/#comments", {"copy"}),
        ("--artist-page", "https://artist.example/art", {"good", "copy"}),
        ("--artist-page", "http://www.artist.example/art/1/", {"good"}),
        ("--artist-page", "https://cdn.artist.example", {"good", "copy"}),
        ("--domain", "www.artist.example", {"good", "copy"}),
        ("--domain", "https://www.artist.example/", {"good", "copy"}),
        ("--domain", "artist.example:443", {"good", "copy"}),
        ("--url", " artist.example/art/5", {"copy"}),
        ("--artist-page", "www.artist.example/art", {"good", "copy"}),
    ],
)
def test_images_are_found_by_address_and_host(ask: Ask, sample: Any, flag: str, value: str, names: set[str]) -> None:
    finished = ask("takedown", flag, value, "--reason", "asked")
    listed = {line.split()[0] for line in finished.stdout.splitlines() if "https://" in line}
    assert listed == {sample.ids[name] for name in names}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--url", "https://xn--knstler-n2a.example/Gemälde/pokémon 画.jpg"),
        ("--url", "https://Künstler.example/Gem%C3%A4lde/pokémon%20画.jpg?size=gro%C3%9F&x=a b"),
        ("--url", "künstler.example/Gema\u0308lde/pokémon 画.jpg/#here"),
        ("--domain", "künstler.example"),
        ("--domain", "XN--KNSTLER-N2A.example"),
        ("--artist-page", "https://www.künstler.example/Gemälde"),
    ],
)
def test_addresses_are_known_in_any_form(ask: Ask, sample: Any, flag: str, value: str) -> None:
    query = "?size=gro%C3%9F&x=a+b" if "?" in value else ""
    url = f"https://www.xn--knstler-n2a.example/Gem%c3%a4lde/pok%C3%A9mon%20%E7%94%BB.jpg{query}"
    with sample.run("scrape") as run:
        run.record(sample.ids["dull"], {"source_url": url})
    finished = ask("takedown", flag, value, "--reason", "asked")
    assert [line.split()[0] for line in finished.stdout.splitlines() if "https://" in line] == [sample.ids["dull"]]


@pytest.mark.parametrize("value", [".", "", "nothing", "file:", "https://[", "www.example"])
@pytest.mark.parametrize("flag", ["--url", "--domain", "--artist-page"])
def test_what_is_no_address_is_none_of_an_image(ask: Ask, flag: str, value: str) -> None:
    finished = ask("takedown", flag, value, "--reason", "asked", "--apply")
    assert finished.code == 2
    assert f"no image has {flag[2:].replace('-', ' ')} {value}; nothing was changed" in finished.stderr


def test_a_page_is_no_domain(ask: Ask) -> None:
    finished = ask("takedown", "--domain", "https://artist.example/art", "--reason", "asked", "--apply")
    assert finished.code == 2
    assert finished.stderr == (
        "error: --domain https://artist.example/art is a page: give only the host, or use --artist-page\n"
    )


def test_a_slash_that_is_a_letter_and_one_that_is_none_are_two_addresses() -> None:
    taken_down = Addresses.of(
        ["https://a.example/x%2Fy.png", "https://a.example:8080/z.png", "file:1_a/%C3%A9.png", None]
    )
    for same in ("http://www.A.example/x%2fy.png#top", "https://a.example:8080/%7A.png", "file:1_a/é.png"):
        assert same in taken_down
    for other in ("https://a.example/x/y.png", "https://a.example/z.png", "https://a.example/", "", "x%2Fy.png"):
        assert other not in taken_down


def test_only_pages_of_a_host_have_pages_under_them(ask: Ask, sample: Any) -> None:
    with sample.run("scrape") as run:
        run.record(sample.ids["dull"], {"source_url": "file:001_gengar/a.png"})
    assert ask("takedown", "--artist-page", "file:", "--reason", "asked").code == 2
    assert ask("takedown", "--url", "file:001_gengar/a.png", "--reason", "asked").summary["seen"] == 1


def test_the_scraper_knows_an_address_in_any_form(sample: Any) -> None:
    with sample.run("scrape") as run:
        run.record(sample.ids["dull"], {"source_url": "https://www.artist.example/pok%C3%A9mon%20a.jpg"})
    with sample.run("takedown") as run:
        run.record(sample.ids["dull"], {"drop_reason": "takedown:asked"})
    found = read_taken_down(sample.root, Ledger.open(sample.root).images.read(), 6)
    assert found is not None
    assert "http://artist.example/pokémon a.jpg" in found.addresses
    assert "http://artist.example/pokémon b.jpg" not in found.addresses


def test_a_host_is_the_same_in_any_letters() -> None:
    found = Addresses.of(
        ["http://ＡＲＴ.example/a", "http://xn--n3h.net/", "http://straße.example/", "http://a\ufffdb/"]
    )
    for text in ("http://art.example/a", "http://☃.net", "http://xn--strae-oqa.example", "http://a\ufffdb"):
        assert text in found
    assert "http://strasse.example" not in found


@pytest.mark.parametrize("page", ["https://artist.example/ar", "https://artist.example/art/1?page=2", "artist"])
def test_what_only_begins_like_a_page_is_another_page(ask: Ask, page: str) -> None:
    finished = ask("takedown", "--artist-page", page, "--reason", "asked", "--apply")
    assert finished.code == 2
    assert finished.stderr == (
        f"error: no image has artist page {page}; nothing was changed: correct or remove these names\n"
    )


def test_a_host_that_is_named_can_be_kept_out(ask: Ask) -> None:
    finished = ask("takedown", "--domain", "artist.example", "--reason", "asked", "--apply")
    assert "Other images from there may be scraped again: list the host for scrape.py --exclude-domains.\n" in (
        finished.stdout
    )


def test_part_of_a_host_name_is_another_host(ask: Ask) -> None:
    finished = ask("takedown", "--domain", "tist.example", "--reason", "asked", "--apply")
    assert finished.code == 2
    assert finished.stderr == (
        "error: no image has domain tist.example; nothing was changed: correct or remove these names\n"
    )


def test_one_unknown_name_stops_all(ask: Ask, sample: Any) -> None:
    before = files(sample.root)
    finished = ask("takedown", "--id", sample.ids["good"], "zzz", "--url", "https://x", "--reason", "asked", "--apply")
    assert finished.code == 2
    assert finished.stderr == (
        "error: no image has id zzz, url https://x; nothing was changed: correct or remove these names\n"
    )
    assert files(sample.root) == before


def test_same_picture_from_elsewhere_is_named(ask: Ask, sample: Any) -> None:
    finished = ask("takedown", "--id", sample.ids["good"], "--reason", "asked")
    assert finished.summary["near_copies"] == [sample.ids["copy"]]
    assert f"To take them down too, add them to --id: {sample.ids['copy']}\n" in finished.stdout
    assert finished.summary["run_again"][:2] == ["rm_dups", "filter"]


def test_the_same_picture_that_is_in_no_group_yet_is_named(ask: Ask, sample: Any) -> None:
    with sample.run("phash") as run:
        for name, phash in (
            ("dull", "0f0f0f0f0f0f0f0f"),
            ("waiting", "0f0f0f0f0f0f0f00"),
            ("text", "f0f0f0f0f0f0f0f0"),
        ):
            run.record(sample.ids[name], {"phash64": phash, "phash_contrast": 30.0})
    finished = ask("takedown", "--id", sample.ids["dull"], "--reason", "asked")
    assert finished.summary["near_copies"] == [sample.ids["waiting"]]


def test_a_page_that_shows_the_image_under_the_name_of_its_copy_goes_too(ask: Ask, sample: Any) -> None:
    """A page of duplicates names the removed image and shows the kept one beside it."""
    page = sample.root / "metadata/review-dup.html"
    page.write_text(f"<p>{sample.ids['copy']}</p>")
    finished = ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    assert finished.summary["pages"] == ["metadata/review-dup.html"]
    assert not page.exists()


def record_of(sample: Any) -> dict[str, Any]:
    paths = list((sample.root / "metadata/takedowns").iterdir())
    assert len(paths) == 1
    return dict(json.loads(paths[0].read_text()))


def test_the_record_says_what_was_asked_and_what_went(ask: Ask, sample: Any) -> None:
    image_id = sample.ids["good"]
    hashed = hash_picture(sample.root / f"data_raw/001-150/0001_gengar/{image_id}.jpg")
    finished = ask("takedown", "--url", "https://cdn.artist.example/good.jpg", "--reason", "Please!", "--apply")
    record = record_of(sample)
    assert finished.summary["records"] == [f"metadata/takedowns/{finished.summary['run_id']}.json"]
    assert (record["run_id"], record["reason"]) == (finished.summary["run_id"], "Please!")
    assert record["asked"] == {"url": ["https://cdn.artist.example/good.jpg"]}
    assert record["ts"] <= record["finished"]
    assert record["images"][0]["image_id"] == image_id
    assert hashed is not None and record["images"][0]["phash"] == hashed.phash
    assert record["images"][0]["source_page"] == "https://artist.example/art/1"
    assert record["removed"]["rewritten"] == ["webdataset/data/train-00000.tar", "webdataset/manifests/train_ids.txt"]
    assert len(record["removed"]["files"]) == 3


def test_a_dry_run_of_an_image_that_never_reached_the_hash_is_hashed_when_it_goes(ask: Ask, sample: Any) -> None:
    assert images(sample.root)[sample.ids["nsfw"]]["phash64"] == ""
    ask("takedown", "--id", sample.ids["nsfw"], "--reason", "asked", "--apply")
    assert len(record_of(sample)["images"][0]["phash"]) == 16
    assert images(sample.root)[sample.ids["nsfw"]]["phash64"] == ""  # which belongs to another stage


def test_a_file_that_does_not_open_is_taken_down_without_a_hash(ask: Ask, sample: Any) -> None:
    assert ask("takedown", "--id", sample.ids["broken"], "--reason", "asked", "--apply").code == 0
    assert record_of(sample)["images"][0]["phash"] is None
    assert ask("verify").summary["counts"] == {}


def test_shards_lose_the_image_and_keep_the_others(ask: Ask, sample: Any) -> None:
    ask("takedown", "--id", sample.ids["text"], "--reason", "asked", "--apply")
    root = sample.root
    with tarfile.open(root / "webdataset/data/train-00000.tar") as tar:
        assert {name.partition(".")[0] for name in tar.getnames()} == {sample.ids["good"]}
    stats = json.loads((root / "webdataset/manifests/split_stats.json").read_text())
    assert stats["shards"]["train-00000.tar"]["samples"] == 1
    assert stats["samples"] == {"train": 1, "val": 1}
    assert (root / "webdataset/manifests/train_ids.txt").read_text() == f"{sample.ids['good']}\n"


def test_the_last_image_of_a_split_takes_the_shard_with_it(ask: Ask, sample: Any) -> None:
    ask("takedown", "--id", sample.ids["cleared"], "--reason", "asked", "--apply")
    assert not (sample.root / "webdataset/data/val-00000.tar").exists()
    assert ask("verify").summary["counts"] == {}


def test_a_damaged_shard_stops_it_before_anything_changes(ask: Ask, sample: Any) -> None:
    shard = sample.root / "webdataset/data/val-00000.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    before = files(sample.root)
    finished = ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    assert finished.code == 2
    assert finished.stderr.startswith("error: webdataset/data/val-00000.tar is not a complete tar (")
    assert files(sample.root) == before


# -- what was asked about the image -----------------------------------------------------------------------------------


def store_answers(sample: Any) -> None:
    """Score two images through the journal, and store both answers as the stage does."""
    answers = Answers(sample.root)
    with sample.run("score") as run:
        for name in ("good", "dull"):
            usage = {"request": f"request about {name}", "response": "r", "question": "score"}
            answers.put(Stored(usage["request"], "score", "m", "r", {"why": f"a secret about {name}"}, usage))
            run.record(sample.ids[name], {"ae_relevance": 90}, usage=usage)


def test_stored_answers_about_the_image_go_and_others_stay(ask: Ask, sample: Any) -> None:
    store_answers(sample)
    finished = ask("takedown", "--id", sample.ids["good"], "--reason", "asked")
    assert "    would remove 1 stored answers about the images\n" in finished.stdout
    assert Answers(sample.root).get("request about good") is not None
    ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    answers = Answers(sample.root)
    assert answers.get("request about good") is None
    assert answers.get("request about dull") is not None
    content = (sample.root / "metadata/answers.sqlite").read_bytes()
    assert b"a secret about good" not in content and b"a secret about dull" in content
    assert ask("verify").summary["counts"] == {}


def write_batch(sample: Any, state: str, names: Sequence[str], **more: str) -> Path:
    """Write a file of questions and its record as pokefa.llm.batch_records does."""
    folder = sample.root / "metadata/batches"
    folder.mkdir(exist_ok=True)
    requests = {sample.ids[name]: f"request about {name}" for name in names}
    record = BatchRecord("b-001", "score", "1", "m", "responses", state, requests, **more)
    (folder / "b-001.json").write_text(json.dumps(asdict(record)))
    if state != "submitted":
        lines = [json.dumps({"custom_id": image_id, "body": "picture"}) + "\n" for image_id in requests]
        (folder / "b-001.jsonl").write_text("".join(lines))
    return Path(folder / "b-001.json")


def test_questions_that_wait_are_taken_back(ask: Ask, sample: Any) -> None:
    path = write_batch(sample, "written", ("good", "dull"))
    finished = ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    assert finished.summary["batches"] == ["b-001"]
    assert "    took 1 questions out of the batch b-001\n" in finished.stdout
    assert list(json.loads(path.read_text())["requests"]) == [sample.ids["dull"]]
    assert [json.loads(line)["custom_id"] for line in path.with_suffix(".jsonl").read_text().splitlines()] == [
        sample.ids["dull"]
    ]
    assert ask("verify").summary["counts"] == {}
    ask("takedown", "--id", sample.ids["dull"], "--reason", "asked", "--apply")
    assert list(path.parent.iterdir()) == []  # a file without questions is none


def test_pictures_that_a_service_has_are_named(ask: Ask, sample: Any) -> None:
    path = write_batch(sample, "submitted", ("good",), file_id="file-1", batch_id="batch_2")
    finished = ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    assert "    the service has the images of b-001 (file-1, batch_2): ask it to delete them\n" in finished.stdout
    record = json.loads(path.read_text())
    assert (record["requests"], record["batch_id"]) == ({}, "batch_2")


# -- kills ------------------------------------------------------------------------------------------------------------


KILLED = (
    "metadata.takedown.mark", "metadata.takedown.leave_base", "metadata.takedown.remove_traces",
    "pokefa.takedown.find.withdraw", "pokefa.takedown.shards.publish", "pokefa.shards.publish.finish",
    "pokefa.shards.publish._bring", "pokefa.takedown.find.forget_answers", "pokefa.takedown.find.withdraw_questions",
)  # fmt: skip


@pytest.mark.parametrize("step", KILLED)
def test_killed_run_is_finished_by_the_next_one_whatever_it_names(sample: Any, ask: Ask, step: str) -> None:
    store_answers(sample)
    write_batch(sample, "written", ("good", "dull"))
    module, _, function = step.rpartition(".")
    killing = (
        f"import os, sys, {module} as module, metadata.takedown as script\n"
        f"module.{function} = lambda *arguments, **named: os._exit(9)\n"
        f"script.main(sys.argv[1:])\n"
    )
    arguments = ("--root", sample.root, "--id", sample.ids["good"], "--reason", "asked", "--apply")
    killed = subprocess.run([sys.executable, "-c", killing, *map(str, arguments)], cwd=CHECKOUT, timeout=60)
    assert killed.returncode == 9
    found = ask("verify")
    assert (found.code, "takedown_unfinished" in found.summary["counts"]) == (1, True)
    finished = ask("takedown", "--id", sample.ids["fakemon"], "--reason", "other", "--apply")
    assert finished.code == 0, finished.stderr
    rows = images(sample.root)
    assert rows[sample.ids["good"]]["drop_reason"] == "takedown:asked"
    assert rows[sample.ids["fakemon"]]["drop_reason"] == "takedown:other"
    found = ask("verify")
    assert (found.summary["counts"], found.summary["taken_down"]) == ({}, 2)


def test_usage_errors(ask: Ask) -> None:
    finished = ask("takedown", "--reason", "asked")
    assert finished.code == 2
    assert finished.stderr.endswith("error: name the images with --id, --url, --domain or --artist-page\n")
    finished = ask("takedown", "--domain", "artist.example", "--reason", " !? ")
    assert finished.code == 2
    assert finished.stderr == "error: --reason ' !? ' has no letters or digits: write why the images are removed\n"


def test_slug_keeps_letters_of_any_script() -> None:
    assert slug_of("DMCA: request #12") == "dmca_request_12"
    assert slug_of("画師の依頼") == "画師の依頼"


# -- reports ----------------------------------------------------------------------------------------------------------


REPORT = "metadata/report.html"


def picture_of(sample: Any, name: str) -> str:
    """Return what a report holds of an image whose text was painted over: the data URI of its picture before."""
    raw = sample.root / images(sample.root)[sample.ids[name]]["path_raw"]
    return thumbnail(raw.parent, raw.name, PAIR_SIDE).uri


def paint_over(sample: Any, name: str) -> None:
    path = f"data_stage/OCR_inpainted/{sample.ids[name]}.png"
    Image.new("RGB", (300, 260), (10, 120, 70)).save(sample.root / path)
    with sample.run("ocr_detect") as run:
        run.record(sample.ids[name], {"has_ocr": True, "ocr_area_frac": 0.03, "ocr_inpainted_path": path})


@pytest.mark.parametrize("name", ["text", "waiting"])  # the one is cut off the sheet, the other is on no sheet
def test_a_report_that_shows_an_image_before_and_after_goes(ask: Ask, sample: Any, name: str) -> None:
    paint_over(sample, "waiting")
    ask("report", "--thumbnails", "1")
    page = (sample.root / REPORT).read_text()
    assert picture_of(sample, name) in page and f'id="i{sample.ids[name]}"' not in page
    finished = ask("takedown", "--id", sample.ids[name], "--reason", "asked", "--apply")
    assert finished.summary["pages"] == [REPORT]
    assert not (sample.root / REPORT).exists()
    assert ask("verify").code == 0


def test_a_report_that_does_not_show_the_image_stays(ask: Ask, sample: Any) -> None:
    ask("report", "--thumbnails", "1")
    finished = ask("takedown", "--id", sample.ids["fakemon"], "--reason", "asked", "--apply")
    assert finished.summary["pages"] == []
    assert (sample.root / REPORT).exists()
    assert ask("verify").code == 0


def test_a_report_of_an_earlier_version_goes_whomever_it_names(ask: Ask, sample: Any) -> None:
    ask("report", "--thumbnails", "1")
    path = sample.root / REPORT
    mark = f'<meta name="generator" content="{REPORT_MARK}">\n'
    page = path.read_text()
    assert mark in page
    earlier = page.replace(mark, "").replace(sample.ids["text"], "")
    path.write_text(earlier)
    finished = ask("takedown", "--id", sample.ids["text"], "--reason", "asked", "--apply")
    assert finished.summary["pages"] == [REPORT]
    assert not path.exists()
    path.write_text(earlier)
    os.utime(path, (0, 0))  # as a takedown of an earlier version left it
    found = ask("verify")
    assert (found.code, found.summary["counts"]) == (1, {"taken_down_shown": 1})
    os.utime(path)  # made anew after the takedown, by whatever version
    assert ask("verify").code == 0


@pytest.mark.parametrize(("stage", "name"), [("nsfw", "nsfw"), ("ocr", "text"), ("dup", "good"), ("filter", "dull")])
def test_every_picture_of_a_review_page_is_named_in_it(ask: Ask, sample: Any, stage: str, name: str) -> None:
    ask("review", "--stage", stage)
    finished = ask("takedown", "--id", sample.ids[name], "--reason", "asked", "--apply")
    assert finished.summary["pages"] == [f"metadata/review-{stage}.html"]
