"""The Batch API: questions in files, answered within a day at half the price, in steps that a user takes.

Each file of questions has a record under `metadata/batches/`, <name>.json, which is written before and after every step
that costs something, so that a run that was killed goes on where it stood:

    written    the questions lie beside it in <name>.jsonl
    uploaded   the server has the file, `file_id`
    submitted  the server works on it, `batch_id`; the file with the questions is gone
    done       its answers are recorded; what it did not answer is pending again

A killed run may have submitted a batch without having noted its id: the batch carries the record's name in its
metadata, and is looked for there before another one is made.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pokefa.errors import BudgetReached, ImageError, InputError, RunError, first_line
from pokefa.files import make_private, replacing_privately
from pokefa.ledger.table import KEY
from pokefa.llm.client import Model, read_reply
from pokefa.llm.estimate import most_usd
from pokefa.llm.images import load_picture
from pokefa.llm.options import Settings
from pokefa.llm.prices import cost_of
from pokefa.llm.prompt import Answer, Ask, Question, plain, request_hash
from pokefa.llm.store import Answers, keep, stored_answer
from pokefa.llm.wire import PATHS, Form, as_mapping, parse_body, request_body, unpaid_error_of, words_of
from pokefa.stage.runner import Row, StageRun

BATCHES_FOLDER = "metadata/batches"
# OpenAI takes 200 MB and 50,000 requests a file.
MOST_BYTES = 190_000_000
MOST_REQUESTS = 50_000
WINDOW = "24h"
NAME_KEY = "pokefa"  # of a batch's metadata
LISTED = 100  # batches that are looked through for one that a killed run has made

ENDED = ("completed", "expired", "failed", "cancelled")

T = TypeVar("T")

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class BatchRecord:
    """What is known of one file of questions.

    Args:
        question, version: of the Question that was asked.
        requests: request hash by image_id.
        status: the server's, when it was last asked.
    """

    name: str
    question: str
    version: str
    model: str
    api: str
    state: str
    requests: Mapping[str, str] = field(default_factory=dict)
    file_id: str | None = None
    batch_id: str | None = None
    status: str | None = None


def read_records(root: Path, question: Question[Any]) -> list[BatchRecord]:
    """Return the records of a question's files that are not done, in the order of their names.

    Raises:
        InputError: a record is damaged.
    """
    found = []
    for path in sorted((root / BATCHES_FOLDER).glob("*.json")):
        try:
            record = BatchRecord(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged ({first_line(error)}): restore or remove it") from None
        if record.question == question.name and record.state != "done":
            found.append(record)
    return found


def waiting_ids(root: Path, question: Question[Any]) -> set[str]:
    """Return the images whose question waits in a file that is not done."""
    return {image_id for record in read_records(root, question) for image_id in record.requests}


# -- submit -----------------------------------------------------------------------------------------------------------


def submit(
    run: StageRun, question: Question[T], rows: Sequence[Row], ask_of: Callable[[Row], Ask], settings: Settings
) -> Iterator[tuple[Row, Answer[T]]]:
    """Submit what is pending, after what a killed run left half submitted; yield answers that are stored already.

    Raises:
        BudgetReached: --max-cost leaves no room for all; what has room was submitted.
    """
    left = [record for record in read_records(run.root, question) if record.state in ("written", "uploaded")]
    for path in (run.root / BATCHES_FOLDER).glob("*.jsonl"):
        if not path.with_suffix(".json").exists():
            path.unlink()  # its writer was killed before it had a record
    if not rows and not left:
        return
    model = Model(settings.form(), run.stop_asked)
    for record in left:
        _bring_to_server(run, model, record, may_exist=True)
    answers = Answers(run.root)
    writer = _Writer(run, question, settings)
    spent, full = 0.0, False
    for row in rows:
        run.check_stop()
        asked = ask_of(row)
        try:
            jpeg, size = load_picture(asked.path, settings.view)
        except ImageError as error:
            run.fail(str(row[KEY]), str(error))
            continue
        request = request_hash(settings.model, question, jpeg, asked.note)
        known = None if settings.ask_again else stored_answer(answers, request, question)
        if known is not None:
            yield row, known
            continue
        discount = settings.facts.batch_discount if settings.facts else 0.0
        spent += most_usd(question, asked.note, size, settings.facts) * (1 - discount)
        if settings.max_cost is not None and spent > settings.max_cost:
            full = True
            break
        line = {
            "custom_id": row[KEY],
            "method": "POST",
            "url": f"/v1{PATHS[settings.api]}",
            "body": request_body(settings.form(), question, jpeg, asked.note),
        }
        finished = writer.add(str(row[KEY]), request, line)
        if finished is not None:
            _bring_to_server(run, model, finished)
    finished = writer.finish()
    if finished is not None:
        _bring_to_server(run, model, finished)
    if full:
        raise BudgetReached(
            f"--max-cost {settings.max_cost:g} leaves no room for more: run again when this is collected"
        )


class _Writer:
    """Writes questions into files that the server will take."""

    def __init__(self, run: StageRun, question: Question[Any], settings: Settings) -> None:
        self._run, self._question, self._settings = run, question, settings
        self._number = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._requests: dict[str, str] = {}

    def add(self, image_id: str, request: str, line: Mapping[str, Any]) -> BatchRecord | None:
        """Add a question; return the record of a file that was full before it."""
        data = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        full = len(self._lines) == MOST_REQUESTS or self._size + len(data) > MOST_BYTES
        finished = self.finish() if full else None
        self._lines.append(data)
        self._size += len(data)
        self._requests[image_id] = request
        return finished

    def finish(self) -> BatchRecord | None:
        """Write what has been added; None where that is nothing."""
        if not self._lines:
            return None
        self._number += 1
        name = f"{self._run.run_id}-{self._number:03d}"
        record = BatchRecord(
            name,
            self._question.name,
            self._question.version,
            self._settings.model,
            self._settings.api,
            "written",
            self._requests,
        )
        with replacing_privately(_questions_path(self._run.root, name)) as stream:
            stream.writelines(self._lines)
        _write(self._run.root, record)
        self._lines, self._size, self._requests = [], 0, {}
        return record


def _bring_to_server(run: StageRun, model: Model, record: BatchRecord, *, may_exist: bool = False) -> None:
    """Upload a file of questions and have the server work on it."""
    questions = _questions_path(run.root, record.name)
    if record.state == "written":
        if not questions.is_file():
            raise InputError(f"{questions} is gone: remove {record.name}.json beside it, and submit again")
        uploaded = _call(model, lambda: model.sdk.files.create(file=questions, purpose="batch"))
        record = replace(record, state="uploaded", file_id=uploaded.id)
        _write(run.root, record)
    batch = _find_batch(model, record.name) if may_exist else None
    if batch is None:
        # Not repeated by the SDK: a request whose answer got lost has made a batch, and a second one costs as much.
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
    _write(run.root, replace(record, state="submitted", batch_id=batch.id, status=batch.status))
    questions.unlink(missing_ok=True)
    run.counts["submitted"] += len(record.requests)
    log.info("%s: %d questions submitted as %s", record.name, len(record.requests), batch.id)


def _find_batch(model: Model, name: str) -> Any:
    """Return the batch that a killed run has made of a file, or None."""
    page = _call(model, lambda: model.sdk.batches.list(limit=LISTED))
    return next((batch for batch in page.data if (batch.metadata or {}).get(NAME_KEY) == name), None)


# -- status and collect -----------------------------------------------------------------------------------------------


def show_status(run: StageRun, question: Question[Any], settings: Settings) -> None:
    """Ask the server how far each batch is, log it, and put it into the summary."""
    records = read_records(run.root, question)
    model = Model(settings.form(), run.stop_asked) if records else None
    shown = []
    for record in records:
        counts = None
        if model is not None and record.batch_id is not None:
            batch = _call(model, partial(model.sdk.batches.retrieve, str(record.batch_id)))
            record = replace(record, status=batch.status)
            _write(run.root, record)
            counts = batch.request_counts
        done = f"{counts.completed} of {counts.total} answered, {counts.failed} failed" if counts else "not submitted"
        log.info("%s: %s, %s", record.name, record.status or record.state, done)
        shown.append({"name": record.name, "batch": record.batch_id, "status": record.status or record.state})
    run.extra["batches"] = shown


def collect(
    run: StageRun, question: Question[T], rows: Sequence[Row], settings: Settings
) -> Iterator[tuple[Row, Answer[T]]]:
    """Yield the answers of all batches that have ended; what they did not answer is pending again afterwards."""
    records = [record for record in read_records(run.root, question) if record.state == "submitted"]
    if not records:
        log.info("no batch is under way")
        return
    model = Model(settings.form(), run.stop_asked)
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
        for error in (batch.errors.data or []) if batch.errors else []:
            log.error("%s: the server refuses the file: %s", record.name, plain(str(error.message)))
        answered: set[str] = set()
        for file_id in (batch.output_file_id, batch.error_file_id):
            for line in _lines_of(run, model, file_id) if file_id else ():
                answer = _read_line(line, record, question, settings)
                if answer is None:
                    continue  # it was not the picture's fault, or the answer is to another prompt
                answered.add(str(line["custom_id"]))
                row = pending.pop(str(line["custom_id"]), None)
                keep(answers, answer.usage["request"], answer)
                if row is not None:
                    yield row, answer
        left = len(record.requests) - len(answered)
        if left:
            run.counts["unanswered"] += left
            log.warning("%s: %s with %d questions unanswered, which are pending again", record.name, batch.status, left)
        _write(run.root, replace(record, state="done", status=batch.status))
    run.extra["batches_under_way"] = under_way


def _read_line(line: object, record: BatchRecord, question: Question[T], settings: Settings) -> Answer[T] | None:
    """Return the answer that a line of an output or error file holds; None for what is to be asked again."""
    request = record.requests.get(str(as_mapping(line).get("custom_id")))
    response = as_mapping(as_mapping(line).get("response"))
    body = response.get("body")
    if request is None or not isinstance(body, dict) or record.version != question.version:
        return None
    if response.get("status_code") == 200 and unpaid_error_of(body):
        return None
    form = Form(record.model, detail=settings.detail)
    if response.get("status_code") == 200:
        answer = read_reply(body, form, question, request)
        usage = dict(answer.usage)
        if settings.facts is not None:
            usage["usd"] = round(cost_of(settings.facts, usage, batch=True), 9)
        return replace(answer, usage=usage)
    if response.get("status_code") == 400:
        nothing = read_reply({}, form, question, request)
        return replace(nothing, problem=f"bad_request: 400: {plain(words_of(body) or 'no reason given')}")
    return None


def _lines_of(run: StageRun, model: Model, file_id: str) -> Iterator[Any]:
    """Yield the lines of a file on the server, which is brought to the disk whole before the first is read.

    A line that is no JSON is None: it costs its own image, which is asked about again.
    """
    # The server chose the id: it must not choose the path.
    path = run.root / BATCHES_FOLDER / f".{hashlib.sha256(file_id.encode()).hexdigest()[:16]}.tmp"
    try:
        make_private(path)
        _call(model, lambda: model.sdk.files.content(file_id).write_to_file(path))
        with path.open("rb") as stream:
            yield from map(parse_body, filter(bytes.strip, stream))
    finally:
        path.unlink(missing_ok=True)


def _call(model: Model, call: Callable[[], Any]) -> Any:
    """Make a call that belongs to no picture.

    Raises:
        RunError: it failed; nothing is lost, and the same command goes on.
    """
    try:
        return call()
    except Exception as error:
        explained = model.explain(error)
        if isinstance(explained, RunError):
            raise explained from None
        raise RunError(f"{explained}: run the same command again, it goes on where it stood") from None


def _questions_path(root: Path, name: str) -> Path:
    return root / BATCHES_FOLDER / f"{name}.jsonl"


def _write(root: Path, record: BatchRecord) -> None:
    with replacing_privately(root / BATCHES_FOLDER / f"{record.name}.json") as stream:
        stream.write(json.dumps(asdict(record), sort_keys=True, indent=1).encode() + b"\n")
