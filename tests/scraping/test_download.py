"""Downloads from a real server that misbehaves in one way after the other: one test for each status."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pokefa import __version__
from pokefa.errors import Interrupted
from pokefa.formats import FORMATS
from scraping.download import (
    MAX_REDIRECTS,
    Connections,
    Downloader,
    IPAddress,
    any_address,
    is_opted_out,
    is_public,
    user_agent,
)
from scraping.hosts import check_domain, read_domains
from scraping.utils import Limits, Refused, examine
from tests.scraping.conftest import TLS_FILE, Site, picture

LIMITS = Limits(deadline=20.0)


def downloader(limits: Limits = LIMITS) -> Downloader:
    return Downloader(limits, user_agent("tests@example.org"), allowed=any_address)


def refusal(url: str, limits: Limits = LIMITS) -> tuple[str, str]:
    """Fetch what must be refused; return the status and its detail."""
    with pytest.raises(Refused) as refused:
        downloader(limits).fetch(url)
    return refused.value.slug, refused.value.detail


# -- what is fetched ------------------------------------------------------------------------------------------------


def test_bytes_come_as_they_are(site: Site) -> None:
    data = picture(1)
    got = downloader().fetch(site.add("/a.png", data, headers={"Content-Type": "text/html"}))
    assert got.data == data
    assert got.content_type == "text/html"  # a claim, which decides nothing
    headers = site.requests[0][1]
    assert headers["User-Agent"] == f"PokeFA/{__version__} (dataset builder; contact: tests@example.org)"
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers and "Authorization" not in headers


def test_one_connection_serves_many_files_of_a_host(site: Site) -> None:
    ports: list[int] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        ports.append(handler.client_address[1])
        handler.send_response(200)
        handler.send_header("Content-Length", "3")
        handler.end_headers()
        handler.wfile.write(b"abc")

    url = site.add_route("/a", answer)
    getter = downloader()
    for _ in range(3):
        assert getter.fetch(url).data == b"abc"
    assert len(set(ports)) == 1


def test_redirects_are_followed(site: Site) -> None:
    site.add("/3", b"there")
    site.add("/2", status=301, headers={"Location": "/3"})
    url = site.add("/1", status=302, headers={"Location": site.url("/2")})
    assert downloader().fetch(url).data == b"there"


def test_cookies_are_not_kept(site: Site) -> None:
    url = site.add("/a", b"x", headers={"Set-Cookie": "who=me"})
    getter = downloader()
    getter.fetch(url)
    getter.fetch(url)
    assert "Cookie" not in site.requests[1][1]


def test_tls_is_checked_against_the_name(secure_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    secure_site.add("/a", b"secret")
    assert refusal(secure_site.url("/a", "localhost"))[0] == "tls_failed"  # nobody vouches for the certificate
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS_FILE))
    assert downloader().fetch(secure_site.url("/a", "localhost")).data == b"secret"
    assert refusal(secure_site.url("/a", "127.0.0.1"))[0] == "tls_failed"  # it is for another name


def test_tls_with_a_server_that_speaks_none(site: Site) -> None:
    assert refusal(site.url("/a").replace("http://", "https://"))[0] == "tls_failed"


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 403, 410, 429, 500, 503, 204])
def test_http_status(site: Site, status: int) -> None:
    assert refusal(site.add("/a", b"" if status == 204 else b"no", status))[0] == f"http_{status}"


def test_redirect_without_a_target(site: Site) -> None:
    assert refusal(site.add("/a", status=302)) == ("http_302", "Found")


def test_too_many_redirects(site: Site) -> None:
    for number in range(10_000):
        site.add(f"/{number}", status=302, headers={"Location": f"/{number + 1}"})
    assert refusal(site.url("/0")) == ("too_many_redirects", f"more than {MAX_REDIRECTS}")
    assert len(site.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("location", "detail"),
    [("ftp://example.org/a.png", "ftp is not http or https"), ("file:///etc/passwd", "file is not http or https")],
)
def test_redirect_to_another_scheme(site: Site, location: str, detail: str) -> None:
    assert refusal(site.add("/a", status=302, headers={"Location": location})) == ("blocked_scheme", detail)


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("ftp://example.org/a.png", "ftp"),
        ("file:///etc/passwd", "file"),
        ("data:image/png;base64,AAAA", "data"),
        ("javascript:alert(1)", "javascript"),
        ("//example.org/a.png", "no scheme"),
        ("", "no scheme"),
    ],
)
def test_blocked_scheme(url: str, scheme: str) -> None:
    assert refusal(url) == ("blocked_scheme", f"{scheme} is not http or https")


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.png",
        "http://user:word@example.org/",
        "http://user@127.0.0.1/",
        "http://[::1",
        "http://example.org:port/",
        "http://exam\x00ple.org/",
        "http://example.org/\ud800",
        f"http://{'a' * 64}.org/",
    ],
)
def test_invalid_url(url: str) -> None:
    assert refusal(url)[0] == "invalid_url"


def test_dns_failed() -> None:
    assert refusal("http://no-such-host.invalid/a.png") == ("dns_failed", "the host's name has no address")


def test_connection_failed() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/a.png") == ("connection_failed", "Connection refused")


def test_connection_failed_without_an_answer(site: Site) -> None:
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.shutdown(socket.SHUT_RDWR)

    assert refusal(site.add_route("/a", hang_up))[0] == "connection_failed"


def test_truncated_body(site: Site) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"only this")

    assert refusal(site.add_route("/a", cut)) == ("truncated", "the connection ended before the file did")


def test_truncated_chunks(site: Site) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"ff\r\nonly this")

    assert refusal(site.add_route("/a", cut))[0] == "truncated"


def test_too_many_bytes_whatever_the_header_says(site: Site) -> None:
    sent = threading.Event()

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"\0" * 65_536)
        finally:
            sent.set()

    assert refusal(site.add_route("/a", flood), Limits(max_bytes=1_000_000)) == (
        "too_many_bytes",
        "over 1000000 bytes",
    )
    assert sent.wait(10)  # the server saw the connection end


def test_compressed_body_is_not_unpacked(site: Site) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    got = downloader(Limits(max_bytes=100_000)).fetch(site.add("/a", bomb, headers={"Content-Encoding": "gzip"}))
    assert got.data == bomb
    with pytest.raises(Refused, match="not_an_image"):
        examine(got.data, LIMITS)


def test_timeout_of_a_server_that_sends_a_byte_now_and_then(site: Site) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)

    assert refusal(site.add_route("/a", trickle), Limits(deadline=0.5)) == ("timeout", "not done after 0.5 seconds")


def test_timeout_of_a_body_without_a_length(site: Site) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)

    assert refusal(site.add_route("/a", trickle), Limits(deadline=0.5))[0] == "timeout"


def test_timeout_of_headers_that_never_end(site: Site) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(b"X")
            time.sleep(0.02)

    assert refusal(site.add_route("/a", trickle), Limits(deadline=0.5))[0] == "timeout"


def test_timeout_over_tls(secure_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS_FILE))
    secure_site.add_route("/a", trickle)
    assert refusal(secure_site.url("/a", "localhost"), Limits(deadline=1.0))[0] == "timeout"


def test_timeout_of_a_silent_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts in the kernel, and nobody reads
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        assert refusal(url, Limits(deadline=0.5))[0] == "timeout"
        assert refusal(url.replace("http:", "https:"), Limits(deadline=0.5))[0] == "timeout"


def test_timeout_counts_redirects(site: Site) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        handler.send_response(302)
        handler.send_header("Location", "/a")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    assert refusal(site.add_route("/a", slow), Limits(deadline=0.7))[0] == "timeout"


def test_a_stopped_run_ends_its_download(site: Site) -> None:
    stop = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"x")
            stop.set()
            time.sleep(0.01)

    url = site.add_route("/a", trickle)
    with pytest.raises(Interrupted):
        Downloader(LIMITS, user_agent(None), allowed=any_address, stop=stop).fetch(url)


# -- connections to one host ----------------------------------------------------------------------------------------


def fetch_at_once(urls: list[str], connections: Connections, limits: Limits = LIMITS) -> list[bytes]:
    """Fetch each address in a thread and with a downloader of its own."""

    def fetch(url: str) -> bytes:
        return Downloader(limits, user_agent(None), allowed=any_address, connections=connections).fetch(url).data

    with ThreadPoolExecutor(len(urls)) as threads:
        return list(threads.map(fetch, urls))


def test_connections_to_one_host(site: Site) -> None:
    """Twelve threads and three connections: never more, and all three at once, or the barrier would break."""
    three = threading.Barrier(3)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        three.wait(20)
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"ok")

    url = site.add_route("/a", answer)
    assert fetch_at_once([url] * 12, Connections(3)) == [b"ok"] * 12
    assert site.most_open == 3


def test_hosts_do_not_wait_for_each_other(site: Site) -> None:
    """Two names of the same server: each has a connection, and both are needed to go on."""
    both = threading.Barrier(2)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        both.wait(20)
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    site.add_route("/a", answer)
    urls = [site.url("/a"), site.url("/a", "localhost")]
    assert fetch_at_once(urls, Connections(1)) == [b"", b""]


def test_redirects_wait_for_their_hosts_turn_and_hold_no_other(site: Site) -> None:
    """With one connection each, two files whose redirects cross over would otherwise wait for each other for ever."""
    both = threading.Barrier(2)
    for path, host in (("/a", "localhost"), ("/b", "127.0.0.1")):

        def away(handler: BaseHTTPRequestHandler, location: str = site.url("/c", host)) -> None:
            both.wait(20)
            handler.send_response(302)
            handler.send_header("Location", location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        site.add_route(path, away)
    site.add("/c", b"there")
    urls = [site.url("/a"), site.url("/b", "localhost")]
    assert fetch_at_once(urls, Connections(1)) == [b"there"] * 2


def test_waiting_for_a_turn_is_no_part_of_the_deadline(site: Site) -> None:
    connections = Connections(1)
    url = site.add("/a", b"late")
    with ThreadPoolExecutor(1) as threads:
        with connections.slots.turn("127.0.0.1", threading.Event()):
            late = threads.submit(fetch_at_once, [url], connections, Limits(deadline=1.0))
            time.sleep(1.3)
            assert not late.done() and site.requests == []
        assert late.result(20) == [b"late"]


def test_waiting_for_a_turn_ends_with_the_run(site: Site) -> None:
    stop, connections = threading.Event(), Connections(1)
    getter = Downloader(LIMITS, user_agent(None), allowed=any_address, stop=stop, connections=connections)
    with connections.slots.turn("127.0.0.1", stop):
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(Interrupted, match=r"^interrupted while waiting for a host$"):
            getter.fetch(site.add("/a"))
    assert site.requests == []


# -- addresses ------------------------------------------------------------------------------------------------------

PUBLIC = ["8.8.8.8", "151.101.1.140", "2606:4700::1111", "64:ff9b::808:808"]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.8.8.8",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:8.8.8.8",
    "::ffff:127.0.0.1",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_no_ipv6_form_leads_around_the_check(address: ipaddress.IPv4Address) -> None:
    bits = int(address)
    assert not is_public(ipaddress.IPv6Address((0xFFFF << 32) | bits))
    assert not is_public(ipaddress.IPv6Address((0x2002 << 112) | (bits << 80)))
    assert is_public(ipaddress.IPv6Address((0x64FF9B << 96) | bits)) == is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0", "127.1", "2130706433", "0x7f.0.0.1"])
def test_blocked_address(site: Site, host: str) -> None:
    with pytest.raises(Refused) as refused:
        Downloader(LIMITS, user_agent(None)).fetch(f"http://{host}/a.png")
    assert refused.value.slug == "blocked_address"
    assert site.requests == []


def test_blocked_port() -> None:
    with pytest.raises(Refused, match=r"^blocked_address: port 6379 is not 80 or 443$"):
        Downloader(LIMITS, user_agent(None)).fetch("http://127.0.0.1:6379/a.png")


def test_every_hop_is_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server at 127.0.0.1, here taken for public, sends to 127.0.0.2, which is not."""
    monkeypatch.setattr("scraping.download.WEB_PORTS", (80, 443, site.port))
    asked: list[str] = []

    def only_the_first(address: IPAddress) -> bool:
        asked.append(str(address))
        return str(address) == "127.0.0.1"

    url = site.add("/a", status=302, headers={"Location": site.url("/b", "127.0.0.2")})
    with pytest.raises(Refused) as refused:
        Downloader(LIMITS, user_agent(None), allowed=only_the_first).fetch(url)
    assert str(refused.value) == "blocked_address: 127.0.0.2 is 127.0.0.2, which is not on the public internet"
    assert asked == ["127.0.0.1", "127.0.0.2"]
    assert [path for path, _ in site.requests] == ["/a"]


