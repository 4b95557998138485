"""Downloads from a real server that misbehaves in one way after the other: one test for each status."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from PIL import Image

from pokefa import __version__
from pokefa.errors import InputError, RunError
from pokefa.images.formats import FORMATS
from scraping.download import BUSY, MAX_REDIRECTS, TRIES, Downloader, is_opted_out, user_agent
from scraping.hosts import Hosts, check_domain, read_domains
from scraping.public_addresses import IPAddress, any_address, is_public
from scraping.utils import MOST_PATIENCE_S, Download, Limits, Refused, examine
from tests.scraping.conftest import TLS_FILE, Site, packed, picture

LIMITS = Limits(deadline=20.0)


def fetch(*urls: str, limits: Limits = LIMITS, allowed: Callable[[IPAddress], bool] = any_address) -> list[Download]:
    """Fetch addresses one after the other with one downloader."""

    async def fetch_all() -> list[Download]:
        async with Downloader(limits, user_agent("tests@example.org"), Hosts(), allowed=allowed) as downloader:
            return [await downloader.fetch(url) for url in urls]

    return asyncio.run(fetch_all())


def fetch_at_once(urls: Sequence[str], hosts: Callable[[], Hosts], limits: Limits = LIMITS) -> list[bytes]:
    """Fetch addresses all at once with one downloader."""

    async def fetch_all() -> list[bytes]:
        async with Downloader(limits, user_agent(None), hosts(), allowed=any_address) as downloader:
            return [got.data for got in await asyncio.gather(*map(downloader.fetch, urls))]

    return asyncio.run(fetch_all())


def refusal(url: str, limits: Limits = LIMITS, allowed: Callable[[IPAddress], bool] = any_address) -> tuple[str, str]:
    """Fetch what must be refused; return the status and its detail."""
    with pytest.raises(Refused) as refused:
        fetch(url, limits=limits, allowed=allowed)
    return refused.value.slug, refused.value.detail


# -- what is fetched ------------------------------------------------------------------------------------------------


def test_bytes_come_as_they_are(site: Site) -> None:
    data = picture(1)
    (got,) = fetch(site.add("/a.png", data, headers={"Content-Type": "text/html"}))
    assert got.data == data
    assert got.content_type == "text/html"  # a claim, which decides nothing
    headers = site.requests[0][1]
    assert headers["User-Agent"] == f"PokeFA/{__version__} (dataset builder; contact: tests@example.org)"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Accept"].split(",") == [*(form.media_type for form in FORMATS.values()), "*/*;q=0.1"]
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
    assert [got.data for got in fetch(url, url, url)] == [b"abc"] * 3
    assert len(set(ports)) == 1


def test_redirects_are_followed(site: Site) -> None:
    site.add("/3", b"there")
    site.add("/2", status=301, headers={"Location": "/3"})
    url = site.add("/1", status=302, headers={"Location": site.url("/2")})
    assert fetch(url)[0].data == b"there"


def test_cookies_are_not_kept(site: Site) -> None:
    url = site.add("/a", b"x", headers={"Set-Cookie": "who=me"})
    fetch(url, url)
    assert "Cookie" not in site.requests[1][1]


def test_tls_is_checked_against_the_name(secure_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    secure_site.add("/a", b"secret")
    assert refusal(secure_site.url("/a", "localhost"))[0] == "tls_failed"  # nobody vouches for the certificate
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS_FILE))
    assert fetch(secure_site.url("/a", "localhost"))[0].data == b"secret"
    assert refusal(secure_site.url("/a", "127.0.0.1"))[0] == "tls_failed"  # it is for another name


def test_no_proxy_and_no_password_of_the_user(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(site.add("/a", b"direct"))[0].data == b"direct"
    assert "Authorization" not in site.requests[0][1]


def test_certificates_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "none.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    with pytest.raises(InputError) as refused:
        Downloader(LIMITS, user_agent(None), Hosts())
    assert str(refused.value) == (
        f"REQUESTS_CA_BUNDLE {path} cannot be read (No such file or directory): name a file of certificates"
    )


def test_tls_with_a_server_that_speaks_none(site: Site) -> None:
    assert refusal(site.url("/a").replace("http://", "https://"))[0] == "tls_failed"


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 403, 410, 429, 500, 503, 204])
def test_http_status(site: Site, status: int) -> None:
    url = site.add("/a", b"" if status == 204 else b"no", status, {"Retry-After": "0"})
    assert refusal(url)[0] == f"http_{status}"
    assert len(site.requests) == (TRIES if status in BUSY else 1)


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
        f"http://{'é' * 64}.org/",
        "http://exa\ufffdmple.org/",
        "http://\u200e.org/",
        f"http://example.org/{'a' * 9000}",
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


def test_too_few_file_descriptors_are_no_fault_of_the_address(site: Site) -> None:
    url = site.add("/a", b"x")

    async def fetch_without() -> None:
        async with Downloader(LIMITS, user_agent(None), Hosts(), allowed=any_address) as downloader:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with socket.socket() as last:
                resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 1, hard))
                try:
                    await downloader.fetch(url)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(RunError, match=r": lower --concurrency, or raise the limit \(ulimit -n\), and run again$"):
        asyncio.run(fetch_without())


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


@pytest.mark.parametrize("coding", ["gzip", "X-GZIP", "deflate", "br", "zstd", "identity", "br, gzip"])
def test_a_server_that_compresses_all_the_same(site: Site, coding: str) -> None:
    data = picture(1)
    (got,) = fetch(site.add("/a", packed(data, coding), headers={"Content-Encoding": coding}))
    assert got.data == data
    assert site.requests[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "gzip, gzip"])
def test_a_packed_bomb_ends_at_the_cap(site: Site, coding: str) -> None:
    url = site.add("/a", packed(bytes(20_000_000), coding), headers={"Content-Encoding": coding})
    assert refusal(url, Limits(max_bytes=100_000)) == ("too_many_bytes", "over 100000 bytes")


def test_an_unknown_coding(site: Site) -> None:
    url = site.add("/a", b"data", headers={"Content-Encoding": "compress"})
    assert refusal(url) == ("unsupported_encoding", "Content-Encoding: compress")


@pytest.mark.parametrize("form", ["utf-8", "latin-1"])
def test_a_redirect_that_is_not_ascii(site: Site, form: str) -> None:
    """The server gets the bytes back that it has sent, whatever they meant."""

    def away(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write("HTTP/1.1 302 Found\r\nLocation: /é.png?ü\r\nContent-Length: 0\r\n\r\n".encode(form))

    target = "/%C3%A9.png?%C3%BC" if form == "utf-8" else "/%E9.png?%FC"
    site.add(target, b"there")
    assert fetch(site.add_route("/a", away))[0].data == b"there"


def test_a_host_in_other_letters(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def local(host: object, *more: object, **named: object) -> object:
        asked.append(host.decode() if isinstance(host, bytes) else str(host))
        return resolve("127.0.0.1", *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", local)
    site.add("/a", b"snow")
    site.add("/b", status=302, headers={"Location": site.url("/a", "STRAẞE.example").encode().decode("latin-1")})
    assert fetch(site.url("/a", "☃.net"))[0].data == b"snow"
    assert fetch(site.url("/b", "Pokémon。example"))[0].data == b"snow"
    hosts = ["xn--n3h.net", "xn--pokmon-dva.example", "xn--strae-oqa.example"]
    assert [name.split(":")[0] for name in (headers["Host"] for _, headers in site.requests)] == hosts
    assert [host for host in asked if host != "127.0.0.1"] == hosts


@pytest.mark.parametrize("value", ["99999999999999999999", "Fri, 31 Dec 99999 23:59:59 GMT", "9" * 5000])
def test_a_wait_that_nobody_can_wait(site: Site, value: str) -> None:
    slug, detail = refusal(site.add("/a", status=503, headers={"Retry-After": value}))
    assert (slug, detail) == ("host_busy", f"127.0.0.1 asks for a pause of {MOST_PATIENCE_S:.0f} seconds")
    assert len(site.requests) == 1


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


# -- connections to one host ----------------------------------------------------------------------------------------


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
    assert fetch_at_once([url] * 12, lambda: Hosts(3)) == [b"ok"] * 12
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
    assert fetch_at_once(urls, lambda: Hosts(1)) == [b"", b""]


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
    assert fetch_at_once(urls, lambda: Hosts(1)) == [b"there"] * 2


def test_waiting_for_a_turn_is_no_part_of_the_deadline(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the second file waits for the turn that the first has, an hour passes on the loop's clock."""
    url = site.add("/a", b"late")

    async def wait_and_fetch() -> bytes:
        loop, hosts = asyncio.get_running_loop(), Hosts(1)
        async with Downloader(LIMITS, user_agent(None), hosts, allowed=any_address) as downloader:
            async with hosts.turn("127.0.0.1"):
                late = asyncio.create_task(downloader.fetch(url))
                await asyncio.sleep(0)
                clock = loop.time
                monkeypatch.setattr(loop, "time", lambda: clock() + 3600)
                await asyncio.sleep(0.01)
                assert not late.done() and site.requests == []
            return (await late).data

    assert asyncio.run(wait_and_fetch()) == b"late"


