"""The records of batches: which images were asked about, in which file, and the state of each file.

Each file of questions has a record, `metadata/batches/<name>.json`. It is written before and after every step that
costs something, so that a killed run can be resumed:

    written    the questions are in <name>.jsonl beside it
    uploaded   the server has the file, `file_id`
    submitted  the server works on it, `batch_id`; the file of questions is deleted
    done       its answers are recorded; images without an answer are pending again
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pokefa.errors import InputError, first_line
from pokefa.files import replacing_privately

BATCHES_FOLDER = "metadata/batches"
QUESTIONS = ".jsonl"


@dataclass(frozen=True)
class BatchRecord:
    """The record of one file of questions.

    Args:
        question, version: of the Question.
        requests: request hash by image_id.
        status: the batch's last known status on the server.
        most_usd: maximum cost of its answers.
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
    most_usd: float = 0.0

    def path(self, root: Path, suffix: str = ".json") -> Path:
        """Return the path of the record, or with QUESTIONS that of its questions."""
        return root / BATCHES_FOLDER / f"{self.name}{suffix}"

    @property
    def at_service(self) -> str:
        """The server's ids of the file, the batch, or both; empty before the upload."""
        return ", ".join(name for name in (self.file_id, self.batch_id) if name)


def read_records(root: Path) -> list[BatchRecord]:
    """Return all records, sorted by name.

    Raises:
        InputError: a record is damaged.
    """
    found = []
    for path in sorted((root / BATCHES_FOLDER).glob("*.json")):
        try:
            record = BatchRecord(**json.loads(path.read_bytes()))
            found.append(replace(record, requests=dict(record.requests)))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{BATCHES_FOLDER}/{path.name} is damaged ({first_line(error)}): restore or remove it"
            ) from None
    return found


def open_records(root: Path, question: str) -> list[BatchRecord]:
    """Return the records of a question's files that are not done; `question` is its name.

    Raises:
        InputError: a record is damaged.
    """
    return [record for record in read_records(root) if record.question == question and record.state != "done"]


def write_record(root: Path, record: BatchRecord) -> None:
    """Write a record to disk.

    Raises:
        PokefaError: it cannot be written.
    """
    with replacing_privately(record.path(root)) as stream:
        stream.write(json.dumps(asdict(record), sort_keys=True, indent=1).encode() + b"\n")


# -- about some images ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """A file of questions that is not done, with its questions about some images."""

    record: BatchRecord
    image_ids: frozenset[str]


def questions_about(root: Path, image_ids: Collection[str]) -> list[Waiting]:
    """Return the files of questions that name one of the images and are not done.

    Raises:
        InputError: a record or a file of questions is damaged.
    """
    found = []
    for record in read_records(root):
        asked = {image_id for image_id, _ in _questions(root, record)}
        named = frozenset(image_ids) & (record.requests.keys() | asked)
        if named and record.state != "done":
            found.append(Waiting(record, named))
    return found


def withdraw_questions(root: Path, waiting: Waiting) -> None:
    """Remove the images from a file of questions, then from its record: their answers will not be collected.

    Raises:
        PokefaError: a file cannot be written.
    """
    record, questions = waiting.record, waiting.record.path(root, QUESTIONS)
    left = {image_id: request for image_id, request in record.requests.items() if image_id not in waiting.image_ids}
    if not left and record.state == "written":
        questions.unlink(missing_ok=True)
        record.path(root).unlink()
        return
    if questions.is_file():
        kept = [line for image_id, line in _questions(root, record) if image_id not in waiting.image_ids]
        with replacing_privately(questions) as stream:
            stream.writelines(kept)
    write_record(root, replace(record, requests=left))


def _questions(root: Path, record: BatchRecord) -> Iterator[tuple[str, bytes]]:
    """Yield each line of a file of questions with its image; nothing if the file is deleted."""
    path = record.path(root, QUESTIONS)
    if not path.is_file():
        return
    with path.open("rb") as stream:
        for line in stream:
            try:
                yield str(json.loads(line)["custom_id"]), line
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{BATCHES_FOLDER}/{path.name} is damaged ({first_line(error)}): restore or remove it"
                ) from None
