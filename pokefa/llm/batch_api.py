"""The Batch API: questions in files, answered within a day at half the price, in steps that the user starts.

`batch_records.py` describes what is recorded about each file.

A killed run may have submitted a batch without recording its id. The batch's metadata holds the record's name, so the
next run looks for it there before it creates another one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pokefa.errors import ImageError, InputError, Interrupted, RunError
from pokefa.files import make_private, replacing_privately
from pokefa.ledger.table import KEY
from pokefa.llm.batch_records import BATCHES_FOLDER, QUESTIONS, BatchRecord, open_records, write_record
from pokefa.llm.client import Client, read_reply
from pokefa.llm.failures import explain
from pokefa.llm.images import load_picture
from pokefa.llm.options import Settings
from pokefa.llm.prices import BATCH
from pokefa.llm.prompt import Answer, Question, Request, plain, request_hash
from pokefa.llm.request import most_usd, request_body
from pokefa.llm.store import Answers, keep, stored_answer
from pokefa.llm.wire import PATHS, RequestOptions, as_mapping, parse_body, unpaid_error_of, words_of
from pokefa.stage.runner import Row, StageRun

# OpenAI accepts 200 MB and 50,000 requests per file.
MOST_BYTES = 190_000_000
MOST_REQUESTS = 50_000
WINDOW = "24h"
NAME_KEY = "pokefa"  # key in a batch's metadata
LISTED = 100  # batches searched for one that a killed run created

ENDED = ("completed", "expired", "failed", "cancelled")

T = TypeVar("T")

log = logging.getLogger("pokefa")


@dataclass
class Submitted:
    """The result of submitting: images that cannot be opened, and whether --max-cost excluded some."""

    failed: set[str] = field(default_factory=set)
    full: bool = False


@dataclass(frozen=True)
class Ended:
    """A batch whose answers were collected: the images without an answer, and the server's error messages by code."""

    record: BatchRecord
    unanswered: frozenset[str]
    errors: Mapping[str, str]


class CallFailed(RunError):
    """A call that concerns no single image failed, possibly for a short time only."""


def waiting_ids(root: Path, question: Question[Any]) -> set[str]:
    """Return the images whose question is in a file that is not done."""
    return {image_id for record in open_records(root, question.name) for image_id in record.requests}


# -- submit -----------------------------------------------------------------------------------------------------------


def submit(
    run: StageRun,
    question: Question[T],
    rows: Sequence[Row],
    ask_of: Callable[[Row], Request],
    settings: Settings,
    room: float | None,
    most_requests: int | None = None,
) -> Generator[tuple[Row | None, Answer[T]], None, Submitted]:
    """Finish what a killed run left half submitted, then submit pending images; yield answers that are stored already.

    Args:
        room: maximum cost of the answers in dollars; None = no limit.
        most_requests: questions per file.
    """
    result = Submitted()
    left = [record for record in open_records(run.root, question.name) if record.state in ("written", "uploaded")]
    for path in (run.root / BATCHES_FOLDER).glob(f"*{QUESTIONS}"):
        if not path.with_suffix(".json").exists():
            path.unlink()  # its writer was killed before it wrote a record
    if not rows and not left:
        return result
    form = settings.form()
    model = Client(form, run.stop_asked)
    for record in left:
        _bring_to_server(run, model, record, may_exist=True)
    answers = Answers(run.root)
    writer = _Writer(run, question, settings, most_requests or MOST_REQUESTS)
    promised = 0.0
    for row in rows:
        run.check_stop()
        asked = ask_of(row)
        try:
            jpeg, size = load_picture(asked.path, settings.view)
        except ImageError as error:
            run.fail(str(row[KEY]), str(error))
            result.failed.add(str(row[KEY]))
            continue
        request = request_hash(settings.model, question, jpeg, asked.note)
        known = None if settings.ask_again else stored_answer(answers, request, question)
        if known is not None:
            yield row, known
            continue
        dollars = most_usd(form, question, asked.note, size, BATCH)
        promised += dollars
        if room is not None and promised > room:
            result.full = True
            break
        line = {
            "custom_id": row[KEY],
            "method": "POST",
            "url": f"/v1{PATHS[settings.api]}",
            "body": batch_body(form, question, jpeg, asked.note),
        }
        finished = writer.add(str(row[KEY]), request, line, dollars)
        if finished is not None:
            _bring_to_server(run, model, finished)
    finished = writer.finish()
    if finished is not None:
        _bring_to_server(run, model, finished)
    return result


