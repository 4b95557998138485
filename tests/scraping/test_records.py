"""urls.jsonl and what a killed run leaves: at each point of saving an image, the next run makes things whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pokefa.errors import InputError, RunError
from scraping.addresses import candidate_of
from scraping.records import Records, append_line, part_of, read_lines
from scraping.utils import Species

MEW = Species("Mew", 40, "001-150", 10)
URL = "http://a.example/1.png"
ID = "0123456789abcdef0123456789abcdef"
ROW: dict[str, Any] = {"image_id": ID, "species": "Mew", "path_raw": f"{MEW.folder}/{ID}.png"}


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path, {})


def lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / MEW.folder / "urls.jsonl").read_text().splitlines()]


def recovered(root: Path, images: dict[str, str] | None = None, *, retry: bool = False) -> tuple[Records, list[Any]]:
    records = Records(root, images or {}, retry=retry)
    return records, list(records.recover())


def test_line_of_a_refusal(tmp_path: Path, records: Records) -> None:
    records.write(MEW, URL, "http_404", "Not Found")
    (line,) = lines(tmp_path)
    assert line.pop("ts").endswith("Z")
    assert line == {"url": URL, "species": "Mew", "status": "http_404", "detail": "Not Found"}


def test_saving(tmp_path: Path, records: Records) -> None:
    records.save(MEW, URL, records.keep(MEW, b"bytes"), ROW)
    assert (tmp_path / ROW["path_raw"]).read_bytes() == b"bytes"
    (line,) = lines(tmp_path)
    assert (line["status"], line["row"]) == ("saved", ROW)
    assert sorted(path.name for path in (tmp_path / MEW.folder).iterdir()) == [f"{ID}.png", "urls.jsonl"]


def test_claims(records: Records) -> None:
    assert records.claim(URL, "Mew")
    assert not records.claim(URL, "Mew")
    assert records.claim(URL, "Mewtwo")
    assert not records.claim(URL, "Mewtwo")
    assert records.owner(URL) == "Mew"


def test_images_are_claimed_once(tmp_path: Path) -> None:
    records = Records(tmp_path, {"a" * 32: "Ditto"})
    assert records.claim_image("a" * 32, "Mew", None) == "Ditto"
    assert records.claim_image("b" * 32, "Mew", None) is None
    assert records.claim_image("b" * 32, "Mewtwo", None) == "Mew"


def test_pages_are_counted_once_each_over_runs(tmp_path: Path) -> None:
    """Those of the ledger, of this run and of the lines of earlier ones, which had the id in their detail alone."""
    Records(tmp_path, {}).write(MEW, f"{URL}?1", "duplicate_bytes", "x", image_id=ID, page="http://b.example/1")
    Records(tmp_path, {}).write(MEW, f"{URL}?2", "duplicate_bytes", f"{ID} is stored for Mew")
    Records(tmp_path, {}).write(MEW, "file:Mew/1.png", "duplicate_bytes", f"{ID} is stored for Mew")
    Records(tmp_path, {}).write(MEW, f"{URL}?3", "too_small", f"{ID}")
    records = Records(tmp_path, {ID: "Mew"}, {ID: "http://a.example/"})
    assert list(records.recover()) == []
    assert records.pages_of(ID) == 3
    for page, pages in (("http://b.example/1", 3), (None, 3), ("http://a.example/", 3), ("http://c.example/", 4)):
        assert records.claim_image(ID, "Ditto", page) == "Mew"
        assert records.pages_of(ID) == pages
    assert records.placeholders() == {}
    records.claim_image(ID, "Ditto", "http://d.example/")
    assert records.placeholders() == {ID: 5}


@pytest.mark.parametrize("retry", [False, True])
def test_what_another_run_tried(tmp_path: Path, records: Records, retry: bool) -> None:
    records.save(MEW, URL, records.keep(MEW, b"bytes"), ROW)
    for status in ("http_404", "too_small", "duplicate_bytes", "duplicate_url"):
        records.write(MEW, f"{URL}?{status}", status)
    later, rows = recovered(tmp_path, {ID: "Mew"}, retry=retry)
    assert rows == []
    claims = {status: later.claim(f"{URL}?{status}", "Mew") for status in ("http_404", "too_small")}
    assert set(claims.values()) == {retry}
    assert not later.claim(URL, "Mew")
    assert not later.claim(f"{URL}?duplicate_bytes", "Mew")
    assert not later.claim(f"{URL}?duplicate_url", "Mew")
    for query, owner in (("", "Mew"), ("?http_404", "Mew"), ("?duplicate_url", "Ditto")):  # the first's is not known
        assert later.claim(URL + query, "Ditto")
        assert later.owner(URL + query) == owner


def test_a_long_address_that_was_stored_whole_is_known(tmp_path: Path, records: Records) -> None:
    url = "data:image/png;base64," + "A" * 300_000
    records.write(MEW, url, "blocked_scheme")
    later, _ = recovered(tmp_path)
    assert not later.claim(candidate_of(url, "q").url, "Mew")


def test_the_last_line_of_an_address_counts(tmp_path: Path, records: Records) -> None:
    records.write(MEW, URL, "http_404")
    records.write(MEW, URL, "duplicate_bytes")
    later, _ = recovered(tmp_path, retry=True)
    assert not later.claim(URL, "Mew")


# -- after a kill ---------------------------------------------------------------------------------------------------


def test_killed_before_the_line(tmp_path: Path, records: Records) -> None:
    target = tmp_path / ROW["path_raw"]
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(b"byt")
    later, rows = recovered(tmp_path)
    assert rows == []
    assert list(target.parent.iterdir()) == []
    assert later.claim(URL, "Mew")


def test_killed_before_the_name(tmp_path: Path, records: Records) -> None:
    records.save(MEW, URL, records.keep(MEW, b"bytes"), ROW)
    target = tmp_path / ROW["path_raw"]
    target.rename(part_of(target))
    later, rows = recovered(tmp_path)
    assert rows == [ROW]
    assert target.read_bytes() == b"bytes"
    assert not part_of(target).exists()
    assert not later.claim(URL, "Mew")
    assert later.claim_image(ID, "Ditto", None) == "Mew"


def test_killed_before_the_row(tmp_path: Path, records: Records) -> None:
    records.save(MEW, URL, records.keep(MEW, b"bytes"), ROW)
    assert recovered(tmp_path)[1] == [ROW]
    assert recovered(tmp_path, {ID: "Mew"})[1] == []


def test_killed_in_the_middle_of_a_line(tmp_path: Path, records: Records) -> None:
    records.write(MEW, URL, "http_404")
    path = tmp_path / MEW.folder / "urls.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    later, _ = recovered(tmp_path)
    assert path.read_bytes() == whole
    assert not later.claim(URL, "Mew")


def test_bytes_and_row_gone_by_hand(tmp_path: Path, records: Records) -> None:
    records.save(MEW, URL, records.keep(MEW, b"bytes"), ROW)
    (tmp_path / ROW["path_raw"]).unlink()
    later, rows = recovered(tmp_path)
    assert rows == []
    assert later.claim(URL, "Mew")


def test_killed_while_bytes_were_kept(tmp_path: Path, records: Records) -> None:
    kept = records.keep(MEW, b"bytes")
    assert kept.read_bytes() == b"bytes"
    assert recovered(tmp_path)[1] == []
    records.write(MEW, URL, "http_404")  # so that the folder is one of urls.jsonl
    recovered(tmp_path)
    assert [path.name for path in kept.parent.iterdir()] == ["urls.jsonl"]


def test_half_stored_search_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "data_raw/serpapi/.mew-00-123.json.gz.abc.tmp"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    recovered(tmp_path)
    assert list(leftover.parent.iterdir()) == []


LINE: dict[str, Any] = {"url": URL, "species": "Mew", "status": "saved"}


@pytest.mark.parametrize(
    "damage",
    [
        "not json\n",
        "[]\n",
        "7\n",
        "null\n",
        '"text"\n',
        "[" * 100_000 + "\n",
        '{"url": "x"}\n',
        json.dumps(LINE | {"url": 7}) + "\n",
        json.dumps(LINE | {"status": None}) + "\n",
        json.dumps(LINE | {"page": ["x"]}) + "\n",
        json.dumps(LINE | {"row": []}) + "\n",
        json.dumps(LINE | {"row": ROW | {"source_page": 7}}) + "\n",
        json.dumps(LINE | {"row": {"image_id": ID}}) + "\n",
        json.dumps(LINE | {"row": ROW | {"image_id": "../x"}}) + "\n",
        json.dumps(LINE | {"row": ROW | {"path_raw": "/etc/passwd"}}) + "\n",
        json.dumps(LINE | {"row": ROW | {"path_raw": "data_raw/../../passwd"}}) + "\n",
        json.dumps(LINE | {"row": ROW | {"path_raw": "metadata/a/b/c"}}) + "\n",
        json.dumps(LINE | {"row": ROW | {"path_raw": None}}) + "\n",
    ],
)
def test_damaged_line(tmp_path: Path, records: Records, damage: str) -> None:
    records.write(MEW, URL, "http_404")
    path = tmp_path / MEW.folder / "urls.jsonl"
    path.write_text(path.read_text() + damage + path.read_text())
    with pytest.raises(InputError) as refused:
        recovered(tmp_path)
    assert str(refused.value).startswith(f"{path} line 2 is damaged (")
    assert str(refused.value).endswith("): repair or remove that line")


@pytest.mark.parametrize("cell", [{"w": "wide"}, {"no_such_column": "x"}, {"title": ["no text"]}, {"is_nsfw": False}])
def test_a_row_that_no_ledger_can_hold(tmp_path: Path, records: Records, cell: dict[str, Any]) -> None:
    records.write(MEW, URL, "http_404")
    records.save(MEW, URL, records.keep(MEW, b"bytes"), ROW | cell)
    with pytest.raises(InputError) as refused:
        recovered(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / MEW.folder / 'urls.jsonl'} line 2 is damaged (")


def test_odd_addresses_survive(tmp_path: Path, records: Records) -> None:
    url = "http://a.example/\ud800\u2028\n\x00é"
    records.write(MEW, url, "invalid_url")
    assert [line["url"] for line in read_lines(tmp_path / MEW.folder / "urls.jsonl")] == [url]


def test_full_disk(records: Records, tmp_path: Path) -> None:
    """A device that is always full stands in for the disk."""
    folder = tmp_path / MEW.folder
    folder.mkdir(parents=True)
    (folder / "urls.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError) as failed:
        records.write(MEW, URL, "http_404")
    assert str(failed.value) == (
        f"cannot write in {folder}: No space left on device; fix that and run the same command again"
    )


def test_append_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "urls.jsonl"
    append_line(path, {"url": "a\nb", "species": "é", "status": "saved"}, durable=True)
    assert path.read_bytes().count(b"\n") == 1
