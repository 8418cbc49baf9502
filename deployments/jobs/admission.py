"""a new job -> the queue's lock -> the same job if it is known by its key, an error if there is no room, else a row

All who enter wait for each other on one row, so that counts are exact, a key is used once and no job is older than one that a client
has listed already.
"""

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, func, insert, literal_column, select, update

from aiprod_components.errors import IdempotencyError, QueueFullError, QuotaError
from deployments.jobs.clock import Clock
from deployments.jobs.database import upsert
from deployments.jobs.records import QUEUED, Job, NewJob, QueueLimits
from deployments.jobs.tables import fairness, is_queued, jobs, spending
from deployments.jobs.tenants import allowance
from deployments.jobs.transitions import JOB

HOURS = 24  # of a quota
QUOTA_RETRY_SECONDS = 120  # as long as any client is told to wait: it takes hours
TICK = 1e-6  # seconds: two jobs are never created at the same time
AT_FIRST: dict[str, Any] = {"status": QUEUED, "attempt": 0, "lost": 0, "begun": False, "progress": {}, "stages": [], "version": 1}


def admit(connection: Connection, job: NewJob, *, limits: QueueLimits) -> tuple[Job, bool]:
    """The job, and whether it was there already. Raises IdempotencyError, QueueFullError or QuotaError."""
    created_at = _enter(connection)
    if job.idempotency_key is not None and (known := known_by(connection, job.tenant, job.idempotency_key, job.body_hash)) is not None:
        return known, True
    allowed = allowance(connection, job.tenant, limits=limits)
    _check_room(connection, job.tenant, max_queued=allowed.max_queued, max_queued_of_all=limits.max_queued_of_all)
    _spend(connection, job, hour=_hour(created_at), max_cost=allowed.max_cost_per_day)
    rank = created_at - job.priority * limits.seconds_per_priority
    values = asdict(job) | AT_FIRST | {"created_at": created_at, "not_before": created_at, "rank": rank}
    return Job(**connection.execute(insert(jobs).values(values).returning(*JOB)).mappings().one()), False


def refund(connection: Connection, job: Job) -> None:
    """Gives back what a job that ended without an attempt would have cost."""
    if job.attempt == 0:
        spent = (spending.c.tenant == job.tenant, spending.c.hour == _hour(job.created_at))
        connection.execute(update(spending).where(*spent).values(cost=spending.c.cost - job.cost))


def _enter(connection: Connection) -> float:
    """Takes the queue's lock and tells the time, which is later than that of every job before."""
    after = fairness.c.last_created_at + TICK
    tick = update(fairness).values(last_created_at=case((Clock() > after, Clock()), else_=after))
    return connection.execute(tick.returning(fairness.c.last_created_at)).scalar_one()


def known_by(connection: Connection, tenant: str, key: str, body_hash: str | None) -> Job | None:
    """The job of this key. Raises IdempotencyError when it is of another body."""
    same = select(*JOB).where(jobs.c.tenant == tenant, jobs.c.idempotency_key == key)
    if (row := connection.execute(same).mappings().one_or_none()) is None:
        return None
    if row["body_hash"] != body_hash:
        raise IdempotencyError(
            f"idempotency key {key!r} was used before, for another body; send that body again, or take a new key",
            field="idempotency-key",
        )
    return Job(**row)


def _check_room(connection: Connection, tenant: str, *, max_queued: int, max_queued_of_all: int) -> None:
    if _are_queued(connection, max_queued, jobs.c.tenant == tenant):
        raise QueueFullError(f"{max_queued} of your videos are waiting, and no more may; try again when one has started, or cancel one")
    if _are_queued(connection, max_queued_of_all):
        raise QueueFullError(f"{max_queued_of_all} videos are waiting, and no more may; try again when some have started")


def _are_queued(connection: Connection, number: int, *where: ColumnElement[bool]) -> bool:
    """Whether so many jobs are; counts no further."""
    nth = select(literal_column("1")).where(is_queued, *where).offset(number - 1).limit(1)
    return number < 1 or connection.scalar(nth) is not None


def _spend(connection: Connection, job: NewJob, *, hour: int, max_cost: float) -> None:
    connection.execute(delete(spending).where(spending.c.tenant == job.tenant, spending.c.hour <= hour - HOURS))
    spent = connection.scalar(select(func.sum(spending.c.cost)).where(spending.c.tenant == job.tenant)) or 0.0
    if spent + job.cost > max_cost:
        raise QuotaError(
            f"your videos of the last {HOURS} hours cost {spent:g} and this one would cost {job.cost:g}, beyond your {max_cost:g}; "
            "try again in some hours, or ask for fewer frames, fewer steps or a smaller size",
            retry_after=QUOTA_RETRY_SECONDS,
        )
    values = {"tenant": job.tenant, "hour": hour, "cost": job.cost}
    upsert(connection, spending, values, change={"cost": spending.c.cost + job.cost})


def _hour(time: float) -> int:
    return int(time // 3600)