def batch_body(form: RequestOptions, question: Question[Any], jpeg: bytes, note: str) -> dict[str, Any]:
    """Return the body of a line in a batch file; batches have their own tier."""
    body = request_body(form, question, jpeg, note)
    body.pop("service_tier", None)
    return body


class _Writer:
    """Writes questions to files within the server's size limits."""

    def __init__(self, run: StageRun, question: Question[Any], settings: Settings, most_requests: int) -> None:
        self._run, self._question, self._settings = run, question, settings
        self._most_requests = most_requests
        self._most_usd = 0.0
        self._lines: list[bytes] = []
        self._size = 0
        self._requests: dict[str, str] = {}

    def add(self, image_id: str, request: str, line: Mapping[str, Any], dollars: float) -> BatchRecord | None:
        """Add a question; return the record of the previous file if that is full."""
        data = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        full = len(self._lines) == self._most_requests or self._size + len(data) > MOST_BYTES
        finished = self.finish() if full else None
        self._lines.append(data)
        self._size += len(data)
        self._requests[image_id] = request
        self._most_usd += dollars
        return finished

    def finish(self) -> BatchRecord | None:
        """Write the added questions; return None if there are none."""
        if not self._lines:
            return None
        name = _free_name(self._run)
        record = BatchRecord(
            name,
            self._question.name,
            self._question.version,
            self._settings.model,
            self._settings.api,
            "written",
            self._requests,
            most_usd=self._most_usd,
        )
        with replacing_privately(record.path(self._run.root, QUESTIONS)) as stream:
            stream.writelines(self._lines)
        write_record(self._run.root, record)
        self._lines, self._size, self._requests, self._most_usd = [], 0, {}, 0.0
        return record


def _free_name(run: StageRun) -> str:
    """Return the name of the next file of questions in this run."""
    number = len(list((run.root / BATCHES_FOLDER).glob(f"{run.run_id}-*.json")))
    return f"{run.run_id}-{number + 1:03d}"


def _bring_to_server(run: StageRun, model: Client, record: BatchRecord, *, may_exist: bool = False) -> None:
    """Upload a file of questions and create its batch."""
    questions = record.path(run.root, QUESTIONS)
    if record.state == "written":
        if not questions.is_file():
            raise InputError(f"{questions} is gone: remove {record.name}.json beside it, and submit again")
        uploaded = _call(model, lambda: model.sdk.files.create(file=questions, purpose="batch"))
        record = replace(record, state="uploaded", file_id=uploaded.id)
        write_record(run.root, record)
    batch = _find_batch(model, record.name) if may_exist else None
    if batch is None:
        # The SDK must not retry: a request whose answer was lost created a batch, and a second one costs as much.
        create = partial(
            model.sdk.with_options(max_retries=0).batches.create,
            input_file_id=str(record.file_id),
            endpoint=f"/v1{PATHS[record.api]}",  # type: ignore[index]
            completion_window=WINDOW,
            metadata={NAME_KEY: record.name},
        )
        try:
            batch = _call(model, create)
        except RunError:
            batch = _find_batch(model, record.name)
            if batch is None:
                raise
    write_record(run.root, replace(record, state="submitted", batch_id=batch.id, status=batch.status))
    questions.unlink(missing_ok=True)
    run.counts["submitted"] += len(record.requests)
    log.info("%s: %d questions submitted as %s", record.name, len(record.requests), batch.id)


def _find_batch(model: Client, name: str) -> Any:
    """Return the batch that a killed run created from a file, or None."""
    page = _call(model, lambda: model.sdk.batches.list(limit=LISTED))
    return next((batch for batch in page.data if (batch.metadata or {}).get(NAME_KEY) == name), None)


# -- status and collect -----------------------------------------------------------------------------------------------


def show_status(run: StageRun, question: Question[Any], settings: Settings) -> None:
    """Ask the server for the state of each batch; log it and add it to the summary."""
    records = open_records(run.root, question.name)
    model = Client(settings.form(), run.stop_asked) if records else None
    shown = []
    for record in records:
        counts = None
        if model is not None and record.batch_id is not None:
            batch = _call(model, partial(model.sdk.batches.retrieve, str(record.batch_id)))
            record = replace(record, status=batch.status)
            write_record(run.root, record)
            counts = batch.request_counts
        done = f"{counts.completed} of {counts.total} answered, {counts.failed} failed" if counts else "not submitted"
        log.info("%s: %s, %s", record.name, record.status or record.state, done)
        shown.append({"name": record.name, "batch": record.batch_id, "status": record.status or record.state})
    run.extra["batches"] = shown


