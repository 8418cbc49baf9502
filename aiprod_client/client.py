"""calls -> performed over HTTP while the caller waits"""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import httpx

from aiprod_client.calls import Calls
from aiprod_client.connecting import DIRECT, http_arguments, http_options, no_answer_of, server_url
from aiprod_client.effects import Ask, Close, Course, Effect, Emit, Ended, Flow, Open, Read, Request, Sleep, Tell, Work, signature_of
from aiprod_client.errors import NoAnswerError
from aiprod_client.patience import DEFAULT_RETRIES, Retries
from aiprod_client.video import Event, VideoJob

P = ParamSpec("P")
T = TypeVar("T")


def _performed(call: Callable[Concatenate[Calls, P], Flow[T]]) -> Callable[Concatenate["Client", P], T]:
    """The call as a method of the client, which returns what the flow does."""

    @wraps(call)
    def method(self: "Client", *args: P.args, **kwargs: P.kwargs) -> T:
        return self.perform(call(self.calls, *args, **kwargs))

    method.__signature__ = signature_of(call)  # pyright: ignore[reportAttributeAccessIssue]
    return method


class Client:
    """Talks to an AIPROD server; every method raises AiprodClientError when the server says no or nothing.

    `base_url` is by default $AIPROD_SERVER, or this machine; `api_key` is $AIPROD_API_KEY. `timeout` is how many seconds an answer may
    take to begin or to go on: no bound on the whole of it, and a video's making is waited for as long as it takes.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: Retries = DEFAULT_RETRIES,
    ) -> None:
        self.base_url = server_url(base_url)
        options = http_options(self.base_url, api_key=api_key, timeout=timeout)
        self.calls = Calls(retries)
        self._http = httpx.Client(**options, mounts=dict.fromkeys(DIRECT, httpx.HTTPTransport(verify=options["verify"])))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def perform(self, flow: Flow[T]) -> T:
        """Does what the flow says."""
        with _Performance(self._http, flow, server=self.base_url) as performance:
            ended = performance.go_on()
        assert isinstance(ended, Ended), "a flow that emits is iterated over"
        return ended.value

    def iterate(self, *, limit: int = 100, order: str = "desc") -> Iterator[VideoJob]:
        """Every video, page by page of `limit`, newest first or (`asc`) last."""
        return self._each(self.calls.iterate(limit=limit, order=order))

    def stream(self, video: str | VideoJob) -> Iterator[Event]:
        """Every event until the video is finished, the connection breaking or not: VideoEvent and PreviewEvent."""
        return self._each(self.calls.stream(video))

    def _each(self, flow: Flow[None]) -> Iterator[Any]:
        with _Performance(self._http, flow, server=self.base_url) as performance:
            while isinstance(step := performance.go_on(), Emit):
                yield step.value

    create = _performed(Calls.create)
    remix = _performed(Calls.remix)
    edit = _performed(Calls.edit)
    extend = _performed(Calls.extend)
    retrieve = _performed(Calls.retrieve)
    list = _performed(Calls.list)
    wait = _performed(Calls.wait)
    download = _performed(Calls.download)
    cancel = _performed(Calls.cancel)
    delete = _performed(Calls.delete)
    generate = _performed(Calls.generate)
    plan = _performed(Calls.plan)
    models = _performed(Calls.models)
    ready = _performed(Calls.ready)
    applications = _performed(Calls.applications)


class _Performance(Generic[T]):
    """One flow being performed, with at most one open answer."""

    def __init__(self, http: httpx.Client, flow: Flow[T], *, server: str) -> None:
        self._http, self._server = http, server
        self._course = Course(flow)
        self._answer: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        parting = self._course.leave()
        self._close()
        if parting is not None:
            with _Performance(self._http, parting, server=self._server) as last:
                last.go_on()

    def go_on(self) -> Emit | Ended[T]:
        """Until there is something for the caller."""
        while not isinstance(effect := self._course.go_on(), Emit | Ended):
            try:
                self._course.take(self._perform(effect))
            except NoAnswerError as error:
                self._course.fail(error)
        return effect

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Ask(request):
                return self._send(request)
            case Open(request):
                return self._open(request)
            case Read(timeout):
                with no_answer_of(self._server), self._cut_after(timeout):
                    return next(self._chunks, None)
            case Close():
                return self._close()
            case Sleep(seconds):
                return time.sleep(seconds)
            case Work(function):
                return function()
            case Tell(function, value):
                return function(value)
            case _:
                raise AssertionError(f"{effect} is not performed here")

    def _send(self, request: Request, *, stream: bool = False) -> httpx.Response:
        with no_answer_of(self._server):
            built = self._http.build_request(**http_arguments(request, default=self._http.timeout))
            return self._http.send(built, stream=stream, follow_redirects=stream)

    def _open(self, request: Request) -> httpx.Response:
        self._close()
        self._answer = answer = self._send(request, stream=True)
        with no_answer_of(self._server):
            if answer.is_error:
                answer.read()
        self._chunks = answer.iter_bytes()
        return answer

    def _close(self) -> None:
        if self._answer is not None:
            self._answer.close()
        self._answer, self._chunks = None, iter(())

    @contextmanager
    def _cut_after(self, seconds: float) -> Iterator[None]:
        """Ends the connection when the time is over: httpx's own limit starts anew with every byte."""
        if math.isinf(seconds) or self._answer is None:
            yield
            return
        connection: socket.socket = self._answer.extensions["network_stream"].get_extra_info("socket")
        timer = threading.Timer(seconds, _cut, (connection,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
