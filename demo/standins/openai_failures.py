"""The failures of the OpenAI stand-in, by name."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from demo.standins.openai_answers import ANSWER_FAILURES
from demo.standins.openai_requests import Refused

# How a request can fail.
FAILURES = (
    "rate_limit",  # 429 with Retry-After
    "quota",  # 429 insufficient_quota
    "server_error",  # 500 with Retry-After
    "overloaded",  # 503 with Retry-After
    "unauthorized",  # 401
    "bad_request",  # 400 about the image
    "unknown_model",  # 404
    "no_room",  # 429: the flex tier has no capacity, which costs nothing
    "no_flex",  # 400: the model has no flex tier
    "cut",  # the connection closes without an answer
    "lost",  # the model answers, which is charged, but the connection closes before the answer is sent
    "error_in_200",  # an error with status 200
    "no_choices",  # the same, with `choices` or `output` null
    "unprocessable",  # 422 in FastAPI's form
    "redirect",  # 307 to another host
    "stall",  # nothing is sent for `stall_s` seconds, then the connection closes
    *ANSWER_FAILURES,
)
# Operations on files and batches, and how they can fail.
OPERATIONS = ("upload", "download", "file", "delete", "create", "poll", "list", "cancel", "model")
CALL_FAILURES = (
    "cut",  # the connection closes: in the middle of an upload or a download, otherwise before anything is done
    "lost",  # it is done, but the connection closes without an answer
    "rate_limit",
    "server_error",
)


# Where a redirect leads; nothing listens there.
ELSEWHERE = "http://127.0.0.2:9/v1/responses"


class ConnectionCut(Exception):
    """The request gets no answer."""


def queue(names: Iterable[str], known: Sequence[str]) -> deque[str]:
    found = deque(names)
    for name in found:
        if name and name not in known:
            raise ValueError(f"unknown failure {name!r}: it is one of {', '.join(known)}")
    return found


def wrong_key(key: str) -> Refused:
    return Refused(401, f"Incorrect API key provided: {key[:3]}***{key[-4:]}.", "invalid_api_key")


def fail(failure: str, retry_after: str) -> None:
    """Raise a failure that occurs before the model runs; the others are variants of its answer."""
    if failure in ("cut", "stall"):
        raise ConnectionCut
    refusals = {
        "rate_limit": Refused(
            429, "Rate limit reached for requests per min.", "rate_limit_exceeded", "requests", retry_after=retry_after
        ),
        "quota": Refused(
            429, "You exceeded your current quota, please check your plan.", "insufficient_quota", "insufficient_quota"
        ),
        "server_error": Refused(
            500, "The server had an error while processing your request.", None, "server_error", retry_after=retry_after
        ),
        "overloaded": Refused(
            503,
            "The engine is currently overloaded, please try again later.",
            None,
            "server_error",
            retry_after=retry_after,
        ),
        "no_room": Refused(
            429, "Resource unavailable: try again later.", "resource_unavailable", "resource_unavailable"
        ),
        "no_flex": Refused(
            400, "Invalid service_tier argument: this model has no flex.", "invalid_value", param="service_tier"
        ),
        "bad_request": Refused(400, "The image is too small to be read.", "invalid_image", "image_parse_error"),
        "error_in_200": Refused(200, "The upstream model is loading.", None, "server_error"),
        "no_choices": Refused(200, "The upstream model is loading.", None, "server_error"),
        "unprocessable": Refused(422, ""),
        "redirect": Refused(307, "Moved.", location=ELSEWHERE),
        "unknown_model": Refused(404, "The requested model does not exist.", "model_not_found"),
    }
    refusals["error_in_200"].body["error"]["code"] = 503  # brokers put the upstream server's status here
    refusals["no_choices"].body |= {"choices": None, "output": None}
    refusals["unprocessable"].body = {"detail": [{"loc": ["body", "store"], "msg": "Extra inputs", "type": "extra"}]}
    if failure in refusals:
        raise refusals[failure]
