"""Image search through SerpApi or a compatible server; no page is paid for twice.

A result page is stored in `data_raw/serpapi/` as gzip JSON, without the key, before it is used:

    {"request": {"engine": "google_images", "ijn": 0, "q": "Umbreon Pokemon fanart"}, "response": {…}}

A first page without results is requested again with `no_cache`, because the service may have cached an empty answer.
Both answers are stored.

Fields: serpapi.com/images-results. Error forms: serpapi.com/api-status-and-error-codes.
Account: serpapi.com/account-api.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import tenacity
from tenacity.wait import wait_base

from pokefa.errors import BudgetReached, InputError, Interrupted, PokefaError, RunError, first_line
from pokefa.files import replacing
from pokefa.outside import SERPAPI_ADDRESS
from pokefa.secrets import redact, secret_from_environment
from pokefa.text import species_slug
from scraping.utils import retry_after

BASE_URL = SERPAPI_ADDRESS
SEARCHES_FOLDER = "data_raw/serpapi"
KEY_VARIABLE = "SERPAPI_API_KEY"

TRIES = 6
TIMEOUT_S = (10.0, 90.0)  # to connect, and between two reads: a search takes some seconds
ACCOUNT_TIMEOUT_S = (5.0, 10.0)  # the same for the account
MOST_WAIT_S = 3600.0  # the service counts searches by the hour
BACKOFF = tenacity.wait_exponential_jitter(initial=1, max=60, jitter=1)

NO_RESULTS = "hasn't returned any results"
NONE_LEFT = "run out of searches"

log = logging.getLogger("pokefa")


class KeyRefused(InputError, RunError):
    """The key is missing or refused: no search can succeed."""


class DamagedSearch(InputError, RunError):
    """A stored search cannot be read."""


class _Again(Exception):
    """A search failed and may be retried; `after` is the wait that the service asks for, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Account:
    """The account's numbers from the service; None if unknown."""

    left: int | None
    this_hour: int | None
    per_hour: int | None

    @property
    def hour_is_full(self) -> bool:
        return self.this_hour is not None and self.per_hour is not None and self.this_hour >= self.per_hour


