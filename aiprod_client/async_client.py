"""calls -> performed over HTTP while other tasks go on"""

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import anyio
import anyio.to_thread
import httpx

from aiprod_client.calls import PARTING_SECONDS, Calls
from aiprod_client.connecting import DIRECT, http_arguments, http_options, no_answer_of, server_url
from aiprod_client.effects import Ask, Close, Course, Effect, Emit, Ended, Flow, Open, Read, Request, Sleep, Tell, Work, signature_of
from aiprod_client.errors import NoAnswerError
from aiprod_client.patience import DEFAULT_RETRIES, Retries
from aiprod_client.video import Event, VideoJob

P = ParamSpec("P")
T = TypeVar("T")


def _performed(call: Callable[Concatenate[Calls, P], Flow[T]]) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    """The call as a method of the client, whose result is awaited."""

    @wraps(call)
    async def method(self: "AsyncClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.perform(call(self.calls, *args, **kwargs))

    method.__signature__ = signature_of(call)  # pyright: ignore[reportAttributeAccessIssue]
    return method


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited; `iterate` and `stream` are iterated over with `async for`.

    `on_change` may be a coroutine function. Whoever leaves an `async for` early closes it with `contextlib.aclosing`.
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
        self._http = httpx.AsyncClient(**options, mounts=dict.fromkeys(DIRECT, httpx.AsyncHTTPTransport(verify=options["verify"])))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def perform(self, flow: Flow[T]) -> T:
        """Does what the flow says."""
        async with _Performance(self._http, flow, server=self.base_url) as performance:
            ended = await performance.go_on()
        assert isinstance(ended, Ended), "a flow that emits is iterated over"
        return ended.value

    def iterate(self, *, limit: int = 100, order: str = "desc") -> AsyncIterator[VideoJob]:
        """Every video, page by page of `limit`, newest first or (`asc`) last."""
        return self._each(self.calls.iterate(limit=limit, order=order))

    def stream(self, video: str | VideoJob) -> AsyncIterator[Event]:
        """Every event until the video is finished, the connection breaking or not: VideoEvent and PreviewEvent."""
        return self._each(self.calls.stream(video))

    async def _each(self, flow: Flow[None]) -> AsyncIterator[Any]:
        async with _Performance(self._http, flow, server=self.base_url) as performance:
            while isinstance(step := await performance.go_on(), Emit):
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

    def __init__(self, http: httpx.AsyncClient, flow: Flow[T], *, server: str) -> None:
        self._http, self._server = http, server
        self._course = Course(flow)
        self._answer: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        parting = self._course.leave()
        # A cancelled task may still say goodbye.
        with anyio.move_on_after(2 * PARTING_SECONDS, shield=True):
            await self._close()
            if parting is not None:
                async with _Performance(self._http, parting, server=self._server) as last:
                    await last.go_on()

    async def go_on(self) -> Emit | Ended[T]:
        """Until there is something for the caller."""
        while not isinstance(effect := self._course.go_on(), Emit | Ended):
            try:
                self._course.take(await self._perform(effect))
            except NoAnswerError as error:
                self._course.fail(error)
        return effect

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Ask(request):
                return await self._send(request)
            case Open(request):
                return await self._open(request)
            case Read(timeout):
                with no_answer_of(self._server), anyio.fail_after(timeout):
                    return None if self._chunks is None else await anext(self._chunks, None)
            case Close():
                return await self._close()
            case Sleep(seconds):
                return await anyio.sleep(seconds)
            case Work(function):
                return await anyio.to_thread.run_sync(function)
            case Tell(function, value):
                told = function(value)
                return await told if inspect.isawaitable(told) else told
            case _:
                raise AssertionError(f"{effect} is not performed here")

    async def _send(self, request: Request, *, stream: bool = False) -> httpx.Response:
        with no_answer_of(self._server):
            built = self._http.build_request(**http_arguments(request, default=self._http.timeout))
            return await self._http.send(built, stream=stream, follow_redirects=stream)

    async def _open(self, request: Request) -> httpx.Response:
        await self._close()
        self._answer = answer = await self._send(request, stream=True)
        with no_answer_of(self._server):
            if answer.is_error:
                await answer.aread()
        self._chunks = answer.aiter_bytes()
        return answer

    async def _close(self) -> None:
        if self._answer is not None:
            await self._answer.aclose()
        self._answer, self._chunks = None, None
