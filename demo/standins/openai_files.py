"""Files of the OpenAI stand-in, uploaded or written by batches, in a folder that is deleted at the end."""

from __future__ import annotations

import mmap
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO

from demo.standins.openai_requests import Json, Refused

BLOCK = 2**20
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")


@dataclass
class Files:
    """The files of one server, shared by all threads.

    Args:
        most_bytes: maximum size of a file of purpose `batch`.
    """

    most_bytes: int
    _objects: dict[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._number = 0

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def folder(self) -> Path:
        """Return the folder of the files; create it on first use."""
        with self._lock:
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="openai-standin-")
            return Path(self._temporary.name)

    def new_upload(self) -> BinaryIO:
        """Open an unnamed file for the body of a request."""
        return tempfile.TemporaryFile(dir=self.folder())

    def upload(self, content_type: str, body: BinaryIO) -> Json:
        """Store the file of a multipart form in `body`, and return its file object.

        Raises:
            Refused: the form lacks a part, the purpose is unknown, or the file is too large.
        """
        parts = read_form(content_type, body)
        purpose = parts.get("purpose", Part()).data.decode("utf-8", "replace")
        if "file" not in parts or parts["file"].name is None:
            raise Refused(400, "Missing required parameter: 'file'.", "missing_required_parameter", param="file")
        if purpose not in PURPOSES:
            raise Refused(400, f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'", param="purpose")
        file = parts["file"]
        if purpose == "batch" and len(file.data) > self.most_bytes:
            message = f"File is too large: {len(file.data)} bytes, and at most {self.most_bytes} for purpose 'batch'."
            raise Refused(413, message)
        return self.add(str(file.name), purpose, [file.data])

    def add(self, name: str, purpose: str, blocks: Iterable[bytes]) -> Json:
        """Store a file of these bytes and return its file object."""
        with self._lock:
            self._number += 1
            file_id = f"file-standin{self._number:06}"
        with (self.folder() / file_id).open("wb") as file:
            file.writelines(blocks)
            size = file.tell()
        found = {
            "id": file_id,
            "object": "file",
            "bytes": size,
            "created_at": int(time.time()),
            "expires_at": None,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        with self._lock:
            self._objects[file_id] = found
        return found

    def get(self, file_id: str) -> Json:
        """Return a file object.

        Raises:
            Refused: there is no such file.
        """
        with self._lock:
            if file_id not in self._objects:
                raise Refused(404, f"No such File object: {file_id}", None, param="id")
            return dict(self._objects[file_id])

    def path(self, file_id: str) -> Path:
        """Return the path of a file.

        Raises:
            Refused: there is no such file.
        """
        return self.folder() / str(self.get(file_id)["id"])

    def delete(self, file_id: str) -> Json:
        """Remove a file.

        Raises:
            Refused: there is no such file.
        """
        self.path(file_id).unlink()
        with self._lock:
            del self._objects[file_id]
        return {"id": file_id, "object": "file", "deleted": True}

    def newest_first(self, purpose: str | None) -> list[Json]:
        """Return all file objects, or those of one purpose."""
        with self._lock:
            found = [dict(found) for found in self._objects.values() if purpose in (None, found["purpose"])]
        return found[::-1]


@dataclass(frozen=True)
class Part:
    """A part of a form: its bytes, and its file name if it is a file."""

    data: bytes = b""
    name: str | None = None


def read_form(content_type: str, body: BinaryIO) -> dict[str, Part]:
    """Return the parts of a multipart/form-data body by name.

    Raises:
        Refused: the body has another form.
    """
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if not content_type.startswith("multipart/form-data") or boundary is None:
        raise Refused(400, "stand-in: a file is uploaded as multipart/form-data")
    mark = b"--" + boundary.group(1).encode("latin-1")
    found: dict[str, Part] = {}
    if body.seek(0, 2) == 0:
        raise Refused(400, "stand-in: the form is empty")
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(mark)
        while start >= 0 and data[start + len(mark) : start + len(mark) + 2] == b"\r\n":
            head_end = data.find(b"\r\n\r\n", start)
            end = data.find(b"\r\n" + mark, head_end + 2)
            if min(head_end, end) < 0:
                raise Refused(400, "stand-in: the form ends in the middle of a part")
            told = _disposition(data[start + len(mark) + 2 : head_end].decode("utf-8", "replace"))
            found[str(told.get("name"))] = Part(data[head_end + 4 : end], told.get("filename"))
            start = end + 2
    return found


def _disposition(head: str) -> dict[str, Any]:
    """Return the parameters of Content-Disposition in a part's header lines."""
    message = Message()
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        message[name] = value.strip()
    return {str(name): value for name, value in message.get_params([], "Content-Disposition")}


def page_of(objects: Sequence[Json], query: Mapping[str, str]) -> Json:
    """Return the page of a list, newest first, selected by `limit` and `after`.

    Raises:
        Refused: OpenAI would not accept a value.
    """
    limit, after = query.get("limit", "20"), query.get("after")
    if not limit.isdecimal() or not 1 <= int(limit) <= 10_000:
        raise Refused(400, f"Invalid 'limit': {limit!r} is no number from 1 to 10000.", param="limit")
    ids = [found["id"] for found in objects]
    if after is not None and after not in ids:
        raise Refused(400, f"stand-in: no object {after} to go on after", param="after")
    start = ids.index(after) + 1 if after is not None else 0
    page = list(objects[start : start + int(limit)])
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + len(page) < len(objects),
    }
