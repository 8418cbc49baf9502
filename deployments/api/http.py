"""HTTP request -> one operation of the service -> its answer, in OpenAI's shape: every route on one page"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Path, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from aiprod_components.errors import AiprodError, UnauthenticatedError
from aiprod_components.media.encode import SOUND_TYPES
from deployments.api import errors
from deployments.api.answers import made_headers
from deployments.api.body import Body, read_body
from deployments.api.catalogue import describe_plan, list_models
from deployments.api.content import Content, parse_range
from deployments.api.documents import ANALYTICS, answers, describe_api, ref, takes
from deployments.api.service import LONGEST_KEY, MOST_LISTED, Created, Event, VideoService
from deployments.api.tracing import TracedRequests
from deployments.api.waiting import waited_for
from deployments.api.wire import Wire
from deployments.auth import METRICS, READ, WRITE, Caller, is_loopback
from deployments.etags import is_known
from deployments.jobs.records import COMPLETED
from deployments.playground import mount
from deployments.settings import MOST_DAYS
from deployments.telemetry.exposition import CONTENT_TYPE_LATEST

POLL_AFTER_MS = 500
HEARTBEAT_SECONDS = 15.0
# A failed job's code -> the status of an answer that was to be its video.
FAILURES = {"worker_lost": 503, "store_refused": 503, "not_finite": 400, "invalid_media": 400, "invalid_request": 400}

SECURED = ("/v1/", "/metrics")

VideoId = Annotated[str, Path(description="Of a video.")]
IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=LONGEST_KEY, description="The same key and body give the same video, once.")
]
JSON, EVENTS, PROMETHEUS = "application/json", "text/event-stream", "text/plain"
ANY_OBJECT = {"type": "object"}
EVENT = {
    "type": "object",
    "description": "One event of the stream: `video` has a Video as JSON, `preview` has {image: a data URL}.",
    "properties": {"event": {"enum": ["video", "preview"]}, "data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["event", "data"],
}
FILE_TYPES = ("video/mp4", "image/png", "image/webp", "image/jpeg", *SOUND_TYPES.values())
CREATED = answers({JSON: ref("Video")}, 400, 404, 409, 413, 415, 422)


@dataclass(frozen=True)
class Surroundings:
    """What the routes ask the cluster: the applications' states, stages that find no node, the graph with its queues, the page of metrics.

    With `keys` every request needs one; without, clients on this machine alone are answered, whatever address the proxy listens on.
    """

    applications: Callable[[], Awaitable[dict[str, str]]]
    unplaced: Callable[[], Awaitable[dict[str, str]]]
    graph: Callable[[], Awaitable[dict[str, Any]]]
    metrics: Callable[[], Awaitable[bytes]]
    keys: bool


def make_app(service: VideoService, wire: Wire, surroundings: Surroundings) -> FastAPI:
    """The HTTP face of a service."""
    # FastAPI's own pages would load a stranger's script where the playground keeps an API key; docs/api.md says what they said.
    pages: dict[str, Any] = {"docs_url": None, "redoc_url": None}
    # FastAPI's own root spans would cut the trace that begins at Serve's proxy.
    app = FastAPI(title="AIPROD", version=version("aiprod"), description="Video generation.", telemetry={"tracing": False}, **pages)
    app.add_middleware(TracedRequests)
    errors.install(app)
    Routes(service, wire, surroundings).add_to(app)
    document = describe_api(app, wire)
    app.openapi = lambda: document
    mount(app, video_origins=service.content_origins)
    return app


class Routes:
    """Each method a route. A fixed path stands before the one with an id in its place."""

    def __init__(self, service: VideoService, wire: Wire, surroundings: Surroundings) -> None:
        self._service, self._surroundings = service, surroundings
        self._models = list_models(wire)

    def add_to(self, app: FastAPI) -> None:
        video = answers({JSON: ref("Video")}, 404)
        file = {kind: {"type": "string", "format": "binary"} for kind in FILE_TYPES}
        whole = answers(file, 400, 404, 409, 416)
        content = {
            **whole,
            206: {**whole[200], "description": "A range of it."},
            302: {"description": "Where the bucket has it."},
            304: {"description": "What If-None-Match names."},
        }
        plain = answers({JSON: ANY_OBJECT})
        asks = takes("VideoRequest", "VideoForm")

        def add(method: str, path: str, act: Callable[..., Any], responses: dict[int | str, dict[str, Any]], **more: Any) -> None:
            secured = {"security": [{"key": []}]} if self._surroundings.keys and path.startswith(SECURED) else {}
            extra, usual = {**secured, **more}, 200 if 200 in responses else 404
            options: dict[str, Any] = {"status_code": usual, "responses": responses, "openapi_extra": extra}
            app.add_api_route(path, act, methods=[method], response_class=Response, **options)

        add("POST", "/v1/videos", self.create, CREATED, **asks)
        add("GET", "/v1/videos", self.list, answers({JSON: ref("VideoPage")}, 400, 404))
        add("POST", "/v1/videos/sync", self.make, answers(file, 400, 404, 409, 413, 415, 422), **asks)
        add("POST", "/v1/videos/edits", self.edit, CREATED, **takes("EditRequest", "EditForm"))
        add("POST", "/v1/videos/extensions", self.extend, CREATED, **takes("ExtensionRequest", "ExtensionRequest"))
        absent = {status: answer for status, answer in answers({}, 404).items() if status != 200}
        add("POST", "/v1/videos/characters", self.characters, absent)
        add("GET", "/v1/videos/characters/{character_id}", self.characters, absent)
        add("GET", "/v1/videos/{video_id}", self.retrieve, video)
        add("DELETE", "/v1/videos/{video_id}", self.delete, answers({JSON: ref("DeletedVideo")}, 404))
        add("GET", "/v1/videos/{video_id}/content", self.content, content)
        add("GET", "/v1/videos/{video_id}/events", self.events, answers({EVENTS: EVENT}, 404))
        add("POST", "/v1/videos/{video_id}/cancel", self.cancel, answers({JSON: ref("Video")}, 404, 409))
        add("POST", "/v1/videos/{video_id}/remix", self.remix, CREATED, **takes("RemixFields", "RemixFields"))
        add("POST", "/v1/plans", self.plan, answers({JSON: ANY_OBJECT}, 400, 404, 413, 415), **asks)
        add("GET", "/v1/models", self.models, plain)
        add("GET", "/v1/graph", self.graph, plain)
        add("GET", "/v1/analytics", self.analytics, answers({JSON: ref("Analytics")}, 400))
        add("GET", "/metrics", self.metrics, answers({PROMETHEUS: {"type": "string"}}))
        add("GET", "/healthz", self.healthz, {200: plain[200]})
        add("GET", "/readyz", self.readyz, {200: plain[200], 503: {**plain[200], "description": "Something is starting or has failed."}})

    async def create(self, request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        """Asks for a video; it is made by and by."""
        caller, body = await self._asked(request)
        return _created(await self._service.create(body, caller=caller, idempotency_key=idempotency_key))

    async def remix(self, request: Request, video_id: VideoId, idempotency_key: IdempotencyKey = None) -> Response:
        """Asks for a video with the same seed and settings, and another prompt."""
        caller, body = await self._asked(request)
        return _created(await self._service.remix(video_id, body, caller=caller, idempotency_key=idempotency_key))

    async def edit(self, request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        """Asks for a video that follows a finished or uploaded one."""
        caller, body = await self._asked(request)
        return _created(await self._service.edit(body, caller=caller, idempotency_key=idempotency_key))

    async def extend(self, request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        """Asks for a finished video with more after it."""
        caller, body = await self._asked(request)
        return _created(await self._service.extend(body, caller=caller, idempotency_key=idempotency_key))

    async def make(self, request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        """Makes a video and answers it. A client that hangs up cancels it."""
        started = time.perf_counter()
        caller, body = await self._asked(request)
        async with waited_for(self._service, body, caller=caller, idempotency_key=idempotency_key) as created:
            video = await self._service.wait(created.video["id"], caller=caller)
            if video["status"] != COMPLETED:
                return _unmade(video)
            content = await self._service.content(video["id"], caller=caller)
        headers = made_headers(video, seconds=time.perf_counter() - started) | {"content-length": str(content.size)}
        return StreamingResponse(content.read(0, content.size), media_type=content.media_type, headers=headers)

    async def list(
        self,
        request: Request,
        after: Annotated[str | None, Query(description="The last_id of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="Of a page.")] = 20,
        order: Annotated[Literal["asc", "desc"], Query(description="By the time of creation.")] = "desc",
    ) -> Response:
        """The caller's videos, a page at a time."""
        caller = await self._caller(request, READ)
        return JSONResponse(await self._service.list(caller=caller, after=after, limit=limit, order=order))

    async def retrieve(self, request: Request, video_id: VideoId) -> Response:
        """A video as it stands; a failed one is an answer like others."""
        video = await self._service.get(video_id, caller=await self._caller(request, READ))
        return JSONResponse(video, headers={"openai-poll-after-ms": str(POLL_AFTER_MS)})

    async def delete(self, request: Request, video_id: VideoId) -> Response:
        """Removes a video and its files; one that is being made is cancelled first."""
        return JSONResponse(await self._service.delete(video_id, caller=await self._caller(request, WRITE)))

    async def cancel(self, request: Request, video_id: VideoId) -> Response:
        """Ends the work on a video; answers when its replica is free."""
        return JSONResponse(await self._service.cancel(video_id, caller=await self._caller(request, WRITE)))

    async def content(
        self,
        request: Request,
        video_id: VideoId,
        variant: Annotated[Literal["video", "thumbnail", "spritesheet", "preview"], Query(description="What of it.")] = "video",
        wanted: Annotated[str | None, Header(alias="range", description="bytes=FIRST-LAST, one range.")] = None,
        if_range: Annotated[str | None, Header(description="An ETag: of another content all of it is answered.")] = None,
        if_none_match: Annotated[str | None, Header(description="ETags, or *: their content is not sent again.")] = None,
    ) -> Response:
        """The finished video or a picture of it; Range is understood."""
        content = await self._service.content(video_id, caller=await self._caller(request, READ), variant=variant)
        if content.link:
            return RedirectResponse(content.link, 302)
        tag = f'"{content.etag}"'
        if is_known(tag, if_none_match=if_none_match):
            return Response(status_code=304, headers={"etag": tag})
        return _served(content, wanted if if_range in (None, tag) else None, tag=tag)

    async def events(self, request: Request, video_id: VideoId) -> Response:
        """What becomes of a video, as server-sent events, until its status is final."""
        caller = await self._caller(request, READ)
        events = self._service.watch(video_id, caller=caller)
        stream = _event_stream(await anext(events), events)  # what is not there is told before the stream begins
        return StreamingResponse(stream, media_type=EVENTS, headers={"cache-control": "no-store", "x-accel-buffering": "no"})

    async def characters(self, request: Request) -> Response:
        """Characters are not offered."""
        await self._caller(request, READ)
        return errors.problem(404, "characters are not offered here; describe them in the prompt, or use a LoRA", code="not_supported")

    async def plan(self, request: Request) -> Response:
        """The request's plan as data, with its work; runs nothing."""
        caller = await self._caller(request, READ)
        return JSONResponse(describe_plan(await self._service.understand(await read_body(request), caller=caller)))

    async def models(self, request: Request) -> Response:
        """The families that are served, with their pipelines, limits and sizes."""
        await self._caller(request, READ)
        return JSONResponse(self._models)

    async def graph(self, request: Request) -> Response:
        """The stages of each family with their replicas and queues, and how many jobs there are."""
        await self._caller(request, READ)
        return JSONResponse({"families": await self._surroundings.graph(), "jobs": await self._service.counts()})

    async def analytics(
        self, request: Request, days: Annotated[int, Query(ge=1, le=MOST_DAYS, description="The last so many, today included, UTC.")] = 30
    ) -> Response:
        """What became of the jobs that ended in these days: of the caller's own, or with the scope `admin` of all tenants'."""
        found = await self._service.analytics(days, caller=await self._caller(request, READ))
        return JSONResponse(ANALYTICS.dump_python(found, mode="json"))

    async def metrics(self, request: Request) -> Response:
        """What is measured, for Prometheus. With keys it needs one of the scope `metrics`."""
        await self._caller(request, METRICS)
        return Response(await self._surroundings.metrics(), media_type=CONTENT_TYPE_LATEST)

    async def healthz(self) -> Response:
        """Alive."""
        return JSONResponse({"status": "alive"})

    async def readyz(self) -> Response:
        """Ready when every application is; one scaled to zero is. `unplaced` names stages for which the cluster has no node, and why."""
        applications, unplaced = await asyncio.gather(self._surroundings.applications(), self._surroundings.unplaced())
        health = health_of(applications)
        return JSONResponse({**health, "unplaced": unplaced}, 200 if health["status"] == "ready" else 503)

    async def _asked(self, request: Request) -> tuple[Caller, Body]:
        caller = await self._caller(request, WRITE)
        return caller, await read_body(request)

    async def _caller(self, request: Request, scope: str) -> Caller:
        if not self._surroundings.keys:
            _check_own(request)
        return await self._service.authenticate(request.headers.get("authorization"), scope=scope)


