"""Fetching one image from an untrusted URL.

Only http and https are allowed. Redirects are followed here, and the resolved IP addresses of each hop are checked
before connecting. Private networks are refused unless allowed. Bytes are capped while streaming. One deadline applies
to the complete file, so a server cannot send one byte per second. Waiting for a host's turn does not count. Every
refusal has a slug.

aiohttp does this through public interfaces: its resolver and its sockets are ours, `asyncio.timeout` is the deadline,
and hundreds of downloads share one thread.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urljoin

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pokefa import __version__
from pokefa.errors import InputError, RunError, first_line
from pokefa.images.formats import ACCEPT
from scraping.addresses import quote_address, redirected_to, web_address
from scraping.content_coding import Body
from scraping.event_loop import Threads
from scraping.hosts import CONCURRENCY, Hosts, check_domain
from scraping.public_addresses import IPAddress, any_address, is_public
from scraping.utils import Busy, Download, Limits, Refused, retry_after

WAIT_S = 10.0  # for a connection, and for each read
MAX_REDIRECTS = 5
TRIES = 3  # attempts for a file whose host is busy
WEB_PORTS = (80, 443)
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (429, 503)  # too many requests, service unavailable: the host works and asks to wait
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)  # resources that this machine lacks
KEPT_S = 2.0  # how long an idle connection stays open; longer would keep connections to hundreds of hosts

# Directives of X-Robots-Tag that keep images out of training sets, or out of any index.
# "none" is short for "noindex, nofollow".
OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "none"})
# Directives with a value: the text before the colon is not the name of a robot.
VALUED_DIRECTIVES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
ROBOT = "pokefa"


def user_agent(contact: str | None) -> str:
    """Return the User-Agent, which tells a site who fetches its images and whom to contact."""
    return f"PokeFA/{__version__} (dataset builder; contact: {contact or 'none given'})"


def is_opted_out(tags: Iterable[str]) -> bool:
    """Tell whether X-Robots-Tag headers keep an image out of training sets or out of every index.

    A directive after the name of a robot, as in `otherbot: noai, noindex`, counts only for that robot.
    """
    for tag in tags:
        addressed = True
        for part in tag.lower().split(","):
            name, colon, directive = (piece.strip() for piece in part.partition(":"))
            if colon and name not in VALUED_DIRECTIVES:
                addressed = name in (ROBOT, "*")
            else:
                directive = name
            if addressed and directive in OPT_OUTS:
                return True
    return False


class Downloader:
    """Fetches images concurrently; an async context manager, which owns the connections.

    Args:
        limits: caps on bytes and time.
        agent: the User-Agent header.
        hosts: turns at hosts.
        allowed: decides about each IP address before connecting; `any_address` also allows any port.

    Raises:
        InputError: the certificates in REQUESTS_CA_BUNDLE cannot be read.
    """

    def __init__(
        self, limits: Limits, agent: str, hosts: Hosts, *, allowed: Callable[[IPAddress], bool] = is_public
    ) -> None:
        self._limits = limits
        self._agent = agent
        self._hosts = hosts
        self._allowed = allowed
        self._certificates = load_certificates()

    async def __aenter__(self) -> Downloader:
        connector = aiohttp.TCPConnector(
            limit=0,  # `Hosts` limits
            resolver=_CheckedResolver(self._check),
            socket_factory=self._open_socket,
            ssl=self._certificates,
            keepalive_timeout=KEPT_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            # "identity": the file on disk is the server's. If it is compressed nevertheless, `Body` unpacks it.
            headers={
                "User-Agent": self._agent,
                "Accept": ACCEPT,
                "Accept-Encoding": "identity",
            },
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            # No proxy, which would resolve names itself, and no .netrc, whose passwords must not reach other hosts.
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=WAIT_S, sock_read=WAIT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def fetch(self, address: str) -> Download:
        """Return the response of a URL, following redirects; a busy host is retried after a pause.

        Raises:
            Refused: there is no image, or it may not be fetched.
        """
        tries = 1
        while True:
            try:
                return await self._follow(address)
            except Busy as busy:
                await self._hosts.rest(busy, tries, is_last=tries == TRIES)
                tries += 1

    async def _follow(self, address: str) -> Download:
        """Return the response of a URL, following redirects. Raises as `fetch`, and Busy."""
        left, deadline = self._limits.deadline, asyncio.timeout(None)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                url = self._checked(address)
                async with self._hosts.turn(str(url.raw_host)):
                    began = asyncio.get_running_loop().time()
                    async with asyncio.timeout(left) as deadline:
                        got = await self._get(url)
                    left -= asyncio.get_running_loop().time() - began
                if isinstance(got, Download):
                    return got
                address = urljoin(str(url), redirected_to(got))
            raise Refused("too_many_redirects", f"more than {MAX_REDIRECTS}")
        except TimeoutError as error:
            if deadline.expired():
                raise Refused("timeout", f"not done after {self._limits.deadline:g} seconds") from None
            raise as_refusal(error) from None
        except Exception as error:
            raise as_refusal(error) from None

    async def _get(self, url: URL) -> Download | bytes:
        """Return the response of a URL, or the bytes of its redirect target."""
        async with self._session.get(url, allow_redirects=False) as response:
            tags = response.headers.getall("X-Robots-Tag", [])
            if not self._limits.ignore_opt_out and is_opted_out(tags):
                raise Refused("opted_out", f"X-Robots-Tag: {', '.join(tags)}"[:200])
            target = response.headers.get("Location")
            if target is not None and response.status in REDIRECTS:
                return target.encode("utf-8", "surrogateescape")
            if response.status != 200:
                slug, detail = f"http_{response.status}", response.reason or "no reason given"
                if response.status in BUSY:
                    wait = retry_after(response.headers.get("Retry-After"))
                    raise Busy(slug, detail, str(url.raw_host), wait)
                raise Refused(slug, detail)
            body = Body(", ".join(response.headers.getall("Content-Encoding", [])), self._limits.max_bytes)
            async for chunk in response.content.iter_any():
                body.add(chunk)
            return Download(body.finish(), response.headers.get("Content-Type"))

    def _checked(self, address: str) -> URL:
        """Return a URL after all checks that need no name resolution.

            Raises:
        Refused: it is not allowed.
        ValueError: it is malformed.
        """
        url = URL(quote_address(web_address(address)), encoded=True)
        host = str(url.raw_host)
        check_domain(host, self._limits.excluded)
        if url.port not in WEB_PORTS and self._allowed is not any_address:
            raise Refused("blocked_address", f"port {url.port} is not 80 or 443")
        literal = literal_address(host)
        if literal is None:
            return url
        self._check(host, literal)
        return url.with_host(str(literal))

    def _check(self, host: str, address: IPAddress) -> None:
        """Check an IP address of a host.

        Raises:
            Refused: connecting to it is not allowed.
        """
        if not self._allowed(address):
            raise Refused("blocked_address", f"{host} is {address}, which is not on the public internet")

    def _open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Return the socket of a new connection, after a last check of its IP address."""
        family, kind, protocol, _, target = info
        self._check(str(target[0]), ipaddress.ip_address(target[0]))
        return socket.socket(family, kind, protocol)


