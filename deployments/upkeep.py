"""what has run out -> taken away: leases, finished videos, kept steps beyond the bound; and webhooks -> delivered"""

import asyncio
from collections.abc import Awaitable, Callable

from deployments.jobs.records import Job
from deployments.outgoing import Outgoing
from deployments.settings import ApiArgs, DispatcherConfig
from deployments.storage import Storage
from deployments.webhooks import Deliverer

SWEEP_SECONDS, DELIVERY_SECONDS = 30.0, 1.0
AT_ONCE = 200
IN_USE_SECONDS = 600.0  # for which a step is not removed: a job that found it may be reading it
DELIVERIES_KEPT_SECONDS = 7 * 86_400.0

Round = tuple[Callable[[], Awaitable[None]], float]


class Upkeep:
    """Every dispatcher does it; the database keeps them out of each other's way."""

    def __init__(self, args: ApiArgs, storage: Storage) -> None:
        self._args, self._storage = args, storage
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
            remove_video(job, storage=storage)
            storage.jobs.purge([job.id])
        for step in storage.kept.least_used(self._args.cache.max_bytes, AT_ONCE, IN_USE_SECONDS):
            # First the index: a job that finds it there may read it.
            storage.kept.forget(step.scope, [step.identity])
            storage.artifacts.delete(step.location)
        storage.outbox.purge(DELIVERIES_KEPT_SECONDS)


def remove_video(job: Job, *, storage: Storage) -> None:
    """All files of a job, and its video from among the results that answer the same request."""
    storage.kept.forget_location(f"videos/{job.id}/")
    storage.artifacts.delete_under(f"videos/{job.id}")
