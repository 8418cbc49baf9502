"""jobs that somebody waits for -> one question to the database for all of them -> each watcher's next version of its job"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator
from itertools import count

from sqlalchemy.exc import SQLAlchemyError

from aiprod_components.errors import UnavailableError
from deployments.jobs.records import QUEUED, Job
from deployments.jobs.store import JobStore

log = logging.getLogger("ray.serve")

LOOK_SECONDS = 0.05
LOOKS_PER_POSITION = 20


class Watcher:
    """Follows jobs for as long as somebody watches; rests otherwise."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._waiting: dict[str, set[asyncio.Queue[Job | None]]] = defaultdict(set)
        self._versions: dict[str, int] = {}
        self._latest: dict[str, Job] = {}
        self._positions: dict[str, int] = {}
        self._looking: asyncio.Task[None] | None = None

    async def changes(self, job: Job) -> AsyncGenerator[Job | None, None]:
        """Every new version of the job that is seen, and it again when its place in the queue is another. None, the last: it is gone."""
        queue: asyncio.Queue[Job | None] = asyncio.Queue()
        self._waiting[job.id].add(queue)
        # The oldest version that anybody has: it is told again to those who know it.
        self._versions[job.id] = min(self._versions.get(job.id, job.version), job.version)
        self._latest[job.id] = job
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        seen = job.version
        try:
            while True:
                changed = await queue.get()
                if changed is None:
                    yield None
                    return
                if changed.version > seen or changed.shown_status == QUEUED:
                    seen = max(seen, changed.version)
                    yield changed
        finally:
            self._waiting[job.id].discard(queue)
            if not self._waiting[job.id]:
                del self._waiting[job.id]
                for known in (self._versions, self._latest, self._positions):
                    known.pop(job.id, None)

    async def _look(self) -> None:
        for turn in count(1):
            await asyncio.sleep(LOOK_SECONDS)
            if not self._waiting:
                return
            try:
                changes = await asyncio.to_thread(self._jobs.changed, dict(self._versions))
                if turn % LOOKS_PER_POSITION == 0:
                    await self._look_at_the_queue()
            except (SQLAlchemyError, UnavailableError):
                log.exception("jobs could not be looked at; trying again")
                await asyncio.sleep(1)
                continue
            for job in changes.jobs:
                if job.id in self._versions:
                    self._versions[job.id] = job.version
                    self._latest[job.id] = job
                self._tell(job.id, job)
            for job_id in changes.gone:
                self._tell(job_id, None)

    async def _look_at_the_queue(self) -> None:
        """Moving up changes no row."""
        queued = {job_id: job for job_id, job in self._latest.items() if job.status == QUEUED}
        positions = await asyncio.to_thread(self._jobs.queue_positions, list(queued)) if queued else {}
        for job_id, position in positions.items():
            if self._positions.get(job_id) != position:  # at the first look too: nobody here knows what was told before
                self._tell(job_id, queued[job_id])
        self._positions = positions

    def _tell(self, job_id: str, job: Job | None) -> None:
        for queue in self._waiting.get(job_id, ()):
            queue.put_nowait(job)