def test_the_checked_address_is_the_one_connected_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers first with one address and then with another gets asked once."""
    monkeypatch.setattr("scraping.download.WEB_PORTS", (80, 443, site.port))
    answers = iter(["127.0.0.1", "127.0.0.3", "127.0.0.3"])
    resolve = socket.getaddrinfo

    def rebinding(host: str, *more: object, **named: object) -> object:
        return resolve(next(answers) if host == "rebinding.test" else host, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = site.url("/a", "rebinding.test")
    site.add("/a", b"hello")
    got = Downloader(LIMITS, user_agent(None), allowed=lambda address: str(address) == "127.0.0.1").fetch(url)
    assert got.data == b"hello"
    assert site.requests[0][1]["Host"] == f"rebinding.test:{site.port}"


def test_one_blocked_address_among_several_blocks_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(host: str, port: int, *more: object, **named: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("8.8.8.8", port)), (*kind, ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with pytest.raises(Refused, match=r"^blocked_address: both\.test is 10\.0\.0\.1, which is not on the public inte"):
        Downloader(LIMITS, user_agent(None)).fetch("http://both.test/a.png")


# -- opting out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["noai"], True),
        (["noimageai"], True),
        (["NoAI, NoImageAI"], True),
        (["noindex, noai"], True),
        (["noindex", "noai"], True),
        (["pokefa: noai"], True),
        (["*: noai"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], True),
        (["max-image-preview: large, noimageai"], True),
        (["otherbot: noai"], False),
        (["otherbot: noindex, noai"], False),
        (["otherbot: noai, pokefa: noai"], True),
        (["otherbot: noindex", "noai"], True),
        (["noindex, nofollow"], True),
        (["None"], True),
        (["noindexes", "nofollow, noarchive"], False),
        (["otherbot: none"], False),
        (["all"], False),
        ([""], False),
        ([], False),
    ],
)
def test_opt_out_directives(tags: list[str], expected: bool) -> None:
    assert is_opted_out(tags) is expected


def test_opted_out(site: Site) -> None:
    url = site.add("/a", b"image", headers={"X-Robots-Tag": "noai"})
    assert refusal(url) == ("opted_out", "X-Robots-Tag: noai")
    url = site.add("/a", b"image", headers={"X-Robots-Tag": "noindex"})
    assert refusal(url) == ("opted_out", "X-Robots-Tag: noindex")
    assert downloader(Limits(ignore_opt_out=True)).fetch(url).data == b"image"


# -- excluded domains ----------------------------------------------------------------------------------------------


def excluding(*domains: str) -> Limits:
    return Limits(deadline=20.0, excluded=frozenset(domains))


def test_excluded_domain(site: Site) -> None:
    url = site.add("/a", b"image")
    detail = "127.0.0.1: --exclude-domains names 127.0.0.1"
    assert refusal(url, excluding("127.0.0.1")) == ("excluded_domain", detail)
    assert site.requests == []
    assert downloader(excluding("example.org")).fetch(url).data == b"image"


def test_redirect_to_an_excluded_domain(site: Site) -> None:
    url = site.add("/a", status=302, headers={"Location": site.url("/b", "art.LOCALHOST")})
    detail = "art.localhost: --exclude-domains names localhost"
    assert refusal(url, excluding("localhost")) == ("excluded_domain", detail)
    assert [path for path, _ in site.requests] == ["/a"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("example.org", True),
        ("EXAMPLE.ORG.", True),
        ("a.b.example.org", True),
        ("notexample.org", False),
        ("example.org.net", False),
        ("org", False),
        ("pokémon.example", True),
        ("cdn.xn--pokmon-dva.example", True),
        (None, False),
    ],
)
def test_a_domain_covers_its_sub_domains(tmp_path: Path, host: str | None, expected: bool) -> None:
    path = tmp_path / "domains.txt"
    path.write_text("# what asked to be left alone\n\nExample.org  # by mail\nPokémon.example.\n", encoding="utf-8")
    excluded = read_domains(path)
    assert excluded == {"example.org", "xn--pokmon-dva.example"}
    try:
        check_domain(host, excluded)
    except Refused as refusal:
        assert expected and refusal.slug == "excluded_domain"
    else:
        assert not expected


# -- what the bytes are ---------------------------------------------------------------------------------------------


def examined(data: bytes, limits: Limits = LIMITS) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        examine(data, limits)
    return refused.value.slug, refused.value.detail


@pytest.mark.parametrize("form", FORMATS)
def test_formats(form: str) -> None:
    found = examine(picture(5, (400, 300), form), LIMITS)
    assert (found.fmt, found.w, found.h) == (form, 400, 300)


def test_sums_and_size_after_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    found = examine(picture(5, (400, 300), "JPEG", exif=exif), LIMITS)
    assert (found.w, found.h) == (300, 400)
    assert len(found.image_id) == 32 and len(found.sha256) == 64


def test_sums_of_known_bytes() -> None:
    data = picture(7)
    found = examine(data, LIMITS)
    assert found.image_id == hashlib.md5(data).hexdigest()
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_too_small() -> None:
    assert examined(picture(1, (255, 400))) == ("too_small", "255x400: a side is under 256 pixels")
    assert examine(picture(1, (256, 400)), LIMITS).w == 256


@pytest.mark.parametrize("size", [(260, 1041), (1041, 260)])
def test_bad_aspect(size: tuple[int, int]) -> None:
    name = "x".join(map(str, size))
    assert examined(picture(1, size)) == ("bad_aspect", f"{name}: one side is over 4 times the other")
    assert examined(picture(1, size), Limits(max_aspect=2.5)) == (
        "bad_aspect",
        f"{name}: one side is over 2.5 times the other",
    )
    assert examine(picture(1, size), Limits(max_aspect=5)).w == size[0]
    assert examine(picture(1, (260, 1040)), LIMITS).h == 1040


def test_too_many_pixels() -> None:
    slug, detail = examined(picture(1, (400, 300)), Limits(max_pixels=119_999))
    assert (slug, detail) == ("too_many_pixels", "400x300 is over 119999 pixels")


def test_not_an_image() -> None:
    page = b"<!doctype html><title>image.jpg</title>"
    assert examined(page) == ("not_an_image", "the bytes are in no known image format")


def test_unsupported_format() -> None:
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="300"/>'
    assert examined(drawing) == ("unsupported_format", "SVG is not read")


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_image(form: str) -> None:
    data = picture(3, (600, 600), form)
    assert examined(data[: len(data) // 2])[0] == "truncated"


def test_accept_names_the_formats(site: Site) -> None:
    downloader().fetch(site.add("/picture", picture(1)))
    accepted = site.requests[-1][1]["Accept"].split(",")
    assert accepted == [*(form.media_type for form in FORMATS.values()), "*/*;q=0.1"]


def test_empty_file() -> None:
    assert examined(b"") == ("empty_file", "0 bytes")
