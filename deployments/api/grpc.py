"""messages of video.proto -> the video service -> messages; errors as a status and a problem document

Ray Serve's gRPC proxy calls the method of the ingress that bears the RPC's name. `add_grpc_methods` gives a class those methods:
each passes on to `self.grpc_face` and lets no exception out but with a status of its own, for Serve would send the traceback.
"""

import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message
from ray.serve.exceptions import BackPressureError
from ray.serve.grpc_util import RayServegRPCContext

from aiprod_components import errors
from deployments.api.body import Body
from deployments.api.catalogue import describe_plan
from deployments.api.errors import RETRY_AFTER_SECONDS, problem, status_of
from deployments.api.proto.aiprod.v1 import video_pb2 as pb
from deployments.api.proto.messages import model_message, preview_message, read_body, struct_message, video_message
from deployments.api.tracing import RPCS as RPCS_TRACED
from deployments.api.tracing import TRACEPARENT
from deployments.api.waiting import Created, Maker, waited_for
from deployments.api.wire import Asked
from deployments.auth import is_loopback
from deployments.jobs.records import CANCELLED, COMPLETED
from deployments.telemetry.names import RPC_METHOD, RPC_STATUS, RPC_SYSTEM
from deployments.telemetry.traces import answering

log = logging.getLogger("ray.serve")

SERVICE = pb.DESCRIPTOR.services_by_name["VideoService"]
RPCS = SERVICE.methods
CHUNK_BYTES = 256 * 1024
MOST_DETAILS = 4096  # Serve cuts what is longer, and a cut document is none
PAGE = 20

Deployment = TypeVar("Deployment", bound=type)

# The nearest class in an error's ancestry decides. What is INTERNAL is told to the log alone.
GRPC_STATUS: dict[type[errors.AiprodError], grpc.StatusCode] = {
    errors.AiprodError: grpc.StatusCode.INTERNAL,
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnsatisfiableRangeError: grpc.StatusCode.OUT_OF_RANGE,
    errors.UnknownModelError: grpc.StatusCode.NOT_FOUND,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    errors.ConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.IdempotencyError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.CancelledError: grpc.StatusCode.CANCELLED,
    errors.VideoFailedError: grpc.StatusCode.ABORTED,
}


class Event(Protocol):
    """`kind` is "video" with a video's record as data, or "preview" with {"image": a data URL}."""

    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> dict[str, Any]: ...