def collect(
    run: StageRun, question: Question[T], rows: Sequence[Row], settings: Settings
) -> Generator[tuple[Row | None, Answer[T]], None, list[Ended]]:
    """Yield the answers of all finished batches; images without an answer become pending again.

    An answer about an image that is not among the rows has no row: it is stored, because it was paid for.
    """
    records = [record for record in open_records(run.root, question.name) if record.state == "submitted"]
    found: list[Ended] = []
    if not records:
        log.info("no batch is under way")
        return found
    model = Client(settings.form(), run.stop_asked)
    answers = Answers(run.root)
    pending = {str(row[KEY]): row for row in rows}
    under_way = 0
    for record in records:
        run.check_stop()
        batch = _call(model, partial(model.sdk.batches.retrieve, str(record.batch_id)))
        if batch.status not in ENDED:
            under_way += 1
            log.info("%s: %s, not ended yet", record.name, batch.status)
            continue
        refusals = (batch.errors.data or []) if batch.errors else []
        errors = {str(error.code): plain(str(error.message)) for error in refusals}
        for message in errors.values():
            log.error("%s: the server refuses the file: %s", record.name, message)
        left = set(record.requests)
        for file_id in (batch.output_file_id, batch.error_file_id):
            for line in _lines_of(run, model, file_id) if file_id else ():
                image_id = str(as_mapping(line).get("custom_id"))
                answer = _read_line(line, record, question, settings)
                if answer is None or image_id not in left:
                    continue  # not caused by the image, or the answer to another prompt
                left.discard(image_id)
                row = pending.pop(image_id, None)
                is_new = is_unknown(answers, answer)
                keep(answers, answer.usage["request"], answer)
                if row is not None or is_new:
                    yield row, answer
        if left:
            run.counts["unanswered"] += len(left)
            unanswered = len(left)
            log.warning("%s: %s with %d questions unanswered, pending again", record.name, batch.status, unanswered)
        write_record(run.root, replace(record, state="done", status=batch.status))
        found.append(Ended(record, frozenset(left), errors))
    run.extra["batches_under_way"] = under_way
    return found


def is_unknown(answers: Answers, answer: Answer[Any]) -> bool:
    """Tell whether a usable answer is missing from the store, as after a run that was killed while collecting."""
    stored = answers.get(answer.usage["request"]) if answer.raw is not None else None
    return answer.raw is not None and (stored is None or stored.response != answer.usage["response"])


def _read_line(line: object, record: BatchRecord, question: Question[T], settings: Settings) -> Answer[T] | None:
    """Return the answer in a line of an output or error file; None if the question must be asked again."""
    request = record.requests.get(str(as_mapping(line).get("custom_id")))
    response = as_mapping(as_mapping(line).get("response"))
    body = response.get("body")
    if request is None or not isinstance(body, dict) or record.version != question.version:
        return None
    if response.get("status_code") == 200 and unpaid_error_of(body):
        return None
    form = RequestOptions(record.model, detail=settings.detail)
    if response.get("status_code") == 200:
        return read_reply(body, form, question, request, batch=True)
    if response.get("status_code") == 400:
        nothing = read_reply({}, form, question, request, batch=True)
        return replace(nothing, problem=f"bad_request: 400: {plain(words_of(body) or 'no reason given')}")
    return None


def _lines_of(run: StageRun, model: Client, file_id: str) -> Iterator[Any]:
    """Yield the lines of a file on the server, which is downloaded completely before the first one is read.

    A line that is not JSON is None: only its image is asked about again.
    """
    # The server chose the id, and must not choose the path.
    path = run.root / BATCHES_FOLDER / f".{hashlib.sha256(file_id.encode()).hexdigest()[:16]}.tmp"
    try:
        make_private(path)
        _call(model, lambda: model.sdk.files.content(file_id).write_to_file(path))
        with path.open("rb") as stream:
            yield from map(parse_body, filter(bytes.strip, stream))
    finally:
        path.unlink(missing_ok=True)


def _call(model: Client, call: Callable[[], Any]) -> Any:
    """Make a call that concerns no single image.

    Raises:
        CallFailed: it failed; nothing is lost, and the same command resumes.
        RunError: it would fail again.
    """
    try:
        return call()
    except Exception as error:
        explained = explain(error, model.host, model.form, model.timeout)
        if model.is_connection_error(error) and not isinstance(explained, Interrupted):
            raise CallFailed(str(explained)) from None
        if isinstance(explained, RunError):
            raise explained from None
        raise CallFailed(f"{explained}: run the same command again, it goes on where it stood") from None
