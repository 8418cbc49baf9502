"""the job table -> what live jobs take and how far they are, and what those that ended lately took"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, literal_column, select

from deployments.jobs.database import Database
from deployments.jobs.records import COMPLETED
from deployments.jobs.tables import is_claimed, is_queued, jobs

Receipts = list[dict[str, Any]]


@dataclass(frozen=True)
class Alike:
    """So many jobs of a family that wait for the same work, nothing of which is done."""

    family: str
    work: str
    count: int


@dataclass(frozen=True)
class Begun:
    """A job of which something is done: its receipts, and how far the step is that runs."""

    family: str
    work: str
    stages: Receipts
    progress: dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A job that was completed, and when."""

    family: str
    work: str
    stages: Receipts
    at: float


class LiveJobs:
    """Reads only. Of rows without their work, which an older version left, nothing is told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> tuple[list[Alike], list[Begun]]:
        """The live jobs of all tenants: the database counts those that nobody has begun, of which there may be thousands."""
        untouched = jobs.c.attempt == literal_column("0")
        known = jobs.c.work.is_not(None)
        alike = select(jobs.c.family, jobs.c.work, func.count()).where(is_queued, untouched, known).group_by(jobs.c.family, jobs.c.work)
        begun = select(jobs.c.family, jobs.c.work, jobs.c.stages, jobs.c.progress)
        with self._database.read() as connection:
            waiting = [Alike(*row) for row in connection.execute(alike)]
            again = [Begun(*row) for row in connection.execute(begun.where(is_queued, ~untouched, known))]
            return waiting, [*again, *(Begun(*row) for row in connection.execute(begun.where(is_claimed, known)))]

    def done_since(self, at: float, *, most: int) -> Sequence[Done]:
        """The latest so many of those completed after this time, oldest first."""
        columns = jobs.c.family, jobs.c.work, jobs.c.stages, jobs.c.completed_at
        latest = select(*columns).where(jobs.c.completed_at > at, jobs.c.status == COMPLETED, jobs.c.work.is_not(None))
        with self._database.read() as connection:
            rows = connection.execute(latest.order_by(jobs.c.completed_at.desc()).limit(most)).all()
        return [Done(*row) for row in reversed(rows)]
