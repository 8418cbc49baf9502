"""a job's row -> the spans of the job, of its wait in the queue, and of each attempt at it"""

import time
from collections.abc import Sequence
from typing import Any

from deployments.jobs.records import COMPLETED, FAILED, Claim, Job
from deployments.telemetry import names
from deployments.telemetry.traces import Span, TraceContext, attempt_context, is_recorded, job_context, record

LOST, CANCELLED = "lost", "cancelled"  # of an attempt whose dispatcher stopped, or was told to


def trace_id_of(job: Job) -> str | None:
    context = TraceContext.parse(job.traceparent)
    return None if context is None else context.trace_id


def record_job(job: Job) -> None:
    """Of a job that has ended: from the moment when it was asked for. Cancelled twice, the same span goes out twice."""
    context = job_context(job.traceparent, job.id)
    if context is None or not is_recorded(context) or job.completed_at is None:
        return
    attributes = {
        names.OPERATION: names.GENERATE_CONTENT,
        names.PROVIDER: names.SERVICE,
        names.MODEL: job.family,
        names.OUTPUT_TYPE: names.VIDEO,
        names.SEED: job.record.get("seed"),
        names.RESPONSE_ID: job.id,
        names.FINISH_REASONS: [job.status],
        names.JOB_ID: job.id,
        names.PIPELINE: job.pipeline,
        names.STATUS: job.status,
        names.ATTEMPTS: job.attempt,
        names.COST: job.cost,
        names.WAIT_SECONDS: (job.started_at or job.completed_at) - job.created_at,
    }
    said: dict[str, Any] = {"attributes": attributes, "error": None if job.error is None else job.error["code"]}
    events = () if job.started_at is None else ((names.STARTED, job.started_at),)
    name = names.JOB.format(model=job.family)
    record(Span(name, context, TraceContext.parse(job.traceparent), job.created_at, job.completed_at, events=events, **said))


def record_queue(job: Job) -> None:
    """Of a job that is claimed for the first time: how long it waited."""
    parent = job_context(job.traceparent, job.id)
    if parent is not None and job.attempt == 1 and job.started_at is not None:
        record(Span(names.QUEUE, parent.child("queue"), parent, job.created_at, job.started_at, {names.JOB_ID: job.id}))


def attempt_of(job: Job) -> TraceContext | None:
    return attempt_context(job.traceparent, job.id, job.attempt)


def record_assigning(job: Job, started: float) -> None:
    """From the claim until the job is planned and its uploads are read."""
    if (parent := attempt_of(job)) is not None:
        record(Span(names.ASSIGN, parent.child(), parent, started, time.time(), {names.JOB_ID: job.id}))


def record_attempt(job: Job, started: float, outcome: str, *, kept: Sequence[str] = (), by: str | None = None) -> None:
    """Of an attempt that is over; `kept` are the steps that it found done."""
    context, parent = attempt_of(job), job_context(job.traceparent, job.id)
    if context is None or not is_recorded(context):
        return
    attributes = {
        names.JOB_ID: job.id,
        names.ATTEMPT_NUMBER: job.attempt,
        names.OUTCOME: outcome,
        names.KEPT_STEPS: list(kept),
        names.DISPATCHER: by or job.owner,
    }
    error = None if outcome in (COMPLETED, CANCELLED) else outcome
    record(Span(names.ATTEMPT, context, parent, started, time.time(), attributes, error=error))


def record_reaped(job: Job) -> None:
    """Of an attempt whose dispatcher is gone, told by who found out: it began with the first claim at the earliest."""
    record_attempt(job, job.started_at or job.created_at, LOST, by="reaper")
    if job.status == FAILED:
        record_job(job)


def claim_fields(claim: Claim, traceparent: str | None) -> dict[str, str]:
    """What log lines say of an attempt."""
    context = TraceContext.parse(traceparent)
    return {"job": claim.id, "attempt": str(claim.attempt)} | ({} if context is None else {"trace_id": context.trace_id})
