"""Classifies a failed call: it ends the run, or becomes the error of one image."""

from __future__ import annotations

from collections.abc import Mapping

from pokefa.errors import BudgetReached, Interrupted, PokefaError, RunError
from pokefa.llm.prompt import AnswerError, plain
from pokefa.llm.rate_limit import INTERRUPTED, MOST_REST_S, retry_after
from pokefa.llm.server import ADDRESS_VARIABLE, KEY_VARIABLE, load_openai
from pokefa.llm.wire import RequestOptions, words_of

MAX_RETRIES = 6  # with the SDK's backoff of 0.5 s, doubled up to 8 s: about half a minute

QUOTA_CODES = ("insufficient_quota", "billing_hard_limit_reached")
# A 400 with one of these codes concerns the request itself, so it would recur for every image.
REQUEST_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter", "invalid_json_schema")


def explain(error: Exception, host: str, form: RequestOptions, timeout: float) -> PokefaError:
    """Return the error of a call as one that ends the run, or as one of this image.

    Args:
        host: the server's.
        timeout: seconds allowed for an answer.
    """
    openai = load_openai()
    words = words_of(getattr(error, "body", None))
    detail = plain(str(getattr(error, "message", "") or error) if words.lstrip()[:1] in ("", "<") else words)
    code = str(getattr(error, "code", "") or "")
    if isinstance(error.__cause__, Interrupted):
        return Interrupted(INTERRUPTED)
    if isinstance(error, openai.APITimeoutError):
        return AnswerError("timeout", f"no answer from {host} within {timeout:.0f} s: more with --timeout")
    if isinstance(error, openai.APIConnectionError):
        # Compare the name: the class belongs to the HTTP library that the SDK installs.
        if type(error.__cause__).__name__ == "ConnectError":
            return RunError(
                f"{host} cannot be reached ({plain(str(error.__cause__))}): check the network and "
                f"{ADDRESS_VARIABLE}, then run the same command again"
            )
        return AnswerError("connection_cut", f"{type(error.__cause__).__name__}: {error.__cause__}")
    status = getattr(error, "status_code", None)
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    if status == 401:
        return RunError(f"{host} refuses the key (401): set {KEY_VARIABLE} to a valid key and run again")
    if status is not None and 300 <= status < 400:
        host = headers.get("location", "").partition("//")[2].partition("/")[0]
        target = plain(host.rpartition("@")[2]) or "another path"
        return RunError(f"{host} redirects to {target} ({status}): set {ADDRESS_VARIABLE} to the final address")
    if code in QUOTA_CODES:
        return BudgetReached(
            f"the quota of the account at {host} is used up ({code}): finished work is saved; add credit "
            "or raise the limit, then run the same command again"
        )
    if status == 400 and form.flex and "service_tier" in f"{getattr(error, 'param', None)} {detail}":
        return RunError(f"{host} has no flex tier for the model {form.model} (400): {detail}: leave --flex out")
    if status in (403, 404) or code in REQUEST_CODES:
        return RunError(f"{host} refuses every request to the model {form.model} ({status}): {detail}")
    if status == 429:
        seconds = retry_after(headers)
        if (seconds or 0) > MOST_REST_S:
            return BudgetReached(f"{host} asks to wait for {seconds:.0f} s: run the same command again then")
        return AnswerError("rate_limited", f"still refused after {MAX_RETRIES} repetitions: {detail}")
    if isinstance(status, int) and status >= 500:
        return AnswerError("server_error", f"{status} after {MAX_RETRIES} repetitions: {detail}")
    return AnswerError("bad_request", f"{status}: {detail}")