def _check_own(request: Request) -> None:
    """Without keys: a client on this machine, that means this machine, and no page of another site in its browser."""
    peer, host, origin = request.client.host if request.client else "", request.url.hostname or "", request.headers.get("origin")
    if not is_loopback(peer) or not (host == "localhost" or is_loopback(host)):
        raise UnauthenticatedError("without API keys this server answers its own machine alone; start it with keys: true")
    if origin not in (None, f"{request.url.scheme}://{request.url.netloc}"):
        raise UnauthenticatedError("without API keys this server answers no other site's pages; start it with keys: true")


def health_of(applications: dict[str, str]) -> dict[str, Any]:
    """What `/readyz` says, by the applications' states in Ray Serve's words."""
    return {"status": "ready" if set(applications.values()) == {"RUNNING"} else "starting", "applications": applications}


def _created(created: Created) -> Response:
    headers = {"openai-poll-after-ms": str(POLL_AFTER_MS)} | ({"idempotent-replayed": "true"} if created.replayed else {})
    return JSONResponse(created.video, headers=headers)


def _unmade(video: dict[str, Any]) -> Response:
    """Where a video was to be answered and there is none. What could be tried again was, by the dispatcher."""
    error = video["error"] or {"code": "cancelled", "message": f"video {video['id']} was cancelled while this answer waited for it"}
    status = FAILURES.get(error["code"], 409 if video["status"] == "cancelled" else 500)
    return errors.problem(status, error["message"], code=error["code"], headers={"x-aiprod-video-id": video["id"], **errors.IN_VAIN})