# -- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0", "127.1", "2130706433", "0x7f.0.0.1"])
def test_blocked_address(site: Site, host: str) -> None:
    assert refusal(f"http://{host}/a.png", allowed=is_public)[0] == "blocked_address"
    assert site.requests == []


def test_blocked_port() -> None:
    found = refusal("http://127.0.0.1:6379/a.png", allowed=is_public)
    assert found == ("blocked_address", "port 6379 is not 80 or 443")


def test_every_hop_is_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server at 127.0.0.1, here taken for public, sends to 127.0.0.2, which is not."""
    monkeypatch.setattr("scraping.download.WEB_PORTS", (80, 443, site.port))
    asked: list[str] = []

    def only_the_first(address: IPAddress) -> bool:
        asked.append(str(address))
        return str(address) == "127.0.0.1"

    url = site.add("/a", status=302, headers={"Location": site.url("/b", "127.0.0.2")})
    detail = "127.0.0.2 is 127.0.0.2, which is not on the public internet"
    assert refusal(url, allowed=only_the_first) == ("blocked_address", detail)
    assert list(dict.fromkeys(asked)) == ["127.0.0.1", "127.0.0.2"]
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
    (got,) = fetch(url, allowed=lambda address: str(address) == "127.0.0.1")
    assert got.data == b"hello"
    assert site.requests[0][1]["Host"] == f"rebinding.test:{site.port}"


def test_one_blocked_address_among_several_blocks_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(host: str, port: int, *more: object, **named: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("8.8.8.8", port)), (*kind, ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    detail = "both.test is 10.0.0.1, which is not on the public internet"
    assert refusal("http://both.test/a.png", allowed=is_public) == ("blocked_address", detail)


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
    assert fetch(url, limits=Limits(ignore_opt_out=True))[0].data == b"image"


# -- excluded domains ----------------------------------------------------------------------------------------------


def excluding(*domains: str) -> Limits:
    return Limits(deadline=20.0, excluded=frozenset(domains))


def test_excluded_domain(site: Site) -> None:
    url = site.add("/a", b"image")
    detail = "127.0.0.1: --exclude-domains names 127.0.0.1"
    assert refusal(url, excluding("127.0.0.1")) == ("excluded_domain", detail)
    assert site.requests == []
    assert fetch(url, limits=excluding("example.org"))[0].data == b"image"


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


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
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
    assert examined(page) == ("not_an_image", "the bytes match no known image format")


def test_unsupported_format() -> None:
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="300"/>'
    assert examined(drawing) == ("unsupported_format", "SVG is not supported")


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_image(form: str) -> None:
    data = picture(3, (600, 600), form)
    assert examined(data[: len(data) // 2])[0] == "truncated"


def test_empty_file() -> None:
    assert examined(b"") == ("empty_file", "0 bytes")
