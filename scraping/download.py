"""Fetching one image from an address that a stranger chose.

Every address is suspect: only http and https, redirects followed by hand, each hop's resolved addresses checked before
they are connected to, nothing of a private network unless allowed, a cap on bytes while streaming, and one deadline
for the whole file, which also ends a server that sends a byte a second. A host gets few connections at once, whatever
the number of threads; waiting for a turn is no part of the deadline. Every refusal has a slug.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import ipaddress
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import allowed_gai_family

from pokefa import __version__
from pokefa.errors import Interrupted
from pokefa.formats import ACCEPT
from pokefa.table import first_line
from scraping.hosts import LOOK_S, PER_HOST, HostSlots, check_domain
from scraping.utils import Busy, Download, Limits, Refused, retry_after

WAIT_S = 10.0  # for a connection, and for each read
MAX_REDIRECTS = 5
WEB_PORTS = (80, 443)
BUSY = (429, 503)  # too many requests, service unavailable: the host is fine and asks for patience
CHUNK = 2**16
KEPT_HOSTS = 64  # so many hosts' connections are kept open for the next file

# Directives of X-Robots-Tag by which a site keeps its images out of training sets, or out of collections of any kind.
# "none" is short for "noindex, nofollow".
OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "none"})
# Directives with a value: what stands before their colon is not the name of a robot.
VALUED_DIRECTIVES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
ROBOT = "pokefa"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: IPAddress) -> bool:
    """Tell whether an address is on the open internet.

    Private, loopback, link-local, multicast, reserved and unspecified addresses are not, nor are IPv6 addresses that
    carry an IPv4 address (mapped, 6to4, Teredo), which could lead around the check. NAT64 (RFC 6052) is judged by the
    IPv4 address inside, because on an IPv6-only network every IPv4 host is reached that way.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address.sixtofour is not None or address.teredo is not None:
            return False
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and not (address.is_multicast or address.is_reserved)


def any_address(address: IPAddress) -> bool:
    """Allow every address: for --allow-private."""
    return True


def user_agent(contact: str | None) -> str:
    """Return the User-Agent that tells a site who fetches its images, and whom to write to."""
    return f"PokeFA/{__version__} (dataset builder; contact: {contact or 'none given'})"


