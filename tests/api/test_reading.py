"""bodies of several tenants at once: whose media take long holds up itself alone"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from aiprod_components.errors import RateLimitedError
from aiprod_components.media.uploads import Media, check_media
from deployments.api import uploads
from deployments.api.body import Body
from deployments.api.reading import AT_ONCE, MEDIA_READERS, MOST_SENT
from deployments.auth import Caller
from tests.api.conftest import Desk, MakeDesk
from tests.bodies import image_url, picture

SMALL = {"prompt": "a red ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2, "seed": 3}
WORDS, QUICK, SLOW = Body(SMALL, is_json=True), picture(40), picture(41)
ADA, EVE = (Caller(name, frozenset({"read", "write"})) for name in ("ada", "eve"))


class Door:
    """Where slow pictures wait until it is opened; `waiting` counts those that threads have come to it with."""

    def __init__(self) -> None:
        self._opened, self.waiting = threading.Event(), 0

    def check(self, **sent: dict[str, bytes]) -> Media:
        if SLOW in sent["pictures"].values():
            self.waiting += 1
            assert self._opened.wait(60)
        return check_media(**sent)

    def open(self) -> None:
        self._opened.set()

    async def has(self, number: int) -> None:
        async with asyncio.timeout(20):
            while self.waiting < number:
                await asyncio.sleep(0.01)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    door = Door()
    monkeypatch.setattr(uploads, "check_media", door.check)
    yield door
    door.open()


def with_picture(data: bytes) -> Body:
    return Body({**SMALL, "input_reference": image_url(data)}, is_json=True)


@asynccontextmanager
async def begun(door: Door, *works: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """They are under way, and at last they end."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.sleep(0.05)
        yield tasks
    finally:
        door.open()
        await asyncio.gather(*tasks, return_exceptions=True)


async def in_line(desk: Desk, tenant: str, number: int) -> None:
    async with asyncio.timeout(20):
        while (line := desk.service._readers._lines.get(tenant)) is None or line.length < number:
            await asyncio.sleep(0.01)


def test_one_tenant_s_slow_uploads_stop_nobody_else_s(desk: Desk, door: Door) -> None:
    async def scenario() -> None:
        slow = [desk.service.create(with_picture(SLOW), caller=ADA) for _ in range(MEDIA_READERS + 1)]
        async with begun(door, *slow) as tasks:
            await door.has(AT_ONCE)
            async with asyncio.timeout(20):
                await desk.service.create(with_picture(QUICK), caller=EVE)
            assert door.waiting == AT_ONCE
        assert all(task.result().video["status"] == "queued" for task in tasks)

    asyncio.run(scenario())


def test_words_are_read_while_all_readers_of_media_are_busy(desk: Desk, door: Door) -> None:
    async def scenario() -> None:
        slow = [desk.service.understand(with_picture(SLOW), caller=caller) for caller in (ADA, EVE) for _ in range(AT_ONCE)]
        async with begun(door, *slow):
            await door.has(MEDIA_READERS)
            async with asyncio.timeout(20):
                assert (await desk.service.create(WORDS, caller=ADA)).video["status"] == "queued"

    asyncio.run(scenario())


def test_more_uploads_at_once_than_a_tenant_may_have_are_told_when_to_come_again(make_desk: MakeDesk, door: Door) -> None:
    desk = make_desk(keys=True)
    keys = {tenant: desk.key(tenant) for tenant in ("ada", "eve")}

    async def scenario() -> None:
        transport = httpx.ASGITransport(desk.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as client:

            async def post(tenant: str, **fields: Any) -> httpx.Response:
                return await client.post("/v1/videos", json={**SMALL, **fields}, headers={"authorization": f"Bearer {keys[tenant]}"})

            slow = image_url(SLOW)
            async with begun(door, *(post("ada", input_reference=slow) for _ in range(MOST_SENT))) as tasks:
                await door.has(AT_ONCE)
                await in_line(desk, "ada", MOST_SENT)
                for medium in (slow, image_url(QUICK)):
                    async with asyncio.timeout(20):
                        refused = await post("ada", input_reference=medium)
                    assert (refused.status_code, refused.json()["error"]["code"], refused.headers["retry-after"]) == (
                        429,
                        "rate_limited",
                        "5",
                    )
                    assert f"{MOST_SENT} of your requests with pictures or videos" in refused.json()["detail"]
                assert (await post("eve", input_reference=image_url(QUICK))).status_code == 200
                assert (await post("ada")).status_code == 200
            assert [task.result().status_code for task in tasks] == [200] * MOST_SENT
            assert (await post("ada", input_reference=slow)).status_code == 200

    asyncio.run(scenario())


def test_whoever_hangs_up_makes_no_room_before_the_thread_is_free(desk: Desk, door: Door) -> None:
    async def scenario() -> None:
        slow = [desk.service.understand(with_picture(SLOW), caller=ADA) for _ in range(MOST_SENT)]
        async with begun(door, *slow) as tasks:
            await door.has(AT_ONCE)
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0.05)
            assert sum(not task.done() for task in tasks) == AT_ONCE, "those that had not begun are gone at once"
            async with begun(door, *(desk.service.understand(with_picture(SLOW), caller=ADA) for _ in range(AT_ONCE))) as later:
                await asyncio.sleep(0.2)
                assert door.waiting == AT_ONCE
            assert door.waiting == 2 * AT_ONCE and all(task.result() for task in later)
        assert all(task.cancelled() for task in tasks)

    asyncio.run(scenario())


def test_a_video_made_from_one_with_a_picture_is_read_in_the_same_line(desk: Desk, door: Door) -> None:
    async def scenario() -> None:
        drawn, told = [(await desk.service.create(body, caller=ADA)).video["id"] for body in (with_picture(QUICK), WORDS)]
        remix = Body({"prompt": "a blue ball"}, is_json=True)
        async with begun(door, *(desk.service.understand(with_picture(SLOW), caller=ADA) for _ in range(MOST_SENT))):
            await door.has(AT_ONCE)
            with pytest.raises(RateLimitedError, match="with pictures or videos"):
                await desk.service.remix(drawn, remix, caller=ADA)
            async with asyncio.timeout(20):
                assert (await desk.service.remix(told, remix, caller=ADA)).video["prompt"] == "a blue ball"
        assert (await desk.service.remix(drawn, remix, caller=ADA)).video["prompt"] == "a blue ball"

    asyncio.run(scenario())


def test_one_tenant_s_slow_addresses_stop_nobody_else_s(desk: Desk, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        answered = asyncio.Event()

        async def fetch(url: str, *, field: str, max_bytes: int) -> bytes:
            if "slow" in url:
                await answered.wait()
            return QUICK

        monkeypatch.setattr(desk.service._outgoing, "fetch", fetch)
        frames = [{"frame": frame, "image_url": f"https://slow.example/{frame}"} for frame in (0, 4)]
        slow = [desk.service.understand(Body({**SMALL, "keyframes": frames}, is_json=True), caller=ADA) for _ in range(4)]
        async with begun(door, *slow) as tasks:
            quick = Body({**SMALL, "input_reference": {"image_url": "https://quick.example"}}, is_json=True)
            try:
                async with asyncio.timeout(20):
                    await desk.service.understand(quick, caller=EVE)
                assert not any(task.done() for task in tasks)
            finally:
                answered.set()
        assert all(task.result() for task in tasks)

    asyncio.run(scenario())
