"""jobs on a dispatcher in this process -> their spans at a collector; without one, or with one that is down, the jobs alone"""

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from aiprod_client.server import free_port
from aiprod_components.errors import WeightsChangedError
from deployments import dispatcher as module
from deployments.jobs.records import COMPLETED, Job
from deployments.orders import Order
from deployments.settings import ApiArgs
from deployments.telemetry import exporting, names
from deployments.telemetry.exporting import exporter, flush
from deployments.telemetry.traces import Span, TraceContext, record
from tests.collector import Collector, Received
from tests.deployments.stages_here import Stages, ask, ended, working

pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine 'Dispatcher.__del__':RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
CONTEXT = TraceContext.new(sampled=True)
WHOLE = "generate_content miniature"


@pytest.fixture
def args(tmp_path: Path) -> ApiArgs:
    return ApiArgs.model_validate({"families": [{"name": "miniature"}], "data": str(tmp_path)})


def made(args: ApiArgs, stages: Stages, monkeypatch: pytest.MonkeyPatch, *, trace: TraceContext = CONTEXT) -> Job:
    """A job that was asked for in this trace, once it is over."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.1)

    async def run() -> Job:
        async with working(args, stages, monkeypatch) as dispatcher:
            return await ended(dispatcher, ask(dispatcher, 1, traceparent=str(trace)))

    return asyncio.run(run())


def named(spans: list[Received], name: str) -> list[Received]:
    return [span for span in spans if span.name == name]


def test_a_job_that_is_tried_twice_is_one_trace(args: ApiArgs, here: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [WeightsChangedError("other weights")]

    async def act(order: Order, stop: asyncio.Event) -> None:
        if order.step == "doubled" and failures:
            raise failures.pop()

    job = made(args, Stages(act), monkeypatch)
    spans = here.wait(CONTEXT.trace_id, lambda spans: len(named(spans, "attempt")) == 2 and bool(named(spans, WHOLE)))
    (whole,) = named(spans, WHOLE)
    attempts = sorted(named(spans, "attempt"), key=lambda span: span.attributes[names.ATTEMPT_NUMBER])
    assert [span.attributes[names.OUTCOME] for span in attempts] == ["put_back", "completed"]
    assert attempts[1].attributes[names.KEPT_STEPS] == ["prompt", "draft"]
    assert {span.parent_id for span in attempts} == {whole.span_id} and whole.parent_id == CONTEXT.span_id
    assert (whole.attributes[names.ATTEMPTS], whole.attributes[names.STATUS], whole.failed) == (2, COMPLETED, False)
    assert whole.start == pytest.approx(job.created_at, abs=1e-3) and whole.events == [names.STARTED]
    assert len(named(spans, "queue")) == 1


def test_an_attempt_whose_dispatcher_is_gone_is_told_by_who_finds_out(
    args: ApiArgs, here: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row alone is left of the first: a claim that nobody renews."""

    async def run() -> None:
        async with working(args, Stages(), monkeypatch) as dispatcher:
            # While it has no room, another one takes the job and is never heard of again.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(dispatcher, "_families_with_room", list)
                video_id = ask(dispatcher, 1, traceparent=str(CONTEXT))
                assert dispatcher._storage.jobs.claim("gone", 0.0, ["miniature"]) is not None
            assert (await ended(dispatcher, video_id)).attempt == 2

    asyncio.run(run())
    spans = here.wait(CONTEXT.trace_id, lambda spans: len(named(spans, "attempt")) == 2)
    outcomes = {span.attributes[names.ATTEMPT_NUMBER]: span.attributes[names.OUTCOME] for span in named(spans, "attempt")}
    assert outcomes == {1: "lost", 2: "completed"}


@pytest.mark.parametrize(("variable", "value"), [("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "ten"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999")])
def test_a_variable_that_the_sdk_does_not_take_stops_traces_and_nothing_else(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    assert exporting._made.__wrapped__() is None
    (said,) = [record.getMessage() for record in caplog.records]
    assert variable in said and "unset" in said


@pytest.mark.usefixtures("nowhere")
def test_without_a_collector_nothing_is_sent_and_the_sdk_is_not_even_there() -> None:
    code = (
        "import sys; from deployments.telemetry.traces import *; "
        "record(Span('a', TraceContext.new(sampled=True), None, 0.0, 1.0)); print('opentelemetry' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.usefixtures("nowhere")
def test_a_span_that_nobody_wants_costs_some_microseconds() -> None:
    span = Span("a", CONTEXT, None, 0.0, 1.0)
    start = time.perf_counter()
    for _ in range(10_000):
        record(span)
    assert time.perf_counter() - start < 1.0


@pytest.mark.usefixtures("nowhere")
def test_a_collector_that_is_down_delays_no_job(args: ApiArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    start = time.monotonic()
    for _ in range(20_000):  # ten times what the queue holds
        record(Span("a", CONTEXT, None, 0.0, 1.0))
    assert time.monotonic() - start < 15
    assert made(args, Stages(), monkeypatch).status == COMPLETED
    start = time.monotonic()
    flush()
    assert time.monotonic() - start < 5, "a process that ends waits no longer than it may"


def test_what_is_not_sampled_is_sent_to_nobody(args: ApiArgs, here: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(args, Stages(), monkeypatch, trace=replace(CONTEXT, sampled=False)).status == COMPLETED
    flush()
    assert here.spans == []


def test_the_sdks_own_settings_say_which_new_traces_are_sampled(here: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    exporting._made.cache_clear()
    to = exporter()
    assert to is not None
    assert not to.samples(CONTEXT.trace_id, None, "POST") and to.samples(CONTEXT.trace_id, CONTEXT, "POST")
