"""real processes that claim jobs from one database and can be killed at any moment

They are forked from a server that has loaded everything once, and say what they do through a pipe.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from sqlalchemy import event

from deployments.jobs.database import open_database
from deployments.jobs.records import Claim, QueueLimits
from deployments.jobs.store import JobStore
from tests.deployments.jobs.samples import FAMILIES

PATIENCE = 30.0  # seconds for a worker to say something
MAX_ATTEMPTS = 100

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.deployments.jobs.workers"])


@dataclass(frozen=True)
class Worker:
    """A running process."""

    process: BaseProcess
    pipe: Connection

    def hear(self) -> Any:
        if not self.pipe.poll(PATIENCE):
            raise TimeoutError(f"a worker said nothing for {PATIENCE:g} s")
        return self.pipe.recv()

    def kill(self) -> None:
        """At once, as the kernel does it."""
        self.process.kill()
        self.process.join(PATIENCE)


@contextmanager
def working(work: Callable[..., None], url: str, *arguments: Any) -> Iterator[Worker]:
    """A process that does `work(url, pipe, *arguments)`; it is gone afterwards."""
    ours, theirs = _processes.Pipe(duplex=True)
    process = _processes.Process(target=work, args=(url, theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    worker = Worker(process, ours)
    try:
        yield worker
    finally:
        if process.is_alive():
            worker.kill()
        ours.close()


def open_only(url: str, say: Connection) -> None:
    """Opens the database, which may be new, as soon as it is told to."""
    say.send("ready")
    say.recv()
    open_database(url).close()
    say.send("opened")


def claim_all(url: str, say: Connection, owner: str) -> None:
    """Claims until nothing waits, and tells what it got."""
    store, claimed = JobStore(open_database(url), QueueLimits()), list[str]()
    while (job := store.claim(owner, 60.0, FAMILIES)) is not None:
        claimed.append(job.id)
    say.send(claimed)


def stop_before_commit(url: str, say: Connection) -> None:
    """Claims a job and stays in the transaction."""

    def stay(connection: object) -> None:
        say.send("claiming")
        time.sleep(PATIENCE)

    database = open_database(url)
    event.listen(database.engine, "commit", stay)
    JobStore(database, QueueLimits()).claim("doomed", 60.0, FAMILIES)


def stall(url: str, say: Connection, lease_seconds: float) -> None:
    """Claims a job, hears nothing until it is told to go on, then tries to keep and to finish it."""
    store = JobStore(open_database(url), QueueLimits())
    job = store.claim("stalled", lease_seconds, FAMILIES)
    assert job is not None
    held = Claim.of(job)
    say.send(held)
    say.recv()
    say.send((store.heartbeat([held], lease_seconds), store.finish(held, {"by": "stalled"}, [], None)))


def make_all(url: str, say: Connection, owner: str, lease_seconds: float) -> None:
    """Claims and finishes until no job is left, taking back what others lost; says each one it is at."""
    store = JobStore(open_database(url), QueueLimits())
    while any(store.counts().values()):
        store.reap(MAX_ATTEMPTS)
        if (job := store.claim(owner, lease_seconds, FAMILIES)) is None:
            time.sleep(0.01)
            continue
        say.send(job.id)
        store.report(Claim.of(job), {"percent": 50})
        time.sleep(0.01)  # at work
        store.finish(Claim.of(job), {"owner": owner, "attempt": job.attempt}, [], None)
    say.send(None)
