"""what a dispatcher does and is told -> its figures, and the spans of jobs and attempts"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric as Family

from deployments.jobs.records import CANCELLED, COMPLETED, FAILED, FINAL, Job
from deployments.orders import Report
from deployments.telemetry import jobs, metrics
from deployments.telemetry.metrics import Tally

PUT_BACK, LOST = "put_back", "lost"


class Account:
    """One dispatcher's."""

    def __init__(self, owner: str) -> None:
        self.tally, self._owner = Tally(), owner

    def figures(self) -> list[Family]:
        return self.tally.collect(self._owner)

    def claimed(self, job: Job) -> None:
        jobs.record_queue(job)
        if job.attempt == 1 and job.started_at is not None:
            self.tally.observe(metrics.WAIT_SECONDS, job.started_at - job.created_at, family=job.family)

    def reported(self, report: Report) -> None:
        """A stage's last word on a step is counted, once: by the dispatcher that claimed the job, also when the job is over."""
        receipt = report.receipt
        if receipt is None or report.job.claim.owner != self._owner:
            return
        whose = {"family": report.job.family, "stage": report.stage}
        self.tally.observe(metrics.STAGE_SECONDS, receipt.run_seconds, **whose)
        self.tally.observe(metrics.STAGE_WAIT, receipt.queued_seconds, **whose)
        self.tally.add(metrics.GPU_SECONDS, receipt.run_seconds * receipt.gpus, **whose)
        for size, times in report.batches.items():
            for _ in range(times):
                self.tally.observe(metrics.BATCH_SIZE, size, **whose)
        self.tally.add(metrics.STORED_BYTES, report.kept_bytes, family=report.job.family, kind="step")
        if report.published is not None:
            published = sum(size for _, size in report.published.files.values())
            self.tally.add(metrics.STORED_BYTES, published, family=report.job.family, kind="video")

    def over(self, job: Job, now: Job | None, began: float, *, stages: Sequence[Mapping[str, Any]], is_lost: bool) -> None:
        """An attempt at `job` is over, and `now` is what the row says (None: it is gone); `is_lost`: somebody else has the claim."""
        outcome = _outcome(job, now, is_lost=is_lost)
        hits = [line for line in stages if line["cache_hit"] and line["attempt"] == job.attempt]
        jobs.record_attempt(job, began, outcome, kept=[line["step"] for line in hits])
        self.tally.add(metrics.ATTEMPTS, family=job.family, outcome=outcome)
        if outcome == LOST:
            self.tally.add(metrics.LEASE_LOSSES, reason="taken")
        for line in hits:
            self.tally.add(metrics.CACHE_HITS, family=job.family, stage=line["stage"])
        if outcome in FINAL:
            self._ended(now or job, outcome)

    def reaped(self, found: Iterable[Job]) -> None:
        """Jobs whose lease had expired."""
        for job in found:
            self.tally.add(metrics.LEASE_LOSSES, reason="expired")
            jobs.record_reaped(job)
            if job.status == FAILED:
                self._count(job, FAILED)

    def delivered(self, result: str) -> None:
        self.tally.add(metrics.DELIVERIES, result=result)

    def _ended(self, job: Job, status: str) -> None:
        self._count(job, status)
        if status != CANCELLED:  # whoever cancels a job writes its span
            jobs.record_job(job)
        if status == COMPLETED:
            seconds = (job.completed_at or time.time()) - job.created_at
            self.tally.observe(metrics.JOB_SECONDS, seconds, family=job.family, pipeline=job.pipeline)

    def _count(self, job: Job, status: str) -> None:
        reason = "" if job.error is None else job.error["code"]
        self.tally.add(metrics.JOBS_ENDED, family=job.family, pipeline=job.pipeline, status=status, reason=reason)


def _outcome(job: Job, now: Job | None, *, is_lost: bool) -> str:
    if now is None or (now.status == CANCELLED and now.attempt == job.attempt):
        return CANCELLED
    if now.attempt == job.attempt and now.status == COMPLETED:
        return COMPLETED  # nobody else completes this attempt, though the answer to who wrote it may have been lost
    if is_lost or now.attempt != job.attempt:
        return LOST
    return now.status if now.status in FINAL else PUT_BACK
