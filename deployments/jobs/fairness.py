"""backlogs of tenants -> whose turn it is -> its next job, claimed

Start-time fair queueing (Goyal, Vin and Cheng, 1997), with tags drawn at the claim: a tenant's start tag is the virtual time, or where it
was served of late the finish tag of its last job, whichever is later. The least start tag is served; it becomes the virtual time, and the
tenant's finish tag is the start tag + cost / weight. So tenants share by cost and weight, whoever comes anew is next, and nobody saves up
turns by staying away. Within a tenant jobs go by rank: a priority is a head start in seconds, which waiting outweighs.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    and_,
    case,
    func,
    literal,
    literal_column,
    select,
    true,
    union_all,
    update,
)

from deployments.jobs.clock import Clock
from deployments.jobs.database import upsert
from deployments.jobs.records import IN_PROGRESS, Job, QueueLimits
from deployments.jobs.tables import fairness, is_claimed, is_queued, jobs, tenants
from deployments.jobs.transitions import apply, change


def claim_next(connection: Connection, owner: str, *, lease_seconds: float, families: Collection[str], limits: QueueLimits) -> Job | None:
    """The next job of these families, held by `owner` for so long; None when nothing waits that may run."""
    virtual_time = connection.scalars(select(fairness.c.virtual_time).with_for_update()).one()
    for turn in connection.execute(_turns(sorted(set(families)), virtual_time=virtual_time, limits=limits)).all():
        # Passed over when somebody cancels it at this moment.
        where = _waiting(turn.tenant, turn.family)
        first = select(jobs.c.id).where(where).order_by(jobs.c.rank, jobs.c.id).limit(1).with_for_update(skip_locked=True)
        for job in apply(connection, change(jobs.c.id == first.scalar_subquery(), _claimed(owner, lease_seconds))):
            if job.attempt == 1:  # a worker that was lost is not the tenant's fault
                _charge(connection, job, start=turn.start, weight=turn.weight)
            return job
    _forgive(connection, virtual_time)
    return None


def queue_positions(connection: Connection, ids: Sequence[str], *, limits: QueueLimits) -> dict[str, int]:
    """Of those that wait, how many claims until their own if nothing else comes: it reads the whole queue."""
    charged = case((jobs.c.attempt == 0, jobs.c.cost), else_=0.0)
    before = func.sum(charged).over(partition_by=jobs.c.tenant, order_by=(jobs.c.rank, jobs.c.id), rows=(None, -1))
    start = _later(fairness.c.virtual_time, func.coalesce(tenants.c.finish_tag, 0.0)) + func.coalesce(before, 0.0) / _weight(limits)
    queue = jobs.outerjoin(tenants, tenants.c.tenant == jobs.c.tenant).join(fairness, true())
    waiting = select(jobs.c.id, jobs.c.tenant, jobs.c.rank, start.label("start")).select_from(queue).where(is_queued).cte()
    order = (waiting.c.start, waiting.c.rank, waiting.c.tenant, waiting.c.id)
    line = select(waiting.c.id, func.row_number().over(order_by=order).label("position")).cte()
    asked = select(line.c.id, line.c.position).where(line.c.id.in_(ids))
    return {row.id: row.position for row in connection.execute(asked)}


def _turns(families: Sequence[str], *, virtual_time: float, limits: QueueLimits) -> Select[str, str, float, float]:
    """Tenants with a job that may run, whose turn it is first; one row for each of their families. It reads no backlog through."""
    backlogged, wanted = _backlogged_tenants(), union_all(*(select(literal(family).label("family")) for family in families)).cte("wanted")
    rank = select(jobs.c.rank).where(_waiting(backlogged.c.tenant, wanted.c.family)).order_by(jobs.c.rank, jobs.c.id).limit(1)
    heads = (
        select(backlogged.c.tenant, wanted.c.family, rank.correlate(backlogged, wanted).scalar_subquery().label("rank"))
        .select_from(backlogged.join(wanted, true()))
        .where(backlogged.c.tenant.is_not(None))
        .cte("heads")
    )
    start = _later(literal(virtual_time), func.coalesce(tenants.c.finish_tag, 0.0)).label("start")
    return (
        select(heads.c.tenant, heads.c.family, start, _weight(limits).label("weight"))
        .select_from(heads.outerjoin(tenants, tenants.c.tenant == heads.c.tenant))
        .where(heads.c.rank.is_not(None), _running(heads.c.tenant) < func.coalesce(tenants.c.max_running, limits.max_running))
        .order_by(start, heads.c.rank, heads.c.tenant)
    )


def _backlogged_tenants() -> CTE:
    """One step of an index for each, however many jobs they have; ends with a null."""
    # In the whole order of that index: another one that begins with the tenant would hold all that has ended.
    order = (jobs.c.tenant, jobs.c.family, jobs.c.rank, jobs.c.id)
    in_order = select(jobs.c.tenant).where(is_queued).order_by(*order).limit(1)
    backlogged = select(in_order.scalar_subquery().label("tenant")).cte("backlogged", recursive=True)
    following = in_order.where(jobs.c.tenant > backlogged.c.tenant).correlate(backlogged).scalar_subquery()
    return backlogged.union_all(select(following).where(backlogged.c.tenant.is_not(None)))


def _waiting(tenant: Any, family: Any) -> ColumnElement[bool]:
    return and_(is_queued, jobs.c.tenant == tenant, jobs.c.family == family, jobs.c.not_before <= Clock())


def _running(tenant: ColumnElement[str]) -> ScalarSelect[int]:
    return select(func.count()).select_from(jobs).where(is_claimed, jobs.c.tenant == tenant).scalar_subquery()


def _claimed(owner: str, lease_seconds: float) -> dict[str, Any]:
    return {
        "status": IN_PROGRESS,
        "owner": owner,
        "attempt": jobs.c.attempt + 1,
        "started_at": func.coalesce(jobs.c.started_at, Clock()),
        "lease_until": Clock() + lease_seconds,
    }


def _charge(connection: Connection, job: Job, *, start: float, weight: float) -> None:
    finish = start + job.cost / weight
    upsert(connection, tenants, {"tenant": job.tenant, "finish_tag": finish}, change={"finish_tag": finish})
    connection.execute(update(fairness).values(virtual_time=start))


def _forgive(connection: Connection, virtual_time: float) -> None:
    """Where nobody waits, nobody was kept waiting: what each has had counts no more (the end of a busy period)."""
    waits = connection.scalar(select(literal_column("1")).select_from(jobs).where(is_queued).limit(1))
    latest = connection.scalar(select(func.max(tenants.c.finish_tag)))
    if waits is None and latest is not None and latest > virtual_time:
        connection.execute(update(fairness).values(virtual_time=latest))


def _weight(limits: QueueLimits) -> ColumnElement[float]:
    return func.coalesce(tenants.c.weight, limits.weight)


def _later(one: ColumnElement[float], other: ColumnElement[float]) -> ColumnElement[float]:
    return case((one > other, one), else_=other)
