"""Image search through SerpApi, or any server that answers as it does; no page is ever paid for twice.

A page that was answered is stored under `data_raw/serpapi/` as gzip JSON, without the key, before it is used:

    {"request": {"engine": "google_images", "ijn": 0, "q": "Umbreon Pokemon fanart"}, "response": {…}}

A first page without results is asked for once more with `no_cache`, because the service may have kept an empty answer;
both answers are stored.

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
ACCOUNT_TIMEOUT_S = (5.0, 10.0)  # the same for the account, which is looked up and not searched for
MOST_WAIT_S = 3600.0  # the service counts searches by the hour
BACKOFF = tenacity.wait_exponential_jitter(initial=1, max=60, jitter=1)

NO_RESULTS = "hasn't returned any results"
NONE_LEFT = "run out of searches"

log = logging.getLogger("pokefa")


class KeyRefused(InputError, RunError):
    """There is no key, or the service does not know it: no search can succeed."""


class DamagedSearch(InputError, RunError):
    """A stored search cannot be read: whether it was paid for cannot be told."""


class _Again(Exception):
    """A search failed in a way that may pass; `after` is how long the service asked to wait, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Account:
    """What the service says about the account; None where it does not say."""

    left: int | None
    this_hour: int | None
    per_hour: int | None

    @property
    def hour_is_full(self) -> bool:
        return self.this_hour is not None and self.per_hour is not None and self.this_hour >= self.per_hour


class SearchClient:
    """Pages of image search results; threads may share it.

    The key comes from SERPAPI_API_KEY with the first search that must be paid for: pages that are stored need none.

    Args:
        folder: where answered pages are stored.
        base_url: address of the service, without a path.
        parameters: more parameters of every search, such as `hl`; a search with others is another search.
        most: how many searches may be paid for.
        stop: when it is set, no search is tried again.
        backoff: how long to wait between tries where the service does not say.

    Attributes:
        paid: searches that the service answered.
        reused: answers that an earlier search had brought.
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
        self._used_up: str | None = None  # why the account can pay for nothing more
        self._started = 0
        self.paid = 0
        self.reused = 0

    def page(self, query: str, number: int) -> list[dict[str, Any]]:
        """Return the results of a page, 0 being the first; [] where the search has no more.

        Raises:
            BudgetReached: the page would cost more searches than allowed, or the account has none left.
            KeyRefused: the service does not know the key.
            RunError: the service does not answer, or its answer cannot be stored.
            Interrupted: the run is to stop.
        """
        request = {"engine": "google_images", "ijn": number, "q": query} | self._parameters
        results = self._results(request)
        if not results and number == 0:
            results = self._results(request | {"no_cache": "true"})
        return results

    def account(self) -> Account | None:
        """Return what is left on the account, which costs nothing; None where the service does not answer.

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
        """Return the results of a request, from the store or paid for. Raises as `page` does."""
        path = self._folder / stored_name(request)
        response = read_stored(path)
        with self._lock:
            if response is not None:
                self.reused += 1
            elif self._used_up is not None:
                raise BudgetReached(self._used_up)
            elif self._most is not None and self._started >= self._most:
                raise BudgetReached(
                    f"--max-searches {self._most} is reached: run again with more, the pages so far are stored"
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
            _Again: trying again may help.
            BudgetReached: the account has no searches left.
            Interrupted: the run is to stop, so nothing more is paid for.
        """
        if self._stop.is_set():
            raise Interrupted("interrupted before a search")
        try:
            # A redirect could carry the key to another server.
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
            answer = {"error": "the answer is no JSON object"}
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
        """Return when to try again after a 429, which means that all searches or only those of this hour are used up.

        Raises:
            BudgetReached: all are.
        """
        with self._one_waits:  # the others find the hour's searches counted anew when it is their turn
            if self._used_up is not None:
                raise BudgetReached(self._used_up)
            account = None if self._stop.is_set() else self.account()
            left = account.left if account is not None else None
            if (NONE_LEFT in problem) if left is None else left <= 0:
                self._used_up = f"the search account is used up ({problem}): the pages so far are stored"
                raise BudgetReached(self._used_up)
            if after is None and account is not None and account.hour_is_full:
                log.warning("the %d searches that the account has in an hour are used up: waiting", account.per_hour)
                self._await_capacity()
                after = 0.0
        return _Again(f"429: {problem}", after)

    def _await_capacity(self) -> None:
        """Ask for the account until it may search again in this hour, the run is to stop, or the wait is too long."""

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
    """Return the file name of a request's answer, `umbreon_pokemon_fanart-00-3f9a….json.gz`: for people and unique."""
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]
    return f"{species_slug(request['q'])[:60]}-{request['ijn']:02d}-{digest}.json.gz"


def read_stored(path: Path) -> dict[str, Any] | None:
    """Return a stored answer, or None where there is none.

    Raises:
        DamagedSearch: the file is damaged, or holds something else.
    """
    try:
        stored = json.loads(gzip.decompress(path.read_bytes()))
        response = stored.get("response") if isinstance(stored, dict) else None
        if not isinstance(response, dict):
            raise ValueError("it holds no object with the object response")
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise DamagedSearch(f"{path} is damaged ({error}): remove it, and the page is searched for again") from None
    return response


def store(path: Path, request: dict[str, Any], response: dict[str, Any]) -> None:
    """Store an answer, whole or not at all; the same answer gives the same bytes.

    Raises:
        RunError: it cannot be written, so nothing more should be paid for.
    """
    text = redact(json.dumps({"request": request, "response": response}, sort_keys=True, indent=1))
    try:
        with replacing(path) as stream:
            stream.write(gzip.compress(text.encode("ascii"), mtime=0))
    except (OSError, PokefaError) as error:
        raise RunError(f"a search cannot be stored: {first_line(error)}") from None
