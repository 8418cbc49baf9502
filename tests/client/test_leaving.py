"""whoever leaves `generate` before its end -> the server makes nothing for nobody"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from aiprod_client import AiprodClientError, AsyncClient, Client, VideoJob, VideoTimeoutError
from tests.client.either import QUICK, Connect
from tests.client.stand_in import Answer, Received, StandIn, event, json_answer, problem

CREATE = "POST /v1/videos"


@pytest.fixture(autouse=True)
def busy(server: StandIn) -> None:
    """Videos begin and do not end."""
    server.script = [{"status": "in_progress", "queue_position": None, "progress": 10}]

    def events(received: Received) -> Answer:
        def pieces() -> Iterator[bytes]:
            video = server.videos[received.call.split("/")[3]]
            yield event("video", {**video, "status": "in_progress"})
            time.sleep(2)

        return Answer(pieces(), headers={"content-type": "text/event-stream"}, cut=0)

    for number in (1, 2):
        server.answers[f"GET /v1/videos/video_{number:032x}/events"] = events


def statuses(server: StandIn) -> list[str]:
    return [video["status"] for video in server.videos.values()]


def test_an_interruption_cancels_the_video(server: StandIn, connect: Connect) -> None:
    def interrupt(job: VideoJob) -> None:
        raise KeyboardInterrupt

    with connect(server.url) as client, pytest.raises(KeyboardInterrupt):
        client.generate("a red ball", on_change=interrupt)
    assert statuses(server) == ["cancelled"]


def test_an_error_of_the_callers_own_cancels_the_video_too(server: StandIn, connect: Connect) -> None:
    def fail(job: VideoJob) -> None:
        raise ZeroDivisionError

    with connect(server.url) as client, pytest.raises(ZeroDivisionError):
        client.generate("a red ball", on_change=fail)
    assert statuses(server) == ["cancelled"]


def test_a_video_that_takes_too_long_is_cancelled(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client, pytest.raises(VideoTimeoutError, match=r"not finished in 0\.2 s"):
        client.generate("a red ball", timeout=0.2)
    assert statuses(server) == ["cancelled"]


def test_waiting_for_a_video_is_not_owning_it(server: StandIn, connect: Connect) -> None:
    def interrupt(job: VideoJob) -> None:
        raise KeyboardInterrupt

    with connect(server.url) as client:
        job = client.create("a red ball")
        with pytest.raises(KeyboardInterrupt):
            client.wait(job, on_change=interrupt)
        with pytest.raises(VideoTimeoutError):
            client.wait(job, timeout=0.1)
    assert statuses(server) == ["queued"]


def test_a_finished_video_stays_when_its_download_is_interrupted(server: StandIn) -> None:
    server.script = [{"status": "completed"}]
    name = f"video_{1:032x}"
    server.answers[f"GET /v1/videos/{name}/events"] = problem(404, "none", code="not_found")

    def interrupt(received: Received) -> Answer:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        return Answer()

    server.answers[f"GET /v1/videos/{name}/content"] = interrupt
    with Client(server.url, retries=QUICK) as client, pytest.raises(KeyboardInterrupt):
        client.generate("a red ball")
    assert statuses(server) == ["completed"]


def test_a_video_whose_creation_is_interrupted_is_found_by_its_key_and_cancelled(server: StandIn) -> None:
    def interrupt(received: Received) -> Answer:
        server.answers.pop(CREATE)
        answer = server.create(received, "")
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        return answer

    server.answers[CREATE] = interrupt
    with Client(server.url, retries=QUICK) as client, pytest.raises(KeyboardInterrupt):
        client.generate("a red ball")
    assert statuses(server) == ["cancelled"]


def test_a_creation_that_is_refused_is_not_called_off(server: StandIn, connect: Connect) -> None:
    server.answers[CREATE] = problem(400, "no", code="invalid_request")
    with connect(server.url) as client, pytest.raises(AiprodClientError):
        client.generate("a red ball")
    assert server.calls == [CREATE]


def test_a_cancellation_that_fails_is_logged_and_hides_nothing(server: StandIn, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    def interrupt(job: VideoJob) -> None:
        server.answers[f"POST /v1/videos/{job.id}/cancel"] = problem(500, "out of order", code="internal")
        raise KeyboardInterrupt

    with connect(server.url) as client, pytest.raises(KeyboardInterrupt):
        client.generate("a red ball", on_change=interrupt)
    assert "the video could not be cancelled: out of order" in caplog.text


def test_a_cancelled_scope_cancels_its_video(server: StandIn) -> None:
    """One of anyio's, which cancels again and again whatever its task does."""

    async def ask() -> None:
        async with AsyncClient(server.url, retries=QUICK) as client:
            with anyio.move_on_after(5) as scope:
                await client.generate("a red ball", on_change=lambda job: scope.cancel())
            assert scope.cancelled_caught

    anyio.run(ask)
    assert statuses(server) == ["cancelled"]


def test_asyncio_s_own_timeout_cancels_the_video(server: StandIn) -> None:
    async def ask() -> None:
        async with AsyncClient(server.url, retries=QUICK) as client, asyncio.timeout(0.3):
            await client.generate("a red ball")

    with pytest.raises(TimeoutError):
        asyncio.run(ask())
    assert statuses(server) == ["cancelled"]


def test_async_callers_may_be_told_by_coroutines(server: StandIn) -> None:
    told: list[str] = []

    async def note(job: VideoJob) -> None:
        await asyncio.sleep(0)
        told.append(job.status)

    async def ask() -> None:
        async with AsyncClient(server.url, retries=QUICK) as client:
            server.answers.clear()
            server.script = [{"status": "completed"}]
            await client.wait(await client.create("a red ball"), on_change=note)

    asyncio.run(ask())
    assert told == ["queued", "completed"]


def test_many_videos_are_waited_for_at_once(server: StandIn) -> None:
    """One answer that hangs holds up nobody else's."""

    async def ask() -> list[str]:
        async with AsyncClient(server.url, retries=QUICK) as client:
            slow = asyncio.create_task(client.wait(await client.create("a red ball")))
            server.answers["GET /v1/videos/video_9/events"] = json_answer({"id": "video_9", "status": "completed"})
            server.videos["video_9"] = {"id": "video_9", "status": "completed"}
            done = [(await client.wait("video_9")).status for _ in range(3)]
            assert not slow.done()
            slow.cancel()
            return done

    started = time.perf_counter()
    assert asyncio.run(ask()) == ["completed"] * 3
    assert time.perf_counter() - started < 1.9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_ended_cancels_its_video(server: StandIn, number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from aiprod_client.cli import app; app()", "generate", "a red ball"]
    arguments = ["-o", str(tmp_path / "ball.mp4"), "--server", server.url]
    with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not any(call.endswith("/events") for call in server.calls) and time.monotonic() < deadline:
            time.sleep(0.02)
        threading.Timer(0.2, process.send_signal, (number,)).start()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "stopped; the server was told to cancel the video"
    assert statuses(server) == ["cancelled"]
    assert list(tmp_path.iterdir()) == []
