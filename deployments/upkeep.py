"""what has run out -> taken away: leases, finished videos, kept steps beyond the bound; webhooks -> delivered; live work -> told"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from deployments.assigning import Assigner
from deployments.jobs.kept import STEPS
from deployments.outgoing import Outgoing
from deployments.settings import ApiArgs, DispatcherConfig
from deployments.telemetry.account import Account
from deployments.telling import Teller
from deployments.webhooks import Deliverer

REAP_SECONDS, SWEEP_SECONDS, DELIVERY_SECONDS, CLEARING_SECONDS, TELLING_SECONDS = 2.0, 30.0, 1.0, 3600.0, 1.0
AT_ONCE = 200
IN_USE_SECONDS = 600.0  # for which a step is not removed: a job that found it may be reading it
DELIVERIES_KEPT_SECONDS = 7 * 86_400.0

log = logging.getLogger("ray.serve")

Round = tuple[Callable[[], Awaitable[None]], float]


class Upkeep:
    """Every dispatcher does it; what one has taken away is no fault to another."""

    def __init__(self, args: ApiArgs, assigner: Assigner, account: Account) -> None:
        self._args, self._assigner, self._account = args, assigner, account
        self._storage = storage = assigner.storage
        self._unowned: set[str] = set()
        self._deliverer = Deliverer(storage.outbox, Outgoing(args.outgoing), storage.webhook_secret, account.delivered)
        self._teller = Teller(storage.live, [family.name for family in args.families])
        self.config = DispatcherConfig()

    @property
    def rounds(self) -> tuple[Round, ...]:
        """What is to be done again and again, and the seconds between."""
        rounds = (self.reap, REAP_SECONDS), (self.sweep, SWEEP_SECONDS), (self.deliver, DELIVERY_SECONDS)
        return (*rounds, (self.clear, CLEARING_SECONDS), (self.tell, TELLING_SECONDS))

    async def reap(self) -> None:
        self._account.reaped(await asyncio.to_thread(self._storage.jobs.reap, self.config.max_attempts))

    async def sweep(self) -> None:
        await asyncio.to_thread(self._sweep)

    async def deliver(self) -> None:
        await self._deliverer.deliver_due()

    async def tell(self) -> None:
        await asyncio.to_thread(self._teller.tell)

    async def clear(self) -> None:
        """Files that no row names: of an ingress, a dispatcher or a stage that died between the two, or a step's whose report was lost."""
        await asyncio.to_thread(self._clear)

    def _clear(self) -> None:
        artifacts, before = self._storage.artifacts, self._unowned
        videos = {f"videos/{name}" for name in _among(artifacts.folders("videos"), self._gone)}
        steps = _among(artifacts.keys_under(STEPS), self._storage.kept.unnamed)
        # Not at once: an upload lies there for a moment before its job does, and a step before its report.
        for folder in videos & before:
            artifacts.delete_under(folder)
        artifacts.delete(*(steps & before))
        self._unowned = (videos | steps) - before

    def _gone(self, names: Sequence[str]) -> set[str]:
        return self._storage.jobs.changed(dict.fromkeys(names, 0)).gone

    def _sweep(self) -> None:
        storage = self._storage
        for job in storage.jobs.expired(AT_ONCE):
            try:
                self._assigner.remove(job)
                storage.jobs.purge([job.id])
            except Exception:
                # One that cannot be removed must not keep all others.
                log.exception("%s could not be removed yet", job.id)
        for step in storage.kept.least_used(self._args.cache.max_bytes, AT_ONCE, IN_USE_SECONDS):
            # First the index: a job that finds it there may read it.
            storage.kept.forget(step.scope, [step.identity])
            storage.artifacts.delete(step.location)
        storage.outbox.purge(DELIVERIES_KEPT_SECONDS)
        storage.ended.purge(self._args.analytics.kept_days)


def _among(names: Sequence[str], unowned: Callable[[Sequence[str]], set[str]]) -> set[str]:
    """Those that nobody owns; the database is asked for a few at a time."""
    return {name for start in range(0, len(names), AT_ONCE) for name in unowned(names[start : start + AT_ONCE])}
