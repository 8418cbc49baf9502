"""each alert's cause, brought about -> a real Prometheus, which reads the page that follows from it, fires that alert

A real dispatcher, database and folder; the stages are stand-ins that do as they are told. What only a cluster can lack (a dispatcher, an
application, a replica) is in test_causes_on_serve.py. Alerts fire at once here: how long each must hold is promtool's to try.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from aiprod_client.server import free_port
from aiprod_components.errors import CheckpointError, WeightsChangedError
from deployments import dispatcher as module
from deployments.dispatcher import Dispatcher
from deployments.jobs.tables import jobs
from deployments.orders import Order
from deployments.settings import ApiArgs
from deployments.telemetry.exposition import page
from k8s.alerts import ALERTS, rules
from tests.deployments.listening import saying, serving
from tests.deployments.stages_here import Stages, ask, ended, working
from tests.telemetry.prometheus import Prometheus, needs_prometheus, reading

pytestmark = [
    pytest.mark.slow,
    needs_prometheus,
    pytest.mark.filterwarnings("ignore:coroutine 'Dispatcher.__del__':RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
AT_ONCE = [{**rule, "for": "0s"} for rule in rules()["groups"][0]["rules"]]
ON_SERVE = {"AiprodMetricsAbsent", "AiprodApplicationNotRunning", "AiprodNoDispatcher", "AiprodStageHasNoReplica"}


class Scene:
    """A dispatcher at work, and the Prometheus that reads its page."""

    def __init__(self, dispatcher: Dispatcher, stages: Stages, args: ApiArgs) -> None:
        self.dispatcher, self.stages, self.args = dispatcher, stages, args
        self.storage: Any = dispatcher._storage
        self._asked = 0

    def page(self) -> bytes:
        stock = self.storage.stock.take()
        return page(
            stock, args=self.args, applications={}, graph={"miniature": {"stages": []}}, tallies=[self.dispatcher._account.figures()]
        )

    async def job(self, **fields: Any) -> str:
        self._asked += 1
        return await asyncio.to_thread(ask, self.dispatcher, self._asked, seed=self._asked, **fields)

    async def jobs(self, number: int, **fields: Any) -> None:
        """One after the other, each to its end."""
        for _ in range(number):
            await ended(self.dispatcher, await self.job(**fields))
            await asyncio.sleep(0.5)


Cause = Callable[[Scene], Awaitable[None]]


async def a_job_waits_for_a_quarter_of_an_hour(scene: Scene) -> None:
    scene.dispatcher._families_with_room = list  # type: ignore[method-assign]
    await scene.job()
    with scene.storage.stock._database.write() as connection:
        connection.execute(update(jobs).values(created_at=jobs.c.created_at - 900))


async def nine_jobs_wait_where_ten_may(scene: Scene) -> None:
    scene.dispatcher._families_with_room = list  # type: ignore[method-assign]
    scene.args = scene.args.model_copy(update={"queue": scene.args.queue.model_copy(update={"max_queued_of_all": 10})})
    for _ in range(9):
        await scene.job()


async def a_stage_fails_at_every_other_job(scene: Scene) -> None:
    async def act(order: Order, stop: asyncio.Event) -> None:
        if len(scene.stages.runs) % 2:
            raise CheckpointError("damaged")

    scene.stages.act = act
    await scene.jobs(8)


async def dispatchers_claim_jobs_and_are_gone(scene: Scene) -> None:
    room = scene.dispatcher._families_with_room
    for _ in range(4):
        scene.dispatcher._families_with_room = list  # type: ignore[method-assign]
        video = await scene.job()
        assert await asyncio.to_thread(scene.storage.jobs.claim, "gone", 0.0, ["miniature"]) is not None
        scene.dispatcher._families_with_room = room  # type: ignore[method-assign]
        await ended(scene.dispatcher, video)


async def a_replica_has_other_weights_each_time(scene: Scene) -> None:
    async def act(order: Order, stop: asyncio.Event) -> None:
        raise WeightsChangedError("other weights")

    scene.stages.act = act
    await scene.job()


async def a_step_waits_for_minutes(scene: Scene) -> None:
    scene.stages.queued_seconds = 200.0
    await scene.jobs(4)


async def a_receiver_is_gone_for_good(scene: Scene) -> None:
    async with serving(saying(status="410 Gone")) as server:
        await scene.jobs(1, webhook_url=f"http://127.0.0.1:{server.port}/hook")
        await asyncio.sleep(2)  # deliveries are due once a second


async def a_receiver_fails_for_a_hundred_events(scene: Scene) -> None:
    scene.dispatcher._families_with_room = list  # type: ignore[method-assign]
    for _ in range(101):
        video = await scene.job(webhook_url=f"http://127.0.0.1:{free_port()}/hook")
        await asyncio.to_thread(scene.storage.jobs.cancel, "a", video)


async def steps_are_kept_and_nobody_clears_them(scene: Scene) -> None:
    await asyncio.to_thread(scene.storage.kept.record, "tenant-a", "one", "steps/tenant-a/one", 5_000_000_000, {})


CAUSES: dict[str, Cause] = {
    "AiprodQueueIsOld": a_job_waits_for_a_quarter_of_an_hour,
    "AiprodQueueNearlyFull": nine_jobs_wait_where_ten_may,
    "AiprodJobsFail": a_stage_fails_at_every_other_job,
    "AiprodAttemptsAreLost": dispatchers_claim_jobs_and_are_gone,
    "AiprodJobsArePutBack": a_replica_has_other_weights_each_time,
    "AiprodStageIsTheBottleneck": a_step_waits_for_minutes,
    "AiprodWebhooksGivenUp": a_receiver_is_gone_for_good,
    "AiprodWebhooksPileUp": a_receiver_fails_for_a_hundred_events,
    "AiprodKeptStepsOverflow": steps_are_kept_and_nobody_clears_them,
}


@pytest.fixture
def args(tmp_path: Path) -> ApiArgs:
    outgoing = {"enabled": True, "allow_networks": ["127.0.0.0/8"]}
    return ApiArgs.model_validate({"families": [{"name": "miniature"}], "data": str(tmp_path / "data"), "outgoing": outgoing})


def test_every_alert_is_tried_by_its_cause() -> None:
    assert set(CAUSES) | ON_SERVE == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_makes_the_alert_fire(name: str, args: ApiArgs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)

    async def run() -> None:
        stages = Stages()
        async with working(args, stages, monkeypatch) as dispatcher:
            scene = Scene(dispatcher, stages, args)
            async with _read(scene, tmp_path) as prometheus:
                assert await asyncio.to_thread(prometheus.wait, lambda p: p.query("aiprod_dispatchers"))
                assert name not in await asyncio.to_thread(prometheus.firing)
                await CAUSES[name](scene)
                assert await asyncio.to_thread(prometheus.wait, lambda p: name in p.firing(), seconds=30), f"{name} does not fire"

    asyncio.run(run())


@asynccontextmanager
async def _read(scene: Scene, folder: Path) -> AsyncIterator[Prometheus]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = scene.page()
            self.send_response(200)
            self.send_header("content-type", "text/plain")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: it would be said on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    prometheus = reading(folder, {"aiprod": f"127.0.0.1:{server.server_port}"}, rules=AT_ONCE)
    running = await asyncio.to_thread(prometheus.__enter__)
    try:
        yield running
    finally:
        await asyncio.to_thread(prometheus.__exit__, None, None, None)
        await asyncio.to_thread(server.shutdown)
