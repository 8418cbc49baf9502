"""JobStore: every question and every change that the service has for its jobs, each in one transaction"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Integer, and_, column, delete, func, or_, select, tuple_, values

from aiprod_components.errors import ConflictError, NotFoundError
from deployments.jobs import fairness, transitions
from deployments.jobs.admission import admit, known_by, refund
from deployments.jobs.clock import Clock
from deployments.jobs.database import Database
from deployments.jobs.records import CANCELLED, FINAL, IN_PROGRESS, LIVE, QUEUED, Changes, Claim, Job, NewJob, QueueLimits
from deployments.jobs.tables import Words, is_claimed, is_queued, jobs
from deployments.jobs.transitions import JOB, WAITING, change, conclude, end, held

Receipts = list[dict[str, Any]]


class JobStore:
    """The jobs of all tenants; safe for any number of threads and processes."""

    def __init__(self, database: Database, limits: QueueLimits) -> None:
        self._database, self._limits = database, limits

    def create(self, job: NewJob) -> tuple[Job, bool]:
        """The job, and whether it was there already by its idempotency key. Raises IdempotencyError, QueueFullError or QuotaError."""
        with self._database.write() as connection:
            return admit(connection, job, limits=self._limits)

    def replayed(self, tenant: str, key: str, body_hash: str) -> Job | None:
        """The job that was created under an idempotency key. Raises IdempotencyError when that was for another body."""
        with self._database.read() as connection:
            return known_by(connection, tenant, key, body_hash)

    def get(self, id: str) -> Job | None:
        return self._find(jobs.c.id == id)

    def get_owned(self, tenant: str, id: str) -> Job | None:
        """As `get`, but somebody else's job is none."""
        return self._find(_owned(tenant, id))

    def changed(self, versions: Mapping[str, int]) -> Changes:
        """What is not any more as it was at these versions."""
        if not versions:
            return Changes([], set())
        asked = values(column("id", Words), column("version", Integer), name="seen").data(list(versions.items())).cte("asked")
        now = select(asked.c.id.label("asked"), *JOB).select_from(asked.outerjoin(jobs, jobs.c.id == asked.c.id))
        with self._database.read() as connection:
            rows = connection.execute(now.where(or_(jobs.c.id.is_(None), jobs.c.version != asked.c.version))).mappings().all()
        found = [_job(row) for row in rows if row["id"] is not None]
        return Changes(found, {row["asked"] for row in rows if row["id"] is None})

    def counts(self) -> dict[str, int]:
        """How many are queued and in progress, as clients are shown it."""
        waiting, claimed, begun = (
            select(func.count()).select_from(jobs).where(*where).scalar_subquery()
            for where in ([is_queued], [is_claimed], [is_claimed, jobs.c.begun])
        )
        with self._database.read() as connection:
            queued, in_progress = connection.execute(select(waiting + claimed - begun, begun)).one()
        return {QUEUED: queued, IN_PROGRESS: in_progress}

    def queue_positions(self, ids: Sequence[str]) -> dict[str, int]:
        """1 is next. An estimate, for those that wait: it knows nothing of jobs to come, of busy stages and of limits on running jobs."""
        if not ids:
            return {}
        with self._database.read() as connection:
            return fairness.queue_positions(connection, ids, limits=self._limits)

    def claim(self, owner: str, lease_seconds: float, families: Collection[str]) -> Job | None:
        """The next job in fair order, which `owner` now must finish, or renew the lease of, in time."""
        if not families:
            return None
        with self._database.write() as connection:
            return fairness.claim_next(connection, owner, lease_seconds=lease_seconds, families=families, limits=self._limits)

    def pin(self, claim: Claim, fingerprint: str) -> bool:
        """Notes with which weights this attempt is made. False here and below: the job is not the claim's any more."""
        return self._change(claim, {"fingerprint": fingerprint})

    def heartbeat(self, claims: Collection[Claim], lease_seconds: float) -> set[Claim]:
        """Renews the leases; the claims that still hold."""
        if not claims:
            return set()
        with self._database.write() as connection:
            return transitions.heartbeat(connection, list(claims), lease_seconds=lease_seconds)

    def report(self, claim: Claim, progress: dict[str, Any] | None = None, stages: Receipts | None = None) -> bool:
        """A stage has started, and so far it is here; what is None stays."""
        told = {"progress": progress, "stages": stages}
        return self._change(claim, {"begun": True, **{name: value for name, value in told.items() if value is not None}})

    def finish(self, claim: Claim, output: dict[str, Any], stages: Receipts, retention_seconds: float | None) -> bool:
        """The video is where `output` says; the first to say so wins, and who is refused throws its own away."""
        return self._end(claim, transitions.completion(output, stages, retention_seconds))

    def fail(self, claim: Claim, error: dict[str, Any], stages: Receipts) -> bool:
        return self._end(claim, {**transitions.failure(error, self._limits.kept_seconds), "stages": stages})

    def release(self, claim: Claim, delay: float = 0.0) -> bool:
        """Back to the queue, in order, for at least `delay` seconds: not an attempt that counts."""
        return self._change(claim, {**WAITING, "not_before": Clock() + delay})

    def retry(self, claim: Claim, error: dict[str, Any], max_attempts: int, delay: float) -> bool:
        """A worker was lost, or the store refused: back to the queue for `delay` seconds or more, or the last try, failed with `error`."""
        kept_seconds = self._limits.kept_seconds
        with self._database.write() as connection:
            return bool(transitions.retry(connection, claim, error, max_attempts=max_attempts, delay=delay, kept_seconds=kept_seconds))

    def reap(self, max_attempts: int) -> list[Job]:
        """Takes back the jobs whose lease has expired: they wait again, or failed as `worker_lost` for good."""
        with self._database.write() as connection:
            return transitions.reap(connection, max_attempts=max_attempts, kept_seconds=self._limits.kept_seconds)

    def cancel(self, tenant: str, id: str) -> Job | None:
        """The cancelled job; None when the tenant has none of this id. Raises ConflictError when it has ended otherwise."""
        with self._database.write() as connection:
            if cancelled := transitions.cancel(connection, _owned(tenant, id), kept_seconds=self._limits.kept_seconds):
                refund(connection, cancelled[0])
                return cancelled[0]
        if (job := self.get_owned(tenant, id)) is not None and job.status != CANCELLED:
            raise ConflictError(f"video {id} is {job.status} and cannot be cancelled any more; delete it if it is not wanted")
        return job

    def delete(self, tenant: str, id: str) -> Job | None:
        """Forgets a job and returns it as it was; one that waits or is at work is cancelled by it."""
        with self._database.write() as connection:
            row = connection.execute(delete(jobs).where(_owned(tenant, id)).returning(*JOB, Clock().label("now"))).mappings().one_or_none()
            if row is None:
                return None
            job = _job(row)
            if job.status in LIVE:
                refund(connection, job)
                conclude(connection, [_job({**row, "status": CANCELLED, "completed_at": row["now"]})])
            return job

    def expired(self, limit: int) -> list[Job]:
        """Jobs that are past their time, oldest first: remove their files, then `purge` them."""
        due = select(*JOB).where(jobs.c.expires_at <= Clock(), jobs.c.status.in_(FINAL)).order_by(jobs.c.expires_at, jobs.c.id).limit(limit)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(due).mappings()]

    def purge(self, ids: Collection[str]) -> int:
        """Forgets those of the jobs that are past their time; says how many."""
        past = delete(jobs).where(jobs.c.id.in_(ids), jobs.c.expires_at <= Clock(), jobs.c.status.in_(FINAL))
        with self._database.write() as connection:
            return connection.execute(past).rowcount

    def _find(self, where: ColumnElement[bool]) -> Job | None:
        with self._database.read() as connection:
            row = connection.execute(select(*JOB).where(where)).mappings().one_or_none()
        return None if row is None else _job(row)

    def _change(self, claim: Claim, values: dict[str, Any]) -> bool:
        with self._database.write() as connection:
            return bool(transitions.apply(connection, change(held(claim), values)))

    def _end(self, claim: Claim, values: dict[str, Any]) -> bool:
        with self._database.write() as connection:
            return bool(end(connection, held(claim), values))

    def list(self, tenant: str, after: str | None, limit: int, order: Literal["asc", "desc"]) -> tuple[list[Job], bool]:
        """A page of the tenant's jobs, in the order in which they came, and whether there are more. Raises NotFoundError for `after`."""
        place = tuple_(jobs.c.created_at, jobs.c.id)
        page = select(*JOB).where(jobs.c.tenant == tenant).limit(limit + 1)
        page = page.order_by(*((c.desc() if order == "desc" else c.asc()) for c in (jobs.c.created_at, jobs.c.id)))
        with self._database.read() as connection:
            if after is not None:
                last = connection.execute(select(jobs.c.created_at, jobs.c.id).where(_owned(tenant, after))).one_or_none()
                if last is None:
                    raise NotFoundError(f"there is no video {after} to list the videos after; begin without after", field="after")
                page = page.where(place < tuple_(*last) if order == "desc" else place > tuple_(*last))
            found = [_job(row) for row in connection.execute(page).mappings()]
        return found[:limit], len(found) > limit


def _owned(tenant: str, id: str) -> ColumnElement[bool]:
    return and_(jobs.c.id == id, jobs.c.tenant == tenant)


def _job(row: Mapping[Any, Any]) -> Job:
    return Job(**{column.name: row[column.name] for column in JOB})
