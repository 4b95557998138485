"""The Batch API of the OpenAI stand-in: turns a file of requests into a file of answers some polls later.

A batch goes through `validating`, `in_progress` and `finalizing` to `completed`. The poll that completes it answers its
lines with the code for direct requests. Each two lines of an output are swapped, because OpenAI does not promise an
order.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.standins.openai_answers import ANSWER_FAILURES, APIS, NOTE
from demo.standins.openai_files import BLOCK, Files
from demo.standins.openai_requests import Json, Refused

DAY = 24 * 3600
WALK = ("validating", "in_progress", "finalizing")
ENDED = ("completed", "failed", "expired", "cancelled")

# How a batch can end instead of `completed`.
BATCH_FAILURES = (
    "expired",  # with part of its lines answered
    "invalid",  # `failed`: a line is not JSON
    "token_limit",  # `failed`: too many tokens are queued
)
# How a line can end: in the error file, or with an unusable answer.
LINE_FAILURES = ("bad_request", "rate_limit", "server_error", "request_timeout", *ANSWER_FAILURES)
UNSENT = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request was not executed because the batch was cancelled.",
    "request_timeout": "This request timed out.",
}

# Answers the request of a line like a direct request: (endpoint, line) -> body of the answer.
AnswerLine = Callable[[str, Json], Json]


@dataclass
class Batch:
    """One batch: its public object, and internal state."""

    shown: Json
    failure: str | None
    started: float
    polls: int = 0
    checked: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Batches:
    """The batches of one server, shared by all threads.

    Args:
        files: the server's files, for inputs and outputs.
        answer_line: answers and counts one line; raises Refused for an error, and TimeoutError.
        polls, seconds: how long a batch takes: until both have passed. With 0 for both, the first poll completes it.
        failures: names from BATCH_FAILURES, or "", one for each batch created.
        answered: share of the lines, from the first, that an expired or cancelled batch has answered.
        most_requests: maximum lines of a file.
    """

    files: Files
    answer_line: AnswerLine
    polls: int = 0
    seconds: float = 0.0
    failures: Iterable[str] = ()
    answered: float = 0.5
    most_requests: int = 50_000
    _batches: dict[str, Batch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = iter(self.failures)

    def create(self, request: Json) -> Json:
        """Create a batch and return its initial state.

        Raises:
            Refused: a parameter is missing or wrong.
        """
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(request.get(name), str):
                message = f"Missing required parameter: '{name}'."
                raise Refused(400, message, "missing_required_parameter", param=name)
        if request["endpoint"] not in APIS:
            message = f"stand-in: it serves the endpoints {' and '.join(APIS)}"
            raise Refused(400, message, "invalid_value", param="endpoint")
        if request["completion_window"] != "24h":
            message = f"Invalid value: '{request['completion_window']}'. Value must be '24h'."
            raise Refused(400, message, "invalid_value", param="completion_window")
        if self.files.get(request["input_file_id"])["purpose"] != "batch":
            message = "Invalid file purpose: the input of a batch must have the purpose 'batch'."
            raise Refused(400, message, "invalid_value", param="input_file_id")
        metadata = request.get("metadata") or {}
        _check_metadata(metadata)
        now = int(time.time())
        with self._lock:
            batch_id = f"batch_standin{len(self._batches) + 1:06}"
            times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
            shown = {
                "id": batch_id,
                "object": "batch",
                "endpoint": request["endpoint"],
                "model": None,
                "errors": None,
                "input_file_id": request["input_file_id"],
                "completion_window": "24h",
                "status": "validating",
                "output_file_id": None,
                "error_file_id": None,
                "created_at": now,
                "expires_at": now + DAY,
                **{f"{name}_at": None for name in times},
                "request_counts": {"total": 0, "completed": 0, "failed": 0},
                "usage": None,
                "metadata": {**metadata, "stand_in": NOTE},
            }
            self._batches[batch_id] = Batch(shown, next(self._failures, "") or None, time.monotonic())
        return dict(shown)

    def poll(self, batch_id: str) -> Json:
        """Return a batch, and advance it.

        Raises:
            Refused: there is no such batch.
        """
        batch = self._get(batch_id)
        with batch.lock:
            batch.polls += 1
            self._go_on(batch)
            return dict(batch.shown)

    def cancel(self, batch_id: str) -> Json:
        """Return a batch that is `cancelling`; the next poll finds it `cancelled`.

        Raises:
            Refused: there is no such batch, or it has ended.
        """
        batch = self._get(batch_id)
        with batch.lock:
            if batch.shown["status"] in ENDED:
                message = f"Cannot cancel a batch with status '{batch.shown['status']}'."
                raise Refused(409, message, "invalid_request_error")
            _set(batch.shown, "cancelling")
            return dict(batch.shown)

    def newest_first(self) -> list[Json]:
        """Return all batches; this polls each of them."""
        with self._lock:
            ids = list(self._batches)
        return [self.poll(batch_id) for batch_id in ids[::-1]]

    def _get(self, batch_id: str) -> Batch:
        with self._lock:
            if batch_id not in self._batches:
                raise Refused(404, f"No batch found with id '{batch_id}'.", None, param="id")
            return self._batches[batch_id]

    def _go_on(self, batch: Batch) -> None:
        shown = batch.shown
        if shown["status"] in ENDED:
            return
        step = self._step(batch)
        if shown["status"] == "cancelling":
            self._end(batch, "cancelled")
            return
        if step >= 1 and not batch.checked:
            self._check(batch)
            if shown["status"] == "failed":
                return
            _set(shown, "in_progress")
        if step >= 2 and shown["status"] == "in_progress":
            _set(shown, "finalizing")
        if step >= len(WALK):
            self._end(batch, "expired" if batch.failure == "expired" else "completed")

    def _step(self, batch: Batch) -> int:
        """Return the index in WALK that a batch has reached; its length if the batch is done."""
        steps = [len(WALK)]
        if self.polls:
            steps.append((batch.polls - 1) * len(WALK) // self.polls)
        if self.seconds:
            steps.append(int((time.monotonic() - batch.started) * len(WALK) / self.seconds))
        return min(steps)

    def _check(self, batch: Batch) -> None:
        """Validate the input; errors make the batch fail."""
        shown = batch.shown
        batch.checked = True
        errors, model, total = _check_input(
            self.files.path(shown["input_file_id"]), shown["endpoint"], self.most_requests
        )
        if batch.failure == "invalid":
            errors = [_error("invalid_json_line", "This line is not parseable as valid JSON.", 1)]
        if batch.failure == "token_limit":
            message = (
                f"Enqueued token limit reached for {model} in organization org-standin. Limit: 2,000,000 enqueued "
                "tokens. Please try again once some in_progress batches have been completed."
            )
            errors = [_error("token_limit_exceeded", message, None)]
        shown["model"] = model
        if errors:
            shown["errors"] = {"object": "list", "data": errors}
            _set(shown, "failed")
        else:
            shown["request_counts"] = {"total": total, "completed": 0, "failed": 0}

    def _end(self, batch: Batch, status: str) -> None:
        """Answer the lines, write the files, and end the batch."""
        shown = batch.shown
        if not batch.checked:
            self._check(batch)
            if shown["status"] == "failed":
                return
        if shown["finalizing_at"] is None and status != "cancelled":
            shown["finalizing_at"] = int(time.time())
        path, total = self.files.path(shown["input_file_id"]), shown["request_counts"]["total"]
        count = total if status == "completed" else int(total * self.answered)
        counts = {"output": 0, "error": 0}
        tokens = [0, 0, 0]
        with ExitStack() as stack:
            writers = {key: stack.enter_context(_Writer(self.files)) for key in counts}
            for number, line in enumerate(_lines(path)):
                response, error = (
                    self._outcome(shown["endpoint"], line) if number < count else (None, f"batch_{status}")
                )
                fine = response is not None and response["status_code"] == 200
                key = "output" if fine else "error"
                counts[key] += 1
                writers[key].write(_output_line(shown["id"], number, line["custom_id"], response, error))
                if fine and response is not None:
                    tokens = [so_far + more for so_far, more in zip(tokens, _tokens(response["body"]), strict=True)]
            for key, writer in writers.items():
                if counts[key]:
                    shown[f"{key}_file_id"] = writer.keep(f"{shown['id']}_{key}.jsonl")["id"]
        shown["request_counts"] = {"total": total, "completed": counts["output"], "failed": counts["error"]}
        shown["usage"] = {
            "input_tokens": tokens[0],
            "input_tokens_details": {"cached_tokens": tokens[1]},
            "output_tokens": tokens[2],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens[0] + tokens[2],
        }
        _set(shown, status)

    def _outcome(self, endpoint: str, line: Json) -> tuple[Json | None, str | None]:
        """Return the `response` of an output line and the code of its `error`; one of them is None."""
        try:
            status, body = 200, self.answer_line(endpoint, line)
        except TimeoutError:
            return None, "request_timeout"
        except Refused as refused:
            status, body = refused.status, refused.body
        return {"status_code": status, "request_id": f"req_standin_{line['custom_id']}", "body": body}, None


class _Writer:
    """Writes the lines of an output, with each two of them swapped, to a file."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._body = files.new_upload()
        self._waiting = b""

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._body.close()

    def write(self, line: Json) -> None:
        data = json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n"
        if self._waiting:
            self._body.write(data + self._waiting)
            self._waiting = b""
        else:
            self._waiting = data

    def keep(self, name: str) -> Json:
        self._body.write(self._waiting)
        self._body.seek(0)
        return self._files.add(name, "batch_output", iter(lambda: self._body.read(BLOCK), b""))