class _CheckedResolver(AbstractResolver):
    """Resolves a host once and checks the result; the connector connects only to the checked addresses."""

    def __init__(self, check: Callable[[str, IPAddress], None]) -> None:
        self._check = check
        self._threads = Threads(CONCURRENCY)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the host's IP addresses, after checking each.

        Raises:
            Refused: one is not allowed; a name with allowed and forbidden addresses is an attempt to bypass the check.
            OSError: the name does not resolve.
        """
        found = await self._threads.run(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        for *_, target in found:
            self._check(host, ipaddress.ip_address(target[0]))
        return [
            ResolveResult(hostname=host, host=str(target[0]), port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, target in found
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def literal_address(host: str) -> IPAddress | None:
    """Return the IP address of a numeric host, including forms such as `127.1` or `0x7f.0.0.1`; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def load_certificates() -> ssl.SSLContext:
    """Return an SSL context with the certificates of certifi, or of REQUESTS_CA_BUNDLE, a file or a folder.

    Raises:
        InputError: they cannot be read.
    """
    path = Path(os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where())
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=str(path))
        return ssl.create_default_context(cafile=str(path))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"REQUESTS_CA_BUNDLE {path} cannot be read ({reason}): name a file of certificates") from None


def as_refusal(error: Exception) -> Refused:
    """Return the refusal for an error of the network or of aiohttp.

    Raises:
        RunError: this machine lacks resources, so every download would fail.
    """
    match error:
        case Refused():
            return error
        case OSError(errno=int(number)) if number in EXHAUSTED:
            raise RunError(f"{os.strerror(number)}: lower --concurrency, or raise the limit (ulimit -n), and run again")
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return Refused("dns_failed", "the host's name has no address")
        case aiohttp.ClientSSLError():
            return Refused("tls_failed", type(error.__cause__ or error).__name__)
        case TimeoutError():
            return Refused("timeout", f"no answer for {WAIT_S:g} seconds")
        case aiohttp.ClientPayloadError():
            return Refused("truncated", "the connection ended before the file did")
        case aiohttp.InvalidURL() | ValueError():
            return Refused("invalid_url", first_line(error)[:200])
        case OSError(errno=int(number)) if number > 0:
            return Refused("connection_failed", os.strerror(number))
    return Refused("connection_failed", type(error).__name__)
