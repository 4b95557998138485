"""Bodies that come packed: whole in any chunks, never over the cap, and damage is named."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scraping.content_coding import Body
from scraping.utils import Refused
from tests.scraping.conftest import packed

CODINGS = ["", "identity", "gzip", "deflate", "br", "zstd", "gzip, br", "zstd, deflate, gzip"]


def unpack(data: bytes, coding: str, most: int = 10**6, size: int = 100) -> bytes:
    body = Body(coding, most)
    for start in range(0, len(data), size):
        body.add(data[start : start + size])
    return body.finish()


@given(st.binary(max_size=2000), st.sampled_from(CODINGS), st.integers(1, 500))
def test_what_was_packed(data: bytes, coding: str, size: int) -> None:
    assert unpack(packed(data, coding), coding, size=size) == data


def test_raw_deflate() -> None:
    """Some servers leave out the header that RFC 9110 asks for."""
    packer = zlib.compressobj(wbits=-15)
    assert unpack(packer.compress(b"abc" * 99) + packer.flush(), "deflate") == b"abc" * 99


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("over", [0, 1])
def test_the_cap_is_exact(coding: str, over: int) -> None:
    data = packed(bytes(range(256)) * 40, coding)
    most = 256 * 40 - over
    if over:
        with pytest.raises(Refused, match=rf"^too_many_bytes: over {most} bytes$"):
            unpack(data, coding, most)
    else:
        assert len(unpack(data, coding, most)) == most


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "br, gzip"])
def test_a_bomb_is_unpacked_no_further_than_the_cap(coding: str) -> None:
    body = Body(coding, 10_000)
    with pytest.raises(Refused, match=r"^too_many_bytes"):
        body.add(packed(bytes(50_000_000), coding))
    assert len(body._data) <= 10_001 + 2**16  # Brotli fills its last block


def test_what_unpacks_to_nothing_counts_as_sent() -> None:
    with pytest.raises(Refused, match=r"^too_many_bytes"):
        unpack(packed(b"", "gzip") * 1000, "gzip", 5000)


@pytest.mark.parametrize("coding", ["compress", "gzip, rot13", "gzip;q=1", ", ".join(["gzip"] * 6)])
def test_codings_that_are_not_known(coding: str) -> None:
    with pytest.raises(Refused, match=rf"^unsupported_encoding: Content-Encoding: {coding}$"):
        Body(coding, 100)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_what_is_not_packed_as_it_says(coding: str) -> None:
    with pytest.raises(Refused, match=r"^truncated: the compressed data are damaged"):
        unpack(b"\xff\xd8\xff\xe0 no such data" * 9, coding)


def test_packed_data_that_end_too_early() -> None:
    with pytest.raises(Refused, match=r"^truncated: the compressed data are damaged"):
        unpack(packed(bytes(range(256)), "zstd")[:-9], "zstd")
