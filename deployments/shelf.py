"""a replica's results -> memory and the artifact store; results of earlier steps back from there"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from aiprod_components.errors import UnavailableError
from deployments.artifacts import ArtifactStore
from deployments.envelope import Sealed
from deployments.keeping import KINDS, KeptStep, from_bytes, to_bytes
from deployments.memory import ResultMemory
from deployments.orders import ForJob

log = logging.getLogger("ray.serve")

# A file of 13 MB takes two processors and the memory for some 10 ms, in which the same 13 MB are on their way to the next stage: that
# way took half as long again (docs/decisions.md, 83).
HAND_OVER_SECONDS = 0.025


class Shelf:
    """Writes in a thread of its own, and a moment later: nobody waits for what only a later attempt may need."""

    def __init__(self) -> None:
        self._memory, self._stores = ResultMemory(), dict[str, ArtifactStore]()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shelf")

    def store(self, url: str) -> ArtifactStore:
        if url not in self._stores:
            self._stores[url] = ArtifactStore(url)
        return self._stores[url]

    def fetch(self, source: Sealed | KeptStep, job: ForJob | None) -> Sealed:
        """Raises MissingArtifactError when what was kept is not there any more."""
        if isinstance(source, Sealed):
            return source
        assert job is not None, "only a job's steps are kept"
        known = self._memory.get(source.identity)
        if known is None:
            known = from_bytes(self.store(job.artifacts).get(source.location))
            self._memory.put(source.identity, known)
        return known

    def keep(self, sealed: Sealed, job: ForJob, *, then: Callable[[int], None]) -> None:
        """`then` is told how many bytes were kept: 0 for a published video, and where it could not be."""
        if sealed.kind.__name__ not in KINDS:
            then(0)
            return
        # As it will be read from the store: who made it was for this job, and is no news to another.
        self._memory.put(job.identity, replace(sealed, receipts=()))
        self._writer.submit(self._write, sealed, job, then)

    def _write(self, sealed: Sealed, job: ForJob, then: Callable[[int], None]) -> None:
        time.sleep(HAND_OVER_SECONDS)
        data = to_bytes(sealed)
        # Should it be needed and not be there, it is computed again.
        then(len(data) if self._put(job.artifacts, job.location, data) else 0)

    def put_later(self, artifacts: str, key: str, data: bytes) -> None:
        """What may be lost, and must keep nobody waiting."""
        self._writer.submit(self._put, artifacts, key, data)

    def _put(self, artifacts: str, key: str, data: bytes | memoryview) -> bool:
        try:
            self.store(artifacts).put(key, data)
        except UnavailableError as error:
            log.warning("%s could not be written: %s", key, error.__cause__)
            return False
        return True