def is_opted_out(tags: Iterable[str]) -> bool:
    """Tell whether X-Robots-Tag headers, one text each, keep an image out of training sets or out of every index.

    A directive behind the name of a robot, as in `otherbot: noai, noindex`, counts only for that robot.
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


class Connections:
    """What the downloaders of a run share: connections that stay open for the next file, and turns at hosts.

    Of each host, at most `per_host` connections are in use at once; as many may stay open for each of its ports.
    """

    def __init__(self, per_host: int = PER_HOST) -> None:
        self.slots = HostSlots(per_host)
        self.adapter = _CheckedAdapter(pool_connections=KEPT_HOSTS, pool_maxsize=per_host)


class Downloader:
    """Fetches images, one at a time; each thread has its own.

    Args:
        limits: caps on bytes and time.
        agent: the User-Agent header.
        allowed: decides over each resolved address; `any_address` also lets any port pass.
        stop: when it is set, the download under way ends with Interrupted.
        connections: shared with the other downloaders of the run, which `allowed` must not tell apart.
    """

    def __init__(
        self,
        limits: Limits,
        agent: str,
        *,
        allowed: Callable[[IPAddress], bool] = is_public,
        stop: threading.Event | None = None,
        connections: Connections | None = None,
    ) -> None:
        self._limits = limits
        self._allowed = allowed
        self._stop = stop or threading.Event()
        connections = connections or Connections()
        self._slots = connections.slots
        self._session = requests.Session()
        # No proxy, which would resolve the addresses itself, and no .netrc, whose passwords are not for strangers.
        self._session.trust_env = False
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.clear()
        # "identity": the file on disk is what the server has, and nothing that is unpacked can explode.
        self._session.headers.update({"User-Agent": agent, "Accept": ACCEPT, "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, connections.adapter)

    def fetch(self, address: str) -> Download:
        """Return what an address gives, redirects followed.

        Raises:
            Refused: there is nothing to be had, or it may not be had; Busy when the host asks for patience.
            Interrupted: the run is to stop.
        """
        visit = _Visit(self._limits.deadline, self._allowed)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                host = self._check_address(address)
                with self._slots.turn(host, self._stop), visit:
                    got = self._get(address, visit)
                if isinstance(got, Download):
                    return got
                address = urljoin(address, got)
            raise Refused("too_many_redirects", f"more than {MAX_REDIRECTS}")
        except Interrupted:
            raise
        except Exception as error:
            if visit.is_over:
                raise Refused("timeout", f"not done after {self._limits.deadline:g} seconds") from None
            raise as_refusal(error) from None

    def _get(self, address: str, visit: _Visit) -> Download | str:
        """Return what an address gives, or where it redirects to."""
        response = self._session.get(address, stream=True, allow_redirects=False, timeout=WAIT_S)
        try:
            tags = response.raw.headers.getlist("X-Robots-Tag")
            if not self._limits.ignore_opt_out and is_opted_out(tags):
                raise Refused("opted_out", f"X-Robots-Tag: {', '.join(tags)}"[:200])
            target = self._session.get_redirect_target(response)
            if target is not None:
                return target
            if response.status_code != 200:
                slug, detail = f"http_{response.status_code}", response.reason or "no reason given"
                if response.status_code in BUSY:
                    host = urlsplit(address).hostname or ""
                    raise Busy(slug, detail, host, retry_after(response.headers.get("Retry-After")))
                raise Refused(slug, detail)
            return Download(self._read(response.raw, visit), response.headers.get("Content-Type"))
        finally:
            response.close()

    def _check_address(self, address: str) -> str:
        """Return the host of an address that may be asked as far as can be told before its name is resolved."""
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https"):
            raise Refused("blocked_scheme", f"{parts.scheme[:20] or 'no scheme'} is not http or https")
        if not parts.hostname or parts.username is not None or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", address):
            raise Refused("invalid_url", "it has no host, or holds a user name or a control character")
        check_domain(parts.hostname, self._limits.excluded)
        return parts.hostname

    def _read(self, raw: Any, visit: _Visit) -> bytes:
        data = bytearray()
        # read1 returns what has come, so that a slow server cannot hold a read for longer than the deadline.
        while chunk := raw.read1(CHUNK, decode_content=False):
            data += chunk
            if len(data) > self._limits.max_bytes:
                raise Refused("too_many_bytes", f"over {self._limits.max_bytes} bytes")
            if self._stop.is_set():
                raise Interrupted("interrupted in the middle of a download")
        if visit.is_over:  # a cut connection looks like the end of a body without a Content-Length
            raise TimeoutError
        return bytes(data)


def as_refusal(error: Exception) -> Refused:
    """Return the refusal that an error of the network or of the libraries means."""
    if isinstance(error, Refused):
        return error
    causes = list(_causes(error))

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    root = causes[-1]
    detail = (root.strerror if isinstance(root, OSError) else None) or type(root).__name__
    if among(urllib3.exceptions.NameResolutionError, socket.gaierror):
        return Refused("dns_failed", "the host's name has no address")
    if among(urllib3.exceptions.NewConnectionError, ConnectionRefusedError):
        return Refused("connection_failed", detail)
    if among(urllib3.exceptions.TimeoutError, requests.Timeout, TimeoutError):
        return Refused("timeout", f"no answer for {WAIT_S:g} seconds")
    if among(urllib3.exceptions.SSLError, requests.exceptions.SSLError):
        return Refused("tls_failed", detail)
    if among(urllib3.exceptions.IncompleteRead, http.client.IncompleteRead):
        return Refused("truncated", "the connection ended before the file did")
    if among(requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError, ValueError):
        return Refused("invalid_url", first_line(root)[:200])
    return Refused("connection_failed", detail)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and, from the outside in, the errors that the libraries wrapped in it."""
    while error is not None:
        yield error
        wrapped = [part for part in (getattr(error, "reason", None), *error.args) if isinstance(part, BaseException)]
        error = wrapped[0] if wrapped else error.__cause__


