"""Pictures of the pages: what cannot be decoded is named in its place, and holds nobody up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metadata.takedown import hash_if_any
from pokefa.errors import ImageError
from pokefa.images.decoding import Limits, use_limits
from pokefa.reporting.review_pictures import small_pictures
from pokefa.reporting.thumbnails import PROBLEM, small_picture, thumbnail
from pokefa.takedown.records import hash_picture
from tests.attack import images


@pytest.fixture
def little_time() -> Iterator[None]:
    use_limits(Limits(seconds=0.5))
    yield
    use_limits(Limits())


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow.bmp"
    path.write_bytes(images.bmp_run_length(9_900))
    return path


def test_a_picture_that_decodes_for_ever_is_named(little_time: None, slow: Path, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(images.png_with())
    assert thumbnail(tmp_path, slow.name, 100).problem == "decode_timeout"
    assert small_picture(tmp_path, slow.name) == f"{PROBLEM}decode_timeout"
    assert [made[:1] for made in small_pictures(tmp_path, ["good.png", "slow.bmp", "good.png"])] == ["U", PROBLEM, "U"]


def test_a_takedown_goes_on_without_its_hash(little_time: None, slow: Path) -> None:
    with pytest.raises(ImageError, match=r"^decode_timeout: "):
        hash_picture(slow)
    assert hash_if_any(slow) is None


def test_other_formats_have_thumbnails(tmp_path: Path) -> None:
    for form in ("AVIF", "GIF", "BMP", "TIFF"):
        (tmp_path / "picture").write_bytes(images.encoded(images.picture(), form))
        made = thumbnail(tmp_path, "picture", 32)
        assert (made.width, made.height, made.problem) == (32, 32, "")
