"""a request -> a video, over HTTP or gRPC, each call noted in locust's statistics; what goes wrong as AiprodClientError"""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import chain, islice
from typing import Any, Protocol

import requests
from google.protobuf.json_format import MessageToDict
from locust.clients import HttpSession
from locust.event import EventHook

from aiprod_client.errors import AiprodClientError, NoAnswerError
from aiprod_client.event_stream import EventStream
from aiprod_client.grpc_client import GrpcClient, ask_for
from aiprod_client.settings import VideoSettings
from aiprod_client.video import VideoEvent
from deployments.api.proto.aiprod.v1 import video_pb2 as pb

CONFLICT = 409  # it ended before it could be cancelled


class Face(Protocol):
    """One who asks: a connection of their own, closed when they have their video."""

    def create(self, body: dict[str, Any]) -> str: ...

    def changes(self, video: str) -> Iterator[dict[str, Any]]:
        """The video at every change, until its status is final."""
        ...

    def cancel(self, video: str) -> None: ...

    def download(self, video: str) -> int:
        """How many bytes came."""
        ...

    def close(self) -> None: ...


class HttpFace:
    """The calls of the HTTP API; every answer but the expected one is an error, and none is asked for again."""

    def __init__(self, url: str, noted: EventHook, *, timeout: float, headers: Mapping[str, str]) -> None:
        self._session = HttpSession(url.rstrip("/"), noted, None)
        self._session.trust_env = False  # no proxy of the environment's between the two
        self._session.headers.update(headers)
        self._timeout = timeout

    def create(self, body: dict[str, Any]) -> str:
        return str(self._ask("POST", "/v1/videos", name="POST /v1/videos", json=body).json()["id"])

    def changes(self, video: str) -> Iterator[dict[str, Any]]:
        events = EventStream()
        name = "GET /v1/videos/{id}/events (until it begins)"
        with closing(self._ask("GET", f"/v1/videos/{video}/events", name=name, stream=True)) as answer:
            for piece in _pieces(answer):
                for event in events.feed(piece):
                    if isinstance(event, VideoEvent):
                        yield dict(event.job.record)

    def cancel(self, video: str) -> None:
        name = "POST /v1/videos/{id}/cancel"
        with self._session.post(f"/v1/videos/{video}/cancel", name=name, timeout=self._timeout, catch_response=True) as answer:
            if answer.status_code == CONFLICT:
                answer.success()
        if answer.status_code != CONFLICT:
            _check(answer)

    def download(self, video: str) -> int:
        return len(self._ask("GET", f"/v1/videos/{video}/content", name="GET /v1/videos/{id}/content").content)

    def close(self) -> None:
        self._session.close()

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self._session.request(method, path, timeout=self._timeout, **more)
        _check(answer)
        return answer


def _check(answer: Any) -> None:
    """Locust answers status 0 where no answer came."""
    if answer.status_code == 0:
        raise NoAnswerError(f"no answer came: {answer.error}", code="unreachable")
    if answer.status_code != 200:
        raise AiprodClientError(f"{answer.status_code}: {answer.text[:300]}", code="http_error", status=answer.status_code)


def _pieces(answer: Any) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(chunk_size=None)
    except requests.RequestException as error:
        raise NoAnswerError(f"the stream of events broke: {error}", code="unreachable") from error


class GrpcFace:
    """The same calls of the gRPC service."""

    def __init__(self, target: str, noted: EventHook, *, timeout: float, key: str | None = None) -> None:
        self._client = GrpcClient(target, api_key=key, timeout=timeout)
        self._noted = noted

    def create(self, body: dict[str, Any]) -> str:
        prompt = body["prompt"]
        request = ask_for(prompt, VideoSettings(more={name: value for name, value in body.items() if name != "prompt"}))
        with self._measured("CreateVideo"):
            return self._client.create(request).id

    def changes(self, video: str) -> Iterator[dict[str, Any]]:
        events = self._client.watch(video)
        with self._measured("WatchVideo (until it begins)"):
            begun = list(islice(events, 1))
        for event in chain(begun, events):
            yield from _video(event)

    def cancel(self, video: str) -> None:
        with self._measured("CancelVideo"):
            try:
                self._client.cancel(video)
            except AiprodClientError as error:
                if error.status != CONFLICT:
                    raise

    def download(self, video: str) -> int:
        with self._measured("DownloadVideo"):
            return len(self._client.download(video))

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        start, failure = time.perf_counter(), None
        try:
            yield
        except AiprodClientError as error:
            failure = error
            raise
        finally:
            note(self._noted, "gRPC", name, seconds=time.perf_counter() - start, failure=failure)


def _video(event: pb.VideoEvent) -> Iterator[dict[str, Any]]:
    """As HTTP would tell of it."""
    if event.WhichOneof("event") == "video":
        record = MessageToDict(event.video, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        yield {**record, "status": record["status"].lower()}


def note(noted: EventHook, kind: str, name: str, *, seconds: float, failure: Exception | None, size: int = 0) -> None:
    """A line of locust's statistics."""
    noted.fire(request_type=kind, name=name, response_time=1000 * seconds, response_length=size, exception=failure, context={})
