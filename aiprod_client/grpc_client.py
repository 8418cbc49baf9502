"""prompt and settings -> gRPC -> videos, their events and their bytes, or an error that says what to do"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import grpc

from aiprod_client.errors import AiprodClientError, NoAnswerError
from aiprod_client.settings import VideoSettings
from deployments.api.proto.aiprod.v1 import video_pb2 as pb
from deployments.api.proto.aiprod.v1.video_pb2_grpc import VideoServiceStub

_TYPED = {field.name for field in pb.CreateVideoRequest.DESCRIPTOR.fields} - {"settings", "files"}


def ask_for(prompt: str, settings: VideoSettings = VideoSettings()) -> pb.CreateVideoRequest:
    """The message that asks for this video."""
    sent = {"input_reference": settings.image, "reference_video": settings.reference_video, "sound": settings.sound}
    body = replace(settings, image=None, reference_video=None, sound=None).body(prompt)
    request = pb.CreateVideoRequest(**{name: value for name, value in body.items() if name in _TYPED})
    request.settings.update({name: value for name, value in body.items() if name not in _TYPED})
    for name, data in sent.items():
        if data is not None:
            request.files[name] = data
    return request


class GrpcClient:
    """Talks to an AIPROD server over gRPC; every method raises AiprodClientError when the server says no or nothing.

    `target` is HOST:PORT, `application` the Serve application that answers, `tls` for a port that something terminates TLS on.
    A call that has not ended after `timeout` seconds fails; streams have no limit.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:9000",
        *,
        api_key: str | None = None,
        application: str = "api",
        timeout: float = 60.0,
        tls: bool = False,
    ) -> None:
        self.target = target
        # Whatever proxy the environment names, this machine reaches itself without one.
        options = [("grpc.enable_http_proxy", 0)] if target.startswith(("127.0.0.1:", "localhost:", "[::1]:")) else []
        if tls:
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(), options=options)
        else:
            self._channel = grpc.insecure_channel(target, options=options)
        self._stub: Any = VideoServiceStub(self._channel)
        self._metadata = [("application", application), *([("authorization", f"Bearer {api_key}")] if api_key else [])]
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def create(self, request: pb.CreateVideoRequest, *, idempotency_key: str | None = None) -> pb.Video:
        """Queues a video. With the same `idempotency_key` and request again, it is the same video."""
        return self._call("CreateVideo", request, idempotency_key).video

    def generate(self, request: pb.CreateVideoRequest, *, idempotency_key: str | None = None) -> Iterator[pb.GenerateVideoResponse]:
        """What happens to a video, then its file in chunks. Leaving the iterator early cancels the video."""
        return self._stream("GenerateVideo", request, idempotency_key)

    def remix(self, video_id: str, prompt: str, *, idempotency_key: str | None = None) -> pb.Video:
        return self._call("RemixVideo", pb.RemixVideoRequest(id=video_id, prompt=prompt), idempotency_key).video

    def edit(self, request: pb.EditVideoRequest, *, idempotency_key: str | None = None) -> pb.Video:
        return self._call("EditVideo", request, idempotency_key).video

    def extend(self, request: pb.ExtendVideoRequest, *, idempotency_key: str | None = None) -> pb.Video:
        return self._call("ExtendVideo", request, idempotency_key).video

    def plan(self, request: pb.CreateVideoRequest) -> pb.PlanVideoResponse:
        return self._call("PlanVideo", request)

    def get(self, video_id: str) -> pb.Video:
        return self._call("GetVideo", pb.GetVideoRequest(id=video_id))

    def videos(self, *, order: str = "desc", page: int = 20) -> Iterator[pb.Video]:
        """Every video, asked for page by page."""
        request = pb.ListVideosRequest(order=order, limit=page)
        while True:
            answer = self._call("ListVideos", request)
            yield from answer.data
            if not answer.has_more:
                return
            request.after = answer.last_id

    def cancel(self, video_id: str) -> pb.Video:
        return self._call("CancelVideo", pb.CancelVideoRequest(id=video_id))

    def delete(self, video_id: str) -> None:
        self._call("DeleteVideo", pb.DeleteVideoRequest(id=video_id))

    def watch(self, video_id: str) -> Iterator[pb.VideoEvent]:
        """The video now and at every change, until its status is final. Leaving the iterator early leaves the video to go on."""
        return self._stream("WatchVideo", pb.WatchVideoRequest(id=video_id))

    def chunks(self, request: pb.DownloadVideoRequest) -> Iterator[pb.VideoChunk]:
        return self._stream("DownloadVideo", request)

    def download(self, video_id: str, *, variant: str = "video") -> bytes:
        """The whole file."""
        return b"".join(chunk.data for chunk in self.chunks(pb.DownloadVideoRequest(id=video_id, variant=variant)))

    def models(self) -> Sequence[pb.Model]:
        return self._call("ListModels", pb.ListModelsRequest()).models

    def health(self) -> pb.HealthResponse:
        return self._call("Health", pb.HealthRequest())

    def _call(self, rpc: str, request: Any, idempotency_key: str | None = None) -> Any:
        with _errors(self.target):
            return getattr(self._stub, rpc)(request, metadata=self._with(idempotency_key), timeout=self._timeout)

    def _stream(self, rpc: str, request: Any, idempotency_key: str | None = None) -> Iterator[Any]:
        with _errors(self.target):
            call = getattr(self._stub, rpc)(request, metadata=self._with(idempotency_key))
            try:
                yield from call
            finally:
                call.cancel()

    def _with(self, idempotency_key: str | None) -> list[tuple[str, str]]:
        return [*self._metadata, *([("idempotency-key", idempotency_key)] if idempotency_key else [])]


@contextmanager
def _errors(target: str) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise _explained(error, target=target) from error


def _explained(error: Any, *, target: str) -> AiprodClientError:
    """The problem document that stands in the status message, or what Serve or gRPC say in plain words."""
    code, details = error.code(), error.details() or ""
    try:
        document = json.loads(details)
        said, status, request_id = document["error"], document["status"], document.get("request_id")
        return AiprodClientError(said["message"], code=said["code"], param=said["param"], status=status, request_id=request_id)
    except (ValueError, KeyError, TypeError):
        if code == grpc.StatusCode.UNAVAILABLE:
            return NoAnswerError(f"{target} cannot be reached ({details})", code="unreachable")
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return NoAnswerError(f"{target} did not answer in time", code="timeout")
        return AiprodClientError(f"{target} answered {code.name}: {details}", code=code.name.lower())
