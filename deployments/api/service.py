"""a caller's wish, understood -> a job's row and its uploads; jobs -> what their owners may see: what HTTP and gRPC have in common"""

import asyncio
import base64
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiprod_components.errors import (
    ConflictError,
    InvalidRequestError,
    MissingArtifactError,
    NotFoundError,
    RateLimitedError,
    StoreUnavailableError,
    UnavailableError,
)
from aiprod_components.pipelines.storage import dump_request, needs_media
from aiprod_components.plan import cost_of
from deployments.api.answers import page_object, shown_of, video_object
from deployments.api.body import Body
from deployments.api.content import Content, find_content
from deployments.api.reading import Readers, has_media
from deployments.api.sources import Sources
from deployments.api.watching import Watcher
from deployments.api.wire import Asked, Wire
from deployments.artifacts import preview_key, upload_key
from deployments.assigning import Assigner
from deployments.auth import ADMIN, Authenticator, Caller
from deployments.jobs.analytics import Analytics
from deployments.jobs.records import COMPLETED, FINAL, LIVE, Job, NewJob
from deployments.outgoing import Outgoing
from deployments.settings import ApiArgs
from deployments.storage import Storage
from deployments.telemetry.jobs import record_job
from deployments.telemetry.traces import current
from deployments.work import graph_of, to_text

MOST_LISTED = 100
LONGEST_KEY = 255
MOST_WATCHED = 200  # streams and waiting answers of one tenant: each holds a place among those that are answered at once


@dataclass(frozen=True)
class Created:
    """A job, and whether it was there before under the same idempotency key."""

    video: dict[str, Any]
    replayed: bool


@dataclass(frozen=True)
class Event:
    """`video` has the Video object, at every change; `preview` a picture of what it looks like so far."""

    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Key:
    """An idempotency key, and what it was first used for."""

    tenant: str
    name: str
    body_hash: str


Wish = tuple[Asked, Job | None]  # what is asked for, and the video that it is made from


class Dispatchers:
    """How the API reaches those who work: by two messages that may be lost without harm."""

    def __init__(self, wake: Callable[[], Awaitable[None]], cancel: Callable[[str], Awaitable[None]]) -> None:
        self.wake, self.cancel = wake, cancel


