"""order + sealed inputs -> one worker thread -> sealed result, kept for the job: the one adapter between a Stage and Ray Serve

The event loop only waits, so health checks and cancellations are answered while the stage computes in its thread.
"""

import asyncio
import contextvars
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from ray import serve
from ray.exceptions import RayError
from ray.serve.context import ReplicaContext
from ray.serve.exceptions import RayServeException

from aiprod_components.errors import CancelledError, UnavailableError, WeightsChangedError
from aiprod_components.families.base import Family
from aiprod_components.local import best_device
from aiprod_components.plan import fill
from aiprod_components.stages.base import SharedStage
from aiprod_components.values import Video
from deployments.engine import Watched, run_call
from deployments.envelope import Receipt, Sealed, merge_receipts
from deployments.finishing import to_the_end
from deployments.keeping import KeptStep
from deployments.orders import ForJob, Order, Publish, Published
from deployments.publishing import publish
from deployments.ranks import ranks_here
from deployments.reporting import JobReporter, Reporters
from deployments.settings import FamilyArgs, StageConfig
from deployments.shelf import Shelf
from deployments.swapping import Swapper
from deployments.telemetry.exporting import flush
from deployments.telemetry.jobs import claim_fields
from deployments.telemetry.logs import saying
from deployments.telemetry.names import FETCH, PUBLISH, RUN
from deployments.telemetry.starting import start
from deployments.telemetry.steps import StepSpans
from deployments.weights import Told, tell_weights

log = logging.getLogger("ray.serve")


