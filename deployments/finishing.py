"""work in a thread -> its result; cancelled, its end: whoever leaves makes no room for more before the thread is free"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Future[T], *, stop: Callable[[], None]) -> T:
    """The work's result. Cancelled, it stops the work and waits until it has stopped."""
    waiting = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        stop()
        work.cancel()  # takes effect only when it has not begun
        while not waiting.done():
            with suppress(asyncio.CancelledError):  # cancelled again
                await asyncio.wait([waiting])
        if not waiting.cancelled():
            waiting.exception()  # how it ended: nobody else will ask
        raise