def _lines(path: Path) -> Iterator[Json]:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def _check_input(path: Path, endpoint: str, most: int) -> tuple[list[Json], str | None, int]:
    """Return the fault of an input file, the model that it requests, and its number of requests."""
    errors: list[Json] = []
    ids: set[str] = set()
    model: str | None = None
    total = 0
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            if not data.strip():
                continue
            total += 1
            try:
                line = json.loads(data)
            except ValueError:
                line = None
            problem = _line_error(line, endpoint, ids, model, number)
            if problem is not None:
                errors.append(problem)
                continue
            ids.add(line["custom_id"])
            model = line["body"]["model"]
    if not total:
        errors = [_error("empty_file", "The input file is empty. Please ensure that the batch has requests.", None)]
    if total > most:
        message = f"The batch input file contains too many requests: {total}. The most is {most}."
        errors = [_error("too_many_tasks", message, None)]
    return errors[:50], model, total


def _line_error(line: Any, endpoint: str, ids: set[str], model: str | None, number: int) -> Json | None:
    if not isinstance(line, dict):
        return _error("invalid_json_line", "This line is not parseable as valid JSON.", number)
    for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
        if not isinstance(line.get(name), kind):
            return _error("missing_required_parameter", f"Missing required parameter: '{name}'.", number, name)
    if line["custom_id"] in ids:
        message = f"The custom_id '{line['custom_id']}' stands in several lines; each must be unique in a batch."
        return _error("duplicate_custom_id", message, number, "custom_id")
    if line["method"] != "POST":
        return _error("invalid_method", "Only the method 'POST' is supported.", number, "method")
    if line["url"] != endpoint:
        message = f"The URL '{line['url']}' does not match the batch's endpoint '{endpoint}'."
        return _error("url_mismatch", message, number, "url")
    if not isinstance(line["body"].get("model"), str):
        return _error("missing_required_parameter", "Missing required parameter: 'body.model'.", number, "body.model")
    if model is not None and line["body"]["model"] != model:
        message = f"The model '{line['body']['model']}' is not that of the lines before, '{model}'."
        return _error("model_mismatch", message, number, "body.model")
    return None


