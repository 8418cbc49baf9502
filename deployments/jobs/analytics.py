"""jobs that end -> rows that outlive them -> what a span of days was: jobs, times, GPU seconds and cost, reasons of failures"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, case, delete, func, insert, not_, select

from deployments.jobs.clock import Clock
from deployments.jobs.database import Database
from deployments.jobs.records import CANCELLED, COMPLETED, FAILED, Job
from deployments.jobs.tables import ended_jobs, ended_steps

DAY, HOUR = 86_400, 3600
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Day:
    """Jobs that ended on a day, by how."""

    day: date
    completed: int
    failed: int
    cancelled: int


@dataclass(frozen=True)
class Spread:
    """So many, half of which took at most `p50_seconds` and 95 of 100 at most `p95_seconds` (nearest rank; null of none)."""

    count: int
    p50_seconds: float | None
    p95_seconds: float | None


NONE = Spread(0, None, None)


@dataclass(frozen=True)
class StageTimes:
    """How long a stage ran for its steps, and how many steps it had not to run because their results were kept."""

    stage: str
    ran: Spread
    cache_hits: int


@dataclass(frozen=True)
class FamilyTimes:
    """Of a model: from asked for to taken up, from asked for to completed, and its stages."""

    family: str
    waited: Spread
    completed: Spread
    stages: tuple[StageTimes, ...]


@dataclass(frozen=True)
class Usage:
    """What a tenant's jobs of a model took: seconds of replicas and of GPUs, predicted cost, and money where a GPU hour has a price."""

    tenant: str
    family: str
    jobs: int
    replica_seconds: float
    gpu_seconds: float
    cost: float
    money: float | None


@dataclass(frozen=True)
class Failure:
    """How many jobs of a model failed with this code."""

    family: str
    code: str
    count: int


@dataclass(frozen=True)
class Analytics:
    """Of the jobs that ended from the day `since` to the day `until`, UTC, both included; of one tenant, or of all (null)."""

    since: date
    until: date
    tenant: str | None
    gpu_hour_price: float | None
    days: tuple[Day, ...]
    families: tuple[FamilyTimes, ...]
    usage: tuple[Usage, ...]
    failures: tuple[Failure, ...]


def note_ended(connection: Connection, ended: Sequence[Job]) -> None:
    """Writes what is counted of jobs, in the transaction that ended them: no way to end is left out, and none counts twice."""
    if ended:
        connection.execute(insert(ended_jobs), [_job_row(job) for job in ended])
    if steps := [_step_row(job, place, line) for job in ended for place, line in enumerate(job.stages)]:
        connection.execute(insert(ended_steps), steps)