class _Visit:
    """One download: who may be connected to, and the time after which every connection is cut.

    It is entered for each host in turn, and its time runs only inside.
    """

    def __init__(self, seconds: float, allowed: Callable[[IPAddress], bool]) -> None:
        self._left = seconds
        self._allowed = allowed
        self._lock = threading.Lock()
        self._handles: list[socket.socket] = []
        self.is_over = False

    def __enter__(self) -> _Visit:
        _here.visit = self
        self._entered = time.monotonic()
        self.ends = self._entered + self._left
        _watchdog.watch(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _watchdog.leave(self)
        self._left -= time.monotonic() - self._entered
        _here.visit = None
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()

    def resolve(self, host: str, port: int) -> list[str]:
        """Return the host's addresses, having checked every one, and the port.

        Raises:
            Refused: one is not allowed; a name that leads to both kinds is an attempt to get around the check.
            socket.gaierror: there is none.
        """
        if port not in WEB_PORTS and self._allowed is not any_address:
            raise Refused("blocked_address", f"port {port} is not 80 or 443")
        found = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._allowed(ipaddress.ip_address(address)):
                raise Refused("blocked_address", f"{host} is {address}, which is not on the public internet")
        return addresses

    def watch(self, connected: socket.socket) -> None:
        """Have a connection cut when the time is up.

        A second handle on it is kept, because TLS takes the first one away from the object that we were given.
        """
        handle = socket.socket(fileno=os.dup(connected.fileno()))
        with self._lock:
            self._handles.append(handle)
            if self.is_over:
                _shut(handle)

    def cut(self) -> None:
        """End the visit now: whatever its thread waits for, it waits no longer."""
        with self._lock:
            self.is_over = True
            for handle in self._handles:
                _shut(handle)


def _shut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side may have been faster
        handle.shutdown(socket.SHUT_RDWR)


class _Watchdog:
    """One thread that cuts every visit whose time is up; a timer for each would be a thread for each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visits: set[_Visit] = set()
        self._runs = False

    def watch(self, visit: _Visit) -> None:
        with self._lock:
            self._visits.add(visit)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._look, daemon=True).start()

    def leave(self, visit: _Visit) -> None:
        with self._lock:
            self._visits.discard(visit)

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_S)
            now = time.monotonic()
            with self._lock:
                late = [visit for visit in self._visits if visit.ends <= now]
            for visit in late:
                visit.cut()


_watchdog = _Watchdog()

# The visit that this thread is making; connections are made deep inside the libraries, by this thread.
_here = threading.local()


class _CheckedConnection(HTTPConnection):
    """A connection that resolves its host once, checks what it finds, and connects to that and nothing else."""

    def _new_conn(self) -> socket.socket:
        visit: _Visit = _here.visit
        host = self._dns_host
        failure: Exception = OSError("no address to connect to")
        try:
            addresses = visit.resolve(host, self.port)
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(host, self, error) from error
        for address in addresses:
            with self._connecting_to(address):
                try:
                    connected = super()._new_conn()
                except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
                    failure = error
                    if visit.is_over:
                        break
                    continue
            visit.watch(connected)
            return connected
        raise failure

    @contextlib.contextmanager
    def _connecting_to(self, address: str) -> Iterator[None]:
        host, self._dns_host = self._dns_host, address
        try:
            yield
        finally:
            self._dns_host = host

    def getresponse(self) -> Any:
        if self.sock is not None:  # it may be kept from an earlier download
            _here.visit.watch(self.sock)
        return super().getresponse()


class _CheckedTLSConnection(_CheckedConnection, HTTPSConnection):
    """The same over TLS; the certificate is still checked against the host's name."""


class _CheckedPool(HTTPConnectionPool):
    ConnectionCls = _CheckedConnection


class _CheckedTLSPool(HTTPSConnectionPool):
    ConnectionCls = _CheckedTLSConnection


class _CheckedAdapter(HTTPAdapter):
    """Lets requests make checked connections only."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _CheckedPool, "https": _CheckedTLSPool}