class StageReplica:
    """One replica of one stage of one family; its weights are loaded before it is ready, and exchanged between two calls."""

    def __init__(self, family: FamilyArgs, stage: str) -> None:
        start()
        self._name, self._replica = stage, _replica_id()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=stage)
        # Built where it runs: a second thread that computes slows every operation of the first (docs/decisions.md, 25).
        device, ranks = best_device(), ranks_here()
        self._gpus = 0 if device.type == "cpu" else 1 if ranks is None else ranks.count
        self._swapper = Swapper(family.make(), stage, device=device, ranks=ranks)
        configured = _configured()
        weights = (configured or StageConfig()).weights  # so that the family's are not loaded first
        prepared = self._swapper.prepare(weights)
        loaded = self._thread.submit(self._swapper.take, prepared, weights)
        _ = prepared.fingerprint  # which takes as long
        loaded.result()
        self._shelf, self._reporters = Shelf(), Reporters(stage)
        self._steps, self._is_configured = 0, configured is None  # then nobody calls `reconfigure` before it serves
        self._failure: str | None = None
        self._tell(weights)

    async def run(self, order: Order, /, **inputs: Sealed | KeptStep) -> Sealed:
        """Answers a call whose inputs are keyed by their steps. Cancelled, it returns only when the thread is free again."""
        reporter = None if order.job is None else await self._reporter(order.job, step=order.step)
        progress = Watched(None if reporter is None else reporter.tell, count=self._count)
        if reporter is not None:
            reporter.on_refusal(progress.stop)
        with saying(step=order.step, **({} if order.job is None else claim_fields(order.job.claim, order.job.traceparent))):
            context = contextvars.copy_context()  # else Serve's own trace ends here, and log lines are nobody's
        work = self._thread.submit(context.run, self._traced, order, inputs, progress, reporter)
        return await to_the_end(work, stop=progress.stop)

    def _traced(self, order: Order, inputs: Mapping[str, Sealed | KeptStep], progress: Watched, reporter: JobReporter | None) -> Sealed:
        job = order.job
        self._check_weights(job)
        whose = (None, "") if job is None else (job.traceparent, job.claim.id)
        with StepSpans(*whose, step=order.step, stage=self._name, replica=self._replica) as spans:
            spans.marks = progress.marks
            try:
                return self._work(order, inputs, progress, reporter, spans)
            except Exception as error:
                if not isinstance(error, CancelledError):  # by its kind alone: what it says may quote the request
                    log.warning("step %s ended with %s", order.step, type(error).__name__)
                raise

    def _check_weights(self, job: ForJob | None) -> None:
        """Here, in the thread that exchanges them: what was true when a call came may not be so when its turn has come."""
        if job is not None and job.fingerprint != (mine := self._swapper.fingerprint):
            raise WeightsChangedError(
                f"stage {self._name} has other weights or code than the job was planned for; it is planned anew",
                stage=self._name,
                fingerprint=mine,
            )

    def _work(
        self,
        order: Order,
        inputs: Mapping[str, Sealed | KeptStep],
        progress: Watched,
        reporter: JobReporter | None,
        spans: StepSpans,
    ) -> Sealed:
        try:
            if reporter is not None:
                reporter.begin()
            queued = time.time() - max([order.sent_at, *(source.sealed_at for source in inputs.values() if isinstance(source, Sealed))])
            started = time.perf_counter()
            spans.begin(queued=max(queued, 0.0), work=order.call.work(self._swapper.family.grid) if spans.are_wanted else None)
            with spans.phase(FETCH):
                opened = {name: self._shelf.fetch(source, order.job) for name, source in inputs.items()}
                call = fill(order.call, {name: sealed.open() for name, sealed in opened.items()})
            with spans.phase(RUN):
                value = run_call(self._swapper.stage, call, progress, show=lambda frames: reporter and reporter.show(frames))
            if order.job is not None and order.job.publish is not None and isinstance(value, Video):
                with spans.phase(PUBLISH):
                    value = self._publish(value, order.job.artifacts, order.job.publish)
        except torch.AcceleratorError as error:
            # The device context is lost for this process: only a new replica can go on.
            self._failure = f"{type(error).__name__} in step {order.step}"
            raise UnavailableError(f"stage {self._name} lost its device; it is being restarted, try again") from error
        ran = time.perf_counter() - started
        # Two machines' clocks differ by more than an idle queue takes.
        receipt = Receipt(order.step, self._name, self._replica, max(queued, 0.0), ran, self._gpus)
        sealed = Sealed.of(value, receipts=(*merge_receipts(opened.values()), receipt))
        if order.job is not None and reporter is not None:
            published = value if isinstance(value, Published) else None
            more: dict[str, Any] = {"published": published, "batches": dict(progress.batches)}
            self._shelf.keep(sealed, order.job, then=lambda size: reporter.end(receipt, kept_bytes=size, **more))
        return sealed

    async def _reporter(self, job: ForJob, *, step: str) -> JobReporter:
        return await self._reporters.of(job, step=step, write=self._shelf.put_later)

    def _publish(self, video: Video, artifacts: str, to: Publish) -> Any:
        return publish(video, store=self._shelf.store(artifacts), to=to)

    def _count(self) -> None:
        self._steps += 1

    async def fingerprint(self) -> str:
        """Of its family's weights and code, whether or not this stage has weights of its own."""
        return self._swapper.family.fingerprint

    async def steps(self) -> int:
        """Taken since the start."""
        return self._steps

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """What cannot be done a new replica raises; one that serves already goes on as it is, and says so."""
        weights = user_config.get("weights")
        try:
            await self._configure(StageConfig.model_validate(user_config))
        except Exception as error:
            if not self._is_configured:
                raise
            log.error("stage %s goes on with the weights that it has: %s", self._name, error)
            await asyncio.to_thread(self._tell, weights, str(error))
        else:
            self._is_configured = True
            await asyncio.to_thread(self._tell, weights)

    async def _configure(self, config: StageConfig) -> None:
        """All of it or nothing."""
        began, weights = time.perf_counter(), config.weights
        if weights != self._swapper.weights:
            family = await asyncio.to_thread(self._prepare, weights)
            # Behind the calls that are here already.
            await asyncio.wrap_future(self._thread.submit(self._swapper.take, family, weights))
            log.info("stage %s serves %s after %.1f s", self._name, weights or "the family's weights", time.perf_counter() - began)
        # Each thread has its own count: it must be set in the one that runs the stage.
        await asyncio.wrap_future(self._thread.submit(torch.set_num_threads, config.threads))

    def _prepare(self, weights: str | None) -> Family:
        family = self._swapper.prepare(weights)
        _ = family.fingerprint  # reads all of the files, which the stage's thread need not wait for
        return family

    def _tell(self, asked: Any, fault: str | None = None) -> None:
        """Whoever plans jobs for this stage, and its operator."""
        if _replica_context() is None:
            return
        swapper, shown = self._swapper, fault
        if fault is not None and isinstance(asked, str):  # clients need not know where on the server the folder is
            shown = fault.replace(str(Path(asked)), Path(asked).name)
        told = Told(swapper.family.fingerprint, swapper.fingerprint, asked, shown, time.time())
        try:
            tell_weights(swapper.family.name, self._name, told)
        except RayError as error:  # it is learned when a call is refused
            log.warning("stage %s could not tell which weights it has: %s", self._name, error)

    async def check_health(self) -> None:
        stage = self._swapper.stage
        failure = self._failure or self._swapper.failure or (stage.failure if isinstance(stage, SharedStage) else None)
        if failure is not None:
            raise RuntimeError(f"stage {self._name} is broken: {failure}")

    def __del__(self) -> None:
        """What Serve calls at the end of a replica: other processes that have a part in the stage end as well."""
        if (swapper := getattr(self, "_swapper", None)) is not None:
            swapper.close()
        flush()


def _replica_context() -> ReplicaContext | None:
    """None where a replica is built by hand, in a test or a notebook."""
    try:
        return serve.get_replica_context()
    except RayServeException:
        return None


def _configured() -> StageConfig | None:
    """What Serve will give to `reconfigure` when the replica has been made, None where nothing. Serve shows it to nobody else."""
    if (context := _replica_context()) is None:
        return StageConfig()
    said = context._deployment_config.user_config  # pyright: ignore[reportPrivateUsage]
    return None if said is None else StageConfig.model_validate(said)


def _replica_id() -> str:
    context = _replica_context()
    return f"process-{os.getpid()}" if context is None else context.replica_id.unique_id
