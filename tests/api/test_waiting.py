"""a video that is asked for and waited for in one, over HTTP and gRPC: an answer that is tried again leaves none behind"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from aiprod_client.errors import AiprodClientError
from aiprod_client.grpc_client import GrpcClient, ask_for
from aiprod_client.settings import VideoSettings
from aiprod_components.errors import StoreUnavailableError, UnavailableError
from deployments.api import service
from deployments.api.catalogue import list_models
from deployments.api.grpc import GrpcFace
from deployments.auth import Caller
from deployments.jobs.records import Claim, Job
from tests.api.conftest import WIRE, Desk
from tests.deployments.grpc_face.serving import serving

SMALL = {"prompt": "a red ball", "num_frames": 5, "size": "64x64", "num_inference_steps": 2, "seed": 3}
BALL = ask_for("a red ball", VideoSettings(num_frames=5, size="64x64", seed=3))
WORKER_LOST = {"code": "worker_lost", "message": "5 workers stopped"}
INTERNAL = {"code": "internal", "message": "the server failed on this job"}
STEP = {"percent": 2, "step": "draft", "stage": "denoiser", "done": 1, "total": 2}

Refusal = tuple[int | None, str]  # HTTP's status, and the error's code
Ask = Callable[[], Refusal]


def over_http(desk: Desk) -> Iterator[Ask]:
    def ask() -> Refusal:
        answer = sync(desk)
        return answer.status_code, answer.json()["error"]["code"]

    yield ask


def over_grpc(desk: Desk) -> Iterator[Ask]:
    async def health() -> dict[str, Any]:
        return {}

    with (
        serving(GrpcFace(desk.service, models=list_models(WIRE), health=health, local_only=True)) as target,
        GrpcClient(target) as client,
    ):

        def ask() -> Refusal:
            with pytest.raises(AiprodClientError) as told:
                list(client.generate(BALL))
            return told.value.status, told.value.code

        yield ask


@pytest.fixture(params=[over_http, over_grpc], ids=["http", "grpc"])
def ask(request: pytest.FixtureRequest, desk: Desk) -> Iterator[Ask]:
    yield from request.param(desk)


def sync(desk: Desk, **headers: str) -> Any:
    return desk.client().post("/v1/videos/sync", json=SMALL, headers=headers)


def stored(desk: Desk) -> list[str]:
    """The status of every video that there is."""
    return [video["status"] for video in desk.client().get("/v1/videos").json()["data"]]


def away(*_: object) -> Any:
    raise UnavailableError("the job database cannot be reached")


def store_away(*_: object) -> Any:
    raise StoreUnavailableError("the artifact store cannot be reached")


def ending(desk: Desk, monkeypatch: pytest.MonkeyPatch, end: Callable[[Job], Any]) -> None:
    """The next job ends so before anybody looks at it."""
    look = desk.storage.jobs.get_owned

    def ended(tenant: str, video_id: str) -> Any:
        monkeypatch.setattr(desk.storage.jobs, "get_owned", look)
        end(desk.claim())
        return look(tenant, video_id)

    monkeypatch.setattr(desk.storage.jobs, "get_owned", ended)


def test_who_finds_no_place_to_wait_in_leaves_no_video_behind(ask: Ask, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_WATCHED", 0)
    assert (ask(), stored(desk)) == ((429, "rate_limited"), [])


def test_a_place_is_free_again_however_the_answer_ended(ask: Ask, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_WATCHED", 1)
    monkeypatch.setattr(desk.storage.jobs, "get_owned", away)
    assert [ask(), ask()] == [(503, "unavailable")] * 2


def test_a_video_whose_answer_fails_is_cancelled(ask: Ask, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.storage.jobs, "get_owned", away)
    assert ask() == (503, "unavailable")
    assert stored(desk) == ["cancelled"] and len(desk.cancelled) == 1


def test_a_video_that_cannot_be_cancelled_either_is_told_as_there(ask: Ask, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in ("get_owned", "cancel"):
        monkeypatch.setattr(desk.storage.jobs, call, away)
    assert (ask(), stored(desk)) == ((409, "unwatched"), ["queued"])


def test_a_finished_video_that_cannot_be_read_is_told_as_there(ask: Ask, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(desk, monkeypatch, desk.finish)
    monkeypatch.setattr(desk.storage.artifacts, "stat", store_away)
    assert (ask(), stored(desk)) == ((409, "unwatched"), ["completed"])


def test_what_is_there_all_the_same_is_named_and_not_to_be_asked_for_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in ("get_owned", "cancel"):
        monkeypatch.setattr(desk.storage.jobs, call, away)
    answer = sync(desk)
    (video,) = desk.client().get("/v1/videos").json()["data"]
    assert answer.headers["x-should-retry"] == "false" and video["id"] in answer.json()["error"]["message"]


def test_with_a_key_the_same_video_is_found_again_after_a_failure(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(desk.storage.jobs, "get_owned", away)
        failed = sync(desk, **{"idempotency-key": "once"})
    assert (failed.status_code, "x-should-retry" in failed.headers, stored(desk)) == (503, False, ["queued"])
    desk.finish(desk.claim(), content=b"the video")
    again = sync(desk, **{"idempotency-key": "once"})
    assert (again.status_code, again.content, stored(desk)) == (200, b"the video", ["completed"])


@pytest.mark.parametrize(("error", "status"), [(WORKER_LOST, 503), (INTERNAL, 500)], ids=["worker_lost", "internal"])
def test_a_video_that_failed_is_not_to_be_asked_for_again(
    error: dict[str, str], status: int, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(desk, monkeypatch, lambda job: desk.storage.jobs.fail(Claim.of(job), error, []))
    answer = sync(desk)
    assert (answer.status_code, answer.json()["error"]["code"], stored(desk)) == (status, error["code"], ["failed"])
    assert answer.headers["x-should-retry"] == "false" and "retry-after" not in answer.headers


def test_a_queue_that_cannot_be_counted_ends_no_waiting(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.storage.jobs, "queue_positions", away)
    looks = iter([lambda: None, lambda: desk.finish(desk.claim(), content=b"the video")])
    changed = desk.storage.jobs.changed

    def looking(versions: Any) -> Any:
        next(looks, lambda: None)()
        return changed(versions)

    monkeypatch.setattr(desk.storage.jobs, "changed", looking)
    assert sync(desk).content == b"the video"


def test_a_picture_that_cannot_be_fetched_ends_no_stream(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    video_id = desk.client().post("/v1/videos", json=SMALL).json()["id"]
    job = desk.claim()
    monkeypatch.setattr(desk.storage.artifacts, "get", store_away)

    async def watch() -> list[str]:
        caller: Caller = await desk.service.authenticate(None, scope="read")
        seen: list[str] = []
        async with aclosing(desk.service.watch(video_id, caller=caller)) as events:
            async for event in events:
                seen.append(event.data["status"])
                if len(seen) == 1:
                    desk.storage.jobs.report(Claim.of(job), progress={**STEP, "preview": 1})
                if len(seen) == 2:
                    desk.finish(job)
        return seen

    assert asyncio.run(asyncio.wait_for(watch(), 20)) == ["in_progress", "in_progress", "completed"]
