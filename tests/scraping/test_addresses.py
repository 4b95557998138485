"""Addresses of strangers: how they are stored, and in which form a server is asked."""

from __future__ import annotations

import contextlib
import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scraping.addresses import LONGEST, candidate_of, quote_address, redirected_to, stored_address, web_address
from scraping.hosts import ascii_host, plain_domain
from scraping.utils import MOST_PATIENCE_S, Refused, retry_after

DATA = "data:image/png;base64," + "iVBORw0KGgo" * 30_000


def test_a_long_address_is_stored_in_short_and_known_again() -> None:
    found = candidate_of(DATA, "q")
    assert len(found.url) < 300
    assert found.url.startswith("data:image/png;base64,iVBOR")
    assert str(len(DATA)) in found.url
    assert found.refused is not None and found.refused.slug == "blocked_scheme"
    assert candidate_of(DATA, "q").url == found.url
    assert candidate_of(DATA + "A", "q").url != found.url


@pytest.mark.parametrize("url", [f"http://a.example/{'x' * LONGEST}", f"http://[{'x' * LONGEST}"])
def test_a_long_address_is_not_asked_for(url: str) -> None:
    found = candidate_of(url, "q", page=url)
    assert found.refused is not None and found.refused.slug == "invalid_url"
    assert len(found.url) < 300 and found.page is not None and len(found.page) < 300


@given(st.text(st.characters(), max_size=200))
def test_a_short_address_stays_as_it_is(url: str) -> None:
    assert stored_address(url) == url
    assert candidate_of(url, "q").refused is None


def test_marks_that_spoof_a_terminal_are_escaped() -> None:
    found = candidate_of("http://a.example/\u202egnp.exe\x9b31m", "q", page="http://b.example/\x1b[31m\u2066")
    assert found.url == "http://a.example/%E2%80%AEgnp.exe%C2%9B31m"
    assert (found.page, found.domain) == ("http://b.example/ [31m", "b.example")


@pytest.mark.parametrize(
    ("host", "ascii_form"),
    [
        ("☃.net", "xn--n3h.net"),
        ("Pokémon.Example", "xn--pokmon-dva.example"),
        ("poke\u0301mon.example", "xn--pokmon-dva.example"),
        ("faß.de", "xn--fa-hia.de"),
        ("ｅｘａｍｐｌｅ．ｃｏｍ", "example.com"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("①②⑦.0.0.1", "127.0.0.1"),
        ("EXAMPLE.org", "example.org"),
        ("a_b.example", "a_b.example"),
    ],
)
def test_hosts_in_ascii(host: str, ascii_form: str) -> None:
    assert ascii_host(host) == ascii_form
    assert plain_domain(f"{host}.") == ascii_form
    assert web_address(f"http://{host}:81/é") == (f"http://{ascii_form}:81/é")


@pytest.mark.parametrize("host", ["a\u200eb.example", "\ufffd.example", f"{'é' * 64}.example", "é%41.example", "é .x"])
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(UnicodeError):
        ascii_host(host)


@given(st.text(st.characters(), max_size=50))
def test_any_host_is_compared_without_a_fault(host: str) -> None:
    assert isinstance(plain_domain(host), str)


@given(st.text(st.characters(), max_size=50))
def test_any_address_is_asked_for_or_refused(text: str) -> None:
    with contextlib.suppress(Refused, ValueError):
        assert web_address(f"http://{text}").startswith("http://")


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"/a b?c#d", "/a b?c#d"),
        ("/é☃".encode(), "/é☃"),
        (b"/\xe9?\xfc=%20", "/%E9?%FC=%20"),
        ("http://☃.net/a".encode(), "http://☃.net/a"),
    ],
)
def test_redirects(sent: bytes, text: str) -> None:
    assert redirected_to(sent) == text


@pytest.mark.parametrize(
    ("url", "quoted"),
    [
        ("http://a.example/a b/é?q=ü&x=%2F%zz%", "http://a.example/a%20b/%C3%A9?q=%C3%BC&x=%2F%25zz%25"),
        ("http://[::1]:80/(a)'!$*,;=~@:+[]", "http://[::1]:80/(a)'!$*,;=~@:+[]"),
        ('http://a.example/<"\\^`{|}>', "http://a.example/%3C%22%5C%5E%60%7B%7C%7D%3E"),
        ("http://a.example/%41%7e%E9", "http://a.example/%41%7e%E9"),
    ],
)
def test_what_goes_over_the_wire(url: str, quoted: str) -> None:
    assert quote_address(url) == quoted
    assert quote_address(quoted) == quoted


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 500, MOST_PATIENCE_S),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MOST_PATIENCE_S),
        ("Fri, 31 Dec 99999 23:59:59 GMT", MOST_PATIENCE_S),
        ("Fri, 31 Foo 2030 23:59:59 GMT", None),
        ("Fri, 99 Dec 2030 99:99:99 GMT", MOST_PATIENCE_S),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


@given(st.one_of(st.text(max_size=40), st.from_regex(r"[A-Z][a-z]{2}, \d{1,5} Dec -?\d{1,9} \d+:\d+:\d+ [+-]?\d{1,9}")))
def test_any_retry_after(value: str) -> None:
    found = retry_after(value)
    assert found is None or 0 <= found <= MOST_PATIENCE_S


def test_retry_after_a_date_to_come() -> None:
    seconds = retry_after(email.utils.formatdate(time.time() + 5000, usegmt=True))
    assert seconds is not None and 0 < seconds <= 5000
