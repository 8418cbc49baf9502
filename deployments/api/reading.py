"""bodies -> threads that read them: words in some, media in others, a few of each tenant's at once and the rest in a line that ends"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from aiprod_components.errors import RateLimitedError
from deployments.api.body import Body
from deployments.api.uploads import MEDIA_NAMES
from deployments.finishing import to_the_end

WORD_READERS, MEDIA_READERS = 2, 3
AT_ONCE = 2  # bodies with media of one tenant that are read: one reader is always left for the others
MOST_SENT = 16  # bodies with media of one tenant that are read or wait to be: each is held in memory

T = TypeVar("T")


class Read(Protocol):
    """Does something in a thread and gives its result."""

    def __call__(self, act: Callable[..., T], /, *arguments: Any) -> Awaitable[T]: ...


@dataclass
class _Line:
    """Of a tenant: how many are in it, those whose turn it is among them."""

    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    length: int = 0


class Readers:
    """Threads apart from those that ask the database: media may take a minute, and nobody's shall hold up another's."""

    def __init__(self) -> None:
        self._words = ThreadPoolExecutor(WORD_READERS, "word-reader")
        self._media = ThreadPoolExecutor(MEDIA_READERS, "media-reader")
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def turn(self, tenant: str, *, media: bool) -> AsyncGenerator[Read, None]:
        """When it is a body's turn, what reads it. Raises RateLimitedError when as many of the tenant's as may be wait already."""
        if not media:
            yield partial(_in_thread, self._words)
            return
        line = self._lines.setdefault(tenant, _Line())
        if line.length >= MOST_SENT:
            raise RateLimitedError(
                f"{MOST_SENT} of your requests with pictures or videos are being read, and no more may; try again in 5 s"
            )
        line.length += 1
        try:
            async with line.turns:
                yield partial(_in_thread, self._media)
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[tenant]


def has_media(body: Body) -> bool:
    """Whether a body brings pictures or videos, or says where they are."""
    return bool(body.files) or any(body.fields.get(name) is not None for name in MEDIA_NAMES)


async def _in_thread(threads: Executor, act: Callable[..., T], /, *arguments: Any) -> T:
    return await to_the_end(threads.submit(act, *arguments), stop=lambda: None)
