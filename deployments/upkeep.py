"""what has run out -> taken away: leases, finished videos, kept steps beyond the bound; and webhooks -> delivered"""

import asyncio
from collections.abc import Awaitable, Callable

from deployments.assigning import Assigner
from deployments.outgoing import Outgoing
from deployments.settings import ApiArgs, DispatcherConfig
from deployments.webhooks import Deliverer

SWEEP_SECONDS, DELIVERY_SECONDS = 30.0, 1.0
AT_ONCE = 200
IN_USE_SECONDS = 600.0  # for which a step is not removed: a job that found it may be reading it
DELIVERIES_KEPT_SECONDS = 7 * 86_400.0

Round = tuple[Callable[[], Awaitable[None]], float]


class Upkeep:
    """Every dispatcher does it; the database keeps them out of each other's way."""

    def __init__(self, args: ApiArgs, assigner: Assigner) -> None:
        self._args, self._assigner = args, assigner
        self._storage = storage = assigner.storage
        self._deliverer = Deliverer(storage.outbox, Outgoing(args.outgoing), storage.webhook_secret)
        self._config = DispatcherConfig()

    def rounds(self, config: DispatcherConfig) -> tuple[Round, ...]:
        """What is to be done again and again, and the seconds between."""
        self._config = config
        return (self.reap, min(config.lease_seconds / 4, 5.0)), (self.sweep, SWEEP_SECONDS), (self.deliver, DELIVERY_SECONDS)

    async def reap(self) -> None:
        await asyncio.to_thread(self._storage.jobs.reap, self._config.max_attempts)

    async def sweep(self) -> None:
        await asyncio.to_thread(self._sweep)

    async def deliver(self) -> None:
        await self._deliverer.deliver_due()

    def _sweep(self) -> None:
        storage = self._storage
        for job in storage.jobs.expired(AT_ONCE):
            self._assigner.remove(job)
            storage.jobs.purge([job.id])
        for step in storage.kept.least_used(self._args.cache.max_bytes, AT_ONCE, IN_USE_SECONDS):
            # First the index: a job that finds it there may read it.
            storage.kept.forget(step.scope, [step.identity])
            storage.artifacts.delete(step.location)
        storage.outbox.purge(DELIVERIES_KEPT_SECONDS)
