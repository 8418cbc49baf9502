"""jobs that somebody waits for -> one question to the database for all of them -> each watcher's next version of its job"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator

from sqlalchemy.exc import SQLAlchemyError

from aiprod_components.errors import UnavailableError
from deployments.jobs.records import Job
from deployments.jobs.store import JobStore

log = logging.getLogger("ray.serve")

LOOK_SECONDS = 0.05


class Watcher:
    """Follows jobs for as long as somebody watches; rests otherwise."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._waiting: dict[str, set[asyncio.Queue[Job | None]]] = defaultdict(set)
        self._versions: dict[str, int] = {}
        self._looking: asyncio.Task[None] | None = None

    async def changes(self, job: Job) -> AsyncIterator[Job | None]:
        """Every new version of the job that is seen; None when it is gone, which is the last."""
        queue: asyncio.Queue[Job | None] = asyncio.Queue()
        self._waiting[job.id].add(queue)
        # The oldest version that anybody has: it is told again to those who know it.
        self._versions[job.id] = min(self._versions.get(job.id, job.version), job.version)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        seen = job.version
        try:
            while True:
                changed = await queue.get()
                if changed is None:
                    yield None
                    return
                if changed.version > seen:
                    seen = changed.version
                    yield changed
        finally:
            self._waiting[job.id].discard(queue)
            if not self._waiting[job.id]:
                del self._waiting[job.id]
                self._versions.pop(job.id, None)

    async def _look(self) -> None:
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            asked = dict(self._versions)
            try:
                changes = await asyncio.to_thread(self._jobs.changed, asked)
            except (SQLAlchemyError, UnavailableError):
                log.exception("jobs could not be looked at; trying again")
                await asyncio.sleep(1)
                continue
            for job in changes.jobs:
                if job.id in self._versions:
                    self._versions[job.id] = job.version
                self._tell(job.id, job)
            for job_id in changes.gone:
                self._tell(job_id, None)

    def _tell(self, job_id: str, job: Job | None) -> None:
        for queue in self._waiting.get(job_id, ()):
            queue.put_nowait(job)
