"""metadata/takedown.py: what would go, what goes, and what stays as proof."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metadata.command import Reading
from metadata.takedown import slug_of
from metadata.verify import verify
from pokefa.ledger import Ledger

Ask = Callable[..., Any]


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


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
    assert finished.summary["run_again"] == ["filter", "species", "split", "webdataset"]


def test_verify_says_what_is_left_until_the_later_stages_ran(ask: Ask, sample: Any) -> None:
    image_id = sample.ids["text"]
    ask("takedown", "--id", image_id, "--reason", "asked", "--apply")
    found = verify(Reading("verify", sample.root, Ledger.open(sample.root)), False).by_kind
    assert found == {"base_not_kept": [f"{image_id} (taken down)"], "shard_not_in_base": [f"{image_id} in train"]}
    assert ask("status").summary["next"][0].startswith("python preprocess/score/score.py")
    with sample.run("filter") as run:
        run.record(image_id, {"filter_decision": "taken_down"})
        kept = [sample.ids[name] for name in ("good", "cleared", "fakemon")]
        run.replace_rows("base", [{"image_id": kept_id, "path": f"data_clean/base/{kept_id}.jpg"} for kept_id in kept])
    found = verify(Reading("verify", sample.root, Ledger.open(sample.root)), False).by_kind
    assert set(found) == {"shard_not_in_base", "list_differs"}


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
    ],
)
def test_images_are_found_by_address_and_host(ask: Ask, sample: Any, flag: str, value: str, names: set[str]) -> None:
    finished = ask("takedown", flag, value, "--reason", "asked")
    listed = {line.split()[0] for line in finished.stdout.splitlines() if "https://" in line}
    assert listed == {sample.ids[name] for name in names}


def test_part_of_a_host_name_is_another_host(ask: Ask) -> None:
    finished = ask("takedown", "--domain", "tist.example", "--reason", "asked", "--apply")
    assert finished.code == 2
    assert finished.stderr == (
        "error: no image has domain tist.example; nothing was changed: correct or leave out what is named\n"
    )


def test_one_unknown_name_stops_all(ask: Ask, sample: Any) -> None:
    before = files(sample.root)
    finished = ask("takedown", "--id", sample.ids["good"], "zzz", "--url", "https://x", "--reason", "asked", "--apply")
    assert finished.code == 2
    assert finished.stderr == (
        "error: no image has id zzz, url https://x; nothing was changed: correct or leave out what is named\n"
    )
    assert files(sample.root) == before


def test_same_picture_from_elsewhere_is_named(ask: Ask, sample: Any) -> None:
    finished = ask("takedown", "--id", sample.ids["good"], "--reason", "asked")
    assert finished.summary["near_copies"] == [sample.ids["copy"]]
    assert f"name these too if they are meant: {sample.ids['copy']}\n" in finished.stdout
    assert finished.summary["run_again"][:2] == ["rm_dups", "filter"]


def test_a_page_that_shows_the_image_under_the_name_of_its_copy_goes_too(ask: Ask, sample: Any) -> None:
    """A page of duplicates names the removed image and shows the kept one beside it."""
    page = sample.root / "metadata/review-dup.html"
    page.write_text(f"<p>{sample.ids['copy']}</p>")
    finished = ask("takedown", "--id", sample.ids["good"], "--reason", "asked", "--apply")
    assert finished.summary["pages"] == ["metadata/review-dup.html"]
    assert not page.exists()


def test_usage_errors(ask: Ask) -> None:
    finished = ask("takedown", "--reason", "asked")
    assert finished.code == 2
    assert finished.stderr.endswith("takedown.py: error: name the images with --id, --url or --domain\n")
    finished = ask("takedown", "--domain", "artist.example", "--reason", " !? ")
    assert finished.code == 2
    assert finished.stderr == "error: --reason ' !? ' says nothing: write why the images go\n"


def test_slug_keeps_letters_of_any_script() -> None:
    assert slug_of("DMCA: request #12") == "dmca_request_12"
    assert slug_of("画師の依頼") == "画師の依頼"
