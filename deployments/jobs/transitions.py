"""queued -> in_progress -> completed | failed | cancelled: what may follow what, each as one fenced UPDATE

    claim ──► in_progress ──► finish, fail, cancel
      ▲           │
      └─ release, retry, reap

Whoever holds a job says so by its claim. A row that has another attempt, owner or status no longer belongs to that claim, the UPDATE
finds nothing, and the late one learns it from the answer.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, tuple_, update
from sqlalchemy.sql.dml import ReturningUpdate

from deployments.jobs.analytics import note_ended
from deployments.jobs.clock import Clock
from deployments.jobs.outbox import announce
from deployments.jobs.records import CANCELLED, COMPLETED, FAILED, IN_PROGRESS, LIVE, QUEUED, Claim, Job
from deployments.jobs.tables import is_claimed, jobs

JOB = [jobs.c[field.name] for field in fields(Job)]
# A job that waits again keeps the receipts of what is done, which a later attempt need not do again.
WAITING: dict[str, Any] = {"status": QUEUED, "owner": None, "lease_until": None, "begun": False, "progress": {}}


def held(claim: Claim) -> ColumnElement[bool]:
    """The fence."""
    return and_(jobs.c.id == claim.id, jobs.c.attempt == claim.attempt, jobs.c.owner == claim.owner, jobs.c.status == IN_PROGRESS)


def change(where: ColumnElement[bool], values: dict[str, Any]) -> ReturningUpdate[Any]:
    """An update that watchers notice."""
    return update(jobs).where(where).values(version=jobs.c.version + 1, **values).returning(*JOB)


def apply(connection: Connection, statement: ReturningUpdate[Any]) -> list[Job]:
    """The jobs as they now are."""
    return [Job(**row) for row in connection.execute(statement).mappings()]


def end(connection: Connection, where: ColumnElement[bool], values: dict[str, Any]) -> list[Job]:
    """Ends jobs and writes what follows from it, or neither."""
    ended = apply(connection, change(where, {"completed_at": Clock(), "lease_until": None, **values}))
    conclude(connection, ended)
    return ended


def conclude(connection: Connection, ended: Sequence[Job]) -> None:
    """What follows from the end of jobs, in its transaction: the events that say so, and what is counted of them."""
    announce(connection, ended)
    note_ended(connection, ended)


def completion(output: dict[str, Any], stages: list[dict[str, Any]], retention_seconds: float | None) -> dict[str, Any]:
    """Without a retention the video stays until somebody deletes it."""
    expires_at = None if retention_seconds is None else Clock() + retention_seconds
    return {"status": COMPLETED, "output": output, "stages": stages, "expires_at": expires_at}


def failure(error: dict[str, Any], kept_seconds: float) -> dict[str, Any]:
    return {"status": FAILED, "error": error, "expires_at": Clock() + kept_seconds}


def heartbeat(connection: Connection, claims: Sequence[Claim], *, lease_seconds: float) -> set[Claim]:
    """Renews the leases of those that still hold. One that expired holds as long as nobody took the job back."""
    fence = tuple_(jobs.c.id, jobs.c.attempt, jobs.c.owner).in_([(claim.id, claim.attempt, claim.owner) for claim in claims])
    where = and_(jobs.c.id.in_([claim.id for claim in claims]), fence, jobs.c.status == IN_PROGRESS)  # the ids for the index
    renewed = update(jobs).where(where).values(lease_until=Clock() + lease_seconds).returning(jobs.c.id, jobs.c.attempt, jobs.c.owner)
    return {Claim(**row) for row in connection.execute(renewed).mappings()}


def give_back(connection: Connection, where: ColumnElement[bool], *, delay: float) -> list[Job]:
    """Returns jobs whose worker is lost to the queue."""
    return apply(connection, change(where, {**WAITING, "lost": jobs.c.lost + 1, "not_before": Clock() + delay}))


def retry(
    connection: Connection, claim: Claim, error: dict[str, Any], *, max_attempts: int, delay: float, kept_seconds: float
) -> list[Job]:
    """Back to the queue, or failed when `max_attempts` workers are lost."""
    used_up = jobs.c.lost + 1 >= max_attempts
    failed = end(connection, and_(held(claim), used_up), {**failure(error, kept_seconds), "lost": jobs.c.lost + 1})
    return failed or give_back(connection, held(claim), delay=delay)


def reap(connection: Connection, *, max_attempts: int, kept_seconds: float) -> list[Job]:
    """What became of the jobs whose lease has expired. A row that somebody renews or ends just now is left to them."""
    expired = select(jobs.c.id).where(is_claimed, jobs.c.lease_until < Clock()).with_for_update(skip_locked=True)
    ids = list(connection.scalars(expired))
    if not ids:
        return []
    lost = jobs.c.id.in_(ids)
    error = {"code": "worker_lost", "message": f"{max_attempts} workers in turn stopped while they made this video; try it once more"}
    used_up = and_(lost, jobs.c.lost + 1 >= max_attempts)
    failed = end(connection, used_up, {**failure(error, kept_seconds), "lost": jobs.c.lost + 1})
    return failed + give_back(connection, and_(lost, is_claimed), delay=0.0)


def cancel(connection: Connection, where: ColumnElement[bool], *, kept_seconds: float) -> list[Job]:
    """Whether it waits or is at work: who works at it learns so from its next heartbeat."""
    return end(connection, and_(where, jobs.c.status.in_(LIVE)), {"status": CANCELLED, "expires_at": Clock() + kept_seconds})
