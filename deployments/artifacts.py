"""bytes by key -> a folder or a bucket (obstore) -> bytes, whole or a range of them

    videos/{job}/{attempt}/…        finished files; the job's row names the attempt that won
    videos/{job}/uploads/{digest}   what was sent with the request
    steps/{scope}/{identity}        results of finished steps

What is put is there whole or not at all, on a disk too. Local folders serve one node.
"""

import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, from_url

from aiprod_components.errors import ConfigError, MissingArtifactError, StoreRefusedError, StoreUnavailableError

log = logging.getLogger("ray.serve")

CHUNK_BYTES = 1 << 20
LINK_SECONDS = 600

# What does not pass by itself: the store's own errors, and what its other errors say of EPERM, EACCES, EROFS, of a key or a bucket that is
# none, and of a wrong region.
REFUSALS = (PermissionDeniedError, UnauthenticatedError, NotSupportedError, PermissionError)
REFUSAL = re.compile(
    r"\(os error (1|13|30)\)|status code: 40[13]|NoSuchBucket|InvalidBucketName|ContainerNotFound|bucket does not exist"
    r"|AuthorizationHeaderMalformed|incorrectly configured region"
)


def video_prefix(job: str, attempt: int) -> str:
    """Where an attempt puts the files of its video."""
    return f"videos/{job}/{attempt}"


def file_key(prefix: str, name: str) -> str:
    """A file of a finished video: video, thumbnail or spritesheet."""
    return f"{prefix}/{name}"


def preview_key(job: str, attempt: int) -> str:
    """What an attempt's video looks like so far."""
    return file_key(video_prefix(job, attempt), "preview")


def upload_key(job: str, digest: str) -> str:
    return f"videos/{job}/uploads/{digest}"


def step_key(scope: str, identity: str) -> str:
    return f"steps/{scope}/{identity}"


@dataclass(frozen=True)
class Stat:
    """The size of an artifact in bytes, and a tag that changes with its content."""

    size: int
    etag: str


class ArtifactStore:
    """Artifacts under a URL: file:///folder, s3://bucket/prefix, gs://…, az://…; credentials come from the environment."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            if url.startswith("file://"):
                Path(url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
                self._store: ObjectStore = LocalStore(url.removeprefix("file://"), automatic_cleanup=True)
            else:
                self._store = from_url(url)
        except (BaseError, ValueError, OSError) as error:
            raise ConfigError(
                f"artifacts {url!r} cannot be opened ({error}); name file:///FOLDER, s3://BUCKET/PREFIX, gs://… or az://…"
            ) from error

    @property
    def is_local(self) -> bool:
        return isinstance(self._store, LocalStore)

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Raises StoreRefusedError where there is no such bucket."""
        try:
            with _told(key):
                obstore.put(self._store, key, data)
        except MissingArtifactError as error:  # what is missing is not the artifact
            raise _refused(key, error) from error

    def check(self, prefix: str) -> None:
        """Raises StoreRefusedError or StoreUnavailableError where nothing can be put there."""
        key = file_key(prefix, "try")
        self.put(key, b"")
        self.delete(key)

    def get(self, key: str) -> bytes:
        """Raises MissingArtifactError."""
        with _told(key):
            return bytes(obstore.get(self._store, key).bytes())

    def stat(self, key: str) -> Stat | None:
        try:
            with _told(key):
                meta = obstore.head(self._store, key)
        except MissingArtifactError:
            return None
        return Stat(meta["size"], (meta["e_tag"] or f"{meta['last_modified'].timestamp()}-{meta['size']}").strip('"'))

    async def read(self, key: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end` (not included), in chunks. Raises MissingArtifactError."""
        for at in range(start, end, CHUNK_BYTES):
            with _told(key):
                chunk = bytes(await obstore.get_range_async(self._store, key, start=at, end=min(at + CHUNK_BYTES, end)))
            yield chunk

    def copy(self, source: str, target: str) -> None:
        """Raises MissingArtifactError."""
        with _told(source):
            obstore.copy(self._store, source, target)

    def delete(self, *keys: str) -> None:
        """Removes artifacts; those that are gone already are no error."""
        for key in keys:
            with suppress(MissingArtifactError), _told(key):
                obstore.delete(self._store, key)

    def delete_under(self, prefix: str) -> None:
        self.delete(*self.keys_under(prefix))

    def keys_under(self, prefix: str) -> list[str]:
        with _told(prefix):
            return [meta["path"] for batch in obstore.list(self._store, f"{prefix.rstrip('/')}/") for meta in batch]

    def folders(self, prefix: str) -> list[str]:
        """The names directly under a prefix that have something below them."""
        with _told(prefix):
            found = obstore.list_with_delimiter(self._store, f"{prefix.rstrip('/')}/")
        return [str(folder).rstrip("/").rpartition("/")[2] for folder in found["common_prefixes"]]

    def link(self, key: str) -> str | None:
        """A URL at which the bucket itself serves the artifact for ten minutes; None for a folder."""
        if self.is_local:
            return None
        return obstore.sign(self._store, "GET", key, timedelta(seconds=LINK_SECONDS))  # type: ignore[arg-type]

    @property
    def origin(self) -> str | None:
        """Where links lead, as a browser calls it; None for a folder."""
        link = self.link("any")
        return None if link is None else "://".join(urlsplit(link)[:2])


@contextmanager
def _told(key: str) -> Iterator[None]:
    """Whatever the store says, in few words: no, gone, or not now."""
    try:
        yield
    except (BaseError, OSError) as error:
        if isinstance(error, REFUSALS) or REFUSAL.search(str(error)):
            raise _refused(key, error) from error
        if isinstance(error, FileNotFoundError):
            raise MissingArtifactError(f"artifact {key} is not there any more") from error
        raise StoreUnavailableError("the artifact store cannot be reached now; try again in a few seconds") from error


def _refused(key: str, error: Exception) -> StoreRefusedError:
    """What clients are told names no bucket; the log does."""
    log.error("the artifact store refuses %s: %s", key, error)
    return StoreRefusedError("the server's artifact store refuses to keep or give files; whoever runs the server must set it right")
