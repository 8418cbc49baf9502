"""following a video to its end: by its events, over broken connections, or by asking again and again"""

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from aiprod_client import (
    AiprodClientError,
    PreviewEvent,
    VideoCancelledError,
    VideoEvent,
    VideoFailedError,
    VideoJob,
    VideoTimeoutError,
    watching,
)
from tests.client.either import Connect
from tests.client.stand_in import PREVIEW, Answer, StandIn, event, problem, stream

JOB = {"id": "video_1", "status": "queued"}
EVENTS = "GET /v1/videos/video_1/events"
STREAM = {"content-type": "text/event-stream"}


def state(status: str, progress: int = 0) -> bytes:
    return event("video", {**JOB, "status": status, "progress": progress})


def test_every_state_is_told_once_and_the_last_is_returned(server: StandIn, connect: Connect) -> None:
    told: list[VideoJob] = []
    with connect(server.url) as client:
        done = client.wait(client.create("a red ball"), on_change=told.append)
    assert [(job.status, job.progress, job.queue_position) for job in told] == [
        ("queued", 0, 2),
        ("queued", 0, 1),
        ("in_progress", 10, None),
        ("in_progress", 50, None),
        ("completed", 100, None),
    ]
    assert told[-1] == done


def test_events_are_typed(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        events = list(client.stream(client.create("a red ball").id))
    assert [type(event) for event in events] == [VideoEvent] * 3 + [PreviewEvent, VideoEvent] * 1 + [VideoEvent]
    assert events[3] == PreviewEvent(PREVIEW, "image/webp")
    assert isinstance(events[-1], VideoEvent) and events[-1].job.is_final


def test_a_stream_may_be_left_early(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client:
        job = client.create("a red ball")
        events = client.stream(job)
        assert isinstance(next(events), VideoEvent)
        events.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert client.retrieve(job).id == job.id


def test_a_stream_that_breaks_is_opened_again_and_tells_nothing_twice(server: StandIn, connect: Connect) -> None:
    server.answers[EVENTS] = [
        stream(state("queued"), state("in_progress", 10), ends=False),
        problem(503, "not now", code="unavailable"),
        stream(state("in_progress", 10), state("in_progress", 20)),
        stream(ends=False),
        stream(state("in_progress", 20), state("completed", 100)),
    ]
    told: list[tuple[str, int]] = []
    with connect(server.url) as client:
        client.wait("video_1", on_change=lambda job: told.append((job.status, job.progress)))
    assert told == [("queued", 0), ("in_progress", 10), ("in_progress", 20), ("completed", 100)]
    assert server.calls == [EVENTS] * 5


def test_what_comes_after_the_final_state_is_not_waited_for(server: StandIn, connect: Connect) -> None:
    def endless() -> Iterator[bytes]:
        yield state("completed", 100)
        while True:
            yield b":\n\n"

    server.answers[EVENTS] = Answer(endless(), headers={"content-type": "text/event-stream; charset=utf-8"})
    with connect(server.url) as client:
        assert client.wait("video_1").status == "completed"


@pytest.mark.parametrize(
    "none",
    [
        problem(404, "no such route", code="not_found"),
        problem(405, "no such route", code="method_not_allowed"),
        Answer(b"<html>", headers={"content-type": "text/html"}),
    ],
    ids=["404", "405", "html"],
)
def test_where_there_is_no_stream_the_video_is_asked_for_until_it_is_finished(server: StandIn, connect: Connect, none: Answer) -> None:
    told: list[str] = []
    with connect(server.url) as client:
        job = client.create("a red ball")
        server.answers[f"GET /v1/videos/{job.id}/events"] = none
        started = time.perf_counter()
        client.wait(job.id, on_change=lambda job: told.append(job.status))
    assert told == ["queued", "in_progress", "in_progress", "completed"]
    # The server asks for 150 ms between two polls.
    assert 0.45 <= time.perf_counter() - started < 2
    assert server.calls.count(f"GET /v1/videos/{job.id}") == 4
    assert server.calls.count(f"GET /v1/videos/{job.id}/events") == 1


def test_a_stream_that_never_tells_anything_gives_way_to_polling(
    server: StandIn, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a proxy that keeps a stream to itself until it ends."""
    monkeypatch.setattr(watching, "SILENCE_SECONDS", 0.1)

    def hush() -> Iterator[bytes]:
        time.sleep(0.3)
        yield b""

    with connect(server.url) as client:
        job = client.create("a red ball")
        server.answers[f"GET /v1/videos/{job.id}/events"] = lambda received: Answer(hush(), headers=STREAM, cut=0)
        assert client.wait(job).status == "completed"
    assert server.calls.count(f"GET /v1/videos/{job.id}/events") == 4


def test_a_failed_video_raises_what_the_server_says(server: StandIn, connect: Connect) -> None:
    failed = event("video", {**JOB, "status": "failed", "error": {"code": "worker_lost", "message": "the worker was lost 5 times"}})
    server.answers[EVENTS] = stream(failed)
    with connect(server.url) as client, pytest.raises(VideoFailedError, match="the worker was lost 5 times") as raised:
        client.wait("video_1")
    assert (raised.value.code, raised.value.job.id, raised.value.is_bad_input) == ("worker_lost", "video_1", False)


@pytest.mark.parametrize("code", ["not_finite", "invalid_request"])
def test_a_video_that_failed_for_what_was_asked_is_bad_input(server: StandIn, connect: Connect, code: str) -> None:
    server.answers[EVENTS] = stream(event("video", {**JOB, "status": "failed", "error": {"code": code, "message": "less guidance"}}))
    with connect(server.url) as client, pytest.raises(VideoFailedError) as raised:
        client.wait("video_1")
    assert raised.value.is_bad_input


def test_a_cancelled_video_raises(server: StandIn, connect: Connect) -> None:
    server.answers[EVENTS] = stream(state("cancelled"))
    with connect(server.url) as client, pytest.raises(VideoCancelledError, match="video_1 was cancelled") as raised:
        client.wait("video_1")
    assert raised.value.job.status == "cancelled"


def chatting() -> Iterator[bytes]:
    for number in itertools.count():
        time.sleep(0.02)
        yield state("in_progress", number % 100)


def quiet() -> Iterator[bytes]:
    yield state("in_progress")
    time.sleep(1.5)


def quiet_at_last() -> Iterator[bytes]:
    """A limit that begins anew with every byte would be twice as long."""
    yield state("in_progress")
    time.sleep(0.9)
    yield state("in_progress", 1)
    time.sleep(1.5)


@pytest.mark.parametrize(("pieces", "seconds"), [(chatting, 0.3), (quiet, 0.3), (quiet_at_last, 1.0)])
def test_waiting_has_an_end_whatever_the_stream_does(
    server: StandIn, connect: Connect, pieces: Callable[[], Iterator[bytes]], seconds: float
) -> None:
    server.answers[EVENTS] = lambda received: Answer(pieces(), headers=STREAM, cut=0)
    with connect(server.url) as client:
        started = time.perf_counter()
        with pytest.raises(VideoTimeoutError, match=f"the video was not finished in {seconds:g} s"):
            client.wait("video_1", timeout=seconds)
        assert seconds <= time.perf_counter() - started < seconds + 0.7


def test_waiting_by_polling_has_an_end_too(server: StandIn, connect: Connect) -> None:
    server.script = [{"status": "in_progress"}]
    with connect(server.url) as client:
        job = client.create("a red ball")
        server.answers[f"GET /v1/videos/{job.id}/events"] = problem(404, "no such route", code="not_found")
        started = time.perf_counter()
        with pytest.raises(VideoTimeoutError):
            client.wait(job, timeout=0.4)
    assert 0.4 <= time.perf_counter() - started < 1


def test_a_video_that_is_not_there_is_not_waited_for(server: StandIn, connect: Connect) -> None:
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="there is no video video_1") as raised:
        client.wait("video_1")
    assert raised.value.status == 404


def test_an_event_that_says_nothing_is_an_error_and_no_endless_wait(server: StandIn, connect: Connect) -> None:
    server.answers[EVENTS] = stream(b"event: video\ndata: {not json\n\n")
    with connect(server.url) as client, pytest.raises(AiprodClientError, match="the server's video event is none") as raised:
        client.wait("video_1")
    assert raised.value.code == "not_aiprod"