class VideoService:
    """Every operation on videos. Raises AiprodErrors only."""

    def __init__(
        self, wire: Wire, assigner: Assigner, *, authenticator: Authenticator, dispatchers: Dispatchers, outgoing: Outgoing
    ) -> None:
        self._wire, self._assigner, self._dispatchers, self._outgoing = wire, assigner, dispatchers, outgoing
        self._storage = storage = assigner.storage
        self._sources = Sources(wire, storage)
        self._watcher = Watcher(storage.jobs)
        self._readers = Readers()
        self._watching: Counter[str] = Counter()
        self._analysing = asyncio.Lock()
        self._authenticator = authenticator

    @property
    def content_origins(self) -> list[str]:
        """Where else than here content may be served from: the bucket's origin."""
        origin = self._storage.artifacts.origin
        return [] if origin is None else [origin]

    async def authenticate(self, authorization: str | None, *, scope: str) -> Caller:
        return await self._authenticator.caller(authorization, scope=scope)

    async def understand(self, body: Body, *, caller: Caller) -> Asked:
        """What a body asks for. Media it names are fetched first, where that is allowed; it may decode pictures, so takes a while."""
        async with self._readers.turn(caller.tenant, media=has_media(body)) as read:
            return await read(self._wire.read, await self._sources.fetched(body, self._outgoing))

    async def create(self, body: Body, *, caller: Caller, idempotency_key: str | None = None) -> Created:
        async def ask() -> Wish:
            return await self.understand(body, caller=caller), None

        return await self._once(ask, caller, idempotency_key, sent=("create", body))

    async def remix(self, video_id: str, body: Body, *, caller: Caller, idempotency_key: str | None = None) -> Created:
        """The same seed and settings, another prompt."""

        async def ask() -> Wish:
            source = await self._owned(video_id, caller)
            async with self._readers.turn(caller.tenant, media=needs_media(source.record)) as read:
                return await read(self._sources.remixed, source, body), source

        return await self._once(ask, caller, idempotency_key, sent=(f"remix {video_id}", body))

    async def edit(self, body: Body, *, caller: Caller, idempotency_key: str | None = None) -> Created:
        """A finished or uploaded video as the reference that a new one follows."""

        async def ask() -> Wish:
            source, rest = await self._named_source(body, caller)
            if source is not None:
                async with self._readers.turn(caller.tenant, media=True) as read:
                    rest = await read(self._sources.edited, source, rest)
            return await self.understand(rest, caller=caller), source

        return await self._once(ask, caller, idempotency_key, sent=("edit", body))

    async def extend(self, body: Body, *, caller: Caller, idempotency_key: str | None = None) -> Created:
        """A finished video and what comes after it, in one."""

        async def ask() -> Wish:
            source, rest = await self._named_source(body, caller)
            if source is None:
                raise InvalidRequestError(
                    'video must be {"id": …} of a finished video here; an upload has no latents to carry on', field="video"
                )
            async with self._readers.turn(caller.tenant, media=needs_media(source.record)) as read:
                return await read(self._sources.extended, source, rest), source

        return await self._once(ask, caller, idempotency_key, sent=("extend", body))

    async def get(self, video_id: str, *, caller: Caller) -> dict[str, Any]:
        return await self._shown(await self._owned(video_id, caller))

    async def list(self, *, caller: Caller, after: str | None = None, limit: int = 20, order: str = "desc") -> dict[str, Any]:
        if not 1 <= limit <= MOST_LISTED:
            raise InvalidRequestError(f"limit must be 1 to {MOST_LISTED}, got {limit}", field="limit")
        if order not in ("asc", "desc"):
            raise InvalidRequestError(f"order must be asc or desc, got {order!r}", field="order")
        jobs, has_more = await asyncio.to_thread(self._storage.jobs.list, caller.tenant, after, limit, order)
        positions = await asyncio.to_thread(self._storage.jobs.queue_positions, [job.id for job in jobs])
        return page_object([video_object(job, position=positions.get(job.id)) for job in jobs], has_more=has_more)

    async def cancel(self, video_id: str, *, caller: Caller) -> dict[str, Any]:
        """Answers when the replica that worked on it is free."""
        job = await asyncio.to_thread(self._storage.jobs.cancel, caller.tenant, _known(video_id))
        if job is None:
            raise _not_found(video_id)
        await self._dispatchers.cancel(job.id)
        record_job(job)
        return await self._shown(job)

    async def delete(self, video_id: str, *, caller: Caller) -> dict[str, Any]:
        job = await self._owned(video_id, caller)
        if job.status in LIVE:
            with suppress(ConflictError):  # finished in the same moment
                await self.cancel(video_id, caller=caller)
        # The row last: a deletion that is cut short can be asked for again, or the row runs out.
        await asyncio.to_thread(self._assigner.remove, job)
        await asyncio.to_thread(self._storage.jobs.delete, caller.tenant, job.id)
        return {"id": job.id, "object": "video.deleted", "deleted": True}

    async def watch(self, video_id: str, *, caller: Caller) -> AsyncGenerator[Event, None]:
        """The job as it is, then at every change, with pictures; ends after a final status."""
        with self.place(caller):
            async with aclosing(self.follow(video_id, caller=caller)) as events:
                async for event in events:
                    yield event

    @contextmanager
    def place(self, caller: Caller) -> Iterator[None]:
        """One of those that a tenant's streams and waiting answers take. Raises RateLimitedError when all are taken."""
        if self._watching[caller.tenant] >= MOST_WATCHED:
            raise RateLimitedError(f"{MOST_WATCHED} of your videos are watched or waited for already; close some, or ask now and then")
        self._watching[caller.tenant] += 1
        try:
            yield
        finally:
            self._watching[caller.tenant] -= 1

    async def follow(self, video_id: str, *, caller: Caller) -> AsyncGenerator[Event, None]:
        """As `watch`, for whoever has taken a place already."""
        job = await self._owned(video_id, caller)
        previews = (0, 0)
        yield Event("video", await self._shown(job))
        if job.status in FINAL:
            return
        async with aclosing(self._watcher.changes(job)) as changes:
            async for changed in changes:
                if changed is None:
                    raise _not_found(video_id)
                shown = changed.attempt, changed.progress.get("preview", 0)
                if shown[1] and shown != previews and (picture := await self._preview(changed)):
                    previews = shown
                    yield Event("preview", {"image": picture})
                yield Event("video", await self._shown(changed))
                if changed.status in FINAL:
                    return

    async def wait(self, video_id: str, *, caller: Caller) -> dict[str, Any]:
        """The video once its status is final, for whoever has taken a place already."""
        video: dict[str, Any] = {}
        async for event in self.follow(video_id, caller=caller):
            video = event.data if event.kind == "video" else video
        return video

    async def content(self, video_id: str, *, caller: Caller, variant: str = "video") -> Content:
        job = await self._owned(video_id, caller)
        return await asyncio.to_thread(find_content, job, variant=variant, storage=self._storage)

    async def counts(self) -> dict[str, int]:
        """Live jobs by status."""
        return await asyncio.to_thread(self._storage.jobs.counts)

    async def analytics(self, days: int, *, caller: Caller) -> Analytics:
        """Of all tenants for an admin, else of the caller's own. One at a time: it may read millions of rows."""
        tenant = None if ADMIN in caller.scopes else caller.tenant
        async with self._analysing:
            return await asyncio.to_thread(self._storage.ended.analyse, days, tenant)

    async def _named_source(self, body: Body, caller: Caller) -> tuple[Job | None, Body]:
        """The finished video that `video` names, and the body without it; no job where it is an upload."""
        video_id, rest = self._sources.split(body)
        if video_id is None:
            return None, rest
        job = await self._owned(video_id, caller, field="video")
        if job.status != COMPLETED:
            raise ConflictError(f"video {job.id} is {job.shown_status}; wait until it is completed", field="video")
        return job, rest

    async def _once(self, ask: Callable[[], Awaitable[Wish]], caller: Caller, name: str | None, *, sent: tuple[str, Body]) -> Created:
        """The job that the same request has made before, without asking anew: what it was made from may be gone since. Or a new one."""
        key = None if name is None else await asyncio.to_thread(_key, caller, name, *sent)
        if key is not None:
            job = await asyncio.to_thread(self._storage.jobs.replayed, key.tenant, key.name, key.body_hash)
            if job is not None:
                return Created(await self._shown(job), replayed=True)
        asked, source = await ask()
        return await self._enqueue(asked, caller, key, source=source)

    async def _enqueue(self, asked: Asked, caller: Caller, key: Key | None, *, source: Job | None) -> Created:
        if asked.webhook_url is not None:
            self._outgoing.check(asked.webhook_url, field="webhook_url")
        record, media = dump_request(asked.request)
        job_id = f"video_{secrets.token_hex(16)}"
        new = NewJob(
            id=job_id,
            tenant=caller.tenant,
            family=asked.family.name,
            pipeline=asked.request.pipeline,
            record=record,
            shown=shown_of(asked.request),
            cost=cost_of(asked.plan),
            priority=asked.priority,
            remixed_from=None if source is None else source.id,
            webhook_url=asked.webhook_url,
            idempotency_key=None if key is None else key.name,
            body_hash=None if key is None else key.body_hash,
            traceparent=str(current()),
            work=to_text(graph_of(asked.plan)),
        )
        job, replayed = await asyncio.to_thread(self._store, new, media)
        if not replayed:
            await self._dispatchers.wake()
        return Created(await self._shown(job), replayed)

    def _store(self, new: NewJob, media: dict[str, bytes]) -> tuple[Job, bool]:
        """The uploads first: a job that is there can be run."""
        keys = {upload_key(new.id, digest): data for digest, data in media.items()}
        replayed = True
        try:
            for key, data in keys.items():
                self._storage.artifacts.put(key, data)
            job, replayed = self._storage.jobs.create(new)
            return job, replayed
        finally:
            if replayed:
                self._storage.artifacts.delete(*keys)

    async def _owned(self, video_id: str, caller: Caller, *, field: str | None = None) -> Job:
        job = await asyncio.to_thread(self._storage.jobs.get_owned, caller.tenant, _known(video_id))
        if job is None:
            raise _not_found(video_id, field=field)
        return job

    async def _shown(self, job: Job) -> dict[str, Any]:
        if job.shown_status != "queued":
            return video_object(job, position=None)
        try:
            positions = await asyncio.to_thread(self._storage.jobs.queue_positions, [job.id])
        except UnavailableError:
            # It is stored: an answer that says otherwise would be asked again, for another one.
            positions = {}
        return video_object(job, position=positions.get(job.id))

    async def _preview(self, job: Job) -> str | None:
        try:
            data = await asyncio.to_thread(self._storage.artifacts.get, preview_key(job.id, job.attempt))
        except (MissingArtifactError, StoreUnavailableError):  # a picture is not worth the end of a stream
            return None
        return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def make_service(args: ApiArgs, wire: Wire, storage: Storage, dispatchers: Dispatchers) -> VideoService:
    """The service of these arguments."""
    return VideoService(
        wire,
        Assigner(args, wire.families, storage),
        authenticator=Authenticator(storage.keys, are_needed=args.keys, rate=args.rate),
        dispatchers=dispatchers,
        outgoing=Outgoing(args.outgoing),
    )


def _known(video_id: str) -> str:
    """Raises NotFoundError for what cannot be an id; the database need not be asked."""
    if not video_id.startswith("video_") or len(video_id) != 38 or not video_id.isascii():
        raise _not_found(video_id)
    return video_id


def _not_found(video_id: str, *, field: str | None = None) -> NotFoundError:
    return NotFoundError(f"there is no video {video_id[:60]!r}; GET /v1/videos lists those there are", field=field)


def _key(caller: Caller, name: str, operation: str, body: Body) -> Key:
    if not 1 <= len(name) <= LONGEST_KEY:
        raise InvalidRequestError(f"idempotency-key must have 1 to {LONGEST_KEY} characters, got {len(name)}", field="idempotency-key")
    return Key(caller.tenant, name, _digest(operation, body))


def _digest(operation: str, body: Body) -> str:
    """Of what was asked for, the same for the same JSON in another order."""
    files = {name: hashlib.sha256(data).hexdigest() for name, data in body.files.items()}
    return hashlib.sha256(json.dumps([operation, body.fields, files], sort_keys=True).encode()).hexdigest()