class Content(Protocol):
    """A finished file."""

    @property
    def media_type(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def etag(self) -> str: ...
    def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`, not included."""
        ...


class Service(Maker, Protocol):
    """What both faces call. A caller is whatever `authenticate` answers."""

    async def authenticate(self, authorization: str | None, *, scope: str) -> Any: ...
    async def remix(self, video_id: str, body: Body, *, caller: Any, idempotency_key: str | None = None) -> Created: ...
    async def edit(self, body: Body, *, caller: Any, idempotency_key: str | None = None) -> Created: ...
    async def extend(self, body: Body, *, caller: Any, idempotency_key: str | None = None) -> Created: ...
    async def get(self, video_id: str, *, caller: Any) -> dict[str, Any]: ...
    async def list(self, *, caller: Any, after: str | None, limit: int, order: str) -> dict[str, Any]: ...
    async def delete(self, video_id: str, *, caller: Any) -> dict[str, Any]: ...
    def watch(self, video_id: str, *, caller: Any) -> AsyncIterator[Event]: ...
    def follow(self, video_id: str, *, caller: Any) -> AsyncIterator[Event]: ...
    async def content(self, video_id: str, *, caller: Any, variant: str) -> Content: ...
    async def understand(self, body: Body, *, caller: Any) -> Asked: ...


class GrpcFace:
    """One method per RPC, by its name in small letters. `models` is what `GET /v1/models` answers, `health` what `GET /readyz` does.

    With `local_only` it answers clients on this machine alone: Serve's gRPC port listens on all addresses, whatever `http_options` say.
    """

    def __init__(
        self, service: Service, *, models: dict[str, Any], health: Callable[[], Awaitable[dict[str, Any]]], local_only: bool
    ) -> None:
        self._service, self._models, self._health, self._local_only = service, models, health, local_only

    async def create_video(self, request: pb.CreateVideoRequest, context: RayServegRPCContext) -> pb.CreateVideoResponse:
        caller = await self._caller(context, scope="write")
        return _created(await self._service.create(read_body(request), caller=caller, idempotency_key=_idempotency_key(context)))

    async def remix_video(self, request: pb.RemixVideoRequest, context: RayServegRPCContext) -> pb.CreateVideoResponse:
        caller, key = await self._caller(context, scope="write"), _idempotency_key(context)
        return _created(await self._service.remix(request.id, read_body(request), caller=caller, idempotency_key=key))

    async def edit_video(self, request: pb.EditVideoRequest, context: RayServegRPCContext) -> pb.CreateVideoResponse:
        caller = await self._caller(context, scope="write")
        return _created(await self._service.edit(read_body(request), caller=caller, idempotency_key=_idempotency_key(context)))

    async def extend_video(self, request: pb.ExtendVideoRequest, context: RayServegRPCContext) -> pb.CreateVideoResponse:
        caller = await self._caller(context, scope="write")
        return _created(await self._service.extend(read_body(request), caller=caller, idempotency_key=_idempotency_key(context)))

    async def plan_video(self, request: pb.CreateVideoRequest, context: RayServegRPCContext) -> pb.PlanVideoResponse:
        caller = await self._caller(context, scope="read")
        asked = await self._service.understand(read_body(request), caller=caller)
        return pb.PlanVideoResponse(plan=struct_message(describe_plan(asked)), seed=asked.request.seed)

    async def get_video(self, request: pb.GetVideoRequest, context: RayServegRPCContext) -> pb.Video:
        caller = await self._caller(context, scope="read")
        return video_message(await self._service.get(request.id, caller=caller))

    async def list_videos(self, request: pb.ListVideosRequest, context: RayServegRPCContext) -> pb.ListVideosResponse:
        page = await self._service.list(
            caller=await self._caller(context, scope="read"),
            after=request.after if request.HasField("after") else None,
            limit=request.limit if request.HasField("limit") else PAGE,
            order=request.order if request.HasField("order") else "desc",
        )
        videos = [video_message(record) for record in page["data"]]
        return pb.ListVideosResponse(data=videos, first_id=page["first_id"], last_id=page["last_id"], has_more=page["has_more"])

    async def cancel_video(self, request: pb.CancelVideoRequest, context: RayServegRPCContext) -> pb.Video:
        caller = await self._caller(context, scope="write")
        return video_message(await self._service.cancel(request.id, caller=caller))

    async def delete_video(self, request: pb.DeleteVideoRequest, context: RayServegRPCContext) -> pb.DeleteVideoResponse:
        caller = await self._caller(context, scope="write")
        gone = await self._service.delete(request.id, caller=caller)
        return pb.DeleteVideoResponse(id=gone["id"], deleted=gone["deleted"])

    async def watch_video(self, request: pb.WatchVideoRequest, context: RayServegRPCContext) -> AsyncGenerator[pb.VideoEvent, None]:
        caller = await self._caller(context, scope="read")
        async for event in self._service.watch(request.id, caller=caller):
            yield pb.VideoEvent(**_event(event))

    async def download_video(self, request: pb.DownloadVideoRequest, context: RayServegRPCContext) -> AsyncGenerator[pb.VideoChunk, None]:
        caller = await self._caller(context, scope="read")
        variant = request.variant if request.HasField("variant") else "video"
        content = await self._service.content(request.id, caller=caller, variant=variant)
        start, end = _range(request, size=content.size)
        async with aclosing(_chunks(content, start=start, end=end)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def generate_video(
        self, request: pb.CreateVideoRequest, context: RayServegRPCContext
    ) -> AsyncGenerator[pb.GenerateVideoResponse, None]:
        caller, key = await self._caller(context, scope="write"), _idempotency_key(context)
        content: Content | None = None
        async with waited_for(self._service, read_body(request), caller=caller, idempotency_key=key) as created:
            record = created.video
            async for event in self._service.follow(record["id"], caller=caller):
                record = event.data if event.kind == "video" else record
                yield pb.GenerateVideoResponse(**_event(event))
            if record["status"] == COMPLETED:
                content = await self._service.content(record["id"], caller=caller, variant="video")
        if content is None:
            raise _unmade(record)
        async with aclosing(_chunks(content, start=0, end=content.size)) as chunks:
            async for chunk in chunks:
                yield pb.GenerateVideoResponse(chunk=chunk)

    async def list_models(self, request: pb.ListModelsRequest, context: RayServegRPCContext) -> pb.ListModelsResponse:
        await self._caller(context, scope="read")
        return pb.ListModelsResponse(models=[model_message(record) for record in self._models["data"]])

    async def health(self, request: pb.HealthRequest, context: RayServegRPCContext) -> pb.HealthResponse:
        state = await self._health()
        return pb.HealthResponse(status=state["status"], applications=state["applications"])

    async def _caller(self, context: RayServegRPCContext, *, scope: str) -> Any:
        if self._local_only and not is_local(context.peer()):
            raise errors.UnauthenticatedError("without API keys this server answers its own machine alone; start it with keys: true")
        return await self._service.authenticate(_metadata(context, "authorization"), scope=scope)


def add_grpc_methods(kind: Deployment) -> Deployment:
    """Gives a class one method per RPC, by the RPC's name, that `self.grpc_face` answers."""
    for rpc in RPCS:
        setattr(kind, rpc.name, _streaming(rpc.name) if rpc.server_streaming else _unary(rpc.name))
    return kind


def method_of(rpc: str) -> str:
    """The method of GrpcFace that answers an RPC."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower()


# Serve looks at the parameters' names: the context comes as `grpc_context`.
def _unary(rpc: str) -> Callable[[Any, Message, RayServegRPCContext], Awaitable[Message]]:
    async def answer(self: Any, request: Message, grpc_context: RayServegRPCContext) -> Message:
        with _told_to(grpc_context, rpc=rpc):
            return await getattr(self.grpc_face, method_of(rpc))(request, grpc_context)

    return answer


def _streaming(rpc: str) -> Callable[[Any, Message, RayServegRPCContext], AsyncGenerator[Message, None]]:
    async def answer(self: Any, request: Message, grpc_context: RayServegRPCContext) -> AsyncGenerator[Message, None]:
        with _told_to(grpc_context, rpc=rpc):
            async with aclosing(getattr(self.grpc_face, method_of(rpc))(request, grpc_context)) as messages:
                async for message in messages:
                    yield message

    return answer


@contextmanager
def _told_to(context: RayServegRPCContext, *, rpc: str) -> Iterator[None]:
    """Whatever goes wrong leaves as a status and a problem document: they stand in the context, where Serve looks before it looks at
    the exception, and by the exception it counts."""
    try:
        with _traced(context, rpc=rpc):
            yield
    except Exception as error:  # noqa: BLE001 the edge: nothing may pass it as it is
        code, said = _status(error, rpc=rpc)
        context.set_code(code)
        context.set_details(_document(said, request_id=dict(context.trailing_metadata()).get("request_id")))
        # A class of ours would make the proxy import us, with torch: it stood still for seconds.
        raise RuntimeError(code.name) from None


@contextmanager
def _traced(context: RayServegRPCContext, *, rpc: str) -> Iterator[None]:
    """What may ask for a video, in the client's trace."""
    if rpc not in RPCS_TRACED:
        yield
        return
    said = {RPC_SYSTEM: "grpc", RPC_METHOD: f"{SERVICE.full_name}/{rpc}"}
    with answering(_metadata(context, TRACEPARENT), f"{SERVICE.full_name}/{rpc}", said) as request:
        yield
        request.attributes[RPC_STATUS] = grpc.StatusCode.OK.name


@dataclass(frozen=True)
class _Problem:
    """What HTTP would answer."""

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after: int | None = None


def _status(error: Exception, *, rpc: str) -> tuple[grpc.StatusCode, _Problem]:
    if isinstance(error, BackPressureError):
        busy = "all stages are busy and the queue is full; try again later"
        return grpc.StatusCode.RESOURCE_EXHAUSTED, _Problem(429, busy, "queue_full", retry_after=RETRY_AFTER_SECONDS)
    if isinstance(error, errors.AiprodError) and (code := grpc_status_of(error)) != grpc.StatusCode.INTERNAL:
        return code, _Problem(status_of(error), error.message, error.code, error.field, getattr(error, "retry_after", None))
    log.error("%s failed", rpc, exc_info=error)
    unforeseen = "the server failed on this request; its log says why under this request's id"
    return grpc.StatusCode.INTERNAL, _Problem(500, unforeseen, "internal")


def grpc_status_of(error: errors.AiprodError) -> grpc.StatusCode:
    return next(GRPC_STATUS[kind] for kind in type(error).__mro__ if kind in GRPC_STATUS)


def _document(said: _Problem, *, request_id: str | None) -> str:
    """HTTP's document, and what HTTP says in headers, in ASCII; shortened until it fits: a % is three characters on the wire."""
    record = json.loads(bytes(problem(said.status, said.message, code=said.code, param=said.param).body))
    headers = {"request_id": request_id and request_id[:80], "retry_after": said.retry_after}
    text = json.dumps(record | {name: value for name, value in headers.items() if value is not None})
    if len(text) + 2 * text.count("%") <= MOST_DETAILS:
        return text
    shorter = replace(said, message=said.message[: len(said.message) // 2] + "…", param=said.param and said.param[:80])
    return _document(shorter, request_id=request_id)


def is_local(peer: str) -> bool:
    """Whether a client, as gRPC names it (ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000, unix:…), is on this machine."""
    kind, _, address = unquote(peer).partition(":")
    return kind == "unix" or is_loopback(address.rpartition(":")[0])


def _metadata(context: RayServegRPCContext, name: str) -> str | None:
    return dict(context.invocation_metadata()).get(name)


def _idempotency_key(context: RayServegRPCContext) -> str | None:
    return _metadata(context, "idempotency-key")


def _created(created: Created) -> pb.CreateVideoResponse:
    return pb.CreateVideoResponse(video=video_message(created.video), replayed=created.replayed)


def _event(event: Event) -> dict[str, Any]:
    """The part of a stream's message that an event is."""
    return {event.kind: video_message(event.data) if event.kind == "video" else preview_message(event.data)}


def _unmade(record: dict[str, Any]) -> errors.AiprodError:
    """Where a video was to be sent and there is none."""
    if record["status"] == CANCELLED:
        return errors.CancelledError(f"{record['id']} was cancelled")
    said = record.get("error") or {"code": "unknown", "message": f"it is {record['status']}, and no more is told of it"}
    return errors.VideoFailedError(f"{record['id']} failed ({said['code']}): {said['message']}")


def _range(request: pb.DownloadVideoRequest, *, size: int) -> tuple[int, int]:
    """First byte and the one after the last."""
    if not 0 <= request.offset <= size:
        raise errors.UnsatisfiableRangeError(f"offset must be from 0 to {size}, the file's size, got {request.offset}", field="offset")
    if request.length < 0:
        raise errors.InvalidRequestError(f"length must be at least 0, got {request.length}; leave it out for all", field="length")
    return request.offset, min(request.offset + request.length, size) if request.HasField("length") else size


async def _chunks(content: Content, *, start: int, end: int) -> AsyncGenerator[pb.VideoChunk, None]:
    """At least one: an empty file has a size and a kind too."""
    async for data in _pieces(content.read(start, end)):
        yield pb.VideoChunk(data=data, offset=start, size=content.size, media_type=content.media_type, etag=content.etag)
        start += len(data)


async def _pieces(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """As many pieces of CHUNK_BYTES as there are, and what is left: of nothing one empty piece."""
    held, sent = b"", False
    async for piece in pieces:
        held += piece
        while len(held) >= CHUNK_BYTES:
            yield held[:CHUNK_BYTES]
            held, sent = held[CHUNK_BYTES:], True
    if held or not sent:
        yield held
