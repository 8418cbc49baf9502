"""the async client, asked as if it were the sync one -> one suite for both"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Protocol, Self

from aiprod_client import AsyncClient, Client, Retries

QUICK = Retries(most=3, first_delay=0.01)
_QUICK: dict[str, Any] = {"retries": QUICK}


class Connect(Protocol):
    """Makes a client of either kind."""

    def __call__(self, url: str, **options: Any) -> Client: ...


class Awaited:
    """Runs every call of an AsyncClient to its end."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(url, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)

        def ask(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            return self._loop.run_until_complete(result) if inspect.isawaitable(result) else self._each(result)

        return ask

    def _each(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        async def close() -> None:
            async with aclosing(items):  # pyright: ignore[reportArgumentType]
                pass

        try:
            while (item := self._loop.run_until_complete(anext(items, None))) is not None:
                yield item
        finally:
            self._loop.run_until_complete(close())


def connect_sync(url: str, **options: Any) -> Any:
    return Client(url, **(_QUICK | options))


def connect_async(url: str, **options: Any) -> Any:
    return Awaited(url, **(_QUICK | options))
