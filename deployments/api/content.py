"""a finished job and a variant of it -> the artifact that is served, whole or a range of its bytes"""

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiprod_components.errors import ConflictError, InvalidRequestError, MissingArtifactError, NotFoundError, UnsatisfiableRangeError
from deployments.artifacts import ArtifactStore, file_key, preview_key
from deployments.jobs.records import COMPLETED, Job
from deployments.storage import Storage

VARIANTS = ("video", "thumbnail", "spritesheet", "preview")
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True)
class Content:
    """An artifact to serve; `link` is where a bucket serves it itself, `data` its bytes where it may be another in a moment."""

    key: str
    media_type: str
    size: int
    etag: str
    store: ArtifactStore
    link: str | None = None
    data: bytes | None = None

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end` (not included)."""
        if self.data is not None:
            yield self.data[start:end]
            return
        async for chunk in self.store.read(self.key, start=start, end=end):
            yield chunk


def find_content(job: Job, *, variant: str, storage: Storage) -> Content:
    """Raises InvalidRequestError, ConflictError while there is nothing yet, NotFoundError when it is gone."""
    if variant not in VARIANTS:
        raise InvalidRequestError(f"variant must be one of {', '.join(VARIANTS)}, got {variant[:60]!r}", field="variant")
    key, media_type = _place(job, variant)
    if variant == "preview":
        return _now(key, media_type, storage.artifacts)
    stat = storage.artifacts.stat(key)
    if stat is None:
        raise NotFoundError(f"video {job.id} has no {variant} any more", field="variant")
    return Content(key, media_type, stat.size, stat.etag, storage.artifacts, storage.artifacts.link(key))


def _now(key: str, media_type: str, store: ArtifactStore) -> Content:
    """A preview as it is: the next one takes its place."""
    try:
        data = store.get(key)
    except MissingArtifactError as error:
        raise NotFoundError("there is no preview any more", field="variant") from error
    return Content(key, media_type, len(data), hashlib.sha256(data).hexdigest()[:32], store, data=data)


def _place(job: Job, variant: str) -> tuple[str, str]:
    if variant == "preview":
        if not job.progress.get("preview"):
            raise ConflictError(
                f"video {job.id} is {job.shown_status} and has no preview; one is made while it is denoised", field="variant"
            )
        return preview_key(job.id, job.attempt), "image/webp"
    if job.status != COMPLETED or job.output is None:
        raise ConflictError(f"video {job.id} is {job.shown_status}; its content is there when it is completed", field="video_id")
    if variant not in (files := job.output["files"]):
        raise NotFoundError(f"video {job.id} is a sound alone and has no {variant}; leave variant out for the sound", field="variant")
    return file_key(job.output["prefix"], variant), files[variant][0]


def parse_range(header: str | None, *, size: int) -> tuple[int, int] | None:
    """A Range header -> start and end (not included) of the bytes asked for; None for all of them, also where it asks for several ranges.

    Raises UnsatisfiableRangeError.
    """
    asked = RANGE.fullmatch(header or "")
    if asked is None or asked.group() == "bytes=-":
        return None
    first, last = asked.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    if start >= size or start >= end:
        raise UnsatisfiableRangeError(f"the content has {size} bytes, and the range begins at {start}", field="range", size=size)
    return start, end
