"""what happens to a job's step -> messages to the dispatcher, which nobody waits for; its "no" ends the work"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from aiprod_components.media.previews import encode_preview
from deployments.artifacts import preview_key
from deployments.envelope import Receipt
from deployments.orders import ForJob, Report
from deployments.settings import API, DISPATCHER

log = logging.getLogger("ray.serve")

ANSWER_SECONDS = 10.0  # for the dispatchers to take a message; one that is stopped must not keep the others' answers
Write = Callable[[str, str, bytes], None]  # to an artifact store, under a key, some time later


class Reporters:
    """Makes the reporters of one replica, which share their way to the dispatcher."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._dispatcher: DeploymentHandle | None = None

    async def of(self, job: ForJob, *, step: str, write: Write) -> "JobReporter":
        if self._dispatcher is None:
            # Asks the controller, so not in the loop.
            self._dispatcher = await asyncio.to_thread(serve.get_deployment_handle, DISPATCHER, app_name=API)
        return JobReporter(job, step=step, stage=self._stage, write=write, dispatcher=self._dispatcher)


class JobReporter:
    """Of one step of one job. What it is told in the worker's thread it sends from the event loop in which it was made."""

    def __init__(self, job: ForJob, *, step: str, stage: str, write: Write, dispatcher: DeploymentHandle) -> None:
        self._job, self._step, self._stage, self._write, self._dispatcher = job, step, stage, write, dispatcher
        self._loop = asyncio.get_running_loop()
        self._previews = 0
        self._refused: Callable[[], None] = lambda: None
        self._sending: set[asyncio.Task[None]] = set()

    def on_refusal(self, act: Callable[[], None]) -> None:
        """What to do when the job is not this attempt's any more."""
        self._refused = act

    def begin(self) -> None:
        self._send()

    def tell(self, done: int, total: int) -> None:
        self._send(done=done, total=total)

    def show(self, frames: Any) -> None:
        """Puts a moving picture of what is coming where clients find it."""
        claim = self._job.claim
        self._write(self._job.artifacts, preview_key(claim.id, claim.attempt), encode_preview(frames))
        self._previews += 1

    def end(self, receipt: Receipt, **more: Any) -> None:
        """What more a Report has of a step that has ended."""
        self._send(receipt=receipt, **more)

    def _send(self, **what: Any) -> None:
        report = Report(self._job, self._step, self._stage, previews=self._previews, **what)
        self._loop.call_soon_threadsafe(self._start, report)

    def _start(self, report: Report) -> None:
        task = self._loop.create_task(self._deliver(report))
        self._sending.add(task)  # else nobody holds it
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, report: Report) -> None:
        try:
            # To all of them: one works on the job, and each of the others knows whether anybody may.
            answers = await self._dispatcher.broadcast("report", report).results_async(timeout_s=ANSWER_SECONDS)
            if False in answers:
                self._refused()
        except (RayError, RayServeException, TimeoutError) as error:
            # The next one tells as much; whoever claims the job again asks the artifact store besides.
            log.info("a report of %s was lost: %s", report.step, type(error).__name__)
