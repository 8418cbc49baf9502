"""a real dispatcher, a real database and folder, stages that do as they are told: what becomes of jobs when things go wrong"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import BaseError, GenericError, PermissionDeniedError
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from aiprod_components.errors import CheckpointError, NumericalError, UnavailableError, WeightsChangedError
from deployments import dispatcher as module
from deployments import running
from deployments.jobs.records import COMPLETED, FAILED
from deployments.orders import Order, Report
from deployments.settings import ApiArgs
from deployments.weights import Weights
from tests.deployments.stages_here import Stages, ask, ended, working

# Serve calls a deployment's destructor and waits for it; Python does so once more, in vain.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine 'Dispatcher.__del__':RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


SLOW_DOWN = GenericError("503 Slow Down")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pauses, shorter."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(running, "PAUSES", (0.05, 0.05))


@pytest.fixture
def args(tmp_path: Path) -> ApiArgs:
    return ApiArgs.model_validate({"families": [{"name": "miniature"}], "data": str(tmp_path)})


def failing(step: str, *errors: Exception) -> Any:
    """A stage whose answer to this step is one error after the other, and then what it should be."""
    left = list(errors)

    async def act(order: Order, stop: asyncio.Event) -> None:
        if order.step == step and left:
            raise left.pop(0)

    return act


def outcome(args: ApiArgs, stages: Stages, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Any:
    async def run() -> Any:
        async with working(args, stages, monkeypatch, **config) as dispatcher:
            return await ended(dispatcher, ask(dispatcher, 1))

    return asyncio.run(run())


def test_a_job_is_made_step_by_step_and_published(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages()
    job = outcome(args, stages, monkeypatch)
    assert (job.status, stages.runs) == (COMPLETED, ["prompt", "draft", "doubled", "refined", "video"])
    assert [line["step"] for line in job.stages] == stages.runs and job.output["frames_digest"] == "frames"


@pytest.mark.parametrize("lost", [UnavailableError("a stage stopped"), BackPressureError(1, 1)], ids=lambda e: type(e).__name__)
def test_a_stage_that_is_lost_or_full_is_asked_again_and_nothing_before_it(
    lost: Exception, args: ApiArgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = Stages(failing("refined", lost, lost))
    job = outcome(args, stages, monkeypatch)
    assert job.status == COMPLETED
    assert stages.runs == ["prompt", "draft", "doubled", "refined", "refined", "refined", "video"]


def test_a_stage_that_is_always_lost_fails_the_job_in_the_end(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    job = outcome(args, Stages(failing("draft", *[UnavailableError("gone")] * 99)), monkeypatch, max_attempts=2)
    assert (job.status, job.error["code"]) == (FAILED, "worker_lost")


@pytest.mark.parametrize(
    "absent",
    [UnavailableError("model miniature is not running yet"), ActorDiedError(), BackPressureError(1, 1)],
    ids=lambda e: type(e).__name__,
)
def test_a_job_waits_for_a_family_that_is_not_there(absent: Exception, args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages()
    stages.failures = [absent] * 8
    job = outcome(args, stages, monkeypatch, max_attempts=2)
    assert job.status == COMPLETED and stages.failures == []


def test_a_job_waits_out_a_change_of_weights(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    changing = failing("draft", *[WeightsChangedError("other weights")] * 8)
    assert outcome(args, Stages(changing), monkeypatch, max_attempts=2).status == COMPLETED


def test_a_job_is_planned_anew_for_the_weights_of_the_stage_that_refused_it_and_keeps_what_came_before(
    args: ApiArgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    async def refuse_the_old(order: Order, stop: asyncio.Event) -> None:
        assert order.job is not None
        asked.append((order.step, order.job.fingerprint, order.job.identity))
        if order.call.stage == "denoiser" and order.job.fingerprint != "new":
            raise WeightsChangedError("other weights", stage="denoiser", fingerprint="new")

    stages = Stages(refuse_the_old)
    job = outcome(args, stages, monkeypatch, max_attempts=1)
    assert (job.status, job.attempt) == (COMPLETED, 2)
    assert stages.runs == ["prompt", "draft", "draft", "doubled", "refined", "video"]
    assert [fingerprint for _, fingerprint, _ in asked] == ["weights", "weights", "new", "weights", "weights", "weights"]
    (_, _, old), (_, _, new) = [step for step in asked if step[0] == "draft"]
    assert old != new and Weights.from_text(job.fingerprint or "") == Weights("weights", {"denoiser": "new"})


def going_away(calls: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, *, times: int = 9, told: BaseError = SLOW_DOWN) -> list[str]:
    """An artifact store that refuses so many of each of these calls, for files of videos and for what is there of steps; the refused."""
    refused: list[str] = []

    def patched(name: str) -> Any:
        real = getattr(obstore, name)

        def call(store: Any, key: str, *rest: Any) -> Any:
            if refused.count(name) < times and (name == "head" or key.startswith("videos/")):
                refused.append(name)
                raise told
            return real(store, key, *rest)

        return call

    for name in calls:
        monkeypatch.setattr(obstore, name, patched(name))
    return refused


@pytest.mark.parametrize("calls", [("put",), ("put", "head"), ("copy",)], ids=["to publish", "to find what is kept", "to take over"])
def test_a_job_waits_for_an_artifact_store_that_is_away(calls: tuple[str, ...], args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = going_away(calls, monkeypatch)

    async def run() -> list[Any]:
        async with working(args, Stages(), monkeypatch, max_attempts=2) as dispatcher:
            return [await ended(dispatcher, ask(dispatcher, number)) for number in (1, 2)]

    assert [(job.status, job.error) for job in asyncio.run(run())] == [(COMPLETED, None)] * 2
    assert Counter(refused) == dict.fromkeys(calls, 9)


def test_a_job_that_the_store_refuses_ends_and_nothing_is_computed_in_vain_twice(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = going_away(("put",), monkeypatch, times=999, told=PermissionDeniedError("403"))
    stages = Stages()
    job = outcome(args, stages, monkeypatch, max_attempts=3, refused_seconds=0.1)
    assert (job.status, job.error["code"], job.attempt) == (FAILED, "store_refused", 3)
    assert "whoever runs the server" in job.error["message"] and "403" not in job.error["message"]
    assert stages.runs == ["prompt", "draft", "doubled", "refined", "video"] and len(refused) == 3


def test_a_store_that_is_set_right_in_time_has_harmed_nobody(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    going_away(("put",), monkeypatch, times=3, told=PermissionDeniedError("403"))
    stages = Stages()
    job = outcome(args, stages, monkeypatch, refused_seconds=0.1)
    assert (job.status, job.attempt) == (COMPLETED, 4)
    assert stages.runs == ["prompt", "draft", "doubled", "refined", "video", "video"], "what was kept is not made again"


def test_what_the_request_did_is_told_and_what_the_server_did_is_not(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    told = outcome(args, Stages(failing("draft", NumericalError("lower guidance_scale"))), monkeypatch)
    assert told.error == {"code": "not_finite", "message": "lower guidance_scale"}


def test_a_client_learns_nothing_of_the_server_s_folders(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    job = outcome(args, Stages(failing("draft", CheckpointError("/srv/weights/x.safetensors is torn"))), monkeypatch)
    assert job.error["code"] == "internal" and "/srv" not in job.error["message"]


def test_a_damaged_result_is_made_again(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[Any, list[str]]:
        stages = Stages()
        async with working(args, stages, monkeypatch) as dispatcher:
            await ended(dispatcher, ask(dispatcher, 1))
            for key in dispatcher._storage.artifacts.keys_under("steps"):
                dispatcher._storage.artifacts.put(key, b"")
            stages.shelf, stages.runs = type(stages.shelf)(), []
            return await ended(dispatcher, ask(dispatcher, 2, seed=4)), stages.runs

    job, runs = asyncio.run(run())
    assert job.status == COMPLETED and runs[-5:] == ["prompt", "draft", "doubled", "refined", "video"]


def test_the_same_request_is_answered_from_the_first_video_s_files(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[Any, Any, list[str]]:
        stages = Stages()
        async with working(args, stages, monkeypatch) as dispatcher:
            first = await ended(dispatcher, ask(dispatcher, 1))
            stages.runs = []
            second = await ended(dispatcher, ask(dispatcher, 2))
            dispatcher._assigner.remove(first)
            assert second.output is not None
            return second, dispatcher._storage.artifacts.get(f"{second.output['prefix']}/video"), stages.runs

    second, video, runs = asyncio.run(run())
    assert runs == [] and video == b"video" and [line["cache_hit"] for line in second.stages if line["step"] == "video"] == [True]


def test_a_message_that_comes_after_the_finish_harms_nothing(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[bytes, list[str]]:
        stages = Stages()
        stages.late_by = 1.0
        async with working(args, stages, monkeypatch) as dispatcher:
            job = await ended(dispatcher, ask(dispatcher, 1))
            await asyncio.sleep(2.0)
            assert job.output is not None
            video = dispatcher._storage.artifacts.get(f"{job.output['prefix']}/video")
            stages.runs = []
            assert (await ended(dispatcher, ask(dispatcher, 2))).status == COMPLETED
            return video, stages.runs

    assert asyncio.run(run()) == (b"video", [])  # and it answers the same request


def test_a_video_deleted_while_it_is_made_leaves_nothing_and_answers_nobody(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def slow(order: Order, stop: asyncio.Event) -> None:
        """Decodes for two more seconds after it was told to stop, and then publishes all the same."""
        if order.step == "video":
            begun.set()
            await stop.wait()
            await asyncio.sleep(2)

    async def run() -> tuple[bool, list[str], int]:
        stages = Stages(slow)
        async with working(args, stages, monkeypatch) as dispatcher:
            video_id = ask(dispatcher, 1)
            await asyncio.wait_for(begun.wait(), 20)
            storage = dispatcher._storage
            await asyncio.to_thread(storage.jobs.cancel, "a", video_id)
            was_here = await dispatcher.cancel(video_id)
            cancelled = storage.jobs.get(video_id)
            assert cancelled is not None
            dispatcher._assigner.remove(cancelled)
            await asyncio.to_thread(storage.jobs.delete, "a", video_id)
            stages.act, stages.runs = None, []
            again = await ended(dispatcher, ask(dispatcher, 2))
            assert again.status == COMPLETED
            return was_here, storage.artifacts.keys_under(f"videos/{video_id}"), stages.runs.count("video")

    assert asyncio.run(run()) == (True, [], 1)


def test_a_late_message_of_a_lost_attempt_is_refused_and_its_files_removed(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Order] = []

    async def remember(order: Order, stop: asyncio.Event) -> None:
        orders.append(order)

    async def run() -> tuple[bool, list[str]]:
        stages = Stages(remember)
        async with working(args, stages, monkeypatch) as dispatcher:
            job = await ended(dispatcher, ask(dispatcher, 1))
            dispatcher._assigner.remove(job)
            dispatcher._storage.jobs.delete("a", job.id)
            await stages._end("vae_decoder", orders[-1])  # the decoder publishes once more, and says so
            assert orders[-1].job is not None
            still_wanted = await dispatcher.report(Report(orders[-1].job, "video", "vae_decoder"))
            return still_wanted, dispatcher._storage.artifacts.keys_under(f"videos/{job.id}")

    assert asyncio.run(run()) == (False, [])


def test_a_dispatcher_that_is_taken_down_gives_its_jobs_back(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def wait(order: Order, stop: asyncio.Event) -> None:
        if order.step == "draft":
            begun.set()
            await stop.wait()
            raise UnavailableError("stopped")

    async def run() -> Any:
        stages = Stages(wait)
        async with working(args, stages, monkeypatch) as dispatcher:
            video_id = ask(dispatcher, 1)
            await asyncio.wait_for(begun.wait(), 20)
        left = dispatcher._storage.jobs.get(video_id)
        stages.act = None
        async with working(args, stages, monkeypatch) as dispatcher:
            return left, await ended(dispatcher, video_id), stages.runs

    left, job, runs = asyncio.run(run())
    assert left.status == "queued" and job.status == COMPLETED and runs.count("prompt") == 1