def _served(content: Content, wanted: str | None, *, tag: str) -> Response:
    headers = {"etag": tag, "accept-ranges": "bytes", "cache-control": "private, max-age=0, must-revalidate"}
    part = parse_range(wanted, size=content.size)
    start, end = part or (0, content.size)
    headers |= {"content-length": str(end - start)}
    if part is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{content.size}"
    return StreamingResponse(content.read(start, end), 200 if part is None else 206, headers, media_type=content.media_type)


async def _event_stream(first: Event, events: AsyncGenerator[Event, None]) -> AsyncIterator[str]:
    """Server-sent events, and a comment where there is nothing to say for a while, lest a proxy hang up."""
    async with aclosing(events) as source:
        yield _event_text(first)
        coming = _next(source)
        try:
            while True:
                done, _ = await asyncio.wait([coming], timeout=HEARTBEAT_SECONDS)
                if not done:
                    yield ": still here\n\n"
                    continue
                if (event := _result(coming)) is None:
                    return
                yield _event_text(event)
                coming = _next(source)
        finally:
            coming.cancel()  # and over, before its source can be closed
            await asyncio.wait([coming])


def _event_text(event: Event) -> str:
    return f"event: {event.kind}\ndata: {json.dumps(event.data, ensure_ascii=False)}\n\n"


def _next(source: AsyncIterator[Event]) -> "asyncio.Future[Event | None]":
    return asyncio.ensure_future(anext(source, None))


def _result(coming: "asyncio.Future[Event | None]") -> Event | None:
    """The next event; a video that was deleted meanwhile ends its stream."""
    try:
        return coming.result()
    except AiprodError:
        return None
