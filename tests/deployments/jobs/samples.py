"""jobs as tests ask for them, one by one or at once, and time as it passes for the database"""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import String, cast, insert, literal, select, update

from aiprod_components.errors import AiprodError
from deployments.jobs.database import Database
from deployments.jobs.records import IN_PROGRESS, Job, NewJob
from deployments.jobs.store import JobStore
from deployments.jobs.tables import jobs

Result = TypeVar("Result")
FAMILIES = ("miniature",)
LEASE = 60.0
AT_ONCE = 8
LOST = {"code": "worker_lost", "message": "the worker is gone"}


def new_job(tenant: str = "ada", **changes: Any) -> NewJob:
    job: dict[str, Any] = {
        "id": f"video_{secrets.token_hex(16)}",
        "tenant": tenant,
        "family": "miniature",
        "pipeline": "distilled",
        "record": {"prompt": "a red ball \x00 \ud800", "seed": 7},
        "shown": {"prompt": "a red ball"},
        "cost": 1.0,
        "priority": 0,
    }
    return NewJob(**(job | changes))


def create(store: JobStore, tenant: str = "ada", **changes: Any) -> Job:
    job, replayed = store.create(new_job(tenant, **changes))
    assert not replayed
    return job


def claim(store: JobStore, owner: str = "one", families: tuple[str, ...] = FAMILIES) -> Job:
    job = store.claim(owner, LEASE, families)
    assert job is not None
    return job


def pass_time(database: Database, id: str, seconds: float, *columns: str) -> None:
    """For these columns of a job it is so much later: the clock stands still and they move."""
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == id).values({name: jobs.c[name] - seconds for name in columns}))


def expire_lease(database: Database, id: str) -> None:
    pass_time(database, id, 2 * LEASE, "lease_until")


def multiply(database: Database, job: Job, number: int) -> None:
    """So many more jobs like this one, in a row after it, all in one statement."""
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < number))
    changed = {
        "id": jobs.c.id + "_" + cast(numbers.c.n, String),
        "created_at": jobs.c.created_at + numbers.c.n * 1e-6,
        "rank": jobs.c.rank + numbers.c.n * 1e-6,
        "idempotency_key": literal(None),
    }
    rows = select(*(changed.get(column.name, column) for column in jobs.c)).where(jobs.c.id == job.id)
    with database.write() as connection:
        connection.execute(insert(jobs).from_select([column.name for column in jobs.c], rows.join_from(jobs, numbers, literal(1) == 1)))


def running(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.scalars(select(jobs.c.id).where(jobs.c.status == IN_PROGRESS)))


def at_once(work: Callable[[int], Result]) -> list[Result | AiprodError]:
    """What so many threads get that begin together."""
    barrier = threading.Barrier(AT_ONCE)

    def run(number: int) -> Result | AiprodError:
        barrier.wait(timeout=30)
        try:
            return work(number)
        except AiprodError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(run, range(AT_ONCE)))
