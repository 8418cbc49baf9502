"""jobs, webhooks, leases -> what a dispatcher counts of them, what the database says -> the page that Prometheus reads"""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aiprod_components.errors import NumericalError
from deployments.dispatcher import Dispatcher
from deployments.envelope import Receipt
from deployments.jobs.records import COMPLETED, Claim
from deployments.orders import ForJob, Order, Report
from deployments.settings import ApiArgs
from deployments.telemetry.exposition import page
from deployments.telemetry.metrics import METRICS
from tests.api.conftest import Desk, MakeDesk, make_desk
from tests.deployments.stages_here import Stages, ask, ended, working

__all__ = ["make_desk"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine 'Dispatcher.__del__':RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
GRAPH = {"miniature": {"status": "RUNNING", "stages": [{"name": "denoiser", "replicas": 2, "running": 1, "queued": 3}]}}


@pytest.fixture
def args(tmp_path: Path) -> ApiArgs:
    return ApiArgs.model_validate({"families": [{"name": "miniature"}], "data": str(tmp_path)})


class Page:
    """A page, read as Prometheus reads it."""

    def __init__(self, text: bytes) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Of all series that have these labels, together."""
        return sum(sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items())

    def labels(self, name: str) -> set[str]:
        return {label for sample in self.samples if sample.name == name for label in sample.labels}


async def page_of(args: ApiArgs, *dispatchers: Dispatcher) -> Page:
    tallies = [await dispatcher.figures() for dispatcher in dispatchers]
    stock = await asyncio.to_thread(dispatchers[0]._storage.stock.take)
    return Page(page(stock, args=args, applications={"miniature": "RUNNING", "api": "DEPLOYING"}, graph=GRAPH, tallies=tallies))


def measured(args: ApiArgs, stages: Stages, monkeypatch: pytest.MonkeyPatch, jobs: int = 1) -> Page:
    """The page after so many jobs, one after the other."""

    async def run() -> Page:
        async with working(args, stages, monkeypatch) as dispatcher:
            for number in range(jobs):
                await ended(dispatcher, ask(dispatcher, number))
            return await page_of(args, dispatcher)

    return asyncio.run(run())


def test_what_jobs_took_and_found_is_counted(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(args, Stages(), monkeypatch, jobs=2)
    assert found.value("aiprod_jobs_ended_total", family="miniature", status=COMPLETED, reason="") == 2
    assert found.value("aiprod_attempts_total", outcome=COMPLETED) == 2
    assert found.value("aiprod_job_seconds_count", pipeline="ti2vid_two_stages") == 2
    assert found.value("aiprod_job_wait_seconds_count", family="miniature") == 2
    # The second one was the same video.
    assert found.value("aiprod_stage_run_seconds_count", stage="denoiser") == 1
    assert found.value("aiprod_stage_run_seconds_sum", stage="denoiser") == pytest.approx(0.1)
    assert found.value("aiprod_cache_hits_total", stage="vae_decoder") == 1
    assert found.value("aiprod_object_store_bytes_total", kind="step") > 0
    assert found.value("aiprod_object_store_bytes_total", kind="video") == len("thumbnailspritesheetvideo")


def test_a_failed_job_is_counted_by_its_errors_code(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(order: Order, stop: asyncio.Event) -> None:
        raise NumericalError("not finite")

    found = measured(args, Stages(act), monkeypatch)
    assert found.value("aiprod_jobs_ended_total", status="failed", reason="not_finite") == 1
    assert found.value("aiprod_job_seconds_count") == 0


def test_what_waits_is_read_from_the_database(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> Page:
        async with working(args, Stages(), monkeypatch) as dispatcher:
            monkeypatch.setattr(dispatcher, "_families_with_room", list)
            for number in range(3):
                ask(dispatcher, number)
            job = dispatcher._storage.jobs.claim("somebody", 60, ["miniature"])
            assert job is not None and dispatcher._storage.jobs.report(Claim.of(job))
            await asyncio.sleep(0.2)
            return await page_of(args, dispatcher)

    found = asyncio.run(run())
    assert found.value("aiprod_queue_jobs", family="miniature", status="queued") == 2
    assert found.value("aiprod_queue_jobs", family="miniature", status="in_progress") == 1
    assert 0.2 <= found.value("aiprod_queue_oldest_wait_seconds", family="miniature") < 60
    assert found.value("aiprod_queue_limit_jobs") == 10_000
    assert found.value("aiprod_stage_jobs", stage="denoiser", state="queued") == 3
    assert (found.value("aiprod_application_running", application="miniature"), found.value("aiprod_dispatchers")) == (1, 1)
    assert found.value("aiprod_application_running", application="api") == 0


def test_a_lease_that_runs_out_is_counted_by_who_finds_it(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> Page:
        async with working(args, Stages(), monkeypatch) as dispatcher:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(dispatcher, "_families_with_room", list)
                video_id = ask(dispatcher, 1)
                assert dispatcher._storage.jobs.claim("gone", 0.0, ["miniature"]) is not None
            await ended(dispatcher, video_id)
            return await page_of(args, dispatcher)

    found = asyncio.run(run())
    assert found.value("aiprod_lease_losses_total", reason="expired") == 1
    assert found.value("aiprod_lease_losses_total", reason="taken") == 0


def test_a_steps_last_word_is_counted_by_the_dispatcher_that_claimed_its_job(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dispatcher is told, also when the job is over."""
    receipt = Receipt("draft", "denoiser", "here", 0.5, 2.0, gpus=4)

    async def run() -> Page:
        async with working(args, Stages(), monkeypatch) as one:
            two = Dispatcher(args)
            for dispatcher in (one, two):
                job = ForJob(Claim("video_1", 1, one._owner), "file:///nowhere", "f", "i", "s", family="miniature")
                report = Report(job, "draft", "denoiser", receipt=receipt, batches={1: 2, 4: 1})
                await dispatcher.report(report)
            return await page_of(args, one, two)

    found = asyncio.run(run())
    assert found.value("aiprod_stage_run_seconds_sum", stage="denoiser") == 2.0
    assert found.value("aiprod_stage_queued_seconds_sum", stage="denoiser") == 0.5
    assert found.value("aiprod_gpu_seconds_total", family="miniature", stage="denoiser") == 8.0
    assert (found.value("aiprod_batch_size_count"), found.value("aiprod_batch_size_sum")) == (3, 6)
    assert found.value("aiprod_dispatchers") == 2


def test_no_series_says_whose_or_what_and_each_is_in_the_table(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(args, Stages(), monkeypatch)
    table = {name: set(metric.labels) for metric in METRICS for name in metric.series}
    for sample in found.samples:
        assert set(sample.labels) - {"dispatcher", "le"} == table[sample.name], sample
    assert not any("red ball" in str(sample) for sample in found.samples)


def test_the_page_is_for_the_operator(make_desk: MakeDesk) -> None:
    desk: Desk = make_desk(keys=True)
    answers = {scope: desk.client(desk.key("a", scope)).get("/metrics") for scope in ("metrics", "read", "write")}
    assert {scope: answer.status_code for scope, answer in answers.items()} == {"metrics": 200, "read": 403, "write": 403}
    assert desk.client().get("/metrics").status_code == 401
    assert desk.client(desk.key("a", "metrics")).get("/v1/videos").status_code == 403
    assert answers["metrics"].headers["content-type"].startswith("text/plain; version=")


def test_without_keys_the_page_is_for_this_machine(make_desk: MakeDesk) -> None:
    desk = make_desk()
    assert desk.client().get("/metrics").status_code == 200
    assert desk.client().get("/metrics", headers={"host": "evil.example"}).status_code == 401


@pytest.mark.parametrize("meanwhile", ["the claims are held", "the job is cancelled"])
def test_an_attempt_whose_end_is_written_is_told_whatever_comes_before_its_answer(
    meanwhile: str, args: ApiArgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> Page:
        async with working(args, Stages(), monkeypatch, lease_seconds=1) as dispatcher:
            written, answered, finish = threading.Event(), threading.Event(), dispatcher._storage.jobs.finish

            def slow(claim: Claim, *rest: Any) -> bool:
                is_written = finish(claim, *rest)
                written.set()
                answered.wait(30)
                return is_written

            monkeypatch.setattr(dispatcher._storage.jobs, "finish", slow)
            video = ask(dispatcher, 1)
            assert await asyncio.to_thread(written.wait, 30)
            if meanwhile == "the claims are held":
                await asyncio.sleep(1.0)  # four times what lies between two heartbeats
                answered.set()
            else:
                asyncio.get_running_loop().call_later(0.2, answered.set)
                assert await dispatcher.cancel(video), "it is still here"
            while dispatcher._tasks:
                await asyncio.sleep(0.01)
            return await page_of(args, dispatcher)

    page = asyncio.run(run())
    assert page.value("aiprod_attempts_total") == page.value("aiprod_attempts_total", outcome="completed") == 1
    assert page.value("aiprod_lease_losses_total") == 0
