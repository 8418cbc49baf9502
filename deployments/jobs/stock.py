"""the tables as they are now -> how much waits, for how long, and how much is kept: what is measured by asking"""

from dataclasses import dataclass

from sqlalchemy import func, select

from deployments.jobs.clock import Clock
from deployments.jobs.database import Database
from deployments.jobs.records import IN_PROGRESS, QUEUED
from deployments.jobs.tables import is_claimed, is_queued, jobs, kept_steps, outbox

WAITING, GIVEN_UP = "waiting", "given_up"


@dataclass(frozen=True)
class Stock:
    """Jobs by (family, status), seconds that the oldest of a family has waited, events by state, bytes of kept steps."""

    jobs: dict[tuple[str, str], int]
    oldest: dict[str, float]
    webhooks: dict[str, int]
    kept_bytes: int


class Stocktaking:
    """Counts in the database, where indexes hold what lives: what has ended is not read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self) -> Stock:
        waiting = select(jobs.c.family, func.count(), Clock() - func.min(jobs.c.created_at)).where(is_queued).group_by(jobs.c.family)
        claimed = select(jobs.c.family, jobs.c.begun, func.count()).where(is_claimed).group_by(jobs.c.family, jobs.c.begun)
        events = select(func.count(outbox.c.due_at), func.count())
        kept = select(func.coalesce(func.sum(kept_steps.c.bytes), 0))
        counts: dict[tuple[str, str], int] = {}
        oldest: dict[str, float] = {}
        with self._database.read() as connection:
            for family, number, seconds in connection.execute(waiting):
                counts[family, QUEUED], oldest[family] = number, float(seconds)
            for family, has_begun, number in connection.execute(claimed):
                place = family, IN_PROGRESS if has_begun else QUEUED  # as clients are told it
                counts[place] = counts.get(place, 0) + number
            due, all_events = connection.execute(events).one()
            kept_bytes = int(connection.execute(kept).scalar_one())
        return Stock(counts, oldest, {WAITING: due, GIVEN_UP: all_events - due}, kept_bytes)