class SearchClient:
    """Pages of image search results; threads may share it.

    SERPAPI_API_KEY is read at the first paid search; stored pages need no key.

    Args:
        folder: where answered pages are stored.
        base_url: URL of the service, without a path.
        parameters: additional parameters of every search, such as `hl`; they are part of a search's identity.
        most: the largest number of paid searches.
        stop: when it is set, searches are not retried.
        backoff: the wait between attempts if the service does not give one.

    Attributes:
        paid: number of searches that the service answered.
        reused: number of stored answers that were used.
    """

    def __init__(
        self,
        folder: Path,
        base_url: str,
        *,
        parameters: Mapping[str, str] | None = None,
        most: int | None = None,
        stop: threading.Event | None = None,
        backoff: wait_base = BACKOFF,
    ) -> None:
        self._folder = folder
        self._base_url = base_url.rstrip("/")
        self._parameters = dict(parameters or {})
        self._most = most
        self._stop = stop or threading.Event()
        self._backoff = backoff
        self._lock = threading.Lock()
        self._one_waits = threading.Lock()
        self._used_up: str | None = None  # why the account has no searches left
        self._started = 0
        self.paid = 0
        self.reused = 0

    def page(self, query: str, number: int) -> list[dict[str, Any]]:
        """Return the results of a page, 0 being the first; [] if there are no more.

        Raises:
            BudgetReached: the page would cost more searches than allowed, or the account has none left.
            KeyRefused: the key is refused.
            RunError: the service does not answer, or its answer cannot be stored.
            Interrupted: the run is to stop.
        """
        request = {"engine": "google_images", "ijn": number, "q": query} | self._parameters
        results = self._results(request)
        if not results and number == 0:
            results = self._results(request | {"no_cache": "true"})
        return results

    def account(self) -> Account | None:
        """Return the account's numbers, which is free; None if the service does not answer.

        Raises:
            KeyRefused: there is no key to ask with.
        """
        try:
            response = requests.get(
                f"{self._base_url}/account.json",
                params={"api_key": api_key()},
                timeout=ACCOUNT_TIMEOUT_S,
                allow_redirects=False,
            )
            answer = response.json() if response.status_code == 200 else None
        except (requests.RequestException, ValueError, RecursionError):
            return None
        if not isinstance(answer, dict):
            return None
        counts = {name: value for name, value in answer.items() if type(value) is int}
        return Account(
            counts.get("total_searches_left", counts.get("plan_searches_left")),
            counts.get("this_hour_searches"),
            counts.get("account_rate_limit_per_hour"),
        )

    def _results(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the results of a request, stored or paid. Raises as `page`."""
        path = self._folder / stored_name(request)
        response = read_stored(path)
        with self._lock:
            if response is not None:
                self.reused += 1
            elif self._used_up is not None:
                raise BudgetReached(self._used_up)
            elif self._most is not None and self._started >= self._most:
                raise BudgetReached(
                    f"--max-searches {self._most} is reached: raise it and run again, the pages so far are stored"
                )
            else:
                self._started += 1
        if response is None:
            response = self._search(request)
            store(path, request, response)
            with self._lock:
                self.paid += 1
        found = response.get("images_results")
        return [result for result in found if isinstance(result, dict)] if isinstance(found, list) else []

    def _search(self, request: dict[str, Any]) -> dict[str, Any]:
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            wait=self._wait,
            stop=tenacity.stop_any(tenacity.stop_after_attempt(TRIES), tenacity.stop_when_event_set(self._stop)),
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            return trying(self._ask, request)
        except _Again as error:
            if self._stop.is_set():
                raise Interrupted("interrupted while waiting for the search service") from None
            raise RunError(
                f"the search service failed {TRIES} times ({redact(str(error))}): run the same command again later"
            ) from None

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        after = error.after if isinstance(error, _Again) else None
        return self._backoff(state) if after is None else min(after, MOST_WAIT_S)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request, empty results included.

        Raises:
            _Again: a retry may help.
            BudgetReached: the account has no searches left.
            Interrupted: the run was stopped, so no more searches are paid for.
        """
        if self._stop.is_set():
            raise Interrupted("interrupted before a search")
        try:
            # A redirect could send the key to another server.
            response = requests.get(
                f"{self._base_url}/search.json",
                params=request | {"api_key": api_key()},
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise _Again(type(error).__name__) from None
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            answer = {"error": "the answer is not a JSON object"}
        problem = str(answer.get("error") or "")
        code = response.status_code
        if code in (401, 403):
            raise KeyRefused(f"{KEY_VARIABLE} was refused ({code}: {problem}): export the right key and run again")
        if code == 429:
            raise self._too_many(problem, retry_after(response.headers.get("Retry-After")))
        if code == 408 or code >= 500:
            raise _Again(f"{code}: {problem}", retry_after(response.headers.get("Retry-After")))
        if code != 200:
            raise RunError(f"the search service refused the request ({code}: {problem})")
        if problem and NO_RESULTS not in problem and not answer.get("images_results"):
            raise _Again(problem)
        return answer

    def _too_many(self, problem: str, after: float | None) -> _Again:
        """Return when to retry after a 429: all searches, or those of this hour, are used up.

        Raises:
            BudgetReached: all are used up.
        """
        with self._one_waits:  # the other threads wait, and then find a new hour
            if self._used_up is not None:
                raise BudgetReached(self._used_up)
            account = None if self._stop.is_set() else self.account()
            left = account.left if account is not None else None
            if (NONE_LEFT in problem) if left is None else left <= 0:
                self._used_up = f"the search account is used up ({problem}): the pages so far are stored"
                raise BudgetReached(self._used_up)
            if after is None and account is not None and account.hour_is_full:
                log.warning("the account's %d searches per hour are used up: waiting", account.per_hour)
                self._await_capacity()
                after = 0.0
        return _Again(f"429: {problem}", after)

    def _await_capacity(self) -> None:
        """Poll the account until it may search again, the run is stopped, or the wait is too long."""

        def is_full() -> bool:
            account = self.account()
            return account is None or account.hour_is_full

        tenacity.Retrying(
            retry=tenacity.retry_if_result(bool),
            wait=self._backoff,
            stop=tenacity.stop_any(tenacity.stop_after_delay(MOST_WAIT_S), tenacity.stop_when_event_set(self._stop)),
            sleep=tenacity.sleep_using_event(self._stop),
            retry_error_callback=lambda _: True,
        )(is_full)


def api_key() -> str:
    """Return the key of the search service.

    Raises:
        KeyRefused: it is not set.
    """
    try:
        return secret_from_environment(KEY_VARIABLE)
    except InputError as error:
        raise KeyRefused(str(error)) from None


def stored_name(request: dict[str, Any]) -> str:
    """Return the file name of a request's answer, `umbreon_pokemon_fanart-00-3f9a….json.gz`: readable and unique."""
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]
    return f"{species_slug(request['q'])[:60]}-{request['ijn']:02d}-{digest}.json.gz"


def read_stored(path: Path) -> dict[str, Any] | None:
    """Return a stored answer, or None if there is none.

    Raises:
        DamagedSearch: the file is damaged.
    """
    try:
        stored = json.loads(gzip.decompress(path.read_bytes()))
        response = stored.get("response") if isinstance(stored, dict) else None
        if not isinstance(response, dict):
            raise ValueError("it is not an object with an object called response")
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise DamagedSearch(f"{path} is damaged ({error}): remove it to search for the page again") from None
    return response


def store(path: Path, request: dict[str, Any], response: dict[str, Any]) -> None:
    """Store an answer atomically; the same answer gives the same bytes.

    Raises:
        RunError: it cannot be written, so no more searches should be paid for.
    """
    text = redact(json.dumps({"request": request, "response": response}, sort_keys=True, indent=1))
    try:
        with replacing(path) as stream:
            stream.write(gzip.compress(text.encode("ascii"), mtime=0))
    except (OSError, PokefaError) as error:
        raise RunError(f"a search cannot be stored: {first_line(error)}") from None
