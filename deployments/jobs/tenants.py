"""what is set for a tenant, and the defaults for what is not -> its share of the queue and the limits of its use"""

import math
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select

from aiprod_components.errors import ConfigError
from deployments.jobs.database import Database, upsert
from deployments.jobs.records import NO_LIMIT, QueueLimits
from deployments.jobs.tables import tenants


@dataclass(frozen=True)
class Tenant:
    """What is set for one tenant; None is the default of `QueueLimits`."""

    tenant: str
    weight: float | None = None
    max_queued: int | None = None
    max_running: int | None = None
    max_cost_per_day: float | None = None


@dataclass(frozen=True)
class Allowance:
    """What holds for one tenant."""

    max_queued: int
    max_cost_per_day: float


TENANT = [tenants.c[name] for name in Tenant.__dataclass_fields__]


class TenantStore:
    """What is set for the tenants; it holds from the next job on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, tenant: Tenant) -> None:
        """Sets all of a tenant's values. Raises ConfigError for one that would stop the queue."""
        if tenant.weight is not None and not 0 < tenant.weight < math.inf:
            raise ConfigError(f"weight must be a positive number, got {tenant.weight:g}", field="weight")
        for name in ("max_queued", "max_running", "max_cost_per_day"):
            most = math.inf if name == "max_cost_per_day" else NO_LIMIT
            if (value := getattr(tenant, name)) is not None and not 0 <= value <= most:
                raise ConfigError(f"{name} must be 0 to {most:g}, got {value:g}", field=name)
        values = asdict(tenant)
        with self._database.write() as connection:
            upsert(connection, tenants, {**values, "finish_tag": 0.0}, change=values)

    def list(self) -> list[Tenant]:
        """By name, those that have been served without anything set included."""
        with self._database.read() as connection:
            return [Tenant(**row) for row in connection.execute(select(*TENANT).order_by(tenants.c.tenant)).mappings()]


def allowance(connection: Connection, tenant: str, *, limits: QueueLimits) -> Allowance:
    """What holds for a tenant now."""
    found = select(tenants.c.max_queued, tenants.c.max_cost_per_day).where(tenants.c.tenant == tenant)
    max_queued, max_cost = connection.execute(found).one_or_none() or (None, None)
    return Allowance(
        max_queued=limits.max_queued if max_queued is None else max_queued,
        max_cost_per_day=limits.max_cost_per_day if max_cost is None else max_cost,
    )