def _output_line(batch_id: str, number: int, custom_id: str, response: Json | None, error: str | None) -> Json:
    return {
        "id": f"batch_req_{batch_id.removeprefix('batch_')}_{number + 1}",
        "custom_id": custom_id,
        "response": response,
        "error": None if error is None else {"code": error, "message": UNSENT[error]},
    }


def _tokens(body: Json) -> tuple[int, int, int]:
    """Return the tokens of an answer: input, cached input, and output."""
    usage = body["usage"]
    if "input_tokens" in usage:
        cached = usage["input_tokens_details"]["cached_tokens"]
        return usage["input_tokens"], cached, usage["output_tokens"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"], usage["completion_tokens"]


def _check_metadata(metadata: object) -> None:
    if (
        not isinstance(metadata, dict)
        or len(metadata) > 16
        or any(not isinstance(value, str) or len(key) > 64 or len(value) > 512 for key, value in metadata.items())
    ):
        message = "Invalid 'metadata': at most 16 keys of 64 characters, with strings of at most 512."
        raise Refused(400, message, "invalid_value", param="metadata")


def _error(code: str, message: str, line: int | None, param: str | None = None) -> Json:
    return {"code": code, "message": message, "param": param, "line": line}


def _set(shown: Json, status: str) -> None:
    shown["status"] = status
    if f"{status}_at" in shown:
        shown[f"{status}_at"] = int(time.time())
