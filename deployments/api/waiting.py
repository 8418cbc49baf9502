"""a wish -> a place to wait in -> the job, stored -> whoever waits for it; left early, it is ended: what both faces do in one answer"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Protocol

from aiprod_components.errors import AiprodError, NotFoundError, UnwatchedError
from deployments.api.body import Body

log = logging.getLogger("ray.serve")

_farewells: set["asyncio.Task[bool]"] = set()  # the loop itself holds tasks but weakly


class Created(Protocol):
    """A video that was asked for, or with `replayed` the one that an earlier call with the same idempotency key made."""

    @property
    def video(self) -> dict[str, Any]: ...
    @property
    def replayed(self) -> bool: ...


class Maker(Protocol):
    """What of the video service is needed here. A caller is whatever its `authenticate` answers."""

    def place(self, caller: Any) -> AbstractContextManager[None]: ...
    async def create(self, body: Body, *, caller: Any, idempotency_key: str | None = None) -> Created: ...
    async def cancel(self, video_id: str, *, caller: Any) -> dict[str, Any]: ...


@asynccontextmanager
async def waited_for(service: Maker, body: Body, *, caller: Any, idempotency_key: str | None) -> AsyncGenerator[Created, None]:
    """A video that is asked for and waited for in one: whoever leaves before it is there cancels it.

    An error that is tried again must not leave a video behind, or it is made twice: so nothing is stored before there is a place to wait
    in, and what fails afterwards ends the video, or is told as an UnwatchedError. With an idempotency key it goes on, to be found again.
    """
    with service.place(caller):
        creating = asyncio.ensure_future(service.create(body, caller=caller, idempotency_key=idempotency_key))
        try:
            # Shielded: whoever hangs up just now must not leave a video behind that nobody knows of.
            yield await asyncio.shield(creating)
        except (asyncio.CancelledError, GeneratorExit):
            await _given_up(service, creating, caller)
            raise
        except Exception as error:
            refused = creating.exception() is not None
            if refused or idempotency_key is not None or await _given_up(service, creating, caller):
                raise
            video_id = creating.result().video["id"]
            log.exception("%s cannot be waited for", video_id)
            raise UnwatchedError(
                f"video {video_id} is stored, and cannot be waited for here; ask for it by its id to see what becomes of it"
            ) from error


async def _given_up(service: Maker, creating: "asyncio.Future[Created]", caller: Any) -> bool:
    """Whether the video is ended. In a task of its own: whoever calls this may be cancelled, and once more meanwhile."""
    farewell = asyncio.ensure_future(_give_up(service, creating, caller))
    _farewells.add(farewell)
    farewell.add_done_callback(_farewells.discard)
    return await asyncio.shield(farewell)


async def _give_up(service: Maker, creating: "asyncio.Future[Created]", caller: Any) -> bool:
    """Ends what nobody waits for any more, also when it was only being asked for."""
    try:
        created = await creating
        if not created.replayed:  # else somebody else may wait for it
            await service.cancel(created.video["id"], caller=caller)
    except NotFoundError:  # deleted meanwhile
        return True
    except AiprodError as error:
        log.info("a video that nobody waits for was not cancelled: %s", error)  # refused, ended in the same moment, or out of reach
        return False
    return True
