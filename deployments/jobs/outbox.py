"""jobs that ended -> events, written with the change itself -> deliveries that are due, until they arrive or are given up"""

import random
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from deployments.jobs.clock import Clock
from deployments.jobs.database import Database
from deployments.jobs.records import Job
from deployments.jobs.tables import outbox
from deployments.telemetry.traces import job_context

FIRST_WAIT, LONGEST_WAIT, GROWTH = 5.0, 3600.0, 3.0  # seconds between tries: 5, 15, 45 … 3600, of which eight take an hour and a half
JITTER = 0.2
LONGEST_ERROR = 1000  # characters


@dataclass(frozen=True)
class Delivery:
    """An event on its way to a tenant's URL; `id` stays the same at every try, so a receiver knows it again."""

    id: str
    tenant: str
    url: str
    payload: dict[str, Any]
    created_at: float
    tries: int  # this one included
    error: str | None  # of the try before
    traceparent: str | None = None


DELIVERY = [outbox.c[field.name] for field in fields(Delivery)]


def announce(connection: Connection, ended: Iterable[Job]) -> None:
    """Writes the events of jobs that ended, in the transaction that ended them."""
    if rows := [_event(job, url=job.webhook_url) for job in ended if job.webhook_url is not None]:
        connection.execute(insert(outbox), rows)


class Outbox:
    """Events to deliver; each is delivered at least once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim_deliveries(self, limit: int, lease_seconds: float) -> list[Delivery]:
        """What is due, oldest first. A delivery that is neither confirmed nor refused is due again after its lease."""
        due = select(outbox.c.id).where(outbox.c.due_at <= Clock()).order_by(outbox.c.due_at, outbox.c.id).limit(limit)
        taken = (
            update(outbox)
            .where(outbox.c.id.in_(due.with_for_update(skip_locked=True)))
            .values(tries=outbox.c.tries + 1, due_at=Clock() + lease_seconds)
            .returning(*DELIVERY)
        )
        with self._database.write() as connection:
            deliveries = [Delivery(**row) for row in connection.execute(taken).mappings()]
        return sorted(deliveries, key=lambda delivery: (delivery.created_at, delivery.id))

    def delivered(self, id: str) -> None:
        """Forgets an event that arrived."""
        with self._database.write() as connection:
            connection.execute(delete(outbox).where(outbox.c.id == id))

    def undelivered(self, id: str, error: str, give_up_after: int = 8) -> None:
        """Puts an event off, for longer at each try; after so many tries it is given up and kept with its last error."""
        with self._database.write() as connection:
            tries = connection.scalar(select(outbox.c.tries).where(outbox.c.id == id, outbox.c.due_at.is_not(None)))
            if tries is not None:
                due_at = None if tries >= give_up_after else Clock() + wait_after(tries)
                change = update(outbox).where(outbox.c.id == id, outbox.c.tries == tries)  # else somebody tries it again already
                connection.execute(change.values(due_at=due_at, error=error[:LONGEST_ERROR]))

    def given_up(self, limit: int = 100) -> list[Delivery]:
        """The newest events that never arrived."""
        lost = select(*DELIVERY).where(outbox.c.due_at.is_(None)).order_by(outbox.c.created_at.desc(), outbox.c.id).limit(limit)
        with self._database.read() as connection:
            return [Delivery(**row) for row in connection.execute(lost).mappings()]

    def purge(self, kept_seconds: float) -> int:
        """Forgets what was given up and is older than this; says how many."""
        old = delete(outbox).where(outbox.c.due_at.is_(None), outbox.c.created_at < Clock() - kept_seconds)
        with self._database.write() as connection:
            return connection.execute(old).rowcount


def wait_after(tries: int) -> float:
    """Seconds until the next try; receivers that failed together are not asked again together."""
    return min(FIRST_WAIT * GROWTH ** (tries - 1), LONGEST_WAIT) * random.uniform(1 - JITTER, 1 + JITTER)


def _event(job: Job, *, url: str) -> dict[str, Any]:
    context = job_context(job.traceparent, job.id)
    event_id = f"evt_{secrets.token_hex(16)}"
    payload = {
        "type": f"video.{job.status}",
        "id": event_id,
        "object": "event",
        "created_at": int(job.ended_at),
        "data": {"id": job.id, "status": job.status, "error": job.error},
    }
    return {
        "id": event_id,
        "tenant": job.tenant,
        "url": url,
        "payload": payload,
        "created_at": job.ended_at,
        "tries": 0,
        "due_at": job.ended_at,
        "error": None,
        "traceparent": None if context is None else str(context),
    }
