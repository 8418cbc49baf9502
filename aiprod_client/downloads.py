"""a video's content -> memory or a file; a download that breaks goes on where it was"""

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import httpx

from aiprod_client.answers import refusal
from aiprod_client.effects import Flow, Request, Work, open_answer, read
from aiprod_client.errors import NoAnswerError
from aiprod_client.patience import NO_DEADLINE, Retries
from aiprod_client.video import Content

Target = str | os.PathLike[str] | IO[bytes]


def download(request: Request, target: Target | None, *, retries: Retries) -> Flow[Content]:
    """Raises AiprodClientError when the server refuses, or when the connection breaks too often without getting on."""
    with _opened(target) as file:
        part = _Part(file)
        yield from _fetch(request, part, retries=retries)
        return Content(part.media_type, part.size, file.getvalue() if isinstance(file, io.BytesIO) and target is None else b"")


@contextmanager
def _opened(target: Target | None) -> Iterator[IO[bytes]]:
    """Where the bytes go. A path has its file when the file is whole, and not before."""
    if target is None:
        yield io.BytesIO()
    elif isinstance(target, str | os.PathLike):
        path = Path(target)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            with unfinished.open("xb") as file:
                yield file
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    else:
        yield target


class _Part:
    """What is there of a file, and of which version of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._start = file.tell() if file.seekable() else 0
        self._etag: str | None = None
        self.size = 0
        self.media_type = ""

    def rest_of(self, request: Request) -> Request:
        """What is missing, if the file has not changed; or else all of it."""
        if not self.size or self._etag is None:
            return request
        return replace(request, headers={**request.headers, "range": f"bytes={self.size}-", "if-range": self._etag})

    def begin(self, answer: httpx.Response) -> None:
        goes_on = answer.status_code == 206 and answer.headers.get("content-range", "").startswith(f"bytes {self.size}-")
        if self.size and not goes_on:
            self._file.seek(self._start)
            self._file.truncate()
            self.size = 0
        etag = answer.headers.get("etag", "W/")
        self._etag = None if etag.startswith("W/") else etag  # a weak one is no promise of the same bytes
        self.media_type = answer.headers.get("content-type", "application/octet-stream")

    def add(self, data: bytes) -> Flow[None]:
        yield Work(partial(self._file.write, data))
        self.size += len(data)


def _fetch(request: Request, part: _Part, *, retries: Retries) -> Flow[None]:
    failures = 0
    while True:
        before, answer = part.size, None
        try:
            answer = yield from open_answer(part.rest_of(request))
            error = refusal(answer) if answer.is_error else None
            if error is None:
                part.begin(answer)
                while (data := (yield from read())) is not None:
                    yield from part.add(data)
                return
        except NoAnswerError as lost:
            # A connection that breaks says nothing against asking for the rest.
            answer, error = None, lost
        failures = 0 if part.size > before else failures + 1
        delay = retries.delay(failures, answer)
        if delay is None:
            raise error
        yield from NO_DEADLINE.sleep(delay)
