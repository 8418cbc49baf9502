"""finished steps in the artifact store -> where each is, when it was last of use, and which must make room

A row is written after its file and removed before it: what is found here is there, but for one that is just being removed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, func, select, update

from deployments.jobs.clock import Clock
from deployments.jobs.database import Database, upsert
from deployments.jobs.tables import kept_steps

STEPS = "steps/"  # where steps are that live by their use; others live and go with a video
HIGHEST = "\U0010ffff"


@dataclass(frozen=True)
class Kept:
    """Where a step's result is."""

    location: str
    bytes: int
    meta: dict[str, Any]


@dataclass(frozen=True)
class Unneeded:
    """A step that can be removed, by its key."""

    scope: str
    identity: str
    location: str
    bytes: int


class KeptSteps:
    """Steps by their identity, within a scope that may share them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, scope: str, identity: str, location: str, bytes: int, meta: dict[str, Any]) -> None:
        """Notes a step that is in the store; of two results of one step the later counts."""
        values = {"location": location, "bytes": bytes, "meta": meta, "used_at": Clock()}
        with self._database.write() as connection:
            upsert(connection, kept_steps, {"scope": scope, "identity": identity, **values}, change=values)

    def find(self, scope: str, identities: Collection[str]) -> dict[str, Kept]:
        """Those that are kept; they count as used."""
        if not identities:
            return {}
        used = update(kept_steps).where(kept_steps.c.scope == scope, kept_steps.c.identity.in_(identities)).values(used_at=Clock())
        columns = (kept_steps.c.identity, kept_steps.c.location, kept_steps.c.bytes, kept_steps.c.meta)
        with self._database.write() as connection:
            return {row.identity: Kept(row.location, row.bytes, row.meta) for row in connection.execute(used.returning(*columns))}

    def forget(self, scope: str, identities: Collection[str]) -> int:
        """Says how many there were."""
        gone = delete(kept_steps).where(kept_steps.c.scope == scope, kept_steps.c.identity.in_(identities))
        with self._database.write() as connection:
            return connection.execute(gone).rowcount

    def forget_location(self, prefix: str) -> int:
        """Forgets all steps whose files are below; says how many there were."""
        with self._database.write() as connection:
            return connection.execute(delete(kept_steps).where(_below(prefix))).rowcount

    def unnamed(self, locations: Collection[str]) -> set[str]:
        """Those of the locations that no step is at."""
        if not locations:
            return set()
        named = select(kept_steps.c.location).where(kept_steps.c.location.in_(locations))
        with self._database.read() as connection:
            return set(locations) - set(connection.execute(named).scalars())

    def least_used(self, beyond_bytes: int, limit: int, idle_seconds: float) -> list[Unneeded]:
        """What has to go so that the steps take `beyond_bytes` at most: at most `limit`, longest unused first, none used this lately."""
        total = select(func.coalesce(func.sum(kept_steps.c.bytes), 0)).where(_below(STEPS))
        columns = (kept_steps.c.scope, kept_steps.c.identity, kept_steps.c.location, kept_steps.c.bytes)
        idle = select(*columns).where(_below(STEPS), kept_steps.c.used_at <= Clock() - idle_seconds)
        oldest = idle.order_by(kept_steps.c.used_at, kept_steps.c.identity).limit(limit)
        with self._database.read() as connection:
            excess = int(connection.execute(total).scalar_one()) - beyond_bytes
            steps = [Unneeded(*row) for row in connection.execute(oldest)] if excess > 0 else []
        needed: list[Unneeded] = []
        for step in steps:
            if excess <= 0:
                break
            needed.append(step)
            excess -= step.bytes
        return needed


def _below(prefix: str) -> Any:
    return and_(kept_steps.c.location >= prefix, kept_steps.c.location < prefix + HIGHEST)