def _job_row(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "day": int(job.ended_at // DAY),
        "ended_at": job.ended_at,
        "tenant": job.tenant,
        "family": job.family,
        "pipeline": job.pipeline,
        "status": job.status,
        "error": (job.error or {}).get("code"),
        "wait_seconds": None if job.started_at is None else job.started_at - job.created_at,
        "total_seconds": job.ended_at - job.created_at,
        "cost": job.cost if job.attempt else 0.0,  # as a quota has it: what nobody began is given back
    }


def _step_row(job: Job, place: int, line: Mapping[str, Any]) -> dict[str, Any]:
    """A line that an older version wrote may lack something, which is no reason not to end."""
    return {
        "job": job.id,
        "place": place,
        "day": int(job.ended_at // DAY),
        "tenant": job.tenant,
        "family": job.family,
        "stage": line.get("stage", ""),
        "queued_seconds": line.get("queued_seconds", 0.0),
        "run_seconds": line.get("run_seconds", 0.0),
        "gpus": line.get("gpus", 0),
        "cache_hit": line.get("cache_hit", False),
    }


class EndedJobs:
    """Asks the database anew at every question."""

    def __init__(self, database: Database, *, gpu_hour_price: float | None = None) -> None:
        self._database, self._price = database, gpu_hour_price

    def analyse(self, days: int, tenant: str | None = None) -> Analytics:
        """The last so many days, today included; of one tenant, or of all."""
        with self._database.read() as connection:
            until = _today(connection)
            since = until - days + 1
            jobs, steps = (_within(table, since, until, tenant) for table in (ended_jobs, ended_steps))
            return Analytics(
                since=_date(since),
                until=_date(until),
                tenant=tenant,
                gpu_hour_price=self._price,
                days=_days(connection, jobs, range(since, until + 1)),
                families=_families(connection, jobs, steps),
                usage=_usage(connection, jobs, steps, price=self._price),
                failures=_failures(connection, jobs),
            )

    def purge(self, kept_days: int) -> int:
        """Forgets the jobs that ended before the last so many days; says how many."""
        with self._database.write() as connection:
            last = _today(connection) - kept_days
            connection.execute(delete(ended_steps).where(ended_steps.c.day <= last))
            return connection.execute(delete(ended_jobs).where(ended_jobs.c.day <= last)).rowcount


def _today(connection: Connection) -> int:
    return int(connection.execute(select(Clock())).scalar_one() // DAY)


def _date(day: int) -> date:
    return EPOCH + timedelta(days=day)


def _within(table: Table, since: int, until: int, tenant: str | None) -> ColumnElement[bool]:
    whose = () if tenant is None else (table.c.tenant == tenant,)
    return and_(table.c.day.between(since, until), *whose)


def _days(connection: Connection, jobs: ColumnElement[bool], days: range) -> tuple[Day, ...]:
    """Those on which nothing ended too."""
    columns = ended_jobs.c.day, ended_jobs.c.status
    rows = connection.execute(select(*columns, func.count()).where(jobs).group_by(*columns))
    counts = {(day, status): count for day, status, count in rows}
    return tuple(Day(_date(day), *(counts.get((day, status), 0) for status in (COMPLETED, FAILED, CANCELLED))) for day in days)


def _families(connection: Connection, jobs: ColumnElement[bool], steps: ColumnElement[bool]) -> tuple[FamilyTimes, ...]:
    family, stage = (ended_jobs.c.family,), (ended_steps.c.family, ended_steps.c.stage)
    waited = _spreads(connection, family, ended_jobs.c.wait_seconds, and_(jobs, ended_jobs.c.wait_seconds.is_not(None)))
    completed = _spreads(connection, family, ended_jobs.c.total_seconds, and_(jobs, ended_jobs.c.status == COMPLETED))
    ran = _spreads(connection, stage, ended_steps.c.run_seconds, and_(steps, not_(ended_steps.c.cache_hit)))
    hits = _counts(connection, stage, and_(steps, ended_steps.c.cache_hit))
    stages: dict[str, list[StageTimes]] = {}
    for of, name in sorted(ran.keys() | hits.keys()):
        stages.setdefault(of, []).append(StageTimes(name, ran.get((of, name), NONE), hits.get((of, name), 0)))
    return tuple(
        FamilyTimes(of, waited.get((of,), NONE), completed.get((of,), NONE), tuple(stages.get(of, ())))
        for of in sorted(stages.keys() | {of for (of,) in (*waited, *completed)})
    )


def _usage(connection: Connection, jobs: ColumnElement[bool], steps: ColumnElement[bool], *, price: float | None) -> tuple[Usage, ...]:
    by_jobs, by_steps = (ended_jobs.c.tenant, ended_jobs.c.family), (ended_steps.c.tenant, ended_steps.c.family)
    seconds = func.sum(ended_steps.c.run_seconds), func.sum(ended_steps.c.run_seconds * ended_steps.c.gpus)
    rows = connection.execute(select(*by_steps, *seconds).where(steps).group_by(*by_steps))
    took = {(tenant, family): (float(replicas), float(gpus)) for tenant, family, replicas, gpus in rows}
    asked = select(*by_jobs, func.count(), func.sum(ended_jobs.c.cost)).where(jobs).group_by(*by_jobs).order_by(*by_jobs)
    found: list[Usage] = []
    for tenant, family, count, cost in connection.execute(asked):
        replicas, gpus = took.get((tenant, family), (0.0, 0.0))
        found.append(Usage(tenant, family, count, replicas, gpus, float(cost), None if price is None else gpus * price / HOUR))
    return tuple(found)


def _failures(connection: Connection, jobs: ColumnElement[bool]) -> tuple[Failure, ...]:
    """The most frequent first."""
    found = _counts(connection, (ended_jobs.c.family, ended_jobs.c.error), and_(jobs, ended_jobs.c.status == FAILED))
    return tuple(Failure(family, code or "unknown", count) for (family, code), count in sorted(found.items(), key=lambda item: -item[1]))


def _counts(connection: Connection, keys: Sequence[ColumnElement[Any]], where: ColumnElement[bool]) -> dict[tuple[Any, ...], int]:
    return {
        tuple(key): count for *key, count in connection.execute(select(*keys, func.count()).where(where).group_by(*keys).order_by(*keys))
    }


def _spreads(
    connection: Connection, keys: Sequence[ColumnElement[Any]], value: ColumnElement[Any], where: ColumnElement[bool]
) -> dict[tuple[Any, ...], Spread]:
    """By the keys. The nearest rank is the first whose share of all is large enough: told by whole numbers, alike on both databases."""
    rank, of = func.row_number().over(partition_by=keys, order_by=value), func.count().over(partition_by=keys)
    ranked = select(*keys, value.label("value"), rank.label("rank"), of.label("of")).where(where).subquery().c
    p50, p95 = (func.min(case((ranked.rank * 100 >= ranked.of * percent, ranked.value))) for percent in (50, 95))
    groups = [ranked[str(key.key)] for key in keys]
    found = connection.execute(select(*groups, func.count(), p50, p95).group_by(*groups))
    return {tuple(key): Spread(count, float(half), float(most)) for *key, count, half, most in found}
